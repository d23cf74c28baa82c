"""An alarm for drift: are the requests of today like those that the model was accepted on?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Smoothed share of the values in each bin, as if each bin had half a value more."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return (counts + 0.5) / (len(values) + 0.5 * len(counts))


def _edges(reference: np.ndarray, bins: int) -> np.ndarray:
    """Inner edges of bins with nearly equal shares of the reference; classes are bins already."""
    if reference.dtype.kind in "iub":
        return np.unique(reference)[1:]
    return np.unique(np.quantile(reference, np.arange(1, bins) / bins))


def _column(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} is a row of at least one value, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite.")
    return values


def psi(reference: ArrayLike, window: ArrayLike, bins: int = 10) -> float:
    """Population stability index: how far the shares of some bins have moved.

    With shares p of the reference and q of the window it is the sum over bins of
    (q - p) log(q / p), which is 0 where they agree. Bins hold nearly equal shares of the reference;
    whole numbers are classes, each a bin. Each bin counts half a value more than it has, so that an
    empty one is no infinity. Without drift, n values against m are expected to score about
    (bins - 1) (1 / n + 1 / m).

    Args:
        reference: [m], numbers or whole numbers of classes.
        window: [n].
        bins: for numbers.

    Returns:
        The index, at least 0.

    Raises:
        ValueError: for an empty or not finite one, or fewer than 2 bins.

    Source:
        Yurdakul, "Statistical properties of population stability index", Dissertation 3208, Western
        Michigan University, 2018.

    Example:
        >>> round(psi([0, 0, 1, 1], [0, 0, 1, 1]), 3)
        0.0
        >>> round(psi([0] * 50 + [1] * 50, [0] * 10 + [1] * 90), 2)
        0.85
    """
    if bins < 2:
        raise ValueError(f"An index needs at least 2 bins, not {bins}.")
    reference, window = _column(reference, "The reference"), _column(window, "The window")
    edges = _edges(reference, bins)
    p, q = _shares(reference, edges), _shares(window, edges)
    return float(((q - p) * np.log(q / p)).sum())


class DriftAlarm:
    """Rings when a window of requests is more unlike the reference than chance makes it.

    The score of a window is the largest `psi` of its signals. The line is a quantile of the scores
    of windows that have not drifted, drawn from rows that the reference does not have.

    Args:
        reference: signal -> [m], values that the model was accepted with.
        calibration: signal -> [k], others from the same stream.
        window: how many requests are judged together.
        rate: share of windows without drift that may ring.
        draws: windows that are drawn to find the line.
        bins: as in `psi`.
        seed: of the draws.

    Raises:
        ValueError: for other signals here and there, a window larger than the calibration, or a
            rate that is not between 0 and 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> stars = lambda mean, n: {"stars": rng.normal(mean, 1, n)}
        >>> alarm = DriftAlarm(stars(4, 500), stars(4, 500), window=50)
        >>> alarm.rings(stars(4, 50)), alarm.rings(stars(2, 50))
        (False, True)
    """

    def __init__(
        self,
        reference: Mapping[str, ArrayLike],
        calibration: Mapping[str, ArrayLike],
        window: int,
        rate: float = 0.01,
        draws: int = 500,
        bins: int = 10,
        seed: int = 0,
    ):
        if not 0 < rate < 1:
            raise ValueError(f"The rate of false alarms is between 0 and 1, not {rate}.")
        if set(reference) != set(calibration) or not reference:
            raise ValueError("Reference and calibration need the same signals, at least one.")
        self.window, self.bins = window, bins
        reference = {name: _column(v, name) for name, v in reference.items()}
        calibration = {name: _column(v, name) for name, v in calibration.items()}
        rows = min(len(v) for v in calibration.values())
        if not 0 < window <= rows:
            raise ValueError(f"A window of {window} cannot be drawn from {rows} rows.")
        self.edges = {name: _edges(v, bins) for name, v in reference.items()}
        self.shares = {name: _shares(v, self.edges[name]) for name, v in reference.items()}
        rng = np.random.default_rng(seed)
        drawn = (rng.choice(rows, window, replace=False) for _ in range(draws))
        self.calm = np.array(
            [self.score({name: v[some] for name, v in calibration.items()}) for some in drawn]
        )
        self.line = float(np.quantile(self.calm, 1 - rate, method="higher"))

    def scores(self, window: Mapping[str, ArrayLike]) -> dict[str, float]:
        """Signal -> its `psi` against the reference."""
        found = {}
        for name, p in self.shares.items():
            q = _shares(_column(window[name], name), self.edges[name])
            found[name] = float(((q - p) * np.log(q / p)).sum())
        return found

    def score(self, window: Mapping[str, ArrayLike]) -> float:
        """The largest of `scores`."""
        return max(self.scores(window).values())

    def rings(self, window: Mapping[str, ArrayLike]) -> bool:
        """Whether the score is above the line."""
        return self.score(window) > self.line
