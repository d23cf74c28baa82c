"""Drawings of chapter 15: a reversed gradient, and what each way of aligning makes equal."""

from .pen import Pen, drawing


@drawing
def gradient_reversal() -> Pen:
    pen = Pen(
        "gradient_reversal", 440, 360, "The reversal layer between trunk and domain head",
        """A labelled batch of the source and an unlabelled one of the target pass through one
        trunk. Above, the label head reads the source only; the dashed gradient of its loss
        returns to the trunk as it is. Below, between the trunk and the domain head, which
        tells source from target, stands a reversal: forward it changes nothing, backward it
        turns the domain loss's gradient round, times minus lambda.""",
    )  # fmt: skip
    source = pen.box(2, 66, 84, 60, "source\nwith labels", "source", size=14)
    target = pen.box(2, 200, 84, 60, "target\nno labels", "target", size=14)
    trunk = pen.box(112, 108, 70, 110, "trunk\n*θ*_f", "shared")
    for batch, part in ((source, 0.2), (target, 0.8)):
        y = trunk.at("left", part)[1]
        pen.arrow(batch.right, trunk.at("left", part),
                  via=[(99, batch.right[1]), (99, y)])  # fmt: skip
    # labels, as always
    up, low = 82.0, 244.0
    head = pen.box(268, up - 28, 72, 56, "label\nhead", "source", size=15)
    loss = pen.box(386, up - 24, 50, 48, "*L*_y", "source")
    pen.arrow((182, 128), head.at("left", 0.3), via=[(204, 128), (204, up - 11)])
    pen.arrow(head.at("right", 0.3), (386, up - 11))
    pen.arrow((386, up + 14), (340, up + 14), "source", True)
    pen.arrow((268, up + 14), (182, 148), "source", True, via=[(222, up + 14), (222, 148)])
    pen.text(244, up + 34, "+ ∂*L*_y", 15)
    # domains, with the sign changed
    gate = pen.box(204, low - 34, 50, 68, "", "task3", fill=0.25)
    pen.text(229, low - 15, "× 1", 15)
    pen.text(229, low + 15, "× −*λ*", 14)
    judge = pen.box(286, low - 28, 72, 56, "domain\nhead", "task3", size=15)
    score = pen.box(390, low - 24, 46, 48, "*L*_d", "task3")
    pen.arrow((182, 178), gate.at("left", 0.28), via=[(194, 178), (194, low - 15)])
    pen.arrow(gate.at("right", 0.28), (286, low - 15))
    pen.arrow((358, low - 15), (390, low - 15))
    pen.arrow((390, low + 15), (358, low + 15), "task3", True)
    pen.arrow((286, low + 15), (254, low + 15), "task3", True)
    pen.arrow((204, low + 15), (160, 218), "task3", True, via=[(160, low + 15)], width=2.6)
    pen.text(156, low + 34, "− *λ* ∂*L*_d", 15)
    pen.text(270, low + 48, "+ ∂*L*_d", 15)
    pen.text(229, low - 48, "reversal", 14, bold=True)
    pen.text(404, low + 50, "source or\ntarget?", 14)
    pen.text(4, 338, "the head learns to tell, the trunk to hide it", 14, "start", role="soft")
    return pen
