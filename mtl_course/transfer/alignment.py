"""Losses that compare the features of two domains: second moments (CORAL), distributions (MMD).

Each is a function of two batches of features and gives a scalar to add to the source's loss. No
label enters. The adversary's loss, of the same form, is `adaptation.domain_loss`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def require_features(source: Tensor, target: Tensor, least: int) -> None:
    """ValueError unless both are features [n, d] of one width, finite, and of `least` rows."""
    for name, x in (("source", source), ("target", target)):
        if x.ndim != 2:
            raise ValueError(
                f"The {name}'s features have shape {tuple(x.shape)}; expected [n, d]: flatten them."
            )
        if len(x) < least:
            raise ValueError(
                f"The {name}'s batch has {len(x)} example{'s'[: len(x) != 1]};"
                f" this needs at least {least} of each domain."
            )
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"The source has {source.shape[1]} features and the target {target.shape[1]}:"
            " they must come from the same layer."
        )
    for name, x in (("source", source), ("target", target)):
        bad = ~torch.isfinite(x.detach()).all(dim=0)
        if bad.any():
            columns = bad.nonzero()[:5, 0].tolist()
            raise ValueError(f"The {name}'s features are not finite in columns {columns}.")


def coral(source: Tensor, target: Tensor) -> Tensor:
    """The CORAL loss: squared distance of the two domains' covariance matrices, over 4 d^2.

    It sees spread and correlation, not the mean: domains that differ by a shift alone have none. A
    feature that is constant counts as one without spread. The loss grows with the fourth power of
    the features' scale, so its weight depends on the layer.

    Args:
        source: features of the source's examples [n, d]; n is 2 or more.
        target: features of the target's examples [m, d]; m is 2 or more.

    Returns:
        Scalar, 0 or more.

    Raises:
        ValueError: for features of other shapes or widths, fewer than two examples, or a value that
            is not finite; it names the domain.

    Source:
        Sun and Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV 2016
        workshops, equations 1 to 3.

    Example:
        >>> source = torch.tensor([[0.0], [2.0]])  # variance 2
        >>> target = torch.tensor([[5.0], [7.0], [9.0]])  # variance 4
        >>> coral(source, target)  # (2 - 4)^2 / 4
        tensor(1.)
    """
    require_features(source, target, least=2)
    a, b = (x - x.mean(dim=0) for x in (source, target))
    gap = a.T @ a / (len(a) - 1) - b.T @ b / (len(b) - 1)
    return gap.square().sum() / (4 * source.shape[1] ** 2)


def mmd(
    source: Tensor,
    target: Tensor,
    factors: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    scale: float | Tensor | None = None,
    unbiased: bool = False,
) -> Tensor:
    """The squared maximum mean discrepancy of two domains, with a mean of Gaussian kernels.

    k(a, b) is the mean over `factors` of exp(-|a - b|^2 / (factor x scale)). The scale is the
    median of the squared distances between the rows of both domains taken together, as far as they
    are not 0 (the median heuristic), so that features in other units have the same discrepancy. It
    is a constant to the gradient.

    Args:
        source: features of the source's examples [n, d]; n is 2 or more.
        target: features of the target's examples [m, d]; m is 2 or more.
        factors: widths of the kernels as multiples of the scale; positive.
        scale: squared distance, positive; None: the median heuristic.
        unbiased: leave out each row's similarity to itself. The mean over many samples is then
            that of the populations, but one value may be negative. The biased one is 0 or more.

    Returns:
        Scalar.

    Raises:
        ValueError: for features of other shapes or widths, fewer than two examples, a value that is
            not finite, rows that are all equal, or factors or a scale that are not positive.

    Source:
        Gretton et al., "A kernel two-sample test", JMLR 2012, equations 3 (unbiased) and 5
        (biased); several kernels in a network: Long, Cao, Wang and Jordan, "Learning transferable
        features with deep adaptation networks", ICML 2015.

    Example:
        >>> source, target = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
        >>> mmd(source, target).item()
        0.0
        >>> far = mmd(source, target + 100)
        >>> round(far.item(), 2), torch.equal(far, mmd(8 * source, 8 * (target + 100)))
        (1.25, True)
    """
    require_features(source, target, least=2)
    if not factors or min(factors) <= 0:
        raise ValueError(f"factors are {tuple(factors)}; mmd needs positive ones, at least one.")
    both = torch.cat([source, target])
    both = both - both.detach().mean(dim=0)  # near 0, so that the products below lose no digits
    squares = both.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * both @ both.T).clamp_min(0)
    if scale is None:
        scale = _median(distances.detach())
    if not scale > 0:
        raise ValueError(f"scale is {float(scale)}; it must be positive.")
    kernel = sum(torch.exp(-distances / (f * scale)) for f in factors) / len(factors)
    n, m = len(source), len(target)
    within_source, within_target = kernel[:n, :n], kernel[n:, n:]
    if unbiased:
        first = (within_source.sum() - within_source.diagonal().sum()) / (n * (n - 1))
        second = (within_target.sum() - within_target.diagonal().sum()) / (m * (m - 1))
    else:
        first, second = within_source.mean(), within_target.mean()
    return first + second - 2 * kernel[:n, n:].mean()


def _median(distances: Tensor) -> Tensor:
    """The median of the squared distances [N, N] of different rows, as far as they are not 0."""
    rows, columns = torch.triu_indices(*distances.shape, offset=1, device=distances.device)
    between = distances[rows, columns]
    between = between[between > 1e-6 * distances.max()]  # below, rounding
    if not len(between):
        raise ValueError(
            "All rows of the source's and the target's features are equal:"
            " their distances have no median to scale by."
        )
    return between.median()
