"""Chapter 14: Distillation and compression. Needs no Jupyter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """Size of the experiment: how many rows it trains on."""

    rows: int = 20


PLANS = {"cpu": Plan(), "gpu": Plan(rows=200)}


def error_of_the_mean(rows: int, seed: int) -> float:
    """Squared error of the mean of `rows` normal numbers, whose true mean is zero."""
    numbers = torch.randn(rows, generator=torch.Generator().manual_seed(seed))
    return float(numbers.mean() ** 2)


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment: method -> its error on every seed. Plain JSON."""
    plan = plan or PLANS[profile]
    errors = {"mean": [], "first": []}
    for seed in seeds:
        errors["mean"].append(error_of_the_mean(plan.rows, seed))
        errors["first"].append(error_of_the_mean(1, seed))
        report(f"seed {seed}: {errors['mean'][-1]:.3f}")
    return errors
