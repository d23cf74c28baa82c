"""Drawings of chapters 5 and 6: weights of losses, and gradients in conflict."""

import math

import torch

from ..multitask.balancing import pcgrad, upgrad
from .pen import Pen, drawing
from .places import Point

# Gradients of two tasks in pixels, and of three tasks, for which PCGrad is not enough.
PAIR = torch.tensor([[112, 18], [-48, 30]], dtype=torch.float64)
THREE = torch.tensor([[2, 0, 2], [-3, -3, 2], [0, 0, -2]], dtype=torch.float64)
ORDERS = [[1, 2], [0, 2], [0, 1]]  # in which PCGrad projects each; no order would spare all three


@drawing
def uncertainty_width() -> Pen:
    pen = Pen(
        "uncertainty_width", 440, 318, "Uncertainty as a width",
        """Two bells of errors around zero on one scale. Task 1's is narrow and high, with
        standard deviation 1; task 2's is twice as wide and half as high, with standard
        deviation 2. Beside them the weights, one over the variance: a long bar of 1 for task
        1, and a bar a quarter as long for task 2.""",
    )  # fmt: skip
    centre, unit, height = 140, 33, 96  # a unit of error in pixels; height of the bell of width 1
    quantiles = (-1.38, -0.97, -0.67, -0.43, -0.21, 0.0, 0.21, 0.43, 0.67, 0.97, 1.38)
    for t, (sigma, base) in enumerate(((1.0, 132), (2.0, 272)), 1):
        role = f"task{t}"

        def bell(e, sigma=sigma, base=base):
            return base - 6 - height / sigma * math.exp(-((e / sigma) ** 2) / 2)

        curve = [(centre + unit * e / 10, bell(e / 10)) for e in range(-40, 41)]
        pen.region([(curve[0][0], base - 6), *curve, (curve[-1][0], base - 6)], role)
        pen.line(curve, role, width=2.2)
        pen.line([(4, base - 6), (276, base - 6)], width=1.2)
        for q in quantiles:
            pen.circle((centre + unit * sigma * q, base + 2), 2.4, role, fill=1)
        y = bell(sigma)
        pen.line([(centre, base - 6), (centre, bell(0))], "soft", width=1, dashed=True)
        pen.arrow((centre, y), (centre + unit * sigma, y), width=1.6)
        pen.text(centre + unit * sigma + 8, y - 6, f"*σ*_{t} = {sigma:g}", anchor="start")
        pen.text(4, base - 96 if t == 1 else base - 68, f"task {t}", anchor="start", bold=True)
        weight = 1 / sigma**2
        pen.text(306, base - 70, f"1/*σ*_{t}^2 = {weight:g}".replace("0.25", "¼"), anchor="start")
        pen.box(306, base - 52, 124 * weight, 26, "", role, fill=0.5)
    pen.text(centre, 302, "error of a prediction", 14)
    pen.text(306, 12, "weight", bold=True, anchor="start")
    return pen


