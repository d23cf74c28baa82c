"""The verbs of the exercises: `check`, `hint`, `solution`, `use` and `progress`."""

import contextlib
import difflib
import html
import os
import random

from .._markup import to_html, to_text
from .._output import Output, show, wrapped
from . import apart, child, learner, sandbox, store, summary
from .diagnosis import diagnose
from .exercise import REGISTRY, Exercise
from .report import Result, say
from .rows import Row, draw_cases, examine, share
from .values import kind

__all__ = ["CheckFailed", "Result", "check", "hint", "progress", "solution", "use"]

MODES = ("learn", "blank", "strict")
_hints_given: dict[str, int] = {}


class CheckFailed(AssertionError):  # noqa: N818  it is what a test run says
    """A check does not come out as CI expects it to. Never raised in a learner's notebook."""


def check(name: str, answer=None, seed: int | None = None, rounds: int = 3) -> Result:
    """Check the answer to an exercise on fresh random inputs.

    The result says what is right, what is wrong and, where it is known, why. Nothing that the
    answer does raises here.

    On Linux without a GPU it runs in a process of its own, which is ended where it takes too long
    or more than 1 GB of memory, so that the kernel stays as it was; MTL_COURSE_SANDBOX=kernel keeps
    it in the kernel, for a debugger. There, as with a GPU, on macOS and on Windows, the settings of
    Python, NumPy and torch are put back. But what runs in C for long is not stopped, memory is not
    bounded, and what the answer displays is displayed.

    The environment variable MTL_COURSE_CHECKS is for CI: with `blank` everything but "not started"
    raises CheckFailed, with `strict` everything but "solved".

    Args:
        name: of the exercise.
        answer: the function or class to check; by default what is called `name` in the notebook.
        seed: repeats a check on the same inputs; by default they are new ones.
        rounds: draws from each generator of inputs.

    Returns:
        The verdict, which a notebook shows as a card.

    Raises:
        ValueError: no exercise has this name; the message has the nearest ones. Or one of the two
            environment variables has an unknown value.
        CheckFailed: in CI only, as above.
    """
    exercise, mode = _find(name), _mode()
    in_a_child = child.is_possible()
    if seed is None:
        seed = random.SystemRandom().randrange(10**6) if mode == "learn" else 0
    given = answer is not None
    answer = answer if given else learner.find(name)
    try:
        cases = draw_cases(exercise, seed, rounds)

        def judge(tell):
            return _judge(exercise, answer, given, seed, cases, tell)

        result = _reached(
            in_a_child,
            lambda: apart.judged(exercise, seed, cases, judge),
            lambda: judge(lambda result: None),
        )
    except (Exception, SystemExit, GeneratorExit) as fault:
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
        "blank": result.state == "blank" and not result.hint,
        "strict": result.state == "solved",
    }
    if not as_asked[mode]:
        raise CheckFailed(f"MTL_COURSE_CHECKS={mode}: {result!r}")
    return result


def _reached(in_a_child: bool, there, here):
    """What `there()` returns, which works in a child; else `here()`, with the kernel put back."""
    if in_a_child:
        with contextlib.suppress(child.NoProcess):
            return there()
    sandbox.import_before_the_clock()
    with sandbox.process_restored(), sandbox.randomness_restored():
        return here()


def _judge(exercise: Exercise, answer, given: bool, seed: int, cases, tell) -> Result:
    """The verdict. It is given to `tell` as well, before a hint is looked for."""

    def verdict(state, rows=(), score=0.0, hint=None, printed=""):
        return Result(exercise, state, list(rows), score, hint, seed, printed)

    name = exercise.name
    if answer is None:
        told = f"There is no `{name}` here yet. Run the cell of the exercise, then this one."
        return verdict("missing", hint=told)
    if _is_the_courses(exercise, answer, given):
        told = f"`{name}` is the course's own answer here. Run the exercise's cell to check yours."
        return verdict("missing", hint=told)
    if not callable(answer):
        told = f"`{name}` is {kind(answer)}, not a function. Run the cell of the exercise again."
        return verdict("error", [Row("runs on fresh random inputs", False, told)])
    seen = examine(exercise, answer, cases)
    result = verdict(seen.state, seen.rows, exercise.points * share(seen), None, seen.printed)
    if seen.state == "blank":
        result.score = 0.0
        result.notes.append(_to_begin(exercise))
    elif seen.state != "solved":
        tell(result)
        result.hint = diagnose(exercise, answer, seen, cases)
    return result


