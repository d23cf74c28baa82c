"""Drawings of chapters 12, 17 and 18: rates by layer, a start that is learned, an episode."""

import math

from .pen import Pen, drawing
from .places import Box, Point

LAYERS, STEPS, DECAY = 4, 8, 2.6  # three layers and the head; Howard and Ruder's factor


def rates() -> dict[str, list[list[float]]]:
    """Method -> its table of rates, relative to the largest: [step][layer], the head last."""
    open_at = [math.ceil(STEPS * k / LAYERS) for k in range(LAYERS)]  # gradual: head first
    return {
        "linear probe": [[0, 0, 0, 1]] * STEPS,
        "full fine-tuning": [[1, 1, 1, 1]] * STEPS,
        "layer-wise": [[DECAY**-k for k in (3, 2, 1, 0)]] * STEPS,
        "gradual unfreezing": [
            [float(s >= open_at[LAYERS - 1 - layer]) for layer in range(LAYERS)]
            for s in range(STEPS)
        ],
        "LP-FT": [[float(layer == 3 or s >= STEPS // 2) for layer in range(LAYERS)]
                  for s in range(STEPS)],
    }  # fmt: skip


@drawing
def rates_table() -> Pen:
    pen = Pen(
        "rates_table", 440, 414, "A method is a table of rates",
        """Five tables with a row for each layer, the head on top, and a column for each step; a
        dark cell is a large learning rate, a hatched one is frozen. Linear probe: only the head
        learns. Full fine-tuning: one rate everywhere. Layer-wise: the lower, the slower.
        Gradual unfreezing: a staircase from the head down. LP-FT: the head alone in the first
        half, everything in the second.""",
    )  # fmt: skip
    wide, high = 18, 20
    for k, (name, table) in enumerate(rates().items()):
        with pen.moved(220 * (k % 2), 138 * (k // 2)):
            pen.text(50, 12, name, bold=True, anchor="start", size=15)
            for layer, row in enumerate(("1", "2", "3", "head")):
                y = 28 + high * (LAYERS - 1 - layer)
                pen.text(42, y + high / 2, row, 14, "end")
                for s in range(STEPS):
                    cell = 50 + wide * s, y, wide, high, ""
                    rate = table[s][layer]
                    if rate:
                        pen.box(*cell, "shared", fill=0.92 * rate, rx=0)
                    else:
                        pen.box(*cell, frozen=True, rx=0)
            pen.arrow((50, 120), (50 + wide * STEPS, 120), "soft", width=1.2)
            pen.text(50 + wide * STEPS / 2, 120, "step", 14, role="soft", halo=True)
    with pen.moved(220, 276):
        for y, says, rate in (
            (38, "rate *η*", 1),
            (64, "*η* / 2.6", 1 / DECAY),
            (90, "0: frozen", 0),
        ):
            if rate:
                pen.box(50, y - 10, wide, high, "", "shared", fill=0.92 * rate, rx=0)
            else:
                pen.box(50, y - 10, wide, high, frozen=True, rx=0)
            pen.text(80, y, says, 14, "start")
    return pen


def inner(pen: Pen, task: int, y: float, first_order: bool) -> None:
    """One task's row: its support makes the step, its query the loss that is taken after it."""
    role = f"task{task}"
    step = pen.box(122, y - 22, 112, 44, f"− *η*_{{in}} ∇*L*_{task}^S", role, size=15)
    after = pen.circle((288, y), 22, "shared", f"*θ*′_{task}", size=15)
    loss = pen.circle((392, y), 26, role, f"*L*_{task}^Q", size=15)
    support = pen.box(136, y - 74, 84, 30, f"support {task}", role, size=14)
    query = pen.box(354, y - 78, 76, 30, f"query {task}", role, size=14)
    pen.arrow(support.bottom, step.top)
    pen.arrow(query.bottom, loss.top)
    pen.arrow((234, y - 8), (after.x + 2, y - 8))
    pen.arrow((309, y - 8), (368, y - 8))
    pen.arrow((368, y + 9), (308, y + 9), role, True)
    if not first_order:
        pen.arrow((268, y + 9), (234, y + 9), role, True)


@drawing
def inner_outer_loop() -> Pen:
    pen = Pen(
        "inner_outer_loop", 440, 484, "Inner steps, and the gradient of the start through them",
        """MAML: from one start theta each of two tasks takes an inner step on its support, to a
        theta prime of its own, and is judged there on its query. The dashed gradients of the
        query losses run back through theta prime and through the inner step to the start.
        FOMAML: the same step, but the dashed gradient passes around it, since the step's
        slopes count as constants.""",
    )  # fmt: skip
    pen.text(4, 12, "MAML", bold=True, anchor="start")
    pen.text(70, 12, "back through the step", 14, "start", role="soft")
    top, low = 104, 230
    start = (34.0, (top + low) / 2)
    pen.circle(start, 24, "shared", "*θ*", size=18)
    pen.text(19, start[1] + 48, "start", 14)
    for task, y, up in ((1, top, -1), (2, low, 1)):
        inner(pen, task, y, False)
        pen.arrow((34 + 7, start[1] + 24 * up), (122, y - 8), via=[(41, y - 8)])
        pen.arrow((122, y + 9), (58, start[1] + 7 * up), f"task{task}", True,
                  via=[(88, y + 9), (88, start[1] + 7 * up)])  # fmt: skip
    pen.line([(0, 276), (440, 276)], "soft", width=0.8)
    with pen.moved(0, 288):
        pen.text(4, 12, "FOMAML", bold=True, anchor="start")
        pen.text(94, 12, "past the step", 14, "start", role="soft")
        y = 108
        pen.circle((34, y), 24, "shared", "*θ*", size=18)
        inner(pen, 1, y, True)
        pen.arrow((58, y - 8), (122, y - 8))
        pen.arrow((288, y + 22), (34, y + 24), "task1", True, via=[(288, y + 48), (34, y + 48)])
        pen.line([(244, y + 3), (256, y + 15)], "ink", width=2.4)
        pen.line([(244, y + 15), (256, y + 3)], "ink", width=2.4)
        pen.text(161, y + 48, "slopes count as constants", 14, halo=True)
    legend(pen, 130, 474)
    return pen


def legend(pen: Pen, x: float, y: float) -> None:
    """The two kinds of arrow, told in words."""
    pen.arrow((x, y), (x + 34, y))
    pen.text(x + 42, y, "data, step", 14, "start")
    pen.arrow((x + 174, y), (x + 140, y), gradient=True)
    pen.text(x + 182, y, "gradient", 14, "start")


# Features of an episode's support, two examples of each class, and of its query.
SUPPORT = (
    ((34.0, 52.0), (70.0, 26.0)),
    ((142.0, 44.0), (160.0, 84.0)),
    ((52.0, 150.0), (98.0, 168.0)),
)
QUERY = (112.0, 90.0)


def prototype_of(points) -> Point:
    """The mean of a class's features: equation 2 of chapter 18."""
    return tuple(sum(p[k] for p in points) / len(points) for k in (0, 1))


def mark(pen: Pen, kind: int, at: Point, r: float, fill: float, role: str = "target") -> None:
    """The sign of a class: a circle, a triangle or a square."""
    x, y = at
    if kind == 0:
        pen.circle(at, r, role, fill=fill)
    elif kind == 1:
        pen.region([(x, y - 1.15 * r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], role, fill, 1.8)
    else:
        pen.box(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r, "", role, fill=fill, rx=0)


@drawing
def prototypes() -> Pen:
    pen = Pen(
        "prototypes", 440, 268, "An episode, and the nearest prototype",
        """An episode has three new classes, drawn as circle, triangle and square: a support of two
        examples each, and a query. All pass through the shared trunk to points in the plane of
        features. The mean of a class's two points, a filled sign, is its prototype. From the
        query lines lead to all three; the shortest, solid, is to the triangle: the answer.""",
    )  # fmt: skip
    pen.plate(4, 20, 104, 150, "support")
    for kind in range(3):
        for shot in range(2):
            box = pen.box(16 + 44 * shot, 44 + 41 * kind, 36, 34, "", "soft", fill=0.05)
            mark(pen, kind, box.center, 9, 0)
    pen.plate(4, 184, 104, 66, "query")
    box = pen.box(38, 208, 36, 34, "?", "soft", fill=0.05, size=18)
    trunk = pen.box(142, 86, 72, 92, "trunk\n*f*_θ", "shared")
    pen.arrow((108, 104), trunk.at("left", 0.2))
    pen.arrow((108, 217), trunk.at("left", 0.8), via=[(125, 217), (125, trunk.at("left", 0.8)[1])])
    plane = Box(240, 24, 192, 210)
    pen.arrow(trunk.right, (plane.x, trunk.right[1]))
    pen.plate(*plane, "features")
    with pen.moved(plane.x, plane.y + 16):
        nearest = min(SUPPORT, key=lambda points: math.dist(prototype_of(points), QUERY))
        for kind, points in enumerate(SUPPORT):
            centre = prototype_of(points)
            near = points is nearest
            pen.line([QUERY, centre], "target" if near else "soft", width=3 if near else 1.4,
                     dashed=not near)  # fmt: skip
            for point in points:
                pen.line([point, centre], "target", width=1)
                mark(pen, kind, point, 7, 0)
            mark(pen, kind, centre, 11, 1)
        pen.element("circle", "paper", cx=QUERY[0], cy=QUERY[1], r=12, fill="currentColor")
        pen.circle(QUERY, 12, "ink", "?", fill=0)
    pen.text(plane.x + 96, 252, "filled: prototypes", 14)
    return pen
