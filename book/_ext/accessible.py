"""Mend the pages' HTML for keyboards and screen readers, where docutils and the theme leave
something to do.

A diagram, or a figure of several panels, that is too wide for a phone scrolls in a box of its own,
which a keyboard must be able to reach (the theme sees to code and tables). Docutils gives the
entries of a bibliography a role that ARIA has withdrawn. The empty corner of a table heads nothing.
Chinese terms are marked as Chinese, so that they are pronounced, and drawn, as such.
"""

import re

MENDS = [
    (
        re.compile(r"<figure (?=[^>]*>\s*<img [^>]*class=\"[^\"]*\b(?:diagram|panels)\b)"),
        '<figure tabindex="0" ',
    ),
    (re.compile(r' role="doc-biblioentry"'), ' role="listitem"'),
    (re.compile(r'<th class="head">(<p></p>)?</th>'), "<td></td>"),
    (
        re.compile(r"[\u3400-\u9fff]+(?![^<]*>)"),
        r'<span lang="zh">\g<0></span>',
    ),  # in text, not in a tag's attributes
]


def mend(app, pagename, templatename, context, doctree):
    for pattern, new in MENDS:
        context["body"] = pattern.sub(new, context.get("body", ""))


def setup(app):
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