@drawing
def gradnorm_loop() -> Pen:
    pen = Pen(
        "gradnorm_loop", 440, 344, "GradNorm's loop",
        """A loop in four parts. Two sliders hold the weights w1 and w2. They multiply the losses,
        whose dashed gradients reach the shared trunk, a thick one and a thin one. Bars show
        the lengths of these gradients beside their targets: the first is too long, the second
        too short. An arrow leads back to the sliders: lower w1, raise w2.""",
    )  # fmt: skip
    # the sliders
    pen.plate(4, 8, 150, 122, "weights")
    for t, (y, at) in enumerate(((58, 108), (102, 62)), 1):
        pen.text(22, y, f"*w*_{t}")
        pen.line([(42, y), (142, y)], "soft", width=3)
        pen.circle((at, y), 8, f"task{t}", fill=1)
        step = -26 if t == 1 else 26
        pen.arrow((at + step / 2.4, y - 16), (at + step * 1.4, y - 16), f"task{t}")
    # the losses and the trunk
    for t, y in ((1, 50), (2, 100)):
        loss = pen.box(196, y - 18, 70, 36, f"*w*_{t}*L*_{t}", f"task{t}")
        pen.arrow((154, y), loss.left)
        pen.arrow(loss.right, (348, y), f"task{t}", True, width=3.6 if t == 1 else 1.4)
        pen.text(306, y - 15 if t == 1 else y + 15, f"*g*_{t}", 15)
    pen.box(348, 28, 88, 94, "trunk", "shared")
    pen.text(392, 14, "shared", 14)
    # the bars and their targets
    pen.arrow((392, 122), (392, 178))
    pen.plate(226, 178, 210, 156, "gradients' lengths")
    floor = 306
    pen.line([(244, floor), (424, floor)], width=1.2)
    for t, x, size, goal in ((1, 262, 92, 58), (2, 348, 26, 46)):
        pen.box(x, floor - size, 34, size, "", f"task{t}", fill=0.5)
        pen.line([(x - 9, floor - goal), (x + 43, floor - goal)], width=2.4)
        end = floor - goal
        pen.arrow((x + 54, floor - size), (x + 54, end), f"task{t}")
        pen.text(x + 17, floor + 14, f"*w*_{t}‖*g*_{t}‖", 14)
    pen.text(365, 247, "target", 14)
    # and back
    pen.arrow((226, 256), (78, 130), via=[(78, 256)])
    pen.text(152, 226, "lower *w*_1,\nraise *w*_2", 15)
    return pen


def _arc(pen: Pen, at: Point, r: float, start: float, end: float, role: str) -> None:
    """A sector around a point, from one angle to another (degrees, counterclockwise)."""
    edge = [
        (at[0] + r * math.cos(math.radians(a)), at[1] - r * math.sin(math.radians(a)))
        for a in (start + (end - start) * k / 24 for k in range(25))
    ]
    pen.region([at, *edge], role, fill=0.16)
    for tip in (edge[0], edge[-1]):
        pen.line([at, tip], role, width=1.2, dashed=True)


def effects(orders: list[list[int]]) -> dict[str, torch.Tensor]:
    """What a step does to each of three tasks: the cosine of update and gradient, by method."""
    G = THREE @ THREE.T
    weights = {"sum": torch.ones(3), "PCGrad": pcgrad(G, orders), "UPGrad": upgrad(G)}
    updates = {name: weight.double() @ THREE for name, weight in weights.items()}
    return {name: THREE @ d / THREE.norm(dim=1) / d.norm() for name, d in updates.items()}


@drawing
def cone_and_projection() -> Pen:
    pen = Pen(
        "cone_and_projection", 440, 486, "The cone, PCGrad's projection and UPGrad's",
        """Top left: two gradients at an obtuse angle. A shaded cone holds the directions that
        help both tasks; their sum lies outside, and hurts task 2. Top right: each gradient,
        projected off the other, ends on an edge of the cone, and the sum of both lies inside.
        Below, three tasks, what one step does to each as bars: the sum hurts task 3, PCGrad
        hurts task 1, and UPGrad, which projects on the whole cone, hurts none.""",
    )  # fmt: skip
    J = PAIR
    first, second = J.tolist()
    plain = J.sum(0).tolist()
    weights = pcgrad(J @ J.T)
    update = (weights @ J).tolist()
    angles = [math.degrees(math.atan2(g[1], g[0])) for g in (first, second)]
    cone = angles[1] - 90, angles[0] + 90
    for k in (0, 1):
        with pen.moved(228 * k, 0):
            origin = (74, 176)

            def tip(g, origin=origin):
                return origin[0] + g[0], origin[1] - g[1]

            pen.text(0, 12, ("the sum leaves the cone", "PCGrad projects")[k], 15, "start", True)
            _arc(pen, origin, 120, *cone, "shared")
            pen.vector(origin, tip(first), "task1", "*g*_1", (4, 18))
            pen.vector(origin, tip(second), "task2", "*g*_2", (-12, -12))
            if k == 0:
                pen.vector(origin, tip(plain), "ink", "sum", (24, -6))
                pen.text(origin[0] + 21, 78, "helps\nboth", 14)
            else:
                for g, other, role in ((first, second, "task1"), (second, first, "task2")):
                    dot = (g[0] * other[0] + g[1] * other[1]) / math.hypot(*other) ** 2
                    projected = [a - dot * b for a, b in zip(g, other, strict=True)]
                    pen.line([tip(g), tip(projected)], role, width=1.4, dashed=True)
                    pen.arrow(origin, tip(projected), role, width=2)
                pen.vector(origin, tip(update), "shared", "their sum", (24, -27))
    # three tasks: what a step does to each
    pen.line([(0, 214), (440, 214)], "soft", width=0.8)
    pen.text(4, 234, "three tasks: what one step does to each", bold=True, anchor="start", size=15)
    for k, (name, gains) in enumerate(effects(ORDERS).items()):
        centre = 132 + 118 * k
        pen.text(centre + 12, 264, name)
        pen.line([(centre, 280), (centre, 436)], width=1.2)
        for t, gain in enumerate(gains.tolist(), 1):
            y, w = 250 + 52 * t, 68 * gain
            pen.box(min(centre, centre + w), y - 15, abs(w), 30, "", f"task{t}", fill=0.55)
            if k == 0:
                pen.text(4, y, f"task {t}", anchor="start")
            if gain < 0:
                pen.text(centre + 7, y, "hurt", 14, "start")
    pen.text(244, 456, "← worse", 14, "end", role="soft")
    pen.text(256, 456, "better →", 14, "start", role="soft")
    return pen


