"""In a fresh process: the learner's code, under limits, and its answers to what is asked.

In the grader's own process only `Answerer` is used, with a reference in place of an answer, to see
whether an exercise can be judged from outside.
"""

import contextlib
import linecache
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import BinaryIO

import torch
import torch.func
import torch.optim

import mtl_course

from .. import checks
from ..checks import devices, learner
from ..checks.devices import PretendedGPU
from ..checks.diagnosis import diagnose
from ..checks.rows import draw_cases, examine, share
from ..checks.sandbox import run
from . import wire

MEMORY = 4 * 2**30  # bytes above what the process has when it starts
FILE = 64 * 2**20  # bytes of a file that it may write
TASKS = 64  # processes and threads above those that its user has when it starts
TOLD = 1000  # characters of an error
CELL = 10  # seconds that one cell may run


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Take the task, then answer one message after the other until there is none."""
    task = wire.receive(source)
    if task is None:
        return
    torch.set_num_threads(1)
    pupil = Pupil(task)
    _limit(task["seconds"])
    _close(task["closed"])
    wire.send(sink, {"id": task["id"]})
    while (message := wire.receive(source)) is not None:
        wire.send(sink, {"id": message["id"]} | pupil.to(message))


# ----------------------------------------------------------------------- limits


def _limit(seconds: float) -> None:
    """Limits on processor time, memory, files and processes, where the platform has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_CPU": int(seconds) + 30, "RLIMIT_FSIZE": FILE, "RLIMIT_CORE": 0}
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        limits |= {"RLIMIT_AS": taken + MEMORY, "RLIMIT_NPROC": _tasks_of_user() + TASKS}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))


def _tasks_of_user() -> int:
    """Threads of this user, which the limit counts."""
    total, me = 0, os.getuid()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid == me:
                total += len(os.listdir(f"/proc/{entry}/task"))
    return total


# --------------------------------------------------------------- what is closed

ELSEWHERE = "not available here: this is the grader"
_PROCESSES = ("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.startfile")
_CLOSED = (*_PROCESSES, "os.system", "pty.spawn", "socket.", "subprocess.Popen")


def _close(closed_folders: list[str]) -> None:
    """Take the course's answers out of reach: its verbs, its exercises and their files.

    Whoever looks for them long enough in the memory of this process finds them; the teaching page
    says so.
    """

    def refuse(*_, **__):
        raise RuntimeError(ELSEWHERE)

    for verb in ("check", "hint", "progress", "solution", "use"):
        setattr(checks, verb, refuse)
        vars(mtl_course).pop(verb, None)
    checks.REGISTRY.clear()
    rooms = ("mtl_course.exercises", "mtl_course.grading", "mtl_course.grade")
    for name in [*sys.modules, *rooms]:
        if name.startswith(rooms):
            sys.modules[name] = None
    for room in ("exercises", "grading", "grade"):
        vars(mtl_course).pop(room, None)
    linecache.clearcache()
    real, starts, join = os.path.realpath, tuple(closed_folders), os.fsdecode
    names, text = _CLOSED, (str, bytes, os.PathLike)

    def forbid(event, args):
        if event == "open" and isinstance(args[0], text):
            if real(join(args[0])).startswith(starts):
                raise PermissionError(ELSEWHERE)
        elif event.startswith(names) and event != "socket.gethostname":
            raise PermissionError(ELSEWHERE)

    sys.addaudithook(forbid)


# ---------------------------------------------------------------------- answers


class Answerer:
    """Calls an answer with what it is sent, and sends back what came of it.

    answer: the function. limit: seconds of one call, or None.
    """

    def __init__(self, answer: Callable, limit: float | None):
        self.answer, self.limit = answer, limit
        self._graphs: dict[int, tuple[list, list]] = {}

    def to(self, message: dict) -> dict:
        """The reply to one message."""
        return {"call": self.call, "backward": self.backward}[message["do"]](message)

    def call(self, message: dict) -> dict:
        """One call: its value, and the arguments after it where it has changed them."""
        given: list = []
        args, kwargs = wire.unpack(message["args"], given)
        gpu, places = PretendedGPU(), message["places"]
        for thing, place in zip(given, places or (), strict=False):
            if place is not None:
                gpu._mark(thing, place)
        untouched = wire.pack((args, kwargs), [])
        # Filled within the limit, since a value may do anything when it is looked at.
        reply: dict = {}

        def once():
            with gpu if places is not None else contextlib.nullcontext():
                value = self.answer(*args, **kwargs)
            results: list = []
            reply["value"] = wire.pack_or_kind(value, results, given)
            after = wire.pack_or_kind((args, kwargs), [])
            reply["after"] = None if after == untouched else after
            reply["marks"] = _marks(given)
            reply["places"] = [gpu.place(t) for t in _tensors(results)]
            if message["graph"]:
                self._graphs[len(self._graphs)] = (_tensors(results), _tensors(given))
                reply["graph"] = len(self._graphs) - 1

        modes = torch.overrides._get_current_function_mode_stack()
        try:
            outcome = run(once, self.limit, message["seed"])
        finally:
            devices._put_back(modes)
        return _told(outcome, reply, self.answer, self.limit)

    def backward(self, message: dict) -> dict:
        """Gradients of an earlier call's results with respect to its arguments."""
        results, leaves = self._graphs[message["graph"]]
        weights = wire.unpack(message["weights"], [])
        pairs = [(r, w) for r, w in zip(results, weights, strict=True) if r.requires_grad]
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        reply: dict = {}

        def once():
            outputs, grads = zip(*pairs, strict=True)
            got = torch.autograd.grad(outputs, leaves, grads, retain_graph=True, allow_unused=True)
            reply["value"] = wire.pack([None if g is None else g.detach() for g in got], [])

        outcome = run(once, self.limit, 0)
        return _told(outcome, reply, self.answer, self.limit)


