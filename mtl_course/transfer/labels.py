"""Target transfer: a map from the source's label space to the target's."""

import torch
from torch import Tensor, nn


def label_map(
    source_probabilities: Tensor, labels: Tensor, classes: int, prior: float = 0.0
) -> Tensor:
    """Estimate P(target label | source label) from a few target examples.

    Every example adds its probabilities to the column of its label. ``source_probabilities @
    label_map(...)`` then are probabilities of target labels.

    Args:
        source_probabilities: [N, source classes], the source model's output on the target's inputs,
            rows that sum to 1.
        labels: int64 [N], the target's labels, from 0 to classes - 1.
        classes: number of target classes.
        prior: what stands in every cell before the first example.

    Returns:
        [source classes, target classes], rows that sum to 1; a row without any mass is uniform.

    Raises:
        ValueError: if the lengths differ or a label is outside 0..classes - 1.

    Source:
        Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of
        learned representations", ICML 2020, equations 1 and 2 (there without a prior).

    Example:
        >>> p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
        >>> label_map(p, torch.tensor([1, 0, 0, 1]), classes=2)
        tensor([[0.0000, 1.0000],
                [0.8000, 0.2000]])
    """
    if len(source_probabilities) != len(labels):
        raise ValueError(
            f"{len(source_probabilities)} rows of probabilities but {len(labels)} labels."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"Labels must lie in 0..{classes - 1};"
            f" they go from {int(labels.min())} to {int(labels.max())}."
        )
    one_hot = nn.functional.one_hot(labels, classes).to(source_probabilities)
    mass = source_probabilities.T @ one_hot + prior
    total = mass.sum(dim=1, keepdim=True)
    shares = mass / total.clamp_min(torch.finfo(mass.dtype).tiny)
    return torch.where(total > 0, shares, torch.full_like(mass, 1 / classes))
