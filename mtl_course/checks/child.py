"""Run a check in a forked child: nothing that an answer does there reaches the learner's kernel.

As a `DataLoader` forks its workers, with one thread each. The child writes into shared memory what
it is about to try; so the parent can end it where it does not come back, and still say where.
"""

import builtins
import contextlib
import ctypes
import faulthandler
import gc
import json
import mmap
import os
import select
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from . import sandbox

# Bytes that an answer may take beyond what the kernel has when its check begins.
MEMORY = 2**30
# Bytes of the result that the child sends, and of a note about what it is trying.
MOST, NOTE = 2**20, 2**16
# Beyond the limit of a call, for the child to stop it by itself; and between two calls at least.
GRACE, BETWEEN = 0.5, 3.0
SWITCH = "MTL_COURSE_SANDBOX"
# How often the clock was started, the place of the last note, seconds from the last start on.
_HEAD = struct.Struct("<qqd")


@dataclass
class Ending:
    """How a child came to its end.

    result: what its work returned, where it came to that. note: what it was trying last. reason:
    why it did not end by itself: ``time``, ``died``, ``interrupted``, or ``""``. detail: how it
    died.
    """

    result: dict | None
    note: dict
    reason: str = ""
    detail: str = ""


class NoProcess(Exception):  # noqa: N818  it is no fault of the check
    """The system gives no further process."""


def is_possible() -> bool:
    """Whether checks run in a child here: on Linux, off a GPU, on the main thread.

    Raises:
        ValueError: MTL_COURSE_SANDBOX is neither empty, ``child`` nor ``kernel``.
    """
    asked = os.environ.get(SWITCH) or "child"
    if asked not in ("child", "kernel"):
        raise ValueError(f"{SWITCH} is {asked!r}; it must be child or kernel.")
    return (
        asked == "child"
        and sys.platform == "linux"
        and threading.current_thread() is threading.main_thread()
        and not torch.cuda.is_initialized()
        and not torch.cuda.is_available()
        and not torch.accelerator.is_available()
    )


class Board:
    """Shared memory in which the child notes what it is trying, and the parent reads it.

    Two places take turns, so that a note whose writing was cut off never counts.

    between: seconds that may pass from a note on, and between two calls.
    """

    def __init__(self, between: float):
        self.between = between
        self._memory = mmap.mmap(-1, _HEAD.size + 2 * NOTE)
        self._count = self._place = 0
        self.note({})

    def note(self, content: dict) -> None:
        """Write down what is tried next.

        What is too long is left out: the note before still says where the check is.
        """
        text = json.dumps(content).encode()
        if len(text) < NOTE:
            self._place = 1 - self._place
            start = _HEAD.size + self._place * NOTE
            self._memory[start : start + len(text) + 1] = text + b"\0"
        self.restart(self.between)

    def restart(self, seconds: float) -> None:
        """Let the clock begin again: from here on, this may take so many seconds."""
        self._count += 1
        _HEAD.pack_into(self._memory, 0, self._count, self._place, seconds)

    def clock(self) -> tuple[int, float]:
        """How often the clock was started, and the seconds from the last start on."""
        count, _, seconds = _HEAD.unpack_from(self._memory)
        return count, seconds

    def read(self) -> dict:
        """The last note."""
        _, place, _ = _HEAD.unpack_from(self._memory)
        start = _HEAD.size + (place & 1) * NOTE
        try:
            content = json.loads(self._memory[start : start + NOTE].split(b"\0", 1)[0])
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


def run(work: Callable[[Board], dict], limit: float, total: float) -> Ending:
    """The outcome of `work(board)` in a forked child.

    Args:
        work: returns what can be written as JSON; it may note on the board what it is trying.
        limit: seconds (of a `sandbox.Clock`) that the time between two calls may take as well.
        total: seconds that all may take.

    Returns:
        How the child ended. It is gone, and so are the processes that it started. What `work`
        raised is the entry `fault` of the result: the name of the exception, and its message.

    Raises:
        NoProcess: there is none to be had.
    """
    sandbox.import_before_the_clock()
    board = Board(max(limit, BETWEEN))
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    reading, writing = os.pipe()
    try:
        child = _fork()
        if child == 0:
            _live(work, board, writing)
        os.close(writing)
        writing = -1
        leaves = False
        try:
            result, reason, detail = _watch(child, reading, board, total, interrupts)
            leaves = result is not None and result.pop("leaves", False)
        finally:
            _end(child, leaves)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
        signal.signal(signal.SIGINT, handler if handler is not None else signal.SIG_DFL)
    return Ending(result, board.read(), reason, detail)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside other threads. The child starts none and waits for
        # none of theirs.
        warnings.simplefilter("ignore")
        try:
            return os.fork()
        except OSError as error:
            raise NoProcess from error


# ------------------------------------------------------------------ the child


