"""Chapter 7: does a measure taken before joint training predict which tasks help each other?
Schools with linear models, rivers with networks.

Both experiments keep one fixed test set; a seed draws who trains (and how networks start).
Affinities see training data only, groups and strengths are chosen on validation data, gains are
measured on the test data, once. Needs no Jupyter.
"""

from collections.abc import Sequence

from ..multitask import affinity
from ..runtime import device as fastest
from .ch07_rivers import CPU, GAUGES, PLANS, river_study
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
    "STRUCTURES",
    "hub",
    "r2",
    "river_study",
    "run",
    "school_affinities",
    "school_gains",
    "school_methods",
    "schools",
]


def run(profile: str, seeds: Sequence[int]) -> dict:
    """Both experiments as plain lists: ``cpu`` as the chapter shows them; ``gpu`` with more pupils,
    wider networks and longer training.
    """
    device = fastest()
    results = {"schools": {}, "river": {}}
    for n in (12,) if profile == "cpu" else (6, 12, 24):
        setting = None
        for structure in STRUCTURES:
            pupils = schools(seeds, n, structure, device)
            weights = school_methods(pupils)
            gains, setting = school_gains(pupils, setting)
            symmetric = affinity.both_ways(gains)
            agreement = {
                name: [affinity.rank_correlation(s, g) for s, g in zip(S, symmetric, strict=True)]
                for name, S in school_affinities(pupils, weights).items()
            }
            scores = {
                name: r2(pupils, W).tolist() for name, W in weights.items() if name != "relation"
            }
            results["schools"][f"{structure}, {n} pupils"] = {
                "r2": scores,
                "rank correlation": agreement,
                "reliability": affinity.reliability(symmetric),
            }
    study = river_study(PLANS[profile], seeds, device)
    symmetric = affinity.both_ways(study["gains"])
    results["river"] = {
        "single": study["single"].tolist(),
        "gains": study["gains"].tolist(),
        "groups": study["groups"],
        "delta_m": {way: gain.tolist() for way, gain in study["delta_m"].items()},
        "rank correlation": {
            name: [
                affinity.rank_correlation(s, g)
                for s, g in zip(affinity.both_ways(S), symmetric, strict=True)
            ]
            for name, S in study["affinities"].items()
        },
    }
    return results
