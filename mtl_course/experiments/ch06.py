"""Chapter 6: gradient surgery against the tuned sum, on two digits in one image.

Also: how often gradients conflict, and what each method promises. Every method gets the same number
of trials on validation data. A trial is one training run; the sum spends its trials on task weights
and learning rate, CAGrad on its radius and learning rate, the others on the learning rate alone.
Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .. import records
from ..multitask import balancing
from ..multitask.backward import balanced_backward
from ..records.pieces import kept
from ..runtime import device as fastest
from . import ch06_scale
from .ch06_digits import (
    CPU,
    GPU,
    PLANS,
    SURGERY,
    TASKS,
    Plan,
    best,
    combiner,
    half_cost,
    network,
    of_width,
    search,
    tables,
    test_accuracy,
    train,
    trials,
)

__all__ = [
    "CPU",
    "GPU",
    "PAIRS",
    "PLANS",
    "PROMISES",
    "RECORDS",
    "SURGERY",
    "TASKS",
    "Plan",
    "best",
    "combiner",
    "compare",
    "conflicts",
    "further",
    "half_cost",
    "mean_accuracy",
    "network",
    "of_width",
    "promises",
    "rescaled",
    "room",
    "run",
    "run_further",
    "run_room",
    "search",
    "steady",
    "tables",
    "test_accuracy",
    "train",
    "trials",
    "weights",
]


def compare(
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> dict[str, dict]:
    """Every method with its trials, chosen on validation data and looked at once on test data.

    Three sums: "sum" spends its trials on three ratios of the weights and three rates, "sum, equal
    weights" all of them on the rate, as the methods of surgery do, and "sum, all" has three times
    as many, every ratio with every rate. "single task" is one network per task, each with trials of
    its own.

    Returns:
        Method -> lists with one value per seed (two for "single task"): "setting", the chosen one;
        "validation", the accuracies of all trials; and the test accuracy of each task.
    """
    names = ("single task", "sum", "sum, equal weights", "sum, all", *SURGERY)
    rows = {method: {"setting": [], "validation": [], "left": [], "right": []} for method in names}
    few = trials("sum", plan)
    for seed in seeds:
        parts = tables(plan, seed, device)
        for task in TASKS:
            _add(rows["single task"], search(task, plan, seed, parts), parts)
        for method in ("sum, all", *SURGERY):
            runs = search(method, plan, seed, parts)
            _add(rows[method], runs, parts)
            if method == "sum, all":
                equal = [run for run in runs if run["setting"]["ratio"] == 1]
                _add(rows["sum, equal weights"], equal, parts)
                _add(rows["sum"], [run for run in runs if run["setting"] in few], parts)
        last = {
            method: np.mean([row["left"][-1], row["right"][-1]]) for method, row in rows.items()
        }
        line = ", ".join(f"{method} {accuracy:.3f}" for method, accuracy in last.items())
        report(f"seed {seed}: {line}")
    return rows


def _add(row, runs, parts):
    """Choose among a method's trials of one seed, and add what it reaches to the method's row."""
    chosen = best(runs)
    row["setting"].append(chosen["setting"])
    row["validation"].append([run["validation"] for run in runs])
    for task, accuracy in test_accuracy(chosen["model"], parts).items():
        row[task].append(accuracy)


def mean_accuracy(row: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Mean test accuracy over the two tasks, one value per seed."""
    return (np.array(row["left"]) + np.array(row["right"])) / 2


# ------------------------------------------------------------------------ the same on further seeds
def steady(rows: Mapping[str, dict], plan: Plan) -> dict[str, dict]:
    """Method -> the trial with the best validation accuracy in the mean over a comparison's seeds.

    Args:
        rows: as `compare` gives them.
        plan: its plan.
    """
    return {
        method: trials(method, plan)[int(np.mean(row["validation"], axis=0).argmax())]
        for method, row in rows.items()
        if method not in ("single task", "sum, all")
    }


