"""What a run is refused for before its first step: data, a frozen model, an optimizer, a schedule.

Each is one sentence that names the part, where torch would fail in the middle of a run, in words of
its own, or not at all.
"""

import inspect
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


# ------------------------------------------------------------------------------------------- data
def require_rows(name: str, x: Tensor, y: Tensor) -> None:
    """ValueError unless there are as many inputs as targets, and at least one."""
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"{name}: {len(x)} inputs and {len(y)} targets; as many of each are needed, and at"
            " least one."
        )


def require_finite_targets(targets: Mapping[str, Tensor]) -> None:
    """ValueError that names the targets, each under what it is, with a NaN or an infinity."""
    for name, y in targets.items():
        if (y.is_floating_point() or y.is_complex()) and not torch.isfinite(y).all():
            count = int((~torch.isfinite(y)).sum())
            raise ValueError(
                f"{name}: {count} of {y.numel()} target values are NaN or infinite."
                " Leave those rows out; a `Table` marks them with `labelled`."
            )


# ---------------------------------------------------------------------------- model and optimizer
def require_trainable(parameters: Iterable[Tensor]) -> None:
    """ValueError if no parameter wants a gradient."""
    if not any(p.requires_grad for p in parameters):
        raise ValueError(
            "The model is frozen as a whole: no parameter wants a gradient, so there is nothing to"
            " train. Open a part of it with requires_grad_(True)."
        )


def require_one_side(trunk: nn.Module, heads: nn.Module) -> None:
    """ValueError that names the parameters which are the trunk's and a head's at once."""
    shared = {id(p) for p in trunk.parameters()}
    if both := [name for name, p in heads.named_parameters() if id(p) in shared]:
        raise ValueError(
            f"The trunk and the heads share a parameter (heads.{', heads.'.join(both)}): gradient"
            " balancing needs to know on which side it is. Untie it, or take a weighting."
        )


# ------------------------------------------------------------------------------------- the stepping
def require_plain_steps(
    optimizer: torch.optim.Optimizer, schedule: LRScheduler | None = None
) -> None:
    """TypeError or ValueError unless ``optimizer.step()`` and ``schedule.step()`` will do."""
    if _wants_more(optimizer):
        raise TypeError(
            f"{type(optimizer).__name__} wants a closure at each step, which this loop does not"
            " have: take an optimizer whose step() needs none, such as SGD or Adam."
        )
    if schedule is not None:
        require_plain_schedule(schedule)
        scheduled = getattr(schedule, "optimizer", optimizer)
        if scheduled is not optimizer:
            raise ValueError(
                "`schedule` changes the learning rates of another optimizer than the one of this"
                " run: build it from this one."
            )


def require_plain_schedule(schedule: LRScheduler) -> None:
    """TypeError unless ``schedule.step()`` will do: one that watches a loss has none to look at."""
    if isinstance(schedule, type) or not hasattr(schedule, "step"):
        raise TypeError(
            f"`schedule` is {schedule!r}; it must be a scheduler of torch.optim.lr_scheduler,"
            " built from the optimizer."
        )
    for each in (schedule, *getattr(schedule, "_schedulers", ())):
        if isinstance(each, ReduceLROnPlateau) or _wants_more(each):
            raise TypeError(
                f"`schedule` is stepped after every optimizer step, without a loss, and"
                f" {type(each).__name__} needs one: take a schedule that counts steps, such as"
                " OneCycleLR or CosineAnnealingLR; `patience` watches the validation loss."
            )


def _wants_more(part: object) -> bool:
    """Whether ``part.step()`` needs an argument."""
    parameters = list(inspect.signature(type(part).step).parameters.values())[1:]
    return any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )
