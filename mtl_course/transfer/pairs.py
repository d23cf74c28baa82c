"""A source of pairs without labels: which text belongs to which picture? (CLIP's loss)"""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"The two sides have shapes {list(a.shape)} and {list(b.shape)}; both are [B, d], a"
            " picture and its text in the same row."
        )
    if len(a) < 2:
        raise ValueError(
            f"A batch of {len(a)} has no other pair to be told from; take two or more."
        )
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; it must be above 0.")
    for name, side in (("first", a), ("second", b)):
        # On a GPU the look would wait for the device; the loss is NaN there.
        if side.device.type == "cpu" and (empty := ~side.any(dim=1)).any():
            row = int(empty.nonzero()[0])
            raise ValueError(f"Row {row} of the {name} side is zero: it points nowhere.")
    logits = F.normalize(a, dim=1, eps=0.0) @ F.normalize(b, dim=1, eps=0.0).T / temperature
    partner = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2