def further(
    settings: Mapping[str, Mapping[str, float]],
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> dict[str, dict]:
    """Test accuracies, method -> task, of methods whose settings were chosen on other seeds.

    Args:
        settings: method -> its setting, as `steady` gives them.
        plan: sizes.
        seeds: not among those that the settings were chosen on.
        device: where to train.
        report: called with a line per seed.
    """
    rows = {method: {"left": [], "right": []} for method in settings}
    for seed in seeds:
        parts = tables(plan, seed, device)
        for method, setting in settings.items():
            model, _ = train(method, setting, plan, seed, parts)
            for task, accuracy in test_accuracy(model, parts).items():
                rows[method][task].append(accuracy)
        line = ", ".join(f"{m} {(r['left'][-1] + r['right'][-1]) / 2:.3f}" for m, r in rows.items())
        report(f"seed {seed}: {line}")
    return rows


# ------------------------------------------------------------------------------- what room is worth
def room(
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> dict[str, dict]:
    """The plain sum, with every rate as a trial, in networks with more or less room.

    "sum, equal weights" is the joint network of `compare`; "sum, twice as wide" has a trunk of
    twice the width; "single task, same cost" are two networks that have together no more parameters
    than the joint one; "single task" two as large as it.

    Returns:
        As `compare`.
    """
    half, wide = half_cost(plan), of_width(plan, 2 * plan.features)
    kinds = {
        "sum, equal weights": [("sum, equal weights", plan)],
        "sum, twice as wide": [("sum, equal weights", wide)],
        "single task, same cost": [(task, half) for task in TASKS],
        "single task": [(task, plan) for task in TASKS],
    }
    rows = {kind: {"setting": [], "validation": [], "left": [], "right": []} for kind in kinds}
    for seed in seeds:
        parts = tables(plan, seed, device)
        for kind, searches in kinds.items():
            for method, its_plan in searches:
                _add(rows[kind], search(method, its_plan, seed, parts), parts)
        line = ", ".join(
            f"{kind} {(row['left'][-1] + row['right'][-1]) / 2:.3f}" for kind, row in rows.items()
        )
        report(f"seed {seed}: {line}")
    return rows


# ----------------------------------------------------------------------------- the unit of one loss
def rescaled(
    rows: Mapping[str, dict],
    plan: Plan,
    seeds: Sequence[int],
    factor: float = 100.0,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> dict[str, dict]:
    """Test accuracies, method -> task, when the left digit's loss is multiplied by `factor`.

    Everything else stays as it was chosen without: `rows` are those of `compare`.
    """
    results = {method: {"left": [], "right": []} for method in ("sum", *SURGERY)}
    for k, seed in enumerate(seeds):
        parts = tables(plan, seed, device)
        for method, row in results.items():
            model, _ = train(method, rows[method]["setting"][k], plan, seed, parts, factor)
            for task, accuracy in test_accuracy(model, parts).items():
                row[task].append(accuracy)
        left = ", ".join(f"{method} {row['left'][-1]:.3f}" for method, row in results.items())
        report(f"seed {seed}, left loss x {factor:g}, left digit: {left}")
    return results


# ---------------------------------------------------------------------- how often do they conflict?
PAIRS = {"two tasks": (0, 1), "two tasks, other images": (0, 3), "same task, other images": (0, 2)}


def conflicts(
    plan: Plan, seed: int, rate: float, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Cosines between gradients of the trunk, step by step, while the plain sum trains it.

    Each batch is cut into halves A and B, and the step's four gradients are those of left on A,
    right on A, left on B, right on B. So "two tasks" and "same task, other images" are measured
    with the same number of images. "epoch": the two tasks' cosine over the whole training set,
    after every epoch.
    """
    table = tables(plan, seed, device)["train"]
    model = network(plan, seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    order = torch.Generator().manual_seed(seed)
    cosines = {name: [] for name in (*PAIRS, "epoch")}

    def note_and_add_up(G: Tensor) -> Tensor:
        norms = G.diagonal().sqrt()
        between = G / norms.outer(norms)
        for name, (i, j) in PAIRS.items():
            cosines[name].append(float(between[i, j]))
        return G.new_full((4,), 0.5)  # halves of a batch: together its plain sum

    for _ in range(plan.epochs):
        for batch in table.batches(plan.batch, order):
            optimizer.zero_grad()
            balanced_backward(
                model.trunk(batch.x),
                _halves(model, batch),
                model.trunk.parameters(),
                note_and_add_up,
            )
            optimizer.step()
        G = _whole(model, table)
        cosines["epoch"].append(float(G[0, 1] / (G[0, 0] * G[1, 1]).sqrt()))
        optimizer.zero_grad()
    return cosines


def _loss(model, name, y, rows, z):
    return TASKS[name].loss(model.heads[name](z[rows]), y[rows])


def _halves(model, batch):
    """Losses of left on A, right on A, left on B and right on B, as functions of the features."""
    half = len(batch.x) // 2
    return {
        f"{name} {part}": partial(_loss, model, name, batch.targets[name][1], rows)
        for part, rows in (("A", slice(None, half)), ("B", slice(half, None)))
        for name in TASKS
    }


def _whole(model, table):
    """The Gram matrix [2, 2] of the tasks' gradients over all of a table."""
    whole, everything = table.whole(), slice(None)
    losses = {
        name: partial(_loss, model, name, whole.targets[name][1], everything) for name in TASKS
    }
    balanced = balanced_backward(
        model.trunk(whole.x), losses, model.trunk.parameters(), lambda G: G.new_ones(len(G))
    )
    return balanced.gram


# ----------------------------------------------------------------------------- what methods promise
def weights(method: str, G: Tensor) -> Tensor:
    """The method's weights, PCGrad's with the orders of a fixed seed; "sum" has ones."""
    if method == "sum":
        return torch.ones(len(G), dtype=torch.float64)
    return balancing.method(method)(G)


def _random(rng, tasks, size):
    return torch.from_numpy(rng.normal(size=(tasks, size)))


def _awkward(rng, tasks):
    """Gradients [tasks, P] of any kind.

    More tasks than directions, scales apart, one parallel or opposite to another.
    """
    J = _random(rng, tasks, int(rng.choice([tasks // 2 + 1, 2 * tasks])))
    J = J * torch.from_numpy(10 ** rng.uniform(-3, 3, size=(tasks, 1)) ** rng.integers(2))
    kind = rng.choice([0.0, 3.0, -2.0])
    if kind:
        J[0] = kind * J[1]
    return J


@dataclass(frozen=True)
class Case:
    """Gradients [tasks, P], each made to put a promise to the test.

    Args:
        general: in general position.
        pair: two of them, one longer.
        awkward: of any kind.
        reordered: `general` in another order.
        scaled: `general` with the first a thousand times longer or shorter.
        agreeing: none conflicts with another.
        stuck: hardly any direction is left that improves every task.
    """

    general: Tensor
    pair: Tensor
    awkward: Tensor
    reordered: Tensor
    scaled: Tensor
    agreeing: Tensor
    stuck: Tensor


def random_case(rng: np.random.Generator) -> Case:
    """One case of three to six tasks."""
    tasks = int(rng.integers(3, 7))
    J, awkward = _random(rng, tasks, tasks + 1), _awkward(rng, tasks)
    pair = _random(rng, 2, 4) * torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    order = torch.from_numpy(rng.permutation(tasks))
    scaled = torch.cat([1000.0 ** rng.choice([-1, 1]) * J[:1], J[1:]])
    agreeing = _random(rng, tasks, 2 * tasks).abs()
    # A positive combination of these gradients is zero, but for a little noise.
    p = torch.from_numpy(rng.uniform(0.2, 1, size=tasks))
    stuck = torch.cat([J[1:], -(p[1:] @ J[1:] / p[0])[None]])
    stuck = stuck + 1e-4 * _random(rng, *stuck.shape)
    return Case(J, pair, awkward, J[order], scaled, agreeing, stuck)


def _update(method: str, J: Tensor) -> Tensor:
    """The method's update direction [P] for gradients J [tasks, P]."""
    return weights(method, J @ J.T) @ J


def _conflicts_with_none(method: str, J: Tensor) -> bool:
    """Whether the update's dot products with all gradients are not below 0, up to rounding."""
    G = J @ J.T
    w = weights(method, G)
    norms = G.diagonal().sqrt()
    return float(((G @ w) / norms).min() / (w.abs() * norms).sum()) > -1e-7


def _same_direction(one: Tensor, other: Tensor) -> bool:
    return float((one / one.norm() - other / other.norm()).norm()) < 1e-3


def no_conflict_two(method: str, case: Case) -> bool:
    """For two tasks the update has no negative dot product with a gradient."""
    return _conflicts_with_none(method, case.pair)


def no_conflict_any(method: str, case: Case) -> bool:
    """For any number of gradients of any kind it has none."""
    return _conflicts_with_none(method, case.awkward) and _conflicts_with_none(method, case.scaled)


def any_order(method: str, case: Case) -> bool:
    """The direction does not change if the tasks are reordered."""
    return _same_direction(_update(method, case.general), _update(method, case.reordered))


def scale_free(method: str, case: Case) -> bool:
    """The direction does not change if one loss is multiplied by 1,000 or a thousandth."""
    return _same_direction(_update(method, case.general), _update(method, case.scaled))


def sum_if_none_conflicts(method: str, case: Case) -> bool:
    """Where no gradients conflict, the update points where the plain sum does."""
    return _same_direction(_update(method, case.agreeing), case.agreeing.sum(0))


def rests_on_the_front(method: str, case: Case) -> bool:
    """Where hardly any direction is left that improves every task, the update is short."""
    mean_length = case.stuck.norm(dim=1).mean()
    return float(_update(method, case.stuck).norm() / mean_length) < 0.02


PROMISES: dict[str, Callable[[str, Case], bool]] = {
    "no conflict, 2 tasks": no_conflict_two,
    "no conflict, any": no_conflict_any,
    "any order": any_order,
    "scale-free": scale_free,
    "sum if none conflicts": sum_if_none_conflicts,
    "rests on the front": rests_on_the_front,
}


def promises(rounds: int = 40, seed: int = 0) -> dict[str, dict[str, float]]:
    """Method -> promise -> share of random cases in which it is kept.

    1 is no proof (those are in the tests); less than 1 is a disproof. The functions in `PROMISES`
    say what is promised.
    """
    rng = np.random.default_rng(seed)
    cases = [random_case(rng) for _ in range(rounds)]
    return {
        method: {
            name: float(np.mean([kept(method, case) for case in cases]))
            for name, kept in PROMISES.items()
        }
        for method in ("sum", *balancing.METHODS)
    }


# ------------------------------------------------------------------------------------- for a record
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Accuracies, accuracies with another unit, and conflicts by seed. Plain JSON.

    On one CPU core ``cpu`` takes about a minute per seed; each seed is a piece of the record.
    """
    plan, device = plan or PLANS[profile], fastest()
    results = {"accuracy": {}, "left loss x 100": {}, "conflicts": {}}
    for seed in seeds:
        piece = kept(f"{plan}, seed {seed}", _one_seed, plan, seed, device, report)
        for name in ("accuracy", "left loss x 100"):
            _append(results[name], piece[name])
        results["conflicts"][str(seed)] = piece["conflicts"]
    return results


def _one_seed(plan: Plan, seed: int, device: torch.device, report: Callable) -> dict:
    """What `run` gives, of one seed."""
    accuracy = compare(plan, [seed], device, report)
    scaled = rescaled(accuracy, plan, [seed], 100.0, device, report)
    cosines = conflicts(plan, seed, plan.rates[len(plan.rates) // 2], device)
    share = np.mean(np.array(cosines["two tasks"]) < 0)
    report(f"seed {seed}: the two tasks' gradients conflict in {share:.0%} of the steps")
    rounded = {name: np.round(values, 4).tolist() for name, values in cosines.items()}
    return {"accuracy": accuracy, "left loss x 100": scaled, "conflicts": rounded}


def run_room(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = CPU
) -> dict:
    """Accuracies of `room`, in about ten seconds per seed on one CPU core. Plain JSON."""
    accuracy = {}
    for seed in seeds:
        piece = kept(f"{plan}, room, seed {seed}", room, plan, [seed], fastest(), report)
        _append(accuracy, piece)
    return {"accuracy": accuracy}


def run_further(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = CPU
) -> dict:
    """Accuracies of `further`, with the settings of the cpu record. Plain JSON.

    Raises:
        ValueError: a seed is among those of that record, on which the settings were chosen.
    """
    chosen_on = records.load("06", "cpu")
    if both := sorted(set(seeds) & set(chosen_on.provenance["seeds"])):
        raise ValueError(f"the settings were chosen on the seeds {both}; take others")
    settings = steady(chosen_on.results["accuracy"], CPU)
    accuracy = {}
    for seed in seeds:
        key = f"{plan}, {settings}, seed {seed}"
        _append(accuracy, kept(key, further, settings, plan, [seed], fastest(), report))
    return {"settings": settings, "accuracy": accuracy}


def _append(rows: dict, piece: Mapping[str, Mapping[str, list]]) -> None:
    """Add the values of one seed to the rows of all, in place."""
    for method, row in piece.items():
        whole = rows.setdefault(method, {column: [] for column in row})
        for column, values in row.items():
            whole[column] += values


# Written by ``python -m mtl_course.record 06 --part room --seeds 10``, ``--part further --seeds
# 20:40``, ``--part scale --seeds 10`` and ``--part fair --seeds 10``.
RECORDS = {
    "room": run_room,
    "further": run_further,
    "scale": ch06_scale.run,
    "fair": ch06_scale.run_fair,
}
