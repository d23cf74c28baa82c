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
    """k groups of tasks that are tied more strongly inside than across, from similarities S [T, T]
    >= 0.

    The k lowest eigenvectors of the normalised Laplacian ``D^-1/2 (D - S) D^-1/2`` place every task
    in R^k; rows are scaled to length 1 and k-means finds the groups. Groups and their members are
    in ascending order. ValueError unless 1 <= k <= T, or for a task without any tie.
    Source: Ng, Jordan and Weiss, "On spectral clustering: analysis and an algorithm", NeurIPS 2001.
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
    """Every way to split the tasks 0 .. T-1 into groups, each once: 15 for 4 tasks, 4,140 for 8,
    115,975 for 10.
    """
    if tasks == 0:
        yield []
        return
    for smaller in partitions(tasks - 1):
        for k in range(len(smaller)):
            yield [*smaller[:k], [*smaller[k], tasks - 1], *smaller[k + 1 :]]
        yield [*smaller, [tasks - 1]]


def expected_gain(gains: ArrayLike, groups: Sequence[Sequence[int]]) -> float:
    """Mean over all tasks of the gain that the pairs promise: what task i gains from j, averaged
    over the others of its group.

    gains: [T, T], row i from column j; a task alone gains 0, and the diagonal is ignored. That a
        group's gain is the mean of its pairs' is an assumption (Standley et al., ICML 2020, and
        Fifty et al., NeurIPS 2021, make it too).
    """
    gains, total = np.asarray(gains), 0.0
    for group in groups:
        if len(group) > 1:
            inside = gains[np.ix_(group, group)]
            total += (inside.sum() - np.trace(inside)) / (len(group) - 1)
    return float(total / len(gains))


def best_groups(gains: ArrayLike, at_most: int | None = None) -> Groups:
    """The partition into `at_most` groups or fewer (default: any number) with the highest
    `expected_gain`, by trying them all.

    ValueError beyond 10 tasks.
    """
    if len(gains) > 10:
        raise ValueError(
            f"{len(gains)} tasks have too many partitions to try them all; use spectral_groups."
        )
    allowed = (
        groups for groups in partitions(len(gains)) if at_most is None or len(groups) <= at_most
    )
    return max(allowed, key=lambda groups: expected_gain(gains, groups))
