"""Chapter 8, the comparison: one residual network for several tasks, against one per task.

At equal compute, and at equal parameters. Every method gets the same rates to choose from, judged
on the validation data of the first two seeds. Needs no Jupyter.
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
from ..training.tasks import Task, classification, delta_m
from .common import seeded

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """Sizes of one experiment, the network, and the rates that every method may try.

    Args:
        side: pixels a side.
        channels: of the images.
        depths: residual blocks of each stage.
        widths: channels of each stage.
        pool: places a side that the last stage is averaged to.
        epochs: over the longest set.
        batch: images per step.
        rates: at the peak of the schedule.
        augment: of training images.
        limit: take no more images than this of each part, for a run that is to be quick.
    """

    side: int = 12
    channels: int = 1
    depths: tuple[int, ...] = (1, 1)
    widths: tuple[int, ...] = (8, 16)
    pool: int = 1
    epochs: int = 8
    batch: int = 64
    rates: tuple[float, ...] = (0.1, 0.3, 0.9)
    augment: Augment | None = field(default=None, repr=False)
    limit: int | None = None

    @property
    def wide(self) -> "Plan":
        """The plan with a network of about twice the parameters and twice the multiply-adds.

        Both grow with the square of the width.
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
        """These tasks alone, and a batch size for them.

        It is such that they see as many batches of as many rows as among all tasks. So the shorter
        of two separate sets is repeated until it is as long as the longer one, which is what the
        joint network sees of it.
        """
        parts = {part: rows.only(names) for part, rows in self.parts.items()}
        steps, train = self.steps(batch), parts["train"]
        if isinstance(train, Separate):
            batch = min(batch, len(train))
            if -(-len(train) // batch) < steps:
                parts["train"] = train.repeated(steps * batch)
        return Data(parts, {name: self.classes[name] for name in names}), batch


# ----------------------------------------------------------------------------- network and training
def network(plan: Plan, classes: Mapping[str, int], seed: int) -> HardSharing:
    """A fresh trunk and one linear head per task; seed and plan give one trunk."""

    def build() -> HardSharing:
        trunk = resnet(plan.depths, plan.widths, plan.channels, pool=plan.pool)
        heads = {name: nn.Linear(trunk.features, n) for name, n in classes.items()}
        return HardSharing(trunk, heads)

    return seeded(build, seed)


def cost(plan: Plan, classes: Mapping[str, int]) -> tuple[int, int]:
    """Parameters of the network, and its multiply-adds for one image."""
    model = network(plan, classes, 0)
    return parameters(model), flops(model, torch.zeros(1, plan.channels, plan.side, plan.side)) // 2


def optimizer(
    model: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with Nesterov momentum and weight decay, and its schedule.

    The rate rises to `rate` and falls to nearly 0 within `steps`.
    """
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    sgd = torch.optim.SGD(model.parameters(), lr=rate, **options)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    return sgd, one_cycle(sgd, max_lr=rate, total_steps=steps, pct_start=0.25)


def train(
    draw: Data, plan: Plan, rate: float, seed: int, batch: int | None = None
) -> tuple[HardSharing, float, dict[str, list[float]]]:
    """One network on these tasks.

    Returns:
        The network, its mean validation accuracy at the best epoch (0 if it never learned), and
        task -> validation accuracies by epoch.
    """
    batch = batch or plan.batch
    on = draw.parts["validation"].whole().x.device
    model = network(plan, draw.classes, seed).to(on)
    if on.type == "cuda":
        model.to(memory_format=torch.channels_last)
        model.compile()
    sgd, schedule = optimizer(model, rate, plan.epochs * draw.steps(batch))
    history = fit_tasks(
        model,
        tasks_of(draw),
        draw.parts["train"],
        draw.parts["validation"],
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
    reached = float(np.mean(list(history.best.values()))) if history.best_epoch else 0.0
    return model, reached, history.metrics


def tasks_of(draw: Data) -> dict[str, Task]:
    """Task -> a classification."""
    return {name: classification(name) for name in draw.classes}


def accuracy(model: HardSharing, draw: Data) -> dict[str, float]:
    """Test accuracy of each task."""
    return evaluate_tasks(model, tasks_of(draw), draw.parts["test"])[1]


def tuned(
    draws: Mapping[int, Data], names: Sequence[str], plan: Plan
) -> tuple[dict, dict[int, HardSharing]]:
    """Train on these tasks for every seed, at the rate that did best on validation data.

    The rate is judged on the first two seeds of `draws`, and taken for all.

    Returns:
        The row: "rate"; "validation", rate -> accuracies of the trials; "accuracy" on the test
        images, and "history" of validation accuracies by epoch, of each task, a value per seed. And
        the networks by seed.
    """
    alone = {seed: draw.only(names, plan.batch) for seed, draw in draws.items()}

    def trained(seed: int, rate: float):
        data, batch = alone[seed]
        return train(data, plan, rate, seed, batch)

    judges = list(draws)[:2]
    trials = [(seed, rate) for seed in judges for rate in plan.rates]
    title = f"{' + '.join(names)}, widths {plan.widths}"
    runs = {trial: trained(*trial) for trial in tqdm(trials, desc=title, disable=None)}
    reached = {rate: [runs[seed, rate][1] for seed in judges] for rate in plan.rates}
    rate = max(reached, key=lambda r: np.mean(reached[r]))
    models, accuracies, histories = {}, [], []
    for seed in draws:
        model, _, history = runs[seed, rate] if seed in judges else trained(seed, rate)
        models[seed] = model
        accuracies.append(accuracy(model, alone[seed][0]))
        histories.append(history)
    row = {
        "rate": rate,
        "validation": {str(r): values for r, values in reached.items()},
        "accuracy": {n: [by_task[n] for by_task in accuracies] for n in names},
        "history": {n: [np.round(h[n], 4).tolist() for h in histories] for n in names},
    }
    return row, models


# ----------------------------------------------------------------------------------- the comparison
def compare(
    draws: Mapping[int, Data],
    plan: Plan,
    alone: Mapping[str, dict] | None = None,
    wide: bool = True,
) -> tuple[dict[str, dict], dict]:
    """One network per task ("alone") against the same network for all ("joint").

    Args:
        draws: seed -> data.
        plan: sizes and rates.
        alone: task -> row, for tasks whose single network was trained before.
        wide: train "joint, wide", too: see `Plan.wide`.

    Returns:
        Method -> row of `tuned`, with cost. And method -> seed -> network, for the joint methods
        and, by the task's name, for networks alone that were trained now.
    """
    classes = next(iter(draws.values())).classes
    single, models = dict(alone or {}), {}
    for name in classes:
        if name not in single:
            single[name], models[name] = tuned(draws, [name], plan)
    single = {name: single[name] for name in classes}
    costs = [cost(plan, {name: n}) for name, n in classes.items()]
    rows = {
        "alone": {
            "rate": {name: row["rate"] for name, row in single.items()},
            "validation": {name: row["validation"] for name, row in single.items()},
            "accuracy": {name: row["accuracy"][name] for name, row in single.items()},
            "history": {name: row["history"][name] for name, row in single.items()},
            "parameters": sum(size for size, _ in costs),
            "multiply-adds": sum(each for _, each in costs),
        }
    }
    joint = {"joint": plan} | ({"joint, wide": plan.wide} if wide else {})
    for method, plan_of_method in joint.items():
        row, models[method] = tuned(draws, list(classes), plan_of_method)
        size, each = cost(plan_of_method, classes)
        rows[method] = row | {"parameters": size, "multiply-adds": each}
    return rows, models


def singles(rows: Mapping[str, dict]) -> dict[str, dict]:
    """The networks alone among these rows, task -> row as `tuned` gives it, to be used again."""
    alone = rows["alone"]
    return {
        name: {
            "rate": alone["rate"][name],
            "validation": alone["validation"][name],
            "accuracy": {name: alone["accuracy"][name]},
            "history": {name: alone["history"][name]},
        }
        for name in alone["rate"]
    }


def gains(rows: Mapping[str, dict], method: str = "joint") -> np.ndarray:
    """Delta-m of a method over the networks alone, in per cent, one value per seed."""
    alone, joint = rows["alone"]["accuracy"], rows[method]["accuracy"]
    higher_is_better = dict.fromkeys(alone, True)

    def of_seed(k: int) -> float:
        ours, theirs = ({n: row[n][k] for n in alone} for row in (joint, alone))
        return delta_m(ours, theirs, higher_is_better)

    return np.array([of_seed(k) for k in range(len(next(iter(alone.values()))))])


def one_line(rows: Mapping[str, dict]) -> str:
    """ "method task 0.123, ..." from the rows of `compare`: mean test accuracies."""
    return "; ".join(
        f"{method} " + ", ".join(f"{task} {np.mean(a):.3f}" for task, a in row["accuracy"].items())
        for method, row in rows.items()
    )
