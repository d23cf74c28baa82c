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


def closeness(features: Tensor) -> Tensor:
    """Minus the Euclidean distance between the tasks' rows of `features` [..., T, k] (mean inputs,
    say, or weights): [..., T, T].
    """
    return -(features.unsqueeze(-2) - features.unsqueeze(-3)).norm(dim=-1)


def cosines(G: Tensor) -> Tensor:
    """Cosines [..., T, T] of the angles between task gradients, from their Gram matrix [..., T, T];
    0 for a gradient that is zero.
    """
    norms = G.diagonal(dim1=-2, dim2=-1).sqrt()
    norms = torch.where(norms > 0, norms, 1.0)
    return G / (norms.unsqueeze(-1) * norms.unsqueeze(-2))


def lookahead(
    losses: Callable[[Sequence[Tensor]], Tensor], shared: Sequence[Tensor], rate: float
) -> Tensor:
    """Lookahead affinity Z [T, T]: ``Z_ij = 1 - L_j(after a step for task i alone) / L_j(before)``.

    losses: shared parameters -> the T losses, on one batch, with everything that is a task's own
        held as it is; shared: the parameters now, which stay as they are; rate: of the one gradient
        step. Positive: a step for i helps j. For a small rate it is ``rate * (g_i . g_j) / L_j``,
        so the Gram matrix of chapter 6 in other units. Source: Fifty et al., "Efficiently
        identifying task groupings for multi-task learning", NeurIPS 2021, equation 1.
    """
    shared = [p.detach().requires_grad_() for p in shared]
    before = losses(shared)
    rows = []
    for i in range(len(before)):
        gradient = torch.autograd.grad(before[i], shared, retain_graph=True)
        with torch.no_grad():
            rows.append(
                1 - losses([p - rate * g for p, g in zip(shared, gradient, strict=True)]) / before
            )
    return torch.stack(rows).detach()


def relative_gain(alone: ArrayLike, together: ArrayLike) -> NDArray:
    """By how many per cent an error fell: ``100 (1 - together / alone)``, for arrays that
    broadcast. What `tasks.delta_m` averages.
    """
    return 100 * (1 - np.asarray(together) / np.asarray(alone))


def both_ways(S: ArrayLike) -> NDArray:
    """Mean of the two directions of each pair, S [..., T, T]; a symmetric matrix."""
    S = np.asarray(S, dtype=float)
    return (S + S.swapaxes(-1, -2)) / 2


# --------------------------------------------------------------- does one matrix predict the other?
def rank_correlation(S: ArrayLike, G: ArrayLike) -> float:
    """Spearman's rank correlation of two symmetric matrices [T, T] over the T (T - 1) / 2 pairs;
    diagonals are ignored.
    """
    pairs = np.triu_indices(len(S), 1)
    return float(np.corrcoef(rankdata(np.asarray(S)[pairs]), rankdata(np.asarray(G)[pairs]))[0, 1])


def mantel(S: ArrayLike, G: ArrayLike, rounds: int = 2000, seed: int = 0) -> float:
    """P-value of `rank_correlation` against chance, two-sided: the share of relabellings of the
    tasks that correlate as strongly.

    Pairs that share a task are not independent, so the usual p-value of a rank correlation is too
    small. Permuting the *tasks* of one matrix keeps that dependence. The observed labelling counts
    as one of the rounds. Source: Mantel, Cancer Research 27, 1967.
    """
    S, G = np.asarray(S, dtype=float), np.asarray(G, dtype=float)
    pairs, draw = np.triu_indices(len(S), 1), np.random.RandomState(seed)
    ranks, other = _standard_ranks(S), _standard_ranks(G)[pairs]
    observed = abs(ranks[pairs] @ other)
    orders = [draw.permutation(len(S)) for _ in range(rounds - 1)]
    as_strong = sum(
        abs(ranks[np.ix_(order, order)][pairs] @ other) >= observed - 1e-9 for order in orders
    )
    return (1 + as_strong) / rounds


def task_bootstrap(
    S: ArrayLike, G: ArrayLike, rounds: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of `rank_correlation` over tasks drawn with replacement: the percentiles that hold
    `level` of the draws.

    Tasks are drawn, not pairs, for the reason that `mantel` gives. Pairs of a task with its own
    copy are left out. With few tasks the interval is rough, and like every bootstrap percentile
    interval it is then rather too short. Source: Snijders and Borgatti, "Non-parametric standard
    errors and tests for network statistics", Connections 22, 1999.
    """
    T, draw, found = len(S), np.random.RandomState(seed), []
    S, G = (
        np.unique(np.asarray(M), return_inverse=True)[1].reshape(T, T) for M in (S, G)
    )  # only the order of the values counts
    first, second = np.triu_indices(T, 1)
    for _ in range(rounds):
        rows = draw.randint(T, size=T)
        i, j = rows[first], rows[second]
        i, j = i[i != j], j[i != j]
        if len(np.unique(rows)) > 2:
            found.append(np.corrcoef(_ranks_of_codes(S[i, j]), _ranks_of_codes(G[i, j]))[0, 1])
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return float(low), float(high)


def reliability(gains: ArrayLike, rounds: int = 200, seed: int = 0) -> float:
    """How well the measured gains [R, T, T] of R repeats agree with themselves: mean rank
    correlation between the means of two halves.

    Halves are drawn at random `rounds` times. It is a ceiling for predictors: where it is r, a
    perfect one would correlate with the mean of all R repeats by about ``sqrt(2 r / (1 + r))``
    (Spearman and Brown's formula for the mean of all, and its root).
    """
    gains, draw = np.asarray(gains), np.random.RandomState(seed)
    half, found = len(gains) // 2, []
    for _ in range(rounds):
        order = draw.permutation(len(gains))
        found.append(rank_correlation(gains[order[:half]].mean(0), gains[order[half:]].mean(0)))
    return float(np.mean(found))


def _ranks_of_codes(codes):
    """scipy's rankdata of small whole numbers, by counting: ties share their mean rank."""
    counts = np.bincount(codes)
    return (counts.cumsum() - (counts - 1) / 2)[codes]


def _standard_ranks(S):
    """The matrix with the rank of each pair in both of its places, centred and of length 1 over the
    pairs.
    """
    pairs = np.triu_indices(len(S), 1)
    ranks = rankdata(S[pairs])
    ranks = ranks - ranks.mean()
    full = np.zeros(S.shape)
    full[pairs] = ranks / np.sqrt(ranks @ ranks)
    return full + full.T
