"""Drawings of chapter 23: what an attacker reads, and what hides a row from him."""

from .pen import Pen, drawing


@drawing
def attack_and_defence() -> Pen:
    pen = Pen(
        "attack_and_defence", 440, 372, "Attack and defence",
        """Above, the attack. A person's row was among the training rows of one network with three
        heads. The attacker asks all heads about this person and adds up how sure they are of the
        right answers; if more than networks that never saw the row, it probably was a member.
        Below, the defence. Each row's gradient over all tasks together is an arrow. Arrows that are
        longer than C are cut to the circle of radius C; they are added up, and noise as wide as a
        cloud is added, so that one arrow more or less does not show.""",
    )  # fmt: skip
    pen.text(6, 14, "attack", 16, "start", bold=True)
    for k in range(5):
        mine = k == 2
        pen.box(12, 34 + 22 * k, 74, 18, "a person" if mine else "", "target" if mine else "soft",
                fill=0.3 if mine else 0.14, size=13, rx=2)  # fmt: skip
    pen.arrow((90, 89), (122, 89))
    pen.box(122, 52, 92, 74, "trained\nnetwork", "shared")
    for t, y in ((1, 44), (2, 75), (3, 106)):
        head = pen.box(238, y, 62, 26, f"task {t}", f"task{t}", size=13)
        pen.arrow((214, 89), head.left, via=[(226, 89), (226, y + 13)])
        pen.arrow(head.right, (334, 89), via=[(318, y + 13), (318, 89)], head=t == 2)
    pen.circle((350, 89), 15, label="+")
    pen.arrow((365, 89), (384, 89))
    pen.text(411, 89, "how\nsure?", 15, bold=True)
    pen.text(220, 152, "three answers about one person say more than one", 14, role="soft")
    pen.line([(6, 174), (434, 174)], "soft", width=1.0, dashed=True)
    pen.text(6, 194, "defence", 16, "start", bold=True)
    pen.text(90, 220, "each row's gradient,\nall tasks together", 14)
    pen.element("circle", "soft", cx=90, cy=300, r=38, stroke="currentColor", fill="none",
                stroke_width=1.4, stroke_dasharray="5 4")  # fmt: skip
    pen.vector((90, 300), (62, 287), "ink")
    pen.vector((90, 300), (104, 322), "ink")
    pen.arrow((90, 300), (160, 265), "target", gradient=True)
    pen.vector((90, 300), (124, 283), "target")
    pen.text(90, 356, "cut to length *C*", 14)
    pen.arrow((176, 300), (204, 300))
    pen.circle((222, 300), 15, label="+")
    pen.text(222, 270, "add up", 14)
    pen.arrow((237, 300), (262, 300))
    pen.text(344, 220, "the sum, hidden in\nnoise *σ C* wide", 14)
    for r, fill in ((56, 0.08), (40, 0.12), (24, 0.18)):
        pen.element("circle", "shared", cx=344, cy=300, r=r, fill="currentColor",
                    fill_opacity=fill, stroke="none")  # fmt: skip
    pen.element("circle", "ink", cx=340, cy=302, r=3.5, fill="currentColor")
    pen.element("circle", "target", cx=352, cy=296, r=3.5, fill="currentColor")
    pen.text(344, 364, "with or without it?", 14)
    return pen
