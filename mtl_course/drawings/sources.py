"""Drawings of chapter 16: which source helps which target, and a source made without labels."""

import math

from .pen import Pen, drawing
from .places import Point

# Which way a source moves a target, as signs with their strength: an example, not a result.
GAINS = {"A": (0, 3, -1, 1), "B": (2, 0, 1, -2), "C": (1, -1, 0, 3), "D": (-2, 1, 2, -1)}
ASKED = 2  # the column for which a source is sought


def cell_label(gain: int) -> str:
    """Plus or minus signs, as many as the gain is strong."""
    return ("+" if gain > 0 else "−") * abs(gain)


@drawing
def gain_matrix() -> Pen:
    pen = Pen(
        "gain_matrix", 440, 476, "A gain matrix, and two ways to know a column of it",
        """A table of four sources and four targets. Blue cells with plus signs are gains over no
        source, red ones with minus signs losses; a source's own cell is grey. The column of
        target 3 is framed: the best source there is D, elsewhere another. Below, two ways to
        know it. Trying trains a network from each source, again and again. A score passes
        the target's examples through the frozen source once, compares features and labels.""",
    )  # fmt: skip
    left, top, wide, high = 150.0, 62.0, 66.0, 38.0
    pen.text(left + 2 * wide, 12, "targets", bold=True)
    pen.text(4, top + 2 * high, "sources", anchor="start", bold=True)
    for t in range(4):
        pen.text(left + wide * (t + 0.5), 44, str(t + 1), 15, bold=t == ASKED)
    for k, (name, gains) in enumerate(GAINS.items()):
        y = top + high * k
        pen.text(left - 16, y + high / 2, name, 15, "end")
        for t, gain in enumerate(gains):
            x = left + wide * t
            role = "shared" if gain > 0 else "target" if gain < 0 else "soft"
            pen.box(x + 2, y + 2, wide - 4, high - 4, cell_label(gain), role, rx=2, size=18,
                    fill=0.1 + 0.14 * abs(gain) if gain else 0.08)  # fmt: skip
    pen.box(left + wide * ASKED - 3, 32, wide + 6, 4 * high + 36, "", fill=0)
    pen.line([(0, 242), (440, 242)], "soft", width=0.8)
    # trying
    y = 300.0
    pen.text(4, 262, "try", bold=True, anchor="start")
    pen.text(36, 262, "one training for each cell", 14, "start", role="soft")
    source = pen.box(4, y - 22, 76, 44, "source", "source")
    loop = pen.box(136, y - 22, 150, 44, "train on the target", "shared", size=14)
    pen.arrow(source.right, loop.left)
    pen.arrow((286, y + 10), (136, y + 10), "shared", True,
              via=[(310, y + 10), (310, y + 42), (112, y + 42), (112, y + 10)])  # fmt: skip
    pen.text(211, y + 42, "again and again", 14, halo=True)
    pen.arrow((286, y - 8), (352, y - 8))
    pen.text(380, y - 8, "gain", 16, bold=True)
    # scoring
    y = 416.0
    pen.line([(0, 358), (440, 358)], "soft", width=0.8)
    pen.text(4, 378, "score", bold=True, anchor="start")
    pen.text(56, 378, "one pass forward, no training", 14, "start", role="soft")
    pen.box(4, y - 20, 76, 54, "target's\nexamples", "target", size=14)
    source = pen.box(108, y - 22, 70, 44, "source", frozen=True, size=14)
    feats = pen.box(206, y - 22, 72, 44, "features", "soft", size=14)
    score = pen.box(304, y - 22, 52, 44, "fit?", "soft", size=15)
    pen.arrow((80, y), source.left)
    pen.arrow(source.right, feats.left)
    pen.arrow(feats.right, score.left)
    pen.arrow((80, y + 26), score.bottom, via=[(100, y + 26), (100, y + 42), (330, y + 42)])
    pen.text(211, y + 42, "labels", 14, halo=True)
    pen.arrow(score.right, (376, y))
    pen.text(406, y, "score", 16, bold=True)
    return pen


