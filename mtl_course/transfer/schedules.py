"""How much of a network trains, and how fast: layers, rates per layer, orders of opening them.

All of it is for a model with a `trunk` and a `head`, such as `networks.Classifier`. A layer that is
closed is frozen as by `transfer.freeze`: weights and statistics.
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
    """The layers of ``model.trunk``, from the input on, and last the head.

    The trunk's children count one by one. nn.Sequential and nn.ModuleList are opened; any other
    module is a layer as a whole, such as a residual block. A norm belongs to the layer before it,
    and what has no parameters to none.

    Args:
        model: has a `trunk` and a `head`.

    Returns:
        One list of modules per layer.

    Raises:
        ValueError: if that leaves a parameter of the model in no layer; it is named.

    Example:
        >>> from mtl_course.networks import Classifier, cnn
        >>> model = Classifier(cnn(8, (4,), features=6, norm=True), features=6, classes=3)
        >>> [[type(module).__name__ for module in layer] for layer in layers(model)]
        [['Conv2d', 'BatchNorm2d'], ['Linear'], ['Linear']]
    """
    stack: list[nn.ModuleList] = []
    children = list(model.trunk.children()) or [model.trunk]
    modules = [module for child in children for module in _opened(child)]
    for module in [*modules, model.head]:
        if isinstance(module, NORMS) and stack:
            stack[-1].append(module)
        elif any(True for _ in module.parameters()):
            stack.append(nn.ModuleList([module]))
    placed = {id(p) for layer in stack for p in layer.parameters()}
    if homeless := [name for name, p in model.named_parameters() if id(p) not in placed]:
        raise ValueError(
            f"{', '.join(homeless)} is in no layer: put it into a module of the trunk or the head."
        )
    return stack


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    """The modules in nested containers, in order; any other module as it is."""
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        for child in module:
            yield from _opened(child)
    else:
        yield module


def layer_groups(model: nn.Module, rate: float, decay: float = 2.6) -> list[dict]:
    """Groups of parameters for an optimizer, with rates that fall from the head down.

    The head has `rate`, every layer below it the rate of the layer above divided by `decay`. Every
    parameter that wants a gradient is in exactly one group, a shared one in that of the highest
    layer that uses it. A layer with nothing to train gets no group, but still counts.

    Args:
        model: has a `trunk` and a `head`.
        rate: learning rate of the head.
        decay: what the rate is divided by from layer to layer; 1 gives all of them one rate.

    Returns:
        ``{"params": [...], "lr": ...}`` per layer, in the order of `layers`.

    Raises:
        ValueError: if `rate` is negative or `decay` is not positive.

    Source:
        Howard and Ruder, "Universal language model fine-tuning for text classification", ACL 2018,
        where 2.6 is from.

    Example:
        >>> from mtl_course.networks import Classifier, mlp
        >>> model = Classifier(mlp([4, 8, 6]), features=6, classes=3)
        >>> groups = layer_groups(model, rate=0.4, decay=2)
        >>> [group["lr"] for group in groups]
        [0.1, 0.2, 0.4]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    if rate < 0 or decay <= 0:
        raise ValueError(
            f"rate must not be negative and decay must be positive; they are {rate} and {decay}."
        )
    groups, taken = [], set()
    for depth, layer in enumerate(reversed(layers(model))):
        params = [p for p in layer.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in params}
        if params:
            groups.append({"params": params, "lr": rate / decay**depth})
    return groups[::-1]


