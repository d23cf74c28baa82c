"""Chapter 10: recurrent networks that share, over questions and over series. Needs no Jupyter.

`run` is speech: who speaks, from few labelled utterances, with the next frame as a second task
(`ch10_vowels`). The part "stocks" is finance: the volatility of twenty stocks over 1, 4 and 12
weeks (`ch10_stocks`); the part "heads" asks one network for level, direction and volatility
(`ch10_heads`). All train small GRUs side by side (`ch10_many`).
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..records.pieces import kept
from . import ch10_heads, ch10_stocks, ch10_vowels
from .ch10_vowels import Plan

PLANS = {"cpu": Plan(), "gpu": Plan(features=64, shots=(1, 2, 4, 8, 16), stops=(50, 100, 200, 400))}
STOCKS = ch10_stocks.Plan()


def _shots(plan: Plan, shots: int, seed: int) -> dict:
    return ch10_vowels.compare(plan, ch10_vowels.utterances(), shots, seed)


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Speech, as plain JSON.

    Returns:
        "seeds": for each seed labelled utterances per speaker -> what `ch10_vowels.compare` gives.
    """
    plan = plan or PLANS[profile]
    results = {"seeds": []}
    for seed in seeds:
        rows = {}
        for shots in plan.shots:
            key = f"{profile}, {shots} per speaker, seed {seed}"
            rows[str(shots)] = kept(key, _shots, plan, shots, seed)
            told = {way: f"{row['test']:.2f}" for way, row in rows[str(shots)].items()}
            report(f"seed {seed}, {shots} per speaker: {told}")
        results["seeds"].append(rows)
    return results


def run_stocks(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: ch10_stocks.Plan | None = None,
) -> dict:
    """Finance, as plain JSON.

    Returns:
        "seeds": a list of what `ch10_stocks.one_seed` gives.
    """
    plan = plan or STOCKS
    results = {"seeds": []}
    for seed in seeds:
        results["seeds"].append(kept(f"stocks, seed {seed}", ch10_stocks.one_seed, plan, seed))
        rows = results["seeds"][-1]["everyone"]["results"]
        told = {
            weeks: round(float(np.mean(row["errors"]["GRU, together"])), 3)
            for weeks, row in rows.items()
        }
        report(f"seed {seed}: error of the network for all, by weeks of history {told}")
    return results


def run_heads(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: ch10_stocks.Plan | None = None,
) -> dict:
    """Level, direction and volatility, as plain JSON.

    Returns:
        "seeds": a list of what `ch10_heads.three_heads` gives.
    """
    plan, series, results = plan or STOCKS, ch10_stocks.weeks(), {"seeds": []}
    for seed in seeds:
        row = kept(f"heads, seed {seed}", ch10_heads.three_heads, plan, series, seed)
        results["seeds"].append(row)
        told = {
            f"{way}, {weeks}": [round(v) for v in each[way][ch10_heads.VOLATILITY]]
            for weeks, each in row.items()
            for way in ("joint", "alone")
        }
        report(f"seed {seed}: error of the volatility, last 12 weeks = 100: {told}")
    return results


RECORDS = {"stocks": run_stocks, "heads": run_heads}
