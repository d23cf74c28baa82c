"""Drawings of chapters 7 and 8: a graph of tasks, and a residual trunk with two heads."""

from .pen import Pen, drawing

EDGES = {(1, 2): 3, (2, 3): 1, (1, 3): 2, (3, 4): 1}


def laplacian() -> list[list[int]]:
    """Q = D - S of the graph."""
    tasks = range(1, 1 + max(map(max, EDGES)))
    degree = {i: sum(w for pair, w in EDGES.items() if i in pair) for i in tasks}
    return [
        [degree[i] if i == j else -EDGES.get((min(i, j), max(i, j)), 0) for j in tasks]
        for i in tasks
    ]


@drawing
def task_graph() -> Pen:
    pen = Pen(
        "task_graph", 440, 262, "A task graph and its Laplacian",
        """Left, four tasks as nodes, joined by edges whose thickness is their weight: 1 and 2 by
        3, 1 and 3 by 2, 2 and 3 by 1, 3 and 4 by 1. Right, the Laplacian matrix Q: on the
        diagonal the sum of the weights at each task, 5, 4, 4 and 1; elsewhere minus the weight
        of the edge, and zero where there is none. The edge of 1 and 2 and its two entries are
        marked.""",
    )  # fmt: skip
    places = {1: (34, 66), 2: (158, 66), 3: (96, 144), 4: (96, 218)}
    for (i, j), weight in EDGES.items():
        (x, y), (u, v) = places[i], places[j]
        pen.line([(x, y), (u, v)], "shared" if (i, j) == (1, 2) else "soft", width=2.2 * weight)
        shift = {(1, 2): (0, -16), (2, 3): (16, 8), (1, 3): (-16, 8), (3, 4): (14, 2)}[i, j]
        pen.text((x + u) / 2 + shift[0], (y + v) / 2 + shift[1], f"{weight}")
    for task, (x, y) in places.items():
        pen.element("circle", "paper", cx=x, cy=y, r=19, fill="currentColor")
        pen.circle((x, y), 19, "ink", str(task), fill=0.08)
    pen.text(96, 12, "tasks", bold=True)
    pen.text(320, 12, "*Q* = *D* − *S*", bold=True)
    left, top, cell, Q = 236, 42, 48, laplacian()
    for i in range(1, 5):
        pen.text(left + cell * (i - 0.5), top - 10, str(i), 14, role="soft")
        pen.text(left - 10, top + cell * (i - 0.5), str(i), 14, role="soft")
        for j in range(1, 5):
            marked = {i, j} == {1, 2}
            pen.box(left + cell * (j - 1), top + cell * (i - 1), cell, cell,
                    str(Q[i - 1][j - 1]).replace("-", "−"), "shared" if marked else "soft",
                    fill=0.3 if marked else 0.16 if i == j else 0, rx=0)  # fmt: skip
    pen.text(332, 250, "every row adds up to 0", 14)
    return pen


@drawing
def residual_two_heads() -> Pen:
    pen = Pen(
        "residual_two_heads", 440, 346, "A residual trunk with two heads",
        """Above, an image of either set passes the stem and three residual blocks of one shared
        trunk, whose last map is averaged to a vector of features; a head of 10 classes and a
        head of 100 classes read it. Below, one block: the main way has two convolutions, each
        followed by a batch norm, with a ReLU between; the shortcut runs around them and is
        added before the last ReLU.""",
    )  # fmt: skip
    y = 76
    pen.plate(70, 26, 262, 100, "shared trunk", "shared")
    pen.text(2, y, "image", anchor="start")
    stem = pen.box(80, y - 26, 46, 52, "stem", "shared", size=15)
    pen.arrow((54, y), stem.left)
    at, blocks = stem.right, []
    for k, (x, h) in enumerate(((144, 52), (186, 44), (228, 36))):
        blocks.append(pen.box(x, y - h / 2, 22, h, "", "shared", fill=0.3 + 0.1 * k))
        pen.arrow(at, blocks[-1].left)
        at = blocks[-1].right
    mean = pen.box(268, y - 18, 54, 36, "mean", "shared", size=15)
    pen.arrow(at, mean.left)
    for t, (v, classes) in enumerate(((44, 10), (108, 100)), 1):
        head = pen.box(362, v - 22, 74, 44, f"head {t}\n{classes}-way", f"task{t}", size=15)
        pen.arrow(mean.right, head.left, via=[(346, y), (346, v)])
    # one block, enlarged
    pen.line([(blocks[0].x, blocks[0].y + 52), (12, 168)], "soft", width=1, dashed=True)
    pen.line([(blocks[0].x + 22, blocks[0].y + 52), (428, 168)], "soft", width=1, dashed=True)
    pen.plate(4, 168, 432, 170, "one block")
    y = 286
    pen.text(16, y, "*x*")
    at = (24, y)
    for x, w, label in ((44, 48, "conv"), (106, 36, "BN"), (156, 48, "ReLU"), (218, 48, "conv"),
                        (280, 36, "BN")):  # fmt: skip
        box = pen.box(x, y - 18, w, 36, label, "shared", size=14)
        pen.arrow(at, box.left)
        at = box.right
    plus = pen.circle((344, y), 12, label="+")
    pen.arrow(at, plus.left)
    relu = pen.box(370, y - 18, 48, 36, "ReLU", "shared", size=14)
    pen.arrow(plus.right, relu.left)
    pen.arrow((34, y), plus.top, via=[(34, 222), (344, 222)], width=2.6)
    pen.text(189, 206, "shortcut: *x* itself", 15)
    pen.text(180, 320, "the correction *F*(*x*)", 15)
    return pen
