"""An exercise's points: the answer is called in its process, and judged here where that can be.

It can be where arguments and results are tensors, arrays, numbers, texts, and lists and dicts of
them. A class, a module or a function as an argument or a result has to be judged in the process of
the answer, which then tells rows and a share of the points.
"""

import math
import os
import random
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..checks import devices
from ..checks.devices import PretendedGPU
from ..checks.diagnosis import diagnose
from ..checks.exercise import REGISTRY, Exercise
from ..checks.report import Result
from ..checks.rows import Row, draw_cases, examine, share
from ..checks.sandbox import TimedOut
from . import submission, wire
from .process import Process, ProcessEnded, TimeIsOver
from .pupil import Answerer
from .submission import Piece

GRACE = 5  # seconds beyond twice an exercise's limit, which a call that sleeps may take
STATES = ("solved", "wrong", "blank", "error", "timeout")


@dataclass
class Settings:
    """How to grade.

    rounds: draws from each generator of inputs. seed: of the draws; None for new ones.
    seconds: that an exercise may take. closed_to: the submission's folder.
    """

    rounds: int = 10
    seed: int | None = None
    seconds: float = 60.0
    closed_to: Path | None = None


def judge(name: str, pieces: list[Piece], settings: Settings) -> Result:
    """The result of the exercise `name` for the code of a submission."""
    exercise = REGISTRY[name]
    seed = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
    cells = [piece for piece in pieces if piece.exercise == name]

    def result(state, rows=(), score=0.0, hint=None, printed=""):
        return Result(exercise, state, list(rows), score, hint, seed, printed)

    def failed(state, told):
        return result(state, [Row("runs on fresh random inputs", False, told)])

    if not cells:
        return result("missing", hint=f"The notebook has no cell that begins `# EXERCISE {name}`.")
    if submission.is_untouched(cells[-1].source, exercise.stub, name):
        return result("blank")
    pupil = Process(settings.seconds, settings.closed_to)
    try:
        pupil.begin(_task(exercise, pieces, settings.seconds))
        begun = pupil.ask({"do": "cells"})
        state, told = begun.get("state"), _text(begun.get("text"), 4000)
        if state == "ready":
            look = _judge_here if judged_here(exercise) else _judge_there
            seen = look(exercise, pupil, seed, settings.rounds)
            verdict = result(*seen)
        elif state == "course":
            verdict = result("missing", hint="This is the course's own answer, not yours.")
        elif state in ("error", "timeout"):
            verdict = failed(state, told)
        else:
            verdict = result("missing", hint=f"The exercise's cell defines no `{name}`.")
    except TimeIsOver:
        verdict = failed("timeout", f"Stopped after {settings.seconds:g} s.")
    except ProcessEnded:
        verdict = failed("error", "Your code ended its own process before it could be checked.")
    finally:
        pupil.end()
    if any("NameError" in row.detail for row in verdict.rows):
        verdict.notes.append(
            "The grader runs the exercises' cells, and those of yours with nothing but imports,"
            " functions and classes. Define what an answer uses in such a cell."
        )
    return verdict


def _task(exercise: Exercise, pieces: list[Piece], seconds: float) -> dict:
    """What the process of an answer gets to know."""
    runs = [
        [piece.number, piece.source, piece.exercise]
        for piece in pieces
        if piece.defines_only or piece.exercise == exercise.name
    ]
    module = exercise.reference.__module__
    package = Path(__file__).resolve().parents[1]
    closed = [package / "exercises", package.parent / "tests"]
    return {
        "name": exercise.name,
        "pieces": runs,
        "limit": exercise.limit,
        "seconds": seconds,
        "module": None if judged_here(exercise) else module,
        "closed": [str(folder) + os.sep for folder in closed],
    }


def points(exercise: Exercise, part: float) -> float:
    """The points for a part of an exercise: finite, from 0 to what it is worth."""
    part = part if math.isfinite(part) else 0.0
    return round(min(max(part, 0.0), 1.0) * exercise.points, 4)


def _text(value, most: int) -> str:
    return str(value)[:most] if value is not None else ""


# ------------------------------------------------------------------ judged here


def judged_here(exercise: Exercise) -> bool:
    """Whether the grader's own process can judge: its reference passes when called from outside."""
    return _judged_here(exercise.name, id(exercise))


