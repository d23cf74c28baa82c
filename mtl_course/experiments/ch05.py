"""Chapter 5: three targets of the Adult census in three units, and ways to weight their losses.

The losses are a squared error of working hours and two cross-entropies in nats. `unit` is the unit
of the hours in that loss, 10 or 1 hour: the network predicts tens of hours in both cases, and the
loss in square hours is 100 times as large. Scores have no unit: the share of the best constant's
loss that the network explains, 1 - L / L_constant, which for the squared error is R2. Needs no
Jupyter.
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

from ..data.batches import Table
from ..data.census import TASKS, census_tasks
from ..multitask import weighting
from ..multitask.fit import evaluate_tasks, fit_tasks
from ..multitask.sharing import HardSharing
from ..networks.cost import parameters
from ..networks.trunks import mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.tasks import Task, accuracy, rmse
from . import ch05_labels, ch06_digits, common
from .common import (
    TrainedNetwork,
    best_on_validation,
    one_line,
    one_network_per_task,
    seeded,
)

UNITS = (10, 1)  # hours: of the working hours in their loss


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        train: rows.
        validation: rows.
        test: rows, the same for every seed.
        width: units of each of the two hidden layers.
        batch: rows per step.
        epochs: at most.
        patience: epochs without a better one before training stops.
        trials: settings that every method may try.
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
@lru_cache(maxsize=16)
def split(
    seed: int, plan: Plan = PLANS["cpu"], tasks: tuple[str, ...] = TASKS, device: str = "cpu"
) -> tuple[Table, Table, Table]:
    """Training, validation and test rows; inputs are standardised with the training rows.

    The test rows are the same for every seed.
    """
    x, y = census_tasks()
    order = np.random.RandomState(0).permutation(len(x))
    pool, test = order[: -plan.test], order[-plan.test :]
    drawn = np.random.RandomState([seed, 1]).permutation(pool)[: plan.train + plan.validation]
    train, validation = drawn[: plan.train], drawn[plan.train :]
    mean, spread = x[train].mean(axis=0), np.maximum(x[train].std(axis=0), 1e-6)

    def table(rows: np.ndarray) -> Table:
        z = ((x[rows] - mean) / spread).clip(-5, 5)
        labels = {name: torch.tensor(y[name][rows], device=device) for name in tasks}
        if "hours" in labels:
            labels["hours"] = labels["hours"].float()
        return Table(torch.tensor(z, dtype=torch.float32, device=device), labels)

    return table(train), table(validation), table(test)


def in_minutes(table: Table, share: float, seed: int) -> Table:
    """The failure case: for a random share of the rows, hours that were entered in minutes."""
    hours = table.targets["hours"]
    wrong = torch.rand(len(hours), generator=torch.Generator().manual_seed(seed)) < share
    spoilt = torch.where(wrong.to(hours.device), (60 * (10 * hours + 40) - 40) / 10, hours)
    return Table(table.x, table.targets | {"hours": spoilt})


def losses(
    unit: float = 10, tasks: Sequence[str] = TASKS, huber: float | None = None
) -> dict[str, Task]:
    """The tasks with their losses: a squared error for the hours, cross-entropies in nats.

    Args:
        unit: of the hours in their loss, in hours.
        tasks: the names to return.
        huber: with a number of tens of hours, Huber's loss with this threshold, twice the usual
            one, takes the squared error's place.
    """

    def loss_of_hours(prediction: Tensor, target: Tensor) -> Tensor:
        prediction = prediction.squeeze(1)
        if huber is None:
            loss = F.mse_loss(prediction, target)
        else:
            loss = 2 * F.huber_loss(prediction, target, delta=huber)
        return (10 / unit) ** 2 * loss

    def error_in_hours(prediction: Tensor, target: Tensor) -> Tensor:
        return 10 * rmse(prediction.squeeze(1), target)

    def task(name: str) -> Task:
        if name == "hours":
            return Task(name, loss_of_hours, error_in_hours, higher_is_better=False)
        return Task(name, F.cross_entropy, accuracy, higher_is_better=True)

    return {name: task(name) for name in tasks}


def constants(train: Table, table: Table, unit: float = 10) -> dict[str, float]:
    """Loss, on `table`, of the best constant prediction for `train`, hours in this unit."""
    losses = common.constants(train.targets, table.targets)
    if "hours" in losses:
        losses["hours"] *= (10 / unit) ** 2
    return losses


# ----------------------------------------------------------------------------- methods and settings
def network(seed: int, width: int, tasks: Sequence[str] = TASKS, depth: int = 2) -> HardSharing:
    """A trunk of some layers and a linear head per task; a seed always gives the same network."""

    def build() -> HardSharing:
        trunk = mlp([35, *depth * [width]])
        return HardSharing(
            trunk, {name: nn.Linear(width, 1 if name == "hours" else 2) for name in tasks}
        )

    return seeded(build, seed)


def _log_uniform(draw: np.random.RandomState, low: float, high: float) -> float:
    return float(math.exp(draw.uniform(math.log(low), math.log(high))))


def _around(draw: np.random.RandomState, constant: Sequence[float]) -> list[float]:
    """Weights up to ten times above or below 1 / constant, that of the first task fixed.

    Besides the rate, only their ratio matters.
    """
    factors = [1.0] + [_log_uniform(draw, 0.1, 10) for _ in constant[1:]]
    return [1 / c * factor for c, factor in zip(constant, factors, strict=True)]


# Method -> its own settings, drawn at random: (draw, losses of the best constants on the training
# data) -> keyword arguments of `build`.
SETTINGS: dict[str, Callable[[np.random.RandomState, Sequence[float]], dict]] = {
    "equal": lambda draw, constant: {},
    "normalised": lambda draw, constant: {"weights": [1 / c for c in constant]},
    "fixed, searched": lambda draw, constant: {"weights": _around(draw, constant)},
    "uncertainty": lambda draw, constant: {"pace": _log_uniform(draw, 1, 100)},
    "geometric mean": lambda draw, constant: {},
    "random": lambda draw, constant: {"seed": int(draw.randint(1000))},
    "DWA": lambda draw, constant: {"temperature": _log_uniform(draw, 0.5, 5)},
    "Chebyshev": lambda draw, constant: _chebyshev(draw, len(constant)),
    "GradNorm": lambda draw, constant: _gradnorm(draw, len(constant)),
    "FAMO": lambda draw, constant: {"tasks": len(constant), "rate": _log_uniform(draw, 1e-3, 1e-1)},
}


def _chebyshev(draw: np.random.RandomState, tasks: int) -> dict:
    return {"weights": [1.0] * tasks, "mu": _log_uniform(draw, 0.01, 1)}


def _gradnorm(draw: np.random.RandomState, tasks: int) -> dict:
    alpha = float(draw.uniform(0, 2))
    return {"tasks": tasks, "alpha": alpha, "rate": _log_uniform(draw, 1e-3, 1e-1)}


# These divide by the loss of a constant, which has the same unit.
UNIT_FREE = ("normalised", "fixed, searched")
# Without a search: the settings of the papers, or the simplest ones.
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
    """The weighting of this name, and the factor on the rate of its own parameters.

    Only "uncertainty" has such parameters: the logarithms of its variances.
    """
    if method == "uncertainty":
        return weighting.Uncertainty([name == "hours" for name in names]), pace
    kinds = {
        "equal": weighting.EqualWeights,
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
def explained(
    model: nn.Module, train: Table, table: Table, tasks: Sequence[str] = TASKS
) -> dict[str, float]:
    """Task -> 1 - loss / loss of the best constant, on `table`."""
    on_table, _ = evaluate_tasks(model, losses(tasks=tasks), table)
    return common.explained(on_table, constants(train, table))


def fit(
    method: str,
    seed: int,
    unit: float = 10,
    rate: float = 1e-2,
    options: Mapping | None = None,
    plan: Plan = PLANS["cpu"],
    tasks: Sequence[str] = TASKS,
    device: torch.device | str = "cpu",
    minutes: float = 0.0,
    huber: float | None = None,
    checkpoint: Path | None = None,
) -> TrainedNetwork:
    """Train one network with a weighting method; test data are not looked at.

    Args:
        method: a key of `SETTINGS`.
        seed: of the rows, the network and the batches.
        unit: of the hours in their loss, in hours.
        rate: of AdamW.
        options: keyword arguments of `build`.
        plan: sizes.
        tasks: which of `TASKS`.
        device: where to train.
        minutes: share of `in_minutes` in the rows to train on and to stop by, not in those that
            `explained` is measured on.
        huber: as for `losses`.
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
    return TrainedNetwork(model, history, explained(model, train, validation, tasks), combine)


