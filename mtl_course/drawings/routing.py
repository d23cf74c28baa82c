"""Drawings of chapter 9: rows that are sent to one expert each, and a product of two chances."""

from .pen import Pen, drawing

ROWS = (58, 106, 154, 202)  # heights of the rows of a batch
EXPERTS = ((74, "1"), (130, "2"), (186, "3"))


@drawing
def top_one_routing() -> Pen:
    pen = Pen(
        "top_one_routing", 430, 292, "Top-1 routing: each row goes to one expert",
        """One task's gate reads four rows of a batch. It sends rows 1 and 3 to expert 1 and rows 2
        and 4 to expert 2; expert 3 gets none and does not run. What comes back is multiplied by
        the gate's chance p, through which alone a dashed gradient reaches the gate.""",
    )  # fmt: skip
    pen.text(42, 24, "rows", 15, bold=True)
    pen.text(252, 24, "experts, shared", 15, bold=True)
    pen.text(389, 24, "features", 15, bold=True)
    goals = (0, 1, 0, 1)
    pen.box(98, 40, 44, 180, "*g*_1", "task1")
    experts = []
    for e, (y, name) in enumerate(EXPERTS):
        idle = e == 2
        experts.append(pen.box(218, y - 20, 68, 40, f"*f*_{name}", "frozen" if idle else "shared",
                               dashed=idle, fill=0 if idle else 0.14))  # fmt: skip
    for k, (y, goal) in enumerate(zip(ROWS, goals, strict=True)):
        row = pen.box(18, y - 13, 48, 26, f"*x*_{k + 1}", "soft", size=15)
        pen.arrow(row.right, (98, y), width=1.5)
        spot = experts[goal].at("left", 0.3 if k < 2 else 0.7)
        pen.line([(142, y), (190, spot[1])], "task1", width=1.5)
        pen.arrow((190, spot[1]), spot, "task1", width=1.5)
    for e in (0, 1):
        dot = pen.circle((330, EXPERTS[e][0]), 11, "task1", "×", size=15)
        pen.arrow(experts[e].right, dot.left, width=1.5)
        pen.arrow(dot.right, (362, EXPERTS[e][0]), width=1.5)
        rows = "*x*_1, *x*_3" if e == 0 else "*x*_2, *x*_4"
        pen.text(392, EXPERTS[e][0], rows, 15)
    pen.text(330, 54, "*p*", 15)
    pen.text(318, 112, "*p*", 15)
    pen.text(252, 220, "no row: not run", 13, role="soft")
    # the gradient reaches the gate through the chances alone
    pen.arrow((330, 141), (120, 221), "shared", True, via=[(330, 246), (120, 246)])
    pen.text(225, 264, "gradient through the chance *p*", 14)
    return pen


@drawing
def product_of_chances() -> Pen:
    pen = Pen(
        "product_of_chances", 440, 262, "ESMM: two heads, and a product that has the second loss",
        """A pair of a user and a film enters shared embeddings. One head gives P(seen), which has
        a loss over all pairs. The other gives P(liked if seen) and has no loss of its own: the two
        chances are multiplied to P(seen and liked), which has the second loss, again over all
        pairs. The dashed gradient of that loss is all that the second head learns from.""",
    )  # fmt: skip
    pair = pen.box(4, 104, 56, 54, "user,\nfilm", "soft", size=14)
    trunk = pen.box(84, 84, 66, 94, "shared\nvectors", "shared", size=14)
    pen.arrow(pair.right, trunk.left)
    seen = pen.box(178, 44, 92, 46, "P(seen)", "task1", size=14)
    liked = pen.box(178, 166, 92, 52, "P(liked\nif seen)", "task2", size=14)
    pen.arrow((150, 108), seen.left, via=[(164, 108), (164, seen.left[1])])
    pen.arrow((150, 152), liked.left, via=[(164, 152), (164, liked.left[1])])
    times = pen.circle((312, 140), 14, "ink", "×")
    first = pen.box(344, 40, 92, 54, "loss: seen?\nall pairs", "task1", size=13)
    second = pen.box(344, 110, 92, 60, "loss: seen\nand liked?\nall pairs", "target", size=13)
    pen.arrow(seen.right, first.left)
    pen.arrow((290, seen.right[1]), (304, 129), via=[(290, 118)])
    pen.arrow(liked.at("right", 0.35), (306, 153), via=[(306, liked.at("right", 0.35)[1])])
    pen.arrow(times.right, second.left)
    below = liked.at("right", 0.8)[1]
    pen.arrow(second.bottom, (liked.right[0], below), "shared", True,
              via=[(second.bottom[0], below)])  # fmt: skip
    pen.text(330, 232, "gradient", 14)
    pen.text(224, 240, "no loss of its own", 13, role="soft")
    return pen