@cache
def _judged_here(name: str, _: int) -> bool:
    exercise = REGISTRY[name]
    if exercise.device and torch.cuda.is_available():
        return False  # the trial there is made with tensors that do not travel
    outside = Remote(_Loop(Answerer(exercise.reference, None)), exercise)
    seen = examine(exercise, outside, draw_cases(exercise, 0, 2))
    return seen.state == "solved" and not outside.watched


def _judge_here(exercise, pupil, seed, rounds) -> tuple:
    """(state, rows, score, hint, printed), from the values that the answer returns."""
    answer = Remote(pupil, exercise)
    cases = draw_cases(exercise, seed, rounds)
    seen = examine(exercise, answer, cases)
    if answer.ended is not None:
        raise answer.ended
    if answer.blank or seen.state == "blank":
        return "blank", (), 0.0
    hint = None if seen.state == "solved" else diagnose(exercise, answer, seen, cases)
    return seen.state, seen.rows, points(exercise, share(seen)), hint, seen.printed


class _Loop:
    """A pupil without a process, for the reference."""

    def __init__(self, answerer: Answerer):
        self._answerer = answerer

    def ask(self, message: dict, _=None) -> dict:
        modes = torch.overrides._get_current_function_mode_stack()
        devices._put_back([])
        try:
            return self._answerer.to(message)
        finally:
            devices._put_back(modes)


class Remote:
    """An answer that is called in another process, with all that an answer's caller sees.

    Its value, its errors, what it prints, what it changes in its arguments, and its gradients.
    """

    def __init__(self, pupil, exercise: Exercise):
        self._pupil, self._exercise = pupil, exercise
        self.blank, self._called = False, False
        # Whether a law looks at what the answer does inside, which nobody sees from here.
        self.watched = False
        self.ended: Exception | None = None

    def __call__(self, *args, **kwargs):
        """Call it."""
        gpu, self.watched = _pretended_gpu(), self.watched or _is_watched()
        with torch._C.DisableTorchFunction():
            given: list = []
            packed = wire.pack((args, kwargs), given)
            leaves = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
            graph = bool(leaves) and torch.is_grad_enabled()
            places = None
            if gpu is not None:
                places = [gpu.place(t) if isinstance(t, torch.Tensor) else None for t in given]
        message = {"do": "call", "args": packed, "graph": graph, "seed": torch.initial_seed()}
        reply = self.ask(message | {"places": places})
        with torch._C.DisableTorchFunction():
            results: list = []
            value = wire.unpack(reply["value"], results, given)
            if reply.get("after") is not None:
                _put(given, reply["after"])
            _mark(given, reply.get("marks"))
            tensors = [t for t in results if isinstance(t, torch.Tensor)]
            if graph and tensors:
                attached = _Call.apply(self, reply["graph"], tensors, *leaves)
                value = _replaced(value, {id(t): a for t, a in zip(tensors, attached, strict=True)})
                tensors = attached
            for t, place in zip(tensors, reply["places"], strict=True):
                if gpu is not None and place in ("cuda", "cpu"):
                    gpu._mark(t, place)
        return value

    def ask(self, message: dict) -> dict:
        """The reply, or the error that the answer's process told."""
        if self.ended is not None:
            raise self.ended
        try:
            reply = self._pupil.ask(message, 2 * self._exercise.limit + GRACE)
        except (TimeIsOver, ProcessEnded) as ended:
            self.ended = ended
            raise
        print(_text(reply.get("printed"), 2000), end="")
        first, self._called = not self._called, True
        if reply.get("stopped"):
            raise TimedOut
        if (error := reply.get("error")) is not None:
            self.blank = self.blank or (first and error.get("blank") is True)
            raise _error(error)
        return reply


def _pretended_gpu() -> PretendedGPU | None:
    """The trial of a GPU that is going on here, if one is."""
    modes = torch.overrides._get_current_function_mode_stack()
    return next((mode for mode in modes if isinstance(mode, PretendedGPU)), None)


def _is_watched() -> bool:
    """Whether the calls of torch that are made here are followed, but for the trial of a GPU."""
    modes = torch.overrides._get_current_function_mode_stack()
    passive = (PretendedGPU, DeviceContext)
    return bool(_get_current_dispatch_mode_stack()) or not all(
        isinstance(mode, passive) for mode in modes
    )


