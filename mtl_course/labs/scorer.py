"""The verbs of the labs: `score` runs what a learner wrote on held-out tasks, `practice` gives one.

What is scored is called in a process of its own (`checks.child`), with copies of its inputs and
without the held-out answers, which are drawn only when the predictions have come back, as plain
numbers. Where there is no such process (macOS, Windows, a GPU), it is called in the kernel, whose
random generators and settings are put back.
"""

import difflib
import html
import os
import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace

from .. import chapters
from .._markup import to_html, to_text
from .._output import card, printable, wrapped
from ..checks import CheckFailed, child, learner, sandbox, store
from ..checks.report import MARKS, listed
from .rungs import Refused, Step, Task, mean

# Seconds beyond those of its steps that a process may take: to begin, and to send its answers.
SPARE = 10.0
_NO_STARTER = SimpleNamespace(starter=None)  # a lab begins from an empty function
WORDS = {
    "blank": ("calm", "○", "not started"),
    "missing": ("calm", "?", "not found"),
    "error": ("stop", "!", "stopped with an error"),
    "timeout": ("stop", "!", "over the budget"),
}


class Stopped(Exception):  # noqa: N818
    """What the learner wrote did not come to its end.

    Args:
        state: blank, error or timeout.
        detail: what happened, in the learner's words.
    """

    def __init__(self, state: str, detail: str):
        super().__init__(detail)
        self.state, self.detail = state, detail


@dataclass
class Score:
    """How far a learner's function came. Shown by a notebook as a card, by print as text.

    Args:
        lab: the lab.
        task: it, as the scorer sees it.
        state: scored, blank, missing, error or timeout.
        measures: measure -> one value per held-out task; empty unless it is scored.
        seconds: step -> the most processor time that it took.
        detail: what happened, where it could not be scored.
        notes: further lines, such as the best result so far.
    """

    lab: chapters.Lab
    task: Task
    state: str
    measures: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def rung(self) -> int:
        """How many rungs were reached."""
        return self.task.rung(self.measures) if self.state == "scored" else 0

    @property
    def value(self) -> float | None:
        """The measure that ranks results, in the mean; None unless it is scored."""
        return mean(self.measures[self.task.main]) if self.state == "scored" else None

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        if self.state != "scored":
            return f"{self.task.name}: {WORDS[self.state][2]}"
        if not self.rung:
            return f"{self.task.name}: below the first rung"
        name = self.task.rungs[self.rung - 1].name
        return f"{self.task.name}: rung {self.rung} of {len(self.task.rungs)}, {name}"

    def _rows(self) -> list[tuple[bool | None, str]]:
        rows = []
        for number, rung in enumerate(self.task.rungs, 1):
            held = number <= self.rung if self.state == "scored" else None
            rows.append((held, f"Rung {number}, {rung.name}: {rung.text}"))
        return rows

    def _lines(self) -> list[str]:
        lines = []
        for name, values in self.measures.items():
            spec = self.task.measures[name]
            each = " ".join(format(value, spec) for value in values)
            lines.append(f"{name} {mean(values):{spec}}, on the held-out tasks: {each}")
        if self.seconds:
            spent = ", ".join(f"{name} {took:.1f} s" for name, took in self.seconds.items())
            lines.append(f"Processor time, at most: {spent}")
        return lines + self.notes

    def __repr__(self) -> str:
        lines = [self.headline]
        lines += [wrapped(f"{MARKS[ok]} {to_text(text)}", "  ", "  ") for ok, text in self._rows()]
        if self.detail:
            lines.append(wrapped(to_text(self.detail), "  ", "  "))
        return printable("\n".join([*lines, *(wrapped(to_text(n), "  ") for n in self._lines())]))

    def _repr_html_(self) -> str:
        if self.state != "scored":
            tone, sign, word = WORDS[self.state]
        elif self.rung:
            tone, sign, word = "good", "✓", f"rung {self.rung} of {len(self.task.rungs)}"
        else:
            tone, sign, word = "bad", "✗", "below the first rung"
        parts = [listed((ok, to_html(text)) for ok, text in self._rows())]
        if self.detail:
            told = html.escape(self.detail).replace("\n", "<br>")
            parts.append(f'<div style="margin:.3em 0">{told}</div>')
        parts += [f"<div>{to_html(line)}</div>" for line in self._lines()]
        title = f"<strong>{html.escape(self.lab.heading)}</strong>"
        return card(tone, sign, word, title, "".join(parts), "score", self.headline)


