"""Chapter 8, the comparison: one residual network for several tasks, against one a task at equal
compute and at equal parameters.

Every method gets the same rates to choose from, judged on the validation data of the first two
seeds. Needs no Jupyter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..data.augment import Augment
from ..data.batches import Separate, Table
from ..multitask.fit import evaluate_tasks, fit_tasks
from ..multitask.sharing import HardSharing
from ..networks.cost import flops, parameters
from ..networks.residual import resnet
from ..training.precision import default_precision
from ..training.tasks import classification, delta_m

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """Sizes of one experiment, the network, and the rates that every method may try."""

    side: int = 12  # pixels
    channels: int = 1
    depths: tuple[int, ...] = (1, 1)
    widths: tuple[int, ...] = (8, 16)
    pool: int = 1
    epochs: int = 8
    batch: int = 64
    rates: tuple[float, ...] = (0.1, 0.3, 0.9)
    augment: Augment | None = field(default=None, repr=False)
    limit: int | None = (
        None  # take no more images than this of each part: for a run that is to be quick
    )

    @property
    def wide(self) -> "Plan":
        """The plan with a network of about twice the parameters and twice the multiply-adds: both
        grow with the square of the width.
        """
        return replace(self, widths=tuple(round(2**0.5 * width) for width in self.widths))


@dataclass(frozen=True)
class Data:
    """Part -> batches, and task -> number of classes."""

    parts: Mapping[str, Table | Separate]
    classes: Mapping[str, int]

    def steps(self, batch: int) -> int:
        """Steps of an epoch: it ends when the longest set has been seen once."""
        return -(-len(self.parts["train"]) // batch)

    def only(self, names: Sequence[str], batch: int) -> tuple["Data", int]:
        """These tasks alone, and a batch size for them, such that they see as many batches of as
        many rows as among all tasks.

        So the shorter of two separate sets is repeated until it is as long as the longer one, which
        is what the joint network sees of it.
        """
        found, steps = (
            {part: held.only(names) for part, held in self.parts.items()},
            self.steps(batch),
        )
        if isinstance(train := found["train"], Separate):
            batch = min(batch, len(train))
            if -(-len(train) // batch) < steps:
                found["train"] = train.repeated(steps * batch)
        return Data(found, {name: self.classes[name] for name in names}), batch


# ----------------------------------------------------------------------------- network and training
def network(plan: Plan, classes: Mapping[str, int], seed: int) -> HardSharing:
    """A fresh trunk and one linear head a task. A seed always gives the same trunk for the same
    plan.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = resnet(plan.depths, plan.widths, plan.channels, pool=plan.pool)
        return HardSharing(
            trunk, {name: nn.Linear(trunk.features, n) for name, n in classes.items()}
        )


def cost(plan: Plan, classes: Mapping[str, int]) -> tuple[int, int]:
    """Parameters of the network, and its multiply-adds for one image."""
    model = network(plan, classes, 0)
    return parameters(model), flops(model, torch.zeros(1, plan.channels, plan.side, plan.side)) // 2