def _error(told: dict) -> Exception:
    """An error as the answer raised it: its kind, its text, and its own lines."""
    kind, lines = str(told.get("kind")), _text(told.get("lines"), 2000)
    text = _text(told.get("text"), 250 if lines else 500)
    if kind == "TypeError" and not lines:
        return TypeError(text)
    kind = kind if kind.isidentifier() else "Error"
    return type(kind, (Exception,), {})("\n".join(filter(None, [text, lines])))


def _put(given: list, packed) -> None:
    """Change arguments in place as the answer changed its own."""
    after: list = []
    wire.unpack(packed, after)
    if [type(a) for a in after] != [type(g) for g in given]:
        # Another number of parts: only the outermost that still fit can be matched.
        same = takewhile(
            lambda pair: type(pair[0]) is type(pair[1]), zip(given, after, strict=False)
        )
        given, after = map(list, zip(*same, strict=True)) if given and after else ([], [])
    for old, new in zip(given, after, strict=True):
        if isinstance(old, torch.Tensor):
            if old.shape == new.shape and old.dtype == new.dtype:
                old.data.copy_(new.detach())
            else:
                old.data = new.detach()
        elif isinstance(old, np.ndarray):
            if old.shape == new.shape:
                old[...] = new
        elif isinstance(old, list) and len(old) != len(new):
            old[:] = new
        elif isinstance(old, dict) and list(old) != list(new):
            old.clear()
            old.update(new)
        elif isinstance(old, list):
            old[:] = [n if _is_plain(n) else o for o, n in zip(old, new, strict=True)]
        elif isinstance(old, dict):
            old.update({k: v for k, v in new.items() if _is_plain(v)})


def _mark(given: list, marks) -> None:
    """Hang on the arguments what the answer has hung on its own."""
    for place, needs_gradient, gradient in marks or ():
        tensor = given[place]
        if tensor.is_leaf:
            tensor.requires_grad_(bool(needs_gradient))
            tensor.grad = None if gradient is None else wire.unpack(gradient, [])


def _is_plain(value) -> bool:
    return not isinstance(value, torch.Tensor | np.ndarray | list | dict | tuple)


def _replaced(value, attached: dict):
    """The value with each tensor exchanged for the one that has gradients."""
    if isinstance(value, torch.Tensor):
        return attached.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(_replaced(v, attached) for v in value)
    if isinstance(value, list):
        value[:] = [_replaced(v, attached) for v in value]
    elif isinstance(value, dict):
        value.update({k: _replaced(v, attached) for k, v in value.items()})
    return value


class _Call(torch.autograd.Function):
    """A call in another process as one step of autograd."""

    @staticmethod
    def forward(ctx, remote, graph, results, *leaves):
        """Results as they came, tied to the leaves they were computed from."""
        ctx.remote, ctx.graph, ctx.leaves = remote, graph, len(leaves)
        outputs = tuple(t.detach().clone() for t in results)
        constant = [o for o, t in zip(outputs, results, strict=True) if not t.requires_grad]
        ctx.mark_non_differentiable(*constant)
        ctx.set_materialize_grads(True)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *weights):
        """Ask the process for the gradients."""
        packed = wire.pack(list(weights), [])
        reply = ctx.remote.ask({"do": "backward", "graph": ctx.graph, "weights": packed})
        gradients = wire.unpack(reply["value"], [])
        return None, None, None, *gradients


# ----------------------------------------------------------------- judged there


def _judge_there(exercise, pupil, seed, rounds) -> tuple:
    """(state, rows, score, hint, printed) as the answer's own process tells it, within bounds."""
    told = pupil.ask({"do": "examine", "seed": seed, "rounds": rounds})
    state = told.get("state")
    if state not in STATES:
        raise ProcessEnded("no verdict")
    part = told.get("share")
    part = float(part) if isinstance(part, int | float) else 0.0
    rows = told.get("rows") if isinstance(told.get("rows"), list) else []
    rows = [_row(row) for row in rows[:40]]
    if (state == "solved") != (part == 1.0) or (state != "wrong" and part not in (0.0, 1.0)):
        raise ProcessEnded("no verdict")
    hint = told.get("hint")
    hint = _text(hint, 1000) if hint is not None else None
    return state, rows, points(exercise, part), hint, _text(told.get("printed"), 2000)


def _row(told) -> Row:
    if not isinstance(told, list) or len(told) != 3:
        raise ProcessEnded("no verdict")
    name, ok, detail = told
    ok = ok if isinstance(ok, bool) else None
    return Row(_text(name, 200), ok, _text(detail, 4000))
