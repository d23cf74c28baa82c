"""Drawings of mechanisms: the SVG files of `mtl_course/drawings`, shown in the page."""

import re
import textwrap
from html import escape, unescape
from pathlib import Path

from .._output import Output

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
# A wide drawing gives way to its narrow twin on a phone.
TWIN = (
    "<style>.mtl-narrow{display:none}@media (max-width:600px){"
    ".mtl-wide{display:none}.mtl-narrow{display:inline}}</style>"
)


def drawing(name: str, caption: str = "") -> Output:
    """One of the course's drawings, to stand as the last line of a cell.

    It follows the page's light or dark theme, and a wide one has another shape on a phone.

    Args:
        name: of the drawing; a wrong one lists them all.
        caption: a sentence to stand below it.

    Returns:
        The drawing: inline SVG in a notebook, its alt text elsewhere.

    Raises:
        ValueError: if there is no drawing of this name.

    Example:
        >>> shown = drawing("joint_step")
        >>> shown.html.startswith('<figure class="mtl-drawing"')
        True
        >>> print(str(shown).split(":")[0])
        Drawing
    """
    files = {path.stem: path for path in sorted(FOLDER.glob("*.svg"))}
    names = [stem for stem in files if not stem.endswith("_phone")]
    if name not in names:
        raise ValueError(f"There is no drawing {name!r}. There are: {', '.join(names)}.")
    svg = files[name].read_text(encoding="utf-8").strip()
    alt = unescape(re.search(r"<desc[^>]*>(.*?)</desc>", svg, re.S)[1])
    if narrow := files.get(f"{name}_phone"):
        twin = narrow.read_text(encoding="utf-8").strip()
        svg = f'{TWIN}<span class="mtl-wide">{svg}</span>\n<span class="mtl-narrow">{twin}</span>'
    below = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    html = (
        '<figure class="mtl-drawing" style="margin:1em 0;text-align:center">\n'
        f"{svg}\n{below}</figure>"
    )
    text = textwrap.fill(f"Drawing: {alt}", 76)
    return Output(html, f"{text}\n{textwrap.fill(caption, 76)}" if caption else text)