def stages(
    weights: Sequence[float],
    rate: float,
    seed: int = 0,
    plan: Plan = PLANS["cpu"],
    epochs: Sequence[int] = (5, 10, 25),
) -> Iterator[float]:
    """The score of a run with fixed weights after each of these epochs, for `tuning.search`.

    It goes on from its checkpoint, or is ended between them.
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
    """Learning rate and options of one trial.

    The rates are the same for all methods: trial 3 of seed 0 has one rate.
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
    device: torch.device | str = "cpu",
    tasks: Sequence[str] = TASKS,
) -> dict:
    """Random search: the trial with the best validation score, looked at once on test data.

    Plain JSON: "explained" and "metrics" of each task on the test rows, "validation", the score,
    and "chosen".
    """

    trials = range(plan.trials)
    settings = [(number, *trial(method, seed, number, unit, plan, tasks)) for number in trials]

    def with_setting(setting: tuple[int, float, dict]) -> TrainedNetwork:
        _, rate, options = setting
        return fit(method, seed, unit, rate, options, plan, tasks, device)

    best, (number, rate, options) = best_on_validation(with_setting, settings)
    train, _, test = split(seed, plan, tuple(tasks), str(device))
    _, metrics = evaluate_tasks(best.model, losses(tasks=tasks), test)
    return {
        "explained": explained(best.model, train, test, tasks),
        "metrics": metrics,
        "validation": best.score,
        # GradNorm and FAMO have a rate of their own, which stands here in place of AdamW's.
        "chosen": {"trial": number, "rate": rate, **options},
    }


