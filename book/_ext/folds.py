"""A folded cell shows its title on the button that opens it, so not a second time in its code.

On Colab the title is the cell's first line, ``# @title ...``; the page leaves that line out.
"""

from docutils import nodes

TITLE = "# @title "


def without_titles(app, doctree):
    for block in list(doctree.findall(nodes.literal_block)):
        first, _, code = block.astext().partition("\n")
        if first.startswith(TITLE) and code.strip():
            block.rawsource = code
            block.children = []
            block += nodes.Text(code)


def setup(app):
    app.connect("doctree-read", without_titles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
