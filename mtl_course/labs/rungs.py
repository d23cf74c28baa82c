"""How a lab is described: what the learner writes, how it is played, and its rungs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# seed -> measures of one held-out task; `run` takes the learner's steps to a process of their own.
Play = Callable[[Callable, int], Mapping[str, float]]


class Refused(Exception):  # noqa: N818  what came back is no answer; the message says why
    """An answer that cannot be scored. Its message is what the learner reads."""


@dataclass(frozen=True)
class Step:
    """One call of what the learner wrote.

    Args:
        name: what it is called in messages.
        call: gets what the step before returned (the first step: the learner's function).
        limit: seconds of processor time that it may take.
        gives: what it must return, to be called later: such as ``"a function"``, else None.
    """

    name: str
    call: Callable
    limit: float
    gives: str | None = None


@dataclass(frozen=True)
class Rung:
    """A rung of a ladder.

    Args:
        name: of the baseline that stands on it.
        text: what has to be reached, as a sentence.
        reached: the measures, name -> one value per held-out task -> whether it is.
    """

    name: str
    text: str
    reached: Callable[[Mapping[str, list[float]]], bool]


@dataclass(frozen=True)
class Task:
    """A lab as its scorer sees it.

    Args:
        name: such as ``"lab_3"``.
        function: what the learner's function is called.
        stub: the source of the cell in which the learner writes it.
        play: the measures of a learner's function on the held-out task of a seed.
        practice: seed -> a task to work on, with its answers; nothing of it is held out.
        seeds: of the held-out tasks.
        rungs: the ladder, the lowest first.
        measures: measure -> how it is written; the first one ranks results, more is better.
    """

    name: str
    function: str
    stub: str
    play: Play
    practice: Callable[[int], tuple]
    seeds: tuple[int, ...]
    rungs: tuple[Rung, ...]
    measures: Mapping[str, str]

    @property
    def main(self) -> str:
        """The measure that ranks results."""
        return next(iter(self.measures))

    def rung(self, measures: Mapping[str, list[float]]) -> int:
        """How many rungs are reached, from the lowest on without a gap."""
        for number, rung in enumerate(self.rungs):
            if not rung.reached(measures):
                return number
        return len(self.rungs)


def mean(values: list[float]) -> float:
    """The mean over the held-out tasks."""
    return math.fsum(values) / len(values)


def at_least(name: str, measure: str, limit: float, what: str) -> Rung:
    """The rung of those whose measure is a limit or more, in the mean over the held-out tasks."""
    return Rung(name, what, lambda measures: mean(measures[measure]) >= limit)


def class_numbers(value, count: int, classes: int) -> list[int]:
    """Predicted classes as plain numbers.

    Raises:
        Refused: they are not `count` whole numbers from 0 to `classes` - 1.
    """
    array = _array(value, f"{count} class numbers")
    if array.shape != (count,):
        raise Refused(f"It has shape {list(array.shape)}; [{count}] is wanted: a label each.")
    _require_finite(array)
    if array.dtype.kind not in "iu":
        raise Refused(
            f"It has the type {array.dtype}; whole numbers are wanted, such as `scores.argmax(1)`."
        )
    if array.min() < 0 or array.max() >= classes:
        raise Refused(
            f"It holds labels from {array.min()} to {array.max()}; they go from 0 to {classes - 1}."
        )
    return [int(number) for number in array]


def real_numbers(value, count: int) -> list[float]:
    """Predicted values as plain numbers.

    Raises:
        Refused: they are not `count` finite numbers.
    """
    array = _array(value, f"{count} numbers")
    if array.shape != (count,):
        raise Refused(f"It has shape {list(array.shape)}; [{count}] is wanted: a value each.")
    if array.dtype.kind not in "iuf":
        raise Refused(f"It has the type {array.dtype}; real numbers are wanted.")
    _require_finite(array)
    return [float(number) for number in array]


def _array(value, wanted: str) -> np.ndarray:
    """A tensor, an array or a list as an array of the base class."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | list | tuple):
        raise Refused(
            f"Its type is {type(value).__name__}; a tensor or array with {wanted} is wanted."
        )
    try:
        return np.array(value, subok=False)
    except (ValueError, TypeError):
        raise Refused(
            f"It is no even list of numbers; a tensor or array with {wanted} is wanted."
        ) from None


def _require_finite(array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array))
        raise Refused(f"{len(bad)} of {array.size} are not finite, the first at place {bad[0]}.")
