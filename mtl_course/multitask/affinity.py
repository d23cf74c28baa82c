"""How much one task may help another: measures taken before joint training, measures of the gain
itself, and how far the two agree.

Matrices [T, T] are read "row from column" for gains (row i: what task i gains from the company of
j) and "row onto column" for lookahead affinity (row i: what a step for task i does to the loss of
j). `both_ways` makes either symmetric.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import Tensor

from .balancing import normalised


# ---------------------------------------------------------------------------- before joint training
def closeness(features: Tensor) -> Tensor:
    """Minus the Euclidean distance between the features of each two tasks.

    Args:
        features: [..., T, k], one row per task: mean inputs, say, or weights.

    Returns:
        [..., T, T], 0 on the diagonal and negative elsewhere.

    Example:
        >>> closeness(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
        [[-0.0, -5.0], [-5.0, -0.0]]
    """
    return -(features.unsqueeze(-2) - features.unsqueeze(-3)).norm(dim=-1)


def cosines(G: Tensor) -> Tensor:
    """Cosines of the angles between task gradients, from their Gram matrix.

    Args:
        G: Gram matrices [..., T, T].

    Returns:
        [..., T, T]; 0 for a gradient that is zero, also with itself.

    Example:
        >>> from mtl_course.multitask import gram
        >>> J = torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 0.0]])
        >>> cosines(gram(J)).tolist()
        [[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    _, cosines = normalised(G)
    return cosines


def lookahead(
    losses: Callable[[Sequence[Tensor]], Tensor], shared: Sequence[Tensor], rate: float
) -> Tensor:
    """Lookahead affinity: what a step for one task alone does to the loss of another.

    It is ``Z_ij = 1 - L_j(after a step for task i) / L_j(before)``: where it is positive, a step
    for i helps j. For a small rate it is ``rate * (g_i . g_j) / L_j``, so the Gram matrix of
    chapter 6 in other units.

    Args:
        losses: shared parameters -> the T losses [T] on one batch, with everything that belongs to
            one task held as it is.
        shared: the parameters; they stay as they are.
        rate: of the one gradient step.

    Returns:
        Z [T, T], row i the task of the step, column j the task that is looked at.

    Raises:
        ValueError: a loss is not positive, so that nothing is relative to it; names the task.

    Source:
        Fifty et al., "Efficiently identifying task groupings for multi-task learning", NeurIPS
        2021, equation 1.

    Example:
        >>> theta = torch.tensor([1.0], dtype=torch.float64)
        >>> def losses(shared):  # the first two want 0, the third 3
        ...     return torch.cat([shared[0] ** 2, 4 * shared[0] ** 2, (shared[0] - 3) ** 2])
        >>> torch.round(lookahead(losses, [theta], rate=0.0625)[0], decimals=4).tolist()
        [0.2344, 0.2344, -0.1289]
    """
    shared = [p.detach().requires_grad_() for p in shared]
    start = losses(shared)
    if bad := (~(start > 0)).nonzero().flatten().tolist():
        raise ValueError(
            f"The loss of task {bad[0]} is {start[bad[0]].item():g}; the affinity is relative to"
            " it, so it must be positive."
        )
    rows = []
    for loss in start:
        gradients = torch.autograd.grad(
            loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            moved = [p - rate * g for p, g in zip(shared, gradients, strict=True)]
            rows.append(1 - losses(moved) / start)
    return torch.stack(rows).detach()


# ----------------------------------------------------------------------------- after joint training
def relative_gain(alone: ArrayLike, together: ArrayLike) -> NDArray:
    """By how many per cent an error fell: ``100 (1 - together / alone)``.

    It is what `training.delta_m` averages.

    Args:
        alone: errors of the tasks alone, above zero.
        together: errors of the same tasks in company; the two broadcast.

    Returns:
        Gains in per cent; negative where the error rose.

    Raises:
        ValueError: an error alone is not above zero, so that nothing is relative to it; names its
            place. Compare differences then.

    Example:
        >>> relative_gain([2.0, 4.0], [1.0, 5.0]).tolist()
        [50.0, -25.0]
    """
    alone = np.asarray(alone)
    if (bad := ~(alone > 0)).any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"The error alone at {place} is {alone[tuple(place)]}; a relative gain needs an error"
            " above zero. Compare differences instead."
        )
    return 100 * (1 - np.asarray(together) / alone)


def both_ways(S: ArrayLike) -> NDArray:
    """Mean of the two directions of each pair of tasks.

    Args:
        S: [..., T, T].

    Returns:
        [..., T, T], float64, symmetric.

    Example:
        >>> both_ways([[0, 2], [4, 0]]).tolist()
        [[0.0, 3.0], [3.0, 0.0]]
    """
    S = np.asarray(S, dtype=float)
    return (S + S.swapaxes(-1, -2)) / 2


# --------------------------------------------------------------- does one matrix predict the other?
def rank_correlation(S: ArrayLike, G: ArrayLike) -> float:
    """Spearman's rank correlation of two symmetric matrices over their pairs of tasks.

    Args:
        S: [T, T], symmetric; the diagonal is ignored.
        G: the same.

    Returns:
        The correlation over the T (T - 1) / 2 pairs, from -1 to 1; NaN where all pairs of a matrix
        are the same, which have no order.

    Raises:
        ValueError: the matrices differ in shape, or a pair is NaN, which has no rank; names it.

    Example:
        >>> S = [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
        >>> print(f"{rank_correlation(S, np.exp(S)):.2f}")  # only the order counts
        1.00
    """
    S, G = _two_matrices(S, G)
    if len(S) < 3:  # one pair at most, which has no order
        return float("nan")
    pairs = np.triu_indices(len(S), 1)
    # Between the ends, whatever the rounding of two unit vectors.
    return float(np.clip(_standard_ranks(S)[pairs] @ _standard_ranks(G)[pairs], -1, 1))


def mantel(S: ArrayLike, G: ArrayLike, rounds: int = 2000, seed: int = 0) -> float:
    """P-value of `rank_correlation` against chance, two-sided, by Mantel's test.

    It is the share of relabellings of the tasks that correlate as strongly. Pairs that share a task
    are not independent, so the usual p-value of a rank correlation is too small; permuting the
    *tasks* of one matrix keeps that dependence.

    Args:
        S: [T, T], symmetric; the diagonal is ignored.
        G: the same.
        rounds: number of labellings; the observed one counts as one of them.
        seed: of the permutations.

    Returns:
        The p-value, at least 1 / rounds; NaN for a matrix whose pairs are all the same.

    Raises:
        ValueError: as for `rank_correlation`.

    Source:
        Mantel, Cancer Research 27, 1967.

    Example:
        >>> S = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))  # tasks on a line
        >>> mantel(S, S**2, rounds=100)  # the same order
        0.01
        >>> other = [0, 4, 1, 5, 2, 6, 3, 7]  # and another one
        >>> mantel(S, S[np.ix_(other, other)], rounds=100) > 0.2
        True
    """
    S, G = _two_matrices(S, G)
    if len(S) < 3:  # one pair at most, which has no order
        return float("nan")
    pairs, draw = np.triu_indices(len(S), 1), np.random.RandomState(seed)
    ranks, other = _standard_ranks(S), _standard_ranks(G)[pairs]
    observed = abs(ranks[pairs] @ other)
    if np.isnan(observed):
        return float("nan")
    orders = [draw.permutation(len(S)) for _ in range(rounds - 1)]
    as_strong = sum(
        abs(ranks[np.ix_(order, order)][pairs] @ other) >= observed - 1e-9 for order in orders
    )
    return float((1 + as_strong) / rounds)


def task_bootstrap(
    S: ArrayLike, G: ArrayLike, rounds: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of `rank_correlation` over tasks drawn with replacement.

    Tasks are drawn, not pairs, for the reason that `mantel` gives. Pairs of a task with its own
    copy are left out. With few tasks the interval is rough, and like every bootstrap percentile
    interval it is then rather too short.

    Args:
        S: [T, T], symmetric; the diagonal is ignored.
        G: the same.
        rounds: number of draws.
        level: share of the draws that the interval holds.
        seed: of the draws.

    Returns:
        Lower and upper end, percentiles of the draws. A draw in which all pairs of a matrix are the
        same has no correlation and is left out; both ends are NaN where every draw is such a one.

    Raises:
        ValueError: as for `rank_correlation`.

    Source:
        Snijders and Borgatti, "Non-parametric standard errors and tests for network statistics",
        Connections 22, 1999.

    Example:
        >>> S = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))  # tasks on a line
        >>> low, high = task_bootstrap(S, S**2, rounds=50)
        >>> print(f"{low:.2f} to {high:.2f}")  # the same order in every draw
        1.00 to 1.00
    """
    S, G = _two_matrices(S, G)
    T, draw, correlations = len(S), np.random.RandomState(seed), []
    # Only the order of the values counts, so small whole numbers take their place.
    S, G = (np.unique(M, return_inverse=True)[1].reshape(T, T) for M in (S, G))
    first, second = np.triu_indices(T, 1)
    for _ in range(rounds):
        rows = draw.randint(T, size=T)
        i, j = rows[first], rows[second]
        i, j = i[i != j], j[i != j]
        if len(np.unique(rows)) > 2:
            ranks = _ranks_of_codes(S[i, j]), _ranks_of_codes(G[i, j])
            if all(len(np.unique(r)) > 1 for r in ranks):
                correlations.append(np.corrcoef(*ranks)[0, 1])
    if not correlations:
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(correlations, [tail, 100 - tail])
    return float(low), float(high)


def reliability(gains: ArrayLike, rounds: int = 200, seed: int = 0) -> float:
    """How well measured gains agree with themselves: the rank correlation of two halves.

    The repeats are split into halves at random, again and again, and the correlations of the
    halves' means are averaged. It is a ceiling for predictors: where it is r, a perfect one would
    correlate with the mean of all repeats by about ``sqrt(2 r / (1 + r))`` (Spearman and Brown's
    formula for the mean of all, and its root).

    Args:
        gains: [R, T, T] of R repeats, each symmetric.
        rounds: number of splits.
        seed: of the splits.

    Returns:
        The mean correlation, from -1 to 1; NaN where the pairs of a half are all the same.

    Raises:
        ValueError: there is only one repeat, or a pair is NaN; names it.

    Example:
        >>> S = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
        >>> print(f"{reliability([S, 2 * S, 3 * S, 4 * S], rounds=10):.2f}")  # no noise
        1.00
    """
    gains, draw = np.asarray(gains, dtype=float), np.random.RandomState(seed)
    if len(gains) < 2:
        raise ValueError(f"There are {len(gains)} repeats; two halves need at least two.")
    half, correlations = len(gains) // 2, []
    for _ in range(rounds):
        order = draw.permutation(len(gains))
        halves = gains[order[:half]].mean(0), gains[order[half:]].mean(0)
        correlations.append(rank_correlation(*halves))
    return float(np.mean(correlations))


def _two_matrices(S: ArrayLike, G: ArrayLike) -> tuple[NDArray, NDArray]:
    """Both as float arrays [T, T] whose diagonal, which is ignored, is zero."""
    matrices = [np.array(M, dtype=float) for M in (S, G)]
    if matrices[0].shape != matrices[1].shape or matrices[0].ndim != 2:
        shapes = " and ".join(str(M.shape) for M in matrices)
        raise ValueError(f"Two matrices [T, T] are compared; these have the shapes {shapes}.")
    for M in matrices:
        np.fill_diagonal(M, 0.0)
        if np.isnan(M).any():
            i, j = map(int, np.argwhere(np.isnan(M))[0])
            raise ValueError(f"The pair of tasks {i} and {j} is NaN, which has no rank.")
    return matrices[0], matrices[1]


def _ranks_of_codes(codes):
    """scipy's rankdata of small whole numbers, by counting: ties share their mean rank."""
    counts = np.bincount(codes)
    return (counts.cumsum() - (counts - 1) / 2)[codes]


def _standard_ranks(S):
    """The rank of each pair in both of its places, centred and of length 1 over the pairs."""
    pairs = np.triu_indices(len(S), 1)
    ranks = rankdata(S[pairs])
    ranks = ranks - ranks.mean()
    full = np.zeros(S.shape)
    with np.errstate(invalid="ignore"):  # NaN where all pairs are the same
        full[pairs] = ranks / np.sqrt(ranks @ ranks)
    return full + full.T
