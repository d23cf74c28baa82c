"""What a network costs before any training: the numbers it learns, and the operations of a pass."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """How many numbers the model has to learn with; those that several parts share count once."""
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, x: Tensor, backward: bool = False) -> int:
    """Floating-point operations of ``model(x)`` for one example, x [B, ...]: a multiplication and an addition count one each.

    So the multiply-adds, in which networks for images are often measured, are half of it. Only matrix products and convolutions are
    counted, as by torch's counter; norms, activations and pooling are few beside them. With `backward` the gradients of all parameters
    that are learned count as well (the model then gives one tensor): about three times as much. The model's mode, statistics and
    gradients are left as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
            outputs = model(x)
            if backward:
                torch.autograd.grad(outputs.mean(), [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
    return round(counter.get_total_flops() / len(x))
