"""A formula in a line of text keeps what is written onto it: no comma begins the next line.

A browser takes a drawn formula for a picture, and may break the line on either side of it. Here a
formula and the signs beside it, such as a bracket before it and a full stop after it, come into one
span, which does not break.
"""

import re

from docutils import nodes

# After a formula: a short rest of the word, as in "$n$th," and "$x$'s", or else its signs alone.
AFTER = re.compile(r"\S{1,9}(?=\s|$)|[^\w\s]+")
BEFORE = re.compile(r"[(\[{\"'\u2018\u201c]+$")  # what opens


def bind(app, doctree, docname):
    """Put each formula with signs beside it, and these signs, into one inline node."""
    if app.builder.format != "html":
        return
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        # By identity: docutils finds texts by equality, and two in a line may be equal.
        place = next(i for i, one in enumerate(parent.children) if one is formula)
        beside = parent.children[max(place - 1, 0) : place], parent.children[place + 1 : place + 2]
        before, after = (
            one[0] if one and isinstance(one[0], nodes.Text) else None for one in beside
        )
        opens = BEFORE.search(before.astext()) if before else None
        closes = AFTER.match(after.astext()) if after else None
        if not opens and not closes:
            continue
        whole = nodes.inline("", "", classes=["unbroken"])
        parent[place] = whole
        if opens:
            whole += nodes.Text(opens[0])
            parent[place - 1] = nodes.Text(before.astext()[: opens.start()])
        whole += formula
        if closes:
            whole += nodes.Text(closes[0])
            parent[place + 1] = nodes.Text(after.astext()[closes.end() :])


def setup(app):
    app.connect("doctree-resolved", bind, priority=900)  # after the links, which read the texts
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