def _is_the_courses(exercise: Exercise, answer, given: bool) -> bool:
    """Whether the answer is the reference, or was imported from the package."""

    def look():
        own = not given and learner.is_course_code(answer)
        return own or learner.is_reference(exercise, answer)

    return bool(sandbox.run(look, exercise.limit).value)


def _to_begin(exercise: Exercise) -> str:
    if exercise.starter:
        task = "Find the mistake and mend it"
    else:
        task = "Replace the line `raise NotImplementedError(...)` with your answer"
    return f'{task}; `hint("{exercise.name}")` helps.' if exercise.hints else f"{task}."


def hint(name: str, n: int | None = None) -> None:
    """Show the next hint of an exercise, a little closer with every call; or the n-th.

    Raises:
        ValueError: no exercise has this name.
    """
    exercise = _find(name)
    if not exercise.hints:
        say(f"{name} has no hints. {_to_begin(exercise)}")
        return
    last = len(exercise.hints)
    n = min(max(_hints_given.get(name, 0) + 1 if n is None else n, 1), last)
    _hints_given[name] = n
    lines = [f"**Hint {n} of {last}**: {exercise.hints[n - 1]}"]
    if n == last:
        lines.append(f'That is the last one. `solution("{name}")` shows an answer.')
    page = "".join(f'<div class="mtl-hint" style="margin:.3em 0">{to_html(x)}</div>' for x in lines)
    show(Output(page, "\n".join(wrapped(to_text(line), more="  ") for line in lines)))


def solution(name: str) -> None:
    """Print an answer to an exercise.

    Raises:
        ValueError: no exercise has this name.
    """
    say(_find(name).solution)


def use(name: str):
    """The learner's answer if it passes its check, else the course's own.

    So the rest of a notebook always runs. Give the result a name of its own, such as
    ``step = use("joint_gradient")``.

    Raises:
        ValueError: no exercise has this name.
    """
    exercise = _find(name)
    answer = learner.find(name)
    if callable(answer) and _passes(exercise, answer):
        _tell(f"Going on with your own {name}.")
        return answer
    _tell(f"Going on with the course's {name}; yours takes over once its check passes.")
    return exercise.reference


def _tell(text: str) -> None:
    """Show a sentence: in a notebook it takes the page's width, elsewhere lines of its own."""
    page = f'<div class="mtl-said" style="margin:.3em 0">{html.escape(text, quote=False)}</div>'
    show(Output(page, wrapped(text)))


def _passes(exercise: Exercise, answer) -> bool:
    cases = draw_cases(exercise, 0, 3)

    def solved():
        if _is_the_courses(exercise, answer, given=False):
            return False
        return examine(exercise, answer, cases, stop_at_a_fault=True).state == "solved"

    return _reached(child.is_possible(), lambda: apart.passes(exercise, cases, solved), solved)


def progress(save: str | os.PathLike | None = None) -> store.Progress:
    """The course at a glance: what is solved, by chapter, and the rung reached in each lab.

    Args:
        save: a file for it, such as ``"my_course.html"``: a page that needs no network, to keep,
            to print or to hand in.

    Returns:
        The overview, which a notebook shows as a card.

    Raises:
        ValueError: `save` does not end in ``.html``.
        OSError: the file cannot be written.
    """
    entries, note = store.load()
    overview = store.Progress(list(_registry().values()), entries, note)
    if save is not None:
        overview.note = " ".join(filter(None, [note, f"Saved as {summary.save(overview, save)}."]))
    return overview


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
