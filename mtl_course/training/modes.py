"""Training and evaluation mode, frozen parts, and norms for which the rows of a batch meet.

One rule for all loops of the course: they train in training mode and judge in evaluation mode, a
frozen part stays frozen however it is called, and at the end every module has the mode that it came
with. What only looks at a model changes neither a mode nor a buffer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


# ------------------------------------------------------------------------------------------ modes
@contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Every module's own mode is put back at the end: a part may be in another than the whole."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile."""
    with modes_kept(*models):
        for model in models:
            model.eval()
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """What forward passes write into buffers, such as running statistics, is undone at the end."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


# ----------------------------------------------------------------------------------------- frozen
def hold(module: nn.Module) -> None:
    """Evaluation mode for this module and all in it, which no later ``train()`` undoes."""
    for inner in module.modules():
        if not is_held(inner):
            # Not a closure: a copy of the module must get a `train` that is about the copy.
            inner.train = partial(_train_held, inner, before=inner.training)
        inner.training = False


def release(module: nn.Module) -> None:
    """Undo `hold`: each module has the mode that it was held in."""
    for inner in module.modules():
        if is_held(inner):
            inner.training = inner.train.keywords["before"]
            del inner.train


def is_held(module: nn.Module) -> bool:
    """Whether `hold` holds this module in evaluation mode."""
    train = vars(module).get("train")
    return isinstance(train, partial) and train.func is _train_held


def _train_held(module: nn.Module, mode: bool = True, *, before: bool) -> nn.Module:
    """``module.train(mode)`` of one that is held: it reaches what is in it and is not."""
    module.training = False
    for child in module.children():
        child.train(mode)
    return module


# ------------------------------------------------------------------------ norms and a batch of one
def batch_norms(model: nn.Module, training: bool = True) -> list[str]:
    """Names of the norms that take their statistics from the batch at hand in this mode.

    In evaluation mode these are norms without running statistics (track_running_stats=False).
    """
    with modes_kept(model):
        model.train(training)
        return [
            name or type(module).__name__
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        ]


def least_rows(model: nn.Module, rows: int) -> int:
    """How few rows a batch may have in training: two where they meet in a norm, else one.

    ValueError where full batches of so many rows are too small already.
    """
    norms = batch_norms(model)
    if norms and rows < 2:
        raise ValueError(
            f"The norm {norms[0]!r} takes mean and variance over the rows of a batch, and each"
            " batch would have one row: give it two at least, freeze the norm, or use GroupNorm or"
            " LayerNorm."
        )
    return 2 if norms else 1


def chunks(rows: Tensor, size: int, least: int = 1) -> tuple[Tensor, ...]:
    """``rows.split(size)``, where a last chunk of fewer than `least` joins the one before it."""
    parts = rows.split(size)
    if len(parts) > 1 and len(parts[-1]) < least:
        parts = (*parts[:-2], torch.cat(parts[-2:]))
    return parts


# ------------------------------------------------------------------- a model with other parameters
def places(model: nn.Module) -> dict[str, str]:
    """Where each parameter stands -> the name that ``named_parameters()`` gives it.

    A tied parameter has several places. A module under two names is listed once: to replace its
    parameters under both names would leave the first replacement behind in the model.
    """
    names: dict[int, str] = {}
    found = {}
    for prefix, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            place = f"{prefix}.{key}" if prefix else key
            found[place] = names.setdefault(id(parameter), place)
    return found


def call_with(model: nn.Module, params: dict[str, Tensor], x: Tensor):
    """``model(x)`` with `params`, by the names of ``named_parameters()``, in place of its own.

    A parameter that is tied gets its value in all of its places; the model stays as it is.
    """
    values = {place: params[name] for place, name in places(model).items() if name in params}
    return functional_call(model, values, (x,), tie_weights=False)
