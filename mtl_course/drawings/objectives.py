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
        its task's own head and loss, and the weighted losses are added up. Dashed arrows run
        back: the trunk receives the gradients of both tasks, a head only that of its own.""",
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


@drawing
def transfer_kinds() -> Pen:
    pen = Pen(
        "transfer_kinds", 440, 516, "Feature, model and target transfer",
        """A source model has a trunk and a head. Feature transfer: the trunk is copied and
        frozen, hatched; a new head is trained, and the gradient stops at it. Model transfer:
        the trunk is copied as a start, and the gradient runs through head and trunk. Target
        transfer: trunk and source head are both frozen; a counted table M maps source labels z
        to target labels y, and there is no gradient.""",
    )  # fmt: skip
    one, two, width = 118, 232, 84
    with pen.moved(0, 0):
        pen.text(4, 12, "source model", bold=True, anchor="start")
        data = pen.box(4, 36, 86, 48, "source\ndata", "source")
        trunk = pen.box(one, 32, width, 56, "trunk", "source")
        head = pen.box(two, 32, width, 56, "head", "source")
        for a, b in ((data, trunk), (trunk, head)):
            pen.arrow(a.right, b.left)
        pen.arrow(head.right, (352, 60))
        pen.text(366, 60, "*z*")
    says = {
        "feature": "the trunk, fixed",
        "model": "the trunk, as a start",
        "target": "the whole model, fixed",
    }
    for k, (kind, kept) in enumerate(says.items()):
        with pen.moved(0, 124 + 134 * k):
            pen.line([(0, -8), (440, -8)], "soft", width=0.8)
            pen.text(4, 12, f"{kind} transfer", bold=True, anchor="start")
            pen.text(436, 12, f"keeps {kept}", 14, "end", role="soft")
            data = pen.box(4, 40, 86, 48, "target\ndata", "target")
            trunk = pen.box(one, 36, width, 56, "trunk", "source", frozen=kind != "model")
            head = pen.box(two, 36, width, 56, "new head" if kind != "target" else "head",
                           "target", frozen=kind == "target", size=15)  # fmt: skip
            y = 64 if kind == "target" else 54
            pen.arrow(data.right, trunk.left)
            pen.arrow((one + width, y), (two, y))
            if kind == "target":
                pen.arrow(head.right, (336, 64))
                pen.text(344, 64, "*z*")
                pen.arrow((352, 64), (370, 64))
                for i in range(3):
                    for j in range(2):
                        pen.box(371 + 14 * j, 43 + 14 * i, 14, 14, "", "target",
                                fill=(0.8, 0.06, 0.06, 0.8, 0.5, 0.3)[2 * i + j], rx=0)  # fmt: skip
                pen.text(385, 100, "counted *M*", 14)
                pen.arrow((400, 64), (420, 64))
                pen.text(430, 64, "*y*")
            else:
                pen.circle((372, 64), 16, "target", "*L*")
                pen.arrow((two + width, y), (358, y))
                pen.arrow((358, 74), (two + width, 74), gradient=True)
                if kind == "model":
                    pen.arrow((two, 74), (one + width, 74), gradient=True)
                pen.text(274, 106, "trained", 14)
            below = {"feature": "copied, frozen", "model": "copied, trained on"}
            pen.text(160 if kind != "target" else 217, 106,
                     below.get(kind, "both copied, frozen"), 14)  # fmt: skip
    return pen


@drawing
def fine_tuning() -> Pen:
    pen = Pen(
        "fine_tuning", 440, 372, "Which layers are trained",
        """Three networks of four pretrained layers and a new head. Linear probe: all four layers
        are frozen, hatched, and the gradient ends at the head. Upper layers: the first two are
        frozen, the gradient passes the last two. Full fine-tuning: nothing is frozen, and the
        gradient reaches the first layer.""",
    )  # fmt: skip
    for k, (name, frozen) in enumerate(
        (("linear probe", 4), ("upper layers", 2), ("full fine-tuning", 0))
    ):
        with pen.moved(0, 116 * k):
            pen.text(4, 12, name, bold=True, anchor="start")
            pen.text(14, 48, "*x*")
            pen.arrow((22, 48), (44, 48))
            lefts = [44 + 66 * layer for layer in range(4)]
            for layer, left in enumerate(lefts):
                pen.box(left, 30, 46, 52, f"*θ*_{layer + 1}", "source", frozen=layer < frozen)
                pen.arrow((left + 46, 48), (left + 66, 48))
                if layer >= frozen:
                    pen.arrow((left + 66, 66), (left + 46, 66), gradient=True)
            pen.box(308, 30, 58, 52, "head", "target")
            pen.circle((410, 56), 16, "target", "*L*")
            pen.arrow((366, 48), (396, 48))
            pen.arrow((397, 66), (366, 66), gradient=True)
    x, y = 44, 356
    pen.box(x, y - 9, 26, 18, "", frozen=True)
    pen.text(x + 34, y, "frozen", 14, "start")
    pen.box(x + 104, y - 9, 26, 18, "", "source")
    pen.text(x + 138, y, "pretrained, trained", 14, "start")
    pen.box(x + 290, y - 9, 26, 18, "", "target")
    pen.text(x + 324, y, "new", 14, "start")
    return pen
