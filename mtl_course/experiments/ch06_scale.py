"""Chapters 5 and 6: two digits in one image, and one of the two losses in an unknown unit.

The left digit's loss is multiplied by a factor that no method is told. A sum that searches its
weights is the baseline: nine runs, of which validation images choose. Every other method gets one
run, as it comes, at the same rate. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..data.batches import Table
from ..multitask import balancing, weighting
from ..multitask.fit import evaluate_tasks
from ..records.pieces import kept
from .ch06_digits import CPU, TASKS, Plan, fit, network, tables, test_accuracy

SEARCH = "sum, searched"
WEIGHTINGS = ("sum", "uncertainty", "by the first loss", "geometric mean", "DWA", "FAMO")
SURGERY = ("mgda", "pcgrad", "cagrad", "upgrad", "imtl_g", "aligned_mtl", "nash_mtl")


@dataclass(frozen=True)
class ScalePlan:
    """Sizes of the experiment.

    Args:
        digits: sizes of data, network and training.
        factors: what the left digit's loss is multiplied by.
        rate: of Adam, for every run.
        weights: of the left digit's loss that the searched sum tries; the right one's is 1.
        alphas: of FairGrad; 1 is Nash-MTL, and among the methods of the comparison.
    """

    digits: Plan = field(default_factory=lambda: CPU)
    factors: tuple[float, ...] = (1.0, 30.0, 1000.0)
    rate: float = 10**-2.5
    weights: tuple[float, ...] = tuple(10.0**k for k in range(-6, 3))
    alphas: tuple[float, ...] = (0.5, 2.0, 5.0)


def first_losses(
    plan: ScalePlan, seed: int, parts: Mapping[str, Table], factor: float
) -> list[float]:
    """Training loss of each task before the first step, the left one times the factor."""
    losses, _ = evaluate_tasks(network(plan.digits, seed), TASKS, parts["train"])
    return [factor * losses["left"], losses["right"]]


def combination(
    method: str, plan: ScalePlan, seed: int, parts: Mapping[str, Table], factor: float
) -> weighting.Weighting | Callable:
    """What a method combines the losses or gradients with, in the setting it comes with."""
    if method == "by the first loss":
        return weighting.Fixed([1 / loss for loss in first_losses(plan, seed, parts, factor)])
    if method in WEIGHTINGS:
        return {
            "sum": weighting.EqualWeights,
            "uncertainty": lambda: weighting.Uncertainty([False, False]),
            "geometric mean": weighting.GeometricMean,
            "DWA": weighting.DWA,
            "FAMO": lambda: weighting.FAMO(tasks=2),
        }[method]()
    return balancing.method(method, seed)


def one_seed(plan: ScalePlan, factor: float, seed: int) -> dict:
    """Method -> test accuracy of each task and their mean, in per cent; which weight the search
    took, and how often a method failed to end its run ("diverged").
    """
    parts = tables(plan.digits, seed)

    def judged(combine) -> tuple[float, dict[str, float]]:
        return _judged(combine, plan, seed, parts, factor)

    runs = [judged(weighting.Fixed([w, 1.0])) for w in plan.weights]
    chosen = max(range(len(runs)), key=lambda k: runs[k][0])
    rows = {SEARCH: runs[chosen][1]}
    for method in (*WEIGHTINGS, *SURGERY):
        _, rows[method] = judged(combination(method, plan, seed, parts, factor))
    return {"accuracy": rows, "weight": plan.weights[chosen]}


def _judged(
    combine: weighting.Weighting | Callable,
    plan: ScalePlan,
    seed: int,
    parts: Mapping[str, Table],
    factor: float,
) -> tuple[float, dict[str, float]]:
    """Validation accuracy of one run, and its test accuracies in per cent, with their mean."""
    model, validation = fit(combine, plan.rate, plan.digits, seed, parts, factor)
    right = {task: 100 * a for task, a in test_accuracy(model, parts).items()}
    right["mean"] = float(np.mean(list(right.values())))
    return validation, {task: round(value, 3) for task, value in right.items()}


def fair_seed(plan: ScalePlan, factor: float, seed: int) -> dict[str, dict[str, float]]:
    """alpha of FairGrad (as text) -> test accuracy of each task and their mean, in per cent."""
    parts = tables(plan.digits, seed)
    rows = {}
    for alpha in plan.alphas:
        combine = partial(balancing.fairgrad, alpha=alpha)
        _, rows[f"{alpha:g}"] = _judged(combine, plan, seed, parts, factor)
    return rows


def run(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: ScalePlan | None = None,
) -> dict:
    """Factor (as text) -> one entry per seed, as `one_seed` gives them. Plain JSON.

    About 20 seconds per seed and factor on one thread.
    """
    plan = plan or ScalePlan()
    results = {f"{factor:g}": [] for factor in plan.factors}
    for seed in seeds:
        for factor in plan.factors:
            piece = kept(f"{plan}, {factor:g}, seed {seed}", one_seed, plan, factor, seed)
            results[f"{factor:g}"].append(piece)
            means = {m: row["mean"] for m, row in piece["accuracy"].items()}
            line = ", ".join(f"{method} {mean:.1f}" for method, mean in means.items())
            report(f"seed {seed}, left loss x {factor:g}: {line}")
    return results


def run_fair(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: ScalePlan | None = None,
) -> dict:
    """Factor (as text) -> one entry per seed, as `fair_seed` gives them. Plain JSON.

    The runs of `run`, with FairGrad; about three seconds per seed and factor on one thread.
    """
    plan = plan or ScalePlan()
    results = {f"{factor:g}": [] for factor in plan.factors}
    for seed in seeds:
        for factor in plan.factors:
            piece = kept(f"{plan}, fair, {factor:g}, seed {seed}", fair_seed, plan, factor, seed)
            results[f"{factor:g}"].append(piece)
            line = ", ".join(f"alpha {alpha} {row['mean']:.1f}" for alpha, row in piece.items())
            report(f"seed {seed}, left loss x {factor:g}: {line}")
    return results
