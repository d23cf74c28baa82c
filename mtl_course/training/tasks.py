"""Tasks: a name, a loss, a metric and which way the metric points; and the relative gain over
single-task learning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Task:
    """One task. `loss` and `metric` take (prediction, target); `higher_is_better` is the direction
    of the metric.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of rows of `logits` [N, C] whose largest entry is the class `target` [N] (int64).
    Scalar in [0, 1].

    ValueError for targets of another shape, such as [N, 1].
    """
    predicted = logits.argmax(dim=1)
    _same_shape(predicted, target)
    return (predicted == target).float().mean()


def rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error, in the target's unit. Both of the same shape; ValueError otherwise
    (no silent broadcast).
    """
    _same_shape(prediction, target)
    return F.mse_loss(prediction, target).sqrt()


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination: 1 for a perfect fit, 0 for predicting the mean of `target`,
    below 0 if worse than that.
    """
    _same_shape(prediction, target)
    return 1 - ((prediction - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()


def _same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} but target has {tuple(target.shape)};"
            " reshape one of them."
        )


def regression(name: str) -> Task:
    """A regression task: mean squared error, reported as R2. Its loss refuses integer targets and
    shapes that would broadcast.
    """

    def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            raise ValueError(
                f"The targets of task {name!r} are {target.dtype}; a regression needs floats,"
                " y.float() for instance."
            )
        if prediction.shape != target.shape:
            raise ValueError(
                f"Task {name!r}: prediction {tuple(prediction.shape)} and target"
                f" {tuple(target.shape)} differ in shape; reshape one."
            )
        return F.mse_loss(prediction, target)

    return Task(name, mean_squared_error, r2, higher_is_better=True)


def classification(name: str) -> Task:
    """A classification task: cross-entropy in nats, reported as accuracy.

    Logits [N, C, ...], targets [N, ...]: class numbers (int64). Its loss refuses other types and
    shapes.
    """

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        if target.dtype != torch.int64:
            raise ValueError(
                f"The targets of task {name!r} are {target.dtype}; a classification needs class"
                " numbers, y.long() for instance."
            )
        wanted = (*logits.shape[:1], *logits.shape[2:])
        if target.shape != wanted:
            shapes = (
                f"logits {tuple(logits.shape)} need one class number a row, {list(wanted)}, and the"
                f" targets have shape {tuple(target.shape)}"
            )
            raise ValueError(f"Task {name!r}: {shapes}.")
        return F.cross_entropy(logits, target)

    return Task(name, cross_entropy, accuracy, higher_is_better=True)


def delta_m(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Mean relative gain of a multi-task model over single-task models, in per cent; positive is
    better.

    The three mappings go from task name to the metric of the joint model, to that of the
    single-task model, and to the direction. Source: Maninis, Radosavovic and Kokkinos, "Attentive
    single-tasking of multiple tasks", CVPR 2019, equation 4. ValueError if the names differ or a
    single-task metric is 0 (the relative gain has no meaning there).
    """
    if not (multi.keys() == single.keys() == higher_is_better.keys()):
        raise ValueError(
            f"The tasks differ: {sorted(multi)}, {sorted(single)} and {sorted(higher_is_better)}."
        )
    gains = []
    for name, base in single.items():
        if base == 0:
            raise ValueError(
                f"The single-task metric of {name!r} is 0, so no relative gain exists; compare"
                " differences instead."
            )
        sign = 1 if higher_is_better[name] else -1
        gains.append(sign * (multi[name] - base) / abs(base))
    return 100 * sum(gains) / len(gains)
