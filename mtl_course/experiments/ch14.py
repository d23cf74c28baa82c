"""Chapter 14: a small student learns from a large teacher, without a label of its own.

Digits of MNIST in 16 x 16 pixels. Each seed draws its own split, trains a convolutional teacher on
all labels, and then many students at once, small networks with one hidden layer: their parameters
are stacked along a first axis R (method x setting), as in chapter 12. `ch14_two` has two teachers
of single tasks and a student with two heads. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.augment import crop
from ..data.splits import per_class
from ..networks.trunks import Classifier, cnn, mlp
from ..records.pieces import kept
from ..transfer.distillation import FeatureMatch, kd_loss, teacher_outputs
from .ch14_two import Pair
from .ch14_two import mean as two_mean
from .ch14_two import one_seed as two_teachers
from .common import many_outputs, right_answers, seeded, stacked

__all__ = [
    "PLANS",
    "RECORDS",
    "Class",
    "Lesson",
    "Pair",
    "Plan",
    "better",
    "certain",
    "other_digits",
    "pictures",
    "run",
    "run_two",
    "shifted",
    "split",
    "student_of",
    "train_students",
    "train_teacher",
    "two_teachers",
]

BLANK = -0.13 / 0.28  # an empty pixel


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        shares: images for training, for validation and for the test.
        channels: of the teacher's two convolutions.
        features: of the teacher.
        teacher_steps: of SGD, on all training labels.
        teacher_rate: of the teacher.
        width: of the student's hidden layer.
        widths: of smaller students, for the question of capacity.
        few: images per class that a student has; it also gets them all.
        missing: digits of which a transfer set has no image.
        steps: of SGD, the same for every student.
        batch: images per step.
        rates: that every method may try.
        temperature: of the headline, set before any run.
        temperatures: to compare.
    """

    shares: tuple[int, int, int] = (3500, 500, 1000)
    channels: tuple[int, int] = (32, 64)
    features: int = 128
    teacher_steps: int = 1000
    teacher_rate: float = 0.05
    width: int = 32
    widths: tuple[int, ...] = (4, 8, 16)
    few: tuple[int, ...] = (1, 3, 10, 30)
    missing: tuple[int, ...] = (3, 8)
    steps: int = 1000
    batch: int = 64
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    temperature: float = 4.0
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)


PLANS = {"cpu": Plan(), "gpu": replace(Plan(), channels=(64, 128), teacher_steps=3000, steps=5000)}


# ---------------------------------------------------------------------------- data and networks
@cache
def pictures() -> tuple[Tensor, Tensor]:
    """MNIST's 5,000 digits [5000, 1, 16, 16], mean about 0 and deviation about 1, and labels."""
    ds = data.load("mnist_5k")
    x, y = torch.from_numpy(np.array(ds.x)).float()[:, None], torch.from_numpy(np.array(ds.y))
    return F.pad((F.avg_pool2d(x / 255, 2) - 0.13) / 0.28, (1, 1, 1, 1), value=BLANK), y


def split(plan: Plan, seed: int) -> dict[str, Tensor]:
    """Part -> row numbers: "train", "validation" and "test", drawn anew by each seed."""
    rows = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
    names = ("train", "validation", "test")
    return dict(zip(names, rows[: sum(plan.shares)].split(plan.shares), strict=True))


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Views of images: each moved by up to a pixel in both directions, onto empty pixels."""
    return crop(1)(x - BLANK, generator) + BLANK


def teacher_of(plan: Plan, seed: int) -> Classifier:
    """A convolutional teacher, freshly drawn."""

    def build() -> Classifier:
        return Classifier(cnn(16, plan.channels, plan.features, norm=True), plan.features, 10)

    return seeded(build, seed)


def student_of(width: int) -> Classifier:
    """A student: one hidden layer, freshly drawn from torch's own stream."""
    return Classifier(nn.Sequential(nn.Flatten(), *mlp([256, width])), width, 10)


def train_teacher(plan: Plan, seed: int, rows: Tensor) -> Classifier:
    """A teacher trained on the labels of these rows, with shifted views; in evaluation mode."""
    x, y = pictures()
    model, g = teacher_of(plan, seed), torch.Generator().manual_seed(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=plan.teacher_rate, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, plan.teacher_steps)
    for _ in range(plan.teacher_steps):
        some = rows[torch.randint(len(rows), (plan.batch,), generator=g)]
        loss = F.cross_entropy(model(shifted(x[some], g)), y[some])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        falling.step()
    return model.eval()


