"""The verbs of the exercises: `check`, `hint`, `solution`, `use` and `progress`."""

import difflib
import os
import random

from . import learner, store
from .diagnosis import diagnose
from .exercise import REGISTRY, Exercise
from .report import Result
from .rows import Row, draw_cases, examine, share
from .sandbox import randomness_restored
from .values import kind

__all__ = ["check", "hint", "solution", "use", "progress", "CheckFailed", "Result"]

MODES = ("learn", "blank", "strict")
_hints_given: dict[str, int] = {}


class CheckFailed(AssertionError):
    """A check does not come out as CI expects it to. Never raised in a learner's notebook."""


def check(name: str, answer=None, seed: int | None = None, rounds: int = 3) -> Result:
    """Check the answer to an exercise on fresh random inputs, and say what is right, what is wrong
    and, where it is known, why.

    name: of the exercise. answer: the function or class to check; by default what is called `name`
        in the notebook.
    seed: repeats a check on the same inputs. rounds: draws from each generator of inputs.
        ValueError for an unknown name, with the nearest ones. Nothing that the answer does raises
        here, or leaves a trace.

    The environment variable MTL_COURSE_CHECKS is for CI: with `blank` everything but "not started"
    raises CheckFailed, with `strict` everything but "solved".
    """
    exercise, mode = _find(name), _mode()
    if seed is None:
        seed = random.SystemRandom().randrange(10**6) if mode == "learn" else 0
    given = answer is not None
    answer = answer if given else learner.find(name)
    try:
        with randomness_restored():
            result = _judge(exercise, answer, given, seed, rounds)
    except Exception as fault:
        if mode != "learn":
            raise
        text = (
            f"This check itself failed, which is no fault of yours: {type(fault).__name__}:"
            f" {fault}. Please report it."
        )
        return Result(exercise, "error", [Row("the check runs", False, text)], 0.0, None, seed)
    note = store.record(result)
    result.notes += [note] if note else []
    if (
        mode == "strict"
        and result.state != "solved"
        or mode == "blank"
        and (result.state != "blank" or not result.hint)
    ):
        raise CheckFailed(f"MTL_COURSE_CHECKS={mode}: {result!r}")
    return result


def _judge(exercise: Exercise, answer, given: bool, seed: int, rounds: int) -> Result:
    def verdict(state, rows=(), score=0.0, hint=None, printed=""):
        return Result(exercise, state, list(rows), score, hint, seed, printed)

    if answer is None:
        return verdict(
            "missing",
            hint=(
                f"There is no `{exercise.name}` here yet. Run the cell of the exercise, then this"
                " one."
            ),
        )
    if learner.is_reference(exercise, answer) or not given and learner.is_course_code(answer):
        return verdict(
            "missing",
            hint=(
                f"`{exercise.name}` is the course's own answer here. Run the exercise's cell to"
                " check yours."
            ),
        )
    if not callable(answer):
        text = (
            f"`{exercise.name}` is {kind(answer)}, not a function. Run the cell of the exercise"
            " again."
        )
        return verdict("error", [Row("runs on fresh random inputs", False, text)])
    cases = draw_cases(exercise, seed, rounds)
    found = examine(exercise, answer, cases)
    if found.state == "blank":
        return verdict("blank", hint=_first_hint(exercise))
    hint = None if found.state == "solved" else diagnose(exercise, answer, found, cases)
    return verdict(found.state, found.rows, exercise.points * share(found), hint, found.printed)


def _first_hint(exercise: Exercise) -> str:
    if exercise.hints:
        return exercise.hints[0]
    if exercise.starter:
        return "Find the mistake and mend it."
    return "Replace the line `raise NotImplementedError(...)` with your answer."


def hint(name: str, n: int | None = None) -> None:
    """Print the next hint of an exercise, a little closer with every call; or the n-th. ValueError
    for an unknown name.
    """
    exercise = _find(name)
    if not exercise.hints:
        print(f"{name} has no hints. {_first_hint(exercise)}")
        return
    last = len(exercise.hints)
    n = min(max(_hints_given.get(name, 0) + 1 if n is None else n, 1), last)
    _hints_given[name] = n
    print(f"Hint {n} of {last}: {exercise.hints[n - 1]}")
    if n == last:
        print(f'That is the last one. solution("{name}") shows an answer.')


def solution(name: str) -> None:
    """Print an answer to an exercise. ValueError for an unknown name."""
    print(_find(name).solution)


def use(name: str):
    """The learner's answer if it passes its check, else the course's own, so that the rest of a
    notebook always runs.

    Give the result a name of its own, such as ``step = use("joint_gradient")``. ValueError for an
    unknown name.
    """
    exercise = _find(name)
    answer = learner.find(name)
    if (
        callable(answer)
        and not learner.is_reference(exercise, answer)
        and not learner.is_course_code(answer)
    ):
        with randomness_restored():
            found = examine(exercise, answer, draw_cases(exercise, 0, 3))
        if found.state == "solved":
            print(f"Going on with your own {name}.")
            return answer
    print(f"Going on with the course's {name}; yours takes over once its check passes.")
    return exercise.reference


def progress() -> store.Progress:
    """The course at a glance: what is solved, by chapter."""
    entries, note = store.load()
    return store.Progress(list(_registry().values()), entries, note)


def _registry() -> dict[str, Exercise]:
    from .. import exercises  # noqa: F401  registers them

    return REGISTRY


def _find(name: str) -> Exercise:
    registry = _registry()
    if name not in registry:
        near = difflib.get_close_matches(str(name), registry, 3, 0.4)
        advice = f"Did you mean {' or '.join(near)}?" if near else "progress() lists them all."
        raise ValueError(f"There is no exercise {name!r}. {advice}")
    return registry[name]


def _mode() -> str:
    mode = os.environ.get("MTL_COURSE_CHECKS") or "learn"
    if mode not in MODES:
        raise ValueError(f"MTL_COURSE_CHECKS is {mode!r}; it must be one of {', '.join(MODES)}.")
    return mode
