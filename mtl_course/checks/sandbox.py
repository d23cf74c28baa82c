"""Run a learner's function once: stopped in time, and without a trace in the notebook's state.

This is all there is where a check cannot have a process of its own (`child`): with a GPU, on macOS
and Windows, off the main thread, with MTL_COURSE_SANDBOX=kernel. There it cannot stop what runs in
C and does not come back to Python (a sum over a huge range, a large decomposition, `os.system`),
bounds no memory, and does not hold back what is displayed or what child processes print.
"""

import contextlib
import ctypes
import functools
import importlib
import io
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Wall time counts this part of processor time: a busy machine is not the answer's fault, and a
# function that sleeps must end all the same.
WALL = 0.5
# How often the clock of one call may begin again because it ran out inside an import.
IMPORTS = 20

# What watches the calls from outside is told when one begins (with its limit) and ends (None).
on_call: Callable[[float | None], None] = lambda limit: None  # noqa: E731  replaced in a child


class TimedOut(BaseException):
    """Raised inside a function that runs for too long.

    Not an Exception, so that `except Exception` does not swallow it.
    """


class _Parked(BaseException):
    """Raised in a thread that swallows TimedOut.

    It is made in that thread, and while it is being made the thread goes to sleep for good.
    """

    def __init__(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()


@dataclass
class Outcome:
    """What one call did.

    A value, an error, or neither because it was stopped after its time; what it printed; and the
    seconds that it took, as a `Clock` counts them.
    """

    value: Any = None
    error: BaseException | None = None
    stopped: bool = False
    printed: str = ""
    seconds: float = 0.0


class Clock:
    """Seconds since a call began: of its thread's processor time, or half of those on the wall.

    thread: its identity; None is this one. Where the platform cannot read the processor time of
        another thread, every second on the wall counts.
    """

    def __init__(self, thread: int | None = None):
        self._own, self._processor = thread is None, None
        if thread is not None and hasattr(time, "pthread_getcpuclockid"):
            self._processor = time.pthread_getcpuclockid(thread)
        self.restart()

    def restart(self) -> None:
        self._wall, self._used = time.monotonic(), self._processor_time()

    def seconds(self) -> float:
        wall = time.monotonic() - self._wall
        if not self._own and self._processor is None:
            return wall
        return max(self._processor_time() - self._used, WALL * wall)

    def _processor_time(self) -> float:
        if self._own:
            return time.thread_time()
        return time.clock_gettime(self._processor) if self._processor is not None else 0.0


@functools.cache
def import_before_the_clock() -> None:
    """What torch imports with the first transform or optimizer: seconds, and nobody's answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ("torch.func", "torch.optim", "torch._dynamo"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def run(function: Callable[[], Any], limit: float | None, seed: int = 0) -> Outcome:
    """Call `function()` with all random generators seeded, for at most `limit` seconds.

    limit: in the seconds of a `Clock`; None is as long as it takes. An import is never broken off:
        the clock begins again where it runs out inside one.

    Whatever it raises, sys.exit included, is in the outcome. Output is captured. Restored
    afterwards: the state of the random generators (Python, NumPy, torch), gradient mode, default
    dtype and device, number of threads, working directory, warning filters, log handlers, the hook
    for errors in finalizers. Runs in float32 on the CPU with gradients on, whatever the notebook
    has set.
    """
    said = Ear()
    with (
        randomness_restored(),
        _settings_restored(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        _seed_all(seed)
        depth, clock = _depth_of_transforms(), Clock()
        on_call(limit)
        try:
            if limit is None:
                outcome = Outcome(_inside(function))
            elif threading.current_thread() is threading.main_thread() and hasattr(
                signal, "setitimer"
            ):
                outcome = Outcome(_with_alarm(function, limit))
            else:
                outcome = Outcome(_in_thread(function, limit))
        except TimedOut:
            outcome = Outcome(stopped=True)
        except BaseException as error:
            outcome = Outcome(error=error)
        finally:
            on_call(None)
        outcome.seconds = clock.seconds()
        if outcome.stopped or outcome.error is not None:
            _leave_transforms(depth)
    outcome.printed = said.heard
    return outcome


def _inside(function):
    """The only frame that TimedOut is aimed at: below it runs the learner's code, above it ours."""
    return function()


# ------------------------------------------------------------------ time limit


def _with_alarm(function, limit):
    """On the main thread of Linux and macOS: a timer signal, which also ends a sleep.

    A bare `except:` around the loop's body catches the first TimedOut, so the alarm rings again and
    again, after 1, 2, 3, ... microseconds: soon it falls between the end of the `except` and the
    start of the next `try`.
    """
    rings, imports, clock = 0, 0, Clock()

    def ring(_, frame):
        nonlocal rings, imports
        inside, importing = _where(frame)
        if not inside:  # on the way out of the learner's code
            return
        if rings == 0:
            if importing and imports < IMPORTS:
                imports += 1
                clock.restart()
                on_call(limit)
            if (left := limit - clock.seconds()) > 0:
                signal.setitimer(signal.ITIMER_REAL, max(left, 0.01))
                return
        rings += 1
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + rings % 50))
        raise TimedOut

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return _inside(function)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if timer[0]:  # somebody else's timer, such as a test runner's
            signal.setitimer(signal.ITIMER_REAL, *timer)


