"""The directive ``cover-figure``: one figure of a chapter on the cover.

The directive's content is its caption.
It is the stored output of the cell tagged ``cover`` in `NOTEBOOK`, so the cover shows what the
chapter last computed. The picture goes to `TARGET` before the pages are read; its alt text is the
cell's.
"""

import base64
import json
from pathlib import Path
from typing import ClassVar

from docutils.parsers.rst.directives import unchanged
from sphinx.directives.patches import Figure
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

NOTEBOOK = "notebooks/01_mtl_objective.ipynb"
TARGET = "book/_generated/cover.png"


def cover_cell(root: Path) -> dict:
    """The one cell of the notebook that is tagged ``cover``; ExtensionError for none or more."""
    notebook = root / NOTEBOOK
    if not notebook.exists():
        raise ExtensionError(f"The cover's figure comes from {NOTEBOOK}, which is not there.")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "cover" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ExtensionError(
            f"{NOTEBOOK} needs one cell tagged `cover`, whose figure the cover shows; it has"
            f" {len(tagged)}."
        )
    return tagged[0]


def stored_figure(cell: dict) -> bytes:
    """The PNG in the cell's output; ExtensionError if the notebook was saved without it."""
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}):
            return base64.b64decode("".join(output["data"]["image/png"]))
    raise ExtensionError(
        f"The cell tagged `cover` in {NOTEBOOK} holds no figure: run the notebook and save it (make"
        " notebooks)."
    )


def width(cell: dict) -> str:
    """How wide the figure is shown, which has two dots per pixel; empty if it does not say."""
    for output in cell.get("outputs", []):
        size = output.get("metadata", {}).get("image/png", {})
        if size.get("width"):
            return f"{size['width']}px"
    return ""


def write_cover(app):
    figure = stored_figure(cover_cell(Path(app.srcdir)))
    target = Path(app.srcdir, TARGET)
    if (
        not target.exists() or target.read_bytes() != figure
    ):  # an untouched file keeps the cover page up to date
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(figure)


class CoverFigure(SphinxDirective, Figure):
    required_arguments = 0
    option_spec: ClassVar[dict] = {"name": unchanged}

    def run(self):
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / NOTEBOOK))
        self.arguments = [f"/{TARGET}"]
        if wide := width(cover_cell(root)):
            self.options["width"] = wide
        self.options["alt"] = (
            cover_cell(root)["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        )
        if not self.options["alt"]:
            raise ExtensionError(
                f"The cell tagged `cover` in {NOTEBOOK} needs an alt text in its metadata: mystnb,"
                " image, alt."
            )
        return super().run()


def setup(app):
    app.connect("builder-inited", write_cover)
    app.add_directive("cover-figure", CoverFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
