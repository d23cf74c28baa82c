"""Chapter 6: gradient surgery against the tuned sum, on two digits in one image; how often
gradients conflict; what each method promises.

Every method gets the same number of trials on validation data. A trial is one training run; the sum
spends its trials on task weights and learning rate, CAGrad on its radius and learning rate, the
others on the learning rate alone. Needs no Jupyter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .. import data
from ..data import two_digits
from ..data.batches import Table
from ..multitask import balancing
from ..multitask.backward import balanced_backward
from ..multitask.fit import evaluate_tasks, fit_tasks
from ..multitask.sharing import HardSharing
from ..multitask.weighting import Fixed
from ..networks.trunks import cnn, mlp
from ..runtime import device as fastest
from ..training.tasks import classification

TASKS = {name: classification(name) for name in two_digits.TASKS}
# Without upgrad, which for two tasks is half of pcgrad, and Adam does not see that; and without
# dualproj, which was made for continual learning.
SURGERY = tuple(name for name in balancing.METHODS if name not in ("upgrad", "dualproj"))
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and the settings that may be tried."""

    source: str = "mnist_5k"
    digits: tuple[int, int, int] = (
        300,
        100,
        100,
    )  # source digits of a class for training, validation and test
    pairs: tuple[int, int, int] = (4000, 2000, 4000)  # images composed from them
    size: int = 18  # pixels a side
    channels: tuple[int, ...] = ()  # of the convolutions; none: two fully connected layers
    features: int = 32
    epochs: int = 10
    batch: int = 128
    rates: tuple[float, ...] = tuple(np.logspace(-3, -2, 9).round(6))
    ratios: tuple[float, ...] = (
        0.5,
        1.0,
        2.0,
    )  # weight of the left digit over that of the right one
    radii: tuple[float, ...] = (0.2, 0.5, 0.8)  # CAGrad's c


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
    """Part -> table of composed images and both labels. The seed draws the split of the source
    digits and the pairs.
    """
    ds = data.load(plan.source)
    x, y = (
        (ds["x"], ds["y"])
        if "x" in ds
        else (np.concatenate([ds[f"{k}_train"], ds[f"{k}_test"]]) for k in "xy")
    )
    rows = two_digits.parts(y, dict(zip(PARTS, plan.digits, strict=True)), seed)
    found = {}
    for k, (part, n) in enumerate(zip(PARTS, plan.pairs, strict=True)):
        images, labels = two_digits.pairs(
            x[rows[part]], y[rows[part]], n, seed=3 * seed + k, size=plan.size
        )
        found[part] = Table(
            ((images - 0.15) / 0.3).to(device),
            {task: label.to(device) for task, label in labels.items()},
        )
    return found


