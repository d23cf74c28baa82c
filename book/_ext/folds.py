"""A folded cell shows its title on the button that opens it, so not a second time in its code.

On Colab the title is the cell's first line, ``# @title ...``; the page leaves that line out. And
each button is called as it reads: myst-nb calls them all "Toggle hidden content".
"""

from docutils import nodes

TITLE = "# @title "
ALL_ALIKE = '<summary aria-label="Toggle hidden content">'


def without_titles(app, doctree):
    for block in list(doctree.findall(nodes.literal_block)):
        first, _, code = block.astext().partition("\n")
        if first.startswith(TITLE) and code.strip():
            block.rawsource = code
            block.children = []
            block += nodes.Text(code)


def named_as_they_read(app, page, template, context, doctree):
    if context.get("body"):
        context["body"] = context["body"].replace(ALL_ALIKE, "<summary>")


def setup(app):
    app.connect("doctree-read", without_titles)
    app.connect("html-page-context", named_as_they_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
