"""The rows of a check: what is asked of an answer, one after the other, on fresh random inputs."""

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import torch

from . import devices, learner, values
from .exercise import REGISTRY, Exercise
from .sandbox import Outcome, run


@dataclass
class Row:
    """One line of the card. ok is None where it was not tried; a row without weight earns nothing."""

    name: str
    ok: bool | None = None
    detail: str = ""
    weight: float = 1


@dataclass
class Examination:
    """What was found: state (solved, wrong, blank, error, timeout), the rows, and the behaviour
    that `diagnosis` compares.
    """

    state: str
    rows: list[Row]
    behaviour: list = field(default_factory=list)
    printed: str = ""


@dataclass
class Case:
    """One draw of inputs for an exercise. Every call gets inputs of its own, drawn anew from the
    same seed.
    """

    exercise: Exercise
    generator: Callable
    seed: int
    never_copied: set = field(
        default_factory=set
    )  # generators whose inputs cannot be copied; shared by the cases of a check

    def draw(self) -> tuple:
        """Inputs of this case that nobody has touched: copies where that is possible, else
        (modules, optimizers) drawn anew.
        """
        if self.generator not in self.never_copied:
            try:
                return values.renew(self._first)
            except TypeError:
                self.never_copied.add(self.generator)
        return self._drawn()

    def _drawn(self) -> tuple:
        outcome = run(
            lambda: self.generator(torch.Generator().manual_seed(self.seed)), None, self.seed
        )
        if outcome.error is not None:
            raise RuntimeError(
                f"The inputs of {self.exercise.name!r} could not be drawn."
            ) from outcome.error
        if not isinstance(outcome.value, tuple):
            raise TypeError(
                f"A generator of inputs of {self.exercise.name!r} must return a tuple of arguments."
            )
        return outcome.value

    def call(self, answer, limit: float | None, prepare: Callable = lambda args: args) -> Outcome:
        """The outcome of one call; its value is (result, arguments after the call), both copied."""
        args = prepare(self.draw())

        def once():
            result = self.exercise.call(answer, *args)
            if inspect.iscoroutine(result):
                result.close()  # otherwise Python complains on stderr that it was never awaited
            return values.snapshot(result), values.snapshot(args)

        return run(once, limit, self.seed)

    @cached_property
    def want(self) -> tuple:
        """(result, arguments after the call) of the reference."""
        return self._of_reference(self.call(self.exercise.reference, None))

    @cached_property
    def gradient(self) -> list | None:
        """Gradients of the reference; None where there are none to speak of."""
        outcome = gradients(self, self.exercise.reference, None)
        return outcome.value if outcome.error is None else None

    @cached_property
    def inputs(self) -> str:
        """The inputs in words: ``losses = [0.1, 2] (shape (2,)), weight = 3``; a `call` that makes
        others of them names its own.
        """
        given = inspect.signature(self.exercise.call).parameters.values()
        if all(p.kind is not p.VAR_POSITIONAL for p in given):
            names = [p.name for p in given][1:]
        else:
            names = (
                []
                if inspect.isclass(self.exercise.reference)
                else list(inspect.signature(self.exercise.reference).parameters)
            )
        texts = map(values.brief, self._first)
        return ", ".join(
            f"{name} = {text}" if name else text
            for name, text in zip_longest(names[: len(self._first)], texts)
        )

    @cached_property
    def before(self) -> list:
        """The inputs as they are before the call, copied."""
        return values.snapshot(self._first)

    @cached_property
    def _first(self) -> tuple:
        return self._drawn()

    def _of_reference(self, outcome: Outcome):
        if outcome.error is not None:
            raise RuntimeError(
                f"The reference of {self.exercise.name!r} fails for {self.inputs}."
            ) from outcome.error
        return outcome.value


def draw_cases(exercise: Exercise, seed: int, rounds: int) -> list[Case]:
    """`rounds` draws from each generator of the exercise; the same seed gives the same cases."""
    known: set = set()
    turns = [(r, i) for r in range(rounds) for i in range(len(exercise.inputs))]
    return [Case(exercise, exercise.inputs[i], seed + 1000 * r + i, known) for r, i in turns]


