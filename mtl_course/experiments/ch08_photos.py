"""Chapter 8, the headline: few labels of CIFAR-100, learned beside CIFAR-10. Needs no Jupyter.

The photos are halved to 16 x 16 pixels. Each draw takes its own classes, labels and initial
weights; the test photos of a class are the same in all draws, and no choice sees them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data, records
from ..data.augment import compose, crop, flip
from ..data.batches import Batch, Separate
from ..multitask.sharing import HardSharing
from ..records.pieces import kept
from ..training.evaluation import predict
from .ch08_compare import PARTS, Data, Plan, cost, network, optimizer

SETS = {"few": "cifar100", "many": "cifar10"}  # task -> where its photos come from


@dataclass(frozen=True)
class Photos:
    """Sizes of the experiment.

    Args:
        widths: channels of the three stages, one residual block each.
        steps: of SGD for the joint network.
        batch: photos per step, of each set.
        rates: at the peak of the schedule; each method may try them at `headline` labels.
        headline: labels per class of the target, where rates are chosen.
        labels: per class, of the other comparisons.
        classes: of the target, drawn from CIFAR-100.
        partner: training photos per class of CIFAR-10.
        held_out: photos per class for validation and for the test, of both sets.
        judges: the first seeds, on whose validation photos the rates are chosen.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    steps: int = 600
    batch: int = 64
    rates: tuple[float, ...] = (0.02, 0.1, 0.5)
    headline: int = 20
    labels: tuple[int, ...] = (5, 50)
    classes: int = 20
    partner: int = 1000
    held_out: tuple[int, int] = (30, 60)
    judges: int = 2

    def plan(self, method: str) -> Plan:
        """The network of a method."""
        plan = Plan(side=16, channels=3, depths=(1, 1, 1), widths=self.widths, batch=self.batch)
        return plan.wide if "wide" in method else plan


# Method -> its tasks, and how many times the steps of the joint network it takes. A step on one
# set costs half of a step on two.
METHODS = {
    "alone": (("few",), 1),
    "alone, all the compute": (("few",), 2),
    "joint": (("few", "many"), 1),
    "partner alone": (("many",), 1),
    "alone, wide": (("few",), 1),
    "joint, wide": (("few", "many"), 1),
}
HEADLINE = ("alone", "alone, all the compute", "joint")
BEYOND = 1.0  # a rate above the grid: both networks alone chose its highest


# ----------------------------------------------------------------------------------------- the data
def halved(x: np.ndarray) -> Tensor:
    """Photos uint8 [N, H, W, 3] as floats [N, 3, H/2, W/2] around 0, channels last in memory."""
    return F.avg_pool2d(torch.tensor(x).permute(0, 3, 1, 2).float(), 2) / 64 - 2


@cache
def photos(name: str) -> tuple[Tensor, Tensor, str]:
    """All photos of a set, their labels, and the name that the set goes by here."""
    ds = data.load_or_partial(name)
    x = torch.cat([halved(ds["x_train"]), halved(ds["x_test"])])
    y = np.concatenate([ds["y_train"], ds["y_test"]])
    return x, torch.from_numpy(y).long(), ds.info.name


def dealt(
    y: np.ndarray, classes: Sequence[int], n: int, held_out: tuple[int, int], seed: int
) -> dict[str, np.ndarray]:
    """Part -> rows of these classes, class by class; the test rows do not depend on the seed."""
    parts = {part: [] for part in PARTS}
    for label in classes:
        rows = np.random.RandomState(label).permutation(np.flatnonzero(y == label))
        test, rest = rows[: held_out[1]], rows[held_out[1] :]
        rest = np.random.RandomState([seed, label]).permutation(rest)
        parts["test"].append(test)
        parts["validation"].append(rest[: held_out[0]])
        parts["train"].append(rest[held_out[0] :][:n])
    return {part: np.concatenate(rows) for part, rows in parts.items()}


