"""Known mistakes: an answer gets a mistake's hint only if it behaves exactly like that mistake."""

from . import values
from .exercise import Exercise
from .rows import Case, Examination, draw_cases, examine


def diagnose(exercise: Exercise, answer, found: Examination, cases: list[Case]) -> str | None:
    """The hint of the known mistake that behaves like the examined answer on every case and in
    every row; None if none does.

    Where several do on these inputs, more inputs are drawn to tell them apart.
    """
    alike = [
        (wrong, hint)
        for wrong, hint in exercise.mistakes
        if _same_start(exercise, wrong, found, cases)
        and _same(exercise, examine(exercise, wrong, cases), found)
    ]
    if len(alike) > 1:
        more = draw_cases(exercise, cases[0].seed + 500_000, 10)
        seen = examine(exercise, answer, more)
        alike = [
            (wrong, hint)
            for wrong, hint in alike
            if _same(exercise, examine(exercise, wrong, more), seen)
        ]
    return alike[0][1] if alike else None


def _same_start(exercise, wrong, found, cases) -> bool:
    """Whether the mistake does the same on the first case: most do not, and need not be examined in
    full.
    """
    outcome = cases[0].call(wrong, exercise.limit)
    kind, shown = found.behaviour[0]
    if kind != "value":
        return outcome.stopped or outcome.error is not None
    return (
        outcome.error is None
        and not outcome.stopped
        and values.alike(outcome.value, shown, exercise.rtol, exercise.atol)
    )


def _same(exercise, a: Examination, b: Examination) -> bool:
    if (
        a.state != b.state
        or [row.ok for row in a.rows] != [row.ok for row in b.rows]
        or len(a.behaviour) != len(b.behaviour)
    ):
        return False
    return all(
        kind == other
        and (
            shown == seen
            if isinstance(seen, str)
            else values.alike(shown, seen, exercise.rtol, exercise.atol)
        )
        for (kind, shown), (other, seen) in zip(a.behaviour, b.behaviour, strict=True)
    )
