"""Target transfer: a map from the source's label space to the target's."""

import torch
from torch import Tensor, nn


def label_map(
    source_probabilities: Tensor, labels: Tensor, classes: int, prior: float = 0.0
) -> Tensor:
    """Estimate P(target label | source label) from a few target examples: a matrix [source classes,
    target classes], rows sum to 1.

    source_probabilities: [n, source classes], the source model's output on the target inputs, rows
        sum to 1; labels: int64 [n]. Every example adds its probabilities to its label's column, and
        `prior` stands in every cell before the first one. ``source_probabilities @ label_map(...)``
        then are probabilities of target labels. A row without any mass becomes uniform. Source:
        Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of
        learned representations", ICML 2020, equations 1 and 2 (there without a prior). ValueError
        if the lengths differ or a label is outside 0..classes - 1.
    """
    if len(source_probabilities) != len(labels):
        raise ValueError(
            f"{len(source_probabilities)} rows of probabilities but {len(labels)} labels."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"Labels must lie in 0..{classes - 1}; they go from {int(labels.min())} to"
            f" {int(labels.max())}."
        )
    one_hot = nn.functional.one_hot(labels, classes).to(source_probabilities)
    mass = source_probabilities.T @ one_hot + prior
    total = mass.sum(dim=1, keepdim=True)
    return torch.where(
        total > 0,
        mass / total.clamp_min(torch.finfo(mass.dtype).tiny),
        torch.full_like(mass, 1 / classes),
    )