def draw(seed: int, labels: int, sizes: Photos) -> Data:
    """CIFAR-100's classes of this draw with `labels` photos each ("few"), and CIFAR-10 ("many")."""
    some = np.random.RandomState(seed).permutation(100)[: sizes.classes]
    classes = {"few": some, "many": np.arange(10)}
    counts = {"few": labels, "many": sizes.partner}
    sets = {}
    for task, name in SETS.items():
        x, y, _ = photos(name)
        new = torch.zeros(100, dtype=torch.long)
        new[torch.from_numpy(classes[task])] = torch.arange(len(classes[task]))
        rows = dealt(y.numpy(), classes[task], counts[task], sizes.held_out, seed)
        sets[task] = {part: (x[r], new[y[r]]) for part, r in rows.items()}
    return Data(
        {part: Separate({task: sets[task][part] for task in SETS}) for part in PARTS},
        {task: len(classes[task]) for task in SETS},
    )


# ------------------------------------------------------------------------------ training and trials
def endless(train: Separate, batch: int, order: torch.Generator) -> Iterator[Batch]:
    """Batches of all sets for ever: an epoch ends when the longest set has been seen once."""
    while True:
        yield from train.batches(batch, order)


def learned(
    held: Data, tasks: Sequence[str], plan: Plan, steps: int, rate: float, seed: int
) -> HardSharing:
    """A network on these tasks after the last step. The chapter writes the loop out.

    A network alone meets the same rows of its set, step by step, as the joint one does.
    """
    classes = {task: held.classes[task] for task in tasks}
    model = network(plan, classes, seed).to(memory_format=torch.channels_last)
    sgd, schedule = optimizer(model, rate, steps)
    order = torch.Generator().manual_seed(seed)
    chance, augment = torch.Generator().manual_seed(seed), compose(flip, crop(2))
    model.train()
    for batch in islice(endless(held.parts["train"], plan.batch, order), steps):
        x = torch.cat([batch.x[batch.targets[task][0]] for task in tasks])
        sizes = [len(batch.targets[task][1]) for task in tasks]
        features = model.trunk(augment(x, chance)).split(sizes)
        loss = sum(
            F.cross_entropy(model.heads[task](z), batch.targets[task][1])
            for task, z in zip(tasks, features, strict=True)
        )
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        schedule.step()
    return model.eval()


def trial(method: str, labels: int, rate: float, seed: int, sizes: Photos) -> dict:
    """Accuracy in per cent on validation and test photos, task by task, of one training."""
    tasks, times = METHODS[method]
    held = draw(seed, labels, sizes)
    model = learned(held, tasks, sizes.plan(method), times * sizes.steps, rate, seed)
    return {part: correct(model, held.parts[part].only(tasks)) for part in ("validation", "test")}


def correct(model: HardSharing, photos: Separate) -> dict[str, float]:
    """Task -> share of its photos that are named right, in per cent."""
    return {
        task: round(100 * float((predict(model, x)[task].argmax(1) == y).float().mean()), 3)
        for task, (x, y) in photos.sets.items()
    }


def _done(method: str, labels: int, rate: float, seed: int, sizes: Photos) -> dict:
    """`trial`, kept: a piece of a record is one training."""
    key = f"{method}, {labels} labels, rate {rate}, seed {seed}, {sizes}"
    return kept(key, trial, method, labels, rate, seed, sizes)


def chosen(
    method: str, seeds: Sequence[int], sizes: Photos, report: Callable[[str], None]
) -> tuple[float, dict[str, list[float]]]:
    """The best rate on the validation photos of the first seeds, at the headline's labels.

    Judged by the first of the method's tasks. And rate -> those accuracies.
    """
    task = METHODS[method][0][0]
    reached = {
        rate: [
            _done(method, sizes.headline, rate, seed, sizes)["validation"][task]
            for seed in list(seeds)[: sizes.judges]
        ]
        for rate in sizes.rates
    }
    rate = max(reached, key=lambda r: np.mean(reached[r]))
    report(f"{method}: rate {rate} of {reached}")
    return rate, {str(r): values for r, values in reached.items()}


def compared(
    rates: dict[str, float],
    labels: int,
    seeds: Sequence[int],
    sizes: Photos,
    report: Callable[[str], None],
) -> dict[str, dict]:
    """Method -> part -> task -> accuracy in per cent, a value per seed, at these rates."""
    found = {}
    for method, rate in rates.items():
        rows = [_done(method, labels, rate, seed, sizes) for seed in seeds]
        found[method] = {
            part: {task: [row[part][task] for row in rows] for task in METHODS[method][0]}
            for part in ("validation", "test")
        }
        means = {t: round(float(np.mean(v)), 2) for t, v in found[method]["test"].items()}
        report(f"{labels} labels, {method}: {means}")
    return found


