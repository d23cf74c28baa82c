"""Chapter 4 on 20,000 people: one trunk, experts and own networks on the census of chapter 9.

Two questions about adults: who earns more than 50,000 dollars, and who never married. All methods
have the same number of parameters above the embedding. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..records.pieces import kept
from . import ch09_census
from .ch09_census import CensusPlan

METHODS = ("single", "shared", "MMoE", "PLE")
PEOPLE = 20_000
PLAN = replace(ch09_census.PLAN, sizes=(PEOPLE,))


def run_census(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: CensusPlan = PLAN
) -> dict:
    """Method -> one result per seed, as `ch09_census.one_method` gives it. Plain JSON."""
    (size,) = plan.sizes
    results = {method: [] for method in METHODS}
    for seed in seeds:
        for method, rows in results.items():
            name = f"{size} people, {method}, seed {seed}"
            rows.append(kept(name, ch09_census.one_method, method, plan, size, seed))
        shown = {m: round(100 * auc(rows[-1:])[0], 2) for m, rows in results.items()}
        report(f"seed {seed}: {shown}")
    return results


def auc(rows: Sequence[dict]) -> np.ndarray:
    """Mean AUC of the two questions on the test rows, one per seed."""
    return np.array([np.mean(list(row["test"].values())) for row in rows])
