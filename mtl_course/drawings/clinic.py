"""Drawing of chapter 21: an early outcome for all, a late one for few, and tied weights."""

from .pen import Pen, drawing

ROWS, LATE = 6, 2  # patients shown; how many of them have a known late outcome


@drawing
def surrogate_outcome() -> Pen:
    pen = Pen(
        "surrogate_outcome", 448, 372, "A surrogate for all, the outcome for few",
        """Above: six patients as rows. Each has an input x, known on day 3, and a filled field for
        the early outcome, dead by day 30. The field of the late outcome, dead by one year, is
        filled for the first two patients only; the others are dashed and empty, with a question
        mark. Below: the early outcomes of all patients train the weights w zero, which are then
        frozen. The late outcomes of few train the weights w. A dashed line with the strength
        lambda pulls w towards w zero.""",
    )  # fmt: skip
    top, high, gap = 34, 22, 6
    columns = ((84, 96, "day 3"), (204, 96, "by day 30"), (324, 96, "by one year"))
    for x, wide, label in columns:
        pen.text(x + wide / 2, 16, label, 15)
    for row in range(ROWS):
        y = top + row * (high + gap)
        middle = y + high / 2
        if row == 0:
            pen.text(40, top + (ROWS * (high + gap) - gap) / 2, "patients", 14)
        pen.box(84, y, 96, high, "*x*", "ink", fill=0.06, size=14)
        pen.arrow((182, middle), (202, middle))
        pen.box(204, y, 96, high, "*s*", "source", fill=0.35, size=14)
        pen.arrow((302, middle), (322, middle))
        there = row < LATE
        pen.box(324, y, 96, high, "*y*" if there else "?", "target" if there else "soft",
                fill=0.35 if there else 0, dashed=not there, size=14)  # fmt: skip
    low = top + ROWS * (high + gap)
    pen.arrow((252, low + 2), (252, low + 42), "source")
    pen.arrow((372, low + 2), (372, low + 42), "target")
    pen.text(244, low + 20, "all teach", 14, "end")
    pen.text(380, low + 20, "few", 14, "start")
    y = low + 46
    pen.box(204, y, 96, 40, "*w*_0", frozen=True, size=17)
    pen.box(324, y, 96, 40, "*w*", "target", size=17)
    # the pull goes below both
    pen.arrow((372, y + 42), (252, y + 44), "target", True, via=[(372, y + 66), (252, y + 66)])
    pen.text(312, y + 82, "pulled back, strength *λ*", 14)
    pen.text(190, y + 20, "learned first,\nthen fixed", 14, "end")
    return pen
