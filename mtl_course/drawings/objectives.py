"""Drawings of chapters 1 and 2: what is trained, on what, and what is carried over."""

from .pen import Pen, drawing


def legend(pen: Pen, x: float, y: float, gap: float = 150) -> None:
    """The two kinds of arrow, told in words."""
    pen.arrow((x, y), (x + 34, y))
    pen.text(x + 42, y, "data", 14, "start")
    pen.arrow((x + gap - 58, y), (x + gap - 92, y), gradient=True)
    pen.text(x + gap - 50, y, "gradient", 14, "start")


@drawing
def joint_step() -> Pen:
    pen = Pen(
        "joint_step", 440, 318, "One joint step",
        """A batch of task 1 and a batch of task 2 pass through one shared trunk, each goes on to
        its task's own head and loss, and the weighted losses are added up. Dashed arrows run back:
        the trunk receives the gradients of both tasks, a head only that of its own.""",
    )  # fmt: skip
    trunk = pen.box(110, 96, 92, 88, "trunk", "shared")
    pen.text(156, 72, "shared", 14)
    pen.circle((414, 140), 18, label="+")
    for t, y, up in ((1, 40, -1), (2, 240, 1)):
        role, part = f"task{t}", (0.28, 0.72)[t - 1]
        batch = pen.box(6, y - 20, 72, 40, f"batch {t}", role)
        head = pen.box(242, y - 20, 66, 40, f"head {t}", role)
        loss = pen.box(344, y - 20, 44, 40, f"*L*_{t}", role)
        pen.arrow(
            batch.right, trunk.at("left", part), via=[(94, y), (94, trunk.at("left", part)[1])]
        )
        x, inner = 216, trunk.at("right", part)[1]
        pen.arrow(trunk.at("right", part), head.at("left", 0.5 + 0.2 * up),
                  via=[(x, inner), (x, y + 8 * up)])  # fmt: skip
        pen.arrow(head.at("right", 0.5 + 0.2 * up), loss.at("left", 0.5 + 0.2 * up))
        pen.arrow(loss.at("right", 0.5 + 0.2 * up), (418, 140 + 18 * up), via=[(418, y + 8 * up)])
        # and back
        pen.arrow((406, 140 + 17 * up), loss.at("right", 0.5 - 0.2 * up), role, True,
                  via=[(406, y - 8 * up)])  # fmt: skip
        pen.arrow(loss.at("left", 0.5 - 0.2 * up), head.at("right", 0.5 - 0.2 * up), role, True)
        inner -= 14 * up
        pen.arrow(head.at("left", 0.5 - 0.2 * up), (202, inner), role, True,
                  via=[(228, y - 8 * up), (228, inner)])  # fmt: skip
    pen.text(382, 140, "*w*_1*L*_1 + *w*_2*L*_2", 14, "end")
    pen.text(156, 204, "gets both\ngradients", 14)
    legend(pen, 130, 300, 190)
    return pen


@drawing
def one_family() -> Pen:
    pen = Pen(
        "one_family", 440, 400, "Single, joint and pooled",
        """Three ways to learn two tasks. Single: each task has a trunk and a head of its own.
        Joint: the data of both tasks pass through one shared trunk, and each task has its own
        head. Pooled: trunk and head are one model for all the data, as if there were one task.""",
    )  # fmt: skip
    rows = (("single", "nothing is shared"), ("joint", "the trunk is shared"),
            ("pooled", "everything is one"))  # fmt: skip
    for k, (name, says) in enumerate(rows):
        with pen.moved(0, 134 * k):
            pen.text(4, 12, name, bold=True, anchor="start")
            pen.text(80, 12, says, 14, "start", role="soft")
            up, down = 48, 102
            if name == "single":
                trunks = [pen.box(130, y - 20, 100, 40, f"trunk {t}", "single")
                          for t, y in ((1, up), (2, down))]  # fmt: skip
            else:
                role = "shared" if name == "joint" else "pooled"
                trunks = [pen.box(130, up - 20, 100, down - up + 40, "trunk", role)] * 2
            if name == "pooled":
                heads = [pen.box(280, up - 20, 100, down - up + 40, "head", "pooled")] * 2
                pen.arrow(trunks[0].right, heads[0].left)
                pen.arrow(heads[0].right, (424, heads[0].right[1]))
            else:
                heads = [pen.box(280, y - 20, 100, 40, f"head {t}",
                                 "single" if name == "single" else f"task{t}")
                         for t, y in ((1, up), (2, down))]  # fmt: skip
            for t, y in ((1, up), (2, down)):
                data = pen.box(6, y - 16, 76, 32, f"data {t}", f"task{t}")
                pen.arrow(data.right, (130, y))
                if name != "pooled":
                    pen.arrow((230, y), (280, y))
                    pen.arrow((380, y), (424, y))
    return pen