# ------------------------------------------------------------------------- students, all at once
@dataclass(frozen=True)
class Lesson:
    """What a student learns from.

    A label is a teacher that is certain: log-probabilities 0 and -inf, at T = 1. So one loss,
    `transfer.kd_loss`, serves all.

    Args:
        name: of the method.
        rows: images, as row numbers [n].
        targets: logits [N, 10] for all images.
        temperature: T.
        shifts: whether each image is moved at random by up to a pixel.
        mixes: whether it is mixed with another one, pixel by pixel, in random shares.
        asks: whether the teacher answers what became of the images. If not, a shifted image keeps
            its targets, and a mixture has the mixture of both probabilities.
        images: that rows and targets belong to, [N, 1, 16, 16]; None for MNIST's.
    """

    name: str
    rows: Tensor
    targets: Tensor
    temperature: float = 1.0
    shifts: bool = False
    mixes: bool = False
    asks: bool = False
    images: Tensor | None = None


def certain(labels: Tensor, classes: int = 10) -> Tensor:
    """Logits of a teacher that is certain of these labels: 0 and -inf, [N, classes]."""
    return F.one_hot(labels, classes).float().log()


def divergence(logits: Tensor, targets: Tensor, temperature: Tensor) -> Tensor:
    """`transfer.kd_loss` of R students, added up: their gradients do not meet.

    Args:
        logits: [R, B, C].
        targets: logits [R, B, C].
        temperature: [R].

    Returns:
        Scalar.
    """
    T = temperature[:, None, None]
    p = F.softmax(targets / T, dim=2)
    cross = -(p * F.log_softmax(logits / T, dim=2)).sum(2)
    entropy = -torch.special.xlogy(p, p).sum(2)
    return (temperature**2 * (cross - entropy).mean(1)).sum()


def lesson_batch(
    lesson: Lesson,
    place: Tensor,
    teacher: nn.Module | None,
    seed: int,
    asked: dict | None = None,
) -> tuple[Tensor, Tensor]:
    """Images [B, 1, 16, 16] of a step, as the student sees them, and its targets [B, 10].

    Args:
        lesson: says what is done to the images.
        place: [B] in [0, 1), which of its rows.
        teacher: answers, for lessons that ask.
        seed: of the shifts and mixtures, the same for all lessons.
        asked: what the teacher has answered in this step, so that lessons that differ by their
            temperature only ask once; it is added to.
    """
    rows = lesson.rows[(place * len(lesson.rows)).long()]
    images = pictures()[0] if lesson.images is None else lesson.images
    x, goals, g = images[rows], lesson.targets[rows], torch.Generator().manual_seed(seed)
    if lesson.shifts:
        x = shifted(x, g)
    if lesson.mixes:
        share, other = torch.rand(len(x), 1, generator=g), torch.randperm(len(x), generator=g)
        x = torch.lerp(x[other], x, share[:, :, None, None])
        if not lesson.asks:
            p = F.softmax(goals / lesson.temperature, dim=1)
            goals = lesson.temperature * torch.lerp(p[other], p, share).log()
    if lesson.asks:
        asked, views = {} if asked is None else asked, (id(lesson.rows), lesson.mixes)
        if views not in asked:
            with torch.no_grad():
                asked[views] = teacher(x)
        goals = asked[views]
    return x, goals


