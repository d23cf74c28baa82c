"""Nested values, which go into an answer and come out of it: copied, compared, put into words."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str)


@dataclass
class Opened:
    """A module or an optimizer taken apart into plain values, to be compared like any other."""

    kind: str
    content: Any


def open_up(value):
    """The plain values that a module or an optimizer consists of.

    A module is its parameters and buffers in order (their names are the learner's choice), which of
    them are trained, and its mode; an optimizer is its groups: numbers, options and parameters.
    """
    if isinstance(value, nn.Module):
        parameters, buffers = list(value.parameters()), list(value.buffers())
        trained = [p.requires_grad for p in parameters]
        modes = [m.training for m in value.modules()]
        return Opened("module", [parameters, buffers, trained, modes])
    plain = (bool, int, float, tuple, list)
    groups = [
        {k: v for k, v in group.items() if isinstance(v, plain)} for group in value.param_groups
    ]
    return Opened("optimizer", groups)


def over_tensors(change, value):
    """`value` with `change` applied to every tensor in it.

    Lists, tuples and dicts are rebuilt; the rest is passed on.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: over_tensors(change, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [over_tensors(change, v) for v in value]
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*items)
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Opened):
        return Opened(value.kind, over_tensors(change, value.content))
    return value


def tensors(value) -> list[Tensor]:
    """Every tensor in a nested value; for modules and optimizers, their parameters and buffers."""
    collected: list[Tensor] = []
    if isinstance(value, nn.Module | torch.optim.Optimizer):
        value = open_up(value)
    if isinstance(value, list | tuple):
        for item in value:
            collected += tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            collected += tensors(item)
    else:
        over_tensors(collected.append, value)
    return collected


