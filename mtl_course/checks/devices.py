"""Does an answer follow its inputs to another device? On the real GPU where there is one, else with torch's fake tensors."""

import contextlib
import re

import torch
from torch import nn

from . import values
from .sandbox import run

MIXED = re.compile(r"same device|device mismatch|at least two devices|Unhandled FakeTensor Device Propagation", re.I)


def problem(case, answer, limit: float | None) -> str | None:
    """What goes wrong on a GPU, in one sentence; "" if nothing does; None if it could not be tried."""
    args = case.draw()
    if any(isinstance(a, torch.optim.Optimizer) for a in args):
        return None
    if torch.cuda.is_available():
        mode, move = contextlib.nullcontext(), lambda t: t.cuda()
    else:
        from torch._subclasses.fake_tensor import FakeTensorMode

        mode, move = FakeTensorMode(), lambda t: torch.empty(t.shape, dtype=t.dtype, device="cuda", requires_grad=t.requires_grad)

    def once():
        with mode:
            results = case.exercise.call(answer, *_moved(args, move))
            return {t.device.type for t in values.tensors(results)}

    outcome = run(once, limit, case.seed)
    if outcome.stopped:
        return None
    if outcome.error is not None:
        try:
            mixed = MIXED.search(str(outcome.error))
        except Exception:
            mixed = None
        if mixed:
            return "On a GPU your function mixes CPU and GPU tensors. Make new tensors with device=x.device, or zeros_like, new_zeros."
        return None
    strangers = outcome.value - {"cuda"}
    return f"The inputs were on the GPU but a result is on the {strangers.pop().upper()}." if strangers else ""


def _moved(value, move):
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    module._parameters[name] = nn.Parameter(move(p.detach()), requires_grad=p.requires_grad)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = move(b)
        return value
    if isinstance(value, list | tuple):
        return [_moved(v, move) for v in value]
    if isinstance(value, dict):
        return {k: _moved(v, move) for k, v in value.items()}
    return values.over_tensors(move, value)
