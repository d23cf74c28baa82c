"""Drawings of chapter 4: nine ways to share, in panels of one size, and the sheets made of them."""

from collections.abc import Callable

from .pen import Pen, drawing
from .places import Point

WIDTH, HEIGHT = 220, 186
MIDDLE, UP, DOWN = 102, 58, 146  # heights of the shared part, and of the two tasks
LANES = ((1, UP), (2, DOWN))
PANELS: dict[str, tuple[str, str, Callable]] = {}  # name -> title, alt text, function


def panel(title: str, desc: str):
    """Register a panel as a drawing of its own, and for the sheets."""

    def register(function: Callable) -> Callable:
        name = function.__name__
        PANELS[name] = title, " ".join(desc.split()), function

        def alone() -> Pen:
            pen = Pen(name, WIDTH, HEIGHT, title, desc, zoom=1.5)
            place(pen, name)
            return pen

        alone.__name__ = name
        drawing(alone)
        return function

    return register


def place(pen: Pen, name: str) -> None:
    pen.text(4, 12, PANELS[name][0], bold=True, anchor="start")
    PANELS[name][2](pen)


# --------------------------------------------------------------------------------------- elements
def inputs(pen: Pen, at: Point = (14, MIDDLE)) -> Point:
    """The example x; what it gives is where arrows start."""
    pen.text(*at, "*x*")
    return at[0] + 8, at[1]


def head(pen: Pen, t: int, start: Point, x: float = 158) -> None:
    """Task t's head, read from `start` on, and its output."""
    y = dict(LANES)[t]
    box = pen.box(x, y - 16, 34, 32, f"*h*_{t}", f"task{t}")
    pen.arrow(start, box.left, via=[(x - 14, start[1]), (x - 14, y)] if start[1] != y else ())
    pen.arrow(box.right, (x + 56, y))


def spring(pen: Pen, start: Point, end: Point, role: str) -> None:
    """A spring that hangs from start to end, straight down or up."""
    (x, y), (_, v) = start, end
    way = [(x, y), (x, y + 0.12 * (v - y))]
    way += [(x + 5 * (-1) ** k, y + (0.12 + 0.76 * (k + 0.5) / 6) * (v - y)) for k in range(6)]
    pen.line([*way, (x, y + 0.88 * (v - y)), (x, v)], role)


# --------------------------------------------------------------------------------------- patterns
@panel(
    "hard sharing",
    """Hard sharing: the input x enters one trunk f that both tasks share, and only then do the
    ways part, into head h1 and head h2.""",
)
def pattern_hard(pen: Pen) -> None:
    trunk = pen.box(52, UP - 16, 72, DOWN - UP + 32, "*f*", "shared")
    pen.arrow(inputs(pen), trunk.left)
    for t, y in LANES:
        head(pen, t, (124, y))


@panel(
    "soft sharing",
    """Soft sharing: each task has a trunk and a head of its own, f1 with h1 and f2 with h2.
    Springs tie the parameters of both trunks to their mean, a point between them.""",
)
def pattern_soft(pen: Pen) -> None:
    x = inputs(pen)
    for t, y in LANES:
        trunk = pen.box(52, y - 16, 72, 32, f"*f*_{t}", f"task{t}")
        pen.arrow(x, trunk.left, via=[(34, MIDDLE), (34, y)])
        head(pen, t, trunk.right)
        spring(pen, (88, y + 16 * (-1) ** (t + 1)), (88, MIDDLE + 4 * (-1) ** t), "shared")
    pen.circle((88, MIDDLE), 4.5, "shared", fill=1)
    pen.text(100, MIDDLE, "mean θ\u0304", 14, "start")


@panel(
    "cross-stitch",
    """Cross-stitch: each task has layers of its own in a row. After every layer the two rows
    cross: each task goes on with a learned mixture, alpha, of both tasks' activations.""",
)
def pattern_cross_stitch(pen: Pen) -> None:
    x = inputs(pen, (10, MIDDLE))
    for t, y in LANES:
        for k, left in enumerate((40, 100)):
            box = pen.box(left, y - 16, 22, 32, "", f"task{t}")
            if k == 0:
                pen.arrow(x, box.left, via=[(28, MIDDLE), (28, y)])
            for s, v in LANES:
                if k == 0:
                    pen.arrow(box.right, (100, v + (3 * (y > v) - 3 * (y < v))), "shared")
                elif s == t:
                    pen.arrow(box.right, (158, y), "shared")
                else:
                    pen.arrow(box.right, (158, v + (3 * (y > v) - 3 * (y < v))), "shared")
        pen.box(158, y - 16, 34, 32, f"*h*_{t}", f"task{t}")
        pen.arrow((192, y), (214, y))
    pen.text(80, UP - 12, "*α*", 15)
    pen.text(140, UP - 12, "*α*", 15)