def _in_thread(function, limit):
    """Elsewhere (Windows, other threads): in a thread of its own.

    TimedOut is raised in it from outside. A thread that swallows it again and again is put to
    sleep: it uses no time any more, and the check goes on without it.
    """
    result: list = []

    def work():
        try:
            result.append((_inside(function), None))
        except BaseException as error:
            result.append((None, error))

    worker = threading.Thread(target=work, daemon=True)
    try:
        worker.start()
        _wait(worker, limit)
        for _ in range(20):
            if not worker.is_alive():
                break
            _raise_in(worker, TimedOut)
            worker.join(0.02)
    finally:
        if worker.is_alive():
            _raise_in(worker, _Parked)
    if not result:
        raise TimedOut
    value, error = result[0]
    if error is not None:
        raise error
    return value


def _wait(worker, limit) -> None:
    """Until the thread has ended, or had its seconds."""
    try:
        clock = Clock(worker.ident)
    except OSError:  # it has ended already
        return worker.join(limit)
    imports = 0
    while worker.is_alive():
        try:
            left = limit - clock.seconds()
        except OSError:
            left = 0.01
        if left <= 0:
            _, importing = _where(sys._current_frames().get(worker.ident))
            if not importing or imports == IMPORTS:
                break
            imports += 1
            clock.restart()
            left = limit
        worker.join(max(left, 0.01))
    return None


def _where(frame) -> tuple[bool, bool]:
    """Whether a frame is in the learner's code, and whether in an import that it makes."""
    importing = False
    while frame is not None and frame.f_code is not _inside.__code__:
        importing = importing or frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return frame is not None, importing


def _raise_in(thread, exception):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(exception)
    )


# ------------------------------------------------------------------ transforms


def _depth_of_transforms() -> int:
    """How many of torch.func's transforms are being applied here."""
    return len(torch._C._functorch.get_interpreter_stack() or [])


def _leave_transforms(depth: int) -> None:
    """End those that a call was stopped in: they would be applied to all that follows."""
    functorch = torch._C._functorch
    if _depth_of_transforms() > depth and hasattr(
        functorch, "pop_dynamic_layer_stack_and_undo_to_depth"
    ):
        functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)
    while _depth_of_transforms() > depth:
        functorch.pop_dynamic_layer_stack()


# ----------------------------------------------------------------------- state

# Their handlers hold the real stderr, so capturing sys.stderr is not enough.
_LOGGERS = [logging.getLogger(), logging.getLogger("torch")]

_nested = threading.local()


@contextlib.contextmanager
def randomness_restored():
    """Put the random generators of Python, NumPy and torch back at the end.

    Inside another such block it does nothing: `run` does this for one call, but saving NumPy's
    state takes longer than most calls, so a check does it once around all of them.
    """
    if getattr(_nested, "inside", False):
        yield
        return
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    _nested.inside = True
    try:
        yield
    finally:
        _nested.inside = False
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _seed_all(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextlib.contextmanager
def process_restored():
    """Put back, as far as that goes, what an answer changes in the process around it.

    Environment variables, the import path, the limit of recursion, what Ctrl-C does.
    """
    variables, recursion = dict(os.environ), sys.getrecursionlimit()
    path, entries = sys.path, list(sys.path)
    main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    finally:
        if dict(os.environ) != variables:
            for name in set(os.environ) - set(variables):
                del os.environ[name]
            os.environ.update(variables)
        sys.path, path[:] = path, entries
        sys.setrecursionlimit(recursion)
        if interrupt is not None and signal.getsignal(signal.SIGINT) is not interrupt:
            signal.signal(signal.SIGINT, interrupt)


def _folder() -> str | None:
    """The working directory; None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


@contextlib.contextmanager
def _settings_restored():
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    threads, folder = torch.get_num_threads(), _folder()
    handlers, hook = [logger.handlers for logger in _LOGGERS], sys.unraisablehook
    try:
        # An alarm may ring in a finalizer. A hook that is Python code, such as a test runner's,
        # would be cut off by the next one.
        sys.unraisablehook = sys.__unraisablehook__
        torch.set_default_dtype(torch.float32)
        for logger in _LOGGERS:
            logger.handlers = []
        on_cpu = contextlib.nullcontext() if device.type == "cpu" else torch.device("cpu")
        with (
            on_cpu,
            warnings.catch_warnings(),
            np.errstate(),
            torch.inference_mode(False),
            torch.set_grad_enabled(True),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)
        for logger, kept in zip(_LOGGERS, handlers, strict=True):
            logger.handlers = kept
        sys.unraisablehook = hook


class Ear(io.TextIOBase):
    """Listens to what is printed and keeps the beginning.

    So an endless loop of prints fills no memory.
    """

    room = 2000

    def __init__(self):
        self.heard = ""

    def writable(self):
        return True

    def write(self, text):
        if len(self.heard) < self.room:
            self.heard += text[: self.room - len(self.heard)]
        return len(text)
