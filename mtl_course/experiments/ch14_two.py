"""Chapter 14: two teachers of one task each, and one student with two heads.

Two digits in one image (`data.two_digits`). One set of images has the labels of the left digit, the
other those of the right one, and no image has both. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data import two_digits
from ..multitask.sharing import HardSharing
from ..networks.trunks import Classifier, cnn, mlp
from ..training.evaluation import predict
from ..training.tasks import accuracy
from ..transfer.distillation import agreement, kd_losses, teacher_outputs
from .common import seeded

TASKS = two_digits.TASKS
NONE = -100  # the label of an image that has none, which cross_entropy leaves out


@dataclass(frozen=True)
class Pair:
    """Sizes of the experiment with two teachers.

    Args:
        digits: of each class for the images of training, validation and test: no handwriting of one
            part is in another.
        labelled: images with a label of the left digit, and as many with one of the right.
        free: more images, without any label.
        held_out: images for validation and for the test.
        channels: of a teacher's convolutions.
        features: of a teacher.
        teacher_steps: of SGD.
        teacher_rate: of SGD.
        width: of the student's trunk, one hidden layer.
        steps: of SGD, the same for every student.
        batch: images per step.
        rates: that every way to teach may try.
        temperature: T.
    """

    digits: tuple[int, int, int] = (350, 50, 100)
    labelled: int = 1000
    free: int = 8000
    held_out: tuple[int, int] = (500, 2000)
    channels: tuple[int, int] = (32, 64)
    features: int = 128
    teacher_steps: int = 1000
    teacher_rate: float = 0.05
    width: int = 64
    steps: int = 1000
    batch: int = 64
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    temperature: float = 4.0


Images = tuple[Tensor, dict[str, Tensor]]


def images(plan: Pair, seed: int) -> dict[str, Images]:
    """Part -> images [n, 1, 16, 16] and task -> labels [n].

    Parts: "left" and "right", with the labels of that digit only (all others are `NONE`); the same
    images as "both", with all labels; "free", which no one may look up; "validation", "test".
    """
    ds = data.load("mnist_5k")
    shares = dict(zip(("train", "validation", "test"), plan.digits, strict=True))
    rows = two_digits.parts(ds.y, shares, seed)

    def drawn(part: str, n: int, number: int) -> Images:
        some, draw = rows[part], 10 * seed + number
        x, labels = two_digits.pairs(ds.x[some], ds.y[some], n, seed=draw, size=16)
        return (x - 0.15) / 0.3, labels

    parts = {task: drawn("train", plan.labelled, k) for k, task in enumerate(TASKS)}
    both = tuple(parts[task] for task in TASKS)
    parts["both"] = (
        torch.cat([x for x, _ in both]),
        {task: torch.cat([labels[task] for _, labels in both]) for task in TASKS},
    )
    for task in TASKS:
        x, labels = parts[task]
        none = torch.full_like(labels[task], NONE)
        parts[task] = x, {name: y if name == task else none for name, y in labels.items()}
    parts["free"] = drawn("train", plan.free, 2)
    parts["validation"] = drawn("validation", plan.held_out[0], 3)
    parts["test"] = drawn("test", plan.held_out[1], 4)
    return parts


def descend(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    rate: float,
    steps: int,
    batch: int,
    seed: int,
) -> nn.Module:
    """SGD with momentum and a falling rate on a loss of row numbers; the model, in evaluation."""
    sgd = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    g = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        value = loss(torch.randint(count, (batch,), generator=g))
        sgd.zero_grad()
        value.backward()
        sgd.step()
        falling.step()
    return model.eval()


def teacher(plan: Pair, task: str, x: Tensor, y: Tensor, seed: int) -> Classifier:
    """A convolutional network for one task, trained on its labels."""

    def build() -> Classifier:
        return Classifier(cnn(16, plan.channels, plan.features, norm=True), plan.features, 10)

    model = seeded(build, 100 * seed + TASKS.index(task))
    return descend(
        model,
        lambda rows: F.cross_entropy(model(x[rows]), y[rows]),
        len(x),
        plan.teacher_rate,
        plan.teacher_steps,
        plan.batch,
        seed,
    )


def student(plan: Pair, seed: int) -> HardSharing:
    """One hidden layer for both tasks, and two heads."""

    def build() -> HardSharing:
        heads = {task: nn.Linear(plan.width, 10) for task in TASKS}
        return HardSharing(nn.Sequential(nn.Flatten(), *mlp([256, plan.width])), heads)

    return seeded(build, 10_000 + seed)


def from_labels(plan: Pair, x: Tensor, labels: Mapping[str, Tensor], rate: float, seed: int):
    """A student trained on labels; a task's loss is a mean over the images with its label."""
    model = student(plan, seed)

    def loss(rows: Tensor) -> Tensor:
        logits = model(x[rows])
        losses = []
        for task in TASKS:
            y = labels[task][rows]
            total = F.cross_entropy(logits[task], y, ignore_index=NONE, reduction="sum")
            losses.append(total / (y != NONE).sum().clamp_min(1))
        return torch.stack(losses).sum()

    return descend(model, loss, len(x), rate, plan.steps, plan.batch, seed)


