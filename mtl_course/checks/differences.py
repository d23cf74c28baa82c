"""Where two values differ, in words: the part, the entries, the factor, the inputs concerned."""

import math
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from . import values

# What a module is taken apart into, by `values.open_up`.
_OF_A_MODULE = ("its parameters", "its buffers", "which parameters are trained", "its mode")
# More entries of a tensor than that are counted, and not named one by one.
_NAMED = 3


@dataclass
class Difference:
    """Two values that differ, or the first of their parts that do.

    part: what differs, in words; "" where the values have no parts.
    path: of the part: keys and positions.
    """

    part: str
    path: tuple
    got: Any
    want: Any


def first(got, want, rtol: float, atol: float, names: Sequence[str] = ()) -> Difference:
    """The first part of `got` that is not as wanted.

    names: of the parts of a list or tuple, as the docstring calls them.
    """
    told, path, more = [], [], 0
    while (parts := _parts(got, want, names)) is not None:
        differing = [p for p in parts if not values.same(p[2], p[3], rtol, atol)]
        if not differing:
            break
        name, step, got, want = differing[0]
        more = max(more, len(differing) - 1)
        if name:
            told.append(name)
        path.append(step)
        names = ()
    return Difference(", ".join(told), tuple(path), got, want)


def _parts(got, want, names) -> list[tuple] | None:
    """(name, step, got, want) of each part; None where there are none."""
    if isinstance(want, values.Opened):
        of = _OF_A_MODULE if want.kind == "module" else ()
        return [
            (name or "", step, a, b)
            for step, (name, a, b) in enumerate(zip_longest(of, got.content, want.content))
        ]
    if isinstance(want, dict):
        return [(_quoted(key), key, got[key], want[key]) for key in want]
    if isinstance(want, list | tuple):
        length = len(want)
        return [
            (names[n] if n < len(names) else f"number {n + 1} of {length}", n, a, b)
            for n, (a, b) in enumerate(zip(got, want, strict=True))
        ]
    return None


def _quoted(key) -> str:
    """A key as a text: in quotes, so that it is seen where a phrase begins and ends."""
    return f'"{key}"' if isinstance(key, str) and " " in key else f"entry {values.brief(key)}"


def at(value, path: Sequence):
    """The part of a value at a path.

    Raises:
        LookupError: it has none.
    """
    for step in path:
        value = (value.content if isinstance(value, values.Opened) else value)[step]
    return value


# -------------------------------------------------------------------- entries


def entries(got, want, rtol: float, atol: float) -> str:
    """Which entries of a tensor or array differ, in a sentence; "" where all do or it has one."""
    a, b = _array(got), _array(want)
    if a is None or b is None or a.shape != b.shape or b.size < 2:
        return ""
    wrong = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    places = np.argwhere(wrong)
    if not 0 < len(places) < b.size:
        return ""
    if b.ndim == 2:
        diagonal = np.eye(*b.shape, dtype=bool)
        if b.shape[0] == b.shape[1] > 1:
            if not wrong[~diagonal].any():
                return "It differs on the diagonal only."
            if not wrong[diagonal].any() and wrong[~diagonal].all():
                return "It differs everywhere but on the diagonal."
            lower = np.tri(len(b), dtype=bool)
            if not wrong[lower].any():
                return "It differs above the diagonal only."
            if not wrong[lower.T].any():
                return "It differs below the diagonal only."
        for axis, line in enumerate(("row", "column")):
            if len(at_one := np.unique(places[:, axis])) == 1 < b.shape[axis]:
                return f"It differs in {line} {at_one[0]} only."
    if len(places) <= _NAMED:
        named = ", ".join(str(place.tolist()) for place in places)
        return f"Only entry {named} differs." if len(places) == 1 else f"Entries {named} differ."
    return f"{len(places)} of {b.size} entries differ, the first of them {places[0].tolist()}."


def _array(value) -> np.ndarray | None:
    """Numbers as an array of doubles; None for all else."""
    if isinstance(value, torch.Tensor):
        value = (value if value.layout == torch.strided else value.to_dense()).cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray | np.generic | numbers.Real):
        value = np.asarray(value)
        return value.astype(float) if value.dtype.kind in "iuf" else None
    if isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value):
        return np.asarray(value, dtype=float)
    return None


# ------------------------------------------------------------- over all inputs


