"""A source without labels: which of these views come from the same image? (SimCLR's loss)"""

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
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"The two views have shapes {list(a.shape)} and {list(b.shape)}; both are [B, d]."
        )
    B = len(a)
    if B < 2:
        raise ValueError(f"A batch of {B} has no other images to be told from; take two or more.")
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; it must be above 0.")
    for name, view in (("first", a), ("second", b)):
        # On a GPU the look would wait for the device; the loss is NaN there.
        if view.device.type == "cpu" and (empty := ~view.any(dim=1)).any():
            row = int(empty.nonzero()[0])
            raise ValueError(f"Row {row} of the {name} view is zero: it points nowhere.")
    z = F.normalize(torch.cat([a, b]), dim=1, eps=0.0)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # no view is its own partner
    partner = torch.arange(2 * B, device=a.device).roll(B)
    return F.cross_entropy(logits, partner)
