"""Drawings of chapter 14: what a student is taught, by one teacher and by two."""

import math

from .pen import Pen, drawing

# A teacher's outputs for one picture, before the softmax, and the two temperatures drawn.
CLASSES, LOGITS, TEMPERATURES = ("3", "5", "8", "9"), (7.0, 4.0, 3.0, 0.0), (1.0, 4.0)


def soft_targets(temperature: float) -> list[float]:
    """The softmax of the outputs divided by the temperature."""
    parts = [math.exp(z / temperature) for z in LOGITS]
    return [part / sum(parts) for part in parts]


def bars(pen: Pen, x: float, y: float, values: list[float]) -> None:
    """Probabilities as columns on a floor at y, a column for each class."""
    for k, value in enumerate(values):
        high = 1.5 + 90 * value
        pen.box(x + 38 * k, y - high, 28, high, "", "frozen", fill=0.5, rx=0)
        pen.text(x + 38 * k + 14, y + 12, CLASSES[k], 14)
    pen.line([(x - 6, y), (x + 38 * len(values) - 4, y)], width=1.4)


@drawing
def teacher_student() -> Pen:
    pen = Pen(
        "teacher_student", 440, 458, "Distillation: soft targets from a large teacher",
        """One batch of pictures, without labels, goes into a large teacher, frozen and hatched,
        and into a small student. Both outputs pass a softmax at the same temperature T; the
        loss compares the two, and its dashed gradient reaches the student only. Below, one
        picture's targets at two temperatures: at T 1 nearly all on class 3, at T 4 the bars of
        5 and 8 show which classes the teacher thinks alike.""",
    )  # fmt: skip
    batch = pen.box(2, 114, 78, 66, "pictures,\nno labels", "target", size=14)
    teacher = pen.box(114, 16, 112, 118, "teacher", frozen=True)
    student = pen.box(138, 182, 64, 52, "student", "shared", size=14)
    pen.arrow(batch.right, teacher.left, via=[(97, batch.right[1]), (97, teacher.left[1])])
    pen.arrow(batch.right, student.left, via=[(97, batch.right[1]), (97, student.left[1])])
    soft = [pen.box(258, y - 24, 74, 48, "softmax\n(*z*/*T*)", "soft", size=14)
            for y in (teacher.right[1], student.right[1])]  # fmt: skip
    pen.arrow(teacher.right, soft[0].left)
    pen.arrow(student.at("right", 0.35), soft[1].at("left", 0.5 - 0.15 * 52 / 48))
    loss = pen.box(366, 116, 68, 52, "*T*^2 · KL", "target", size=15)
    pen.arrow(soft[0].right, loss.top, via=[(loss.top[0], soft[0].right[1])])
    x = loss.bottom[0]
    pen.arrow(soft[1].at("right", 0.35), (x - 8, loss.bottom[1]),
              via=[(x - 8, soft[1].at("right", 0.35)[1])])  # fmt: skip
    pen.arrow((x + 12, loss.bottom[1]), soft[1].at("right", 0.8), "shared", True,
              via=[(x + 12, soft[1].at("right", 0.8)[1])])  # fmt: skip
    pen.arrow(soft[1].at("left", 0.8), (student.right[0], soft[1].at("left", 0.8)[1]),
              "shared", True)  # fmt: skip
    pen.text(loss.bottom[0], 244, "gradient", 14)
    pen.line([(0, 272), (440, 272)], "soft", width=0.8)
    pen.text(4, 292, "the teacher's targets for one 3", bold=True, anchor="start")
    says = ("nearly a label", "what looks like what")
    for k, (temperature, words) in enumerate(zip(TEMPERATURES, says, strict=True)):
        x = 24 + 222 * k
        bars(pen, x, 412, soft_targets(temperature))
        pen.text(x + 92, 336, f"*T* = {temperature:g}", 16)
        pen.text(x + 70, 444, words, 14, role="soft")
    return pen


@drawing
def two_teachers() -> Pen:
    pen = Pen(
        "two_teachers", 440, 316, "Two teachers, one student with two heads",
        """One batch goes into three networks: teacher 1 and teacher 2, both frozen and hatched,
        each of which knows one task, and between them the student, a shared trunk with two
        heads. Head 1 is compared with teacher 1 in loss 1, head 2 with teacher 2 in loss 2.
        Each head gets the dashed gradient of its loss, the trunk both; the teachers none.""",
    )  # fmt: skip
    batch = pen.box(2, 126, 64, 62, "batch,\nno label", "soft", size=14)
    trunk = pen.box(112, 116, 76, 82, "student's\ntrunk", "shared", size=14)
    pen.arrow(batch.right, trunk.left)
    for t, up in ((1, -1), (2, 1)):
        role, middle = f"task{t}", 157.0
        teacher = pen.box(112, middle + 114 * up - 32, 170, 64, f"teacher {t}: task {t} only",
                          frozen=True, size=14)  # fmt: skip
        pen.arrow(batch.right, teacher.left,
                  via=[(88, middle), (88, teacher.left[1])])  # fmt: skip
        y = middle + 42 * up
        head = pen.box(230, y - 22, 66, 44, f"head {t}", role)
        loss = pen.box(372, middle + 64 * up - 24, 60, 48, f"*L*_{t}", role)
        inner = middle + 24 * up
        pen.arrow((188, inner), head.left, via=[(209, inner), (209, y)])
        pen.arrow(teacher.right, (loss.x + 30, loss.y if up < 0 else loss.y + 48),
                  via=[(loss.x + 30, teacher.right[1])])  # fmt: skip
        pen.arrow((296, y + 10 * up), (372, middle + 64 * up + 10 * up),
                  via=[(334, y + 10 * up), (334, middle + 74 * up)])  # fmt: skip
        pen.arrow((372, middle + 52 * up), (296, y - 8 * up), role, True,
                  via=[(348, middle + 52 * up), (348, y - 8 * up)])  # fmt: skip
        pen.arrow((230, y - 12 * up), (188, middle + 10 * up), role, True,
                  via=[(218, y - 12 * up), (218, middle + 10 * up)])  # fmt: skip
    return pen