@panel(
    "MMoE",
    """MMoE: the input enters three shared experts. Each task has a gate, g1 or g2, that also
    reads the input and mixes the outputs of all three experts in its own proportions for its
    head.""",
)
def pattern_mmoe(pen: Pen) -> None:
    x = inputs(pen, (10, MIDDLE))
    parts = {1: (3.2, 1.8, 1.0), 2: (1.0, 1.8, 3.2)}  # of the experts in each mixture
    gates = {t: pen.circle((130, y), 14, f"task{t}", f"*g*_{t}", size=14) for t, y in LANES}
    for e, y in enumerate((UP, MIDDLE, DOWN)):
        box = pen.box(48, y - 14, 30, 28, f"*f*_{e + 1}", "shared", size=15)
        pen.arrow(x, box.left, via=[(28, MIDDLE), (28, y)] if y != MIDDLE else ())
        for t, v in LANES:
            end = (116, v) if y == v else (118, v + (8 if y > v else -8))
            pen.line([box.right, end], f"task{t}", width=parts[t][e])
    for t, y in LANES:
        lane = y + 32 * (-1) ** t
        edge = gates[t].top if t == 1 else gates[t].bottom
        pen.arrow((20, MIDDLE + 7 * (-1) ** t), edge, f"task{t}",
                  via=[(20, lane), (130, lane)], width=1.2)  # fmt: skip
        head(pen, t, gates[t].right)


@panel(
    "PLE",
    """PLE, two levels: each task has a private expert, and one expert is shared. A task's gate
    mixes its own expert and the shared one, never the other task's. Between the levels a
    shared gate, gs, mixes all three for the next shared expert; the last level has no such
    gate.""",
)
def pattern_ple(pen: Pen) -> None:
    x = inputs(pen, (8, MIDDLE))
    rows = (("task1", UP), ("shared", MIDDLE), ("task2", DOWN))
    for level, left in enumerate((34, 108)):
        gate_x = left + 44
        for role, y in rows:
            box = pen.box(left, y - 13, 20, 26, "", role, fill=0.3)
            if level == 0:
                pen.arrow(
                    x, box.left, via=[(24, MIDDLE), (24, y)] if y != MIDDLE else (), width=1.5
                )
            for goal, v in rows:
                mixes = role in ("shared", goal) or (goal == "shared" and level == 0)
                if not mixes or (goal == "shared" and level == 1):
                    continue
                lean = 0 if y == v else (7 if y > v else -7)
                pen.line([box.right, (gate_x - 11 + abs(lean) * 0.5, v + lean)], goal, width=1.5)
        for role, y in rows:
            if role == "shared" and level == 1:
                continue
            name = "s" if role == "shared" else role[-1]
            gate = pen.circle((gate_x, y), 12, role, f"*g*_{name}", size=13)
            if level == 0:
                pen.arrow(gate.right, (108, y), width=1.5)
            else:
                pen.arrow(gate.right, (174, y), width=1.5)
    for t, y in LANES:
        box = pen.box(174, y - 14, 28, 28, f"*h*_{t}", f"task{t}", size=15)
        pen.arrow(box.right, (217, y), width=1.5)


@panel(
    "MTAN",
    """MTAN: one shared trunk of two blocks runs through the middle. Above and below it each task
    multiplies what a block gives by a mask of its own, made by an attention module, a, from
    the block's input and from what the task has seen so far.""",
)
def pattern_mtan(pen: Pen) -> None:
    x = inputs(pen, (8, MIDDLE))
    first = pen.box(32, MIDDLE - 13, 26, 26, "", "shared")
    second = pen.box(98, MIDDLE - 13, 26, 26, "", "shared")
    pen.arrow(x, first.left, width=1.5)
    pen.arrow(first.right, second.left, width=1.5)
    pen.line([second.right, (138, MIDDLE)], width=1.5)
    for t, y in LANES:
        role, sign = f"task{t}", (-1) ** t  # -1: above the trunk
        one, two = (pen.box(left, y - 13, 26, 26, "*a*", role, size=15) for left in (32, 92))
        dots = [pen.circle((at, y), 9, role, "×", size=14, fill=0.14) for at in (74, 138)]
        pen.arrow((20, MIDDLE), one.left, via=[(20, y)], width=1.5)
        for box, dot in ((one, dots[0]), (two, dots[1])):
            pen.arrow(box.right, dot.left, role, width=1.5)
        pen.arrow(dots[0].right, two.left, role, width=1.5)
        for at, dot in ((74, dots[0]), (138, dots[1])):
            pen.arrow((at, MIDDLE), dot.bottom if t == 1 else dot.top, "shared", width=1.5)
        pen.arrow((80, MIDDLE), (100, y - 13 * sign), "shared", width=1.5)
        box = pen.box(168, y - 15, 30, 30, f"*h*_{t}", role, size=15)
        pen.arrow(dots[1].right, box.left, role, width=1.5)
        pen.arrow(box.right, (217, y), width=1.5)


# ------------------------------------------------------------------------------------------ heads
def features(pen: Pen, t: int) -> Point:
    """The features of task t, which some pattern made."""
    pen.text(16, dict(LANES)[t], f"*z*_{t}")
    return 28, dict(LANES)[t]


