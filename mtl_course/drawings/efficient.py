"""Drawings of chapter 13: a change of low rank, adapters on one trunk, weights as points."""

from .pen import Pen, drawing
from .places import Point

# TIES by hand: changes of five weights by three tasks, of which three each are kept.
CHANGES = ((6, 1, -4, 3, -2), (4, -5, 2, -7, 1), (-3, -4, 1, 5, 2))
KEPT = 3
# The plane of weights, in pixels from the ancestor, upwards.
TAU, COEFFICIENT = ((44.0, 112.0), (168.0, -20.0)), 0.8


@drawing
def low_rank_update() -> Pen:
    pen = Pen(
        "low_rank_update", 440, 420, "LoRA: a frozen matrix, and a change of low rank beside it",
        """Above, training: the input x goes through the frozen, hatched matrix W, and beside it
        through A, which narrows to r numbers, and B, which widens again. The second way, times
        alpha over r, is added to the first. Dashed gradients reach B and A only. Below,
        merging: W plus alpha over r times B times A, a tall matrix times a flat one, is one
        matrix of the size of W.""",
    )  # fmt: skip
    pen.text(4, 12, "train", bold=True, anchor="start")
    pen.text(54, 12, "only *A* and *B* learn", 14, "start", role="soft")
    high, low = 74.0, 172.0
    pen.text(16, high, "*x*", 18)
    frozen = pen.box(112, high - 40, 120, 80, "*W*", frozen=True, size=18)
    pen.arrow((26, high), frozen.left)
    plus = pen.circle((374, high), 17, label="+")
    pen.arrow(frozen.right, plus.left)
    pen.arrow(plus.right, (424, high))
    pen.text(432, high, "*h*", 18)
    # the narrow way: A falls to r numbers, B rises again
    waist, tall = 9.0, 36.0
    pen.region([(92, low - tall), (162, low - waist), (162, low + waist), (92, low + tall)],
               "shared", width=1.8)  # fmt: skip
    pen.text(122, low, "*A*", 18)
    pen.region([(192, low - waist), (262, low - tall), (262, low + tall), (192, low + waist)],
               "shared", width=1.8)  # fmt: skip
    pen.text(232, low, "*B*", 18)
    pen.arrow((54, high), (92, low), via=[(54, low)])
    pen.arrow((162, low), (192, low))
    pen.text(177, low - 24, "*r*")
    scale = pen.box(296, low - 17, 48, 34, "× *α*/*r*", "soft", size=14)
    pen.arrow((262, low), scale.left)
    pen.arrow(scale.right, plus.bottom, via=[(374, low)])
    pen.arrow((392, high + 16), (262, low + 26), "shared", True, via=[(392, low + 26)])
    pen.arrow((192, low + 8), (163, low + 8), "shared", True)
    pen.text(122, low + 50, "random", 14)
    pen.text(232, low + 50, "zero at first", 14)
    pen.text(392, low + 46, "gradient", 14)
    # one matrix again
    pen.line([(0, 244), (440, 244)], "soft", width=0.8)
    pen.text(4, 264, "merge", bold=True, anchor="start")
    pen.text(66, 264, "one matrix again: no extra time", 14, "start", role="soft")
    middle, side, thin = 344.0, 84.0, 20.0
    pen.box(4, middle - side / 2, side, side, "*W*", frozen=True, size=18, rx=2)
    pen.text(103, middle, "+", 20)
    pen.text(132, middle, "*α*/*r*")
    pen.box(158, middle - side / 2, thin, side, "*B*", "shared", fill=0.3, rx=2)
    pen.text(192, middle, "×")
    pen.box(206, middle - thin / 2, side, thin, "*A*", "shared", fill=0.3, rx=2)
    pen.text(313, middle, "=", 20)
    pen.box(336, middle - side / 2, side, side, "merged\n*W*", "shared", size=15, rx=2)
    pen.text(168, middle + 56, "*r* columns", 14)
    pen.text(248, middle + 26, "*r* rows", 14)
    return pen


@drawing
def adapters_on_trunk() -> Pen:
    pen = Pen(
        "adapters_on_trunk", 440, 340, "Many adapters on one frozen trunk",
        """A batch of task 2 passes three layers of one trunk, frozen and hatched, and leaves
        through head 2. After each layer stands a small adapter in the colour of task 2. Below,
        a shelf with a card for each task, which holds three adapters and a head. The card of
        task 2 is empty, its dashed places show what is plugged in now; an arrow leads from it
        to the trunk. The sets of tasks 1 and 3 wait on their cards.""",
    )  # fmt: skip
    on, y = 2, 78
    pen.plate(88, 18, 276, 116, "one trunk, frozen, stored once")
    batch = pen.box(2, y - 27, 66, 54, f"batch of\ntask {on}", f"task{on}", size=14)
    at = batch.right
    for k in range(3):
        layer = pen.box(98 + 88 * k, y - 32, 58, 64, f"layer {k + 1}", frozen=True, size=14)
        slot = pen.box(layer.right[0], y - 21, 18, 42, "", f"task{on}", fill=0.75, rx=3)
        pen.arrow(at, layer.left)
        at = slot.right
    head = pen.box(380, y - 22, 58, 44, f"head {on}", f"task{on}", fill=0.35, size=14)
    pen.arrow(at, head.left)
    for task in (1, 2, 3):
        x, role = 4 + 148 * (task - 1), f"task{task}"
        with pen.moved(x, 206):
            pen.plate(0, 0, 136, 92, f"task {task}" + (": in use" if task == on else ""))
            look = {"dashed": task == on, "fill": 0 if task == on else 0.75}
            for k in range(3):
                pen.box(12 + 24 * k, 34, 18, 42, "", role, rx=3, **look)
            pen.box(86, 34, 40, 42, "", role, dashed=task == on, fill=0 if task == on else 0.35)
    pen.arrow((220, 206), (220, 134), f"task{on}", width=3.6)
    pen.text(232, 170, "plugged in", 14, "start")
    pen.text(220, 320, "the shelf: a small file for each task", 14, role="soft")
    return pen


