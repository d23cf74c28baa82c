"""Chapter 19: forecasting series that drift, one quarter after another.

By models that learn on, and one that does not. Needs no Jupyter.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import data
from ..streams.online import Linear, OnlineSgd, Rls, Window, prequential

# Quarters to start with, then quarters on which settings are chosen; the rest is the test.
FIRST, TUNING = 40, 60
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FORGETTING = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
WINDOWS = (15, 20, 30, 40, 60, 80, 120)


def series() -> tuple[dict[str, NDArray], NDArray]:
    """Six quarterly US series [202] from 1959's second quarter, and the quarters as years.

    All are in %; growth and inflation are annual rates.
    """
    ds = data.load("macro")
    column = dict(zip(ds.names.tolist(), np.array(ds.x).T, strict=True))
    growing = {"GDP": "realgdp", "consumption": "realcons", "investment": "realinv"}
    growing["prices"] = "cpi"
    values = {name: 400 * np.diff(np.log(column[key])) for name, key in growing.items()}
    values |= {"bill rate": column["tbilrate"][1:], "unemployment": column["unemp"][1:]}
    return values, np.array(ds.year + (ds.quarter - 1) / 4)[1:]


def inputs(values: dict[str, NDArray], name: str) -> tuple[NDArray, NDArray, float]:
    """Inputs and targets of a series' forecasts, and the unit of the targets.

    All are divided by their deviation over the first quarters; the weights zero are the forecast
    "as last time".

    Returns:
        x: [200, 8]: 1, all six series a quarter ago, this one two quarters ago.
        y: [200], its change since a quarter ago.
        unit: of y.
    """
    table = np.column_stack(list(values.values()))
    unit = table[:FIRST].std(axis=0)
    table = (table - table[:FIRST].mean(axis=0)) / unit
    own = list(values).index(name)
    x = np.column_stack([np.ones(len(table) - 2), table[1:-1], table[:-2, own]])
    return x, table[2:, own] - table[1:-1, own], unit[own]


class Static(Rls):
    """Recursive least squares that stops after its first examples."""

    def __init__(self, w: NDArray, examples: int):
        super().__init__(w)
        self.left = examples

    def learn(self, x: NDArray, y: float) -> None:
        """Learn from one example, if it is among the first."""
        if self.left > 0:
            super().learn(x, y)
        self.left -= 1


def learners(d: int) -> dict[str, dict[float, Callable[[], Linear]]]:
    """Name -> setting -> a fresh learner.

    All start from weights zero, the forecast "as last time".
    """
    w = np.zeros(d)
    return {
        "as last time": {0: lambda: Linear(w)},
        "static": {FIRST: lambda: Static(w, FIRST)},
        "newest 40": {FIRST: lambda: Window(w, FIRST)},
        "gradient steps": {rate: lambda rate=rate: OnlineSgd(w, rate) for rate in RATES},
        "least squares": {factor: lambda factor=factor: Rls(w, factor) for factor in FORGETTING},
        "window": {length: lambda length=length: Window(w, length) for length in WINDOWS},
    }


def compare(name: str) -> dict[str, dict]:
    """Learner -> "errors" of the test in %, their "rmse", the "setting" and its "tuning".

    The setting is the one with the least RMSE in the tuning quarters, and "tuning" has all of
    these. "mean so far" forecasts the mean of all earlier values: the other forecast that needs no
    model.
    """
    values, _ = series()
    x, y, unit = inputs(values, name)
    start, end = FIRST - 2, FIRST + TUNING - 2  # the first forecast is for the third quarter
    results = {}
    for learner, settings in learners(x.shape[1]).items():
        errors = {setting: unit * prequential(fresh(), x, y) for setting, fresh in settings.items()}
        tried = {setting: rmse(e[start:end]) for setting, e in errors.items()}
        best = min(tried, key=tried.get)
        results[learner] = {
            "setting": best,
            "tuning": tried,
            "errors": errors[best][end:],
            "rmse": rmse(errors[best][end:]),
        }
    level = values[name]
    so_far = (np.cumsum(level) / np.arange(1, len(level) + 1))[1:-1]
    errors = (level[2:] - so_far)[end:]
    mean = {"setting": 0, "tuning": {}, "errors": errors, "rmse": rmse(errors)}
    return results | {"mean so far": mean}


def rmse(errors: NDArray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))
