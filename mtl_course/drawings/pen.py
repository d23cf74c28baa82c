"""The pen: boxes, arrows and words in the course's colours, written as plain SVG.

Text stays text, with sub- and superscripts in the markup ``*L*_1``, ``w^{-2}``: stars make italics.
Colours are the `color` of an element, so that all else is `currentColor`; CSS gives them other
values on a dark page. A label that does not fit its box, leaves the drawing or lies on another one
is an error here, not a surprise on the page.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from xml.sax.saxutils import escape

from .look import FONT, LIGHT, SIZE, SMALL, measure, pieces, raised_size, style
from .places import Box, Point, opacity, towards, write

DRAWINGS: dict[str, Callable] = {}  # name -> function () -> Pen


def drawing(function: Callable) -> Callable:
    """Register a function without arguments that returns a `Pen`: its name is the drawing's."""
    name = function.__name__
    if DRAWINGS.get(name, function).__module__ != function.__module__:
        raise ValueError(f"Two modules draw {name}.")
    DRAWINGS[name] = function
    return function


INHERITED = {"fill": "currentColor", "stroke_width": 1.8}  # from the drawing's root


class Pen:
    """One drawing. `title` names it, `desc` is its alt text; coordinates are the viewBox's."""

    def __init__(self, name: str, width: int, height: int, title: str, desc: str, zoom=1.0):
        self.name, self.width, self.height, self.zoom = name, width, height, zoom
        self.title, self.desc = title, " ".join(desc.split())
        self.parts: list[str] = []
        self.words: list[tuple[str, Box]] = []
        self._shift = (0.0, 0.0)

    def element(self, tag: str, role: str = "", content: str = "", **attributes) -> None:
        if role and role != "ink":
            attributes = {"class": f"mtl-{role}", "color": LIGHT[role], **attributes}
        given = "".join(
            f' {key.replace("_", "-")}="{write(v) if isinstance(v, (int, float)) else v}"'
            for key, v in attributes.items()
            if v is not None and INHERITED.get(key) != v
        )
        self.parts.append(f"<{tag}{given}>{content}</{tag}>" if content else f"<{tag}{given}/>")

    @contextmanager
    def moved(self, dx: float, dy: float):
        """What is drawn inside is moved: panels of a sheet are drawn as they are alone."""
        before = self._shift
        self._shift = before[0] + dx, before[1] + dy
        self.parts.append(f'<g transform="translate({write(dx, dy)})">')
        yield
        self.parts.append("</g>")
        self._shift = before

    # ------------------------------------------------------------------------------------- words
    def text(
        self, x: float, y: float, label: str, size: float = SIZE, anchor: str = "middle",
        bold: bool = False, role: str = "ink", halo: bool = False,
    ) -> Box:  # fmt: skip
        """Lines of text, the middle of their block at height y. A halo parts them from a line."""
        lines = label.split("\n")
        step = 1.2 * size
        width = max(measure(line, size, bold) for line in lines)
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        box = Box(left, y - step * len(lines) / 2, width, step * len(lines))
        self._place(label, box)
        if halo:
            inside = Box(box.x - 2, box.y, box.w + 4, box.h)
            self.element("rect", "paper", x=inside.x, y=inside.y, width=inside.w, height=inside.h,
                      fill="currentColor")  # fmt: skip
        weight = 600 if bold else None
        for k, line in enumerate(lines):
            base = y + (k - (len(lines) - 1) / 2) * step + 0.35 * size
            runs, drop = "", 0.0
            for piece, raised, italic in pieces(line):
                want = {"": 0.0, "_": 0.22 * size, "^": -0.35 * size}[raised]
                marks = f' dy="{write(want - drop)}"' if round(want - drop, 1) else ""
                marks += f' font-size="{write(raised_size(size))}"' if raised else ""
                marks += ' font-style="italic"' if italic else ""
                runs += f"<tspan{marks}>{escape(piece)}</tspan>" if marks else escape(piece)
                drop = want
            self.element("text", role, runs, x=x, y=base, font_size=size, font_weight=weight,
                      text_anchor=None if anchor == "start" else anchor)  # fmt: skip
        return box

    def _place(self, label: str, box: Box) -> None:
        x, y = box.x + self._shift[0], box.y + self._shift[1]
        if x < 0 or y < -1 or x + box.w > self.width or y + box.h > self.height + 1:
            raise ValueError(f"{self.name}: {label!r} leaves the drawing, {x:.0f}, {y:.0f}.")
        for other, o in self.words:
            deep = min(x + box.w, o.x + o.w) - max(x, o.x), min(y + box.h, o.y + o.h) - max(y, o.y)
            if min(deep) > 1.5:
                raise ValueError(f"{self.name}: {label!r} lies on {other!r}.")
        self.words.append((label, Box(x, y, box.w, box.h)))

    # ------------------------------------------------------------------------------------ shapes
    def shape(
        self, d: str, role: str = "ink", fill: float = 0.0, width: float = 1.8, dashed: bool = False
    ) -> None:
        """A path in a role's colour; `fill` is the opacity of its inside."""
        self.element("path", role, d=d, fill="currentColor" if fill else "none",
                  fill_opacity=opacity(fill),
                  stroke="currentColor" if width else None, stroke_width=width or None,
                  stroke_dasharray="5 4" if dashed else None)  # fmt: skip

    def line(self, points: Iterable[Point], role: str = "ink", **options) -> None:
        """A line through points."""
        self.shape("M" + "L".join(write(*p) for p in points), role, **options)

    def region(
        self, points: Iterable[Point], role: str = "shared", fill=0.14, width=0.0, **options
    ):
        """The inside of a polygon: a cone, an area."""
        self.shape("M" + "L".join(write(*p) for p in points) + "Z", role, fill, width, **options)

    def circle(self, at: Point, r: float, role: str = "ink", label: str = "", fill=0.14, size=SIZE):
        """A node; with the label "+" or "×" an operation."""
        self.element("circle", role, cx=at[0], cy=at[1], r=r, stroke="currentColor",
                     fill="currentColor" if fill else "none", fill_opacity=opacity(fill),
                     stroke_width=1.8)  # fmt: skip
        if label:
            self.text(*at, label, size)
        return Box(at[0] - r, at[1] - r, 2 * r, 2 * r)

    def box(
        self, x: float, y: float, w: float, h: float, label: str = "", role: str = "ink",
        frozen: bool = False, dashed: bool = False, fill: float = 0.14, size: float = SIZE,
        bold: bool = False, layers: int = 1, rx: float = 5,
    ) -> Box:  # fmt: skip
        """A part of a network; hatched if frozen, with the seams of its layers."""
        for line in label.split("\n"):
            if measure(line, size, bold) > w - 4:
                raise ValueError(f"{self.name}: {line!r} is wider than its box, {w}.")
        look = {"x": x, "y": y, "width": w, "height": h, "rx": rx or None}
        role = "frozen" if frozen else role
        if frozen:
            self.element("rect", "frozen", **look, fill=f"url(#{self.name}-hatch)")
        self.element("rect", role, **look, fill="currentColor" if fill else "none",
                  fill_opacity=opacity(fill), stroke="currentColor", stroke_width=1.8,
                  stroke_dasharray="5 4" if dashed else None)  # fmt: skip
        for k in range(1, layers):
            self.line([(x + w * k / layers, y), (x + w * k / layers, y + h)], role, width=1)
        if label:
            self.text(x + w / 2, y + h / 2, label, size, bold=bold, halo=frozen)
        return Box(x, y, w, h)

    def plate(self, x: float, y: float, w: float, h: float, label: str = "", role="soft") -> Box:
        """A frame around what is repeated or belongs together, its label at the top left."""
        self.element("rect", role, x=x, y=y, width=w, height=h, rx=9, fill="none",
                  stroke="currentColor", stroke_width=1.2)  # fmt: skip
        if measure(label, SMALL) > w - 12:
            raise ValueError(f"{self.name}: {label!r} is wider than its frame, {w}.")
        if label:
            self.text(x + 8, y + 13, label, SMALL, "start", role="soft")
        return Box(x, y, w, h)

    # ------------------------------------------------------------------------------------ arrows
    def arrow(
        self, start: Point, end: Point, role: str = "ink", gradient: bool = False,
        via: Iterable[Point] = (), bend: float = 0.0, width: float = 1.8, head: bool = True,
    ) -> None:  # fmt: skip
        """Where data flow, or with `gradient`, dashed, where a gradient does.

        Corners at `via` are rounded; a `bend` bows the line by so much, to the left of its way.
        """
        points = [start, *via, end]
        if bend:
            (x, y), (u, v) = start, end
            length = math.dist(start, end)
            middle = (
                (x + u) / 2 + 2 * bend * (v - y) / length,
                (y + v) / 2 - 2 * bend * (u - x) / length,
            )
            points = [start, middle, end]
        before = points[-2]
        reach = 3.2 * width + 2.2
        wide = 1.15 * reach
        back = math.atan2(end[1] - before[1], end[0] - before[0])
        tip = end[0] - math.cos(back) * reach * head, end[1] - math.sin(back) * reach * head
        d = f"M{write(*start)}"
        for k, corner in enumerate(points[1:-1], 1):
            if bend:
                d += f"Q{write(*corner, *tip)}"
                break
            after = points[k + 1]
            r = min(8, math.dist(points[k - 1], corner) / 2, math.dist(corner, after) / 2)
            a, b = towards(corner, points[k - 1], r), towards(corner, after, r)
            d += f"L{write(*a)}Q{write(*corner, *b)}"
        self.shape(d if bend else d + f"L{write(*tip)}", role, width=width, dashed=gradient)
        if head:
            wings = [
                (end[0] - math.cos(back + turn) * wide, end[1] - math.sin(back + turn) * wide)
                for turn in (-0.38, 0.38)
            ]
            self.region([end, *wings], role, fill=1)

    def vector(self, start: Point, end: Point, role: str = "ink", label="", at: Point = (0, 0)):
        """A thick arrow of the geometry's, its label moved by `at` from the tip."""
        self.arrow(start, end, role, width=3)
        if label:
            self.text(end[0] + at[0], end[1] + at[1], label)

    # ---------------------------------------------------------------------------------- the file
    def svg(self) -> str:
        """The drawing as the text of a file."""
        body = "\n".join(self.parts)
        hatch = ""
        if f"#{self.name}-hatch" in body:
            hatch = (
                f'<defs><pattern id="{self.name}-hatch" width="6" height="6" class="mtl-frozen"'
                f' color="{LIGHT["frozen"]}" patternUnits="userSpaceOnUse"'
                ' patternTransform="rotate(45)"><path d="M0 0V6" stroke="currentColor"'
                ' stroke-width="2.4"/></pattern></defs>\n'
            )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="mtl-svg" role="img"'
            f' aria-labelledby="{self.name}-title {self.name}-desc"'
            f' width="{write(self.width * self.zoom)}" height="{write(self.height * self.zoom)}"'
            f' viewBox="0 0 {self.width} {self.height}"'
            f' color="{LIGHT["ink"]}" fill="currentColor" stroke-width="1.8"'
            f' font-family="{FONT}">\n'
            f'<title id="{self.name}-title">{escape(self.title)}</title>\n'
            f'<desc id="{self.name}-desc">{escape(self.desc)}</desc>\n'
            f"<style>{style()}</style>\n{hatch}{body}\n</svg>\n"
        )
