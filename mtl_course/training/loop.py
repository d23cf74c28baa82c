"""`fit`, and the loop that every training run goes through.

Epochs until validation stops improving: the best weights are put back at the end, faults are said
in words, and every epoch can be saved.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from ..data.augment import Augment
from . import fingerprint
from .checkpoint import TrainingState, resume, save
from .distributed import (
    Division,
    division,
    mean_gradients,
    on_first,
    place,
    process_mean,
    require_mean,
    require_same,
)
from .evaluation import predict_together
from .faults import require_finite_targets, require_plain_steps, require_rows, require_trainable
from .history import History
from .modes import chunks, least_rows, modes_kept
from .precision import Precision


# ------------------------------------------------------------------------------------- the one task
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
    accumulate: int = 1,
) -> History:
    """Train a model on one task, in place, until the validation loss stops improving.

    After every epoch the loss on `validation` decides (the penalty is no part of it): the best
    weights so far are kept and put back at the end, also after an error and after an interrupt
    (KeyboardInterrupt). Test data have no place here.

    Where there are several processes (`launch`, or `world` under `torchrun`), all of them make the
    same call, and each takes its share of every batch: the result is that of one process, up to
    rounding, whatever their number. The loss must be a mean over rows then.

    Args:
        model: from inputs to predictions.
        train: inputs [N, ...] and targets [N, ...], on the model's device.
        validation: the same, other rows.
        loss: (predictions, targets) -> scalar.
        optimizer: of the model's parameters.
        epochs: at most so many.
        batch: rows in a step, those of all processes together. A last row alone joins the step
            before, where the model has a BatchNorm in training mode.
        patience: so many epochs without a better validation loss end the run.
        penalty: model -> scalar that is added to the loss in training, such as a weight decay.
        augment: (inputs of a training batch, generator on their device) -> inputs; see
            `data.augment`. Only training data change.
        schedule: stepped after every optimizer step, so it counts steps:
            ``epochs * ceil(N / batch)`` of them. It takes no loss (no ReduceLROnPlateau).
        precision: None for float32; torch.bfloat16; torch.float16, with a gradient scaler (see
            `Precision`). For validation too.
        seed: fixes the order of the examples and the draws of `augment`.
        progress: whether to show a bar.
        checkpoint: a file in which every epoch is saved. A call with the same arguments goes on
            where the file left off, to the same weights bit for bit where the operations are
            deterministic. `epochs` and `patience` may be raised, to prolong a run; everything else
            must be as it was, the data, the functions and the options of optimizer and schedule.
            The number of processes and `accumulate` may change.
        accumulate: parts of a batch (of a process's share of it) that are taken one after the
            other, their gradients added: the same step in less memory.

    Returns:
        The losses, one value per epoch, in the loss's unit, and which epoch was best.

    Raises:
        ValueError: lengths of the data differ, a set is empty or has targets that are not finite;
            the model is frozen as a whole, the optimizer misses a parameter that wants a gradient,
            or the schedule is another optimizer's; a BatchNorm would be given single rows; the
            checkpoint does not fit (names what differs). With several processes or parts: a
            BatchNorm that learns, a loss that is no mean over rows, processes whose data, weights
            or settings differ. Before the first step.
        TypeError: a schedule that needs a loss, or an optimizer that needs a closure.
        FloatingPointError: a loss is not finite; with epoch, step and learning rate.
        torch.OutOfMemoryError: with the batch size to try.
        ConnectionError: another process has ended. A checkpoint is whole.

    Example:
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        >>> loss = nn.functional.mse_loss
        >>> history = fit(model, (x, 2 * x), (x, 2 * x), loss, optimizer, epochs=60, progress=False)
        >>> f"{model.weight.item():.2f}", history.validation[-1] < 1e-4
        ('2.00', True)
    """
    x, y = train
    require_rows("The training data", x, y)
    require_rows("The validation data", *validation)
    require_finite_targets({"The training data": y, "The validation data": validation[1]})
    require_trainable(model.parameters())
    require_in_optimizer(model.named_parameters(), optimizer)
    require_plain_steps(optimizer, schedule)
    least = least_rows(model, min(batch, len(x)))
    divided = division(model, accumulate)
    precision, history = Precision(precision, x.device), History()
    data = {"training data": train, "validation data": validation}
    state = new_state(
        model=model,
        history=history,
        optimizer=optimizer,
        schedule=schedule,
        precision=precision,
        augment=augment,
        batch=batch,
        seed=seed,
        functions={"loss": loss, "penalty": penalty},
        data=None if checkpoint is None and place()[1] == 1 else data,
    )
    require_same_start(state, epochs=epochs, patience=patience)
    order, draws = state.generators["order"], state.generators.get("augment")

    def validate() -> float:
        outputs = predict_together(model, validation[0], precision=precision.dtype)
        return float(loss(outputs, validation[1]))

    if divided:
        outputs = predict_together(model, validation[0], precision=precision.dtype)
        require_mean("The loss", loss, outputs, validation[1])

    def one_epoch() -> float:
        losses, rates = [], []
        batches = torch.randperm(len(x), generator=order).to(x.device, non_blocking=True)
        for rows in chunks(batches, batch, least):
            optimizer.zero_grad()
            inputs = x[rows] if augment is None else augment(x[rows], draws)
            if divided is None:
                data_loss = loss(precision.outputs(model, inputs), y[rows])
                precision.backward(data_loss if penalty is None else data_loss + penalty(model))
            else:
                data_loss = _backward_in_parts(
                    divided, model, inputs, y[rows], loss, penalty, precision
                )
                mean_gradients(in_optimizer(optimizer))
            losses.append(len(rows) * data_loss.detach())
            rates.append(learning_rates(optimizer))
            precision.step(optimizer, schedule)
        sums = torch.stack(losses)
        if divided is not None:
            # A process without rows has zeros, and cannot know of what type the others' are.
            (sums,) = process_mean([sums.double()])
        sums = sums.tolist()  # the only wait for the device in an epoch
        for number, value in enumerate(sums, start=1):
            if not math.isfinite(value):
                where = f"epoch {len(history.train) + 1}, step {number}"
                raise divergence(f"training loss is {value}", rates[number - 1], where)
        return sum(sums) / len(x)

    return run_epochs(
        state,
        one_epoch,
        validate,
        epochs=epochs,
        patience=patience,
        progress=progress,
        checkpoint=checkpoint,
    )


def _backward_in_parts(
    divided: Division,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    penalty: Callable[[nn.Module], Tensor] | None,
    precision: Precision,
) -> Tensor:
    """Add up the gradients of this process's parts of a batch; its term of the mean loss."""
    total = torch.zeros((), device=precision.device)
    for number in divided.parts:
        targets = y[number :: divided.count]
        if len(targets):
            part = loss(precision.outputs(model, x[number :: divided.count]), targets)
            part = part * divided.factor(len(targets), of=len(y))
            precision.backward(part)
            total = total + part.detach()
    if penalty is not None:
        precision.backward(penalty(model))  # the same in every process, and so is its mean
    return total


# ----------------------------------------------------------------------------------------- the loop
def new_state(
    *,
    model: nn.Module,
    history: History,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler | None,
    precision: Precision,
    augment: Augment | None,
    batch: int,
    seed: int,
    functions: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    combine: Any = None,
) -> TrainingState:
    """What a checkpoint of a run holds, as the run starts; `combine` is that of `fit_tasks`.

    `functions` and `data`, None where no checkpoint is kept, are compared when the run goes on.
    """
    stateful = {
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": precision.scaler,
        "combine": combine if hasattr(combine, "state_dict") else None,
    }
    stateful = {name: part for name, part in stateful.items() if part is not None}
    generators = {"order": torch.Generator().manual_seed(seed)}
    if augment is not None:
        # A seed of its own: on a CPU the draws would repeat those of the order.
        generators["augment"] = torch.Generator(precision.device).manual_seed(seed + 1_000_003)
    settings = {name: type(part).__name__ for name, part in stateful.items()} | {
        "combine": getattr(combine, "__name__", type(combine).__name__),
        "precision": str(precision.dtype),
        "batch": batch,
        "seed": seed,
        "device": precision.device.type,
    }
    if data is not None:
        fresh = not optimizer.state
        settings |= compared(optimizer, schedule, {**functions, "augment": augment}, data)
        settings["options of combine"] = fingerprint.of_options(combine)
        # A weighting that has been trained with no longer has the tensors that it began with.
        settings["start of combine"] = fingerprint.of_tensors(combine) if fresh else None
    return TrainingState(model, history, stateful, generators, settings, precision.device)


def require_same_start(state: TrainingState, **limits: float) -> None:
    """ValueError, in all processes, unless they start the same run, up to these limits."""
    if place()[1] > 1:
        parts = {"weights of the model": state.model, **state.stateful}
        starts = {name: fingerprint.of_data(part.state_dict()) for name, part in parts.items()}
        require_same({**state.settings, **limits, **starts})


def compared(
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler | None,
    functions: Mapping[str, Any],
    data: Mapping[str, Any],
) -> dict[str, str]:
    """Setting -> short text, of all that must be as it was when a run goes on."""
    return {
        **fingerprint.of_optimizer(optimizer, scheduled=schedule is not None),
        **({} if schedule is None else fingerprint.of_schedule(schedule)),
        **{name: fingerprint.of_function(function) for name, function in functions.items()},
        **{name: fingerprint.of_data(tensors) for name, tensors in data.items()},
    }


def run_epochs(
    state: TrainingState,
    one_epoch: Callable[[], float],
    validate: Callable[[], float],
    *,
    epochs: int,
    patience: float,
    progress: bool,
    checkpoint: Path | None,
    unit: str = "epoch",
) -> History:
    """Epochs until the validation loss has not improved for `patience` of them.

    `one_epoch` trains and gives the training loss, `validate` gives the validation loss; `unit` is
    what an epoch is called. Every module's mode is put back at the end.
    """
    with modes_kept(state.model):
        return _run_epochs(state, one_epoch, validate, epochs, patience, progress, checkpoint, unit)


def _run_epochs(
    state, one_epoch, validate, epochs, patience, progress, checkpoint, unit
) -> History:
    """The epochs of `run_epochs`; they leave the modes as the last one had them."""
    model, history = state.model, state.history
    best, least = deepcopy(model.state_dict()), math.inf
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and on_first(path.exists):
        best, least = resume(path, state)
    memory_was_full = None
    try:
        numbers = range(len(history.train) + 1, epochs + 1)
        quiet = not progress or place()[0] > 0
        bar = tqdm(numbers, disable=quiet, file=sys.stdout, leave=False, desc=f"{unit}s")
        for epoch in bar:
            if epoch - 1 - history.best_epoch >= patience:
                break
            model.train()
            losses = {"training": one_epoch(), "validation": validate()}
            if place()[1] > 1:
                losses = on_first(losses.copy)  # one number decides for all when to stop
            history.train.append(losses["training"])
            history.validation.append(losses["validation"])
            for name, value in losses.items():
                if not math.isfinite(value):
                    rates = learning_rates(state.stateful["optimizer"])
                    raise divergence(f"{name} loss is {value}", rates, f"{unit} {epoch}")
            if losses["validation"] < least:
                best, least = deepcopy(model.state_dict()), losses["validation"]
                history.best_epoch = epoch
            if path is not None:
                save(path, state, best, least)
    except torch.OutOfMemoryError:
        memory_was_full = f"The GPU's memory was full in {unit} {epoch}{_what_to_try(state)}"
    finally:
        model.load_state_dict(best)
    # Raised here, not above: a traceback to the failed step would keep its tensors in memory.
    if memory_was_full:
        state.stateful["optimizer"].zero_grad()
        raise torch.OutOfMemoryError(memory_was_full)
    return history


# ------------------------------------------------------------------------------------------- faults
def require_in_optimizer(
    parameters: Iterable[tuple[str, Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """ValueError that names the parameters which want a gradient and are not in the optimizer."""
    present = set(map(id, in_optimizer(optimizer)))
    missing = [name for name, p in parameters if p.requires_grad and id(p) not in present]
    if missing:
        raise ValueError(
            f"The optimizer does not hold {', '.join(missing)}:"
            " build it after the model has its final parts, or freeze them."
        )


def in_optimizer(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters that the optimizer steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def learning_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Those of the optimizer's groups as they are now; a schedule changes them."""
    return [group["lr"] for group in optimizer.param_groups]


def divergence(what: str, rates: Sequence[float], where: str) -> FloatingPointError:
    """The error for a loss that is not finite: what it is, at which rates, and where."""
    return FloatingPointError(
        f"The {what} at a learning rate of {in_words(rates)} in {where}."
        " Lower the learning rate; look for log(0), 0/0 or inputs that are not finite."
    )


def in_words(rates: Sequence[float]) -> str:
    """Learning rates as a message says them, each once."""
    return " and ".join(sorted({f"{rate:g}" for rate in rates}))


def _what_to_try(state: TrainingState) -> str:
    """The end of a sentence about a full GPU: what to change, and how the model is left."""
    batch, best = state.settings.get("batch"), "The model has its best weights so far."
    if batch is None:
        return (
            f". Draw fewer tasks or smaller ones, take first-order gradients, or a smaller model."
            f" {best}"
        )
    if batch == 1:
        return (
            ", with batch=1. Not even one example fits:"
            " take a smaller model or input, or another GPU."
        )
    shorter = ""
    if state.settings["precision"] == "None":
        shorter = ", or precision=torch.bfloat16 (float16 on a T4), which halves the activations"
    return (
        f", with batch={batch}. Try batch={batch // 2}, with a learning rate to match{shorter}."
        f" {best}"
    )
