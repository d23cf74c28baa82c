"""What a network costs before any training: the numbers it learns, and the operations of a pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """How many numbers the model has to learn with; those that several parts share count once."""
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, x: Tensor, backward: bool = False) -> int:
    """Floating-point operations of ``model(x)`` for one example, x [B, ...]: a multiplication and
    an addition count one each.

    So the multiply-adds, in which networks for images are often measured, are half of it. Only
    matrix products and convolutions are counted, as by torch's counter; norms, activations and
    pooling are few beside them. With `backward` the gradients of all parameters that are learned
    count as well (the model then gives one tensor): about three times as much. The model's mode,
    statistics and gradients are left as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
            outputs = model(x)
            if backward:
                torch.autograd.grad(
                    outputs.mean(),
                    [p for p in model.parameters() if p.requires_grad],
                    allow_unused=True,
                )
    finally:
        for module, mode in modes:
            module.training = mode
    return round(counter.get_total_flops() / len(x))


def widest(build: Callable[[int], nn.Module], at_most: int) -> int:
    """The largest width k for which ``build(k)`` has at most this many parameters. ValueError if
    width 1 has more.

    The number must grow with k. Nothing is allocated: the models are built on torch's meta device.
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
