"""Chapter 19: ten digits, or photographs, in a stream of tasks. Needs no Jupyter.

Every method gets the same number of trials: (learning rate, strength) for those that have a
strength, more rates for the others. A trial is judged by its average accuracy on validation
streams: other class orders than the test streams', and images that no test stream has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import data, records, streams
from ..data.augment import Augment, compose, crop, flip
from ..networks.residual import resnet
from ..networks.trunks import Classifier, mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..streams.memories import DarkReplay, Distillation, Ewc, Replay
from ..streams.stream import Stream
from . import ch19_photos
from .common import seeded

SCENARIOS = {"task-incremental": True, "class-incremental": False}
RELATIVES = ("DER++ 100", "GDumb 100")  # keep as many images as "replay 100"
RATES = (0.01, 0.03, 0.1, 0.3)


def grid(*strengths: float, rates: tuple[float, ...] = RATES) -> tuple[tuple[float, float], ...]:
    """Sixteen pairs of four learning rates and four strengths."""
    return tuple((rate, strength) for rate in rates for strength in strengths)


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and the settings that each method may try: as many for each.

    Args:
        source: the set that the stream is made of.
        sizes: examples per class for training, validation and test.
        per: classes per task.
        width: of the two hidden layers; of the last stage, for the residual network.
        epochs: over each task.
        batch: examples per step.
        buffers: examples that replay may keep.
        samples: inputs of a task for the Fisher diagonal.
        tuning: validation streams.
        rates: that methods without a strength may try.
        ewc: rates and strengths.
        distillation: rates and strengths.
        dark: rates and strengths of DER++.
    """

    source: str = "mnist_5k"
    sizes: tuple[int, int, int] = (150, 100, 250)
    per: int = 2
    width: int = 64
    epochs: int = 5
    batch: int = 32
    buffers: tuple[int, ...] = (20, 100, 500)
    samples: int = 100
    tuning: int = 2
    rates: tuple[float, ...] = tuple(np.logspace(-3, 0, 16).round(4).tolist())
    ewc: tuple[tuple[float, float], ...] = grid(10.0, 30.0, 100.0, 300.0)
    distillation: tuple[tuple[float, float], ...] = grid(0.3, 1.0, 3.0, 10.0)
    dark: tuple[tuple[float, float], ...] = grid(0.05, 0.1, 0.2, 0.5, rates=(0.05, 0.1, 0.15, 0.2))


CPU = Plan()
GPU = tuple(
    Plan(
        source=name,
        sizes=sizes,
        per=per,
        width=128,
        batch=64,
        buffers=buffers,
        tuning=1,
        rates=(0.01, 0.03, 0.1, 0.3),
        ewc=((0.03, 10.0), (0.03, 100.0), (0.1, 10.0), (0.1, 100.0)),
        distillation=((0.01, 1.0), (0.03, 1.0), (0.03, 3.0), (0.1, 1.0)),
    )
    for name, sizes, per, buffers in (
        ("cifar10", (4500, 500, 1000), 2, (200, 1000)),
        ("cifar100", (450, 50, 100), 10, (200, 2000)),
    )
)
PLANS = {"cpu": (CPU,), "gpu": GPU}


# --------------------------------------------------------------------------------- data and network
def parts(plan: Plan, device: torch.device | str = "cpu") -> dict:
    """Part -> inputs and labels of `plan.sizes` examples per class; and "name".

    That is the set's, or that of its part where it cannot be had. Digits are averaged to 14 x 14
    pixels. Of a set with a test half of its own, validation comes from the training half. A partial
    set gives what it has: as many of every class as of the smallest, training and validation in the
    same proportion.
    """
    ds = data.load_or_partial(plan.source)
    train, validation, test = plan.sizes
    if "x" in ds:
        y = np.array(ds["y"])
        rows = data.per_class(y, train + validation + test, seed=0)
        some = data.per_class(y[rows], train + validation, seed=1)
        pool, held = rows[some], np.delete(rows, some)
        images = {"train": (ds["x"], y), "test": (ds["x"], y)}
    else:
        y, y_test = (np.array(ds[f"y_{half}"]) for half in ("train", "test"))
        there = np.bincount(y).min()
        train, validation = (
            int(n * min(1, there / (train + validation))) for n in (train, validation)
        )
        pool = data.per_class(y, train + validation, seed=0)
        held = data.per_class(y_test, min(test, int(np.bincount(y_test).min())), seed=0)
        images = {"train": (ds["x_train"], y), "test": (ds["x_test"], y_test)}
    mine = data.per_class(images["train"][1][pool], train, seed=2)
    rows = {"train": pool[mine], "validation": np.delete(pool, mine), "test": held}
    examples = {"name": ds.info.name}
    for part, chosen in rows.items():
        x, y = images["test" if part == "test" else "train"]
        x = torch.from_numpy(np.array(x[chosen])).to(device).float() / 255
        if x.ndim == 3:
            x = (F.avg_pool2d(x[:, None], 2) - 0.13) / 0.28
        else:
            x = (x.permute(0, 3, 1, 2).contiguous() - 0.48) / 0.26
        examples[part] = x, torch.from_numpy(y[chosen]).to(device)
    return examples


