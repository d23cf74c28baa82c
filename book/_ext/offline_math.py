"""Serve MathJax from the installed package sphinx-mathjax-offline, and formulas that it takes.

One file of 2 MB, no network; it works from file://.
"""

from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset_file

SCRIPT = "tex-svg.js"  # input, output and glyphs in one file: nothing is fetched at run time


def copy_mathjax(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    package = find_spec("sphinx-mathjax-offline")  # with hyphens: that is the folder's name
    if package is None:
        raise ExtensionError(
            "The package sphinx-mathjax-offline is missing: pip install -r requirements-book.txt"
        )
    target = Path(app.outdir, "_static", "mathjax", SCRIPT)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_asset_file(Path(package.origin).parent / "static" / "mathjax" / SCRIPT, target)


def keep_tags(app, doctree, docname):
    """Numbered formulas of several lines as they are.

    Sphinx puts a formula with a line break into ``split``, where MathJax refuses the number.
    """
    before, after = app.config.mathjax_display
    for formula in doctree.findall(nodes.math_block):
        tex = formula.astext()
        if "\\\\" in tex and "\\tag{" in tex and not formula.get("nowrap"):
            formula["nowrap"] = True
            formula.children = [nodes.Text(f"{before}{tex}{after}")]


def setup(app):
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("build-finished", copy_mathjax)
    app.connect("doctree-resolved", keep_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