def _live(work, board, writing) -> None:
    """The whole life of the child. It does not return."""
    try:
        _cut_off()
        sandbox.on_call = lambda limit: board.restart(
            board.between if limit is None else limit + GRACE
        )
        try:
            result = work(board)
        except Exception as fault:
            result = {"fault": [type(fault).__name__, str(fault)[:1000]]}
        except BaseException as end:  # SystemExit, where an object was only looked at
            result = {"ended": type(end).__name__}
        leaves = not _has_children()
        text = json.dumps({**result, "leaves": leaves}).encode() + b"\n"
        while text:
            text = text[os.write(writing, text) :]
        while not leaves:  # the parent ends them first
            time.sleep(1)
    finally:
        os._exit(0)


def _has_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _cut_off() -> None:
    """Loosen what the child shares with the kernel that it is a copy of."""
    gc.freeze()  # the kernel's objects: neither collected here nor copied for that
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    # The threads of the parent are not here: a computation that waited for them would hang.
    torch.set_num_threads(1)
    _limit_other_libraries()
    faulthandler.disable()
    signal.set_wakeup_fd(-1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    libc = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends with the kernel
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what it started stays below it
    _limit_memory()
    silent = sandbox.Ear()
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = silent
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  for the rest of its life
    builtins.input = _no_input
    _silence_the_notebook()


def _no_input(prompt=""):
    raise EOFError("A check cannot ask for input.")


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):  # no /proc, or a limit that may not be set
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * mmap.PAGESIZE + MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_other_libraries() -> None:
    """One thread for the libraries with thread pools of their own, where they are in use."""
    if "sklearn" in sys.modules and (pools := sys.modules.get("threadpoolctl")) is not None:
        pools.threadpool_limits(1)


def _silence_the_notebook() -> None:
    """Display nothing and write nothing to the notebook.

    Its streams hold locks that a thread of the kernel may have held when this process was made, and
    its sockets lead to the reader's page.
    """
    if (streams := sys.modules.get("ipykernel.iostream")) is not None:
        streams.OutStream.write = lambda self, text: len(text)
        streams.OutStream.flush = lambda self: None
        streams.IOPubThread.send_multipart = lambda self, *args, **kwargs: None
        streams.IOPubThread.schedule = lambda self, function: None
    if (session := sys.modules.get("jupyter_client.session")) is not None:
        session.Session.send = lambda self, *args, **kwargs: None
    if (publishing := sys.modules.get("IPython.core.displaypub")) is not None:
        publishing.DisplayPublisher.publish = lambda self, *args, **kwargs: None


# ----------------------------------------------------------------- the parent


def _watch(child, reading, board, total, interrupts) -> tuple[dict | None, str, str]:
    """(result, reason, detail) of the `Ending`."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    begun, count, data = time.monotonic(), -1, b""
    while True:
        if poll.poll(20):
            chunk = os.read(reading, 2**16)
            data += chunk
            if data.endswith(b"\n"):
                return _received(data)
            if not chunk or len(data) > MOST:
                return None, "died", _how_it_died(child)
            continue
        if interrupts:
            return None, "interrupted", ""
        if _state(child) is not None:
            return None, "died", _how_it_died(child)
        now, used = time.monotonic(), _processor_time(child)
        newest, allowed = board.clock()
        if newest != count:
            count, since, used_before = newest, now, used
        if max(used - used_before, sandbox.WALL * (now - since)) > allowed:
            return None, "time", ""
        if max(used, sandbox.WALL * (now - begun)) > total:
            return None, "time", f"{total:g}"


def _received(data) -> tuple[dict | None, str, str]:
    try:
        result = json.loads(data)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        return None, "died", "what it sent could not be read"
    if "ended" in result:
        return None, "died", str(result["ended"])
    return result, "", ""


def _state(child):
    """How a process ended; None while it lives. It is not taken off the list of processes."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _processor_time(process: int) -> float:
    """Seconds of processor time that a process has used, those of its threads included."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _how_it_died(child) -> str:
    for _ in range(100):  # its pipe closes a little before it is gone
        if (state := _state(child)) is not None:
            break
        time.sleep(0.005)
    else:
        return "it closed the way to its result"
    if state.si_code == os.CLD_EXITED:
        return f"it left with status {state.si_status}"
    return signal.Signals(state.si_status).name


def _end(child: int, leaves: bool) -> None:
    """End the child and what it started, and take it off the list of processes.

    leaves: it started nothing that still lives, and is about to leave by itself.
    """
    for _ in range(2000 if leaves else 0):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)
    for _ in range(20):
        started = _started_by(child)
        for process in started:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not started:
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _started_by(child: int) -> list[int]:
    """The living processes below a process, and those of the session that it leads."""
    parents: dict[int, int] = {}
    started = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        process = int(path.parent.name)
        if fields[0] not in "ZX":
            parents[process] = int(fields[1])
            if int(fields[3]) == child:
                started.add(process)
    below = {child}
    while more := {p for p, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted((started | below) - {child})
