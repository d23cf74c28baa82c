"""LogME: how probable the target's labels are, if a linear model made them from the features.

The evidence is the density of the labels with all weights integrated out. Other than the likelihood
of the best weights it does not grow with every feature that is added.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ._examples import classes_in, matrix, one_hot, same_length


@dataclass(frozen=True)
class Evidence:
    """What `evidence` returns: one entry per column of the targets.

    Args:
        log: [K], log evidence of the column divided by the number of examples.
        alpha: [K], precision of the prior on the weights where the evidence is largest. Infinite
            where the features are of no use.
        beta: [K], precision of the noise. Infinite where the features fit without noise.
        steps: [K], steps of the iteration until the evidence stood still.
        converged: [K], whether it did.

    Example:
        >>> found = evidence([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.9, 2.1, 3.2])
        >>> list(found.log.shape), found.converged.tolist()
        ([1], [True])
    """

    log: Tensor
    alpha: Tensor
    beta: Tensor
    steps: Tensor
    converged: Tensor


def evidence(
    features: ArrayLike, targets: ArrayLike, tolerance: float = 1e-9, steps: int = 1000
) -> Evidence:
    """The largest evidence of linear models from features to targets, column by column.

    The model is ``y = F w + noise`` with w from N(0, I / alpha) and noise from N(0, 1 / beta). Its
    evidence, the density of y with w integrated out, is that of N(0, I / beta + F F^T / alpha). A
    fixed-point iteration finds the alpha and beta that make it largest. With the singular values
    s_k of F everything depends on their ratio r = alpha / beta alone, so one number per column is
    iterated and a step costs O(d). It begins at the best ratio of a grid, since the evidence may
    have two maxima, and every third step it goes ahead to where the steps lead, if that is better:
    alone they may need thousands.

    Args:
        features: [N, d].
        targets: [N] or [N, K], numbers: one hot labels, or those of a regression.
        tolerance: a column is done when a step changes its evidence by less, in nats per example.
        steps: most steps.

    Returns:
        An `Evidence`. Its log is infinite for a column that fewer directions than examples fit
        exactly: noise of size zero is then infinitely likely.

    Raises:
        ValueError: features or targets that are not finite or of another shape, lengths that
            differ, features that are zero, a column of the targets that is zero; names it.

    Source:
        You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML
        2021, equations 2 to 4 and algorithm 1; the iteration is MacKay's (1992).

    Example:
        >>> F = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]])
        >>> good = evidence(F, [1.1, 1.9, -1.0, -2.0])
        >>> bad = evidence(F, [1.0, -1.0, 1.0, -1.0])
        >>> bool(good.log > bad.log), bool(good.converged)
        (True, True)
    """
    f = matrix(features, "features")
    y = torch.as_tensor(targets).detach().to("cpu", torch.float64)
    y = y[:, None] if y.ndim == 1 else y
    y = matrix(y, "targets")
    same_length(len(f), len(y), "features")
    scales = y.square().mean(dim=0).sqrt()
    if not scales.all():
        column = int((scales == 0).nonzero()[0])
        raise ValueError(f"Column {column} of targets is zero: it has no evidence to speak of.")
    size = f.abs().max()
    if size == 0:
        raise ValueError("features are all zero: there is nothing to predict from.")
    u, s, _ = torch.linalg.svd(f / size, full_matrices=False)
    keep = s > s[0] * max(f.shape) * torch.finfo(s.dtype).eps
    s2, u = s[keep].square()[:, None], u[:, keep]  # [k, 1], [N, k]
    y = y / scales
    z2 = (u.T @ y).square()  # [k, K], the part of y along each direction
    outside = (y - u @ (u.T @ y)).square().sum(dim=0)  # what no weights can fit
    if len(s2) == len(y):
        outside = torch.zeros_like(outside)  # every direction is there: what is left is rounding
    return _iterate(s2, z2, outside, len(y), size, scales, tolerance, steps)


def _iterate(s2, z2, outside, N, size, scales, tolerance, steps):
    """The fixed-point iteration of `evidence`, for all columns at once; shapes as there."""

    def at(ratio):
        """What a ratio [..., 1, K] leaves unexplained [..., k, K], and the evidence [..., K]."""
        rest = ratio / (ratio + s2)
        beta = N / ((rest * z2).sum(dim=-2) + outside)  # the best one for this ratio
        return rest, (rest.log().sum(dim=-2) / N + beta.log() - np.log(2 * np.pi) - 1) / 2

    fits = (len(s2) < N) & (outside <= 1e-24 * N)  # exactly, and with directions to spare
    # The evidence may have two maxima: begin near the larger one. Beyond these ends it is flat.
    ends = float(1e-9 * s2.min()), float(1e9 * s2.max())
    grid = torch.logspace(*np.log10(ends), 60, dtype=s2.dtype)
    log = torch.full_like(outside, -torch.inf)
    ratio = grid[at(grid[:, None, None])[1].nan_to_num(-torch.inf).argmax(dim=0)]
    taken, converged = torch.zeros(len(outside), dtype=torch.int64), fits.clone()
    last = []
    for step in range(1, steps + 1):
        rest, now = at(ratio)
        moving = ~converged
        taken[moving] = step
        converged |= (now - log).abs() < tolerance
        log = torch.where(moving, now, log)
        if converged.all():
            break
        error = (rest.square() * z2).sum(dim=0) + outside
        weights = (s2 * z2 / (ratio + s2).square()).sum(dim=0)  # squared length of the mean w
        used = (s2 / (ratio + s2)).sum(dim=0)  # effective number of weights
        free = rest.sum(dim=0) + (N - len(s2))  # N - used, without its rounding
        new = torch.where(weights > 0, used / weights * (error / free), torch.inf)
        new = new.clamp(1e-290, 1e290)
        last = [*last[-2:], new.log()]
        if step % 3 == 0:  # small steps may go on for long: go where they lead, if it is better
            for ahead in (_limit(*last), last[-1] + 10 * (last[-1] - last[-2])):
                far = ahead.exp().clamp(*ends)
                new = torch.where(at(far)[1] > at(new)[1], far, new)
        ratio = torch.where(converged, ratio, new)
    beta = torch.where(fits, torch.inf, N / ((ratio / (ratio + s2) * z2).sum(dim=0) + outside))
    # back to the units of the features and targets that were given
    return Evidence(
        log=torch.where(fits, torch.inf, log - scales.log()),
        alpha=ratio * beta * (size / scales).square(),
        beta=beta / scales.square(),
        steps=taken,
        converged=converged,
    )


def _limit(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Where three values of sequences lead, if their steps shrink by one factor (Aitken)."""
    step = third - second
    change = step - (second - first)
    limit = third - step.square() / torch.where(change == 0, torch.inf, change)
    return torch.where(limit.isfinite(), limit, third)


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """LogME: mean over the classes of the log evidence of "this class or not".

    Args:
        features: [N, d], what the source's trunk gives.
        labels: int [N], the target's. Classes that do not occur play no part.

    Returns:
        The score in nats per example, as `evidence` has it for each class. Infinite where features
        of lower rank than N fit a class exactly.

    Raises:
        ValueError: as for `evidence`; labels that are no whole numbers, or only one class.
        FloatingPointError: the iteration did not come to rest for a class; names it.

    Source:
        You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML
        2021, algorithm 1.

    Example:
        >>> x = [[1.0, 0.2], [0.9, -0.1], [-0.1, 1.1], [0.1, 0.9], [1.1, 0.0], [0.0, 1.0]]
        >>> logme(x, [0, 0, 1, 1, 0, 1]) > logme(x, [0, 1, 0, 1, 0, 1])
        True
    """
    y, classes = classes_in(labels, "labels", least=2)
    found = evidence(features, one_hot(y, classes))
    if not found.converged.all():
        column = int((~found.converged).nonzero()[0])
        name = torch.as_tensor(labels).unique()[column]
        raise FloatingPointError(f"The evidence of class {name} did not come to rest.")
    return float(found.log.mean())