def examine(exercise: Exercise, answer, cases: list[Case]) -> Examination:
    """Every row of the check of one answer. Never raises for what the answer does."""
    if learner.untouched(exercise, answer):
        return Examination("blank", [])
    runs = Row("runs on fresh random inputs", weight=0)
    typed = Row("right type and shape")
    right = Row("right values", weight=3)
    pure = Row("leaves its inputs unchanged")
    found = Examination("wrong", [runs, typed, right, pure])
    spent, budget = 0.0, exercise.limit * max(3, len(cases) // len(exercise.inputs))
    for case in cases:
        case.want  # noqa: B018  first, so that what torch imports on a first call (its optimizers: seconds) is not charged to the answer
        want = (
            case.want
        )  # before the answer: what torch imports at first use is not on the learner's time
        started = time.monotonic()
        outcome = case.call(answer, exercise.limit)
        spent += time.monotonic() - started
        found.printed = found.printed or outcome.printed
        if (
            outcome.error is not None
            and not found.behaviour
            and learner.is_blank(answer, outcome.error)
        ):
            return Examination("blank", [])
        if outcome.stopped:
            runs.ok, runs.detail = (
                False,
                f"{_stopped(exercise)} Is there a loop that never ends?\nfor {case.inputs}",
            )
            found.state = "timeout"
        elif spent > budget:
            runs.ok, runs.detail = (
                False,
                f"Stopped after {budget:g} s: each call is slow. Can a loop become one operation?",
            )
            found.state = "timeout"
        elif outcome.error is not None:
            runs.ok, runs.detail = (
                False,
                _explain(exercise, answer, outcome.error) + f"\nfor {case.inputs}",
            )
            found.state = "error"
        if runs.ok is False:
            found.behaviour.append((found.state, runs.detail.split("\n")[0]))
            return found
        found.behaviour.append(("value", outcome.value))
        _compare(exercise, case, outcome.value, want, typed, right, pure)
    runs.ok, typed.ok = True, typed.ok is not False
    if typed.ok:
        right.ok, pure.ok = right.ok is not False, pure.ok is not False
    if right.ok:
        extra = [
            _gradient_row(exercise, answer, cases, found),
            _device_row(exercise, answer, cases),
        ]
        found.rows += [row for row in extra if row]
    else:  # still part of what the exercise is worth
        found.rows += [Row(GRADIENTS)] if _has_gradients(exercise, cases) else []
    for text, law in exercise.laws:
        found.rows.append(_law_row(exercise, answer, cases, text, law) if typed.ok else Row(text))
    if all(row.ok is not False for row in found.rows):
        found.state = "solved"
    return found


def _compare(exercise, case, got, wanted, typed, right, pure):
    """Fill in the three rows that are about one result; a row keeps the first counterexample it
    met.
    """
    (result, after), (want, want_after) = got, wanted
    fault = values.problem(result, want)
    if fault:
        if typed.ok is None:
            typed.ok, typed.detail = False, f"{fault}\nfor {case.inputs}"
        return
    if right.ok is None and not values.same(result, want, exercise.rtol, exercise.atol):
        right.ok = False
        right.detail = (
            f"for {case.inputs}\nexpected {values.brief(want)}\n     got {values.brief(result)}"
        )
    if pure.ok is None and not values.alike(after, want_after, exercise.rtol, exercise.atol):
        pure.ok = False
        if values.alike(case.before, want_after, exercise.rtol, exercise.atol):
            pure.detail = (
                "Your function changed one of its arguments in place. Work on a new value (x = x -"
                " y, not x -= y)."
            )
        else:
            pure.name = "changes its inputs as asked"
            told = f"expected {values.brief(want_after)}\n     got {values.brief(after)}"
            pure.detail = f"for {case.inputs}, after the call\n{told}"


def _stopped(exercise) -> str:
    return f"Stopped after {exercise.limit:g} s."


def _explain(exercise, answer, error) -> str:
    """An error in the learner's words: what was raised, and the learner's own lines."""
    told = (
        run(
            lambda: f"{type(error).__name__}: {error}".strip().rstrip(":")[:500], exercise.limit
        ).value
        or type(error).__name__
    )
    lines = learner.own_lines(answer, error)
    if isinstance(error, NotImplementedError):
        code, raised = learner.raised_by(error)
        if raised and not learner.is_blank(answer, error):
            told += (
                f"\nIt comes from `{code.co_name}`, which your function calls and which is not"
                " written yet."
            )
            if code.co_name in REGISTRY:
                told += (
                    " Solve that exercise first, or take the course's answer: helper ="
                    f' use("{code.co_name}").'
                )
    if isinstance(error, KeyboardInterrupt):
        told = "Interrupted."
    if isinstance(error, TypeError) and not lines and not inspect.isclass(answer):
        told += (
            "\nYour function is called with"
            f" ({', '.join(inspect.signature(exercise.reference).parameters)})."
        )
    return "\n".join(filter(None, [told, lines]))


# ------------------------------------------------------------------- gradients

GRADIENTS = "gradients flow"


def gradients(case: Case, answer, limit: float | None) -> Outcome:
    """Gradients of a weighted sum of the results with respect to every float input and every
    parameter of a module.

    The value is None if no result depends on any of them.
    """
    args = values.over_tensors(_leaf, case.draw())
    leaves = [t for t in values.tensors(args) if t.requires_grad]

    def once():
        results = values.tensors(case.exercise.call(answer, *args))
        results = [
            r for r in results if r.requires_grad and (r.is_floating_point() or r.is_complex())
        ]
        if not results or not leaves:
            return None
        total = sum((r * _weights(r)).sum() for r in results)
        found = torch.autograd.grad(total.real, leaves, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g.detach() for x, g in zip(leaves, found)]

    return run(once, limit, case.seed)


def _weights(r: torch.Tensor) -> torch.Tensor:
    """A different weight for each entry, so that errors do not cancel."""
    return torch.linspace(1, 2, r.numel(), dtype=r.dtype, device=r.device).view_as(r)


def _leaf(t: torch.Tensor) -> torch.Tensor:
    return t.detach().clone().requires_grad_() if t.is_floating_point() else t


def _has_gradients(exercise, cases) -> bool:
    return exercise.grad and any(
        case.gradient is not None for case in cases[: len(exercise.inputs)]
    )


def _gradient_row(exercise, answer, cases, found) -> Row | None:
    if not _has_gradients(exercise, cases):
        return None
    row = Row(GRADIENTS, True)
    for case in cases[: len(exercise.inputs)]:
        outcome = gradients(case, answer, exercise.limit)
        found.behaviour.append((type(outcome.error).__name__, outcome.value))
        if not row.ok:
            continue
        if outcome.stopped or outcome.error is not None:
            row.ok = False
            told = (
                _stopped(exercise) if outcome.stopped else _explain(exercise, answer, outcome.error)
            )
            row.detail = f"With inputs that need a gradient: {told}"
        elif (outcome.value is None) != (case.gradient is None):
            row.ok = False
            row.detail = (
                "No gradient reaches the inputs. Look for .item(), .detach(), .data, float(...) or"
                " torch.tensor(...)."
                if outcome.value is None
                else (
                    "A gradient flows where none should: is a .detach() or torch.no_grad() missing?"
                )
            )
        elif not values.alike(outcome.value, case.gradient, exercise.rtol, exercise.atol):
            row.ok = False
            row.detail = (
                "The values are right but a gradient differs: is a part detached that should not"
                " be, or is one not?"
            )
    return row


# -------------------------------------------------------------- device and laws


def _device_row(exercise, answer, cases) -> Row | None:
    if not exercise.device:
        return None
    for case in cases[: len(exercise.inputs)]:
        if not values.tensors(case.before) or devices.problem(case, exercise.reference, None) != "":
            return None  # no tensors, or the reference itself cannot be tried here
        fault = devices.problem(case, answer, exercise.limit)
        if fault is None:
            return Row("works on any device", None, "could not be tried without a GPU", weight=0)
        if fault:
            return Row("works on any device", False, fault)
    return Row("works on any device", True)


def _law_row(exercise, answer, cases, text, law) -> Row:
    for case in cases:
        args = case.draw()
        outcome = run(lambda a=args: _holds(law(answer, *a)), exercise.limit, case.seed)
        if outcome.stopped:
            return Row(text, False, _stopped(exercise))
        if outcome.error is not None:
            return Row(
                text, False, _explain(exercise, answer, outcome.error) + f"\nfor {case.inputs}"
            )
        if not outcome.value:
            return Row(text, False, f"broken for {case.inputs}")
    return Row(text, True)


def _holds(verdict: Any) -> bool:
    return verdict is None or bool(verdict)


def share(found: Examination) -> float:
    """The part of the points that the rows earn, from 0 to 1: by weight.

    What is only worth something in a right answer (inputs unchanged, gradients, device) earns
    nothing while the values are wrong.
    """
    if found.state == "solved":
        return 1.0
    if found.state != "wrong":
        return 0.0
    by_name = {row.name: row for row in found.rows}
    right = by_name["right values"].ok is True
    needs_right = {"leaves its inputs unchanged", "changes its inputs as asked"}
    earned = sum(
        row.weight for row in found.rows if row.ok and (right or row.name not in needs_right)
    )
    return earned / math.fsum(row.weight for row in found.rows)
