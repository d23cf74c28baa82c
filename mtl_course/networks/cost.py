"""What a network costs before any training: the numbers it learns, and the operations of a pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """How many numbers the model has to learn with; what several modules share counts once.

    Args:
        model: any module; frozen parameters count too.

    Returns:
        The number of its parameters' entries.

    Example:
        >>> layer = nn.Linear(6, 6)
        >>> parameters(layer), parameters(nn.Sequential(layer, layer))
        (42, 42)
    """
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, x: Tensor, backward: bool = False) -> int:
    """Floating-point operations of ``model(x)`` for one example.

    A multiplication and an addition count one each, so the multiply-adds, in which networks for
    images are often measured, are half of it. Only matrix products and convolutions are counted, as
    by torch's counter; norms, activations and pooling are few beside them. The model's mode,
    statistics and gradients are left as they were.

    Args:
        model: any module; with `backward`, one that gives one tensor.
        x: [B, ...], inputs on the model's device.
        backward: whether the gradients of all parameters that are learned count as well: about
            three times as much.

    Returns:
        Operations per example, rounded.

    Example:
        >>> flops(nn.Linear(6, 4), torch.zeros(7, 6))  # 6 multiplications and additions x 4 outputs
        48
        >>> flops(nn.Linear(6, 4), torch.zeros(7, 6), backward=True)  # and as many for the weight
        96
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
            outputs = model(x)
            if backward:
                learned = [p for p in model.parameters() if p.requires_grad]
                torch.autograd.grad(outputs.mean(), learned, allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
    return round(counter.get_total_flops() / len(x))


def widest(build: Callable[[int], nn.Module], at_most: int) -> int:
    """The largest width for which a network stays within a budget of parameters.

    Nothing is allocated: the models are built on torch's meta device.

    Args:
        build: from a width, 1 or more, to a model whose parameters grow in number with it.
        at_most: the budget, as `parameters` counts.

    Returns:
        The largest width k with ``parameters(build(k)) <= at_most``.

    Raises:
        ValueError: if even width 1 has more parameters than that.

    Example:
        >>> widest(lambda k: nn.Linear(10, k), at_most=100)  # 11 k <= 100
        9
    """

    def fits(width: int) -> bool:
        with torch.device("meta"):
            return parameters(build(width)) <= at_most

    if not fits(1):
        raise ValueError(f"Even at width 1 the model has more than {at_most} parameters.")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
