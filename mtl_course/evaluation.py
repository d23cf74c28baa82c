"""Predictions, losses and metrics over whole data sets, a chunk at a time, so that memory does not limit their size."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .data.batches import Separate, Table
from .precision import Precision
from .tasks import Task


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, *, batch: int = 2048, precision: torch.dtype | None = None):
    """``model(x)`` in evaluation mode and without gradients, `batch` rows at a time; the model's mode is put back.

    The model gives a tensor [N, ...] or a dict of these; so does this, in float32 whatever the precision of the forward pass.
    Where a GPU's memory does not suffice, chunks are halved until it does: rows do not meet in evaluation mode, so the result is
    the same.
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


def evaluate_tasks(
    model: nn.Module, tasks: Mapping[str, Task], data: Table | Separate, *, precision: torch.dtype | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and metric of every task over all of `data`, unweighted: two dicts, task -> number. ValueError names a missing one."""
    whole = data.whole()
    outputs = predict(model, whole.x, precision=precision)
    places = {"the model's outputs": outputs, "the data's labels": whole.targets}
    for where, found in places.items():
        if missing := [name for name in tasks if name not in found]:
            raise ValueError(f"Task {', '.join(map(repr, missing))} is not among {where}, which are {', '.join(found)}.")
        if extra := [name for name in found if name not in tasks]:
            names = ", ".join(map(repr, extra))
            raise ValueError(f"{names} is among {where} but no task: add its loss to `tasks`, or leave it out.")
    losses, metrics = {}, {}
    for name, task in tasks.items():
        rows, y = whole.targets[name]
        losses[name], metrics[name] = float(task.loss(outputs[name][rows], y)), float(task.metric(outputs[name][rows], y))
    return losses, metrics
