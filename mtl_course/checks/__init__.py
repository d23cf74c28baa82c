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

__all__ = ["CheckFailed", "Result", "check", "hint", "progress", "solution", "use"]

MODES = ("learn", "blank", "strict")
_hints_given: dict[str, int] = {}


class CheckFailed(AssertionError):  # noqa: N818  it is what a test run says
    """A check does not come out as CI expects it to. Never raised in a learner's notebook."""


def check(name: str, answer=None, seed: int | None = None, rounds: int = 3) -> Result:
    """Check the answer to an exercise on fresh random inputs.

    The result says what is right, what is wrong and, where it is known, why. Nothing that the
    answer does raises here, or leaves a trace. The environment variable MTL_COURSE_CHECKS is for
    CI: with `blank` everything but "not started" raises CheckFailed, with `strict` everything but
    "solved".

    Args:
        name: of the exercise.
        answer: the function or class to check; by default what is called `name` in the notebook.
        seed: repeats a check on the same inputs; by default they are new ones.
        rounds: draws from each generator of inputs.

    Returns:
        The verdict, which a notebook shows as a card.

    Raises:
        ValueError: no exercise has this name; the message has the nearest ones.
        CheckFailed: in CI only, as above.
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
            "This check itself failed, which is no fault of yours:"
            f" {type(fault).__name__}: {fault}. Please report it."
        )
        return Result(exercise, "error", [Row("the check runs", False, text)], 0.0, None, seed)
    note = store.record(result)
    result.notes += [note] if note else []
    as_asked = {
        "learn": True,
        "blank": result.state == "blank" and bool(result.hint),
        "strict": result.state == "solved",
    }
    if not as_asked[mode]:
        raise CheckFailed(f"MTL_COURSE_CHECKS={mode}: {result!r}")
    return result


def _judge(exercise: Exercise, answer, given: bool, seed: int, rounds: int) -> Result:
    def verdict(state, rows=(), score=0.0, hint=None, printed=""):
        return Result(exercise, state, list(rows), score, hint, seed, printed)

    name = exercise.name
    if answer is None:
        told = f"There is no `{name}` here yet. Run the cell of the exercise, then this one."
        return verdict("missing", hint=told)
    if learner.is_reference(exercise, answer) or (not given and learner.is_course_code(answer)):
        told = f"`{name}` is the course's own answer here. Run the exercise's cell to check yours."
        return verdict("missing", hint=told)
    if not callable(answer):
        told = f"`{name}` is {kind(answer)}, not a function. Run the cell of the exercise again."
        return verdict("error", [Row("runs on fresh random inputs", False, told)])
    cases = draw_cases(exercise, seed, rounds)
    seen = examine(exercise, answer, cases)
    if seen.state == "blank":
        return verdict("blank", hint=_first_hint(exercise))
    hint = None if seen.state == "solved" else diagnose(exercise, answer, seen, cases)
    return verdict(seen.state, seen.rows, exercise.points * share(seen), hint, seen.printed)


def _first_hint(exercise: Exercise) -> str:
    if exercise.hints:
        return exercise.hints[0]
    if exercise.starter:
        return "Find the mistake and mend it."
    return "Replace the line `raise NotImplementedError(...)` with your answer."


def hint(name: str, n: int | None = None) -> None:
    """Print the next hint of an exercise, a little closer with every call; or the n-th.

    Raises:
        ValueError: no exercise has this name.
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
    """Print an answer to an exercise.

    Raises:
        ValueError: no exercise has this name.
    """
    print(_find(name).solution)


def use(name: str):
    """The learner's answer if it passes its check, else the course's own.

    So the rest of a notebook always runs. Give the result a name of its own, such as
    ``step = use("joint_gradient")``.

    Raises:
        ValueError: no exercise has this name.
    """
    exercise = _find(name)
    answer = learner.find(name)
    if (
        callable(answer)
        and not learner.is_reference(exercise, answer)
        and not learner.is_course_code(answer)
    ):
        with randomness_restored():
            cases = draw_cases(exercise, 0, 3)
            seen = examine(exercise, answer, cases, stop_at_a_fault=True)
        if seen.state == "solved":
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
