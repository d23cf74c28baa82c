"""A verdict that is reached in a child: what the child writes down, and what is made of it."""

import math
from collections.abc import Callable

from . import child, rows
from .exercise import Exercise
from .report import HEADLINES, Result
from .rows import Case, Examination, Row, endless, share
from .sandbox import randomness_restored

# Characters of one text of a card.
TEXT = 4000
# Seconds that a whole check may take, in limits of one call: per round of draws, and at least.
PER_ROUND, AT_LEAST = 4, 20


def judged(
    exercise: Exercise, seed: int, cases: list[Case], judge: Callable[[Callable], Result]
) -> Result:
    """The verdict of ``judge(tell)``, reached in a child.

    cases: on which it is reached. They are drawn here only if the child does not come to its end.
    judge: calls `tell` with the verdict as soon as all but the hint is known.
    """

    def work(board: child.Board) -> dict:
        rows.on_stage = lambda seen: board.note(_stage(seen))

        def tell(result):
            rows.on_stage = lambda seen: None
            board.note({"verdict": _as_data(result)})

        with randomness_restored():
            return _as_data(judge(tell))

    ending = _run(exercise, cases, work)
    data = ending.result or ending.note.get("verdict")
    if data is not None:
        return _result(exercise, seed, data)
    with randomness_restored():
        return _cut_short(exercise, seed, cases, ending)


def passes(exercise: Exercise, cases: list[Case], solved: Callable[[], bool]) -> bool:
    """Whether ``solved()`` is true in a child that comes to its end.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """

    def work(board: child.Board) -> dict:
        with randomness_restored():
            return {"solved": bool(solved())}

    ending = _run(exercise, cases, work)
    if ending.reason == "interrupted":
        raise KeyboardInterrupt
    return ending.result is not None and ending.result.get("solved") is True


def _run(exercise, cases, work) -> child.Ending:
    rounds = math.ceil(len(cases) / max(1, len(exercise.inputs)))
    total = exercise.limit * max(AT_LEAST, PER_ROUND * rounds)
    ending = child.run(work, exercise.limit, total)
    if ending.result is not None and "fault" in ending.result:
        kind, message = ending.result["fault"]
        raise type(str(kind), (RuntimeError,), {})(message)
    return ending


# ----------------------------------------------------------------- as plain data


def _as_data(result: Result) -> dict:
    return {
        "state": result.state,
        "rows": [_row_as_data(row) for row in result.rows],
        "score": result.score,
        "hint": result.hint,
        "printed": result.printed[:TEXT],
        "notes": result.notes,
    }


def _row_as_data(row: Row) -> list:
    return [row.name[:TEXT], row.ok, row.detail[:TEXT], row.weight]


def _stage(seen: Examination) -> dict:
    return {
        "rows": [_row_as_data(row) for row in seen.rows],
        "trying": seen.trying,
        "case": seen.case,
        "printed": seen.printed[:TEXT],
    }


def _row(data) -> Row:
    name, ok, detail, weight = data
    return Row(_text(name), None if ok is None else bool(ok), _text(detail), float(weight))


def _text(value) -> str:
    return str(value)[:TEXT]


def _result(exercise, seed, data) -> Result:
    state = data["state"] if data["state"] in HEADLINES else "error"
    score = float(data["score"])
    score = min(max(score, 0.0), float(exercise.points)) if math.isfinite(score) else 0.0
    hint = None if data["hint"] is None else _text(data["hint"])
    told = [_row(row) for row in data["rows"]]
    notes = [_text(note) for note in data["notes"]]
    return Result(exercise, state, told, score, hint, seed, _text(data["printed"]), notes)


# -------------------------------------------------------------------- cut short


def _cut_short(exercise, seed, cases, ending: child.Ending) -> Result:
    """The verdict on an answer that did not let its check come to an end."""
    first = Examination("wrong", []).trying
    seen = [_row(row) for row in ending.note.get("rows", [])]
    seen = seen or [Row(first, weight=0), Row("right type and shape")]
    trying = ending.note.get("trying", first)
    row = next((row for row in seen if row.name == trying), None)
    if row is None:
        row = Row(_text(trying))
        seen.append(row)
    row.ok, row.detail = False, _why(exercise, ending)
    number = ending.note.get("case")
    if isinstance(number, int) and 0 <= number < len(cases) and ending.reason != "interrupted":
        row.detail += f"\nfor {cases[number].inputs}"
    names = {row.name for row in seen}
    if trying != first:
        seen += [Row(text) for text, _ in exercise.laws if text not in names]
    ended = {"time": "timeout"}.get(ending.reason, "error")
    state = ended if trying == first or ending.reason != "time" else "wrong"
    score = exercise.points * share(Examination(state, seen))
    printed = _text(ending.note.get("printed", ""))
    return Result(exercise, state, seen, score, None, seed, printed)


def _why(exercise, ending: child.Ending) -> str:
    if ending.reason == "interrupted":
        return "Interrupted."
    if ending.reason == "time":
        if ending.detail:
            return f"Stopped after {ending.detail} s: all calls together are slow."
        return endless(exercise)
    told = f"Python came to an end inside your function: {ending.detail}."
    if ending.detail.startswith("SIG"):
        told += " Is there a recursion that never ends, or something that fills the memory?"
    return told
