"""Chapter 6: two digits in one image, one network, and one run with any way to combine losses.

Sizes, data, network, the settings that a method may try, and a search on validation data. Needs no
Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import data
from ..data import two_digits
from ..data.batches import Table
from ..multitask import balancing
from ..multitask.fit import evaluate_tasks, fit_tasks
from ..multitask.sharing import HardSharing
from ..multitask.weighting import Fixed, Weighting
from ..networks.cost import parameters, widest
from ..networks.trunks import cnn, mlp
from ..training.tasks import classification
from .common import seeded

TASKS = {name: classification(name) for name in two_digits.TASKS}
# Without upgrad, which for two tasks is half of pcgrad, and Adam does not see that; without
# dualproj, which was made for continual learning; and without fairgrad, a family of which nash_mtl
# is one.
LEFT_OUT = ("upgrad", "dualproj", "fairgrad")
SURGERY = tuple(name for name in balancing.METHODS if name not in LEFT_OUT)
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and the settings that may be tried.

    Args:
        source: the set of digits that images are composed from.
        digits: source digits per class for training, validation and test.
        pairs: images composed from them.
        size: pixels a side.
        channels: of the convolutions; none: two fully connected layers.
        features: what the trunk gives the heads.
        epochs: over the training images.
        batch: images per step.
        rates: of Adam.
        ratios: weight of the left digit over that of the right one, for the sum.
        radii: c of CAGrad.
    """

    source: str = "mnist_5k"
    digits: tuple[int, int, int] = (300, 100, 100)
    pairs: tuple[int, int, int] = (4000, 2000, 4000)
    size: int = 18
    channels: tuple[int, ...] = ()
    features: int = 32
    epochs: int = 10
    batch: int = 128
    rates: tuple[float, ...] = tuple(np.logspace(-3, -2, 9).round(6))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    radii: tuple[float, ...] = (0.2, 0.5, 0.8)


CPU = Plan()
GPU = Plan(
    source="mnist",
    digits=(4500, 900, 900),
    pairs=(60_000, 10_000, 20_000),
    size=36,
    channels=(16, 32),
    features=64,
    epochs=15,
    batch=256,
)
PLANS = {"cpu": CPU, "gpu": GPU}


# --------------------------------------------------------------------------------- data and network
def tables(plan: Plan, seed: int, device: torch.device | str = "cpu") -> dict[str, Table]:
    """Part -> table of composed images and both labels.

    The seed draws the split of the source digits and the pairs.
    """
    ds = data.load(plan.source)
    if "x" in ds:
        x, y = ds["x"], ds["y"]
    else:
        x, y = (np.concatenate([ds[f"{name}_train"], ds[f"{name}_test"]]) for name in "xy")
    rows = two_digits.parts(y, dict(zip(PARTS, plan.digits, strict=True)), seed)
    by_part = {}
    for k, (part, n) in enumerate(zip(PARTS, plan.pairs, strict=True)):
        some = rows[part]
        images, labels = two_digits.pairs(x[some], y[some], n, seed=3 * seed + k, size=plan.size)
        labels = {task: label.to(device) for task, label in labels.items()}
        by_part[part] = Table(((images - 0.15) / 0.3).to(device), labels)
    return by_part


def network(plan: Plan, seed: int, tasks: Sequence[str] = two_digits.TASKS) -> HardSharing:
    """A freshly drawn trunk with one linear head per task.

    A seed always gives the same trunk, and each task's head its own.
    """

    def build() -> tuple[nn.Module, dict[str, nn.Module]]:
        if plan.channels:
            trunk = cnn(plan.size, plan.channels, plan.features)
        else:
            trunk = nn.Sequential(nn.Flatten(), *mlp([plan.size**2] + 2 * [plan.features]))
        return trunk, {task: nn.Linear(plan.features, 10) for task in two_digits.TASKS}

    trunk, heads = seeded(build, seed)
    return HardSharing(trunk, {task: heads[task] for task in tasks})


def of_width(plan: Plan, features: int) -> Plan:
    """The plan with a trunk of another width; its convolutions change in proportion.

    Args:
        plan: sizes.
        features: what the trunk is to give the heads.

    Returns:
        The same plan otherwise.
    """
    channels = tuple(max(1, round(c * features / plan.features)) for c in plan.channels)
    return replace(plan, features=features, channels=channels)


def half_cost(plan: Plan) -> Plan:
    """The widest plan with which two single networks have no more parameters than a joint one.

    Args:
        plan: sizes of the joint network.

    Returns:
        Sizes of each of the two single networks.
    """
    joint = parameters(network(plan, 0))

    def two(features: int) -> nn.ModuleList:
        return nn.ModuleList(network(of_width(plan, features), 0, [task]) for task in TASKS)

    return of_width(plan, widest(two, joint))


