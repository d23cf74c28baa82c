"""One training step on several tasks: the losses weighted into one scalar, or the trunk's gradients balanced."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .backward import balanced_backward
from .data.batches import Batch
from .precision import Precision
from .tasks import Task
from .weighting import Weighting


def step(
    model: nn.Module,
    tasks: Mapping[str, Task],
    data: Batch,
    optimizer: torch.optim.Optimizer,
    combine: Weighting | Callable[[Tensor], Tensor],
    *,
    schedule: LRScheduler | None = None,
    arithmetic: Precision | None = None,
) -> Tensor:
    """One step on one batch; returns the task losses [T] before it, NaN for a task without a label in this batch.

    A weighting needs a label of every task in every batch (ValueError with the task's name); a balancing method does not.
    With a weighting, nothing waits for the GPU: whether the losses are finite is for the caller to ask, once in a while.
    """
    arithmetic = arithmetic or Precision(None, data.x.device)
    optimizer.zero_grad()
    if not isinstance(combine, Weighting):
        losses = _balanced_backward(model, tasks, data, combine, arithmetic)
        update(optimizer, schedule, arithmetic)
        return losses
    losses = _losses(model, tasks, data, arithmetic)
    combine.before_backward(losses, model.trunk.parameters() if hasattr(model, "trunk") else model.parameters())
    arithmetic.backward(combine(losses))
    update(optimizer, schedule, arithmetic)
    if combine.wants_losses_after_step:
        with torch.no_grad():
            after = _losses(model, tasks, data, arithmetic)
        combine.after_step(after)
    return losses.detach()


def _losses(model, tasks, data, arithmetic):
    with arithmetic.forward():
        outputs = model(data.x)
    outputs = arithmetic.full(outputs)
    found = []
    for name, task in tasks.items():
        if name not in data.targets:
            what = f"No example of this batch has a label for task {name!r}"
            raise ValueError(f"{what}: take larger batches, or a balancing method.")
        rows, y = data.targets[name]
        found.append(task.loss(outputs[name][rows], y))
    return torch.stack(found)


def _balanced_backward(model, tasks, data, weigh, arithmetic):
    if not (hasattr(model, "trunk") and hasattr(model, "heads")):
        what = f"{type(model).__name__} has no `trunk` and `heads`"
        raise TypeError(f"{what}; gradient balancing needs to know what the tasks share.")

    def loss_of(name, task):
        def from_features(z):
            if name not in data.targets:
                return None
            rows, y = data.targets[name]
            with arithmetic.forward():
                output = model.heads[name](z[rows])
            return task.loss(arithmetic.full(output), y)

        return from_features

    with arithmetic.forward():
        features = model.trunk(data.x)
    losses = {name: loss_of(name, task) for name, task in tasks.items()}
    done = balanced_backward(features, losses, model.trunk.parameters(), weigh, scaler=arithmetic.scaler)
    found = dict(zip(done.tasks, done.losses, strict=True))
    return torch.stack([found.get(name, done.losses.new_tensor(float("nan"))) for name in tasks])


def update(optimizer, schedule, arithmetic):
    """The optimizer's step and, if it was taken, the schedule's."""
    if arithmetic.step(optimizer) and schedule is not None:
        schedule.step()
