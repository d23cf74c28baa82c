"""Epochs until validation stops improving: the best weights put back at the end, faults said in
words, a checkpoint an epoch.
"""

import math
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from ..data.augment import Augment
from .checkpoint import Run, resume, save
from .evaluation import evaluate
from .history import History
from .precision import Precision


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
    """Train `model` in place on `train` = (inputs [N, ...], targets [N, ...]), both on the model's
    device; returns the losses.

    After every epoch the loss on `validation` decides (the penalty is no part of it): the best
    weights so far are kept and put back at the end, and `patience` epochs without a better one end
    the run. Test data have no place here. An interrupt (KeyboardInterrupt) also puts the best
    weights back before it goes on. `seed` fixes the order of the examples and the draws of
    `augment`.

    augment: (inputs of a training batch, generator on their device) -> inputs; see `data.augment`.
        Only training data change.
    schedule: stepped after every optimizer step, so it counts steps: ``epochs * ceil(N / batch)``
        of them.
    precision: None for float32; torch.bfloat16; torch.float16, with a gradient scaler (see
        `precision`). Validation too.
    checkpoint: every epoch is saved there, and a call with the same arguments goes on where the
        file left off, to the same
        weights bit for bit where the operations are deterministic; more `epochs` prolong a run.

    ValueError if the optimizer misses a parameter that wants a gradient, or the checkpoint does not
    fit; FloatingPointError, with the epoch, if a loss is not finite; torch.OutOfMemoryError, with
    the batch size to try. Then, too, the best weights are put back first.
    """
    require_held(model.named_parameters(), optimizer)
    x, y = train
    arithmetic = Precision(precision, x.device)
    run = new_run(model, History(), optimizer, schedule, arithmetic, augment, None, batch, seed)
    order, draws = run.generators["order"], run.generators.get("augment")

    def one_epoch() -> float:
        total = torch.zeros((), device=x.device)
        for rows in (
            torch.randperm(len(x), generator=order).to(x.device, non_blocking=True).split(batch)
        ):
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
        run,
        one_epoch,
        lambda: evaluate(model, validation, loss, precision=precision),
        epochs=epochs,
        patience=patience,
        progress=progress,
        checkpoint=checkpoint,
    )


def update(optimizer, schedule, arithmetic):
    """The optimizer's step and, if it was taken, the schedule's."""
    if arithmetic.step(optimizer) and schedule is not None:
        schedule.step()


def new_run(model, history, optimizer, schedule, arithmetic, augment, combine, batch, seed) -> Run:
    """What a checkpoint of this run holds."""
    device, weighting = arithmetic.device, combine if isinstance(combine, nn.Module) else None
    parts = {
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": arithmetic.scaler,
        "combine": weighting,
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    generators = {"order": torch.Generator().manual_seed(seed)}
    if (
        augment is not None
    ):  # with a seed of its own: on a CPU its draws would repeat those of the order
        generators["augment"] = torch.Generator(device).manual_seed(seed + 1_000_003)
    settings = {name: type(part).__name__ for name, part in parts.items()} | {
        "combine": getattr(combine, "__name__", type(combine).__name__),
        "precision": str(arithmetic.dtype),
        "batch": batch,
        "seed": seed,
        "device": device.type,
    }
    return Run(model, history, parts, generators, settings, device)


def run_epochs(run, one_epoch, judge, *, epochs, patience, progress, checkpoint, unit="epoch"):
    """Epochs until validation has not improved for `patience` of them; `unit` is what an epoch is
    called.
    """
    model, history, too_large = run.model, run.history, None
    best, least = deepcopy(model.state_dict()), math.inf
    if checkpoint is not None and Path(checkpoint).exists():
        best, least = resume(Path(checkpoint), run)
    try:
        numbers = range(len(history.train) + 1, epochs + 1)
        for epoch in tqdm(
            numbers, disable=not progress, file=sys.stdout, leave=False, desc=f"{unit}s"
        ):
            if epoch - 1 - history.best_epoch >= patience:
                break
            model.train()
            values = {"training": one_epoch(), "validation": judge()}
            history.train.append(values["training"])
            history.validation.append(values["validation"])
            for name, value in values.items():
                if not math.isfinite(value):
                    raise not_finite(f"{name} loss is {value}", epoch, unit)
            if values["validation"] < least:
                least, history.best_epoch, best = (
                    values["validation"],
                    epoch,
                    deepcopy(model.state_dict()),
                )
            if checkpoint is not None:
                save(Path(checkpoint), run, best, least)
    except torch.OutOfMemoryError:
        too_large = f"The GPU's memory was full in {unit} {epoch}{_smaller(run)}"
    finally:
        model.load_state_dict(best)
    if (
        too_large
    ):  # raised here, not above: a traceback to the failed step would keep its tensors in memory
        run.parts["optimizer"].zero_grad()
        raise torch.OutOfMemoryError(too_large)
    return history


def _smaller(run):
    best, batch = "The model has its best weights so far.", run.settings.get("batch")
    if batch is None:
        return (
            ". Draw fewer tasks or smaller ones, take first-order gradients, or a smaller model."
            f" {best}"
        )
    if batch == 1:
        return (
            ", with batch=1. Not even one example fits: take a smaller model or input, or another"
            " GPU."
        )
    shorter = ", or precision=torch.bfloat16 (float16 on a T4), which halves the activations"
    other = shorter if run.settings["precision"] == "None" else ""
    return (
        f", with batch={batch}. Try batch={batch // 2}, with a learning rate to match{other}."
        f" {best}"
    )


def not_finite(what: str, epoch: int, unit: str = "epoch") -> FloatingPointError:
    """The error for a loss that is not finite."""
    advice = "Lower the learning rate; look for log(0), 0/0 or inputs that are not finite."
    return FloatingPointError(f"The {what} in {unit} {epoch}. {advice}")


def require_held(
    parameters: Iterable[tuple[str, Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """ValueError that names the parameters which want a gradient and are not in the optimizer."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for name, p in parameters if p.requires_grad and id(p) not in held]:
        raise ValueError(
            f"The optimizer does not hold {', '.join(missing)}: build it after the model has its"
            " final parts, or freeze them."
        )
