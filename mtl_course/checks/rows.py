"""The rows of a check: what is asked of an answer, one after the other, on fresh random inputs."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import torch

from . import devices, differences, learner, values
from .exercise import REGISTRY, Exercise
from .sandbox import Outcome, run


@dataclass
class Row:
    """One line of the card.

    name: what was asked. ok: whether it holds; None where it was not tried.
    detail: the counterexample, or why it was not tried. weight: its part of the points.
    """

    name: str
    ok: bool | None = None
    detail: str = ""
    weight: float = 1


@dataclass
class Examination:
    """What an answer does on the drawn inputs.

    state: solved, wrong, blank, error or timeout. rows: the lines of the card.
    behaviour: what it returned or raised on each case, which `diagnosis` compares.
    printed: what it printed.
    trying, case: the row that is being tried, and the number of the case while it is the first.
    """

    state: str
    rows: list[Row]
    behaviour: list = field(default_factory=list)
    printed: str = ""
    trying: str = "runs on fresh random inputs"
    case: int | None = None


# What watches an examination from outside is told when something else is tried.
on_stage: Callable[[Examination], None] = lambda seen: None  # noqa: E731  replaced in a child


@dataclass
class Case:
    """One draw of inputs for an exercise. Every call gets inputs of its own from the same seed.

    draw_inputs: the generator of inputs, ``torch.Generator -> tuple of arguments``.
    never_copied: those whose inputs cannot be copied; shared by the cases of a check.
    """

    exercise: Exercise
    draw_inputs: Callable
    seed: int
    never_copied: set[Callable] = field(default_factory=set)

    def draw(self) -> tuple:
        """Inputs of this case that nobody has touched.

        Copies where that is possible; modules and optimizers are drawn anew.
        """
        if self.draw_inputs not in self.never_copied:
            try:
                return values.renew(self._first)
            except TypeError:
                self.never_copied.add(self.draw_inputs)
        return self._drawn()

    def _drawn(self) -> tuple:
        generator = torch.Generator().manual_seed(self.seed)
        outcome = run(lambda: self.draw_inputs(generator), None, self.seed)
        name = self.exercise.name
        if outcome.error is not None:
            raise RuntimeError(f"The inputs of {name!r} could not be drawn.") from outcome.error
        if not isinstance(outcome.value, tuple):
            raise TypeError(f"A generator of inputs of {name!r} must return a tuple of arguments.")
        return outcome.value

    def call(self, answer, limit: float | None, prepare: Callable = lambda args: args) -> Outcome:
        """The outcome of one call.

        Its value is (result, arguments after the call, what hangs on them), all copied.
        """
        args = prepare(self.draw())

        def once():
            result = self.exercise.call(answer, *args)
            if inspect.iscoroutine(result):
                result.close()  # otherwise Python complains on stderr that it was never awaited
            return values.snapshot(result), values.snapshot(args), values.marks(args)

        return run(once, limit, self.seed)

    @cached_property
    def want(self) -> tuple:
        """(result, arguments after the call, what hangs on them) of the reference."""
        outcome = self.call(self.exercise.reference, None)
        if outcome.error is not None:
            raise RuntimeError(
                f"The reference of {self.exercise.name!r} fails for {self.inputs}."
            ) from outcome.error
        return outcome.value

    @cached_property
    def gradient(self) -> list | None:
        """Gradients of the reference; None where there are none to speak of."""
        outcome = gradients(self, self.exercise.reference, None)
        return outcome.value if outcome.error is None else None

    @cached_property
    def runs_on_a_gpu(self) -> bool:
        """Whether a GPU can be tried: there are tensors, and the reference follows them."""
        tried = values.tensors(self.inputs_before)
        return bool(tried) and devices.problem(self, self.exercise.reference, None) == ""

    @cached_property
    def inputs(self) -> str:
        """The inputs in words: ``losses = [0.1, 2] (shape (2,)), weight = 3``.

        A `call` that makes others of them names its own.
        """
        names = [p.name for p in self._parameters()]
        texts = map(values.brief, self._first)
        return ", ".join(
            f"{name} = {text}" if name else text
            for name, text in zip_longest(names[: len(self._first)], texts)
        )

    def _parameters(self) -> list[inspect.Parameter]:
        """What takes the inputs: the parameters of `call`, else those of the reference."""
        taken = list(inspect.signature(self.exercise.call).parameters.values())
        if all(p.kind is not p.VAR_POSITIONAL for p in taken):
            return taken[1:]
        if inspect.isclass(self.exercise.reference):
            return []
        return list(inspect.signature(self.exercise.reference).parameters.values())

    @cached_property
    def arguments(self) -> dict:
        """The inputs before the call, by name, where they have one."""
        names = [p.name for p in self._parameters()]
        return dict(zip(names, self.inputs_before, strict=False))

    @cached_property
    def inputs_before(self) -> list:
        """The inputs as they are before the call, copied."""
        return values.snapshot(self._first)

    @cached_property
    def marks_before(self) -> list:
        """What hangs on the inputs before the call."""
        return values.marks(self._first)

    @cached_property
    def _first(self) -> tuple:
        return self._drawn()


def draw_cases(exercise: Exercise, seed: int, rounds: int) -> list[Case]:
    """`rounds` draws from each generator of the exercise; the same seed gives the same cases."""
    never_copied: set[Callable] = set()
    return [
        Case(exercise, draw_inputs, seed + 1000 * r + i, never_copied)
        for r in range(rounds)
        for i, draw_inputs in enumerate(exercise.inputs)
    ]


def examine(
    exercise: Exercise, answer, cases: list[Case], stop_at_a_fault: bool = False
) -> Examination:
    """Every row of the check of one answer. Never raises for what the answer does.

    stop_at_a_fault: end with the first row that fails. What follows is not tried: for those who
        only ask whether the answer is solved.
    """
    runs = Row("runs on fresh random inputs", weight=0)
    typed = Row("right type and shape")
    right = Row("right values", weight=3)
    pure = Row("leaves its inputs unchanged")
    seen = Examination("wrong", [runs, typed, right, pure])
    on_stage(seen)
    # To look at an object can already run code of its own.
    looked = run(lambda: learner.untouched(exercise, answer), exercise.limit)
    if looked.value:
        return Examination("blank", [])
    if looked.stopped or looked.error is not None:
        _, runs.detail = _not_run(exercise, answer, looked)
        seen.state, runs.ok = "timeout" if looked.stopped else "error", False
        seen.behaviour.append((seen.state, runs.detail.split("\n")[0]))
        return seen
    spent, budget = 0.0, exercise.limit * max(3, len(cases) // len(exercise.inputs))
    for number, case in enumerate(cases):
        # Before the answer: what torch imports at first use is not on the learner's time.
        want = case.want
        seen.case = number
        on_stage(seen)
        outcome = case.call(answer, exercise.limit)
        spent += outcome.seconds
        seen.printed = seen.printed or outcome.printed
        first = not seen.behaviour
        if first and outcome.error is not None and learner.is_blank(answer, outcome.error):
            return Examination("blank", [])
        overspent = budget if spent > budget else None
        fault = _not_run(exercise, answer, outcome, case, overspent)
        if fault is not None:
            seen.state, runs.ok, runs.detail = fault[0], False, fault[1]
            seen.behaviour.append((seen.state, runs.detail.split("\n")[0]))
            return seen
        seen.behaviour.append(("value", outcome.value[:2]))
        _compare(exercise, case, outcome.value, want, typed, right, pure)
        if stop_at_a_fault and _fails(seen):
            return seen
    seen.case = None
    if typed.ok is None and right.ok is False:
        right.detail = _below_the_part(right.detail, _in_common(exercise, cases, seen))
    runs.ok, typed.ok = True, typed.ok is not False
    if typed.ok:
        right.ok, pure.ok = right.ok is not False, pure.ok is not False
    for row in _later_rows(exercise, answer, cases, seen):
        seen.rows.append(row)
        if stop_at_a_fault and row.ok is False:
            return seen
    if not _fails(seen):
        seen.state = "solved"
    return seen


def _fails(seen: Examination) -> bool:
    return any(row.ok is False for row in seen.rows)


def _not_run(exercise, answer, outcome, case=None, overspent=None) -> tuple[str, str] | None:
    """(state, detail) of a call that came to no end; None if it did.

    overspent: seconds that all calls together may take, once they are spent; else None.
    """

    def inputs():
        return f"\nfor {case.inputs}" if case is not None else ""

    if outcome.stopped:
        return "timeout", endless(exercise) + inputs()
    if overspent is not None:
        told = f"Stopped after {overspent:g} s: each call is slow. Can a loop become one operation?"
        return "timeout", told
    if outcome.error is not None:
        return "error", _explain(exercise, answer, outcome.error) + inputs()
    return None


def endless(exercise: Exercise) -> str:
    """What a card says of a call that was stopped."""
    return f"{_stopped(exercise)} Is there a loop that never ends?"


def _later_rows(exercise, answer, cases, seen) -> Iterator[Row]:
    """Gradients and device of an answer whose values are right, and every law."""
    _, typed, right, _ = seen.rows

    def begin(name):
        seen.trying = name
        on_stage(seen)

    if right.ok:
        begin(GRADIENTS)
        if (row := _gradient_row(exercise, answer, cases, seen)) is not None:
            yield row
        begin(DEVICE)
        if (row := _device_row(exercise, answer, cases)) is not None:
            yield row
    elif _has_gradients(exercise, cases):  # still part of what the exercise is worth
        yield Row(GRADIENTS)
    for text, law in exercise.laws:
        begin(text)
        yield _law_row(exercise, answer, cases, text, law) if typed.ok else Row(text)


def _compare(exercise, case, got, wanted, typed, right, pure):
    """Fill in the three rows that are about one result.

    A row keeps the first counterexample that it met.
    """
    (result, after, marks), (want, want_after, want_marks) = got, wanted
    fault = values.problem(result, want)
    if fault:
        if typed.ok is None:
            typed.ok, typed.detail = False, f"{fault}\nfor {case.inputs}"
        return
    if right.ok is None and not values.same(result, want, exercise.rtol, exercise.atol):
        right.ok = False
        right.detail = _differs(exercise, case, result, want, exercise.parts)
    if pure.ok is None and not values.alike(after, want_after, exercise.rtol, exercise.atol):
        pure.ok = False
        if values.alike(case.inputs_before, want_after, exercise.rtol, exercise.atol):
            changed = [
                f"`{name}`"
                for (name, before), now in zip(case.arguments.items(), after, strict=False)
                if not values.alike(now, before, exercise.rtol, exercise.atol)
            ]
            pure.detail = (
                f"Your function changes {' and '.join(changed) or 'one of its arguments'} in place."
                " Work on a new value (x = x - y, not x -= y)."
            )
        else:
            pure.name = "changes its inputs as asked"
            names = [f"`{name}` after the call" for name in case.arguments]
            pure.detail = _differs(exercise, case, after, want_after, names)
    if pure.ok is None and (told := values.left_behind(case.marks_before, marks, want_marks)):
        pure.ok, pure.detail = False, told


def _differs(exercise, case, got, want, names) -> str:
    """What differs from what was wanted, and for which inputs: of several parts, the first."""
    tolerance = exercise.rtol, exercise.atol
    found = differences.first(got, want, *tolerance, names)
    told = [f"{NOT_AS_EXPECTED}: {found.part}."] if found.part else []
    told += filter(None, [differences.entries(found.got, found.want, *tolerance)])
    lead = " ".join(told) + "\n" if told else ""
    expected = f"expected {values.brief(found.want)}\n     got {values.brief(found.got)}"
    return f"{lead}for {case.inputs}\n{expected}"


# What a part is called may be a thing ("head's weights") or a whole statement ("training changes
# the checkpoint"): only a heading fits before both.
NOT_AS_EXPECTED = "Not as expected"


def _below_the_part(detail: str, told: str) -> str:
    """A line of a row's detail put first, or second where the first names the part."""
    first, _, rest = detail.partition("\n")
    return f"{first}\n{told}{rest}" if first.startswith(NOT_AS_EXPECTED) else told + detail


