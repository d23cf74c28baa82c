"""One training loop: mini-batches, early stopping on validation data with the best weights put back, checkpoints that resume exactly.

`fit` trains a model on one task; `fit_tasks` a model on several, with loss weighting or gradient balancing. Both run `_loop`.
"""

import math
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .backward import balanced_backward
from .data.batches import Batch, Separate, Table
from .tasks import Task
from .weighting import Weighting


@dataclass
class History:
    """Losses of a run, one value an epoch, and the epoch (from 1) whose weights the model has now; 0 is the model as it came."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass
class TaskHistory(History):
    """A run over several tasks. `losses` and `metrics`: task -> one validation value an epoch, in the task's own unit.

    `initial`: task -> validation loss of the untrained model. `train` and `validation` are means over tasks of the loss divided by it,
    which have no unit.
    """

    initial: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """Validation metric of each task at the best epoch. ValueError where no epoch was better than the untrained model."""
        if not self.best_epoch:
            raise ValueError("No epoch improved on the untrained model: lower the learning rate, or train for longer.")
        return {name: values[self.best_epoch - 1] for name, values in self.metrics.items()}


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
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> History:
    """Train `model` in place on `train` = (inputs [N, ...], targets [N, ...]), both on the model's device; returns the losses.

    After every epoch the loss on `validation` decides (the penalty is no part of it): the best weights so far are kept and put back at
    the end, and `patience` epochs without a better one end the run. Test data have no place here. An interrupt (KeyboardInterrupt) also
    puts the best weights back before it goes on. `seed` fixes the order of the examples.
    With `checkpoint`, every epoch is saved there, and a call with the same arguments goes on where the file left off.
    ValueError if the optimizer misses a parameter that wants a gradient, or the checkpoint does not fit; FloatingPointError, with the
    epoch, if a loss is not finite.
    """
    _require_held(model, optimizer)
    x, y = train
    order = torch.Generator().manual_seed(seed)

    def one_epoch() -> float:
        total = torch.zeros((), device=x.device)
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch):
            optimizer.zero_grad()
            data = loss(model(x[rows]), y[rows])
            (data if penalty is None else data + penalty(model)).backward()
            optimizer.step()
            total += len(rows) * data.detach()
        return float(total) / len(x)

    return _loop(
        model, History(), one_epoch, lambda: evaluate(model, validation, loss), {"optimizer": optimizer}, order,
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
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> TaskHistory:
    """Train `model` in place on several tasks; returns losses and metrics of every task on the validation data.

    model: inputs -> dict from task name to output. tasks: name -> `Task`, for the very same names.
    combine: a `weighting.Weighting` of the losses (default: their sum), or a method of `balancing`, Gram matrix -> weights; the latter
        needs a model with a `trunk` and `heads`, such as `models.HardSharing`. A weighting with parameters must be in the optimizer:
        `weighting.parameter_groups` puts it there.
    The best epoch is the one with the least mean over tasks of validation loss / validation loss of the untrained model, so that no
    task decides by its unit. Everything else is as in `fit`. ValueError that names the task if names differ or a batch has no label of it.
    """
    combine = Weighting() if combine is None else combine
    learned = [("", model)] + ([("weighting.", combine)] if isinstance(combine, nn.Module) else [])
    for prefix, module in learned:
        _require_held(module, optimizer, prefix)
    order = torch.Generator().manual_seed(seed)
    initial, _ = evaluate_tasks(model, tasks, validation)
    history = TaskHistory(initial=initial, losses={name: [] for name in tasks}, metrics={name: [] for name in tasks})

    def one_epoch() -> float:
        total, count = torch.zeros(len(tasks)), torch.zeros(len(tasks))
        for data in train.batches(batch, order):
            losses = step(model, tasks, data, optimizer, combine).cpu()
            total += losses.nan_to_num(0.0)
            count += ~losses.isnan()
        mean = total / count
        if isinstance(combine, Weighting):
            combine.end_epoch(mean)
        return sum(float(m) / history.initial[name] for name, m in zip(tasks, mean, strict=True)) / len(tasks)

    def judge() -> float:
        losses, metrics = evaluate_tasks(model, tasks, validation)
        for name in tasks:
            history.losses[name].append(losses[name])
            history.metrics[name].append(metrics[name])
        return sum(losses[name] / history.initial[name] for name in tasks) / len(tasks)

    state = {"optimizer": optimizer} | ({"combine": combine} if isinstance(combine, nn.Module) else {})
    return _loop(model, history, one_epoch, judge, state, order, epochs=epochs, patience=patience, progress=progress, checkpoint=checkpoint)


def step(
    model: nn.Module, tasks: Mapping[str, Task], data: Batch, optimizer: torch.optim.Optimizer, combine: Weighting | Callable[[Tensor], Tensor]
) -> Tensor:
    """One step on one batch; returns the task losses [T] before it, NaN for a task without a label in this batch.

    A weighting needs a label of every task in every batch (ValueError with the task's name); a balancing method does not.
    """
    optimizer.zero_grad()
    if not isinstance(combine, Weighting):
        return _balanced_step(model, tasks, data, optimizer, combine)
    losses = _losses(model, tasks, data)
    combine.before_backward(losses, model.trunk.parameters() if hasattr(model, "trunk") else model.parameters())
    total = combine(losses)
    if not torch.isfinite(total):
        bad = [name for name, ok in zip(tasks, torch.isfinite(losses).tolist(), strict=True) if not ok]
        raise FloatingPointError(f"The loss of {', '.join(map(repr, bad)) or 'the weighting'} is not finite; no step was taken. Lower the learning rate.")
    total.backward()
    optimizer.step()
    if combine.wants_losses_after_step:
        with torch.no_grad():
            after = _losses(model, tasks, data)
        combine.after_step(after)
    return losses.detach()


def _losses(model, tasks, data):
    outputs = model(data.x)
    found = []
    for name, task in tasks.items():
        if name not in data.targets:
            raise ValueError(f"No example of this batch has a label for task {name!r}: take larger batches, or a balancing method.")
        rows, y = data.targets[name]
        found.append(task.loss(outputs[name][rows], y))
    return torch.stack(found)


def _balanced_step(model, tasks, data, optimizer, weigh):
    if not (hasattr(model, "trunk") and hasattr(model, "heads")):
        raise TypeError(f"{type(model).__name__} has no `trunk` and `heads`; gradient balancing needs to know what the tasks share.")

    def loss_of(name, task):
        def from_features(z):
            if name not in data.targets:
                return None
            rows, y = data.targets[name]
            return task.loss(model.heads[name](z[rows]), y)

        return from_features

    done = balanced_backward(model.trunk(data.x), {n: loss_of(n, t) for n, t in tasks.items()}, model.trunk.parameters(), weigh)
    optimizer.step()
    found = dict(zip(done.tasks, done.losses, strict=True))
    return torch.stack([found.get(name, done.losses.new_tensor(float("nan"))) for name in tasks])


@torch.no_grad()
def predict(model: nn.Module, x: Tensor):
    """``model(x)`` in evaluation mode and without gradients; the model's mode is put back."""
    was = model.training
    model.eval()
    try:
        return model(x)
    finally:
        model.train(was)


def evaluate(model: nn.Module, data: tuple[Tensor, Tensor], measure: Callable[[Tensor, Tensor], Tensor]) -> float:
    """``measure(model(x), y)`` over all of `data` = (x, y), in evaluation mode and without gradients."""
    return float(measure(predict(model, data[0]), data[1]))


def evaluate_tasks(model: nn.Module, tasks: Mapping[str, Task], data: Table | Separate) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and metric of every task over all of `data`, unweighted: two dicts, task -> number. ValueError that names a task that is missing."""
    whole = data.whole()
    outputs = predict(model, whole.x)
    places = {"the model's outputs": outputs, "the data's labels": whole.targets}
    for where, found in places.items():
        if missing := [name for name in tasks if name not in found]:
            raise ValueError(f"Task {', '.join(map(repr, missing))} is not among {where}, which are {', '.join(found)}.")
        if extra := [name for name in found if name not in tasks]:
            raise ValueError(f"{', '.join(map(repr, extra))} is among {where} but no task: add its loss to `tasks`, or leave it out.")
    losses, metrics = {}, {}
    for name, task in tasks.items():
        rows, y = whole.targets[name]
        losses[name], metrics[name] = float(task.loss(outputs[name][rows], y)), float(task.metric(outputs[name][rows], y))
    return losses, metrics


# ------------------------------------------------------------------------------------------------------------ the loop
def _loop(model, history, one_epoch, judge, state, order, *, epochs, patience, progress, checkpoint):
    """Epochs until validation has not improved for `patience` of them; `state`: what must resume besides the model and the order."""
    best, least = deepcopy(model.state_dict()), math.inf
    if checkpoint is not None and Path(checkpoint).exists():
        best, least = _resume(Path(checkpoint), model, history, state, order)
    try:
        for epoch in tqdm(range(len(history.train) + 1, epochs + 1), disable=not progress, file=sys.stdout, leave=False, desc="epochs"):
            if epoch - 1 - history.best_epoch >= patience:
                break
            model.train()
            values = {"training": one_epoch(), "validation": judge()}
            history.train.append(values["training"])
            history.validation.append(values["validation"])
            for name, value in values.items():
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"The {name} loss is {value} in epoch {epoch}. Lower the learning rate; look for log(0), 0/0 or inputs that are not finite."
                    )
            if values["validation"] < least:
                least, history.best_epoch, best = values["validation"], epoch, deepcopy(model.state_dict())
            if checkpoint is not None:
                _save(Path(checkpoint), model, history, state, order, best, least)
    finally:
        model.load_state_dict(best)
    return history


def _save(path, model, history, state, order, best, least):
    """Write a checkpoint; the old one stays until the new one is whole."""
    content = {
        "model": model.state_dict(), "best": best, "least": least, "history": asdict(history),
        "state": {name: part.state_dict() for name, part in state.items()}, "order": order.get_state(), "rng": torch.get_rng_state(),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(path.suffix + ".part")
    torch.save(content, aside)
    aside.replace(path)


def _resume(path, model, history, state, order):
    """Put everything back as the checkpoint has it; ValueError, with the model as it was, if the file is damaged or of another model."""
    try:
        content = torch.load(path, weights_only=True)
        saved = {name: tuple(t.shape) for name, t in content["model"].items() if isinstance(t, Tensor)}
    except Exception as error:
        raise ValueError(f"{path} is not a whole checkpoint ({type(error).__name__}). Delete it to start anew, or restore it.") from error
    own = {name: tuple(t.shape) for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    if saved != own or content["state"].keys() != state.keys() or content["history"].keys() != asdict(history).keys():
        raise ValueError(f"{path} holds another model or another kind of run. Name another file, or delete it to start anew.")
    model.load_state_dict(content["model"])
    for name, part in state.items():
        part.load_state_dict(content["state"][name])
    for name, value in content["history"].items():
        setattr(history, name, value)
    order.set_state(content["order"])
    torch.set_rng_state(content["rng"])
    return content["best"], content["least"]


def _require_held(module, optimizer, prefix=""):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := [prefix + name for name, p in module.named_parameters() if p.requires_grad and id(p) not in held]:
        raise ValueError(f"The optimizer does not hold {', '.join(missing)}: build it after the model has its final parts, or freeze them.")