def stream(examples: dict, plan: Plan, known: bool, seed: int, part: str) -> Stream:
    """A stream of all classes in an order drawn with `seed`, judged on `part`."""
    classes = int(examples["train"][1].max()) + 1
    order = np.random.RandomState(seed).permutation(classes)
    return streams.class_stream(examples["train"], examples[part], order, plan.per, known)


def network(plan: Plan, x: torch.Tensor, classes: int, seed: int) -> Classifier:
    """A freshly drawn network with one output per class, for inputs like `x`.

    Two hidden layers for digits, a residual network for photographs.
    """
    width = plan.width

    def build() -> Classifier:
        if x.shape[1] == 1:
            trunk = nn.Sequential(nn.Flatten(), *mlp([x[0].numel(), width, width]))
        else:
            trunk = resnet((1, 1, 1), (width // 4, width // 2, width))
        return Classifier(trunk, width, classes)

    return seeded(build, seed).to(x.device)


# ------------------------------------------------------------------------------- methods and trials
def methods(plan: Plan, known: bool) -> list[str]:
    """Names of what is compared.

    "separate", a network per task, has no answer where the task is not told.
    """
    replays = [f"replay {size}" for size in plan.buffers]
    separate = ["separate"] if known else []
    return ["fine-tuning", "EWC", "distillation", *replays, *separate, "joint"]


def trials(method: str, plan: Plan) -> list[tuple[float, float]]:
    """The (learning rate, strength) that a method may try; strength 0 where it has none."""
    with_strength = {"EWC": plan.ewc, "distillation": plan.distillation, "DER++": plan.dark}
    kind = method.split()[0]
    if kind in with_strength:
        return list(with_strength[kind])
    return [(rate, 0.0) for rate in plan.rates]


def memories(method: str, strength: float, tasks: Stream, plan: Plan, seed: int) -> list:
    """The method's memories of earlier tasks, for `streams.learn`: none, or one."""
    if method == "EWC":
        return [Ewc(strength, plan.samples, seed)]
    if method == "distillation":
        return [Distillation(tasks, strength)]
    if method.startswith("DER++"):
        return [DarkReplay(tasks, int(method.split()[1]), strength, seed)]
    return [Replay(tasks, int(method.split()[1]), seed)] if method.startswith("replay") else []


def one(method: str, setting: tuple[float, float], tasks: Stream, plan: Plan, seed: int) -> dict:
    """One stream learned by one method: "A", the accuracy matrix, and "stored".

    stored: how many numbers it holds of earlier tasks, besides the network, while the last task is
        learned. "joint" has the last line of A only and holds the examples of the tasks before;
        GDumb has it, too, and takes as many steps as the others on what it holds. "separate" has
        its diagonal and holds the other tasks' networks. A run that diverges has an
        accuracy of 0 everywhere.
    """
    rate, strength = setting
    x, T = tasks.train[0][0], len(tasks)
    augment: Augment | None = compose(flip, crop(4)) if x.shape[1] == 3 else None
    options = {"epochs": plan.epochs, "batch": plan.batch, "augment": augment, "seed": seed}
    sgd = partial(torch.optim.SGD, lr=rate)
    fresh = partial(network, plan, x, T * plan.per)
    size = sum(p.numel() for p in fresh(seed).parameters())
    try:
        if method == "joint":
            reached = streams.learn_jointly(fresh(seed), tasks, sgd, **options).tolist()
            return {
                "A": [reached],
                "stored": sum(part.numel() for examples in tasks.train[:-1] for part in examples),
            }
        if method.startswith("GDumb"):
            model, store = fresh(seed), ch19_photos.balanced(tasks, int(method.split()[1]), seed)
            options["epochs"] *= round(sum(len(y) for _, y in tasks.train) / len(store[1]))
            alone = Stream([store], [store], T * plan.per, False)
            streams.learn(model, alone, sgd, **options)
            return {
                "A": [streams.accuracies(model, tasks, T - 1).tolist()],
                "stored": sum(part.numel() for part in store),
            }
        if method == "separate":
            reached = [
                float(streams.learn(fresh(seed), streams.single_task(tasks, t), sgd, **options))
                for t in range(T)
            ]
            return {"A": torch.diag(torch.tensor(reached)).tolist(), "stored": (T - 1) * size}
        kept = memories(method, strength, tasks, plan, seed)
        A = streams.learn(fresh(seed), tasks, sgd, kept, **options)
        return {"A": A.tolist(), "stored": sum(memory.numbers for memory in kept)}
    except FloatingPointError:
        at_once = method == "joint" or method.startswith("GDumb")
        return {"A": torch.zeros(1 if at_once else T, T).tolist(), "stored": 0}


def final(method: str, A: list[list[float]]) -> float:
    """Average accuracy after the last task.

    That is the mean of the last line, or, for separate networks, of the diagonal.
    """
    A = torch.tensor(A)
    return float(A.diagonal().mean()) if method == "separate" else streams.average_accuracy(A)


def tune(method: str, examples: dict, plan: Plan, known: bool) -> list[dict]:
    """Every trial of a method with its average accuracy on each validation stream.

    No test image, no test order.
    """
    streams = {
        seed: stream(examples, plan, known, seed, "validation")
        for seed in range(1000, 1000 + plan.tuning)
    }

    def judge(setting):
        return [
            final(method, one(method, setting, tasks, plan, seed)["A"])
            for seed, tasks in streams.items()
        ]

    return [{"setting": setting, "validation": judge(setting)} for setting in trials(method, plan)]


def untrained(tasks: Stream, plan: Plan, seed: int) -> list[float]:
    """Accuracy on each task of the network that a seed draws, before any training.

    Forward transfer is measured from it.
    """
    model = network(plan, tasks.train[0][0], len(tasks) * plan.per, seed)
    return streams.accuracies(model, tasks, len(tasks) - 1).tolist()


def best(tried: list[dict]) -> tuple[float, float]:
    """The setting with the best mean over validation streams."""
    return max(tried, key=lambda trial: np.mean(trial["validation"]))["setting"]


def compare(
    examples: dict, plan: Plan, known: bool, seeds: Sequence[int], report: Callable = print
) -> dict[str, dict]:
    """Method -> "trials", the chosen "setting", and "A" and "stored" of `one`.

    The last two have a value for every test stream: a class order per seed.
    """
    results = {}
    streams = {seed: stream(examples, plan, known, seed, "test") for seed in seeds}
    for method in methods(plan, known):
        case = f"{examples['name']}, known task {known}, {method}"
        tried = kept(case, tune, method, examples, plan, known)
        runs = [
            kept(f"{case}, seed {seed}", one, method, best(tried), tasks, plan, seed)
            for seed, tasks in streams.items()
        ]
        results[method] = {"trials": tried, "setting": best(tried)} | {
            key: [run[key] for run in runs] for key in ("A", "stored")
        }
        mean = np.mean([final(method, run["A"]) for run in runs])
        report(f"{case}: {best(tried)}, {mean:.3f}")
    return results


# ---------------------------------------------------------------------------------------------- run
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Sequence[Plan] | None = None,
) -> dict:
    """The whole experiment of a profile: set -> scenario -> what `compare` gives. Plain JSON.

    plan: one for each set.
    """
    device = fastest() if profile == "gpu" else torch.device("cpu")
    results = {}
    for of_set in plan or PLANS[profile]:
        examples = parts(of_set, device)
        results[examples["name"]] = {
            scenario: compare(examples, of_set, known, seeds, report)
            for scenario, known in SCENARIOS.items()
        }
    return results


def run_orders(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan = CPU,
    chosen: dict | None = None,
) -> dict:
    """Class orders beyond those of the CPU record, at the settings that it chose. Plain JSON.

    Set -> scenario -> method -> "setting", and "A" and "stored" of `one` with a value for every
    seed. Nothing is searched anew: how a method fares is a matter of the order, and five orders
    are few.

    chosen: what `run` gives; by default the results of the CPU record.
    """
    chosen = records.load("19", "cpu").results if chosen is None else chosen
    examples = parts(plan)
    tables = chosen[examples["name"]]
    results = {scenario: {} for scenario in SCENARIOS}
    for scenario, known in SCENARIOS.items():
        streams = {seed: stream(examples, plan, known, seed, "test") for seed in seeds}
        for method in methods(plan, known):
            setting = tables[scenario][method]["setting"]
            case = f"{examples['name']}, {scenario}, {method} at {setting}"
            runs = [
                kept(f"{case}, seed {seed}", one, method, setting, tasks, plan, seed)
                for seed, tasks in streams.items()
            ]
            results[scenario][method] = {"setting": setting} | {
                key: [run[key] for run in runs] for key in ("A", "stored")
            }
            report(f"{case}: {np.mean([final(method, run['A']) for run in runs]):.3f}")
    return {examples["name"]: results}


def run_relatives(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan = CPU,
    methods: Sequence[str] = RELATIVES,
) -> dict:
    """DER++ and GDumb, class-incremental, beside the replay of the other records. Plain JSON.

    Method -> what `compare` gives. They are tuned as the others were, with as many trials on the
    same validation streams. Some 20 seconds for twenty orders.
    """
    examples, results = parts(plan), {}
    streams = {seed: stream(examples, plan, False, seed, "test") for seed in seeds}
    for method in methods:
        tried = tune(method, examples, plan, False)
        setting = best(tried)
        runs = [one(method, setting, tasks, plan, seed) for seed, tasks in streams.items()]
        results[method] = {"trials": tried, "setting": setting} | {
            key: [run[key] for run in runs] for key in ("A", "stored")
        }
        report(f"{method} at {setting}: {np.mean([final(method, run['A']) for run in runs]):.3f}")
    return results


# Written by ``python -m mtl_course.record 19 --part orders --seeds 4000:4020``, ``--part relatives
# --seeds 4000:4020``, and ``--part photos --seeds 8`` and ``--part wider --seeds 8``.
RECORDS = {
    "orders": run_orders,
    "relatives": run_relatives,
    "photos": ch19_photos.run,
    "wider": ch19_photos.run_wider,
}
