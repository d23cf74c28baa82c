"""Run a learner's function once: stopped in time, and without a trace in the notebook's state."""

import contextlib
import ctypes
import io
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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

    A value, an error, or neither because it was stopped after its time; and what it printed.
    """

    value: Any = None
    error: BaseException | None = None
    stopped: bool = False
    printed: str = ""


def run(function: Callable[[], Any], limit: float | None, seed: int = 0) -> Outcome:
    """Call `function()` with all random generators seeded, for at most `limit` seconds.

    limit: None is as long as it takes.

    Whatever it raises, sys.exit included, is in the outcome. Output is captured. Restored
    afterwards: the state of the random generators (Python, NumPy, torch), gradient mode, default
    dtype and device, number of threads, working directory, warning filters, log handlers. Runs in
    float32 on the CPU with gradients on, whatever the notebook has set.
    """
    said = _Ear()
    with (
        randomness_restored(),
        _settings_restored(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        _seed_all(seed)
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
    rings = 0

    def ring(_, frame):
        nonlocal rings
        while frame is not None and frame.f_code is not _inside.__code__:
            frame = frame.f_back
        if frame is not None:  # still in the learner's code, not on the way out of it
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
        worker.join(limit)
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


def _raise_in(thread, exception):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(exception)
    )


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
def _settings_restored():
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    threads, folder = torch.get_num_threads(), os.getcwd()
    handlers = [logger.handlers for logger in _LOGGERS]
    try:
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
        if os.getcwd() != folder:
            os.chdir(folder)
        for logger, kept in zip(_LOGGERS, handlers, strict=True):
            logger.handlers = kept


class _Ear(io.TextIOBase):
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
