"""The directive ``drawing``: a drawing of a mechanism, inline, as a figure with a number.

Its argument is the name of a file in `mtl_course/drawings`; its content is the caption. The alt
text is the drawing's own description. A drawing that has a narrow twin gives way to it on a phone,
as `mtl_course.plots.drawing` does in notebooks.
"""

import re
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst.directives import unchanged
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

DRAWINGS = Path("mtl_course", "drawings")


def svg(root: Path, name: str) -> str:
    """A drawing as HTML, with its twin; ExtensionError lists the names if there is none."""
    files = {path.stem: path for path in sorted((root / DRAWINGS).glob("*.svg"))}
    if name not in files:
        names = ", ".join(stem for stem in files if not stem.endswith("_phone"))
        raise ExtensionError(f"There is no drawing {name!r}. There are: {names}.")
    wide = files[name].read_text(encoding="utf-8").strip()
    if f"{name}_phone" not in files:
        return wide
    narrow = files[f"{name}_phone"].read_text(encoding="utf-8").strip()
    return f'<span class="mtl-wide">{wide}</span><span class="mtl-narrow">{narrow}</span>'


# What most elements of a drawing say, as classes: a page with thirty drawings is a fifth lighter.
SHORT = {
    ' fill="none" stroke="currentColor"': ("d1", "fill:none;stroke:currentColor"),
    ' stroke="currentColor"': ("d2", "stroke:currentColor"),
    ' text-anchor="middle"': ("d3", "text-anchor:middle"),
    ' font-style="italic"': ("d4", "font-style:italic"),
}
RULES = "".join(f".mtl-svg .{name}{{{rule}}}" for name, rule in SHORT.values())
TAG = re.compile(r"<(path|rect|circle|ellipse|text|tspan|g|line|polygon)\b([^<>]*?)(/?)>")


def lean(html: str) -> str:
    """A drawing in fewer words, for a page that has its style sheet, which gives its colours."""

    def shorter(tag):
        name, words, end = tag.groups()
        classes = re.findall(r' class="([^"]*)"', words)
        if any(mark.startswith("mtl-") for mark in classes):
            words = re.sub(r' color="#[0-9A-Fa-f]{6}"', "", words)
        for long, (short, _) in SHORT.items():
            if long in words:
                words = words.replace(long, "")
                classes.append(short)
        words = re.sub(r' class="[^"]*"', "", words)
        marked = f' class="{" ".join(classes)}"' if classes else ""
        return f"<{name}{marked}{words}{end}>"

    return TAG.sub(shorter, html).replace("</style>", f"{RULES}</style>")


def without_style(html: str) -> str:
    """Without the style sheet, which is the same in every drawing: a page needs it once."""
    return re.sub(r"<style>.*?</style>", "", html, flags=re.S)


class Drawing(SphinxDirective):
    """A figure whose picture is inline SVG, so that it follows the page's light or dark mode."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict] = {"name": unchanged}

    def run(self):
        root, name = Path(self.env.srcdir), self.arguments[0]
        for stem in (name, f"{name}_phone"):
            self.env.note_dependency(str(root / DRAWINGS / f"{stem}.svg"))
        words = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, words)
        if len(words) != 1 or not isinstance(words[0], nodes.paragraph):
            raise ExtensionError(f"The drawing {name!r} needs one paragraph as its caption.")
        figure = nodes.figure(classes=["mtl-drawing"])
        html = lean(svg(root, name))
        if self.env.temp_data.setdefault("drawing", name) != name:
            html = without_style(html)
        figure += nodes.raw("", html, format="html")
        figure += nodes.caption("", "", *words[0].children)
        self.add_name(figure)
        return [figure]


def setup(app):
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