def train_students(
    plan: Plan,
    seed: int,
    lessons: Sequence[Lesson],
    teacher: nn.Module | None = None,
    width: int | None = None,
) -> dict[str, Tensor]:
    """Train a student per lesson and rate, side by side, by SGD with momentum and falling rates.

    All start from the same weights, take as many steps and draw the same places of their rows. A
    run that diverges ends with NaN and disturbs no other.

    Args:
        plan: sizes and rates.
        seed: of the start and the order.
        lessons: one per method.
        teacher: in evaluation mode, for lessons that ask.
        width: of the students; None for the plan's.

    Returns:
        Stacked parameters, name -> [lessons x rates, ...].
    """
    width, count = width or plan.width, len(plan.rates)
    start = stacked(lambda: student_of(width), [10_000 + seed])
    many = len(lessons) * count
    params = {n: p.repeat(many, *[1] * (p.ndim - 1)).requires_grad_() for n, p in start.items()}
    velocity = {name: torch.zeros_like(p) for name, p in params.items()}
    outputs = many_outputs(student_of(width))
    rates = torch.tensor(plan.rates).repeat(len(lessons))
    temperature = torch.tensor([one.temperature for one in lessons]).repeat_interleave(count)
    order = torch.Generator().manual_seed(seed)
    for step in range(plan.steps):
        place = torch.rand(plan.batch, generator=order)
        draw, asked = seed * plan.steps + step, {}
        drawn = [lesson_batch(one, place, teacher, draw, asked) for one in lessons]
        x, goals = (
            torch.stack(part).repeat_interleave(count, dim=0) for part in zip(*drawn, strict=True)
        )
        loss = divergence(outputs(params, x), goals, temperature)
        gradients = torch.autograd.grad(loss, list(params.values()))
        falling = rates * (1 + np.cos(np.pi * step / plan.steps)) / 2
        with torch.no_grad():
            for (name, p), g in zip(params.items(), gradients, strict=True):
                velocity[name].mul_(0.9).add_(g)
                p.sub_(falling.view(-1, *[1] * (g.ndim - 1)) * velocity[name])
    return {name: p.detach() for name, p in params.items()}


# ----------------------------------------------------------------------------------------- one seed
VARIANTS = ("plain", "shifted", "mixed")
SIDES = ("labels", "teacher")


class Class:
    """A teacher and its data, for one seed: makes lessons, trains students, judges them.

    Args:
        plan: sizes.
        seed: of the split, the teacher and the students.
    """

    def __init__(self, plan: Plan, seed: int):
        self.plan, self.seed = plan, seed
        self.x, self.y = pictures()
        self.rows = split(plan, seed)
        self.teacher = train_teacher(plan, seed, self.rows["train"])
        self.answers = teacher_outputs(self.teacher, self.x)
        self.labels = certain(self.y)

    def some(self, few: int | None) -> Tensor:
        """Training rows: `few` of each class, or all of them."""
        train = self.rows["train"]
        if few is None:
            return train
        return train[torch.from_numpy(per_class(self.y[train].numpy(), few, self.seed))]

    def lesson(self, side: str, variant: str, rows: Tensor, temperature: float | None = None):
        """A lesson from the labels or from the teacher; a teacher is asked about every view."""
        changed, teacher = variant != "plain", side == "teacher"
        T = temperature or (self.plan.temperature if teacher else 1.0)
        targets = self.answers if teacher else self.labels
        flags = {"shifts": changed, "mixes": variant == "mixed", "asks": changed and teacher}
        return Lesson(f"{side}, {variant}", rows, targets, T, **flags)

    def judged(
        self,
        lessons: Sequence[Lesson],
        width: int | None = None,
        seen: Tensor | None = None,
    ) -> dict[str, dict]:
        """Train a student per lesson and rate, choose the rate, and test the chosen one.

        The rate is chosen on validation images: by their labels for lessons from labels, by
        agreement with the teacher, without a label, for all others.

        Args:
            lessons: with names that differ.
            width: of the students; None for the plan's.
            seen: the validation rows that may choose; None for all.

        Returns:
            Name of the lesson -> "test", accuracy; "rate", the chosen one; "validation", what chose
            it, one value per rate; "right", which test images are right.
        """
        plan, many = self.plan, len(self.plan.rates)
        student = student_of(width or plan.width)
        params = train_students(plan, self.seed, lessons, self.teacher, width)
        chooser = self.rows["validation"] if seen is None else seen
        test, said = self.rows["test"], self.answers.argmax(1)
        by = {
            side: right_answers(student, params, self.x[chooser], goal[chooser]).float().mean(1)
            for side, goal in (("labels", self.y), ("teacher", said))
        }
        right = right_answers(student, params, self.x[test], self.y[test])
        found = {}
        for k, lesson in enumerate(lessons):
            side = "labels" if lesson.name.startswith("labels") else "teacher"
            scores = by[side][k * many : (k + 1) * many]
            best = int(scores.argmax())
            answers = right[k * many + best]
            found[lesson.name] = {
                "test": float(answers.float().mean()),
                "rate": plan.rates[best],
                "validation": scores.tolist(),
                "right": answers,
                "index": k * many + best,
            }
        return found


