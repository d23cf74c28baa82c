"""Chapter 22: how often to draw each of five tasks whose sets differ eightyfold, at equal steps.

The tasks are to name the letters of five scripts. Which script has how many pictures turns with the
seed, so that after five seeds each has been the rare one once. Every step takes a batch of one
task. The mixtures differ in how often they take which.

`draw_sets` makes the sets, `train` is one run, `one_seed` all runs of a seed. Needs no Jupyter.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..multitask.mixtures import Mixture, mixture
from ..networks.trunks import mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from .ch16 import FACES, glyphs
from .common import seeded

SCRIPTS = ("Latin", "Greek", "Cyrillic", "Armenian", "Georgian")
TEMPERATURES = {
    "proportional": 1.0,
    "temperature 2": 2.0,
    "temperature 5": 5.0,
    "uniform": math.inf,
}
WEIGHTED = "proportional, weighted"  # drawn by size, losses weighted to be uniform on average
ALONE = "alone, uniform"  # a trunk for each task
METHODS = (*TEMPERATURES, WEIGHTED, ALONE)

Sets = dict[str, dict[str, tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Plan:
    """Sizes and settings, the same for every mixture.

    Args:
        size: pixels a side.
        classes: letters of each script.
        copies: pictures of each letter in each face, each a little moved, to draw sets from.
        sizes: training pictures of the five tasks, from the largest to the smallest.
        validation: pictures that the rate is chosen by, of each task.
        test: pictures of each task.
        width: of both layers of the trunk.
        batch: pictures per step; a smaller set is taken whole.
        stops: numbers of steps at which everything is measured.
        rates: that every mixture may try.
    """

    size: int = 12
    classes: int = 20
    copies: int = 25
    sizes: tuple[int, ...] = (2400, 800, 270, 90, 30)
    validation: int = 400
    test: int = 800
    width: int = 64
    batch: int = 32
    stops: tuple[int, ...] = (300, 1000, 3000)
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)


PLANS = {"cpu": Plan(), "gpu": Plan(width=256, stops=(300, 1000, 3000, 10_000))}


# ----------------------------------------------------------------------------------------- the sets
def pictures(plan: Plan) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Script -> its pictures [N, size ** 2], letters [N] and faces [N]."""
    made = {}
    for script in SCRIPTS:
        x, y, faces = glyphs(script, plan.copies, plan.size)
        rows = y < plan.classes
        made[script] = x[rows].flatten(1), y[rows], faces[rows]
    return made


def sizes_of(plan: Plan, seed: int) -> dict[str, int]:
    """Script -> training pictures: the sizes move on by one script from seed to seed."""
    return {script: plan.sizes[(k + seed) % len(SCRIPTS)] for k, script in enumerate(SCRIPTS)}


def draw_sets(
    plan: Plan, seed: int, made: Mapping[str, tuple[Tensor, Tensor, Tensor]] | None = None
) -> Sets:
    """Part ("train", "validation", "test") -> script -> pictures and letters.

    The parts have different faces: 6, 2 and 4 of the 12.

    Args:
        plan: of the experiment.
        seed: of faces and pictures.
        made: what `pictures` gives, where it has been called.
    """
    made, sets = made or pictures(plan), {"train": {}, "validation": {}, "test": {}}
    for k, (script, size) in enumerate(sizes_of(plan, seed).items()):
        x, y, faces = made[script]
        g = torch.Generator().manual_seed(100 * seed + k)
        some = torch.randperm(FACES, generator=g).split([6, 2, 4])
        counts = (size, plan.validation, plan.test)
        for part, count, ours in zip(sets, counts, some, strict=True):
            rows = torch.isin(faces, ours).nonzero().flatten()
            rows = rows[torch.randperm(len(rows), generator=g)[:count]]
            sets[part][script] = x[rows], y[rows]
    return sets


# --------------------------------------------------------------------------------------------- runs
def networks(plan: Plan, seed: int, alone: bool = False) -> tuple[dict, dict]:
    """Script -> trunk, which is one and the same unless alone; and script -> head."""

    def trunk():
        return nn.Sequential(*mlp([plan.size**2, plan.width, plan.width]))

    def heads():
        return {script: nn.Linear(plan.width, plan.classes) for script in SCRIPTS}

    if alone:
        trunks = {s: seeded(trunk, seed + 1000 * k) for k, s in enumerate(SCRIPTS)}
    else:
        trunks = dict.fromkeys(SCRIPTS, seeded(trunk, seed))
    return trunks, seeded(heads, seed + 50)