@drawing
def weights_on_front() -> Pen:
    pen = Pen(
        "weights_on_front", 440, 290, "What a weighted sum reaches",
        """Two Pareto fronts in the plane of two losses. Left, a front that bends towards the
        origin: lines of equal weighted sum touch it at three points, one for each choice of
        weights. Right, a front that bulges away from the origin: the line of equal weights
        touches it near both ends, and the middle of the front lies above the line, where no
        weights lead.""",
    )  # fmt: skip
    steps = [k / 200 for k in range(201)]
    fronts = {
        "bends in": lambda s: (s**2, (1 - s) ** 2),
        "bulges out": lambda s: (1 - math.exp(-4 * s**2), 1 - math.exp(-4 * (1 - s) ** 2)),
    }
    side = 172
    for k, (name, losses) in enumerate(fronts.items()):
        with pen.moved(226 * k, 0):
            corner = (28, 222)

            def place(point, corner=corner):
                return corner[0] + side * point[0], corner[1] - side * point[1]

            pen.text(28, 12, f"the front {name}", 15, "start", bold=True)
            pen.arrow(corner, (corner[0] + side + 14, corner[1]))
            pen.arrow(corner, (corner[0], corner[1] - side - 14))
            pen.text(corner[0] + side - 4, corner[1] + 16, "*L*_1")
            pen.text(corner[0] - 15, corner[1] - side - 2, "*L*_2")
            curve = [losses(s) for s in steps]
            pen.line([place(point) for point in curve], "shared", width=3)
            touched = []
            for p in (0.2, 0.5, 0.8) if k == 0 else (0.5,):
                total = [p * a + (1 - p) * b for a, b in curve]
                low = min(total)
                best = [c for c, v in zip(curve, total, strict=True) if v < low + 1e-9]
                touched += best
                # the line of this weighted sum, as far as it lies in the picture
                ends = [(x, (low - p * x) / (1 - p)) for x in (t / 100 for t in range(-4, 105))]
                inside = [e for e in ends if -0.04 <= e[1] <= 1.04]
                pen.line([place(inside[0]), place(inside[-1])], width=1.2)
            for point in touched:
                pen.circle(place(point), 5, "single", fill=1)
            if k == 0:
                pen.text(corner[0] + 104, 92, "each choice\nof weights\nhas its point", 14)
            else:
                middle = losses(0.5)
                pen.circle(place(middle), 5, "target", fill=1)
                pen.text(place(middle)[0] + 34, place(middle)[1] - 22, "out of\nreach", 14)
    pen.line([(120, 272), (146, 272)], width=1.2)
    pen.text(154, 272, "one value of *w*_1*L*_1 + *w*_2*L*_2", 14, "start")
    return pen