def priced(methods: Sequence[str], sizes: Photos) -> dict[str, dict[str, float]]:
    """Method -> parameters of its network, and multiply-adds of all forward passes in training."""
    classes, prices = {"few": sizes.classes, "many": 10}, {}
    for method in methods:
        tasks, times = METHODS[method]
        size, each = cost(sizes.plan(method), {task: classes[task] for task in tasks})
        rows = sizes.batch * len(tasks) * times * sizes.steps
        prices[method] = {"parameters": size, "compute": float(each * rows)}
    return prices


def run(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, sizes: Photos | None = None
) -> dict:
    """The headline: the joint network and its rivals at one number of labels. Plain JSON.

    Returns:
        "sets": the names of the sets that were there. "photos": task -> photos of each part.
        "rates", method -> rate; "trials", method -> rate -> accuracies. "accuracy" as `compared`
        gives it, and "cost".
    """
    sizes = sizes or Photos()
    choices = {method: chosen(method, seeds, sizes, report) for method in HEADLINE}
    rates = {method: rate for method, (rate, _) in choices.items()}
    parts = draw(next(iter(seeds)), sizes.headline, sizes).parts
    return {
        "sets": {task: photos(name)[2] for task, name in SETS.items()},
        "photos": {task: {part: len(parts[part].sets[task][1]) for part in PARTS} for task in SETS},
        "rates": rates,
        "trials": {method: trials for method, (_, trials) in choices.items()},
        "accuracy": compared(rates, sizes.headline, seeds, sizes, report),
        "cost": priced(HEADLINE, sizes),
    }


def run_budgets(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    sizes: Photos | None = None,
    rates: dict[str, float] | None = None,
) -> dict:
    """The same at other numbers of labels, at the headline's rates. Plain JSON.

    Returns:
        "accuracy": labels -> what `compared` gives.
    """
    sizes = sizes or Photos()
    rates = rates or records.load("08", "photos").results["rates"]
    some = {method: rates[method] for method in ("alone", "alone, all the compute", "joint")}
    return {
        "accuracy": {
            str(labels): compared(some, labels, seeds, sizes, report) for labels in sizes.labels
        }
    }


def run_wide(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    sizes: Photos | None = None,
    rates: dict[str, float] | None = None,
) -> dict:
    """The headline at equal parameters, joint and alone; the partner alone. Plain JSON.

    The wide networks take the rates of the narrow ones, the partner alone that of the joint one.
    """
    sizes = sizes or Photos()
    rates = rates or records.load("08", "photos").results["rates"]
    some = {
        "alone, wide": rates["alone"],
        "joint, wide": rates["joint"],
        "partner alone": rates["joint"],
    }
    return {
        "rates": some,
        "accuracy": compared(some, sizes.headline, seeds, sizes, report),
        "cost": priced(list(some), sizes),
    }


def run_fresh(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    sizes: Photos | None = None,
    rates: dict[str, float] | None = None,
) -> dict:
    """The headline on further draws, which chose no rate; and a rate beyond the grid. Plain JSON.

    Returns:
        "accuracy" as `compared` gives it. "beyond": method -> rate -> validation accuracies of the
        first draws, which judge rates in `run`.

    Raises:
        ValueError: the record's rates were chosen on some of these seeds.
    """
    sizes = sizes or Photos()
    judges = range(sizes.judges)
    if rates is None:
        headline = records.load("08", "photos")
        judges = headline.provenance["seeds"][: sizes.judges]
        if both := sorted(set(seeds) & set(headline.provenance["seeds"])):
            raise ValueError(f"the headline's record holds the seeds {both}; take others")
        rates = headline.results["rates"]
    alone = [method for method in HEADLINE if method != "joint"]
    return {
        "accuracy": compared(rates, sizes.headline, seeds, sizes, report),
        "beyond": {
            method: {
                str(BEYOND): [
                    _done(method, sizes.headline, BEYOND, seed, sizes)["validation"]["few"]
                    for seed in judges
                ]
            }
            for method in alone
        },
    }
