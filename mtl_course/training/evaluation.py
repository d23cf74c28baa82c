"""Predictions, losses and metrics over whole data sets, a chunk at a time, so that memory does not
limit their size.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .precision import Precision


@torch.no_grad()
def predict(
    model: nn.Module, x: Tensor, *, batch: int = 2048, precision: torch.dtype | None = None
):
    """``model(x)`` in evaluation mode and without gradients, `batch` rows at a time; the model's
    mode is put back.

    The model gives a tensor [N, ...] or a dict of these; so does this, in float32 whatever the
    precision of the forward pass. Where a GPU's memory does not suffice, chunks are halved until it
    does: rows do not meet in evaluation mode, so the result is the same.
    """
    arithmetic = Precision(precision, x.device)
    was = model.training
    model.eval()
    try:
        while True:
            try:
                return _join([_outputs(model, rows, arithmetic) for rows in x.split(batch)])
            except torch.OutOfMemoryError:
                if min(batch, len(x)) <= 1:
                    raise
                batch = min(batch, len(x)) // 2
    finally:
        model.train(was)


def _outputs(model, x, arithmetic):
    with arithmetic.forward():
        outputs = model(x)
    return arithmetic.full(outputs)


def _join(parts):
    """One result from the chunks' results, each a tensor or a dict of tensors."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Mapping):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(parts)


def evaluate(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    measure: Callable[[Tensor, Tensor], Tensor],
    *,
    precision: torch.dtype | None = None,
) -> float:
    """``measure(model(x), y)`` over all of `data` = (x, y) at once, on `predict`'s outputs."""
    return float(measure(predict(model, data[0], precision=precision), data[1]))