def practice(name: str, seed: int = 0) -> tuple:
    """A task of a lab to work on, with its answers.

    It is drawn as the held-out ones are, from other rows, classes or numbers.

    Args:
        name: of the lab, such as ``"lab_3"``.
        seed: another one gives another task.

    Returns:
        What the lab's notebook says; for most labs the argument of the learner's function, the
        questions, and their answers.

    Raises:
        ValueError: there is no such lab.

    Example:
        >>> train, x, y = practice("lab_3", seed=1)
        >>> len(x) == len(y)
        True
    """
    return task_of(name).practice(seed)


def score(name: str, answer=None) -> Score:
    """Run what a learner wrote on the lab's held-out tasks, and say which rungs it reached.

    Nothing that it does raises here: an error, a wrong type and a step beyond its budget are said
    on the card. The best result is kept where `progress()` finds it. The held-out answers are not
    in the process that runs the learner's function; what it changes there, random generators,
    globals and inputs included, is gone when it ends.

    Args:
        name: of the lab, such as ``"lab_3"``.
        answer: the learner's function; by default what has the lab's name for it in the notebook.

    Returns:
        The verdict, which a notebook shows as a card.

    Raises:
        ValueError: there is no such lab.
        CheckFailed: MTL_COURSE_CHECKS is ``blank``, as in CI, and the lab was begun.
        KeyboardInterrupt: it was interrupted.

    Example:
        >>> score("lab_1", "no function").headline
        'lab_1: stopped with an error'
    """
    task, lab = task_of(name), chapters.find(name)
    answer = learner.find(task.function) if answer is None else answer
    if answer is None:
        told = f"There is no `{task.function}` here yet: run its cell, then this one."
        result = Score(lab, task, "missing", detail=told)
    elif not callable(answer):
        told = f"`{task.function}` is {_kind(answer)}, not a function: run its cell again."
        result = Score(lab, task, "error", detail=told)
    else:
        result = scored(task, lab, answer, task.seeds)
    if result.state == "blank":
        result.notes.append(f"Write `{task.function}`, then run this cell again.")
    result.notes += _kept(result)
    if os.environ.get("MTL_COURSE_CHECKS") == "blank" and result.state != "blank":
        raise CheckFailed(f"MTL_COURSE_CHECKS=blank: {result!r}")
    return result


