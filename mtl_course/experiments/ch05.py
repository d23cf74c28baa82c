"""Chapter 5: three targets of the Adult census in three units, and every way to weight their
losses. Needs no Jupyter.

The losses are a squared error of working hours and two cross-entropies in nats. `unit` is the unit
of the hours in that loss, 10 or 1 hour: the network predicts tens of hours in both cases, and the
loss in square hours is 100 times as large. Scores have no unit: the share of the best constant's
loss that the network explains, 1 - L / L_constant, which for the squared error is R2.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.batches import Table
from ..multitask import weighting
from ..multitask.fit import TaskHistory, evaluate_tasks, fit_tasks
from ..multitask.sharing import HardSharing
from ..networks.trunks import mlp
from ..runtime import device as fastest
from ..training.tasks import Task, accuracy, rmse

TASKS = ("hours", "income", "married")
UNITS = (10, 1)  # hours: of the working hours in their loss


@dataclass(frozen=True)
class Plan:
    """Size of the experiment. trials: settings that every method may try; patience, epochs, batch:
    of `fit_tasks`.
    """

    train: int = 1000
    validation: int = 1000
    test: int = 10_000
    width: int = 32
    batch: int = 100
    epochs: int = 25
    patience: int = 5
    trials: int = 12


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(train=20_000, validation=5000, width=256, batch=1000, epochs=40, trials=24),
}


# --------------------------------------------------------------------------------------------- data
@lru_cache(maxsize=1)
def census() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All of Adult: x [48842, 35] with the logarithm of the capital columns, and task -> labels
    [48842]: tens of hours above 40, 0/1, 0/1.
    """
    table = data.load("adult")
    names = table.names.tolist()
    x = np.array(table.x)
    for name in ("capital-gain", "capital-loss"):
        x[:, names.index(name)] = np.log1p(x[:, names.index(name)])
    married = np.isin(
        table.marital_names[table.marital], ["Married-civ-spouse", "Married-AF-spouse"]
    )
    return x, {
        "hours": (table.hours - 40) / 10,
        "income": np.array(table.income),
        "married": married.astype(np.int64),
    }


@lru_cache(maxsize=16)
def split(
    seed: int, plan: Plan = PLANS["cpu"], tasks: tuple[str, ...] = TASKS, device: str = "cpu"
) -> tuple[Table, Table, Table]:
    """Training, validation and test rows. The test rows are the same for every seed; inputs are
    standardised with the training rows.
    """
    x, y = census()
    order = np.random.RandomState(0).permutation(len(x))
    pool, test = order[: -plan.test], order[-plan.test :]
    mine = np.random.RandomState([seed, 1]).permutation(pool)[: plan.train + plan.validation]
    train, validation = mine[: plan.train], mine[plan.train :]
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)

    def table(rows):
        z = torch.tensor(
            ((x[rows] - mean) / np.maximum(spread, 1e-6)).clip(-5, 5),
            dtype=torch.float32,
            device=device,
        )
        labels = {name: torch.tensor(y[name][rows], device=device) for name in tasks}
        return Table(z, {name: t.float() if name == "hours" else t for name, t in labels.items()})

    return table(train), table(validation), table(test)


def in_minutes(table: Table, share: float, seed: int) -> Table:
    """The same table, but for a random share of the rows someone has entered the working hours in
    minutes: the failure case.
    """
    hours = table.targets["hours"]
    wrong = torch.rand(len(hours), generator=torch.Generator().manual_seed(seed)) < share
    spoilt = torch.where(wrong.to(hours.device), (60 * (10 * hours + 40) - 40) / 10, hours)
    return Table(table.x, table.targets | {"hours": spoilt})


def losses(
    unit: float = 10, tasks: Sequence[str] = TASKS, huber: float | None = None
) -> dict[str, Task]:
    """The tasks with their losses: hours as a squared error in units of `unit` hours, the others as
    cross-entropies in nats.

    huber: with a number of tens of hours, Huber's loss with this threshold, twice the usual one,
        takes the squared error's place.
    """

    def hours(prediction: Tensor, target: Tensor) -> Tensor:
        error = (
            F.mse_loss(prediction.squeeze(1), target)
            if huber is None
            else 2 * F.huber_loss(prediction.squeeze(1), target, delta=huber)
        )
        return (10 / unit) ** 2 * error

    def error(prediction: Tensor, target: Tensor) -> Tensor:
        return 10 * rmse(prediction.squeeze(1), target)

    return {
        name: (
            Task(name, hours, error, higher_is_better=False)
            if name == "hours"
            else Task(name, F.cross_entropy, accuracy, higher_is_better=True)
        )
        for name in tasks
    }


def constants(train: Table, table: Table, unit: float = 10) -> dict[str, float]:
    """Loss, on `table`, of the best constant prediction for `train`: the mean of the hours, the
    shares of the classes.
    """
    found = {}
    for name, y in train.targets.items():
        held = table.targets[name]
        if name == "hours":
            found[name] = (10 / unit) ** 2 * float(((held - y.mean()) ** 2).mean())
        else:
            logs = (torch.bincount(y, minlength=2) / len(y)).log()
            found[name] = float(-logs[held].mean())
    return found