# ---------------------------------------------------------------------------- one trial, all trials
def trials(method: str, plan: Plan) -> list[dict]:
    """The settings that a method may try: as many for each.

    Save "sum, all", which tries every ratio with every rate.
    """
    few = plan.rates[:: (len(plan.rates) - 1) // 2]  # the lowest, middle and highest rate
    if method == "sum, all":
        return [{"rate": rate, "ratio": ratio} for ratio in plan.ratios for rate in plan.rates]
    if method == "sum":
        return [{"rate": rate, "ratio": ratio} for ratio in plan.ratios for rate in few]
    if method == "cagrad":
        return [{"rate": rate, "c": c} for c in plan.radii for rate in few]
    if method == "sum, equal weights":
        return [{"rate": rate, "ratio": 1.0} for rate in plan.rates]
    return [{"rate": rate} for rate in plan.rates]


def combiner(method: str, setting: Mapping[str, float], seed: int) -> Callable | Fixed:
    """What `fit_tasks` combines the losses or the gradients with."""
    if method.startswith("sum"):
        ratio = setting["ratio"]
        return Fixed([2 * ratio / (1 + ratio), 2 / (1 + ratio)])
    if method == "cagrad":
        return partial(balancing.cagrad, c=setting["c"])
    return balancing.method(method, seed)


def train(
    method: str,
    setting: Mapping[str, float],
    plan: Plan,
    seed: int,
    parts: Mapping[str, Table],
    factor: float = 1.0,
) -> tuple[HardSharing, float]:
    """Train one network; also its validation accuracy, mean over tasks, at its best epoch.

    Args:
        method: one of `SURGERY`, "sum", or the name of a task, which is then learned alone.
        setting: one of `trials(method, plan)`.
        plan: sizes.
        seed: of the network and the batches.
        parts: as `tables` gives them.
        factor: what the left digit's loss is multiplied by, as if it came in another unit.
    """
    names = [method] if method in TASKS else list(TASKS)
    combine = None if method in TASKS else combiner(method, setting, seed)
    return fit(combine, setting["rate"], plan, seed, parts, factor, names)


def fit(
    combine: Weighting | Callable | None,
    rate: float,
    plan: Plan,
    seed: int,
    parts: Mapping[str, Table],
    factor: float = 1.0,
    names: Sequence[str] = two_digits.TASKS,
) -> tuple[HardSharing, float]:
    """As `train`, with any weighting of the losses or balancing of the gradients.

    Args:
        combine: what `fit_tasks` combines the losses with; a weighting's parameters are trained.
        rate: of Adam.
        plan: sizes.
        seed: of the network and the batches.
        parts: as `tables` gives them.
        factor: what the left digit's loss is multiplied by.
        names: the tasks to learn.
    """
    device = parts["train"].x.device
    model = network(plan, seed, names).to(device)
    tasks = {name: TASKS[name] for name in names}
    if factor != 1:
        tasks["left"] = replace(tasks["left"], loss=partial(_times, factor))
    params = list(model.parameters())
    if isinstance(combine, Weighting):
        params += combine.to(device).parameters()
    history = fit_tasks(
        model,
        tasks,
        parts["train"].only(names),
        parts["validation"].only(names),
        torch.optim.Adam(params, lr=rate),
        combine,
        epochs=plan.epochs,
        batch=plan.batch,
        patience=plan.epochs,
        seed=seed,
        progress=False,
    )
    return model, float(np.mean(list(history.best.values())))


def _times(factor, logits, y):
    return factor * F.cross_entropy(logits, y)


def test_accuracy(model: HardSharing, parts: Mapping[str, Table]) -> dict[str, float]:
    """Test accuracy of each task that the model has."""
    tasks = {name: TASKS[name] for name in model.heads}
    _, accuracies = evaluate_tasks(model, tasks, parts["test"].only(list(tasks)))
    return accuracies


def search(method: str, plan: Plan, seed: int, parts: Mapping[str, Table]) -> list[dict]:
    """Every trial of a method: "setting", "validation" accuracy and the trained "model".

    No test data here.
    """
    runs = []
    for setting in trials(method, plan):
        model, validation = train(method, setting, plan, seed, parts)
        runs.append({"setting": setting, "validation": validation, "model": model})
    return runs


def best(runs: Sequence[dict]) -> dict:
    """The trial with the best validation accuracy."""
    return max(runs, key=lambda trial: trial["validation"])
