"""Drawings of chapter 20: an episode as a sequence, and who looks at whom."""

from .pen import Pen, drawing


@drawing
def episode_sequence() -> Pen:
    pen = Pen(
        "episode_sequence", 448, 340, "An episode as a sequence",
        """Above: five places in a row. Three are examples, each an input x with its target y; two
        are questions, each an x alone. All five go through the same Transformer, whose weights are
        frozen, and out of the two questions come two answers. Below: the mask as a grid of five
        rows and five columns. In every row the three columns of the examples are filled and the
        two columns of the questions are empty: everyone looks at the examples, no one looks at a
        question.""",
    )  # fmt: skip
    left, step, wide = 16, 86, 70
    centres = [left + wide / 2 + step * k for k in range(5)]
    labels = ["*x*_1 , *y*_1", "*x*_2 , *y*_2", "*x*_3 , *y*_3", "*x* ?", "*x*' ?"]
    pen.text((centres[0] + centres[2]) / 2, 10, "examples", 15)
    pen.text((centres[3] + centres[4]) / 2, 10, "questions", 15)
    for k, (x, label) in enumerate(zip(centres, labels, strict=True)):
        asks = k > 2
        pen.box(x - wide / 2, 24, wide, 30, label, "target" if asks else "source", dashed=asks)
        pen.arrow((x, 57), (x, 78))
    pen.box(left - 6, 81, 4 * step + wide + 12, 40, "Transformer, no weight moves", frozen=True)
    for x, label in zip(centres[3:], ("*p*(*y*)", "*p*(*y*')"), strict=True):
        pen.arrow((x, 124), (x, 144))
        pen.text(x, 156, label, 15)

    # the mask
    size, top, start = 26, 196, 160
    pen.text(start + 2.5 * size, 180, "is seen", 14)
    names = ["1", "2", "3", "*x*", "*x*'"]
    for row in range(5):
        pen.text(start - 16, top + size * (row + 0.5), names[row], 14)
        for column in range(5):
            seen = column < 3
            pen.box(start + size * column, top + size * row, size, size, "",
                    "source" if seen else "soft", fill=0.45 if seen else 0, rx=0)  # fmt: skip
    pen.text(start - 40, top + 2.5 * size, "looks", 14, "end")
    right = start + 5 * size + 14
    pen.text(right, top + size * 1.5, "everyone looks\nat the examples", 14, "start")
    pen.text(right, top + size * 4, "no one looks\nat a question", 14, "start")
    return pen
