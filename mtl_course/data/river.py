"""The river flow record rf1, cleaned: eight gauges as eight tasks. Chapters 1, 4 and 7 use it."""

from dataclasses import dataclass

import numpy as np

from . import door

GAUGES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
# The second gauge reads 78.9 once; the largest of its other values is 5.6.
IMPOSSIBLE = 20


@dataclass(frozen=True)
class RiverHours:
    """The hours of rf1 in which every gauge gave a possible reading.

    Args:
        x: [N, 64], the eight gauges now and up to 60 hours ago.
        y: [N, 8], each gauge 48 hours ahead; columns as in `GAUGES`.
        hour: int64 [N], the hour's place in its half of the record, gaps counted.
        half: [N], 0 in the published training half, 1 in the test half, which comes later.
    """

    x: np.ndarray
    y: np.ndarray
    hour: np.ndarray
    half: np.ndarray


def river_hours() -> RiverHours:
    """rf1 in the order of time, without missing or impossible readings.

    Raises:
        DataError: if the set cannot be had.
    """
    table = door.load("rf1")
    x, y = (np.concatenate([table[f"{name}_train"], table[f"{name}_test"]]) for name in "xy")
    counts = len(table["y_train"]), len(table["y_test"])
    hour = np.concatenate([np.arange(count) for count in counts])
    half = np.repeat([0, 1], counts)
    good = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1) & (y[:, 1] < IMPOSSIBLE)
    return RiverHours(x[good], y[good], hour[good], half[good])
