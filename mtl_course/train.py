"""One training loop: mini-batches, a penalty if there is one, early stopping on validation data with the best weights put back."""

import math
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm


@dataclass
class History:
    """Losses of a run, one value an epoch, and the epoch (from 1) whose weights the model has now; 0 is the model as it came."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


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
) -> History:
    """Train `model` in place on `train` = (inputs [N, ...], targets [N, ...]), both on the model's device; returns the losses.

    After every epoch the loss on `validation` decides (the penalty is no part of it): the best weights so far are kept and put back at
    the end, and `patience` epochs without a better one end the run. Test data have no place here. An interrupt (KeyboardInterrupt) also
    puts the best weights back before it goes on. `seed` fixes the order of the examples.
    ValueError if the optimizer misses a parameter that wants a gradient; FloatingPointError, with the epoch, if a loss is not finite.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]:
        raise ValueError(f"The optimizer does not hold {', '.join(missing)}: build it after the model has its final parts, or freeze them.")
    x, y = train
    order = torch.Generator().manual_seed(seed)
    history, best, least = History(), deepcopy(model.state_dict()), math.inf
    try:
        for epoch in tqdm(range(1, epochs + 1), disable=not progress, file=sys.stdout, leave=False, desc="epochs"):
            model.train()
            total = torch.zeros((), device=x.device)
            for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch):
                optimizer.zero_grad()
                data = loss(model(x[rows]), y[rows])
                (data if penalty is None else data + penalty(model)).backward()
                optimizer.step()
                total += len(rows) * data.detach()
            history.train.append(float(total) / len(x))
            history.validation.append(evaluate(model, validation, loss))
            for name, value in [("training", history.train[-1]), ("validation", history.validation[-1])]:
                if not math.isfinite(value):
                    raise FloatingPointError(f"The {name} loss is {value} in epoch {epoch}. Lower the learning rate; look for log(0), 0/0 or inputs that are not finite.")
            if history.validation[-1] < least:
                least, history.best_epoch, best = history.validation[-1], epoch, deepcopy(model.state_dict())
            elif epoch - history.best_epoch >= patience:
                break
    finally:
        model.load_state_dict(best)
    return history


@torch.no_grad()
def evaluate(model: nn.Module, data: tuple[Tensor, Tensor], measure: Callable[[Tensor, Tensor], Tensor]) -> float:
    """``measure(model(x), y)`` over all of `data` = (x, y), in evaluation mode and without gradients; the model's mode is put back."""
    was = model.training
    model.eval()
    try:
        return float(measure(model(data[0]), data[1]))
    finally:
        model.train(was)
