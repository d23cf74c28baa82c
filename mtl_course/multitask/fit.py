"""Training on several tasks: the step, the evaluation of every task, and the loop around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..data.augment import Augment
from ..data.batches import Batch, Separate, Table
from ..training.evaluation import predict
from ..training.history import History
from ..training.loop import new_run, not_finite, require_held, run_epochs, update
from ..training.precision import Precision
from ..training.tasks import Task, delta_m
from .backward import balanced_backward
from .weighting import Weighting


@dataclass
class TaskHistory(History):
    """A run over several tasks. `losses` and `metrics`: task -> one validation value an epoch, in
    the task's own unit.

    `initial`: task -> validation loss of the untrained model. `train` and `validation` are means
    over tasks of the loss divided by it, which have no unit.
    """

    initial: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """Validation metric of each task at the best epoch. ValueError where no epoch was better
        than the untrained model.
        """
        if not self.best_epoch:
            raise ValueError(
                "No epoch improved on the untrained model: lower the learning rate, or train for"
                " longer."
            )
        return {name: values[self.best_epoch - 1] for name, values in self.metrics.items()}

    def delta_m(self, single: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
        """Mean relative gain at the best epoch over single-task models with the validation metrics
        `single`, in per cent (`tasks.delta_m`).
        """
        return delta_m(
            self.best, single, {name: task.higher_is_better for name, task in tasks.items()}
        )


def evaluate_tasks(
    model: nn.Module,
    tasks: Mapping[str, Task],
    data: Table | Separate,
    *,
    precision: torch.dtype | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and metric of every task over all of `data`, unweighted: two dicts, task -> number.
    ValueError names a missing one.
    """
    whole = data.whole()
    outputs = predict(model, whole.x, precision=precision)
    places = {"the model's outputs": outputs, "the data's labels": whole.targets}
    for where, found in places.items():
        if missing := [name for name in tasks if name not in found]:
            raise ValueError(
                f"Task {', '.join(map(repr, missing))} is not among {where}, which are"
                f" {', '.join(found)}."
            )
        if extra := [name for name in found if name not in tasks]:
            names = ", ".join(map(repr, extra))
            raise ValueError(
                f"{names} is among {where} but no task: add its loss to `tasks`, or leave it out."
            )
    losses, metrics = {}, {}
    for name, task in tasks.items():
        rows, y = whole.targets[name]
        losses[name], metrics[name] = (
            float(task.loss(outputs[name][rows], y)),
            float(task.metric(outputs[name][rows], y)),
        )
    return losses, metrics


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
    """One step on one batch; returns the task losses [T] before it, NaN for a task without a label
    in this batch.

    A weighting needs a label of every task in every batch (ValueError with the task's name); a
    balancing method does not. With a weighting, nothing waits for the GPU: whether the losses are
    finite is for the caller to ask, once in a while.
    """
    arithmetic = arithmetic or Precision(None, data.x.device)
    optimizer.zero_grad()
    if not isinstance(combine, Weighting):
        losses = _balanced_backward(model, tasks, data, combine, arithmetic)
        update(optimizer, schedule, arithmetic)
        return losses
    losses = _losses(model, tasks, data, arithmetic)
    combine.before_backward(
        losses, model.trunk.parameters() if hasattr(model, "trunk") else model.parameters()
    )
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
    done = balanced_backward(
        features, losses, model.trunk.parameters(), weigh, scaler=arithmetic.scaler
    )
    found = dict(zip(done.tasks, done.losses, strict=True))
    return torch.stack([found.get(name, done.losses.new_tensor(float("nan"))) for name in tasks])


def fit_tasks(
    model: nn.Module,
    tasks: Mapping[str, Task],
    train: Table | Separate,
    validation: Table | Separate,
    optimizer: torch.optim.Optimizer,
    combine: Weighting | Callable[[Tensor], Tensor] | None = None,
    *,
    epochs: int = 100,
    batch: int = 32,
    patience: int = 10,
    augment: Augment | None = None,
    schedule: LRScheduler | None = None,
    precision: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> TaskHistory:
    """Train `model` in place on several tasks; returns losses and metrics of every task on the
    validation data.

    model: inputs -> dict from task name to output. tasks: name -> `Task`, for the very same names.
    combine: a `weighting.Weighting` of the losses (default: their sum), or a method of `balancing`,
        Gram matrix -> weights; the
        latter needs a model with a `trunk` and `heads`, such as `multitask.HardSharing`. A
        weighting with parameters must be in the
        optimizer: `weighting.parameter_groups` puts it there. The best epoch is the one with the
            least mean over tasks of validation loss / validation loss of the untrained model, so
            that no task decides by its unit. Everything else is as in `fit`. ValueError that names
            the task if names differ or a batch has no label of it.
    """
    combine = Weighting() if combine is None else combine
    require_held(model.named_parameters(), optimizer)
    if isinstance(combine, nn.Module):
        require_held(combine.named_parameters("weighting"), optimizer)
    initial, _ = evaluate_tasks(model, tasks, validation, precision=precision)
    history = TaskHistory(
        initial=initial, losses={name: [] for name in tasks}, metrics={name: [] for name in tasks}
    )
    arithmetic = Precision(precision, next(model.parameters()).device)
    run = new_run(model, history, optimizer, schedule, arithmetic, augment, combine, batch, seed)

    def one_epoch() -> float:
        total = count = 0
        for data in train.batches(batch, run.generators["order"]):
            if augment is not None:
                data = replace(data, x=augment(data.x, run.generators["augment"]))
            losses = step(
                model, tasks, data, optimizer, combine, schedule=schedule, arithmetic=arithmetic
            )
            labelled = (
                torch.ones_like(losses) if isinstance(combine, Weighting) else ~losses.isnan()
            )
            total = total + torch.where(labelled > 0, losses, 0.0)
            count = count + labelled
        mean = (total / count).cpu()
        if bad := [
            name for name, ok in zip(tasks, torch.isfinite(mean).tolist(), strict=True) if not ok
        ]:
            raise not_finite(
                f"training loss of {', '.join(map(repr, bad))} is not finite",
                len(history.train) + 1,
            )
        if isinstance(combine, Weighting):
            combine.end_epoch(mean)
        return sum(
            float(m) / history.initial[name] for name, m in zip(tasks, mean, strict=True)
        ) / len(tasks)

    def judge() -> float:
        losses, metrics = evaluate_tasks(model, tasks, validation, precision=precision)
        for name in tasks:
            history.losses[name].append(losses[name])
            history.metrics[name].append(metrics[name])
        return sum(losses[name] / history.initial[name] for name in tasks) / len(tasks)

    return run_epochs(
        run,
        one_epoch,
        judge,
        epochs=epochs,
        patience=patience,
        progress=progress,
        checkpoint=checkpoint,
    )
