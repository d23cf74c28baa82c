"""Make notebooks readable in a diff: stable ids, nothing volatile, small pictures."""

import argparse
import base64
import hashlib
import io
import re

from . import notebooks

KEPT = ("tags", "cellView", "mystnb")
COLORS = 192
METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def code_hash(nb) -> str:
    """Hash of the code cells. A notebook keeps that of the code that was run.

    So stale outputs show. The generated first cell does not count: it names the repository's
    address, and a notebook need not run again because the course has moved.
    """
    digest = hashlib.sha256()
    for cell in notebooks.code_cells(nb):
        if not notebooks.is_first(cell):
            digest.update(cell.source.encode() + b"\0")
    return digest.hexdigest()[:16]


def as_on_screen(text: str) -> str:
    """What a terminal shows of a text.

    Colours are dropped, and so is what a carriage return overwrote, as progress bars do.
    """
    lines = []
    for line in ANSI.sub("", text).split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip() if "\r" in line else shown)
    return "\n".join(lines)


def small_png(picture: str) -> str:
    """A base64 PNG with at most `COLORS` colours, on white.

    One that is in palette mode, or would grow, is left as it is.
    """
    from PIL import Image

    raw = base64.b64decode(picture)
    image = Image.open(io.BytesIO(raw))
    if image.mode == "P":
        return picture
    image = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    out = io.BytesIO()
    if flat.getcolors(COLORS):
        few = flat.quantize(COLORS)  # exactly its colours
    else:  # the median cut spends its colours on what fills the page: a colour bar would jump
        few = flat.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    few.save(out, "PNG", optimize=True)
    small = out.getvalue()
    return base64.b64encode(small).decode() if len(small) < len(raw) else picture


def _merged(outputs: list) -> list:
    """Outputs with each run of pieces of one stream joined."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        both = last and output.output_type == last.output_type == "stream"
        if both and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _shown_size(metadata: dict) -> dict:
    """How wide and high a page shows a picture, which has two dots per pixel; nothing else.

    Nothing but the picture for a phone (`plots.phone`), if there is one.
    """
    size = metadata.get("image/png", {})
    phone = {"phone": small_png(size["phone"].strip())} if "phone" in size else {}
    size = {side: size[side] for side in ("width", "height") if side in size}
    return {"image/png": size | phone} if size or phone else {}


def _outputs(outputs: list, count: int | None) -> list:
    """The outputs of a cell with this count, without what is empty or only for a live page."""
    kept = []
    shown = [output for output in outputs if WIDGET not in output.get("data", {})]
    for output in _merged(shown):
        if output.output_type == "execute_result":
            output.execution_count = count
        if "metadata" in output:
            output.metadata = _shown_size(output.metadata)
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = small_png(output.data["image/png"].strip())
        if output.output_type == "stream":
            output.text = as_on_screen(output.text)
            if not output.text.strip():
                continue
        kept.append(output)
    return _merged(kept)


def _name(cell, index: int) -> str:
    """What a cell is called: by its part in the chapter, else by its content."""
    if index == 0 and cell.cell_type == "markdown":
        return "title"
    if notebooks.is_first(cell):
        return "setup"
    if name := notebooks.exercise_of(cell):
        return f"exercise-{name}"[:60]
    if name := notebooks.checked_by(cell):
        return f"check-{name}"[:60]
    if name := notebooks.lab_of(cell):
        return f"answer-{name}"
    if lab := notebooks.scored_by(cell):
        return f"score-{lab[0]}"
    return hashlib.sha256(cell.source.encode()).hexdigest()[:8]


def normalise(nb) -> None:
    """Normalise a notebook in place.

    Ids follow the content, so that a new cell does not rename those after it. The hash of the code
    that was run is kept, not renewed: only running the notebook does that.
    """
    ran = nb.metadata.get("mtl_course", {}).get("code")
    nb.metadata = {**METADATA, **({"mtl_course": {"code": ran}} if ran else {})}
    nb.nbformat, nb.nbformat_minor = 4, 5
    count, taken = 0, {}
    for index, cell in enumerate(nb.cells):
        name = _name(cell, index)
        taken[name] = taken.get(name, 0) + 1
        cell["id"] = name if taken[name] == 1 else f"{name}-{taken[name]}"
        cell.metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        if cell.cell_type == "code":
            if cell.execution_count:
                count += 1
                cell.execution_count = count
            cell.outputs = _outputs(cell.outputs, cell.execution_count)


def main(arguments: list[str]) -> int:
    """Normalise the notebooks of the chapters."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev normalise", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    asked = parser.parse_args(arguments).chapters
    for chapter, path in notebooks.chosen(parser, asked, labs=True):
        nb = notebooks.read(path)
        normalise(nb)
        notebooks.write(nb, path)
        print(f"{chapter.notebook}: normalised")
    return 0
