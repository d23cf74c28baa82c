"""Automatic mixed precision: forward passes in bfloat16 or float16; weights, losses and sums of
gradients stay in float32.

bfloat16 has the range of float32, so nothing else is needed. In float16 a gradient below 6e-8 is 0
and a value above 65504
infinite: the loss is multiplied by a large factor before the backward pass and the gradients are
    divided by it before the step. Where the factor was too large, the step is left out and the
    factor halved.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def short_type(device: torch.device) -> torch.dtype:
    """The 16-bit type for a device: bfloat16 where it computes in it, else (a GPU older than
    Ampere, such as a T4) float16.
    """
    native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if native else torch.float16


def default_precision(device: torch.device) -> torch.dtype | None:
    """What a full-size run computes in: `short_type` on a GPU, None (float32) elsewhere."""
    return short_type(device) if device.type == "cuda" else None


class Precision:
    """The arithmetic of one run on one device: None or float32 for full precision, bfloat16, or
    float16 with a gradient scaler.

    `scaler` is the `torch.amp.GradScaler` for float16, else None. ValueError for another dtype.
    """

    def __init__(self, dtype: torch.dtype | None, device: torch.device):
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(
                f"precision is {dtype}; it can be None, torch.bfloat16 or torch.float16."
            )
        self.dtype = None if dtype is torch.float32 else dtype
        self.device = torch.device(device)
        self.scaler = torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None

    def forward(self) -> AbstractContextManager:
        """The context of a forward pass. A loss belongs outside, on the outputs in `full`
        precision.
        """
        return (
            nullcontext()
            if self.dtype is None
            else torch.autocast(self.device.type, dtype=self.dtype)
        )

    def full(self, outputs):
        """Outputs (a tensor, or a dict of tensors) in float32, if this precision made them shorter."""
        if self.dtype is None:
            return outputs
        if isinstance(outputs, Mapping):
            return {name: self.full(output) for name, output in outputs.items()}
        return outputs.float() if outputs.dtype is self.dtype else outputs

    def backward(self, loss: Tensor) -> None:
        """``loss.backward()``, times the scaler's factor where there is one."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """``optimizer.step()`` with the gradients unscaled. False if they had overflowed: no step,
        and the factor is halved.
        """
        if self.scaler is None:
            optimizer.step()
            return True
        taken = []  # asking the scaler for its factor instead would wait for the GPU twice more
        hook = optimizer.register_step_post_hook(lambda *_: taken.append(True))
        try:
            self.scaler.step(optimizer)
        finally:
            hook.remove()
        self.scaler.update()
        return bool(taken)