def network(plan: Plan, seed: int, tasks: Sequence[str] = two_digits.TASKS) -> HardSharing:
    """A freshly initialised trunk with one linear head a task. A seed always gives the same trunk,
    and each task's head its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = (
            cnn(plan.size, plan.channels, plan.features)
            if plan.channels
            else nn.Sequential(nn.Flatten(), *mlp([plan.size**2] + 2 * [plan.features]))
        )
        heads = {task: nn.Linear(plan.features, 10) for task in two_digits.TASKS}
    return HardSharing(trunk, {task: heads[task] for task in tasks})


# ---------------------------------------------------------------------------- one trial, all trials
def trials(method: str, plan: Plan) -> list[dict]:
    """The settings that a method may try: as many for each, save "sum, all", which tries every
    ratio with every rate.
    """
    few = plan.rates[:: (len(plan.rates) - 1) // 2]  # the lowest, middle and highest rate
    if method == "sum, all":
        return [{"rate": rate, "ratio": ratio} for ratio in plan.ratios for rate in plan.rates]
    if method == "sum":
        return [{"rate": rate, "ratio": ratio} for ratio in plan.ratios for rate in few]
    if method == "cagrad":
        return [{"rate": rate, "c": c} for c in plan.radii for rate in few]
    return [{"rate": rate} for rate in plan.rates]


def combiner(method: str, setting: dict, seed: int):
    """What `fit_tasks` combines the losses or the gradients with."""
    if method.startswith("sum"):
        ratio = setting["ratio"]
        return Fixed([2 * ratio / (1 + ratio), 2 / (1 + ratio)])
    if method == "cagrad":
        return partial(balancing.cagrad, c=setting["c"])
    return balancing.method(method, seed)


def train(
    method: str, setting: dict, plan: Plan, seed: int, parts: dict[str, Table], factor: float = 1.0
) -> tuple[HardSharing, float]:
    """Train one network; returns it and its validation accuracy (mean over tasks) at its best
    epoch.

    method: one of `SURGERY`, "sum", or the name of a task, which is then learned alone. factor:
        what the left digit's loss is multiplied by, as if it came in another unit.
    """
    names = [method] if method in TASKS else list(TASKS)
    model = network(plan, seed, names).to(parts["train"].x.device)
    tasks = {name: TASKS[name] for name in names}
    if factor != 1:
        tasks["left"] = replace(
            tasks["left"], loss=lambda logits, y: factor * F.cross_entropy(logits, y)
        )
    history = fit_tasks(
        model,
        tasks,
        parts["train"].only(names),
        parts["validation"].only(names),
        torch.optim.Adam(model.parameters(), lr=setting["rate"]),
        None if method in TASKS else combiner(method, setting, seed),
        epochs=plan.epochs,
        batch=plan.batch,
        patience=plan.epochs,
        seed=seed,
        progress=False,
    )
    return model, float(np.mean(list(history.best.values())))


def test_accuracy(model: HardSharing, parts: dict[str, Table]) -> dict[str, float]:
    """Test accuracy of each task that the model has."""
    names = list(model.heads)
    return evaluate_tasks(model, {name: TASKS[name] for name in names}, parts["test"].only(names))[
        1
    ]


def search(method: str, plan: Plan, seed: int, parts: dict[str, Table]) -> list[dict]:
    """Every trial of a method: its setting, its validation accuracy and the trained model. No test
    data here.
    """
    found = []
    for setting in trials(method, plan):
        model, validation = train(method, setting, plan, seed, parts)
        found.append({"setting": setting, "validation": validation, "model": model})
    return found


def best(found: list[dict]) -> dict:
    """The trial with the best validation accuracy."""
    return max(found, key=lambda trial: trial["validation"])


def compare(
    plan: Plan, seeds: Sequence[int], device: torch.device | str = "cpu", progress: bool = True
) -> dict[str, dict]:
    """Method -> one value a seed of: chosen setting, validation accuracies of all trials, test
    accuracy of each task.

    Three sums: "sum" spends its trials on three ratios of the weights and three rates, "sum, equal
    weights" all of them on the rate, as the methods of surgery do, and "sum, all" has three times
    as many, every ratio with every rate. "single task" is one network a task, each with trials of
    its own.
    """
    names = ("single task", "sum", "sum, equal weights", "sum, all", *SURGERY)
    rows = {method: {"setting": [], "validation": [], "left": [], "right": []} for method in names}

    def note(method, found, parts, tasks=two_digits.TASKS):
        trial = best(found)
        accuracy = test_accuracy(trial["model"], parts)
        for task in tasks:
            rows[method][task].append(accuracy[task])
        rows[method]["setting"].append(trial["setting"])
        rows[method]["validation"].append([t["validation"] for t in found])

    for seed in seeds:
        parts = tables(plan, seed, device)
        for method in tqdm(
            [*TASKS, "sum, all", *SURGERY], disable=not progress, desc=f"seed {seed}"
        ):
            found = search(method, plan, seed, parts)
            if method in TASKS:
                note("single task", found, parts, [method])
                continue
            note(method, found, parts)
            if method == "sum, all":
                few = trials("sum", plan)
                note("sum", [trial for trial in found if trial["setting"] in few], parts)
                note(
                    "sum, equal weights",
                    [trial for trial in found if trial["setting"]["ratio"] == 1],
                    parts,
                )
    return rows


def mean_accuracy(row: dict) -> np.ndarray:
    """Mean test accuracy over the two tasks, one value a seed."""
    return (np.array(row["left"]) + np.array(row["right"])) / 2


# ----------------------------------------------------------------------------- the unit of one loss
def rescaled(
    rows: dict[str, dict],
    plan: Plan,
    seeds: Sequence[int],
    factor: float = 100.0,
    device: torch.device | str = "cpu",
) -> dict[str, dict]:
    """Test accuracies when the left digit's loss is multiplied by `factor` and everything else
    stays as it was chosen without.
    """
    found = {method: {"left": [], "right": []} for method in ("sum", *SURGERY)}
    for k, seed in enumerate(seeds):
        parts = tables(plan, seed, device)
        for method, row in found.items():
            model, _ = train(method, rows[method]["setting"][k], plan, seed, parts, factor)
            for task, accuracy in test_accuracy(model, parts).items():
                row[task].append(accuracy)
    return found


# ---------------------------------------------------------------------- how often do they conflict?
PAIRS = {"two tasks": (0, 1), "two tasks, other images": (0, 3), "same task, other images": (0, 2)}


def conflicts(
    plan: Plan, seed: int, rate: float, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Cosines between gradients of the trunk, step by step, while it is trained with the plain sum.

    Each batch is cut into halves A and B, and the step's four gradients are those of left on A,
    right on A, left on B, right on B. So "two tasks" and "same task, other images" are measured
    with the same number of images. "epoch": the two tasks' cosine over the whole training set,
    after every epoch.
    """
    table = tables(plan, seed, device)["train"]
    model = network(plan, seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    order = torch.Generator().manual_seed(seed)
    found = {name: [] for name in (*PAIRS, "epoch")}

    def watch(G: Tensor) -> Tensor:
        cosines = G / G.diagonal().sqrt().outer(G.diagonal().sqrt())
        for name, (i, j) in PAIRS.items():
            found[name].append(float(cosines[i, j]))
        return torch.full(
            (4,), 0.5, dtype=torch.float64
        )  # halves of a batch: together its plain sum

    for _ in range(plan.epochs):
        for batch in table.batches(plan.batch, order):
            half = len(batch.x) // 2
            optimizer.zero_grad()
            balanced_backward(
                model.trunk(batch.x), _halves(model, batch, half), model.trunk.parameters(), watch
            )
            optimizer.step()
        whole = table.whole()
        losses = {
            name: partial(_loss, model, name, whole.targets[name][1], slice(None)) for name in TASKS
        }
        G = balanced_backward(
            model.trunk(whole.x), losses, model.trunk.parameters(), lambda G: G.new_ones(len(G))
        ).gram
        found["epoch"].append(float(G[0, 1] / (G[0, 0] * G[1, 1]).sqrt()))
        optimizer.zero_grad()
    return found


def _loss(model, name, y, rows, z):
    return TASKS[name].loss(model.heads[name](z[rows]), y[rows])


def _halves(model, batch, half):
    return {
        f"{name} {part}": partial(_loss, model, name, batch.targets[name][1], rows)
        for part, rows in (("A", slice(None, half)), ("B", slice(half, None)))
        for name in TASKS
    }


# ----------------------------------------------------------------------------- what methods promise
def weights(method: str, G: Tensor) -> Tensor:
    """The method's weights, PCGrad's with the orders of a fixed seed; "sum" has ones."""
    if method == "sum":
        return torch.ones(len(G), dtype=torch.float64)
    return balancing.method(method)(G)


def _random(rng, tasks, size):
    return torch.from_numpy(rng.normal(size=(tasks, size)))


def _awkward(rng, tasks):
    """Gradients [tasks, P] of any kind: more tasks than directions, scales apart, one parallel or
    opposite to another.
    """
    J = _random(rng, tasks, int(rng.choice([tasks // 2 + 1, 2 * tasks])))
    J = J * torch.from_numpy(10 ** rng.uniform(-3, 3, size=(tasks, 1)) ** rng.integers(2))
    kind = rng.choice([0.0, 3.0, -2.0])
    if kind:
        J[0] = kind * J[1]
    return J


def _unit(v):
    return v / v.norm()


def _conflicts_with_none(method, J):
    G = J @ J.T
    w = weights(method, G)
    norms = G.diagonal().sqrt()
    return float(((G @ w) / norms).min() / (w.abs() * norms).sum()) > -1e-7


def _same_direction(method, J, other):
    a, b = (weights(method, K @ K.T) @ K for K in (J, other))
    return float((_unit(a) - _unit(b)).norm()) < 1e-3


def promises(rounds: int = 40, seed: int = 0) -> dict[str, dict[str, float]]:
    """Method -> promise -> share of random cases in which it is kept. 1 is no proof (those are in
    the tests); less than 1 is a disproof.

    "no conflict": the update has no negative dot product with any gradient, for two tasks in
    general position, and for any number of gradients of any kind. "any order": it does not change
    if the tasks are reordered. "scale-free": its direction does not change if one loss is
    multiplied by 1,000 or a thousandth. "sum if none conflicts": then it points where the plain sum
    does. "rests on the front": it becomes short where hardly any direction is left that improves
    every task.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(rounds):
        tasks = int(rng.integers(3, 7))
        J, awkward = _random(rng, tasks, tasks + 1), _awkward(rng, tasks)
        pair = _random(rng, 2, 4) * torch.tensor([[1.0], [3.0]], dtype=torch.float64)
        order = torch.from_numpy(rng.permutation(tasks))
        scaled = torch.cat([1000.0 ** rng.choice([-1, 1]) * J[:1], J[1:]])
        agreeing = _random(rng, tasks, 2 * tasks).abs()
        p = torch.from_numpy(rng.uniform(0.2, 1, size=tasks))
        stuck = torch.cat(
            [J[1:], -(p[1:] @ J[1:] / p[0])[None]]
        )  # a positive combination of these gradients is zero
        stuck = stuck + 1e-4 * _random(rng, *stuck.shape)
        cases.append((J, pair, awkward, J[order], scaled, agreeing, stuck))

    def rests(method, J):
        return float((weights(method, J @ J.T) @ J).norm() / J.norm(dim=1).mean()) < 0.02

    found = {}
    for method in ("sum", *balancing.METHODS):
        kept = [
            (
                _conflicts_with_none(method, pair),
                all(_conflicts_with_none(method, K) for K in (awkward, scaled)),
                _same_direction(method, J, reordered),
                _same_direction(method, J, scaled),
                float((_unit(weights(method, a @ a.T) @ a) - _unit(a.sum(0))).norm()) < 1e-3,
                rests(method, stuck),
            )
            for J, pair, awkward, reordered, scaled, a, stuck in cases
        ]
        names = (
            "no conflict, 2 tasks",
            "no conflict, any",
            "any order",
            "scale-free",
            "sum if none conflicts",
            "rests on the front",
        )
        found[method] = dict(zip(names, np.mean(kept, axis=0).tolist(), strict=True))
    return found


# ------------------------------------------------------------------------------------- for a record
def run(profile: str, seeds: Sequence[int]) -> dict:
    """Everything above at the size of the profile, as plain JSON. On two CPU cores ``cpu`` takes
    half an hour or less.
    """
    plan, device = PLANS[profile], fastest()
    rows = compare(plan, seeds, device)
    seen = {
        str(seed): conflicts(plan, seed, plan.rates[len(plan.rates) // 2], device) for seed in seeds
    }
    return {
        "accuracy": rows,
        "left loss x 100": rescaled(rows, plan, seeds, 100.0, device),
        "conflicts": seen,
    }