@torch.no_grad()
def accuracies(trunks: Mapping, heads: Mapping, sets: Mapping) -> dict[str, float]:
    """Script -> share of its pictures that are named right."""
    return {
        script: float((heads[script](trunks[script](x)).argmax(1) == y).float().mean())
        for script, (x, y) in sets.items()
    }


def train(plan: Plan, sets: Sets, method: str, rate: float, seed: int) -> list[dict]:
    """One run: SGD with momentum 0.9, one task per step.

    Args:
        plan: of the experiment.
        sets: what `draw_sets` gives.
        method: one of METHODS.
        rate: of SGD.
        seed: of the weights, of which task comes when, and of the order of the pictures.

    Returns:
        For each stop "validation" and "test": script -> accuracy.
    """
    sizes = {script: len(y) for script, (_, y) in sets["train"].items()}
    uniform = mixture(sizes, math.inf)
    shares = uniform if method == ALONE else mixture(sizes, TEMPERATURES.get(method, 1.0))
    weights = dict.fromkeys(sizes, 1.0)
    if method == WEIGHTED:
        weights = {script: uniform[script] / shares[script] for script in sizes}
    trunks, heads = networks(plan, seed, method == ALONE)
    modules = {id(m): m.to(fastest()) for m in (*trunks.values(), *heads.values())}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
    rows = Mixture(sets["train"], shares, rows=max(plan.stops) * plan.batch)
    results = []
    batches = rows.batches(plan.batch, torch.Generator().manual_seed(seed))
    for step, batch in enumerate(batches, start=1):
        ((script, (_, y)),) = batch.targets.items()
        loss = weights[script] * F.cross_entropy(heads[script](trunks[script](batch.x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in plan.stops:
            results.append(
                {part: accuracies(trunks, heads, sets[part]) for part in ("validation", "test")}
            )
    return results


def try_rates(plan: Plan, sets: Sets, method: str, seed: int) -> dict[str, dict]:
    """Steps (as text) -> "rate", of the best mean on validation, "validation" and "test" there."""
    runs = {rate: train(plan, sets, method, rate, seed) for rate in plan.rates}
    results = {}
    for k, stop in enumerate(plan.stops):
        means = {
            rate: float(np.mean(list(at[k]["validation"].values()))) for rate, at in runs.items()
        }
        best = max(means, key=means.get)
        results[str(stop)] = {"rate": best} | runs[best][k]
    return results


def one_seed(plan: Plan, seed: int, methods: Sequence[str] = METHODS) -> dict:
    """Everything of one seed: "sizes" by script, and "results": method -> `try_rates`."""
    sets = {
        part: {script: (x.to(fastest()), y.to(fastest())) for script, (x, y) in some.items()}
        for part, some in draw_sets(plan, seed).items()
    }
    return {
        "sizes": sizes_of(plan, seed),
        "results": {method: try_rates(plan, sets, method, seed) for method in methods},
    }


# ------------------------------------------------------------------------------------------ records
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, as plain JSON: what `one_seed` gives, seed by seed."""
    plan = plan or PLANS[profile]
    results = {"seeds": []}
    for seed in seeds:
        results["seeds"].append(kept(f"{profile}, seed {seed}", one_seed, plan, seed))
        rare = by_size(results["seeds"][-1:], str(min(plan.stops)))
        report(
            f"seed {seed}, smallest set: "
            + ", ".join(f"{method} {100 * row[0, -1]:.0f}" for method, row in rare.items())
        )
    return results


def by_size(seeds: Sequence[Mapping], steps: str, part: str = "test") -> dict[str, np.ndarray]:
    """Method -> accuracy [seeds, tasks], the task with the largest set first."""
    rows = {}
    for seed in seeds:
        order = sorted(seed["sizes"], key=seed["sizes"].get, reverse=True)
        for method, result in seed["results"].items():
            scores = result[steps][part]
            rows.setdefault(method, []).append([scores[script] for script in order])
    return {method: np.array(values) for method, values in rows.items()}
