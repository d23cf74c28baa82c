"""Put one figure of a chapter on the cover: the stored output of the cell tagged ``cover`` in the notebook `NOTEBOOK`.

It is written to ``book/_generated/cover.png`` before the pages are read, so the cover shows what the chapter last computed.
"""

import base64
import json
from pathlib import Path

from sphinx.errors import ExtensionError

NOTEBOOK = "notebooks/01_mtl_objective.ipynb"
TARGET = "book/_generated/cover.png"


def stored_figure(notebook: Path) -> bytes:
    """The PNG in the output of the one cell tagged ``cover``; ExtensionError that says what is missing."""
    if not notebook.exists():
        raise ExtensionError(f"The cover's figure comes from {NOTEBOOK}, which is not there.")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "cover" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ExtensionError(f"{NOTEBOOK} needs one cell tagged `cover`, whose figure the cover shows; it has {len(tagged)}.")
    for output in tagged[0].get("outputs", []):
        if "image/png" in output.get("data", {}):
            return base64.b64decode("".join(output["data"]["image/png"]))
    raise ExtensionError(f"The cell tagged `cover` in {NOTEBOOK} holds no figure: run the notebook and save it (`make notebooks`).")


def write_cover(app):
    figure = stored_figure(Path(app.srcdir, NOTEBOOK))
    target = Path(app.srcdir, TARGET)
    if not target.exists() or target.read_bytes() != figure:  # an untouched file keeps the cover page up to date
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(figure)


def setup(app):
    app.connect("builder-inited", write_cover)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