def glyph(pen: Pen, kind: int, at: Point, turn: float, size: float) -> None:
    """A small picture: a hook, a fork or a step, turned and scaled."""
    strokes = {
        0: [((-9, -9), (-9, 9), (7, 9))],
        1: [((0, 10), (0, -2), (-9, -10)), ((0, -2), (9, -10))],
        2: [((-10, 8), (-2, 8), (-2, -8), (9, -8))],
    }[kind]
    c, s = math.cos(turn), math.sin(turn)
    for stroke in strokes:
        pen.line([(at[0] + size * (c * x - s * y), at[1] + size * (s * x + c * y))
                  for x, y in stroke], width=3.2)  # fmt: skip


# Angles on the circle of features of the two views of each picture, in degrees.
VIEWS = ((68, 20), (160, 112), (308, 258))


@drawing
def contrastive_views() -> Pen:
    pen = Pen(
        "contrastive_views", 440, 366, "Two views pulled together, all others pushed away",
        """Three pictures without labels. Each is altered twice at random, turned, scaled or
        moved: two views. All six views pass one trunk to points on a circle. Between the two
        views of one picture arrows point towards each other: they are pulled together. Dashed
        lines to the views of the other pictures mark those that are pushed away.""",
    )  # fmt: skip
    pen.text(2, 12, "pictures", 14, "start", bold=True)
    pen.text(116, 12, "views", 14, bold=True)
    rows = (86, 186, 286)
    for kind, y in enumerate(rows):
        role = f"task{kind + 1}"
        pen.box(10, y - 22, 44, 44, "", "soft", fill=0.05, rx=2)
        glyph(pen, kind, (32, y), 0, 1.25)
        for k, (turn, size) in enumerate(((-0.35, 0.9), (0.5, 1.15))):
            v = y - 25 + 50 * k
            pen.box(96, v - 20, 40, 40, "", role, fill=0.05, rx=2)
            glyph(pen, kind, (116 + 3 * (1 - 2 * k), v), turn, size)
            pen.arrow((54, y - 6 + 12 * k), (96, v), width=1.4)
    trunk = pen.box(164, 146, 66, 80, "trunk\n*f*_θ", "shared")
    for y in rows:
        pen.arrow((136, y), trunk.at("left", 0.5 + 0.3 * (y - 186) / 100),
                  via=[(150, y), (150, trunk.at("left", 0.5 + 0.3 * (y - 186) / 100)[1])]
                  if y != 186 else ())  # fmt: skip
    centre, radius = (346.0, 186.0), 74.0
    pen.arrow(trunk.right, (centre[0] - radius - 12, 186))
    pen.circle(centre, radius, "soft", fill=0)

    def on(angle: float, r: float = radius) -> Point:
        return (centre[0] + r * math.cos(math.radians(angle)),
                centre[1] - r * math.sin(math.radians(angle)))  # fmt: skip

    anchor = VIEWS[0][0]
    for first, second in VIEWS[1:]:
        for angle in (first, second):
            pen.line([on(anchor), on(angle)], "soft", width=1.3, dashed=True)
    for kind, (first, second) in enumerate(VIEWS):
        role = f"task{kind + 1}"
        middle, out = (first + second) / 2, radius + 20
        for angle in (first, second):
            way = [on(angle + (middle - angle) * k / 8, out) for k in range(8)]
            pen.line(way[:7], role, width=2.6)
            pen.arrow(way[5], way[7], role, width=2.6)
            pen.element(
                "circle", "paper", cx=on(angle)[0], cy=on(angle)[1], r=9, fill="currentColor"
            )
            pen.circle(on(angle), 9, role, fill=0.75)
    pen.text(346, 54, "pulled together", 14)
    pen.text(346, 318, "dashed: pushed away,\nfor one of the six", 14, role="soft")
    pen.text(116, 350, "no label anywhere", 14, role="soft")
    return pen