def _in_common(exercise, cases, seen) -> str:
    """What the wrong values of all cases have in common, in a line; "" for nothing."""

    def look():
        results = [value[0] for _, value in seen.behaviour]
        pairs = [(got, case.want[0]) for case, got in zip(cases, results, strict=True)]
        tolerance = exercise.rtol, exercise.atol
        path = next(
            differences.first(got, want, *tolerance).path
            for got, want in pairs
            if not values.same(got, want, *tolerance)
        )
        parts = [tuple(differences.at(value, path) for value in pair) for pair in pairs]
        return differences.pattern(parts, [case.arguments for case in cases], *tolerance)

    told = run(look, None).value
    return f"{told}\n" if told else ""


def _stopped(exercise) -> str:
    return f"Stopped after {exercise.limit:g} s."


def _explain(exercise, answer, error) -> str:
    """An error in the learner's words: what was raised, and the learner's own lines."""
    kind = type(error).__name__
    told = run(lambda: f"{kind}: {error}".strip().rstrip(":")[:500], exercise.limit).value or kind
    lines = run(lambda: learner.own_lines(answer, error), exercise.limit).value or ""
    if isinstance(error, NotImplementedError):
        code, raised = learner.raised_by(error)
        if raised and not learner.is_blank(answer, error):
            told += (
                f"\nIt comes from `{code.co_name}`,"
                " which your function calls and which is not written yet."
            )
            if code.co_name in REGISTRY:
                told += (
                    " Solve that exercise first, or take the course's answer:"
                    f' helper = use("{code.co_name}").'
                )
    if isinstance(error, KeyboardInterrupt):
        told = "Interrupted."
    if isinstance(error, TypeError) and not lines and not issubclass(type(answer), type):
        names = ", ".join(inspect.signature(exercise.reference).parameters)
        told += f"\nYour function is called with ({names})."
    return "\n".join(filter(None, [told, lines]))