def task_of(name: str) -> Task:
    """The lab with this name, as the scorer sees it.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name not in chapters.LABS:
        near = difflib.get_close_matches(str(name), chapters.LABS, 1, 0)
        raise ValueError(f"There is no lab {name!r}. Did you mean {' or '.join(near)}?")
    return import_module(f".{name}", __package__).TASK


def scored(task: Task, lab: chapters.Lab, answer, seeds) -> Score:
    """The verdict on these held-out tasks."""
    from tqdm import tqdm

    measures: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    shown = tqdm(seeds, desc=task.name, file=sys.stdout, leave=False, delay=3)
    with shown:
        for seed in shown:

            def run(steps, plain, seed=seed):
                return _run(answer, steps, plain, seed, seconds)

            try:
                for name, value in task.play(run, seed).items():
                    measures.setdefault(name, []).append(float(value))
            except Stopped as stop:
                return Score(lab, task, stop.state, {}, seconds, stop.detail)
    return Score(lab, task, "scored", measures, seconds)


def _kept(result: Score) -> list[str]:
    """Keep the best result; lines that say what it is."""
    if result.state in ("blank", "missing"):
        return []
    top = result.state == "scored" and result.rung == len(result.task.rungs)
    state = {"scored": "solved" if top else "wrong"}.get(result.state, result.state)
    entry, note = store.record_lab(result.task.name, state, result.rung, result.value)
    notes = [note] if note else []
    if entry and entry.get("value") is not None:
        spec = result.task.measures[result.task.main]
        best = f"{result.task.main} {entry['value']:{spec}}"
        notes.append(f"Your best so far: rung {entry['score']:g}, {best}.")
    return notes


# ------------------------------------------------------------------ calling what the learner wrote
def _run(answer, steps, plain, seed: int, seconds: dict):
    """What the last step returns, as plain data; `Stopped` where it does not come to its end."""

    def work(board=None) -> dict:
        if board is not None:  # in a process of its own, whose hooks end with it
            sys.addaudithook(_one_process)
        return _attempt(answer, steps, plain, seed)

    data = None
    if child.is_possible():
        total = sum(step.limit for step in steps) + SPARE
        try:
            data = _from(child.run(work, max(step.limit for step in steps), total), steps)
        except child.NoProcess:
            data = None
    if data is None:
        sandbox.import_before_the_clock()
        with sandbox.process_restored(), sandbox.randomness_restored():
            data = work()
    for name, took in data.get("seconds", {}).items():
        seconds[name] = max(seconds.get(name, 0.0), took)
    if data["state"] != "done":
        raise Stopped(data["state"], data["detail"])
    return data["value"]


def _one_process(event: str, arguments) -> None:
    """Refuse further processes: their time would not count."""
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"):
        raise PermissionError("A lab's function runs in one process and starts no other.")


def _from(ending: child.Ending, steps) -> dict:
    """What a process sent, or why it did not."""
    if ending.reason == "interrupted":
        raise KeyboardInterrupt
    result = ending.result
    if ending.reason == "time" or result is None:
        if ending.reason == "time":
            limits = ", ".join(f"{step.name} {step.limit:g} s" for step in steps)
            return {"state": "timeout", "detail": f"Stopped: it went on after its time ({limits})."}
        why = f"Python came to an end inside your function: {ending.detail}."
        if ending.detail.startswith("SIG"):
            why += " Is there a recursion that never ends, or something that fills the memory?"
        return {"state": "error", "detail": why}
    if "fault" in result:
        return {"state": "error", "detail": ": ".join(map(str, result["fault"]))}
    return result


def _attempt(answer, steps: list[Step], plain, seed: int) -> dict:
    """All steps, one after the other, as plain data."""
    value, seconds, first = answer, {}, steps[0]
    for step in steps:
        outcome = sandbox.run(lambda step=step, value=value: step.call(value), step.limit, seed)
        seconds[step.name] = outcome.seconds
        if outcome.stopped:
            told = f"`{step.name}` took more than its budget of {step.limit:g} s of processor time."
            return {"state": "timeout", "detail": told, "seconds": seconds}
        if outcome.error is not None:
            if step is first and learner.is_blank(answer, outcome.error):
                return {"state": "blank", "detail": ""}
            return {"state": "error", "detail": _told(answer, step, outcome.error)}
        value = outcome.value
        if step.gives and not callable(value):
            if value is None and step is first and learner.untouched(_NO_STARTER, answer):
                return {"state": "blank", "detail": ""}
            told = f"`{step.name}` returned {_kind(value)}; it must return {step.gives}."
            return {"state": "error", "detail": told}
    last = steps[-1].name
    outcome = sandbox.run(lambda: plain(value), 5.0, seed)
    if isinstance(outcome.error, Refused):
        told = f"What `{last}` returned cannot be scored. {outcome.error}"
        return {"state": "error", "detail": told}
    if outcome.stopped or outcome.error is not None:
        told = f"What `{last}` returned, {_kind(value)}, cannot be read as numbers."
        return {"state": "error", "detail": told}
    return {"state": "done", "value": outcome.value, "seconds": seconds}


def _kind(value) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _told(answer, step: Step, error: BaseException) -> str:
    """An error with the learner's own lines."""
    if isinstance(error, Refused):
        return f"`{step.name}`: {error}"
    kind = type(error).__name__
    told = sandbox.run(lambda: f"{kind}: {error}".strip().rstrip(":")[:500], 1.0).value or kind
    lines = sandbox.run(lambda: learner.own_lines(answer, error), 1.0).value or ""
    return "\n".join(filter(None, [f"`{step.name}` raised {told}", lines]))