@panel(
    "parallel heads",
    """Parallel heads: head h1 reads the features z1 and head h2 reads z2. Nothing passes between
    the two lines.""",
)
def heads_parallel(pen: Pen) -> None:
    for t, y in LANES:
        box = pen.box(64, y - 18, 44, 36, f"*h*_{t}", f"task{t}")
        pen.arrow(features(pen, t), box.left)
        pen.arrow(box.right, (184, y))
        pen.text(199, y, f"*ŷ*_{t}")


@panel(
    "sequential heads",
    """Sequential heads, a cascade: head h1 gives its prediction, and an arrow carries this
    prediction on into head h2, which reads it beside its own features z2. Nothing flows back
    up.""",
)
def heads_sequential(pen: Pen) -> None:
    for t, y in LANES:
        left = 64 if t == 1 else 118
        box = pen.box(left, y - 18, 44, 36, f"*h*_{t}", f"task{t}")
        pen.arrow(features(pen, t), box.left)
        pen.arrow(box.right, (184, y))
        pen.text(199, y, f"*ŷ*_{t}")
    pen.arrow((140, UP), (140, DOWN - 18), "task1", width=2.6)
    pen.circle((140, UP), 3, "task1", fill=1)


@panel(
    "cooperative heads",
    """Cooperative heads: h1 and h2 write drafts u1 and u2 side by side. Then each draft crosses
    over: e1 reads u2 and its correction is added to u1, e2 reads u1 and corrects u2.""",
)
def heads_cooperative(pen: Pen) -> None:
    for t, y in LANES:
        role, other = f"task{t}", DOWN if t == 1 else UP
        box = pen.box(40, y - 16, 34, 32, f"*h*_{t}", role)
        pen.arrow(features(pen, t), box.left)
        plus = pen.circle((166, y), 10, role, "+", size=14)
        pen.arrow(box.right, plus.left)
        pen.arrow(plus.right, (194, y))
        pen.text(207, y, f"*ŷ*_{t}")
        pen.text(87, y + 13 * (-1) ** t, f"*u*_{t}", 14)
        across = MIDDLE + 15 * (-1) ** t
        give = pen.box(126, across - 13, 30, 26, f"*e*_{t}", role, size=15)
        at = 104 if t == 1 else 114
        pen.circle((at, other), 3, f"task{3 - t}", fill=1)
        pen.arrow((at, other), give.left, f"task{3 - t}", via=[(at, across)])
        pen.arrow(give.right, plus.bottom if t == 1 else plus.top, role, via=[(166, across)])


# ----------------------------------------------------------------------------------------- sheets
def sheet(name: str, panels: list[str], columns: int, title: str, desc: str) -> Pen:
    """Panels side by side, and a last one that says what the colours mean."""
    rows = -(-len(panels) // columns)
    free = rows * columns - len(panels)
    gap = 20 if columns > 2 else 8
    width = columns * WIDTH + (columns - 1) * gap
    pen = Pen(name, width, rows * (HEIGHT + 14) + (0 if free else 30), title, desc)
    for k, each in enumerate(panels):
        with pen.moved(k % columns * (WIDTH + gap), k // columns * (HEIGHT + 14)):
            place(pen, each)
    keys = [("shared", "shared"), ("task1", "task 1"), ("task2", "task 2")]
    keys = keys if any(each.startswith("pattern") for each in panels) else keys[1:]
    for k, (role, word) in enumerate(keys):
        if free:
            x, y = (columns - 1) * (WIDTH + gap) + 50, (rows - 1) * (HEIGHT + 14) + 70 + 30 * k
        else:
            x, y = width / 2 - 60 * len(keys) + 20 + 120 * k, rows * (HEIGHT + 14) + 12
        pen.box(x, y - 9, 26, 18, "", role)
        pen.text(x + 36, y, word, anchor="start")
    return pen


ALL = list(PANELS)
PATTERNS = (
    "Nine ways to share, two tasks each",
    """Nine panels in one style. Patterns: one shared trunk; two trunks tied to their mean by
    springs; two rows of layers that cross after every layer; shared experts mixed by a gate
    per task; private and shared experts in two levels; a shared trunk seen through masks per
    task. Heads: side by side; one after the other; drafts exchanged and corrected.""",
)  # fmt: skip
HEADS = (
    "Parallel, sequential and cooperative heads",
    """Three panels. Parallel: each head reads its own features and nothing else. Sequential: the
    prediction of head 1 is also an input of head 2. Cooperative: both heads write drafts, and
    each draft is corrected by what the other task drafted.""",
)


@drawing
def sharing_patterns() -> Pen:
    return sheet("sharing_patterns", ALL, 3, *PATTERNS)


@drawing
def sharing_patterns_phone() -> Pen:
    return sheet("sharing_patterns_phone", ALL, 2, *PATTERNS)


@drawing
def heads() -> Pen:
    return sheet("heads", ALL[-3:], 3, *HEADS)


@drawing
def heads_phone() -> Pen:
    return sheet("heads_phone", ALL[-3:], 2, *HEADS)
