"""Chapter 19's headline: photographs in a stream, ten classes of CIFAR-10 in five tasks of two.

Class-incremental: all classes seen so far compete. Fine-tuning, EWC and distillation keep no image;
replay, DER++ and GDumb keep the same number of them; joint training has all at once. Every method
has the same number of trials on validation streams, which have other images and other orders. Needs
no Jupyter.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, streams
from ..data.augment import flip
from ..meta import few_shot
from ..networks.trunks import Classifier, cnn
from ..records.pieces import kept
from ..streams.memories import DarkReplay, Distillation, Ewc, Replay
from ..streams.stream import Examples, Stream
from .common import seeded

METHODS = ("fine-tuning", "EWC", "distillation", "replay", "DER++", "GDumb", "joint")
AT_ONCE = ("GDumb", "joint")  # trained once, at the end: their accuracy matrix is its last line
VALIDATION = 1000  # the first seed of the validation streams


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and the settings that each method may try: as many for each.

    Args:
        sizes: pictures per class for training, validation and test.
        shrink: the side of a picture, 32 pixels, is divided by it.
        channels: of the convolutions.
        features: numbers per picture under the last layer.
        per: classes per task.
        epochs: over each task.
        batch: pictures per step.
        buffer: pictures that replay, DER++ and GDumb keep.
        samples: inputs of a task for the Fisher diagonal.
        watched: pictures on which the distance to the old network is taken.
        tuning: validation streams.
        rates: learning rates that methods without a strength may try.
        ewc: learning rates and strengths.
        distillation: learning rates and strengths.
        dark: learning rates and strengths of DER++.
        wider: the same, around those that `dark` led to.
    """

    sizes: tuple[int, int, int] = (1000, 100, 300)
    shrink: int = 2
    channels: tuple[int, ...] = (32, 64)
    features: int = 128
    per: int = 2
    epochs: int = 4
    batch: int = 32
    buffer: int = 500
    samples: int = 100
    watched: int = 300
    tuning: int = 1
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    ewc: tuple[tuple[float, float], ...] = ((0.03, 10.0), (0.03, 100.0), (0.1, 10.0), (0.1, 100.0))
    distillation: tuple[tuple[float, float], ...] = (
        (0.03, 1.0),
        (0.03, 10.0),
        (0.1, 1.0),
        (0.1, 10.0),
    )
    dark: tuple[tuple[float, float], ...] = ((0.01, 0.5), (0.03, 0.1), (0.03, 0.2), (0.03, 0.5))
    wider: tuple[tuple[float, float], ...] = (
        *((0.01, 0.1), (0.03, 0.01), (0.03, 0.03)),
        *((0.03, 0.1), (0.03, 0.3), (0.1, 0.1)),
    )


CPU = Plan()


# --------------------------------------------------------------------------------- data and network
def parts(plan: Plan) -> dict:
    """Part -> pictures, shrunk by averaging, and labels; and "name", that of the set or its part.

    Training and validation pictures come from the set's training half, in rows that are always the
    same.
    """
    ds = data.load_or_partial("cifar10")
    train, validation, test = plan.sizes
    y, y_test = (np.array(ds[f"y_{half}"]) for half in ("train", "test"))
    pool = data.per_class(y, train + validation, seed=0)
    mine = data.per_class(y[pool], train, seed=1)
    rows = {
        "train": ("train", pool[mine]),
        "validation": ("train", np.delete(pool, mine)),
        "test": ("test", data.per_class(y_test, test, seed=0)),
    }
    examples = {"name": ds.info.name}
    for part, (half, chosen) in rows.items():
        x = torch.from_numpy(np.array(ds[f"x_{half}"][chosen])).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy({"train": y, "test": y_test}[half][chosen])
        examples[part] = (F.avg_pool2d(x, plan.shrink) - 0.48) / 0.26, labels
    return examples


def stream(examples: dict, plan: Plan, seed: int, part: str) -> Stream:
    """A stream of all classes in an order drawn with `seed`, judged on `part`."""
    order = np.random.RandomState(seed).permutation(int(examples["train"][1].max()) + 1)
    return streams.class_stream(examples["train"], examples[part], order, plan.per, False)


