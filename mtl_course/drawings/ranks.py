"""Drawing of chapter 22: gradients on two ranks, and two ways to a Gram matrix."""

from .pen import Pen, drawing
from .places import Point

# Gradients of two tasks on two ranks, as in the chapter's example by hand.
RANKS = (((1, 1), (-1, 1)), ((1, -1), (-1, -1)))
UNIT = 34  # pixels


def mean_gradients() -> list[tuple[float, float]]:
    """Of each task, over the ranks."""
    return [tuple(sum(rank[t][k] for rank in RANKS) / len(RANKS) for k in (0, 1)) for t in (0, 1)]


def matrix(gradients) -> list[list[float]]:
    """All dot products."""
    return [[sum(a * b for a, b in zip(g, h, strict=True)) for h in gradients] for g in gradients]


def mean_matrix() -> list[list[float]]:
    """The mean over ranks of their Gram matrices."""
    all_ranks = [matrix(rank) for rank in RANKS]
    return [[sum(G[i][j] for G in all_ranks) / len(RANKS) for j in (0, 1)] for i in (0, 1)]


def _numbers(pen: Pen, x: float, y: float, rows) -> None:
    """A matrix of two rows in brackets, its middle at x, y."""
    for side in (-1, 1):
        edge = x + 38 * side
        corner = edge - 6 * side
        pen.line([(corner, y - 24), (edge, y - 24), (edge, y + 24), (corner, y + 24)], width=1.4)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            text = f"{value:g}".replace("-", "\N{MINUS SIGN}")
            pen.text(x - 18 + 36 * j, y - 12 + 24 * i, text)


def _pair(pen: Pen, at: Point, gradients) -> None:
    """The gradients of two tasks from one point."""
    for task, (u, v) in enumerate(gradients, 1):
        end = at[0] + UNIT * u, at[1] - UNIT * v
        pen.arrow(at, end, f"task{task}", gradient=True, width=2.4)
    pen.circle(at, 3, "ink", fill=1)


@drawing
def ranks_and_gram() -> Pen:
    pen = Pen(
        "ranks_and_gram", 440, 452, "Two ranks, and two orders of averaging",
        """Two ranks have gradients of two tasks, drawn as dashed arrows. On rank 0 they point up
        right and up left, on rank 1 down right and down left: on each rank at a right angle. To
        the left, the gradients are averaged first: those of task 1 point right, those of task 2
        left, and the Gram matrix is 1, minus 1, minus 1, 1: full conflict. To the right, each
        rank takes its Gram matrix, and the mean of these is 2, 0, 0, 2: no conflict to be
        seen.""",
    )  # fmt: skip
    for rank, x in enumerate((110, 330)):
        pen.plate(x - 92, 6, 184, 116, f"rank {rank}")
        _pair(pen, (x, 82 if rank == 0 else 46), RANKS[rank])
    pen.text(46, 62, "task 2", 14)
    pen.text(174, 62, "task 1", 14)
    pen.text(266, 62, "task 2", 14)
    pen.text(394, 62, "task 1", 14)
    for x in (110, 330):
        pen.line([(x, 122), (x, 140)], width=1.8)
    pen.line([(110, 140), (330, 140)], width=1.8)
    for x in (110, 330):
        pen.arrow((x, 140), (x, 164))
    # Left: gradients first.
    pen.text(110, 180, "average gradients", bold=True)
    pen.text(110, 204, "*T* · *P* numbers travel", 14, role="soft")
    _pair(pen, (110, 252), mean_gradients())
    pen.arrow((110, 276), (110, 306))
    pen.text(124, 290, "dot products", 14, "start")
    _numbers(pen, 110, 344, matrix(mean_gradients()))
    pen.text(110, 398, "full conflict", bold=True, role="target")
    pen.text(110, 424, "what one process sees", 14, role="soft")
    # Right: Gram matrices first.
    pen.text(330, 180, "dot products", bold=True)
    pen.text(330, 204, "*T* · *T* numbers travel", 14, role="soft")
    for k, x in enumerate((280, 380)):
        _numbers(pen, x, 252, matrix(RANKS[k]))
    pen.arrow((330, 276), (330, 306))
    pen.text(344, 290, "average", 14, "start")
    _numbers(pen, 330, 344, mean_matrix())
    pen.text(330, 398, "no conflict", bold=True)
    pen.text(330, 424, "the ranks' noise hides it", 14, role="soft")
    return pen
