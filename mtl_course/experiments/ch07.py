"""Chapter 7: does a measure taken before joint training predict which tasks help each other?

On schools with linear models (`ch07_schools`) and on rivers with networks (`ch07_rivers`). Both
experiments keep one fixed test set; a seed draws who trains, and how networks start. Affinities see
training data only, groups and strengths are chosen on validation data, gains are measured on the
test data, once. `ch07_clients` is a third one, with tasks of three kinds. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.river import GAUGES
from ..multitask import affinity
from ..runtime import device as fastest
from . import ch07_clients, ch07_rivers
from .ch07_rivers import CPU, river_study
from .ch07_schools import (
    STRUCTURES,
    hub,
    r2,
    school_affinities,
    school_gains,
    school_methods,
    schools,
)

__all__ = [
    "CPU",
    "GAUGES",
    "PLANS",
    "RECORDS",
    "STRUCTURES",
    "Plan",
    "hub",
    "r2",
    "river_study",
    "run",
    "school_affinities",
    "school_gains",
    "school_methods",
    "schools",
]


@dataclass(frozen=True)
class Plan:
    """Sizes of both experiments.

    Args:
        pupils: training pupils per school, one comparison for each number.
        rivers: sizes of the experiment with networks.
    """

    pupils: tuple[int, ...]
    rivers: ch07_rivers.Plan


PLANS = {
    "cpu": Plan((12,), ch07_rivers.PLANS["cpu"]),
    "gpu": Plan((6, 12, 24), ch07_rivers.PLANS["gpu"]),
}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Both experiments: "schools", by structure and pupils, and "river". Plain JSON.

    ``cpu`` is what the chapter shows, in about two seconds per draw on one core; ``gpu`` has more
    pupils, wider networks and longer training. Affinities of the rivers are means of the draws.
    """
    plan, device = plan or PLANS[profile], fastest()
    results = {"schools": {}}
    for n in plan.pupils:
        results["schools"] |= _with_pupils(n, seeds, device, report)
    study = river_study(plan.rivers, seeds, device, report)
    symmetric = affinity.both_ways(study["gains"])
    measures = {name: affinity.both_ways(S) for name, S in study["affinities"].items()}
    results["river"] = {
        "single": _rounded(study["single"]),
        "gains": _rounded(study["gains"]),
        "groups": study["groups"],
        "delta_m": {way: _rounded(gain) for way, gain in study["delta_m"].items()},
        "affinities": {name: _rounded(S.mean(0)) for name, S in measures.items()},
        "rank correlation": _agreement(measures, symmetric),
    }
    return results


def _rounded(values: np.ndarray) -> list:
    """As lists of numbers with as many decimals as mean something."""
    return np.round(values, 4).tolist()


def _with_pupils(n: int, seeds: Sequence[int], device: torch.device, report: Callable) -> dict:
    """The schools with n training pupils each, under every structure."""
    rows, setting = {}, None
    for structure in STRUCTURES:
        pupils = schools(seeds, n, structure, device)
        weights = school_methods(pupils)
        gains, setting = school_gains(pupils, setting)
        symmetric = affinity.both_ways(gains)
        scores = {name: r2(pupils, W) for name, W in weights.items() if name != "relation"}
        case = f"{structure}, {n} pupils"
        rows[case] = {
            "r2": {name: values.tolist() for name, values in scores.items()},
            "rank correlation": _agreement(school_affinities(pupils, weights), symmetric),
            "reliability": affinity.reliability(symmetric),
        }
        line = ", ".join(f"{name} {values.mean():.3f}" for name, values in scores.items())
        report(f"schools, {case}: R2 {line}")
    return rows


def _agreement(affinities: Mapping[str, np.ndarray], gains: np.ndarray) -> dict[str, list[float]]:
    """Measure -> its rank correlation with the gains, one value per draw; all [S, T, T]."""
    return {
        name: [affinity.rank_correlation(s, g) for s, g in zip(S, gains, strict=True)]
        for name, S in affinities.items()
    }


RECORDS = {"clients": ch07_clients.run}
