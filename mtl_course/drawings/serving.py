"""Drawings of chapter 24: a request on its way through the service."""

from .pen import Pen, drawing


@drawing
def service() -> Pen:
    pen = Pen(
        "service", 510, 400, "The service: one pass, three answers, an alarm and a way back",
        """A request enters from the left. First come checks: a bad request leaves at once, with
        a status of 4xx and one sentence. A good one is turned into numbers of words, passes one
        shared encoder once, and three heads, for stars, recommend and department, give the
        answer. Below, the answers of the last hundred requests also go to the drift alarm, which
        compares them with a reference. Encoder and heads come frozen out of a release: release 2
        is in use, release 1 is kept beside it, and a dashed arrow leads back to it.""",
    )  # fmt: skip
    request = pen.box(4, 76, 76, 48, "request", "soft", size=15)
    checks = pen.box(106, 70, 74, 60, "checks", "ink", size=15)
    pen.arrow(request.right, checks.left)
    refusal = pen.box(98, 8, 90, 34, "4xx, why", "target", size=14)
    pen.arrow(checks.top, refusal.bottom)
    encoder = pen.box(206, 62, 96, 76, "one\nencoder", "shared")
    pen.arrow(checks.right, encoder.left)
    for k, name in enumerate(("stars", "recommend", "department")):
        y = 40 + 60 * k
        head = pen.box(340, y - 20, 104, 40, name, f"task{k + 1}", size=15)
        pen.arrow(encoder.right, head.left, via=[(321, 100), (321, y)])
        pen.arrow(head.right, (474, 100), via=[(459, y), (459, 100)], head=k == 1)
    pen.text(490, 84, "200", 15, bold=True)
    pen.plate(194, 2, 260, 188, "release 2")
    alarm = pen.box(352, 236, 116, 52, "drift alarm", "pooled", size=15)
    pen.arrow((474, 108), alarm.top, via=[(474, 212), (410, 212)])
    reference = pen.box(232, 236, 88, 52, "reference", frozen=True, size=15)
    pen.arrow(reference.right, alarm.left)
    pen.text(410, 304, "the last 100 answers", 14, role="soft")
    old = pen.box(24, 322, 120, 52, "release 1", frozen=True, size=15)
    new = pen.box(206, 322, 120, 52, "release 2", frozen=True, size=15)
    pen.arrow((217, 322), (217, 190), role="soft")
    pen.arrow(new.left, old.right, "ink", True)
    pen.text(175, 388, "roll-back", 14)
    return pen