def optimizer(
    model: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with Nesterov momentum and weight decay; the rate rises to `rate` and falls to nearly 0
    within `steps`.
    """
    sgd = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return sgd, torch.optim.lr_scheduler.OneCycleLR(
        sgd, max_lr=rate, total_steps=steps, pct_start=0.25
    )


def train(
    held: Data, plan: Plan, rate: float, seed: int, batch: int | None = None
) -> tuple[HardSharing, float, dict[str, list[float]]]:
    """One network on these tasks; returns it, its mean validation accuracy at the best epoch (0 if
    it never learned), and all by epoch.

    The last is a dict, task -> validation accuracies.
    """
    batch = batch or plan.batch
    on = held.parts["validation"].whole().x.device
    model = network(plan, held.classes, seed).to(on)
    if on.type == "cuda":
        model.to(memory_format=torch.channels_last)
        model.compile()
    sgd, schedule = optimizer(model, rate, plan.epochs * held.steps(batch))
    history = fit_tasks(
        model,
        tasks_of(held),
        held.parts["train"],
        held.parts["validation"],
        sgd,
        epochs=plan.epochs,
        batch=batch,
        patience=plan.epochs,
        augment=plan.augment,
        schedule=schedule,
        precision=default_precision(on),
        seed=seed,
        progress=False,
    )
    return (
        model,
        float(np.mean(list(history.best.values()))) if history.best_epoch else 0.0,
        history.metrics,
    )


def tasks_of(held: Data) -> dict:
    return {name: classification(name) for name in held.classes}


def accuracy(model: HardSharing, held: Data) -> dict[str, float]:
    """Test accuracy of each task."""
    return evaluate_tasks(model, tasks_of(held), held.parts["test"])[1]


def tuned(
    draws: Mapping[int, Data], names: Sequence[str], plan: Plan
) -> tuple[dict, dict[int, HardSharing]]:
    """Train on these tasks for every seed of `draws`, at the rate that did best on the validation
    data of the first two seeds.

    Returns the row (rate; validation accuracies of the trials; test accuracy, and validation
    accuracies by epoch, of each task, a seed) and the networks by seed.
    """
    own = {seed: held.only(names, plan.batch) for seed, held in draws.items()}
    judges = list(draws)[:2]
    trials = tqdm(
        [(seed, rate) for seed in judges for rate in plan.rates],
        desc=f"{' + '.join(names)}, widths {plan.widths}",
        disable=None,
    )
    runs = {
        (seed, rate): train(own[seed][0], plan, rate, seed, own[seed][1]) for seed, rate in trials
    }
    trials = {rate: [runs[seed, rate][1] for seed in judges] for rate in plan.rates}
    rate = max(trials, key=lambda r: np.mean(trials[r]))
    chosen = {
        seed: (
            runs[seed, rate]
            if seed in judges
            else train(own[seed][0], plan, rate, seed, own[seed][1])
        )
        for seed in draws
    }
    found = {seed: accuracy(run[0], own[seed][0]) for seed, run in chosen.items()}
    row = {
        "rate": rate,
        "validation": {str(r): v for r, v in trials.items()},
        "accuracy": {n: [found[s][n] for s in draws] for n in names},
        "history": {n: [np.round(run[2][n], 4).tolist() for run in chosen.values()] for n in names},
    }
    return row, {seed: run[0] for seed, run in chosen.items()}


# ----------------------------------------------------------------------------------- the comparison
def compare(
    draws: Mapping[int, Data],
    plan: Plan,
    alone: Mapping[str, dict] | None = None,
    wide: bool = True,
) -> tuple[dict[str, dict], dict]:
    """Method -> row of `tuned`, with cost: "alone" (a network a task), "joint" (the same network
    for all), "joint, wide" (see `Plan.wide`).

    alone: task -> row, for tasks whose single network was trained before. Also returns method ->
        seed -> network, for the joint methods and, by the task's name, for networks alone that were
        trained now.
    """
    classes = next(iter(draws.values())).classes
    single, models = dict(alone or {}), {}
    for name in classes:
        if name not in single:
            single[name], models[name] = tuned(draws, [name], plan)
    single = {name: single[name] for name in classes}
    costs = {name: cost(plan, {name: n}) for name, n in classes.items()}
    rows = {
        "alone": {
            "rate": {name: row["rate"] for name, row in single.items()},
            "validation": {name: row["validation"] for name, row in single.items()},
            "accuracy": {name: row["accuracy"][name] for name, row in single.items()},
            "history": {name: row["history"][name] for name, row in single.items()},
            "parameters": sum(c[0] for c in costs.values()),
            "multiply-adds": sum(c[1] for c in costs.values()),
        }
    }
    for method, own in {"joint": plan, **({"joint, wide": plan.wide} if wide else {})}.items():
        row, models[method] = tuned(draws, list(classes), own)
        size, each = cost(own, classes)
        rows[method] = row | {"parameters": size, "multiply-adds": each}
    return rows, models


def singles(rows: Mapping[str, dict]) -> dict[str, dict]:
    """The networks alone among these rows, task -> row as `tuned` gives it, to be used again."""
    alone = rows["alone"]
    return {
        name: (
            {"rate": alone["rate"][name], "validation": alone["validation"][name]}
            | {part: {name: alone[part][name]} for part in ("accuracy", "history")}
        )
        for name in alone["rate"]
    }


def gains(rows: Mapping[str, dict], method: str = "joint") -> np.ndarray:
    """Delta-m of a method over the networks alone, in per cent, one value a seed."""
    alone, joint = rows["alone"]["accuracy"], rows[method]["accuracy"]
    up = dict.fromkeys(alone, True)
    return np.array(
        [
            delta_m({n: joint[n][k] for n in alone}, {n: alone[n][k] for n in alone}, up)
            for k in range(len(next(iter(alone.values()))))
        ]
    )
