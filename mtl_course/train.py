"""Training: mini-batches, early stopping on validation data with the best weights put back, checkpoints that resume exactly.

`fit` trains a model on one task; `fit_tasks` a model on several, with loss weighting or gradient balancing. `loop` runs their
epochs, `steps` holds the step on several tasks, `checkpoint` what a stopped run goes on from. Data lie on the model's device,
where a batch is a matter of indexing, and no step waits for the device except where a method must read its losses or gradients.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .data.augment import Augment
from .data.batches import Separate, Table
from .evaluation import evaluate, evaluate_tasks, predict
from .history import History, TaskHistory
from .loop import new_run, not_finite, require_held, run_epochs
from .precision import Precision
from .steps import step, update
from .tasks import Task
from .weighting import Weighting

__all__ = ["History", "TaskHistory", "evaluate", "evaluate_tasks", "fit", "fit_tasks", "predict", "step"]


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int = 100,
    batch: int = 32,
    patience: int = 10,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    augment: Augment | None = None,
    schedule: LRScheduler | None = None,
    precision: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> History:
    """Train `model` in place on `train` = (inputs [N, ...], targets [N, ...]), both on the model's device; returns the losses.

    After every epoch the loss on `validation` decides (the penalty is no part of it): the best weights so far are kept and put
    back at the end, and `patience` epochs without a better one end the run. Test data have no place here. An interrupt
    (KeyboardInterrupt) also puts the best weights back before it goes on. `seed` fixes the order of the examples and the draws of
    `augment`.

    augment: (inputs of a training batch, generator on their device) -> inputs; see `data.augment`. Only training data change.
    schedule: stepped after every optimizer step, so it counts steps: ``epochs * ceil(N / batch)`` of them.
    precision: None for float32; torch.bfloat16; torch.float16, with a gradient scaler (see `precision`). Validation too.
    checkpoint: every epoch is saved there, and a call with the same arguments goes on where the file left off, to the same
        weights bit for bit where the operations are deterministic; more `epochs` prolong a run.

    ValueError if the optimizer misses a parameter that wants a gradient, or the checkpoint does not fit; FloatingPointError, with
    the epoch, if a loss is not finite; torch.OutOfMemoryError, with the batch size to try. Then, too, the best weights are put
    back first.
    """
    require_held(model.named_parameters(), optimizer)
    x, y = train
    arithmetic = Precision(precision, x.device)
    run = new_run(model, History(), optimizer, schedule, arithmetic, augment, None, batch, seed)
    order, draws = run.generators["order"], run.generators.get("augment")

    def one_epoch() -> float:
        total = torch.zeros((), device=x.device)
        for rows in torch.randperm(len(x), generator=order).to(x.device, non_blocking=True).split(batch):
            optimizer.zero_grad()
            inputs = x[rows] if augment is None else augment(x[rows], draws)
            with arithmetic.forward():
                outputs = model(inputs)
            data = loss(arithmetic.full(outputs), y[rows])
            arithmetic.backward(data if penalty is None else data + penalty(model))
            update(optimizer, schedule, arithmetic)
            total += len(rows) * data.detach()
        return float(total) / len(x)

    return run_epochs(
        run, one_epoch, lambda: evaluate(model, validation, loss, precision=precision),
        epochs=epochs, patience=patience, progress=progress, checkpoint=checkpoint,
    )  # fmt: skip


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
    """Train `model` in place on several tasks; returns losses and metrics of every task on the validation data.

    model: inputs -> dict from task name to output. tasks: name -> `Task`, for the very same names.
    combine: a `weighting.Weighting` of the losses (default: their sum), or a method of `balancing`, Gram matrix -> weights; the
        latter needs a model with a `trunk` and `heads`, such as `models.HardSharing`. A weighting with parameters must be in the
        optimizer: `weighting.parameter_groups` puts it there.
    The best epoch is the one with the least mean over tasks of validation loss / validation loss of the untrained model, so that
    no task decides by its unit. Everything else is as in `fit`. ValueError that names the task if names differ or a batch has no
    label of it.
    """
    combine = Weighting() if combine is None else combine
    require_held(model.named_parameters(), optimizer)
    if isinstance(combine, nn.Module):
        require_held(combine.named_parameters("weighting"), optimizer)
    initial, _ = evaluate_tasks(model, tasks, validation, precision=precision)
    history = TaskHistory(initial=initial, losses={name: [] for name in tasks}, metrics={name: [] for name in tasks})
    arithmetic = Precision(precision, next(model.parameters()).device)
    run = new_run(model, history, optimizer, schedule, arithmetic, augment, combine, batch, seed)

    def one_epoch() -> float:
        total = count = 0
        for data in train.batches(batch, run.generators["order"]):
            if augment is not None:
                data = replace(data, x=augment(data.x, run.generators["augment"]))
            losses = step(model, tasks, data, optimizer, combine, schedule=schedule, arithmetic=arithmetic)
            labelled = torch.ones_like(losses) if isinstance(combine, Weighting) else ~losses.isnan()
            total = total + torch.where(labelled > 0, losses, 0.0)
            count = count + labelled
        mean = (total / count).cpu()
        if bad := [name for name, ok in zip(tasks, torch.isfinite(mean).tolist(), strict=True) if not ok]:
            raise not_finite(f"training loss of {', '.join(map(repr, bad))} is not finite", len(history.train) + 1)
        if isinstance(combine, Weighting):
            combine.end_epoch(mean)
        return sum(float(m) / history.initial[name] for name, m in zip(tasks, mean, strict=True)) / len(tasks)

    def judge() -> float:
        losses, metrics = evaluate_tasks(model, tasks, validation, precision=precision)
        for name in tasks:
            history.losses[name].append(losses[name])
            history.metrics[name].append(metrics[name])
        return sum(losses[name] / history.initial[name] for name in tasks) / len(tasks)

    return run_epochs(run, one_epoch, judge, epochs=epochs, patience=patience, progress=progress, checkpoint=checkpoint)