def single(seed: int, plan: Plan = PLANS["cpu"], device: torch.device | str = "cpu") -> dict:
    """A network of its own for every task, each with as many trials.

    Together they have three times the budget of a joint model.
    """
    return one_network_per_task(
        {name: search("equal", seed, 10, plan, device, (name,)) for name in TASKS}
    )


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole comparison: unit of the hours (as text) -> method -> results. Plain JSON.

    Under "units"; beside it "single" and "trials". "single" and each method have one result per
    seed, as `search` gives them.
    """
    plan, device = plan or PLANS[profile], fastest() if profile == "gpu" else "cpu"
    results = {"trials": plan.trials, "single": [], "units": {}}
    for unit in UNITS:
        results["units"][str(unit)] = {method: [] for method in SETTINGS}
    for seed in seeds:
        results["single"].append(kept(f"single, seed {seed}", single, seed, plan, device))
        first = None
        for unit in UNITS:
            once = {}
            for method in SETTINGS:
                if first is not None and method in UNIT_FREE:
                    # Runs of a method without a unit would be the same ones, step by step.
                    once[method] = first[method]
                else:
                    case = f"{method}, hours in units of {unit}, seed {seed}"
                    once[method] = kept(case, search, method, seed, unit, plan, device)
                results["units"][str(unit)][method].append(once[method])
            first = first or once
            report(f"seed {seed}, hours in units of {unit}: {one_line(once)}")
    return results


# ---------------------------------------------------------------------------- structure or the rate
@dataclass(frozen=True)
class StructurePlan:
    """Sizes of the searches over the learning rate and over the trunk's depth and width.

    Args:
        census: sizes of the census, of which the trunk's width is not used.
        digits: sizes of the two digits in one image, likewise.
        trials: settings that each search may try.
        looks: after so many trials the best one so far is tested.
        rates: lowest and highest learning rate.
        depths: fewest and most hidden layers.
        widths: fewest and most units of each.
        default: learning rate, layers and units where they are not searched.
    """

    census: Plan = PLANS["cpu"]
    digits: ch06_digits.Plan = ch06_digits.CPU
    trials: int = 12
    looks: tuple[int, ...] = (3, 6, 12)
    rates: tuple[float, float] = (1e-3, 3e-2)
    depths: tuple[int, int] = (1, 4)
    widths: tuple[int, int] = (8, 512)
    default: tuple[float, int, int] = (1e-3, 2, 32)


SEARCHES = ("rate", "structure", "both")


def drawn(plan: StructurePlan, what: str, seed: int) -> list[tuple[float, int, int]]:
    """Rate, depth and width of every trial of a search; each search of a seed has the same draws.

    Args:
        plan: the ranges.
        what: one of `SEARCHES`; what it does not name stays at its default.
        seed: of the draws.
    """
    draw, settings = np.random.RandomState([seed, 4]), []
    for _ in range(plan.trials):
        rate = _log_uniform(draw, *plan.rates)
        depth = int(draw.randint(plan.depths[0], plan.depths[1] + 1))
        width = round(_log_uniform(draw, *plan.widths))
        rate = plan.default[0] if what == "structure" else rate
        settings.append((rate, *(plan.default[1:] if what == "rate" else (depth, width))))
    return settings


def _on_census(plan: StructurePlan, seed: int) -> tuple[Callable, Callable]:
    """How to train with a setting, and how to test what comes of it, in per cent."""
    sizes = plan.census
    train, validation, test = split(seed, sizes)
    constant = constants(train, train)

    def score(model: nn.Module, table: Table) -> float:
        return 100 * float(np.mean(list(explained(model, train, table).values())))

    def trained(rate: float, depth: int, width: int) -> tuple[float, nn.Module]:
        model = network(seed, width, depth=depth)
        fit_tasks(
            model,
            losses(),
            train,
            validation,
            torch.optim.AdamW(model.parameters(), lr=rate, fused=True),
            weighting.Fixed([1 / constant[name] for name in TASKS]),
            epochs=sizes.epochs,
            patience=sizes.patience,
            batch=sizes.batch,
            seed=seed,
            progress=False,
        )
        return score(model, validation), model

    return trained, lambda model: score(model, test)


def _on_digits(plan: StructurePlan, seed: int) -> tuple[Callable, Callable]:
    """As `_on_census`, for two digits in one image."""
    sizes, tasks = plan.digits, ch06_digits.TASKS
    parts = ch06_digits.tables(sizes, seed)

    def score(model: nn.Module, part: str) -> float:
        return 100 * float(np.mean(list(evaluate_tasks(model, tasks, parts[part])[1].values())))

    def trained(rate: float, depth: int, width: int) -> tuple[float, nn.Module]:
        def build() -> HardSharing:
            trunk = nn.Sequential(nn.Flatten(), *mlp([sizes.size**2, *depth * [width]]))
            return HardSharing(trunk, {task: nn.Linear(width, 10) for task in tasks})

        model = seeded(build, seed)
        fit_tasks(
            model,
            tasks,
            parts["train"],
            parts["validation"],
            torch.optim.Adam(model.parameters(), lr=rate),
            weighting.EqualWeights(),
            epochs=sizes.epochs,
            patience=sizes.epochs,
            batch=sizes.batch,
            seed=seed,
            progress=False,
        )
        return score(model, "validation"), model

    return trained, lambda model: score(model, "test")


PLACES = {"census": _on_census, "digits": _on_digits}


def structure(plan: StructurePlan, place: str, seed: int) -> dict[str, list[dict]]:
    """Search -> the best trial so far at each of `looks`. Plain JSON.

    "test" is its score on test data, in per cent; "rate", "depth" and "width" are what it had, and
    "parameters" how many its network has.
    """
    trained, tested = PLACES[place](plan, seed)
    found = {}
    for what in SEARCHES:
        best, found[what] = None, []
        for number, setting in enumerate(drawn(plan, what, seed), start=1):
            validation, model = trained(*setting)
            if best is None or validation > best[0]:
                best = (validation, setting, model)
            if number in plan.looks:
                _, (rate, depth, width), model = best
                row = {"trials": number, "test": round(tested(model), 4)}
                row |= {"rate": rate, "depth": depth, "width": width}
                found[what].append(row | {"parameters": parameters(model)})
    return found


def run_structure(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: StructurePlan | None = None,
) -> dict:
    """Place -> one entry per seed, as `structure` gives them, in about 30 seconds per seed."""
    plan = plan or StructurePlan()
    results = {place: [] for place in PLACES}
    for seed in seeds:
        for place in PLACES:
            piece = kept(f"{plan}, {place}, seed {seed}", structure, plan, place, seed)
            results[place].append(piece)
            last = ", ".join(f"{what} {rows[-1]['test']:.1f}" for what, rows in piece.items())
            report(f"seed {seed}, {place}: {last}")
    return results


# -------------------------------------------------------------------- one task, a loss of two parts
@dataclass(frozen=True)
class PartsPlan:
    """Sizes of the experiment on a loss with two parts: a squared error and a ranking loss.

    Args:
        census: sizes of the census.
        mixes: shares of the ranking part that are tried, each part divided by its best constant's.
        units: of the hours, in hours, where the two parts are added as they stand; 168 is a week.
        rate: of AdamW.
        ordered: test rows whose pairs are looked at.
    """

    census: Plan = PLANS["cpu"]
    mixes: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    units: tuple[float, ...] = (1.0, 168.0)
    rate: float = 1e-2
    ordered: int = 3000


def ranking(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of log(1 + e^(p_j - p_i)) over the pairs in which i has the larger target.

    Args:
        prediction: [N].
        target: [N].

    Returns:
        A scalar; 0 where all targets are equal.
    """
    larger = target[:, None] > target
    if not larger.any():
        return 0 * prediction.sum()
    return F.softplus(prediction - prediction[:, None])[larger].mean()