def plain(row: Mapping) -> dict:
    """A row of `Class.judged` as plain JSON."""
    return {name: row[name] for name in ("test", "rate", "validation")}


def by_images(room: Class) -> dict[str, dict]:
    """Images per class, or "all" -> "labels, plain" and so on -> test accuracy and rate."""
    sizes = {str(n): room.some(n) for n in room.plan.few} | {"all": room.some(None)}
    found = {}
    for n, rows in sizes.items():
        lessons = [room.lesson(side, variant, rows) for side in SIDES for variant in VARIANTS]
        found[n] = {name: plain(row) for name, row in room.judged(lessons).items()}
    return found


def by_temperature(room: Class, few: int = 10) -> dict[str, dict]:
    """Temperature -> test accuracy with 10 images per class, shifted and mixed."""
    rows = room.some(few)
    lessons = [
        replace(room.lesson("teacher", "mixed", rows, T), name=f"{T:g}")
        for T in room.plan.temperatures
    ]
    return {name: plain(row) for name, row in room.judged(lessons).items()}


def without_some(room: Class) -> dict[str, dict]:
    """Students that never saw some digits: how many of those they name, by temperature.

    "labels" are the true ones. No image of the missing digits trains or chooses anything.
    """
    gone = torch.tensor(room.plan.missing)
    train, validation = (
        rows[~torch.isin(room.y[rows], gone)] for rows in (room.some(None), room.rows["validation"])
    )
    lessons = [room.lesson("labels", "plain", train)]
    lessons += [
        replace(room.lesson("teacher", "plain", train, T), name=f"{T:g}")
        for T in room.plan.temperatures
    ]
    test = room.y[room.rows["test"]]
    found = {}
    for name, row in room.judged(lessons, seen=validation).items():
        missing = torch.isin(test, gone)
        found[name.split(",")[0]] = plain(row) | {
            "missing": float(row["right"][missing].float().mean()),
            "known": float(row["right"][~missing].float().mean()),
        }
    return found


def by_width(room: Class) -> dict[str, dict]:
    """Width of the hidden layer -> labels and teacher, on all images as they are."""
    found = {}
    for width in room.plan.widths:
        lessons = [room.lesson(side, "plain", room.some(None)) for side in SIDES]
        found[str(width)] = {n: plain(row) for n, row in room.judged(lessons, width).items()}
    return found


