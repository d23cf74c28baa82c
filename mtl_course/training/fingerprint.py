"""Short texts that tell data, functions and options apart: what a resumed run is compared with.

Two runs are the same where these texts are. What a run itself changes has no place in them:
parameters, the counters of a schedule, a number that a function counts up.
"""

import dis
import functools
import hashlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype)
# Options of an optimizer that say how a step is computed, not what it is.
HOW = {"params", "foreach", "fused", "capturable", "differentiable", "initial_lr"}
# What a schedule changes while it runs.
RUNNING = {
    "optimizer",
    "last_epoch",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "T_cur",
    "T_i",
    "_step_count",
    "_last_lr",
    "_get_lr_called_within_step",
    "_is_initial",
}
# Their functions are told by their names: a new version must not end every run that was begun.
LIBRARIES = {"torch", "torchvision", "numpy", "mtl_course", "functools", "builtins"}


def of_data(data: Any) -> str:
    """The shapes of all tensors, in order, and a checksum of what they hold."""
    shapes: list[list[int]] = []
    text = _checksum(data, shapes)
    more = " ..." if len(shapes) > 3 else ""
    return f"{' '.join(map(str, shapes[:3]))}{more}, checksum {text}"


def of_function(function: Any) -> str:
    """Name and a checksum of the code and of every value that the function brings along."""
    if function is None:
        return "none"
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name}, checksum {_checksum(function)}"


def of_options(thing: Any) -> str:
    """A checksum of the numbers, texts and functions that a weighting or method was made with."""
    if isinstance(thing, nn.Module):
        kept = (bool, int, float, str, types.FunctionType, types.MethodType, functools.partial)
        options = {k: v for k, v in vars(thing).items() if k[0] != "_" and isinstance(v, kept)}
        options.pop("training", None)
        return f"checksum {_checksum(options)}"
    return of_function(thing)


def of_tensors(thing: Any) -> str:
    """A checksum of the buffers that a weighting starts with."""
    buffers = list(thing.buffers()) if isinstance(thing, nn.Module) else []
    return f"checksum {_checksum(buffers)}"


def of_optimizer(optimizer: torch.optim.Optimizer, scheduled: bool) -> dict[str, str]:
    """Option of each parameter group -> its value at the start of the run."""
    options = {}
    for number, group in enumerate(optimizer.param_groups):
        start = {key: value for key, value in group.items() if key not in HOW}
        if scheduled:
            # A schedule keeps the rate that it starts from, and may drive the momentum too.
            start["lr"] = group.get("initial_lr", "set by the schedule")
            if group.keys() & {"base_momentum", "max_momentum"}:
                start = {k: v for k, v in start.items() if k not in ("momentum", "betas")}
        options |= {
            f"{key} of parameter group {number}": repr(_plain(value))
            for key, value in start.items()
        }
    return options


def of_schedule(schedule: Any, name: str = "schedule") -> dict[str, str]:
    """Option of a schedule -> its value; nested schedules after their number."""
    options = {}
    for key, value in vars(schedule).items():
        if key in RUNNING:
            continue
        if _is_schedule(value):
            options |= of_schedule(value, f"{name} {key.strip('_')}")
        elif isinstance(value, list) and value and all(map(_is_schedule, value)):
            for number, part in enumerate(value):
                options |= of_schedule(part, f"{name} {number}")
        elif callable(value) or (isinstance(value, list) and any(map(callable, value))):
            options[f"{name} {key}"] = f"checksum {_checksum(value)}"
        elif _is_plain(value):
            options[f"{name} {key}"] = repr(_plain(value))
    return options


def _is_schedule(value: Any) -> bool:
    """Whether this is one of torch's schedules, or something that steps as they do."""
    return hasattr(value, "step") and hasattr(value, "optimizer")


def _is_plain(value: Any) -> bool:
    """Whether the value is a number or text, or a collection of those."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN) or (isinstance(value, Tensor) and value.numel() == 1)


def _plain(value: Any) -> Any:
    """The value with numbers in place of tensors and dicts in place of their kinds."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else list(value)
    return value


# ------------------------------------------------------------------------------------ the checksum
def _checksum(value: Any, shapes: list | None = None) -> str:
    """Eight hexadecimal digits; the shapes of the tensors on the way are added to `shapes`."""
    digest = hashlib.sha256()
    _feed(digest, value, [] if shapes is None else shapes, ())
    return digest.hexdigest()[:8]