def in_order(prediction: Tensor, target: Tensor) -> float:
    """Share of the pairs with unequal targets that are predicted in their order; a tie is half."""
    larger = target[:, None] > target
    ahead = (prediction[:, None] - prediction)[larger]
    return float((ahead > 0).double().mean() + (ahead == 0).double().mean() / 2)


def share_of_ranking(error: float, unit: float) -> float:
    """The share that the ranking part has where both parts are added as they stand.

    Args:
        error: squared error of the best constant, in square hours; its ranking loss is log 2.
        unit: of the hours in the sum, in hours.
    """
    return math.log(2) / (error / unit**2 + math.log(2))


def two_parts(error: float, share: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of the hours with each part divided by its value for the best constant.

    Args:
        error: squared error of the best constant, in the square unit of the targets.
        share: of the ranking part, 0 to 1; the squared error has the rest.
    """

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        prediction = prediction.squeeze(1)
        squared, order = F.mse_loss(prediction, target), ranking(prediction, target)
        return (1 - share) * squared / error + share * order / math.log(2)

    return loss


def parts_seed(plan: PartsPlan, seed: int) -> dict[str, dict[str, float]]:
    """Case -> what the test rows say, after training all three tasks with the normalised sum.

    A case is "mix 0.5", or "unit 168" for parts that are added as they stand; then "share" is that
    of the ranking part. "hours" and "others" are shares explained, "order" is `in_order`.
    """
    train, validation, test = split(seed, plan.census)
    constant = constants(train, train)
    cases = {f"mix {share:g}": share for share in plan.mixes}
    cases |= {
        f"unit {unit:g}": share_of_ranking(100 * constant["hours"], unit) for unit in plan.units
    }
    found = {}
    for case, share in cases.items():
        tasks, model = losses(), network(seed, plan.census.width)
        tasks["hours"] = replace(tasks["hours"], loss=two_parts(constant["hours"], share))
        fit_tasks(
            model,
            tasks,
            train,
            validation,
            torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.01, fused=True),
            weighting.Fixed([1.0, *(1 / constant[name] for name in TASKS[1:])]),
            epochs=plan.census.epochs,
            patience=plan.census.patience,
            batch=plan.census.batch,
            seed=seed,
            progress=False,
        )
        score = explained(model, train, test)
        with torch.no_grad():
            predicted = model(test.x[: plan.ordered])["hours"].squeeze(1)
        others = (score["income"] + score["married"]) / 2
        row = {"share": share, "hours": score["hours"], "others": others}
        row["order"] = in_order(predicted, test.targets["hours"][: plan.ordered])
        found[case] = {name: round(value, 5) for name, value in row.items()}
    return found


def run_parts(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: PartsPlan | None = None,
) -> dict:
    """One entry per seed under "seeds", as `parts_seed` gives them, in about 4 seconds each."""
    plan, found = plan or PartsPlan(), []
    for seed in seeds:
        found.append(kept(f"{plan}, seed {seed}", parts_seed, plan, seed))
        line = ", ".join(f"{case} {row['hours']:.3f}" for case, row in found[-1].items())
        report(f"seed {seed}, hours explained: {line}")
    return {"seeds": found}


RECORDS = {"labels": ch05_labels.run, "structure": run_structure, "parts": run_parts}
