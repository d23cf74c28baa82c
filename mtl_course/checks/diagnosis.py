"""Known mistakes: an answer gets a mistake's hint only if it behaves exactly like that mistake."""

from . import values
from .exercise import Exercise
from .rows import Case, Examination, draw_cases, examine


def diagnose(exercise: Exercise, answer, seen: Examination, cases: list[Case]) -> str | None:
    """The hint of the known mistake that behaves like the answer, or None if none does.

    It must do the same on every case and in every row of `seen`, the answer's examination. Where
    several mistakes do on these inputs, more inputs are drawn to tell them apart.
    """
    alike = [
        (wrong, hint)
        for wrong, hint in exercise.mistakes
        if _same_start(exercise, wrong, seen, cases)
        and _same(exercise, examine(exercise, wrong, cases), seen)
    ]
    if len(alike) > 1:
        more = draw_cases(exercise, cases[0].seed + 500_000, 10)
        seen_on_more = examine(exercise, answer, more)
        alike = [
            (wrong, hint)
            for wrong, hint in alike
            if _same(exercise, examine(exercise, wrong, more), seen_on_more)
        ]
    return alike[0][1] if alike else None


def _same_start(exercise, wrong, seen: Examination, cases) -> bool:
    """Whether the mistake does the same on the first case.

    Most mistakes do not, and need not be examined in full.
    """
    outcome = cases[0].call(wrong, exercise.limit)
    kind, value = seen.behaviour[0]
    if kind != "value":
        return outcome.stopped or outcome.error is not None
    if outcome.stopped or outcome.error is not None:
        return False
    return values.alike(outcome.value[:2], value, exercise.rtol, exercise.atol)


def _same(exercise, a: Examination, b: Examination) -> bool:
    if a.state != b.state or [row.ok for row in a.rows] != [row.ok for row in b.rows]:
        return False
    if len(a.behaviour) != len(b.behaviour):
        return False
    return all(
        kind == other_kind and _alike(exercise, value, other_value)
        for (kind, value), (other_kind, other_value) in zip(a.behaviour, b.behaviour, strict=True)
    )


def _alike(exercise, value, other) -> bool:
    if isinstance(other, str):  # what was raised
        return value == other
    return values.alike(value, other, exercise.rtol, exercise.atol)
