"""Penalties that hold a model near its source: L2-SP."""

from collections.abc import Mapping

import torch
from torch import Tensor


def l2_sp(
    params: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    strength: float | Tensor,
    new: float | Tensor = 0.0,
) -> Tensor:
    """The L2-SP penalty: squared distance from the source, where a parameter has one.

    `strength` x ||theta - theta_source||^2 for what comes from the source, `new` x ||theta||^2 for
    the rest, such as a new head. The paper's factors alpha and beta are twice ours.

    Args:
        params: name -> tensor, as ``dict(model.named_parameters())``.
        source: name -> the starting point, for the names that have one (the trunk). It is constant:
            copy it (``{name: p.detach().clone() ...}``), or it moves along with the model.
        strength: factor of the distance from the source.
        new: factor of the squared norm of what has no source.

    Returns:
        Scalar.

    Raises:
        ValueError: if a shape differs, or a name of `source` is no parameter.

    Source:
        Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with
        convolutional networks", ICML 2018, section 3.

    Example:
        >>> params = {"trunk": torch.tensor([1.0, 2.0]), "head": torch.tensor([3.0])}
        >>> source = {"trunk": torch.tensor([1.0, 4.0])}
        >>> l2_sp(params, source, strength=0.5, new=1.0)  # 0.5 * (0 + 4) + 1.0 * 9
        tensor(11.)
    """
    if unknown := source.keys() - params.keys():
        raise ValueError(f"The source has {', '.join(sorted(unknown))}, which the model does not.")
    terms = []
    for name, p in params.items():
        if name not in source:
            terms.append(new * p.square().sum())
        elif source[name].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(p.shape)} but {tuple(source[name].shape)} in the source:"
                " leave a new head out of it."
            )
        else:
            terms.append(strength * (p - source[name]).square().sum())
    return torch.stack(terms).sum()
