"""Splits in time: nothing that a network learns from comes after what it is asked.

train, validation, test = split_in_time(week, cuts=[800, 1000], gap=12)
x, y, origin = windows(series, steps=26, horizons=[1, 4, 12])
scaler = Scaler(series, past=int(train[-1]) + 1)
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray


def split_in_time(time: ArrayLike, cuts: Sequence[float], gap: float = 0) -> list[NDArray]:
    """Row numbers of the parts between cuts in time, with a gap before each cut.

    A label that looks h ahead of its row needs a gap of h: then every label of a part is from
    before the cut that ends it.

    Args:
        time: [N], when each row was, in any order.
        cuts: where a new part begins, rising; a row at a cut belongs to the part after it.
        gap: the rows of so much time before a cut are in no part.

    Returns:
        One int64 array of row numbers for each part, in the order of time: one more than cuts.

    Raises:
        ValueError: if a time is not finite (it names the row), the cuts do not rise, the gap is
            negative, or a part has no row (it names the part).

    Example:
        >>> train, test = split_in_time([0, 1, 2, 3, 4, 5], cuts=[4], gap=1)
        >>> train.tolist(), test.tolist()
        ([0, 1, 2], [4, 5])
    """
    time = _times(time)
    cuts = [float(cut) for cut in cuts]
    if not cuts or any(b <= a for a, b in pairwise(cuts)):
        raise ValueError(f"cuts must rise, and there must be one at least; they are {cuts}.")
    if gap < 0:
        raise ValueError(f"gap must not be negative; it is {gap}.")
    order, parts = np.argsort(time, kind="stable"), []
    for number, (start, end) in enumerate(zip([-np.inf, *cuts], [*cuts, np.inf], strict=True)):
        inside = (time >= start) & (time < end - gap)
        parts.append(order[inside[order]])
        if not inside.any():
            raise ValueError(
                f"Part {number}, from {start:g} to {end:g} with a gap of {gap:g}, has no row; the"
                f" times run from {time.min():g} to {time.max():g}."
            )
    return parts


def rolling_origins(
    time: ArrayLike, origins: Sequence[float], gap: float = 0
) -> Iterator[tuple[NDArray, NDArray]]:
    """Training rows before each origin, and test rows from it up to the next.

    So a method is judged several times, each time on what was still ahead of it.

    Args:
        time: [N], when each row was, in any order.
        origins: rising times; the last test part runs to the end.
        gap: as in `split_in_time`.

    Returns:
        For each origin int64 row numbers to train on and to test on, in the order of time.

    Raises:
        ValueError: as from `split_in_time`.

    Example:
        >>> for train, test in rolling_origins(range(6), origins=[2, 4]):
        ...     print(train.tolist(), test.tolist())
        [0, 1] [2, 3]
        [0, 1, 2, 3] [4, 5]
    """
    split_in_time(time, origins, gap)  # refuses what it would
    for number, origin in enumerate(origins):
        before, after = split_in_time(time, [origin], gap)
        if number + 1 < len(origins):
            after = after[_times(time)[after] < origins[number + 1]]
        yield before, after


def windows(
    series: ArrayLike,
    steps: int,
    horizons: Sequence[int],
    time: ArrayLike | None = None,
) -> tuple[NDArray, NDArray, NDArray]:
    """Every stretch of a series as an input, and what came after it as its labels.

    Args:
        series: [T, D], or [T] for one column; a row per step of time.
        steps: how many rows an input has.
        horizons: how many steps after the last row of an input the labels are, 1 or more.
        time: whole numbers [T], when each row was, if rows may be missing; None if they are not.

    Returns:
        Inputs [N, steps, D], labels [N, horizons, D], and int64 [N], the number of each input's
        last row: what was known then was known up to there.

    Raises:
        ValueError: if a number is missing or infinite (it names row and column) or a time (it names
            the row after the gap), or the series is too short.

    Example:
        >>> x, y, origin = windows([10.0, 11, 12, 13, 14], steps=2, horizons=[1, 2])
        >>> x[:, :, 0].tolist()
        [[10.0, 11.0], [11.0, 12.0]]
        >>> y[:, :, 0].tolist(), origin.tolist()
        ([[12.0, 13.0], [13.0, 14.0]], [1, 2])
        >>> windows([10.0, 11, 12, 13, 14], steps=2, horizons=[1], time=[1, 2, 3, 5, 6])
        Traceback (most recent call last):
        ValueError: The series has a gap before row 3: time goes from 3 to 5. Fill it, or...
    """
    series = _columns(series)
    if steps < 1 or not len(horizons) or min(horizons) < 1:
        raise ValueError(
            f"steps and horizons must be 1 or more; they are {steps} and {list(horizons)}."
        )
    if not np.isfinite(series).all():
        row, column = np.argwhere(~np.isfinite(series))[0]
        raise ValueError(
            f"The series has {series[row, column]} in row {row}, column {column}: fill it, or make"
            " the windows of each stretch on its own."
        )
    if time is not None:
        time = _times(time)
        if len(time) != len(series):
            raise ValueError(f"There are {len(series)} rows and {len(time)} times.")
        if (jumps := np.flatnonzero(np.diff(time) != 1)).size:
            row = int(jumps[0]) + 1
            raise ValueError(
                f"The series has a gap before row {row}: time goes from {time[row - 1]:g} to"
                f" {time[row]:g}. Fill it, or make the windows of each stretch on its own."
            )
    origin = np.arange(steps - 1, len(series) - max(horizons))
    if not len(origin):
        raise ValueError(
            f"A window of {steps} steps and a horizon of {max(horizons)} need"
            f" {steps + max(horizons)} rows; the series has {len(series)}."
        )
    x = series[origin[:, None] + np.arange(1 - steps, 1)]
    y = series[origin[:, None] + np.asarray(horizons)]
    return x, y, origin


class Scaler:
    """Brings columns to mean 0 and standard deviation 1, by the past alone.

    Called with values [..., D] it scales them; `back` undoes that. What is NaN stays so and does
    not count.

    Args:
        series: [T, D], or [N, L, D] padded with NaN, in the order of time.
        past: how many of the first rows may be looked at: those of the training part.

    Raises:
        ValueError: if `past` is not 2 to the number of rows, a column has nothing in the past, or
            one that is the same everywhere there; it names the column. When called, for another
            number of columns.

    Example:
        >>> series = np.array([[1.0], [3.0], [1.0], [3.0], [99.0]])
        >>> scaler = Scaler(series, past=4)  # the last row is not known yet
        >>> scaler(series)[:, 0].tolist()
        [-1.0, 1.0, -1.0, 1.0, 97.0]
        >>> scaler.back(scaler(series))[4, 0].item()
        99.0
    """

    def __init__(self, series: ArrayLike, past: int):
        series = _columns(series)
        if not 2 <= past <= len(series):
            raise ValueError(f"past must be 2 to {len(series)}, the rows there are; it is {past}.")
        rows = series[:past].reshape(-1, series.shape[-1])
        there = np.isfinite(rows)
        counts = np.maximum(there.sum(0), 1)
        self.mean = np.where(there, rows, 0).sum(0) / counts
        apart = np.where(there, rows - self.mean, 0)
        self.deviation = np.sqrt((apart**2).sum(0) / counts)
        flat = (apart.max(0) == apart.min(0)) | (self.deviation <= 1e-12 * np.abs(self.mean))
        if flat.any():
            column = int(flat.argmax())
            raise ValueError(
                f"Column {column} is the same in all of the past, or missing there: leave it out."
            )

    def __call__(self, values: ArrayLike) -> NDArray:
        """The values in standard deviations from the mean, [..., D]."""
        return (self._fitting(values) - self.mean) / self.deviation

    def back(self, values: ArrayLike) -> NDArray:
        """Scaled values [..., D] in their own unit."""
        return self._fitting(values) * self.deviation + self.mean

    def _fitting(self, values: ArrayLike) -> NDArray:
        values = np.asarray(values, dtype=np.float64)
        if values.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"The scaler has {len(self.mean)} columns; these values have the shape"
                f" {list(values.shape)}."
            )
        return values


def _times(time: ArrayLike) -> NDArray:
    """Times as floats [N]; ValueError unless they are finite."""
    time = np.asarray(time, dtype=np.float64)
    if time.ndim != 1 or not len(time):
        raise ValueError(f"time must be one number per row; its shape is {list(time.shape)}.")
    if (bad := np.flatnonzero(~np.isfinite(time))).size:
        raise ValueError(f"Row {bad[0]} has the time {time[bad[0]]}.")
    return time


def _columns(series: ArrayLike) -> NDArray:
    """A series as floats [..., D]; one of no column [T] gets one."""
    series = np.asarray(series, dtype=np.float64)
    if series.ndim == 0:
        raise ValueError("A series needs rows; this is a single number.")
    return series[:, None] if series.ndim == 1 else series