def _feed(digest: Any, value: Any, shapes: list, above: tuple[int, ...]) -> None:
    """Add a value, with all that it holds, to the checksum."""
    if id(value) in above:
        return
    above = (*above, id(value))

    def feed(items: Iterable[Any]) -> None:
        for item in items:
            _feed(digest, item, shapes, above)

    digest.update(f"<{type(value).__qualname__}>".encode())
    if isinstance(value, PLAIN):
        digest.update(repr(value).encode())
    elif isinstance(value, Tensor | np.ndarray):
        _feed_numbers(digest, value, shapes)
    elif isinstance(value, nn.Module):
        _feed_module(digest, value, feed)
    elif isinstance(value, Mapping):
        feed(value.keys())
        feed(value.values())
    elif isinstance(value, list | tuple):
        feed(value)
    elif isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, functools.partial):
        feed([value.func, value.args, value.keywords])
    elif isinstance(value, types.MethodType):
        feed([value.__func__, value.__self__])
    elif isinstance(value, types.FunctionType):
        digest.update(value.__name__.encode())
        feed([value.__defaults__, value.__kwdefaults__])
        feed(_brought_along(value))
        if not _from_library(value):
            feed([value.__code__])
    elif isinstance(value, types.CodeType):
        digest.update(value.co_code + repr(value.co_names).encode())
        feed(value.co_consts)
    elif isinstance(value, type | types.BuiltinFunctionType):
        digest.update(value.__qualname__.encode())
    elif _from_library(type(value)) and hasattr(value, "__dict__"):
        feed(item for item in vars(value).values() if _is_kept(item))


def _feed_numbers(digest: Any, values: Tensor | np.ndarray, shapes: list) -> None:
    """Add shape, type and content; of a parameter, which training changes, no content."""
    shapes.append(list(values.shape))
    digest.update(f"{list(values.shape)} {values.dtype}".encode())
    if isinstance(values, Tensor):
        if values.requires_grad or values.layout != torch.strided:
            return
        values = values.detach().cpu().contiguous().reshape(-1)
        values = values.view(torch.uint8) if values.numel() else values
        values = values.resolve_conj().numpy()
    if values.dtype == object:
        return
    digest.update(np.ascontiguousarray(values).data)


def _feed_module(digest: Any, module: nn.Module, feed: Any) -> None:
    """Add the layers with their options, and the buffers of what has no parameters to train."""
    state = module.state_dict()
    digest.update(
        repr([(name, list(getattr(v, "shape", ()))) for name, v in state.items()]).encode()
    )
    for part in module.modules():
        digest.update(type(part).__qualname__.encode())
        options = {k: v for k, v in vars(part).items() if k[0] != "_" and k != "training"}
        for name, value in options.items():
            if isinstance(value, (*PLAIN, types.FunctionType)):
                digest.update(name.encode())
                feed([value])
    if not any(True for _ in module.parameters()):
        feed(module.buffers())


def _brought_along(function: types.FunctionType) -> list[Any]:
    """The values that a function finds outside itself and does not set: closure and globals."""
    code, values = function.__code__, []
    changed = _set_by(code)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in changed:
            try:
                content = cell.cell_contents
            except ValueError:  # not set yet
                continue
            values += [name, content] if _is_kept(content) else [name]
    if not _from_library(function):
        for name in _names_of(code):
            if name not in changed and name in function.__globals__:
                value = function.__globals__[name]
                values += [name, value] if _is_kept(value) else [name]
    return values


def _set_by(code: types.CodeType) -> set[str]:
    """Every name that the code, or code inside it, gives a value."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname.startswith("STORE_")}
    return names.union(*(_set_by(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def _names_of(code: types.CodeType) -> list[str]:
    """Every global name and attribute that the code, or code inside it, reads."""
    inside = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [*code.co_names, *(name for c in inside for name in _names_of(c))]


def _is_kept(value: Any) -> bool:
    """Whether a value stays as it is while a run goes on: no list or dict that may grow."""
    if isinstance(value, Mapping):
        return all(map(_is_tensors, value.values()))
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, Tensor) or callable(v) for v in value)
    if isinstance(value, tuple):
        return all(map(_is_kept, value))
    kinds = (*PLAIN, Tensor, np.ndarray, nn.Module, functools.partial, frozenset)
    functions = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)
    if isinstance(value, torch.Generator | torch.optim.Optimizer | types.ModuleType):
        return False
    return isinstance(value, kinds + functions) or _from_library(type(value))


def _is_tensors(value: Any) -> bool:
    """Whether this is a tensor or array, or a tuple of these, as a task's inputs and labels."""
    if isinstance(value, tuple):
        return all(map(_is_tensors, value))
    return isinstance(value, Tensor | np.ndarray)


def _from_library(thing: Any) -> bool:
    """Whether a function or class is of a library, the course's own among them."""
    return (getattr(thing, "__module__", None) or "").split(".")[0] in LIBRARIES
