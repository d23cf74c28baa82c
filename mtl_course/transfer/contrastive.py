"""Sources without labels, from pairs of rows that belong together.

Which of these views come from the same image (SimCLR)? Which text belongs to which picture (CLIP)?
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent: each view must find the other view of its image among all views of the batch.

    It is a cross-entropy over the 2B - 1 other views, with the cosine divided by the temperature as
    logit. Only directions count. A low temperature looks at the nearest wrong views, a high one at
    all alike.

    Args:
        a: [B, d], the projection of one random view of each image.
        b: [B, d], of another view of the same images, in the same order. No row is zero.
        temperature: tau, above 0.

    Returns:
        Scalar, the mean over all 2B views. Views that are all the same give log(2B - 1).

    Raises:
        ValueError: shapes that differ or are no [B, d], fewer than two images (one has nothing to
            be told from), a row of zeros (on a CPU), or a temperature that is not above 0.

    Source:
        Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual
        representations", ICML 2020, equation 1 and algorithm 1.

    Example:
        >>> a = torch.eye(3)
        >>> print(f"{nt_xent(a, a):.4f}")  # log(1 + 4 exp(-2)): the partner is found
        0.4327
        >>> print(f"{nt_xent(torch.ones(3, 2), torch.ones(3, 2)):.4f}")  # log 5: all look alike
        1.6094
    """
    _require_pairs(a, b, temperature, "view", "images")
    B = len(a)
    z = F.normalize(torch.cat([a, b]), dim=1, eps=0.0)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # no view is its own partner
    partner = torch.arange(2 * B, device=a.device).roll(B)
    return F.cross_entropy(logits, partner)


def pair_loss(a: Tensor, b: Tensor, temperature: float = 0.1) -> Tensor:
    """CLIP's loss: each picture must find its text in the batch, and each text its picture.

    The mean of two cross-entropies over B choices, with the cosine divided by the temperature as
    logit. Unlike `nt_xent`, a picture is never compared with another picture: the two sides may
    have nothing in common but what their pairs say.

    Args:
        a: [B, d], the projection of each picture.
        b: [B, d], of each text, in the same order. No row is zero.
        temperature: tau, above 0.

    Returns:
        Scalar. Projections that are all the same give log B.

    Raises:
        ValueError: shapes that differ or are no [B, d], fewer than two pairs, a row of zeros (on a
            CPU), or a temperature that is not above 0.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021, figure 3.

    Example:
        >>> a = torch.eye(3)
        >>> print(f"{pair_loss(a, a, 0.5):.4f}")  # log(1 + 2 exp(-2)): the partner is found
        0.2395
        >>> print(f"{pair_loss(torch.ones(3, 2), torch.ones(3, 2)):.4f}")  # log 3: all look alike
        1.0986
    """
    _require_pairs(a, b, temperature, "side", "pairs")
    logits = F.normalize(a, dim=1, eps=0.0) @ F.normalize(b, dim=1, eps=0.0).T / temperature
    partner = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


def _require_pairs(a: Tensor, b: Tensor, temperature: float, side: str, others: str) -> None:
    """ValueError unless there are two or more pairs of rows with a direction, and a temperature."""
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"The two {side}s have shapes {list(a.shape)} and {list(b.shape)}; both are [B, d],"
            " and what belongs together stands in the same row."
        )
    if len(a) < 2:
        raise ValueError(
            f"A batch of {len(a)} has no other {others} to be told from; take two or more."
        )
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; it must be above 0.")
    for name, rows in (("first", a), ("second", b)):
        # On a GPU the look would wait for the device; the loss is NaN there.
        if rows.device.type == "cpu" and (empty := ~rows.any(dim=1)).any():
            row = int(empty.nonzero()[0])
            raise ValueError(f"Row {row} of the {name} {side} is zero: it points nowhere.")