def open_top(model: nn.Module, count: int) -> None:
    """Let the highest layers train, the head first of all, and freeze those below them.

    Frozen are weights and statistics. A module or weight that several layers share belongs to the
    highest of them, as in `layer_groups`. It may be called again with another count; the number of
    layers opens the whole model.

    Args:
        model: has a `trunk` and a `head`; changed in place.
        count: how many layers train, from 1 to their number.

    Raises:
        ValueError: if `count` is not in 1..number of layers.

    Example:
        >>> from mtl_course.networks import Classifier, mlp
        >>> model = Classifier(mlp([4, 8, 6]), features=6, classes=3)
        >>> open_top(model, 2)
        >>> [layer[0].weight.requires_grad for layer in layers(model)]
        [False, True, True]
    """
    stack = layers(model)
    if not 1 <= count <= len(stack):
        raise ValueError(
            f"count must be between 1 and {len(stack)}, the number of layers; it is {count}."
        )
    unfreeze(model)
    closed, opened = stack[: len(stack) - count], stack[len(stack) - count :]
    shared = {id(module) for layer in opened for module in layer.modules()}
    for module in (module for layer in closed for module in layer):
        if id(module) not in shared:
            freeze(module)
    for layer in opened:
        # Weights that are tied to those of a closed layer have been frozen with it.
        layer.requires_grad_(True)


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
    """Linear probing, then fine-tuning: train the head on a frozen trunk, then everything.

    Args:
        model: has a `trunk` and a `head`; trained in place.
        train: inputs [N, ...] and targets [N, ...] to train on.
        validation: inputs and targets by which the best epoch of each phase is chosen.
        loss: from outputs and targets to a scalar, such as ``F.cross_entropy``.
        optimizer: groups of parameters -> optimizer, such as ``partial(torch.optim.SGD,
            momentum=0.9)``; called anew for each phase.
        rates: learning rates of the probe and of the fine-tuning.
        epochs: of the probe and of the fine-tuning.
        options: go to `training.fit`.

    Returns:
        The histories of the two phases.

    Source:
        Kumar, Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features and
        underperform out-of-distribution", ICLR 2022.

    Example:
        >>> from mtl_course.networks import Classifier, mlp
        >>> model = Classifier(mlp([2, 4]), features=4, classes=2)
        >>> data = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> probe, tuned = lp_ft(model, data, data, nn.functional.cross_entropy, torch.optim.SGD,
        ...                      rates=(0.5, 0.1), epochs=(2, 3), progress=False)
        >>> len(probe.train), len(tuned.train)
        (2, 3)
    """
    histories = []
    for count, rate, length in zip((1, len(layers(model))), rates, epochs, strict=True):
        open_top(model, count)
        stepper = optimizer(layer_groups(model, rate, decay=1.0))
        histories.append(fit(model, train, validation, loss, stepper, epochs=length, **options))
    return histories


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
    """Open one more layer at a time, from the head down, and train what is open.

    One optimizer is used throughout, so a layer that is open already keeps its momentum.

    Args:
        model: has a `trunk` and a `head`; trained in place.
        train: inputs [N, ...] and targets [N, ...] to train on.
        validation: inputs and targets by which the best epoch of each stage is chosen.
        loss: from outputs and targets to a scalar, such as ``F.cross_entropy``.
        optimizer: groups of parameters -> optimizer, such as ``partial(torch.optim.SGD,
            momentum=0.9)``.
        rate: learning rate of the head.
        epochs: of each stage, as many as there are layers.
        decay: see `layer_groups`.
        options: go to `training.fit`.

    Returns:
        One history per stage.

    Raises:
        ValueError: if there are not as many numbers of epochs as layers.

    Source:
        Howard and Ruder, "Universal language model fine-tuning for text classification", ACL 2018
        (one epoch per stage, the last until it converges).

    Example:
        >>> from mtl_course.networks import Classifier, mlp
        >>> model = Classifier(mlp([2, 4]), features=4, classes=2)
        >>> data = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> stages = gradual_unfreezing(model, data, data, nn.functional.cross_entropy,
        ...                             torch.optim.SGD, 0.1, epochs=(1, 2), progress=False)
        >>> [len(history.train) for history in stages]
        [1, 2]
    """
    depth = len(layers(model))
    if len(epochs) != depth:
        raise ValueError(
            f"The model has {depth} layers, so give as many numbers of epochs; got {len(epochs)}."
        )
    open_top(model, depth)
    stepper = optimizer(layer_groups(model, rate, decay))
    histories = []
    for count, length in enumerate(epochs, start=1):
        open_top(model, count)
        histories.append(fit(model, train, validation, loss, stepper, epochs=length, **options))
    return histories
