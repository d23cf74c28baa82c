"""Predictions, losses and metrics over whole data sets, a chunk at a time.

So memory does not limit the size of the sets.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .distributed import gathered, place
from .faults import require_rows
from .modes import batch_norms, chunks, evaluating
from .precision import Precision


@torch.no_grad()
def predict(
    model: nn.Module, x: Tensor, *, batch: int = 2048, precision: torch.dtype | None = None
) -> Tensor | dict[str, Tensor]:
    """``model(x)`` in evaluation mode and without gradients, `batch` rows at a time.

    The mode of every module is put back at the end. Where a GPU's memory does not suffice, chunks
    are halved until it does: rows do not meet in evaluation mode, so the result is the same. Only a
    BatchNorm without running statistics takes those of the chunk; it gets no row alone.

    Args:
        model: from inputs [N, ...] to a tensor [N, ...] or a dict of these.
        x: inputs [N, ...], on the model's device.
        batch: rows in a chunk.
        precision: dtype of the forward passes; None for float32.

    Returns:
        What the model gives for all rows, in float32 whatever the precision.

    Raises:
        ValueError: a single row, and a BatchNorm without running statistics.
        torch.OutOfMemoryError: not even one row fits.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.9), nn.Flatten())
        >>> predict(model, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), batch=1).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
        >>> model.training
        True
    """
    precision = Precision(precision, x.device)
    norms = batch_norms(model, training=False)
    if norms and len(x) == 1:
        raise ValueError(
            f"The norm {norms[0]!r} has no running statistics and takes those of the rows at hand;"
            " of a single row there are none. Give it two rows, or track_running_stats=True."
        )
    least = 2 if norms else 1
    with evaluating(model):
        while True:
            try:
                return _join([precision.outputs(model, rows) for rows in chunks(x, batch, least)])
            except torch.OutOfMemoryError:
                if min(batch, len(x)) <= least:
                    raise
                batch = min(batch, len(x)) // 2


def predict_together(
    model: nn.Module, x: Tensor, *, precision: torch.dtype | None = None
) -> Tensor | dict[str, Tensor]:
    """`predict` by all processes of a group, each for its share of the rows; all get all outputs.

    Every process must call it, with the same inputs.
    """
    rank, size = place()
    if size == 1 or not isinstance(x, Tensor) or len(x) < size:
        return predict(model, x, precision=precision)
    shares = x.tensor_split(size)
    counts = [len(share) for share in shares]
    outputs = predict(model, shares[rank], precision=precision)
    if isinstance(outputs, Mapping):
        return {name: gathered(output, counts) for name, output in outputs.items()}
    return gathered(outputs, counts)


def _join(chunks: list) -> Tensor | dict[str, Tensor]:
    """One result from the chunks' results, each a tensor or a dict of tensors."""
    if len(chunks) == 1:
        return chunks[0]
    if isinstance(chunks[0], Mapping):
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return torch.cat(chunks)


def evaluate(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    measure: Callable[[Tensor, Tensor], Tensor],
    *,
    precision: torch.dtype | None = None,
) -> float:
    """A loss or metric of the model over all of `data` at once, on the outputs of `predict`.

    Args:
        model: from inputs [N, ...] to predictions [N, ...].
        data: inputs [N, ...] and targets [N, ...], on the model's device.
        measure: (predictions, targets) -> scalar, such as `accuracy`.
        precision: dtype of the forward passes; None for float32.

    Returns:
        ``measure(model(x), y)``, in the measure's unit.

    Raises:
        ValueError: there are no rows, or not as many inputs as targets.

    Example:
        >>> from mtl_course.training import accuracy
        >>> logits, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
        >>> evaluate(nn.Identity(), (logits, labels), accuracy)
        0.75
    """
    x, y = data
    require_rows("The data", x, y)
    return float(measure(predict(model, x, precision=precision), y))