def with_features(room: Class, few: int = 10, strength: float = 1.0) -> dict[str, dict]:
    """The teacher's logits and its features, on 10 images per class as they are.

    Start, images and order are those of "teacher, plain" in `by_images`, so that the two differ by
    the features only.
    """
    plan, lesson = room.plan, room.lesson("teacher", "plain", room.some(few))
    with torch.no_grad():
        features = room.teacher.trunk(room.x[lesson.rows])
    students = []
    for rate in plan.rates:
        student = seeded(lambda: student_of(plan.width), 10_000 + room.seed)
        match = seeded(lambda: FeatureMatch(plan.width, plan.features), room.seed)
        sgd = torch.optim.SGD([*student.parameters(), *match.parameters()], rate, momentum=0.9)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, plan.steps)
        order = torch.Generator().manual_seed(room.seed)
        for _ in range(plan.steps):
            rows = (torch.rand(plan.batch, generator=order) * len(lesson.rows)).long()
            own = student.trunk(room.x[lesson.rows[rows]])
            goals = lesson.targets[lesson.rows[rows]]
            loss = kd_loss(student.head(own), goals, lesson.temperature)
            loss = loss + strength * match(own, features[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            falling.step()
        students.append(student)

    def share(student: Classifier, part: str, goal: Tensor) -> float:
        """Share of the images of a part for which the student names this class."""
        rows = room.rows[part]
        with torch.no_grad():
            return float((student(room.x[rows]).argmax(1) == goal[rows]).float().mean())

    scores = [share(student, "validation", room.answers.argmax(1)) for student in students]
    tests = [share(student, "test", room.y) for student in students]
    best = int(np.argmax(scores))
    return {"both": {"test": tests[best], "rate": plan.rates[best], "validation": scores}}


def elsewhere(room: Class) -> dict[str, dict]:
    """Students taught on images from elsewhere, 3,500 of them at most: what it looks like.

    "shuffled": the training images with their pixels in disorder. "UCI": another collection of
    digits. Of each, a tenth is held out and chooses the rate, by agreement there.
    """
    g = torch.Generator().manual_seed(room.seed)
    train = room.x[room.some(None)]
    disorder = torch.rand(len(train), 256, generator=g).argsort(1)
    pools = {
        "shuffled": train.flatten(1).gather(1, disorder).view_as(train),
        "UCI": other_digits(),
    }
    student, found = student_of(room.plan.width), {}
    test, here = room.rows["test"], room.rows["validation"]
    for name, images in pools.items():
        answers = teacher_outputs(room.teacher, images)
        held = len(images) // 10
        order = torch.randperm(len(images), generator=g)
        lesson = Lesson(name, order[held:], answers, room.plan.temperature, images=images)
        params = train_students(room.plan, room.seed, [lesson], room.teacher)
        there = right_answers(
            student, params, images[order[:held]], answers.argmax(1)[order[:held]]
        )
        best = int(there.float().mean(1).argmax())
        said = room.answers.argmax(1)
        agree = right_answers(student, params, room.x[here], said[here])[best]
        right = right_answers(student, params, room.x[test], room.y[test])[best]
        share = torch.bincount(answers.argmax(1), minlength=10) / len(images)
        found[name] = {
            "test": float(right.float().mean()),
            "rate": room.plan.rates[best],
            "agreement there": float(there[best].float().mean()),
            "agreement here": float(agree.float().mean()),
            "largest share": float(share.max()),
        }
    return found


@cache
def other_digits() -> Tensor:
    """The UCI digits, 8 x 8, enlarged to MNIST's place in the frame: [1797, 1, 16, 16]."""
    x = torch.from_numpy(np.array(data.load("digits").x)).float()[:, None]
    larger = F.interpolate(x / 16, size=(10, 10), mode="bilinear", align_corners=False)
    return F.pad((larger - 0.13) / 0.28, (3, 3, 3, 3), value=BLANK)


PARTS = {
    "images": by_images,
    "temperature": by_temperature,
    "missing": without_some,
    "width": by_width,
    "features": with_features,
    "elsewhere": elsewhere,
}


def one_seed(plan: Plan, seed: int) -> dict:
    """All parts of the experiment for one seed, and the teacher's test accuracy."""
    room = Class(plan, seed)
    test = room.rows["test"]
    right = (room.answers[test].argmax(1) == room.y[test]).float().mean()
    return {"teacher": float(right)} | {name: part(room) for name, part in PARTS.items()}


def gathered(rows: Sequence) -> object:
    """Results of several seeds as one: every value becomes a list with one entry per seed."""
    if isinstance(rows[0], Mapping):
        return {key: gathered([row[key] for row in rows]) for key in rows[0]}
    return list(rows)


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, seed by seed. Plain JSON: as `one_seed`, with one value per seed."""
    plan, rows = plan or PLANS[profile], []
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", one_seed, plan, seed))
        few = rows[-1]["images"][str(plan.few[-1])]
        report(f"seed {seed}: " + ", ".join(f"{n} {row['test']:.3f}" for n, row in few.items()))
    return gathered(rows)


def run_two(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Pair | None = None
) -> dict:
    """Two teachers and a student with two heads: `ch14_two.one_seed` for each seed. Plain JSON."""
    plan, rows = plan or Pair(), []
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", two_teachers, plan, seed))
        report(
            f"seed {seed}: " + ", ".join(f"{way} {two_mean(rows[-1][way]):.3f}" for way in rows[-1])
        )
    return gathered(rows)


# Written by ``python -m mtl_course.record 14 --part two --profile cpu``.
RECORDS = {"two": run_two}


def better(rows: Mapping[str, Mapping], side: str, variants: Sequence[str] = VARIANTS) -> list:
    """Test accuracy per seed of the labels or the teacher with the best of its variants.

    Each seed's own validation chooses, as it chose the rate.
    """
    names = [f"{side}, {variant}" for variant in variants]
    scores = np.array([[max(row) for row in rows[name]["validation"]] for name in names])
    tests = np.array([rows[name]["test"] for name in names])
    return np.take_along_axis(tests, scores.argmax(0)[None], 0)[0].tolist()
