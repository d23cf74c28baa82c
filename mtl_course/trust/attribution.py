"""What an answer rests on, column by column, and whether that is true of the model.

An attribution is a claim about the model, so it can be checked: take away what it calls important,
and the output must fall faster than when columns are taken away in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _columns(x: Tensor, baseline: Tensor) -> None:
    if x.dim() != 2 or baseline.shape != x.shape[1:]:
        raise ValueError(
            f"Inputs [B, d] and a baseline [d] are wanted; they are {list(x.shape)} and"
            f" {list(baseline.shape)}."
        )


def integrated_gradients(
    output: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, steps: int = 32
) -> Tensor:
    """How much each column moved one output, on the straight way from a baseline to x.

    The gradient is averaged over the way (at the middles of `steps` equal pieces) and multiplied by
    how far the column has come. The columns of a row add up to output(x) - output(baseline), up to
    the error of the sum over steps.

    Args:
        output: inputs [B, d] -> [B], one number per row: one task's logit. No row may depend on
            another.
        x: [B, d].
        baseline: [d], the input that stands for "nothing is known", such as the mean.
        steps: >= 1.

    Returns:
        [B, d], signed, in units of the output.

    Raises:
        ValueError: shapes, no step, or an output that is not [B].

    Source:
        Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017,
        equation 1.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> shares = integrated_gradients(lambda x: x[:, 0] * x[:, 1], x, torch.zeros(2))
        >>> [round(value, 4) for value in shares[0].tolist()]  # a product is shared evenly
        [1.0, 1.0]
    """
    _columns(x, baseline)
    if steps < 1:
        raise ValueError(f"steps must be at least 1; it is {steps}.")
    way = (x - baseline).detach()
    total = torch.zeros_like(way)
    with torch.enable_grad():
        for k in range(steps):
            point = (baseline + (k + 0.5) / steps * way).detach().requires_grad_()
            value = output(point)
            if value.shape != (len(x),):
                raise ValueError(
                    f"output gives {list(value.shape)} for {len(x)} rows; one number per row is"
                    " wanted: choose a task and a class."
                )
            total += torch.autograd.grad(value.sum(), point)[0]
    return way * total / steps


def deletion_curve(
    output: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    scores: Tensor,
    groups: Tensor | None = None,
) -> Tensor:
    """One output while columns are set to the baseline, those with the highest scores first.

    Args:
        output: inputs [B, d] -> [B].
        x: [B, d].
        baseline: [d].
        scores: [B, G], of each group of columns; equal scores go in the order of the groups.
        groups: int [d], the group of each column, from 0 to G - 1: the columns of a one-hot
            category are deleted together. None makes each column a group of its own.

    Returns:
        [B, G + 1]: the output before anything is deleted, then after each group.

    Raises:
        ValueError: shapes, a NaN among the scores, or a group without a column.

    Source:
        Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box
        models", BMVC 2018 (deletion).

    Example:
        >>> x, nothing = torch.tensor([[5.0, 1.0, 3.0]]), torch.zeros(3)
        >>> deletion_curve(lambda x: x.sum(1), x, nothing, scores=x).tolist()
        [[9.0, 4.0, 1.0, 0.0]]
    """
    _columns(x, baseline)
    d = x.shape[1]
    groups = torch.arange(d, device=x.device) if groups is None else groups
    G = scores.shape[-1] if scores.dim() == 2 else -1
    if scores.shape != (len(x), G) or groups.shape != (d,):
        raise ValueError(
            f"scores [B, G] and groups [d] are wanted; they are {list(scores.shape)} and"
            f" {list(groups.shape)} for x {list(x.shape)}."
        )
    if torch.unique(groups).tolist() != list(range(G)):
        raise ValueError(f"Groups are numbered 0 to {G - 1}, and each has a column.")
    if scores.isnan().any():
        raise ValueError("A score is NaN: it has no place in an order.")
    place = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # [B, G]
    turn = place[:, groups]  # [B, d], when a column goes
    with torch.no_grad():
        return torch.stack(
            [output(torch.where(turn < k, baseline, x)) for k in range(G + 1)], dim=1
        )
