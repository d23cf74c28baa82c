"""What a score of transferability is worth.

A score promises an order of sources for one target, so that is what it is held against:
`rank_per_target`, with its interval over targets (`task_bootstrap`); what following it costs
(`regret`); and whether it knows which source fits *which* target, or only which source is good
(`permuted`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata, spearmanr


def rank_per_target(scores: ArrayLike, gains: ArrayLike, kind: str = "spearman") -> NDArray:
    """Rank correlation of a score with the gains, over the sources of each target.

    Args:
        scores: [S, T], of source s for target t. NaN where a pair has none: it is left out, and so
            is one whose score is infinite, such as an exact fit's `logme`.
        gains: [S, T], what fine-tuning from s gained on t; NaN as well.
        kind: "spearman" or "kendall".

    Returns:
        [T], each from -1 to 1; NaN for a target with fewer than three sources or without any order.

    Raises:
        ValueError: matrices of different shapes, or another `kind`.

    Example:
        >>> scores = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]
        >>> gains = [[0.1, 0.1], [0.2, 0.2], [0.9, 0.3]]
        >>> rank_per_target(scores, gains).round(6).tolist()
        [1.0, -1.0]
    """
    scores, gains = _two(scores, gains)
    if kind not in ("spearman", "kendall"):
        raise ValueError(f'kind is "spearman" or "kendall", not {kind!r}.')
    correlate = spearmanr if kind == "spearman" else kendalltau
    values = []
    for score, gain in zip(scores.T, gains.T, strict=True):
        both = np.isfinite(score) & np.isfinite(gain)
        a, b = score[both], gain[both]
        flat = both.sum() < 3 or np.ptp(a) == 0 or np.ptp(b) == 0
        values.append(np.nan if flat else float(correlate(a, b).statistic))
    return np.array(values)


def regret(scores: ArrayLike, gains: ArrayLike) -> NDArray:
    """What it costs to take the source with the highest score instead of the best one.

    Args:
        scores: [S, T]; NaN where a pair has none: it is not chosen, nor is one that is infinite.
        gains: [S, T]; NaN where a pair was not run: it is not chosen either.

    Returns:
        [T], the best gain minus the chosen source's, at least 0. Of equal scores the first counts.

    Raises:
        ValueError: matrices of different shapes, or a target without any pair; names it.

    Example:
        >>> regret([[1.0, 3.0], [2.0, 2.0]], [[0.5, 0.1], [0.2, 0.4]]).round(6).tolist()
        [0.3, 0.3]
    """
    scores, gains = _two(scores, gains)
    both = np.isfinite(scores) & np.isfinite(gains)
    if not both.any(axis=0).all():
        raise ValueError(f"Target {int(np.argmin(both.any(axis=0)))} has no source to choose from.")
    chosen = np.where(both, scores, -np.inf).argmax(axis=0)
    best = np.where(np.isfinite(gains), gains, -np.inf).max(axis=0)
    return best - gains[chosen, np.arange(gains.shape[1])]


def task_bootstrap(
    values: ArrayLike, level: float = 0.95, rounds: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """An interval for the mean over tasks, by drawing the tasks anew.

    The tasks are the units: another study would have had others. Seeds of one task are no
    substitute, since they all ask about the same task. With five tasks the interval is rough, and
    too narrow rather than too wide.

    Args:
        values: [T], one per task. NaN is left out.
        level: share of the draws that the interval holds.
        rounds: number of draws.
        seed: of the draws.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: fewer than two values.

    Source:
        Efron and Tibshirani, "An introduction to the bootstrap", Chapman and Hall 1993, chapter 13
        (the percentile interval).

    Example:
        >>> low, high = task_bootstrap([0.9, 0.7, 0.8, 0.4, 0.9])
        >>> 0.4 < low < 0.74 < high < 0.9
        True
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        raise ValueError(f"{len(values)} task has no spread: an interval needs two at least.")
    drawn = np.random.default_rng(seed).integers(len(values), size=(rounds, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permuted(
    scores: ArrayLike, gains: ArrayLike, what: str, rounds: int = 2000, seed: int = 0
) -> float:
    """P-value of the mean rank correlation if names are exchanged, as in Mantel's test.

    Entries of one source share its features, and those of one target its labels, so they are not
    independent. Exchanging whole rows or whole columns of the scores keeps that dependence.

    Args:
        scores: [S, T]; NaN as in `rank_per_target`.
        gains: [S, T]; NaN as well.
        what: "sources" exchanges the rows: does the score know anything of the sources? "targets"
            exchanges the columns: does it know which source fits *this* target, or would the scores
            of another target have served as well?
        rounds: number of exchanges; the observed one counts as one of them.
        seed: of the draws.

    Returns:
        The share of exchanges with a mean correlation at least as high; at least 1 / rounds. An
        exchange that leaves no target with an order counts as at least as high. NaN if the
        observed scores have no order for any target.

    Raises:
        ValueError: matrices of different shapes, or another `what`.

    Source:
        Mantel, Cancer Research 27, 1967, for square matrices.

    Example:
        >>> gains = np.arange(7.0)[:, None] + np.array([0.0, 1.0, 2.0])  # one order for all
        >>> permuted(gains, gains, "sources", rounds=200) < 0.05
        True
        >>> permuted(gains, gains, "targets", rounds=200)
        1.0
    """
    scores, gains = _two(scores, gains)
    if what not in ("sources", "targets"):
        raise ValueError(f'what is "sources" or "targets", not {what!r}.')
    axis = 0 if what == "sources" else 1
    rng = np.random.default_rng(seed)
    orders = [np.arange(scores.shape[axis])]  # the first is as observed
    orders += [rng.permutation(scores.shape[axis]) for _ in range(rounds - 1)]
    if np.isfinite(scores).all() and np.isfinite(gains).all():
        # a column keeps its ranks wherever its entries go, so they are found once
        a, b = _unit_ranks(scores), _unit_ranks(gains)
        means = [_mean((np.take(a, order, axis=axis) * b).sum(axis=0)) for order in orders]
    else:
        means = [
            _mean(rank_per_target(np.take(scores, order, axis=axis), gains)) for order in orders
        ]
    if np.isnan(means[0]):
        return float("nan")
    return float(np.mean(~(np.array(means) < means[0] - 1e-12)))


def _mean(values: NDArray) -> float:
    """Mean of the values that are no NaN; NaN if there is none."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _unit_ranks(values: NDArray) -> NDArray:
    """Ranks within each column, centred and of length 1; NaN in a column without order."""
    ranks = rankdata(values, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    return ranks / np.where(length > 0, length, np.nan)


def _two(scores, gains):
    scores, gains = np.asarray(scores, dtype=float), np.asarray(gains, dtype=float)
    if scores.ndim != 2 or scores.shape != gains.shape:
        raise ValueError(
            f"scores and gains are matrices [sources, targets] of one shape, not {scores.shape} and"
            f" {gains.shape}."
        )
    return scores, gains