def from_teachers(plan: Pair, x: Tensor, answers: Mapping[str, Tensor], rate: float, seed: int):
    """A student trained on what one teacher per head answers; it sees no label."""
    model = student(plan, seed)

    def loss(rows: Tensor) -> Tensor:
        goals = {task: logits[rows] for task, logits in answers.items()}
        return torch.stack([*kd_losses(model(x[rows]), goals, plan.temperature).values()]).sum()

    return descend(model, loss, len(x), rate, plan.steps, plan.batch, seed)


def mean_of(
    measure: Callable[[Tensor, Tensor], Tensor],
    outputs: Mapping[str, Tensor],
    goals: Mapping[str, Tensor],
) -> float:
    """Mean over the tasks of a measure."""
    return float(np.mean([float(measure(outputs[task], goals[task])) for task in TASKS]))


def one_seed(plan: Pair, seed: int) -> dict[str, dict]:
    """Way to teach -> accuracy of each task, the chosen rate and what chose it; and the teachers'.

    The rate is chosen on validation images: by their labels where labels teach, by agreement with
    the teachers, without a label, where these do.
    """
    parts = images(plan, seed)
    teachers = {
        task: teacher(plan, task, parts[task][0], parts[task][1][task], seed) for task in TASKS
    }
    x, both = parts["both"]
    own = {task: torch.cat([parts[name][1][task] for name in TASKS]) for task in TASKS}
    more = torch.cat([x, parts["free"][0]])
    ways = {
        "one label per image": (from_labels, x, own),
        "both labels": (from_labels, x, both),
        "two teachers": (from_teachers, x, teacher_outputs(teachers, x)),
        "two teachers, more images": (from_teachers, more, teacher_outputs(teachers, more)),
    }
    (x_val, y_val), (x_test, y_test) = parts["validation"], parts["test"]
    said, found = teacher_outputs(teachers, x_val), {}
    for name, (train, some, goals) in ways.items():
        models = [train(plan, some, goals, rate, seed) for rate in plan.rates]
        labelled = train is from_labels
        measure, wanted = (accuracy, y_val) if labelled else (agreement, said)
        scores = [mean_of(measure, predict(model, x_val), wanted) for model in models]
        best = int(np.argmax(np.nan_to_num(scores)))
        outputs = predict(models[best], x_test)
        found[name] = {task: float(accuracy(outputs[task], y_test[task])) for task in TASKS}
        found[name] |= {"rate": plan.rates[best], "validation": scores}
    answers = teacher_outputs(teachers, x_test)
    found["the teachers"] = {task: float(accuracy(answers[task], y_test[task])) for task in TASKS}
    return found


def mean(row: Mapping[str, float]) -> float:
    """Mean over the tasks of one way to teach."""
    return float(np.mean([row[task] for task in TASKS]))