# ----------------------------------------------------------------------------- methods and settings
def network(seed: int, width: int, tasks: Sequence[str] = TASKS) -> HardSharing:
    """A trunk of two layers and a linear head a task; a seed always gives the same network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HardSharing(
            mlp([35, width, width]),
            {name: nn.Linear(width, 1 if name == "hours" else 2) for name in tasks},
        )


def _log_uniform(draw: np.random.RandomState, low: float, high: float) -> float:
    return float(math.exp(draw.uniform(math.log(low), math.log(high))))


def _around(draw, constant):
    """Weights up to ten times above or below 1 / constant, those of the first task fixed: what
    matters is their ratio, besides the rate.
    """
    return [
        1 / c * (1.0 if i == 0 else _log_uniform(draw, 0.1, 10)) for i, c in enumerate(constant)
    ]


# method -> its own settings, drawn at random: (draw, losses of the best constants on the training
# data) -> keyword arguments
SETTINGS: dict[str, Callable] = {
    "equal": lambda draw, constant: {},
    "normalised": lambda draw, constant: {"weights": [1 / c for c in constant]},
    "fixed, searched": lambda draw, constant: {"weights": _around(draw, constant)},
    "uncertainty": lambda draw, constant: {"pace": _log_uniform(draw, 1, 100)},
    "geometric mean": lambda draw, constant: {},
    "random": lambda draw, constant: {"seed": int(draw.randint(1000))},
    "DWA": lambda draw, constant: {"temperature": _log_uniform(draw, 0.5, 5)},
    "Chebyshev": lambda draw, constant: {
        "weights": [1.0] * len(constant),
        "mu": _log_uniform(draw, 0.01, 1),
    },
    "GradNorm": lambda draw, constant: {
        "tasks": len(constant),
        "alpha": float(draw.uniform(0, 2)),
        "rate": _log_uniform(draw, 1e-3, 1e-1),
    },
    "FAMO": lambda draw, constant: {"tasks": len(constant), "rate": _log_uniform(draw, 1e-3, 1e-1)},
}
UNIT_FREE = (
    "normalised",
    "fixed, searched",
)  # they divide by the loss of a constant, which has the same unit
# as they come: the settings of the papers, or the simplest ones
AS_THEY_COME: dict[str, dict] = {
    "equal": {},
    "uncertainty": {},
    "geometric mean": {},
    "random": {},
    "DWA": {},
    "Chebyshev": {"weights": [1.0] * 3},
    "GradNorm": {"tasks": 3},
    "FAMO": {"tasks": 3},
}


def build(
    method: str, names: Sequence[str] = TASKS, pace: float = 1.0, **options
) -> tuple[weighting.Weighting, float]:
    """The weighting of this name, and the factor on the learning rate of its own parameters
    (uncertainty's s).
    """
    if method == "uncertainty":
        return weighting.Uncertainty([name == "hours" for name in names]), pace
    kinds = {
        "equal": weighting.Weighting,
        "normalised": weighting.Fixed,
        "fixed, searched": weighting.Fixed,
        "random": weighting.RandomWeights,
        "geometric mean": weighting.GeometricMean,
        "DWA": weighting.DWA,
        "Chebyshev": weighting.SmoothChebyshev,
        "GradNorm": weighting.GradNorm,
        "FAMO": weighting.FAMO,
    }
    return kinds[method](**options), 1.0


# ------------------------------------------------------------------------------------------ one run
@dataclass
class Run:
    """A trained network, its history, the weighting as training left it, and task -> share
    explained on the validation data.
    """

    model: HardSharing
    history: TaskHistory
    combine: weighting.Weighting
    explained: dict[str, float]

    @property
    def score(self) -> float:
        return float(np.mean(list(self.explained.values())))


def explained(
    model: nn.Module, train: Table, table: Table, tasks: Sequence[str] = TASKS
) -> dict[str, float]:
    """Task -> 1 - loss / loss of the best constant, on `table`; 0 is no better than the constant, 1
    is perfect.
    """
    found, _ = evaluate_tasks(model, losses(tasks=tasks), table)
    floor = constants(train, table)
    return {name: 1 - found[name] / floor[name] for name in tasks}


def fit(
    method: str,
    seed: int,
    unit: float = 10,
    rate: float = 1e-2,
    options: Mapping | None = None,
    plan: Plan = PLANS["cpu"],
    tasks=TASKS,
    device="cpu",
    minutes: float = 0.0,
    huber: float | None = None,
    checkpoint: Path | None = None,
) -> Run:
    """Train one network with a weighting method; test data are not looked at.

    options: keyword arguments of `build`. minutes: share of `in_minutes` in the rows to train on
        and to stop by, not in those that `explained` is measured on. huber: as for `losses`.
        checkpoint: as for `fit_tasks`.
    """
    train, validation, _ = split(seed, plan, tuple(tasks), str(device))
    seen = [in_minutes(table, minutes, seed) if minutes else table for table in (train, validation)]
    model = network(seed, plan.width, tasks).to(device)
    combine, pace = build(method, tasks, **(options or {}))
    groups = weighting.parameter_groups(model, combine.to(device), weight_decay=0.01)
    for group in groups[1:]:
        group["lr"] = rate * pace
    history = fit_tasks(
        model,
        losses(unit, tasks, huber),
        *seen,
        torch.optim.AdamW(groups, lr=rate, fused=True),
        combine,
        epochs=plan.epochs,
        patience=plan.patience,
        batch=plan.batch,
        seed=seed,
        progress=False,
        checkpoint=checkpoint,
    )
    return Run(model, history, combine, explained(model, train, validation, tasks))


def stages(
    weights: Sequence[float],
    rate: float,
    seed: int = 0,
    plan: Plan = PLANS["cpu"],
    epochs: Sequence[int] = (5, 10, 25),
) -> Iterator[float]:
    """The score of a run with fixed weights after each of these epochs, for `tuning.search`: it
    goes on from its checkpoint, or is ended between them.
    """
    with TemporaryDirectory() as folder:
        for last in epochs:
            yield fit(
                "fixed, searched",
                seed,
                rate=rate,
                options={"weights": weights},
                plan=replace(plan, epochs=last),
                checkpoint=Path(folder) / "run.pt",
            ).score


# ----------------------------------------------------------------------------------- the comparison
def trial(
    method: str, seed: int, number: int, unit: float, plan: Plan, tasks: Sequence[str] = TASKS
) -> tuple[float, dict]:
    """Learning rate and options of one trial. The rates are the same for all methods: trial 3 of
    seed 0 has one rate.
    """
    draw = np.random.RandomState([seed, number, 2])
    rate = _log_uniform(draw, 1e-3, 3e-2)
    train, _, _ = split(seed, plan, tuple(tasks))
    constant = constants(train, train, unit)
    return rate, SETTINGS[method](draw, [constant[name] for name in tasks])


def search(
    method: str,
    seed: int,
    unit: float,
    plan: Plan = PLANS["cpu"],
    device="cpu",
    tasks: Sequence[str] = TASKS,
) -> dict:
    """Random search: the trial with the best validation score, looked at once on the test data.
    Plain JSON.
    """
    best, chosen = None, None
    for number in range(plan.trials):
        rate, options = trial(method, seed, number, unit, plan, tasks)
        try:
            run = fit(method, seed, unit, rate, options, plan, tasks, device)
        except FloatingPointError:
            continue  # a diverged trial is a trial
        if best is None or run.score > best.score:
            best, chosen = run, {"trial": number, "rate": rate, **options}
    train, _, test = split(seed, plan, tuple(tasks), str(device))
    shares = explained(best.model, train, test, tasks)
    _, metrics = evaluate_tasks(best.model, losses(tasks=tasks), test)
    return {"explained": shares, "metrics": metrics, "validation": best.score, "chosen": chosen}


def single(seed: int, plan: Plan = PLANS["cpu"], device="cpu") -> dict:
    """A network of its own for every task, each with as many trials: three times the budget of a
    joint model.
    """
    parts = {name: search("equal", seed, 10, plan, device, (name,)) for name in TASKS}
    return {
        "explained": {name: part["explained"][name] for name, part in parts.items()},
        "metrics": {name: part["metrics"][name] for name, part in parts.items()},
        "validation": float(np.mean([part["validation"] for part in parts.values()])),
        "chosen": {name: part["chosen"] for name, part in parts.items()},
    }


def run(
    profile: str = "cpu",
    seeds: Sequence[int] = range(5),
    plan: Plan | None = None,
    report: Callable = print,
) -> dict:
    """The whole comparison: unit (as text) -> method -> one result a seed, as `search` gives them,
    and "single". Plain JSON.
    """
    plan, device = plan or PLANS[profile], fastest() if profile == "gpu" else "cpu"
    results = {
        "trials": plan.trials,
        "single": [],
        "units": {str(unit): {method: [] for method in SETTINGS} for unit in UNITS},
    }
    for seed in seeds:
        results["single"].append(single(seed, plan, device))
        for unit in UNITS:
            for method, found in results["units"][str(unit)].items():
                again = (
                    method in UNIT_FREE and unit != UNITS[0]
                )  # its runs would be the same ones, step by step
                found.append(
                    results["units"][str(UNITS[0])][method][-1]
                    if again
                    else search(method, seed, unit, plan, device)
                )
        for unit, methods in results["units"].items():
            line = ", ".join(
                f"{method} {np.mean(list(found[-1]['explained'].values())):.3f}"
                for method, found in methods.items()
            )
            report(f"seed {seed}, hours in units of {unit}: {line}")
    return results