# ------------------------------------------------------------------- gradients

GRADIENTS = "gradients flow"


def gradients(case: Case, answer, limit: float | None) -> Outcome:
    """Gradients of a weighted sum of the results.

    They are taken with respect to every float input and every parameter of a module. The value is
    None if no result depends on any of them.
    """
    args = values.over_tensors(_leaf, case.draw())
    leaves = [t for t in values.tensors(args) if t.requires_grad]

    def once():
        results = [r for r in values.tensors(case.exercise.call(answer, *args)) if _is_inexact(r)]
        results = [r for r in results if r.requires_grad]
        if not results or not leaves:
            return None
        total = sum((r * _weights(r)).sum() for r in results)
        # None where a leaf is not used
        raw = torch.autograd.grad(total.real, leaves, allow_unused=True)
        return [
            torch.zeros_like(leaf) if gradient is None else gradient.detach()
            for leaf, gradient in zip(leaves, raw, strict=True)
        ]

    return run(once, limit, case.seed)


def _is_inexact(t: torch.Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _weights(r: torch.Tensor) -> torch.Tensor:
    """A different weight for each entry, so that errors do not cancel."""
    return torch.linspace(1, 2, r.numel(), dtype=r.dtype, device=r.device).view_as(r)


def _leaf(t: torch.Tensor) -> torch.Tensor:
    return t.detach().clone().requires_grad_() if t.is_floating_point() else t


def _has_gradients(exercise, cases) -> bool:
    return exercise.grad and any(
        case.gradient is not None for case in cases[: len(exercise.inputs)]
    )


def _gradient_row(exercise, answer, cases, seen) -> Row | None:
    if not _has_gradients(exercise, cases):
        return None
    row = Row(GRADIENTS, True)
    for case in cases[: len(exercise.inputs)]:
        outcome = gradients(case, answer, exercise.limit)
        seen.behaviour.append((type(outcome.error).__name__, outcome.value))
        if row.ok and (fault := _gradient_fault(exercise, answer, case, outcome)):
            row.ok, row.detail = False, fault
    return row


def _gradient_fault(exercise, answer, case, outcome) -> str | None:
    if outcome.stopped:
        return f"With inputs that need a gradient: {_stopped(exercise)}"
    if outcome.error is not None:
        told = _explain(exercise, answer, outcome.error)
        return f"With inputs that need a gradient: {told}"
    if outcome.value is None and case.gradient is not None:
        return (
            "No gradient reaches the inputs."
            " Look for .item(), .detach(), .data, float(...) or torch.tensor(...)."
        )
    if outcome.value is not None and case.gradient is None:
        return "A gradient flows where none should: is a .detach() or torch.no_grad() missing?"
    if not values.alike(outcome.value, case.gradient, exercise.rtol, exercise.atol):
        names = [
            f" with respect to `{name}`"
            for name, value in case.arguments.items()
            for tensor in values.tensors(value)
            if tensor.is_floating_point()
        ]
        differing = [
            name
            for name, got, want in zip(names, outcome.value, case.gradient, strict=False)
            if not values.alike(got, want, exercise.rtol, exercise.atol)
        ]
        which = differing[0] if differing and len(names) == len(case.gradient) else ""
        return (
            f"The values are right but the gradient{which} differs:"
            " is a part detached that should not be, or is one not?"
        )
    return None


# -------------------------------------------------------------- device and laws

DEVICE = "works on any device"


def _device_row(exercise, answer, cases) -> Row | None:
    if not exercise.device:
        return None
    for case in cases[: len(exercise.inputs)]:
        if not case.runs_on_a_gpu:
            return None
        fault = devices.problem(case, answer, exercise.limit)
        if fault is None:
            return Row(DEVICE, None, "could not be tried without a GPU", weight=0)
        if fault:
            return Row(DEVICE, False, fault)
    return Row(DEVICE, True)


def _law_row(exercise, answer, cases, text, law) -> Row:
    for case in cases:
        args = case.draw()
        outcome = run(lambda a=args: _holds(law(answer, *a)), exercise.limit, case.seed)
        if outcome.stopped:
            return Row(text, False, _stopped(exercise))
        if outcome.error is not None:
            told = _explain(exercise, answer, outcome.error)
            return Row(text, False, f"{told}\nfor {case.inputs}")
        if not outcome.value:
            return Row(text, False, f"broken for {case.inputs}")
    return Row(text, True)


def _holds(verdict: Any) -> bool:
    return verdict is None or bool(verdict)


def share(seen: Examination) -> float:
    """The part of the points that the rows earn, from 0 to 1: by weight.

    What is only worth something in a right answer (inputs unchanged, gradients, device) earns
    nothing while the values are wrong.
    """
    if seen.state == "solved":
        return 1.0
    if seen.state != "wrong":
        return 0.0
    right = any(row.name == "right values" and row.ok for row in seen.rows)
    needs_right = {"leaves its inputs unchanged", "changes its inputs as asked"}
    earned = sum(
        row.weight for row in seen.rows if row.ok and (right or row.name not in needs_right)
    )
    return earned / math.fsum(row.weight for row in seen.rows)