def snapshot(value):
    """A copy of a nested value that later calls cannot change, cut off from autograd."""
    if isinstance(value, nn.Module | torch.optim.Optimizer):
        value = open_up(value)
    if isinstance(value, Opened):
        return Opened(value.kind, snapshot(value.content))
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {k: snapshot(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(v) for v in value]
    return value


def marks(args) -> list[dict]:
    """What hangs on the very objects that a function was called with, and no copy of them shows.

    For each tensor and parameter whether it asks for gradients and the gradient that it holds, for
    each module the number of its hooks.
    """
    return [_marks(thing) for thing in _objects(args)]


_LEFT = {
    "requires_grad": "Your function switches requires_grad of one of its arguments.",
    "gradient": "Your function changes the .grad of one of its arguments.",
    "hooks": "Your function leaves a hook on one of its arguments.",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _objects(value) -> list:
    """The modules, parameters and tensors of a nested value."""
    if isinstance(value, nn.Module):
        return [*value.modules(), *value.parameters()]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [thing for item in value for thing in _objects(item)]
    return [value] if isinstance(value, Tensor) else []


def _marks(thing) -> dict:
    if isinstance(thing, nn.Module):
        return {"hooks": sum(len(getattr(thing, kind, ())) for kind in _HOOKS)}
    gradient = thing.grad if thing.is_leaf else None
    gradient = None if gradient is None else gradient.detach().clone()
    return {"requires_grad": thing.requires_grad, "gradient": gradient}


def left_behind(before: list[dict], after: list[dict], wanted: list[dict]) -> str | None:
    """What a function left on its arguments, in a sentence; None for nothing.

    before, after, wanted: the marks before the call, after it, and after that of the reference.
        Where the reference leaves something itself, anything may be left.
    """
    if not len(before) == len(after) == len(wanted):
        return None  # other objects, which the values show
    for old, new, want in zip(before, after, wanted, strict=True):
        for name in old.keys() & new.keys() & want.keys():
            if _unequal(old[name], new[name]) and not _unequal(old[name], want[name]):
                return _LEFT[name]
    return None


def _unequal(mark, other) -> bool:
    if mark is None or other is None:
        return mark is not other
    return not alike(mark, other, 1e-4, 1e-5)


def renew(value):
    """A copy of tensors, arrays, numbers, text, and lists, tuples and dicts of them.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is dict:
        return {k: renew(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(renew(v) for v in value)
    if value is None or type(value) in (bool, int, float, complex, str):
        return value
    raise TypeError(f"{kind(value)} has to be made anew")


def problem(got, want) -> str | None:
    """What is wrong with the type, shape or dtype of `got`, in a sentence; None if nothing is.

    A list and a tuple count as the same, and so do a Python number and a NumPy scalar.
    """
    if type(got) is type(want) and type(want) in PLAIN:  # most of what a module is taken apart into
        return None
    if got is None and want is not None:
        return "Your function returned None. Did you forget `return`?"
    if isinstance(want, Tensor):
        return _tensor_problem(got, want)
    if isinstance(want, np.ndarray) and want.ndim:
        return _array_problem(got, want)
    if _is_number(want):
        return _number_problem(got, want)
    if isinstance(want, Opened):
        if not isinstance(got, Opened) or got.kind != want.kind:
            return f"Expected {_article(want.kind)} but got {kind(got)}."
        fault = problem(got.content, want.content)
        return fault and f"The {want.kind} has other parts than expected: {fault}"
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return f"Expected a dict but got {kind(got)}."
        if got.keys() != want.keys():
            return f"Expected the keys {sorted(map(str, want))} but got {sorted(map(str, got))}."
        return next(filter(None, (problem(got[k], want[k]) for k in want)), None)
    if isinstance(want, list | tuple):
        if not isinstance(got, list | tuple):
            return f"Expected {len(want)} values (a list or tuple) but got {kind(got)}."
        if len(got) != len(want):
            return f"Expected {len(want)} values but got {len(got)}."
        return next(filter(None, map(problem, got, want)), None)
    if want is None:
        return None if got is None else f"Expected None but got {kind(got)}."
    if isinstance(got, type(want)):
        return None
    return f"Expected {_article(type(want).__name__)} but got {kind(got)}."


def _tensor_problem(got, want: Tensor) -> str | None:
    if not isinstance(got, Tensor):
        return (
            f"Expected a torch.Tensor but got {kind(got)}."
            " Stay in torch, which .item(), float() and NumPy leave."
        )
    if got.layout != want.layout:
        return f"Expected a tensor with layout {want.layout} but got {got.layout}."
    if got.shape != want.shape:
        return _other_shape(tuple(got.shape), tuple(want.shape))
    if got.dtype != want.dtype:
        return f"Expected dtype {want.dtype} but got {got.dtype}."
    if got.device != want.device:
        return (
            f"Expected a result on {want.device}, where the inputs are,"
            f" but got one on {got.device}."
        )
    return None


def _other_shape(got: tuple, want: tuple) -> str:
    told = f"Expected shape {want} but got {got}."
    if len(want) < len(got):
        told += " Is a reduction such as .sum() or .mean() missing?"
    return told


def _array_problem(got, want: np.ndarray) -> str | None:
    if not isinstance(got, np.ndarray):
        return f"Expected a NumPy array but got {kind(got)}."
    if got.shape != want.shape:
        return _other_shape(got.shape, want.shape)
    # The width of the default integer depends on the platform; the width of floats is a choice.
    same = got.dtype.kind in "iu" if want.dtype.kind in "iu" else got.dtype == want.dtype
    return None if same else f"Expected dtype {want.dtype} but got {got.dtype}."


def _is_number(value) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    return isinstance(value, numbers.Number | np.generic)


def _number_problem(got, want) -> str | None:
    if isinstance(got, Tensor):
        return "Expected a plain number but got a tensor. Use .item() or float(...)."
    if not _is_number(got):
        return f"Expected a number but got {kind(got)}."
    got_kind, want_kind = (np.asarray(v).dtype.kind.replace("u", "i") for v in (got, want))
    names = {"b": "True or False", "i": "a whole number", "f": "a float", "c": "a complex number"}
    serves_as = {"f": "if", "c": "ifc"}.get(want_kind, want_kind)
    if got_kind in serves_as:
        return None
    return f"Expected {names.get(want_kind, 'a number')} but got {kind(got)}."


def same(got, want, rtol: float, atol: float) -> bool:
    """Whether two values of the same type and shape are equal up to tolerance. Never raises.

    NaN equals NaN.
    """
    try:
        return _same(got, want, rtol, atol)
    except Exception:  # not comparable at all
        return False


def _same(got, want, rtol, atol) -> bool:
    if type(got) is type(want) and type(want) in PLAIN:
        return got == want or (type(want) is float and _close(got, want, rtol, atol))
    if isinstance(want, Tensor):
        if want.layout != torch.strided:
            got, want = got.to_dense(), want.to_dense()
        if torch.equal(got, want):
            return True
        inexact = want.is_floating_point() or want.is_complex()
        return inexact and torch.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    if isinstance(want, np.ndarray) or _is_number(want):
        got, want = np.asarray(got), np.asarray(want)
        if want.dtype.kind in "fc":
            return np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
        return bool(np.array_equal(got, want))
    if isinstance(want, Opened):
        return _same(got.content, want.content, rtol, atol)
    if isinstance(want, dict):
        return all(_same(got[k], want[k], rtol, atol) for k in want)
    if isinstance(want, list | tuple):
        return all(_same(a, b, rtol, atol) for a, b in zip(got, want, strict=True))
    if got is want:
        return True
    return type(got) is type(want) and (_opaque(want) or bool(got == want))


def _close(got: float, want: float, rtol: float, atol: float) -> bool:
    """As np.allclose, which takes a hundred times as long for two numbers."""
    if not (math.isfinite(got) and math.isfinite(want)):
        return got == want or (math.isnan(got) and math.isnan(want))
    return abs(got - want) <= atol + rtol * abs(want)


def _opaque(value) -> bool:
    """Things that cannot be compared by value, such as a random generator or a function."""
    return type(value).__eq__ is object.__eq__


def alike(a, b, rtol: float, atol: float) -> bool:
    """Whether two values have the same type and shape and are equal up to tolerance."""
    try:
        return problem(a, b) is None and same(a, b, rtol, atol)
    except Exception:
        return False


def kind(value) -> str:
    """The type of a value with its article, for messages: ``a float``, ``a tensor``."""
    if value is None:
        return "None"
    if isinstance(value, Opened):
        return _article(value.kind)
    if isinstance(value, Tensor | np.ndarray):
        return "a tensor" if isinstance(value, Tensor) else "a NumPy array"
    return _article(type(value).__name__)


def _article(noun: str) -> str:
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun


def brief(value) -> str:
    """A short text: all of a small array, the first entries of a large one.

    Never raises, never runs a foreign repr.
    """
    try:
        return _brief(value)
    except Exception:
        return kind(value)


def _brief(value) -> str:
    if isinstance(value, Tensor):
        dense = value.detach().cpu()
        if dense.layout != torch.strided:
            dense = dense.to_dense()
        first = dense.flatten()[:6].tolist()
        return _brief_array(dense.tolist(), tuple(dense.shape), dense.numel(), first)
    if isinstance(value, np.ndarray):
        return _brief_array(value.tolist(), value.shape, value.size, value.flatten()[:6].tolist())
    if isinstance(value, nn.Module):
        numbers_in_it = sum(p.numel() for p in value.parameters())
        return f"a {type(value).__name__} with {numbers_in_it} parameters"
    if isinstance(value, Opened):
        return _article(value.kind) + " with " + _brief(value.content)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, value[:8]))}{', …' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        entries = [f"{k}: {_brief(v)}" for k, v in list(value.items())[:8]]
        return f"{{{', '.join(entries)}{', …' if len(value) > 8 else ''}}}"
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (int, float, bool, complex):
        return _number(value)
    return repr(value)[:80] if type(value) is str else kind(value)


def _brief_array(nested, shape, size, first) -> str:
    if not shape:
        return _number(nested)
    if size <= 12:
        return f"{_numbers(nested)} (shape {shape})"
    return f"{_numbers(first)[:-1]}, …] (shape {shape})"


def _numbers(nested) -> str:
    if isinstance(nested, list):
        return "[" + ", ".join(map(_numbers, nested)) + "]"
    return _number(nested)


def _number(x) -> str:
    return f"{x:.4g}" if type(x) in (float, complex) else str(x)
