"""Points, boxes and numbers: where things are in a drawing."""

import math
from typing import NamedTuple

Point = tuple[float, float]


def write(*numbers: float) -> str:
    """Numbers as SVG wants them, to a tenth."""
    return " ".join(f"{round(number, 1) + 0.0:g}" for number in numbers)


def opacity(fill: float) -> str | None:
    """An opacity, unless it is none or all."""
    return f"{fill:.2g}" if 0 < fill < 1 else None


class Box(NamedTuple):
    """A rectangle, and where arrows touch it: `at("left", 0.25)` is a quarter down."""

    x: float
    y: float
    w: float
    h: float

    def at(self, side: str, part: float = 0.5) -> Point:
        if side in ("left", "right"):
            return self.x + self.w * (side == "right"), self.y + self.h * part
        return self.x + self.w * part, self.y + self.h * (side == "bottom")

    left = property(lambda self: self.at("left"))
    right = property(lambda self: self.at("right"))
    top = property(lambda self: self.at("top"))
    bottom = property(lambda self: self.at("bottom"))
    center = property(lambda self: (self.x + self.w / 2, self.y + self.h / 2))


def towards(start: Point, end: Point, r: float) -> Point:
    """The point at distance r from the start, on the way to the end."""
    part = r / max(math.dist(start, end), 1e-9)
    return start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part
