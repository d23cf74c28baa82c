"""Drawings of chapter 10: a cell unrolled in time with several heads, and a split in time."""

from .pen import Pen, drawing


@drawing
def unrolled_heads() -> Pen:
    pen = Pen(
        "unrolled_heads", 440, 330, "One recurrent cell, unrolled, with several heads",
        """Four copies of the same cell in a row, shared weights. Each reads a frame below it and
        the state of the cell before, and hands its own state on to the right. Above every cell but
        the last, a green head guesses the next frame, which needs no label. Above the last cell
        alone a red head names the speaker, for which there are few labels. All heads train the
        same cell.""",
    )  # fmt: skip
    xs = (24.0, 128.0, 232.0, 336.0)
    y, wide = 168.0, 66.0
    cells = [pen.box(x, y - 24, wide, 48, "cell", "shared") for x in xs]
    for k, (cell, x) in enumerate(zip(cells, xs, strict=True)):
        frame = pen.box(x + 6, 250, wide - 12, 34, f"*x*_{k + 1}", "soft")
        pen.arrow(frame.top, cell.bottom)
        if k:
            pen.arrow(cells[k - 1].right, cell.left, "shared")
            pen.text((cells[k - 1].right[0] + cell.left[0]) / 2, y - 14, f"*h*_{k}", 14)
    for k, cell in enumerate(cells[:-1]):
        head = pen.box(cell.x - 4, 62, wide + 8, 44, f"guess\nof *x*_{k + 2}", "task2", size=14)
        pen.arrow(cell.top, head.bottom)
    head = pen.box(xs[-1] - 8, 62, wide + 16, 44, "speaker", "task1", size=15)
    pen.arrow(cells[-1].top, head.bottom)
    pen.text(150, 22, "next frame: needs no label", 14, bold=True, role="task2")
    pen.text(xs[-1] + wide / 2, 22, "label: few", 14, bold=True, role="task1")
    pen.line([(20, 42), (290, 42)], "task2", width=1.2)
    pen.line([(334, 42), (414, 42)], "task1", width=1.2)
    pen.text(220, 312, "one cell, the same weights at every step", 14, role="soft")
    return pen


@drawing
def split_in_time() -> Pen:
    pen = Pen(
        "split_in_time", 440, 250, "A split in time, with a gap as long as the horizon",
        """A line of time with a cut. To its left are the weeks to train on, to its right those to
        test on. A window of past weeks ends at week t, and its label is the mean of the h weeks
        after. A training window whose label reaches over the cut is crossed out: its last weeks
        are of the future. So a gap of h weeks before the cut has windows in no part. Below, a
        test window begins before the cut, which is allowed, since it is past by then.""",
    )  # fmt: skip
    cut = 270.0
    pen.text(120, 16, "train", bold=True)
    pen.text(360, 16, "test", bold=True)
    pen.line([(cut, 4), (cut, 206)], "ink", dashed=True)
    pen.region([(cut - 66, 30), (cut, 30), (cut, 206), (cut - 66, 206)], "soft", fill=0.1)
    rows = (("shared", 18.0, 52.0, "in"), ("target", 132.0, 104.0, "out"),
            ("task2", 222.0, 156.0, "in"))  # fmt: skip
    for role, x, y, verdict in rows:
        pen.box(x, y, 84, 30, "window", role, size=14)
        pen.box(x + 86, y, 66, 30, "label", role, size=14, dashed=True)
        if verdict == "out":
            pen.line([(x - 4, y - 5), (x + 156, y + 35)], "target", width=2.6)
            pen.line([(x - 4, y + 35), (x + 156, y - 5)], "target", width=2.6)
    pen.arrow((8, 206), (434, 206))
    pen.text(412, 220, "time", 14)
    pen.text(cut, 220, "cut", 14)
    pen.text(cut - 66, 238, "gap: as long as the longest horizon", 14, "middle", role="soft")
    return pen
