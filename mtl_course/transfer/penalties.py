"""Penalties that hold a model near its source: L2-SP."""

from collections.abc import Mapping

import torch
from torch import Tensor


def l2_sp(
    parameters: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    strength: float | Tensor,
    new: float | Tensor = 0.0,
) -> Tensor:
    """The L2-SP penalty: `strength` x ||theta - theta_source||^2 where there is a source, `new` x
    ||theta||^2 where there is none.

    parameters: name -> tensor, as ``dict(model.named_parameters())``; source: the starting point,
        for the names that have one (the trunk). It is constant: detach it and copy it (``{name:
        p.detach().clone() ...}``), or it moves along with the model. Returns a scalar. Source: Li,
        Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional
        networks", ICML 2018, section 3 (their factors alpha and beta are twice ours). ValueError if
        a shape differs, or a name of `source` is no parameter.
    """
    if unknown := source.keys() - parameters.keys():
        raise ValueError(f"The source has {', '.join(sorted(unknown))}, which the model does not.")
    terms = []
    for name, p in parameters.items():
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
