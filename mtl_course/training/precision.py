"""Automatic mixed precision: forward passes in bfloat16 or float16, all else in float32.

Weights, losses and sums of gradients stay in float32. bfloat16 has the range of float32, so nothing
else is needed. In float16 a gradient below 6e-8 is 0 and a value above 65504 infinite: the loss is
multiplied by a large factor before the backward pass, and the gradients are divided by it before
the step. Where the factor was too large, the step is left out and the factor halved.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .faults import require_plain_schedule


def short_type(device: torch.device) -> torch.dtype:
    """The 16-bit type for a device.

    Args:
        device: a CPU or a GPU.

    Returns:
        bfloat16 where the device computes in it, else float16: on a GPU older than Ampere, such as
        a T4.

    Example:
        >>> short_type(torch.device("cpu"))
        torch.bfloat16
    """
    native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if native else torch.float16


def default_precision(device: torch.device) -> torch.dtype | None:
    """What a full-size run computes in on a device.

    Args:
        device: a CPU or a GPU.

    Returns:
        `short_type` on a GPU, None (float32) elsewhere.

    Example:
        >>> default_precision(torch.device("cpu")) is None
        True
    """
    return short_type(device) if device.type == "cuda" else None


class Precision:
    """The precision of one run on one device, with a gradient scaler for float16.

    `scaler` is the `torch.amp.GradScaler` of float16, else None.

    Args:
        dtype: of the forward passes: None or float32 for full precision, bfloat16 or float16.
        device: where the run computes.

    Raises:
        ValueError: for another dtype.

    Example:
        >>> precision = Precision(torch.bfloat16, torch.device("cpu"))
        >>> layer, x = torch.nn.Linear(3, 1), torch.ones(2, 3)
        >>> with precision.forward():
        ...     logits = layer(x)
        >>> logits.dtype, precision.outputs(layer, x).dtype
        (torch.bfloat16, torch.float32)
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
        """The context of a forward pass; a loss belongs outside, on the outputs in `full`."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def outputs(self, model: Callable[[Tensor], Any], x: Tensor) -> Any:
        """``model(x)`` (a tensor or a dict of tensors) in this precision, and then in float32."""
        if self.dtype is None:
            return model(x)
        with self.forward():
            outputs = model(x)
        return self.full(outputs)

    def full(self, outputs):
        """Outputs (a tensor or a dict of tensors) in float32, if this precision made them short."""
        if self.dtype is None:
            return outputs
        if isinstance(outputs, Mapping):
            return {name: self.full(output) for name, output in outputs.items()}
        return outputs.float() if outputs.dtype is self.dtype else outputs

    def backward(self, loss: Tensor) -> None:
        """``loss.backward()``, times the scaler's factor where there is one."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def step(self, optimizer: torch.optim.Optimizer, schedule: LRScheduler | None = None) -> bool:
        """The optimizer's step on gradients without the factor and, if taken, the schedule's.

        False if gradients had overflowed: no step, and the factor is halved. TypeError, before any
        step, for a schedule that wants to see a loss.
        """
        if isinstance(schedule, ReduceLROnPlateau):
            require_plain_schedule(schedule)
        taken = True
        if self.scaler is None:
            optimizer.step()
        else:
            taken = self._scaled_step(optimizer)
        if taken and schedule is not None:
            schedule.step()
        return taken

    def _scaled_step(self, optimizer: torch.optim.Optimizer) -> bool:
        """The scaler's step, and whether the optimizer took it."""
        # Asking the scaler for its factor instead would wait for the GPU twice more.
        taken = []
        hook = optimizer.register_step_post_hook(lambda *_: taken.append(True))
        try:
            self.scaler.step(optimizer)
        finally:
            hook.remove()
        self.scaler.update()
        return bool(taken)