def pattern(pairs: list[tuple[Any, Any]], arguments: list[dict], rtol, atol) -> str:
    """What the differences on all inputs have in common, in a sentence; "" for nothing.

    pairs: (got, want) of the part that differs, on each input; arguments: those inputs by name.
    """
    arrays = [(_array(got), _array(want)) for got, want in pairs]
    wrong = [not values.same(got, want, rtol, atol) for got, want in pairs]
    if not all(wrong):
        return _where(wrong, arguments)
    if any(a is None or b is None or a.shape != b.shape for a, b in arrays):
        return ""
    got = np.concatenate([a.ravel() for a, _ in arrays])
    want = np.concatenate([b.ravel() for _, b in arrays])
    if np.isnan(got).any() and not np.isnan(want).any():
        return "It is NaN, at least in part."
    finite = np.isfinite(got) & np.isfinite(want)
    if not finite.all() or len(want) < 2:
        return ""
    close = {"rtol": max(rtol, 1e-3), "atol": atol}
    if not got.any():
        return "It is 0 for all inputs."
    for name in arguments[0]:
        if all(
            (given := _array(each.get(name))) is not None
            and given.shape == a.shape
            and np.allclose(a, given, **close)
            for each, (a, _) in zip(arguments, arrays, strict=True)
        ):
            return f"What comes back is `{name}` itself."
    if np.allclose(got, want, **close):
        return f"Only later digits differ, by at most {np.abs(got - want).max():.1g}."
    large = np.abs(want) > 10 * atol
    if large.sum() >= 2:
        ratio = float(np.median(got[large] / want[large]))
        if np.allclose(got, ratio * want, **close):
            if math.isclose(ratio, -1, rel_tol=1e-3):
                return "The sign is turned everywhere."
            return f"It is {ratio:.3g} times what is expected, everywhere."
    away = got - want
    if np.allclose(away, away[0], **close):
        more = "larger" if away[0] > 0 else "smaller"
        return f"It is {more} by {abs(away[0]):.3g}, everywhere."
    if np.ptp(got) < 1e-9 * abs(got[0]) and np.ptp(want) > 0:
        return f"It is {got[0]:.4g} for all inputs."
    if np.allclose(np.abs(got), np.abs(want), **close):
        return "The sizes are right, some signs are not."
    for told, change in (
        ("It is transposed.", np.transpose),
        ("The right numbers stand in another order.", np.sort),
    ):
        if all(_alike(change, a, b, close) for a, b in arrays):
            return told
    return _factor_of_an_input(arrays, arguments, close)


def _alike(change, a, b, close) -> bool:
    if change is np.sort:
        return a.size > 1 and np.allclose(np.sort(a.ravel()), np.sort(b.ravel()), **close)
    return a.ndim == 2 and a.shape[0] == a.shape[1] > 1 and np.allclose(a.T, b, **close)


def _factor_of_an_input(arrays, arguments, close) -> str:
    """Whether a number among the inputs, or the length of one, is a factor or a term too many."""
    for name, numbers_of in _numbers_in(arguments):
        for told, change in (
            ("What is expected, times {}.", lambda b, n: b * n),
            ("What is expected, divided by {}.", lambda b, n: b / n if n else b * math.nan),
            ("What is expected, plus {}.", lambda b, n: b + n),
            ("What is expected, minus {}.", lambda b, n: b - n),
        ):
            if all(
                np.allclose(a, change(b, n), **close)
                for (a, b), n in zip(arrays, numbers_of, strict=True)
            ):
                return told.format(name)
    return ""


def _numbers_in(arguments) -> Iterator[tuple[str, list[float]]]:
    for name in arguments[0]:
        given = [each.get(name) for each in arguments]
        if all(type(v) in (int, float) and math.isfinite(v) for v in given):
            yield f"`{name}`", [float(v) for v in given]
        if all(isinstance(v, list | tuple | dict) for v in given):
            yield f"the length of `{name}`", [float(len(v)) for v in given]
        for axis, which in enumerate(("first", "second", "third")):
            if all(hasattr(v, "shape") and len(v.shape) > axis for v in given):
                sizes = [float(v.shape[axis]) for v in given]
                yield f"the {which} size of `{name}`", sizes


# What an argument may be on the inputs for which an answer is wrong, and on no others.
_LOOKS = {
    "is None": lambda v: v is None,
    "is True": lambda v: v is True,
    "is False": lambda v: v is False,
    "is 0": lambda v: type(v) in (int, float) and v == 0,
    "is 1": lambda v: type(v) in (int, float) and v == 1,
    "is not 0": lambda v: type(v) in (int, float) and v != 0,
    "is infinite": lambda v: type(v) is float and math.isinf(v),
    "is empty": lambda v: _length(v) == 0,
    "has one entry": lambda v: _length(v) == 1,
    "has more than one entry": lambda v: (_length(v) or 0) > 1,
    "has one column": lambda v: getattr(v, "ndim", 0) == 2 and v.shape[1] == 1,
    "is not square": lambda v: getattr(v, "ndim", 0) >= 2 and v.shape[-1] != v.shape[-2],
    "has NaN": lambda v: _any(v, np.isnan),
    "has zeros": lambda v: _any(v, lambda a: a == 0),
    "is all zeros": lambda v: _any(v, lambda a: np.full(1, a.size > 0 and not a.any())),
    "has negative numbers": lambda v: _any(v, lambda a: a < 0),
    "has equal numbers": lambda v: _any(v, lambda a: np.full(1, a.size > len(np.unique(a)))),
    "is very large": lambda v: _any(v, lambda a: np.abs(a) > 1e3),
    "is tiny": lambda v: _any(v, lambda a: np.full(1, 0 < np.abs(a).max(initial=0.0) < 1e-2)),
}


def _length(value) -> int | None:
    if getattr(value, "ndim", 1) == 0 or isinstance(value, str):
        return None
    return len(value) if hasattr(value, "__len__") else None


def _any(value, test) -> bool:
    if isinstance(value, list | tuple | dict):
        inside = value.values() if isinstance(value, dict) else value
        return any(_any(v, test) for v in inside)
    numbers_in_it = _array(value)
    return numbers_in_it is not None and bool(np.asarray(test(numbers_in_it)).any())


def _where(wrong: list[bool], arguments: list[dict]) -> str:
    """On which inputs an answer is wrong that is right on others."""
    for name in arguments[0]:
        for told, looks in _LOOKS.items():
            if [name in each and bool(looks(each[name])) for each in arguments] == wrong:
                return f"Of these inputs, it is wrong where `{name}` {told}, else right."
    return ""
