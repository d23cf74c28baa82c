"""Split tasks into groups: along the spectrum of their graph, or by trying every partition on
pairwise gains.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from torch import Tensor

from .task_graph import laplacian

Groups = list[list[int]]


def spectral_groups(S: Tensor, k: int, seed: int = 0) -> Groups:
    """k groups of tasks that are tied more strongly inside than across.

    The k lowest eigenvectors of the normalised Laplacian ``D^-1/2 (D - S) D^-1/2`` place every task
    in R^k; rows are scaled to length 1, and k-means finds the groups.

    Args:
        S: similarities [T, T], not negative; the diagonal is ignored.
        k: number of groups, 1 <= k <= T.
        seed: of k-means.

    Returns:
        The groups, lists of task numbers; groups and their members in ascending order.

    Raises:
        ValueError: k is out of that range, a similarity is negative or not finite, or a task has no
            tie at all.

    Source:
        Ng, Jordan and Weiss, "On spectral clustering: analysis and an algorithm", NeurIPS 2001.

    Example:
        >>> S = torch.full((4, 4), 0.1)
        >>> S[0, 2] = S[2, 0] = S[1, 3] = S[3, 1] = 1.0
        >>> spectral_groups(S, 2)
        [[0, 2], [1, 3]]
    """
    if not 1 <= k <= len(S):
        raise ValueError(f"k must be between 1 and {len(S)}, the number of tasks; it is {k}.")
    Q = laplacian(S)
    degree = Q.diagonal()
    if (degree == 0).any():
        raise ValueError(
            f"Task {int((degree == 0).nonzero()[0, 0])} has no tie to any other, so its place is"
            " not determined. Give it a group of its own."
        )
    scale = degree.rsqrt()
    places = torch.linalg.eigh(scale[:, None] * Q * scale).eigenvectors[:, :k]
    places = places / places.norm(dim=1, keepdim=True)
    labels = KMeans(k, n_init=10, random_state=seed).fit_predict(places.cpu().numpy())
    return sorted([np.flatnonzero(labels == label).tolist() for label in np.unique(labels)])


def partitions(tasks: int) -> Iterator[Groups]:
    """Every way to split tasks into groups, each once: 15 for 4 tasks, 115,975 for 10.

    Args:
        tasks: their number T.

    Returns:
        Iterator over the partitions of the tasks 0 .. T-1, each a list of groups.

    Example:
        >>> list(partitions(3))
        [[[0, 1, 2]], [[0, 1], [2]], [[0, 2], [1]], [[0], [1, 2]], [[0], [1], [2]]]
        >>> sum(1 for _ in partitions(8))
        4140
    """
    if tasks == 0:
        yield []
        return
    for smaller in partitions(tasks - 1):
        for k in range(len(smaller)):
            yield [*smaller[:k], [*smaller[k], tasks - 1], *smaller[k + 1 :]]
        yield [*smaller, [tasks - 1]]


def expected_gain(gains: ArrayLike, groups: Sequence[Sequence[int]]) -> float:
    """Mean over all tasks of the gain that the pairs promise.

    That is what task i gains from j, averaged over the others of its group; a task alone gains 0.
    That a group's gain is the mean of its pairs' is an assumption (Standley et al., ICML 2020, and
    Fifty et al., NeurIPS 2021, make it too).

    Args:
        gains: [T, T], what the task of the row gains from that of the column; the diagonal is
            ignored.
        groups: a partition of the tasks 0 .. T-1.

    Returns:
        The mean, in the unit of the gains; NaN if a gain within a group is.

    Example:
        >>> gains = [[0, 4, -2], [2, 0, -2], [1, 1, 0]]
        >>> expected_gain(gains, [[0, 1], [2]]), expected_gain(gains, [[0, 1, 2]])
        (2.0, 0.6666666666666666)
    """
    gains, total = np.asarray(gains), 0.0
    for group in groups:
        if len(group) > 1:
            inside = gains[np.ix_(group, group)]
            total += inside[~np.eye(len(group), dtype=bool)].sum() / (len(group) - 1)
    return float(total / len(gains))


def best_groups(gains: ArrayLike, at_most: int | None = None) -> Groups:
    """The partition with the highest `expected_gain`, by trying them all.

    Args:
        gains: [T, T], what the task of the row gains from that of the column; T <= 10.
        at_most: largest number of groups; default: any.

    Returns:
        The groups, lists of task numbers.

    Raises:
        ValueError: there are more than 10 tasks, a gain is NaN, or no group is allowed.

    Example:
        >>> gains = [[0, 4, -2], [2, 0, -2], [1, 1, 0]]
        >>> best_groups(gains)
        [[0, 1], [2]]
        >>> best_groups(gains, at_most=1)
        [[0, 1, 2]]
    """
    if len(gains) > 10:
        raise ValueError(
            f"{len(gains)} tasks have too many partitions to try them all; use spectral_groups."
        )
    gains = np.array(gains, dtype=float)
    np.fill_diagonal(gains, 0.0)
    if np.isnan(gains).any():
        i, j = map(int, np.argwhere(np.isnan(gains))[0])
        raise ValueError(f"What task {i} gains from task {j} is NaN, so no partition is the best.")
    if at_most is not None and not at_most >= 1:
        raise ValueError(f"at_most is {at_most}; there is at least one group.")
    largest = len(gains) if at_most is None else at_most
    allowed = (groups for groups in partitions(len(gains)) if len(groups) <= largest)
    return max(allowed, key=lambda groups: expected_gain(gains, groups))
