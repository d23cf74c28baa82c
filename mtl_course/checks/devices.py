"""Does an answer follow its inputs to a GPU? Tried on a real one, else on one that is pretended."""

import contextlib
import re

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import values
from .sandbox import run

MIXED = re.compile(r"same device|device mismatch|at least two devices", re.I)
HOST = re.compile(r"convert cuda.* tensor to numpy", re.I)


def problem(case, answer, limit: float | None) -> str | None:
    """What goes wrong on a GPU, in one sentence; "" if nothing; None if it could not be tried."""
    args = case.draw()
    if any(isinstance(a, torch.optim.Optimizer) for a in args):
        return None
    real = torch.cuda.is_available()
    pretended = PretendedGPU()
    mode = contextlib.nullcontext() if real else pretended
    move = torch.Tensor.cuda if real else pretended.take

    def left_the_gpu():
        moved = _moved(args, move)
        with mode:
            results = [r for r in values.tensors(case.exercise.call(answer, *moved)) if r.numel()]
        return any(not r.is_cuda if real else pretended.place(r) == "cpu" for r in results)

    modes = torch.overrides._get_current_function_mode_stack()
    try:
        outcome = run(left_the_gpu, limit, case.seed)
    finally:
        _put_back(modes)
    if outcome.stopped:
        return None
    if outcome.error is None:
        return "The inputs were on the GPU but a result is on the CPU." if outcome.value else ""
    text = run(lambda: str(outcome.error), limit).value or ""
    if MIXED.search(text):
        return (
            "On a GPU your function mixes CPU and GPU tensors."
            " Make new ones with device=x.device, zeros_like or new_zeros."
        )
    return "On a GPU a tensor has no .numpy(): stay in torch." if HOST.search(text) else None


def _put_back(modes):
    """Leave the stack of torch's function modes as it was.

    A call that is stopped just where it enters or leaves the pretended GPU would leave it on, for
    everything that the notebook does afterwards.
    """
    stack = torch.overrides._get_current_function_mode_stack()
    if list(map(id, stack)) != list(map(id, modes)):
        for _ in stack:
            torch.overrides._pop_mode()
        for mode in modes:
            torch.overrides._push_mode(mode)


def _moved(value, move):
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    moved = move(p.detach())
                    module._parameters[name] = nn.Parameter(moved, requires_grad=p.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = move(buffer)
        return value
    if isinstance(value, list | tuple):
        return [_moved(v, move) for v in value]
    if isinstance(value, dict):
        return {k: _moved(v, move) for k, v in value.items()}
    return values.over_tensors(move, value)


class PretendedGPU(TorchFunctionMode):
    """CPU tensors that pass for CUDA tensors: those whose memory was marked.

    Inside this mode every torch call is followed. What is made from marked tensors is marked; what
    is made without them is known to be on the CPU; calls that mix the two raise the error that CUDA
    raises. Unlike torch's fake tensors these have values, so an answer may branch on them. Memory
    that no call under this mode made (a global tensor, the inside of a vmap) is of unknown place,
    and may be mixed with either.
    """

    _GPU = torch.device("cuda", 0)
    _MAY_MIX = frozenset(
        {
            "copy_",
            "__setitem__",
            "data",
            "grad",
            "type_as",
            "set_",
            "is_same_size",
            "_has_compatible_shallow_copy_type",
        }
    )

    def __init__(self):
        super().__init__()
        self._places: dict[int, str] = {}
        # The memory itself, or its address could be given to another tensor.
        self._kept = []

    def take(self, tensor):
        """A copy of `tensor` that passes for a CUDA tensor."""
        with torch._C.DisableTorchFunction():
            copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            self._mark(copy, "cuda")
        return copy

    def place(self, tensor) -> str | None:
        """``"cuda"``, ``"cpu"``, or None where it is unknown."""
        return self._places.get(self._address(tensor))

    @staticmethod
    def _address(tensor) -> int:
        try:
            return tensor.untyped_storage().data_ptr()
        except Exception:  # sparse, or inside a transform
            return 0

    def _mark(self, tensor, place):
        if address := self._address(tensor):
            self._places[address] = place
            self._kept.append(tensor.untyped_storage())

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):  # of a property, such as x.device
            name = func.__self__.__name__
        if name == "__deepcopy__":  # the other argument holds what is copied already, half built
            given = [args[0]]
        else:
            given = values.tensors([list(args), list(kwargs.values())])
        places = [self.place(t) for t in given]
        if name in ("device", "is_cuda", "is_cpu") and places[:1] == ["cuda"]:
            return {"device": self._GPU, "is_cuda": True, "is_cpu": False}[name]
        if name in ("numpy", "__array__") and places[:1] == ["cuda"]:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first."
            )
        if name in ("to", "cuda", "cpu"):
            return self._transfer(func, name, args, kwargs, places)
        if kwargs.get("device") is not None:
            goal = torch.device(kwargs["device"]).type
            kwargs["device"] = "cpu" if goal == "cuda" else goal
        else:
            goal = "cuda" if "cuda" in places else None if None in places else "cpu"
            pairs = zip(given, places, strict=True)
            on_host = any(place == "cpu" and t.ndim for t, place in pairs)
            by_index = name == "__getitem__" and places[0] == "cuda"  # an index may be on the CPU
            if "cuda" in places and on_host and name not in self._MAY_MIX and not by_index:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found cuda:0 and cpu!"
                )
        result = func(*args, **kwargs)
        addresses = {self._address(t) for t in given}
        for made in values.tensors(result):
            if goal is not None and self._address(made) not in addresses:
                self._mark(made, goal)
        return result

    def _transfer(self, func, name, args, kwargs, places):
        """x.to(...), x.cuda(), x.cpu(): the same values, in other memory if the place changes."""
        asked = [a for a in [*args[1:], *kwargs.values()] if isinstance(a, str | torch.device)]
        other = places[1] if name == "to" and len(places) > 1 else None
        if asked:
            goal = torch.device(asked[0]).type
        elif name in ("cuda", "cpu"):
            goal = name
        else:
            goal = other or places[0]
        result = args[0]
        if name == "to":
            kwargs = {key: _on_host(value) for key, value in kwargs.items()}
            result = func(*map(_on_host, args), **kwargs)
        if goal != places[0] and self._address(result) == self._address(args[0]):
            result = result.clone()
        if goal is not None and self.place(result) != goal:
            self._mark(result, goal)
        return result


def _on_host(argument):
    """The argument of a call, with the CPU in place of any device."""
    return torch.device("cpu") if isinstance(argument, str | torch.device) else argument