def ties() -> dict[str, list]:
    """TIES by hand: the kept changes, the sign of their sum, and the mean of those of that sign."""
    kept = []
    for change in CHANGES:
        least = sorted(map(abs, change))[-KEPT]
        kept.append([c if abs(c) >= least else 0 for c in change])
    columns = list(zip(*kept, strict=True))
    signs = [(sum(column) > 0) - (sum(column) < 0) for column in columns]
    merged = []
    for sign, column in zip(signs, columns, strict=True):
        agree = [c for c in column if c * sign > 0]
        merged.append(sum(agree) / len(agree) if agree else 0)
    return {"kept": kept, "signs": signs, "merged": merged}


def merged_points() -> dict[str, Point]:
    """Where each way of adding up ends, from the ancestor."""
    (a, b), (c, d) = TAU
    return {
        "average": ((a + c) / 2, (b + d) / 2),
        "arithmetic": (COEFFICIENT * (a + c), COEFFICIENT * (b + d)),
        "negation": (-COEFFICIENT * c, -COEFFICIENT * d),
    }


def number(value: float) -> str:
    """A number as it is printed, with a true minus."""
    return f"{value:g}".replace("-", "−")


@drawing
def task_vectors() -> Pen:
    pen = Pen(
        "task_vectors", 440, 520, "Task vectors: added, averaged, negated, and merged by TIES",
        """Above, weights as points of a plane. From the ancestor, theta 0, a task vector leads to
        the expert of task 1, another to that of task 2. Their average lies halfway between the
        experts; task arithmetic goes on beyond it; the negative of task vector 2 leads away
        from expert 2. Below, TIES in numbers: of three tasks' changes of five weights, small
        ones are crossed out, each column elects a sign, and the mean is taken over those that
        have it.""",
    )  # fmt: skip
    start = (170.0, 176.0)

    def place(shift: Point) -> Point:
        return start[0] + shift[0], start[1] - shift[1]

    pen.text(4, 12, "weights as points", bold=True, anchor="start")
    ends, points = [place(tau) for tau in TAU], {k: place(p) for k, p in merged_points().items()}
    pen.line([ends[0], ends[1]], "soft", width=1.2)
    pen.line([start, points["arithmetic"]], "shared", width=1.4)
    pen.arrow(start, points["negation"], "task2", width=2)
    for t, end in enumerate(ends, 1):
        pen.vector(start, end, f"task{t}")
        pen.text(end[0] + (0 if t == 1 else 12), end[1] - (14 if t == 1 else -18),
                 f"expert *θ*_{t}")  # fmt: skip
    pen.text(start[0] + 4, start[1] - 74, "*τ*_1", 16, "start")
    pen.text(start[0] + 100, start[1] + 28, "*τ*_2")
    pen.box(start[0] - 8, start[1] - 8, 16, 16, "", "source", fill=1, rx=2)
    pen.text(start[0] - 4, start[1] + 22, "ancestor *θ*_0")
    for name, point in points.items():
        pen.circle(point, 7, "task2" if name == "negation" else "shared", fill=1)
    pen.text(points["average"][0] - 14, points["average"][1] - 8, "average", 14, "end")
    pen.text(348, 66, "task arithmetic\n*θ*_0 + *λ*(*τ*_1 + *τ*_2)", 14)
    pen.text(66, 122, "negation\n*θ*_0 − *λτ*_2:\nforgets task 2", 14)
    # TIES, a column for each weight
    pen.line([(0, 238), (440, 238)], "soft", width=0.8)
    pen.text(4, 258, "TIES", bold=True, anchor="start")
    pen.text(52, 258, "on five weights, a column each", 14, "start", role="soft")
    found, left, wide = ties(), 70.0, 50.0
    for t, (change, kept) in enumerate(zip(CHANGES, found["kept"], strict=True), 1):
        y = 290 + 36 * (t - 1)
        pen.text(58, y, f"*τ*_{t}", 16, "end")
        for k, (value, left_over) in enumerate(zip(change, kept, strict=True)):
            x = left + wide * k
            agrees = left_over * found["signs"][k] > 0
            role = f"task{t}" if left_over else "soft"
            pen.box(x + 2, y - 15, wide - 4, 30, number(value), role, rx=2,
                    fill=0.4 if agrees else 0, dashed=bool(left_over and not agrees))  # fmt: skip
            if not left_over:
                pen.line([(x + 8, y + 9), (x + wide - 8, y - 9)], "soft", width=1.6)
    for k, (sign, value) in enumerate(zip(found["signs"], found["merged"], strict=True)):
        x = left + wide * (k + 0.5)
        pen.text(x, 400, {1: "+", -1: "−", 0: ""}[sign], 20, bold=True)
        pen.box(x - 23, 424, 46, 30, number(value), "shared", fill=0.4, rx=2)
    pen.text(58, 400, "sign", 14, "end")
    pen.text(58, 439, "merged", 14, "end")
    for y, step in ((290, "trim"), (400, "elect"), (439, "merge")):
        pen.text(332, y, step, 15, "start", bold=True)
    pen.text(332, 317, "small ones\nare struck", 14, "start")
    pen.text(332, 358, "dashed: the\nother sign", 14, "start")
    pen.text(4, 486, "merged: the mean of the filled cells of the column.\n"
             "Times *λ*, it is added to the ancestor.", 14, "start", role="soft")  # fmt: skip
    return pen
