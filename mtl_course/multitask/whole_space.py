"""One event that needs another: seen, and then liked. Losses over everything that was offered."""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_product(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """log of p and of 1 - p, where p = sigmoid(first) * sigmoid(second).

    From the logits, so that nothing is lost where a chance is nearly 0 or nearly 1.

    Args:
        first: logits, of any shape.
        second: logits, of the same shape.

    Returns:
        log p and log(1 - p), of that shape.

    Example:
        >>> log_p, log_rest = log_product(torch.tensor([0.0, 40.0]), torch.tensor([0.0, 40.0]))
        >>> log_p.exp().tolist(), log_rest.exp()[0].item(), round(log_rest[1].item(), 3)
        ([0.25, 1.0], 0.75, -39.307)
    """
    log_p = F.logsigmoid(first) + F.logsigmoid(second)
    # 1 - p = (e^-a + e^-b + e^-(a+b)) / ((1 + e^-a) (1 + e^-b))
    terms = torch.stack([-first, -second, -first - second])
    return log_p, torch.logsumexp(terms, dim=0) + log_p


def esmm_loss(seen_logit: Tensor, liked_logit: Tensor, seen: Tensor, liked: Tensor) -> Tensor:
    """Cross-entropy of "seen" and of "seen and liked", both over all rows.

    The second chance is a product, P(seen and liked) = P(seen) P(liked | seen), so that the head
    for P(liked | seen) learns from every row and has no loss of its own.

    Args:
        seen_logit: [N], of P(seen).
        liked_logit: [N], of P(liked | seen).
        seen: [N], 0 or 1.
        liked: [N], 0 or 1; what stands where a row was not seen is not read.

    Returns:
        Scalar: the mean of one plus the mean of the other.

    Raises:
        ValueError: if a shape is not [N], there are no rows, or `seen` is neither 0 nor 1; it
            names the row.

    Source:
        Ma et al., "Entire space multi-task model", SIGIR 2018, equations 1 and 3.

    Example:
        >>> zero = torch.zeros(4)
        >>> seen, liked = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
        >>> print(f"{esmm_loss(zero, zero, seen, liked):.4f}")  # log 2 + (log 4 + 3 log 4/3) / 4
        1.2555
    """
    given = {"seen_logit": seen_logit, "liked_logit": liked_logit, "seen": seen, "liked": liked}
    if wrong := {name: list(v.shape) for name, v in given.items() if v.shape != seen.shape}:
        raise ValueError(f"The shapes differ from that of `seen`, {list(seen.shape)}: {wrong}.")
    if seen.dim() != 1 or not len(seen):
        raise ValueError(f"All must be [N] with at least one row; `seen` is {list(seen.shape)}.")
    if (bad := (seen != 0) & (seen != 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"Row {row} has {float(seen[row]):g} for seen; it must be 0 or 1.")
    seen = seen.to(seen_logit)
    both = torch.where(seen == 1, liked.to(seen), 0)
    log_p, log_rest = log_product(seen_logit, liked_logit)
    product = -(both * log_p + (1 - both) * log_rest).mean()
    return F.binary_cross_entropy_with_logits(seen_logit, seen) + product
