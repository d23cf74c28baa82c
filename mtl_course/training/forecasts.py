"""Forecasts: what is to be said at several horizons, and whether one forecast beats another."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def means_ahead(series: ArrayLike, horizons: Sequence[int]) -> NDArray:
    """The mean of the next h values after each row, for every horizon h.

    Where the series ends before the horizon does, the label is not known yet: it is NaN.

    Args:
        series: [T, ...], a row per step of time, without gaps.
        horizons: whole numbers of steps, 1 or more.

    Returns:
        float64 [T, ..., H], a label for each horizon.

    Raises:
        ValueError: for a horizon below 1 or none, and if a number is missing or infinite; it names
            the row; if there is none.

    Example:
        >>> means_ahead([1.0, 2.0, 4.0, 6.0], horizons=[1, 2]).tolist()
        [[2.0, 3.0], [4.0, 5.0], [6.0, nan], [nan, nan]]
    """
    series = np.asarray(series, dtype=np.float64)
    horizons = list(horizons)
    if not horizons or not all(float(h).is_integer() and h >= 1 for h in horizons):
        raise ValueError(f"horizons must be whole numbers, 1 or more; they are {horizons}.")
    if series.ndim == 0 or not series.size:
        raise ValueError(f"A series needs rows and columns; its shape is {list(series.shape)}.")
    bad = ~np.isfinite(series.reshape(len(series), -1)).all(1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"The series has a gap or an infinite number in row {row}: fill it, or cut the series"
            " there."
        )
    labels = np.full((*series.shape, len(horizons)), np.nan)
    for k, h in enumerate(int(h) for h in horizons):
        rows = len(series) - h
        if rows > 0:
            windows = np.lib.stride_tricks.sliding_window_view(series[1:], h, axis=0)
            labels[:rows, ..., k] = windows.mean(-1)
    return labels


def diebold_mariano(first: ArrayLike, second: ArrayLike, horizon: int = 1) -> tuple[float, float]:
    """Test whether the first forecast loses less than the second, beyond chance.

    The mean of the differences over its standard error. Forecasts h steps ahead made at
    neighbouring times share h - 1 steps of the future, so the error counts the differences'
    autocovariances up to lag h - 1, in Bartlett's weights, which keep it positive.

    Args:
        first: losses [N] of the first forecast, in the order of time.
        second: losses [N] of the second, at the same times.
        horizon: h, whole steps, 1 to N - 1.

    Returns:
        The statistic, negative where the first loses less, with the correction for few times; and
        its two-sided p-value by Student's t with N - 1 degrees. If the two never differ, 0 and 1.

    Raises:
        ValueError: for losses of other shapes or fewer than two, one that is not finite (it names
            the row), a horizon that is not 1 to N - 1, and differences that are all the same, but
            not 0, which have no spread to compare with.

    Source:
        Diebold and Mariano, "Comparing Predictive Accuracy", Journal of Business & Economic
        Statistics 13(3), 1995; the correction and t: Harvey, Leybourne and Newbold, "Testing the
        equality of prediction mean squared errors", International Journal of Forecasting 13(2),
        1997, equation 9; the weights: Newey and West, Econometrica 55(3), 1987.

    Example:
        >>> statistic, p = diebold_mariano([1.0, 2.0, 1.0, 2.0], [2.0, 2.0, 3.0, 3.0])
        >>> round(statistic, 3), round(p, 3)
        (-2.449, 0.092)
    """
    first, second = (np.asarray(losses, dtype=np.float64) for losses in (first, second))
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "Losses must be two series of the same two or more times; they have the shapes"
            f" {list(first.shape)} and {list(second.shape)}."
        )
    if (bad := ~np.isfinite(first) | ~np.isfinite(second)).any():
        row = int(bad.argmax())
        raise ValueError(f"Row {row} has the losses {first[row]} and {second[row]}.")
    N = len(first)
    if not float(horizon).is_integer() or not 1 <= horizon < N:
        raise ValueError(f"horizon must be a whole number, 1 to {N - 1}; it is {horizon}.")
    h, d = int(horizon), first - second
    if not d.any():
        return 0.0, 1.0
    d = d / np.abs(d).max()
    apart = d - d.mean()
    if np.abs(apart).max() <= 1e-12:
        raise ValueError("Every difference is the same: there is no spread to compare it with.")
    variance = sum(
        (1 if k == 0 else 2 * (1 - k / h)) * float(apart[k:] @ apart[: N - k]) / N for k in range(h)
    )
    correction = max(N + 1 - 2 * h + h * (h - 1) / N, 0.0) / N
    statistic = float(d.mean() / np.sqrt(variance / N) * np.sqrt(correction))
    return statistic, float(2 * stats.t.sf(abs(statistic), N - 1))
