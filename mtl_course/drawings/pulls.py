"""Drawings of chapters 1 and 2: penalties that pull, to the mean of the tasks or to the source."""

import math

from .pen import Pen, drawing
from .places import Point

# Tasks of chapter 1's equation 6 with A_t = n_t I: examples, and the weights that each finds alone.
TASKS = ((30, (62.0, 150.0)), (12, (92.0, 34.0)), (3, (316.0, 58.0)), (6, (262.0, 196.0)))
STRENGTH = 6.0


def tied() -> tuple[Point, list[Point]]:
    """The common weights w_0 and each task's own, with mu = 0: equations 7 and 8."""
    shares = [n / (n + STRENGTH) for n, _ in TASKS]
    common = tuple(
        sum(a * w[k] for a, (_, w) in zip(shares, TASKS, strict=True)) / sum(shares) for k in (0, 1)
    )
    own = [
        (common[0] + a * (w[0] - common[0]), common[1] + a * (w[1] - common[1]))
        for a, (_, w) in zip(shares, TASKS, strict=True)
    ]
    return common, own


@drawing
def tied_to_mean() -> Pen:
    pen = Pen(
        "tied_to_mean", 440, 262, "Tasks tied to a common vector",
        """Four tasks as points in the plane of two weights. Hollow circles: what each finds
        alone; the larger, the more examples. A blue cross between them is the common vector.
        From each circle an arrow leads towards it and ends at the task's weights when tied:
        the task with 30 examples hardly moves, the one with 3 goes two thirds of the way.""",
    )  # fmt: skip
    common, own = tied()
    for (n, alone), end in zip(TASKS, own, strict=True):
        radius = 3 + 1.8 * math.sqrt(n)
        pen.circle(alone, radius, "single", fill=0)
        pen.line([end, common], "shared", width=1)
        away = radius / math.dist(alone, common)
        start = alone[0] + away * (common[0] - alone[0]), alone[1] + away * (common[1] - alone[1])
        if math.dist(start, end) > 12:
            pen.arrow(start, end, "shared", width=2.2)
        pen.circle(end, 4, "shared", fill=1)
        side = 34 + radius if n < 10 else 0  # where no arrow runs
        pen.text(alone[0] + side, alone[1] - (0 if side else radius + 11), f"*n* = {n}", 14)
    x, y = common
    pen.line([(x - 8, y), (x + 8, y)], "shared", width=4)
    pen.line([(x, y - 8), (x, y + 8)], "shared", width=4)
    pen.text(x - 2, y + 24, "*w*_0")
    pen.circle((346, 130), 7, "single", fill=0)
    pen.text(360, 130, "alone", 14, "start")
    pen.circle((346, 156), 4, "shared", fill=1)
    pen.text(360, 156, "tied", 14, "start")
    return pen


@drawing
def pull_to_source() -> Pen:
    pen = Pen(
        "pull_to_source", 440, 258, "L2-SP, a pull to the source",
        """The plane of two weights of a trunk. Ellipses are equal values of the target's loss
        around its minimum; a blue square is the source's value. A curve joins the two: its
        points are what the penalty of strength alpha finds, from the minimum at alpha zero to
        the source at alpha infinite, where the trunk is frozen. The curve moves first along
        the flat direction, where the target's data say little.""",
    )  # fmt: skip
    best, source = (124.0, 176.0), (356.0, 64.0)
    curvature = (1.0, 4.0)  # of the target's loss, along the two axes

    def found(alpha: float) -> Point:
        """The minimum of L_tgt + alpha |theta - source|^2 where L_tgt = sum h (theta - best)^2."""
        return tuple(
            (h * b + alpha * s) / (h + alpha)
            for h, b, s in zip(curvature, best, source, strict=True)
        )

    for level in (36, 92):
        points = [
            (best[0] + level * math.cos(a) / math.sqrt(curvature[0]),
             best[1] + level * math.sin(a) / math.sqrt(curvature[1]))
            for a in (2 * math.pi * k / 72 for k in range(73))
        ]  # fmt: skip
        pen.line(points, "target", width=1.4)
    way = [found(10 ** (k / 20 - 2)) for k in range(101)]
    pen.line([best, *way, source], "shared", width=2.6)
    for alpha, at in ((0.3, (0, 17)), (1.0, (4, 17)), (4.0, (16, 15))):
        point = found(alpha)
        pen.circle(point, 5, "shared", fill=1)
        pen.text(point[0] + at[0], point[1] + at[1], f"{alpha:g}", 14, halo=True)
    pen.circle(best, 6, "target", fill=1)
    pen.text(best[0] - 4, best[1] + 18, "*α* = 0", 14, halo=True)
    pen.box(source[0] - 7, source[1] - 7, 14, 14, "", "source", fill=1, rx=2)
    pen.text(source[0], source[1] - 40, "source: *α* → ∞,\nthe trunk is frozen", 14)
    pen.text(best[0], 244, "the target's loss", 14)
    pen.arrow((best[0] - 20, 233), (best[0] - 24, 222), "target", width=1.3)
    return pen