def network(plan: Plan, x: Tensor, classes: int, seed: int) -> Classifier:
    """A freshly drawn convolutional network with one output per class, for pictures like `x`."""

    def build() -> Classifier:
        trunk = cnn(x.shape[-1], plan.channels, plan.features, in_channels=x.shape[1])
        return Classifier(trunk, plan.features, classes)

    return seeded(build, seed)


# ----------------------------------------------------------------------------- how far it has moved
def divergence(old: Tensor, new: Tensor) -> float:
    """Mean over rows of KL(old || new), in nats, of the softmax of two rows of logits.

    Args:
        old: [N, C].
        new: [N, C'] with C' >= C: to the classes that it lacks the old network gives no chance.
    """
    p, q = old.log_softmax(dim=1), new.log_softmax(dim=1)[:, : old.shape[1]]
    return float((p.exp() * (p - q)).sum(dim=1).mean())


class Watch:
    """A memory that changes nothing: it measures how far each task moved the network's answers.

    For each task from the second on, `moved` has the divergence of the network before it from the
    one after it: "old images", on test images of earlier tasks, with all classes that compete; and
    "new images", on those of the new task, among the old classes alone. The second can be had
    without any old image, and is what distillation keeps small.

    Args:
        images: how many of each kind it looks at.
    """

    numbers = 0

    def __init__(self, images: int):
        self.images, self.moved = images, []
        self.old: nn.Module | None = None

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """Zero."""
        return logits.new_zeros(())

    @torch.no_grad()
    def end_task(self, model: nn.Module, stream: Stream, task: int) -> None:
        """Compare with the network before the task, and keep this one for the next."""
        new = deepcopy(model).eval()
        if self.old is not None:
            end = task * stream.classes_per_task
            earlier = torch.cat([x[: self.images // task] for x, _ in stream.test[:task]])
            latest = stream.test[task][0][: self.images]
            after = new(earlier)[:, : end + stream.classes_per_task]
            self.moved.append(
                {
                    "old images": divergence(self.old(earlier)[:, :end], after),
                    "new images": divergence(self.old(latest)[:, :end], new(latest)[:, :end]),
                }
            )
        self.old = new


# ------------------------------------------------------------------------------- methods and trials
def trials(method: str, plan: Plan) -> list[tuple[float, float]]:
    """The (learning rate, strength) that a method may try; strength 0 where it has none."""
    own = {"EWC": plan.ewc, "distillation": plan.distillation, "DER++": plan.dark}
    return list(own.get(method, [(rate, 0.0) for rate in plan.rates]))


def memories(method: str, strength: float, tasks: Stream, plan: Plan, seed: int) -> list:
    """The method's memories of earlier tasks, for `streams.learn`: none, or one."""
    make = {
        "EWC": lambda: Ewc(strength, plan.samples, seed),
        "distillation": lambda: Distillation(tasks, strength),
        "replay": lambda: Replay(tasks, plan.buffer, seed),
        "DER++": lambda: DarkReplay(tasks, plan.buffer, strength, seed),
    }
    return [make[method]()] if method in make else []


def balanced(tasks: Stream, size: int, seed: int) -> Examples:
    """What GDumb's greedy sampler holds after the last task: as many examples of each class."""
    x, y = (torch.cat(same) for same in zip(*tasks.train, strict=True))
    rows = data.per_class(y.numpy(), size // (int(y.max()) + 1), seed=seed)
    return x[rows], y[rows]


def one(method: str, setting: tuple[float, float], tasks: Stream, plan: Plan, seed: int) -> dict:
    """One stream learned by one method: "A", the accuracy matrix, "stored" and "moved".

    stored: how many numbers it holds of earlier tasks, besides the network, while the last task is
        learned. GDumb and joint training take as many steps as the others, and have the last line
        of A only. moved: of `Watch`, empty for these two. A run that diverges has an accuracy of 0
        everywhere.
    """
    rate, strength = setting
    options = {"epochs": plan.epochs, "batch": plan.batch, "augment": flip, "seed": seed}
    sgd, T = partial(torch.optim.SGD, lr=rate), len(tasks)
    model = network(plan, tasks.train[0][0], T * plan.per, seed)
    try:
        if method == "joint":
            reached = streams.learn_jointly(model, tasks, sgd, **options)
            stored = sum(part.numel() for examples in tasks.train[:-1] for part in examples)
            return {"A": [reached.tolist()], "stored": stored, "moved": []}
        if method == "GDumb":
            some = balanced(tasks, plan.buffer, seed)
            alone = Stream([some], tasks.test, T * plan.per, False)
            options["epochs"] *= round(sum(len(y) for _, y in tasks.train) / len(some[1]))
            streams.learn(model, Stream([some], [some], T * plan.per, False), sgd, **options)
            reached = streams.accuracies(model, alone, 0)
            stored = sum(part.numel() for part in some)
            return {"A": [reached.tolist()], "stored": stored, "moved": []}
        watch, own = Watch(plan.watched), memories(method, strength, tasks, plan, seed)
        A = streams.learn(model, tasks, sgd, [*own, watch], **options)
        stored = sum(memory.numbers for memory in own)
        return {"A": A.tolist(), "stored": stored, "moved": watch.moved}
    except FloatingPointError:
        lines = 1 if method in AT_ONCE else T
        return {"A": torch.zeros(lines, T).tolist(), "stored": 0, "moved": []}


def tune(method: str, examples: dict, plan: Plan) -> list[dict]:
    """Every trial of a method with its average accuracy on each validation stream."""
    seeds = range(VALIDATION, VALIDATION + plan.tuning)
    tasks = {seed: stream(examples, plan, seed, "validation") for seed in seeds}

    def judge(setting: tuple[float, float]) -> list[float]:
        runs = [one(method, setting, tasks[seed], plan, seed)["A"] for seed in seeds]
        return [streams.average_accuracy(torch.tensor(A)) for A in runs]

    return [{"setting": setting, "validation": judge(setting)} for setting in trials(method, plan)]


def best(tried: list[dict]) -> tuple[float, float]:
    """The setting with the best mean over validation streams."""
    return max(tried, key=lambda trial: np.mean(trial["validation"]))["setting"]


def class_means(examples: dict) -> float:
    """Test accuracy of the nearest mean picture, without a network."""
    (x, y), (u, v) = examples["train"], examples["test"]
    centres = few_shot.prototypes(x.flatten(1), y, int(y.max()) + 1)
    guess = few_shot.distance_logits(u.flatten(1), centres).argmax(dim=1)
    return float((guess == v).float().mean())


# ---------------------------------------------------------------------------------------------- run
def run(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment. Plain JSON.

    "set": the name of the data; "class means": the accuracy of mean pictures; "methods": method ->
    "trials", the chosen "setting", and "A", "stored" and "moved" of `one` with a value for every
    test stream, a class order per seed. About half a minute per seed on one thread, and two minutes
    for the choice of settings.
    """
    plan = plan or CPU
    examples = parts(plan)
    tasks = {seed: stream(examples, plan, seed, "test") for seed in seeds}
    results = {}
    for method in METHODS:
        tried = kept(f"{plan}, {method}", tune, method, examples, plan)
        setting = best(tried)
        runs = []
        for seed in seeds:
            case = f"{plan}, {method}, {setting}, seed {seed}"
            runs.append(kept(case, one, method, setting, tasks[seed], plan, seed))
        results[method] = {"trials": tried, "setting": setting} | {
            key: [run[key] for run in runs] for key in ("A", "stored", "moved")
        }
        mean = np.mean([np.mean(run["A"][-1]) for run in runs])
        report(f"{method} at {setting}: {mean:.3f}")
    return {
        "set": examples["name"],
        "class means": class_means(examples),
        "methods": results,
    }


def run_wider(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """DER++ again, with the settings `Plan.wider`: `run` has it at an end of its grid.

    Method -> what `run` gives for it, on the same streams.
    """
    plan = plan or CPU
    plan = replace(plan, dark=plan.wider)
    examples, method = parts(plan), "DER++"
    tried = kept(f"{plan}, {method}", tune, method, examples, plan)
    setting, runs = best(tried), []
    report(f"{method}: {tried}")
    for seed in seeds:
        tasks = stream(examples, plan, seed, "test")
        case = f"{plan}, {method}, {setting}, seed {seed}"
        runs.append(kept(case, one, method, setting, tasks, plan, seed))
        report(f"{method} at {setting}, seed {seed}: {np.mean(runs[-1]['A'][-1]):.3f}")
    row = {key: [run[key] for run in runs] for key in ("A", "stored", "moved")}
    return {method: {"trials": tried, "setting": setting} | row}