def _marks(given: list) -> list:
    """What hangs on the arguments after a call: their place, requires_grad, and gradient."""
    return [
        [place, t.requires_grad, None if t.grad is None else wire.pack(t.grad.detach(), [])]
        for place, t in enumerate(given)
        if isinstance(t, torch.Tensor) and t.is_leaf and (t.requires_grad or t.grad is not None)
    ]


def _tensors(objects: list) -> list:
    return [thing for thing in objects if isinstance(thing, torch.Tensor)]


def _told(outcome, reply: dict, answer, limit) -> dict:
    """What one run came to, as a reply."""
    reply = dict(reply) if outcome.error is None and not outcome.stopped else {}
    reply["printed"] = outcome.printed
    if outcome.stopped:
        reply["stopped"] = True
    elif outcome.error is not None:
        error = outcome.error
        text = run(lambda: str(error)[:TOLD], limit).value or ""
        reply["error"] = {
            "kind": str(type(error).__name__)[:60],
            "text": str(text),
            "lines": learner.own_lines(answer, error)[:TOLD],
            "blank": learner.is_blank(answer, error),
        }
    return reply


class Pupil:
    """The learner's code of one exercise, and the answer that it defines.

    task: what `judge` sends first: name, pieces, limit, and for an exercise that is judged in here
        the module that defines it.
    """

    def __init__(self, task: dict):
        self.name, self.pieces, self.limit = task["name"], task["pieces"], task["limit"]
        self.exercise = None
        if task["module"]:
            self.exercise = getattr(import_module(task["module"]), self.name)
        self.answerer = None

    def to(self, message: dict) -> dict:
        """The reply to one message."""
        if message["do"] == "cells":
            return self._run_cells()
        if message["do"] == "examine":
            return self._examine(message)
        return self.answerer.to(message)

    def _run_cells(self) -> dict:
        """Run the pieces in order; what its own cell leaves under its name is the answer."""
        name = self.name
        module = sys.modules["__main__"] = ModuleType("__main__")
        scope = vars(module)
        reply = {"state": "missing"}
        for number, source, exercise in self.pieces:
            filename = f"<ipython-input-{number}-cell>"
            linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
            is_answer = exercise == name
            if is_answer:
                scope.pop(name, None)
            outcome = run(lambda s=source, f=filename: _execute(s, f, scope), CELL)
            if is_answer:
                reply = self._take(scope.get(name), outcome, filename)
        return reply

    def _take(self, answer, outcome, filename: str) -> dict:
        """What the exercise's own cell came to."""
        if outcome.stopped:
            return {"state": "timeout", "text": f"Its cell was stopped after {CELL} s."}
        if outcome.error is not None:
            return {"state": "error", "text": _in_cell(outcome.error, filename)}
        if answer is None:
            return {"state": "missing"}
        reference = self.exercise is not None and learner.is_reference(self.exercise, answer)
        if reference or learner.is_course_code(answer):
            return {"state": "course"}
        if not callable(answer):
            return {"state": "error", "text": f"`{self.name}` is no function."}
        self.answerer = Answerer(answer, self.limit)
        return {"state": "ready"}

    def _examine(self, message: dict) -> dict:
        """The whole check in here, for answers that only this process can call."""
        exercise, answer = self.exercise, self.answerer.answer
        cases = draw_cases(exercise, message["seed"], message["rounds"])
        seen = examine(exercise, answer, cases)
        hint = None
        if seen.state not in ("blank", "solved"):
            hint = diagnose(exercise, answer, seen, cases)
        return {
            "state": seen.state,
            "share": share(seen),
            "rows": [[row.name, row.ok, row.detail[:4000]] for row in seen.rows],
            "hint": hint,
            "printed": seen.printed,
        }


def _execute(source: str, filename: str, scope: dict) -> None:
    exec(compile(source, filename, "exec", dont_inherit=True), scope)


def _in_cell(error: BaseException, filename: str) -> str:
    """An error that a cell raised when it was run, with its line."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)[:TOLD]
    except Exception:
        text = ""
    where = f"\nline {line} of its cell" if line else ""
    return f"{type(error).__name__}: {text}".rstrip(": ") + where
