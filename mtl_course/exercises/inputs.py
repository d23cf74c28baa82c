"""Inputs that exercises of several chapters draw."""

import torch


def whole(g, low, high):
    """A whole number from `low` to `high` - 1."""
    return int(torch.randint(low, high, (), generator=g))


def filled(module, g):
    """Draw every parameter and every running statistic of a module from `g`."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=g))
        for name, b in module.named_buffers():
            if b.is_floating_point():
                b.copy_(
                    torch.rand(b.shape, generator=g) + 0.5
                    if name.endswith("var")
                    else torch.randn(b.shape, generator=g)
                )
    return module
