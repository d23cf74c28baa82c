"""Tasks: a name, a loss, a metric and which way the metric points.

And the relative gain over single-task learning.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Task:
    """One task: what is minimised, what is reported, and which way is better.

    Args:
        name: of the task, in messages.
        loss: (predictions, targets) -> scalar to minimise.
        metric: (predictions, targets) -> scalar to report.
        higher_is_better: the direction of the metric.

    Example:
        >>> depth = Task("depth", F.l1_loss, rmse, higher_is_better=False)
        >>> predictions, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]])
        >>> float(depth.loss(predictions, targets)), f"{depth.metric(predictions, targets):.3f}"
        (1.0, '1.414')
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of rows whose largest logit is that of their class.

    Args:
        logits: [N, C].
        target: class numbers [N] (int64).

    Returns:
        Scalar in [0, 1]; NaN if a logit is, since none is then the largest.

    Raises:
        ValueError: targets of another shape, such as [N, 1].

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
        >>> accuracy(logits, torch.tensor([0, 1, 1, 1]))
        tensor(0.7500)
    """
    predicted = logits.argmax(dim=1)
    _require_same_shape(predicted, target)
    right = (predicted == target).float()
    return right.masked_fill(logits.isnan().any(dim=1), torch.nan).mean()


def rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error.

    Args:
        prediction: of any shape.
        target: of the same shape.

    Returns:
        Scalar, in the target's unit.

    Raises:
        ValueError: the shapes differ (no silent broadcast).

    Example:
        >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0]))
        tensor(3.)
    """
    _require_same_shape(prediction, target)
    return F.mse_loss(prediction, target).sqrt()


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination R2.

    Args:
        prediction: of any shape.
        target: of the same shape.

    Returns:
        Scalar without unit: 1 for a perfect fit, 0 for predicting the mean of `target`, below 0 if
        worse than that. NaN where the target is the same everywhere: there is no variance to
        explain.

    Raises:
        ValueError: the shapes differ (no silent broadcast).

    Example:
        >>> target = torch.tensor([1.0, 2.0, 3.0])
        >>> for prediction in (target, torch.full((3,), 2.0), target.flip(0)):
        ...     print(float(r2(prediction, target)))
        1.0
        0.0
        -3.0
    """
    _require_same_shape(prediction, target)
    total = ((target - target.mean()) ** 2).sum()
    # The mean of equal numbers is rounded, so their variance need not come out as 0.
    rounding = (4 * torch.finfo(target.dtype).eps) ** 2 * (target**2).sum()
    share = 1 - ((prediction - target) ** 2).sum() / total
    return torch.where(total > rounding, share, torch.nan)


def _require_same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} but target has {tuple(target.shape)};"
            " reshape one of them."
        )


def regression(name: str) -> Task:
    """A regression task: mean squared error, reported as R2.

    Its loss refuses integer targets and shapes that would broadcast, with a ValueError that names
    the task.

    Args:
        name: of the task.

    Returns:
        The task, with predictions and targets of one shape.

    Raises:
        ValueError: by the loss, see above.

    Example:
        >>> size = regression("size")
        >>> size.loss(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))
        tensor(5.)
        >>> size.loss(torch.zeros(2, 1), torch.tensor([1.0, 3.0]))
        Traceback (most recent call last):
        ValueError: Task 'size': prediction (2, 1) and target (2,) differ in shape; reshape one.
    """

    def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            raise ValueError(
                f"The targets of task {name!r} are {target.dtype};"
                " a regression needs floats, y.float() for instance."
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

    Its loss refuses targets of other types and shapes, with a ValueError that names the task.

    Args:
        name: of the task.

    Returns:
        The task, with logits [N, C, ...] and class numbers [N, ...] (int64).

    Raises:
        ValueError: by the loss, see above.

    Example:
        >>> kind = classification("kind")
        >>> logits, target = torch.zeros(3, 2), torch.tensor([0, 1, 1])
        >>> f"{kind.loss(logits, target):.4f}"  # log 2
        '0.6931'
        >>> kind.loss(logits, target.float())
        Traceback (most recent call last):
        ValueError: The targets of task 'kind' are torch.float32; a classification...
    """

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        if target.dtype != torch.int64:
            raise ValueError(
                f"The targets of task {name!r} are {target.dtype};"
                " a classification needs class numbers, y.long() for instance."
            )
        # The shapes are read only where torch refuses them: comparing them costs a small network
        # one step in fifty.
        try:
            return F.cross_entropy(logits, target)
        except (RuntimeError, ValueError) as error:
            wanted = logits.shape[:1] + logits.shape[2:]
            if target.shape == wanted:
                raise
            raise ValueError(
                f"Task {name!r}: logits {tuple(logits.shape)} need one class number per row,"
                f" {list(wanted)}, and the targets have shape {tuple(target.shape)}."
            ) from error

    return Task(name, cross_entropy, accuracy, higher_is_better=True)


def delta_m(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Mean relative gain of a multi-task model over single-task models, in per cent.

    Args:
        multi: task -> metric of the joint model.
        single: task -> metric of the single-task model.
        higher_is_better: task -> direction of the metric.

    Returns:
        The mean over tasks of (multi - single) / single, in per cent, with the sign turned where
        lower is better; positive is better.

    Raises:
        ValueError: the names differ, there are none, a metric is not finite, or a single-task
            metric is 0 (the relative gain has no meaning there); names the task.

    Source:
        Maninis, Radosavovic and Kokkinos, "Attentive single-tasking of multiple tasks", CVPR 2019,
        equation 4.

    Example:
        >>> joint, alone = {"kind": 0.9, "depth": 2.0}, {"kind": 0.8, "depth": 1.6}
        >>> f"{delta_m(joint, alone, {'kind': True, 'depth': False}):.2f} %"  # 12.5 % and -25 %
        '-6.25 %'
    """
    if not (multi.keys() == single.keys() == higher_is_better.keys()):
        raise ValueError(
            f"The tasks differ: {sorted(multi)}, {sorted(single)} and {sorted(higher_is_better)}."
        )
    if not single:
        raise ValueError("There is no task to take the mean over.")
    gains = []
    for name, base in single.items():
        if not (math.isfinite(base) and math.isfinite(multi[name])):
            raise ValueError(
                f"The metrics of {name!r} are {multi[name]} and {base} alone;"
                " a relative gain needs two finite numbers."
            )
        if base == 0:
            raise ValueError(
                f"The single-task metric of {name!r} is 0, so no relative gain exists;"
                " compare differences instead."
            )
        sign = 1 if higher_is_better[name] else -1
        gains.append(sign * (multi[name] - base) / abs(base))
    return 100 * sum(gains) / len(gains)
