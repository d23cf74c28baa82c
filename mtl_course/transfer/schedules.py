"""How much to unfreeze, at which rate: layers of a network, groups with a rate of their own, and
the orders in which layers are opened.

All of it is for a model with a `trunk` and a `head`, such as `networks.Classifier`. Freezing is
`transfer.freeze`: weights and statistics.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..training.history import History
from ..training.loop import fit
from .freezing import freeze, unfreeze

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)

Data = tuple[Tensor, Tensor]
MakeOptimizer = Callable[[list[dict]], torch.optim.Optimizer]


def layers(model: nn.Module) -> list[nn.ModuleList]:
    """The layers of ``model.trunk``, from the input on, and last the head; a layer is a list of the
    modules that belong to it.

    The trunk's children count one by one; nn.Sequential and nn.ModuleList are opened, and any other
    module is a layer as a whole, such as a residual block. A norm belongs to the layer before it,
    and what has no parameters to none. ValueError if that leaves a parameter of the model in no
    layer.
    """
    found: list[nn.ModuleList] = []
    for part in [
        *(p for child in list(model.trunk.children()) or [model.trunk] for p in _opened(child)),
        model.head,
    ]:
        if isinstance(part, NORMS) and found:
            found[-1].append(part)
        elif any(True for _ in part.parameters()):
            found.append(nn.ModuleList([part]))
    held = {id(p) for layer in found for p in layer.parameters()}
    if left := [name for name, p in model.named_parameters() if id(p) not in held]:
        raise ValueError(
            f"{', '.join(left)} is in no layer: put it into a module of the trunk or the head."
        )
    return found


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        for child in module:
            yield from _opened(child)
    else:
        yield module


def layer_groups(model: nn.Module, rate: float, decay: float = 2.6) -> list[dict]:
    """Parameter groups for any optimizer of torch: the head at `rate`, and every layer below at the
    rate above it divided by `decay`.

    Groups stand in the order of `layers`. Every parameter that wants a gradient is in exactly one
    of them, a shared one in the highest layer that uses it; a layer with nothing to train gets no
    group, but still counts. decay = 1: one rate for all. Source: Howard and Ruder, "Universal
    language model fine-tuning for text classification", ACL 2018, where 2.6 is from. ValueError if
    `rate` is negative or `decay` is not positive.
    """
    if rate < 0 or decay <= 0:
        raise ValueError(
            f"rate must not be negative and decay must be positive; they are {rate} and {decay}."
        )
    groups, taken = [], set()
    for depth, layer in enumerate(reversed(layers(model))):
        own = [p for p in layer.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in own}
        if own:
            groups.append({"params": own, "lr": rate / decay**depth})
    return groups[::-1]


def open_top(model: nn.Module, count: int) -> None:
    """Let the `count` highest layers train, the head first of all, and freeze those below them,
    statistics too.

    May be called again with another count; the number of layers opens the whole model. ValueError
    if `count` is not in 1..number of layers.
    """
    parts = layers(model)
    if not 1 <= count <= len(parts):
        raise ValueError(
            f"count must be between 1 and {len(parts)}, the number of layers; it is {count}."
        )
    unfreeze(model)
    for layer in parts[: len(parts) - count]:
        for module in layer:
            freeze(module)


def lp_ft(
    model: nn.Module,
    train: Data,
    validation: Data,
    loss: Callable,
    optimizer: MakeOptimizer,
    rates: tuple[float, float],
    epochs: tuple[int, int],
    **options,
) -> list[History]:
    """Linear probing, then fine-tuning: train the head on a frozen trunk, then everything from
    there. Returns the two histories.

    optimizer: parameter groups -> optimizer, such as ``partial(torch.optim.SGD, momentum=0.9)``; it
        is built anew for each phase. rates, epochs: of the probe and of the fine-tuning. Other
        options go to `training.fit`, which keeps the best epoch of each phase. Source: Kumar,
        Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features and
        underperform out-of-distribution", ICLR 2022.
    """
    found = []
    for count, rate, n in zip((1, len(layers(model))), rates, epochs, strict=True):
        open_top(model, count)
        found.append(
            fit(
                model,
                train,
                validation,
                loss,
                optimizer(layer_groups(model, rate, 1.0)),
                epochs=n,
                **options,
            )
        )
    return found


def gradual_unfreezing(
    model: nn.Module,
    train: Data,
    validation: Data,
    loss: Callable,
    optimizer: MakeOptimizer,
    rate: float,
    epochs: Sequence[int],
    decay: float = 1.0,
    **options,
) -> list[History]:
    """Open one more layer at a time, from the head down, and train what is open. Returns one
    history a stage.

    epochs: of each stage, as many as there are layers; ValueError otherwise. decay: see
        `layer_groups`. One optimizer is used throughout, so a layer that is open already keeps its
        momentum. Other options go to `training.fit`, which keeps the best epoch of each stage.
        Source: Howard and Ruder, ACL 2018 (one epoch a stage, the last until it converges).
    """
    parts = layers(model)
    if len(epochs) != len(parts):
        raise ValueError(
            f"The model has {len(parts)} layers, so give as many numbers of epochs; got"
            f" {len(epochs)}."
        )
    open_top(model, len(parts))
    held = optimizer(layer_groups(model, rate, decay))
    found = []
    for count, n in enumerate(epochs, start=1):
        open_top(model, count)
        found.append(fit(model, train, validation, loss, held, epochs=n, **options))
    return found
