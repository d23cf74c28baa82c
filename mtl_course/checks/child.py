"""Run a check in a forked child: nothing that an answer does there reaches the learner's kernel.

As a `DataLoader` forks its workers, with one thread each. The child writes into shared memory what
it is about to try; so the parent can end it where it does not come back, and still say where.

A library that another thread is inside of at that moment is a copy of one in the middle of its
work: its locks are held by nobody who could let them go, in the child, and OpenBLAS can even keep
`fork` itself from returning. So there is no fork while another thread computes; and a child that
waits for such a lock all the same is told from one whose answer waits, and made anew.
"""

import atexit
import builtins
import contextlib
import ctypes
import faulthandler
import gc
import json
import mmap
import os
import platform
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
MOST, NOTE = 2**21, 2**16
# Beyond the limit of a call, for the child to stop it by itself; and between two calls at least.
GRACE, BETWEEN = 0.5, 3.0
# Seconds that other threads get to finish what they compute. Those that are idle already may look
# busy for a while: OpenBLAS lets them spin for 30 ms, Intel's OpenMP for 200.
REST = 1.0
# Seconds without any work after which a child is asked whether it still runs Python, and those that
# it gets to answer; and how many children are made before the check runs in the kernel.
STILL, ANSWER, CHILDREN = 1.5, 0.5, 3
# Its default is to be ignored, should there be nobody yet, or nobody any more, who answers.
PROBE = signal.SIGURG if hasattr(signal, "SIGURG") else None
# The flag of a process that is on its way out and runs nothing of its own any more.
_EXITING = 0x4
# Children that have sent their card and are on that way: to give back the memory of a copy of the
# kernel takes the system longer than most answers do, and nobody needs to wait for it.
_leaving: list[int] = []
# Waiting for a lock, as the system calls it.
_FUTEX = {"x86_64": "202", "aarch64": "98"}.get(platform.machine())
SWITCH = "MTL_COURSE_SANDBOX"
# How often the clock was started, the place of the last note, seconds from the last start on; and
# how many probes were answered.
_HEAD, _ANSWERS = struct.Struct("<qqd"), struct.Struct("<q")
_NOTES = _HEAD.size + _ANSWERS.size


@dataclass
class Ending:
    """How a child came to its end.

    result: what its work returned, where it came to that. note: what it was trying last. reason:
    why it did not end by itself: ``time``, ``died``, ``interrupted``, ``stuck``, or ``""``. detail:
    how it died.
    """

    result: dict | None
    note: dict
    reason: str = ""
    detail: str = ""


class NoProcess(Exception):  # noqa: N818  it is no fault of the check
    """There is no child to be had.

    The system gives no further process, another thread does not come to rest, or a library hangs in
    every child.
    """


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
        self._memory = mmap.mmap(-1, _NOTES + 2 * NOTE)
        self._count = self._place = self._answers = 0
        self.note({})

    def note(self, content: dict) -> None:
        """Write down what is tried next.

        What is too long is left out: the note before still says where the check is.
        """
        text = json.dumps(content).encode()
        if len(text) < NOTE:
            self._place = 1 - self._place
            start = _NOTES + self._place * NOTE
            self._memory[start : start + len(text) + 1] = text + b"\0"
        self.restart(self.between)

    def restart(self, seconds: float) -> None:
        """Let the clock begin again: from here on, this may take so many seconds."""
        self._count += 1
        _HEAD.pack_into(self._memory, 0, self._count, self._place, seconds)

    def answer(self) -> None:
        """Say that Python still runs here, whatever it waits for."""
        self._answers += 1
        _ANSWERS.pack_into(self._memory, _HEAD.size, self._answers)

    def answers(self) -> int:
        """How often that was said."""
        return _ANSWERS.unpack_from(self._memory, _HEAD.size)[0]

    def clock(self) -> tuple[int, float]:
        """How often the clock was started, and the seconds from the last start on."""
        count, _, seconds = _HEAD.unpack_from(self._memory)
        return count, seconds

    def read(self) -> dict:
        """The last note."""
        _, place, _ = _HEAD.unpack_from(self._memory)
        start = _NOTES + (place & 1) * NOTE
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
        How the child ended. It runs nothing any more, and the processes that it started are gone;
        `collect` takes it off the list of processes. What `work` raised is the entry `fault` of the
        result: the name of the exception, and its message.

    Raises:
        NoProcess: there is none to be had.
    """
    sandbox.import_before_the_clock()
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        for _ in range(CHILDREN):
            ending = _one(work, max(limit, BETWEEN), total, interrupts)
            if ending.reason != "stuck":
                return ending
    finally:
        signal.signal(signal.SIGINT, handler if handler is not None else signal.SIG_DFL)
    raise NoProcess


def _one(work, between, total, interrupts) -> Ending:
    """How one child came to its end. It runs nothing any more."""
    collect()
    board = Board(between)
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
    return Ending(result, board.read(), reason, detail)


def _fork() -> int:
    until = time.monotonic() + REST
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside other threads. The child starts none and waits for
        # none of theirs.
        warnings.simplefilter("ignore")
        while _others_compute():
            if time.monotonic() > until:
                raise NoProcess
            time.sleep(0.002)
        try:
            return os.fork()
        except OSError as error:
            raise NoProcess from error


def _others_compute() -> bool:
    """Whether another thread of this process is on a processor, or waits for one.

    Python's own lock is kept meanwhile: a thread that waits for it is in no library, and goes into
    none before the fork.
    """
    own = threading.get_native_id()
    tasks = [task for task in os.listdir("/proc/self/task") if int(task) != own]
    libc, text = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    for task in tasks:
        file = libc.open(f"/proc/self/task/{task}/stat".encode(), os.O_RDONLY | os.O_CLOEXEC)
        if file >= 0:
            size = libc.read(file, text, len(text))
            libc.close(file)
            if text.raw[: max(size, 0)].rpartition(b") ")[2][:1] in (b"R", b"D"):
                return True
    return False


# ------------------------------------------------------------------ the child


def _live(work, board, writing) -> None:
    """The whole life of the child. It does not return."""
    try:
        signal.signal(PROBE, lambda number, frame: board.answer())
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
    still = _Still(child, board)
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
        if still.is_stuck(now, (used, newest)):
            return None, "stuck", ""


class _Still:
    """Tells a child that waits for a lock which nobody holds from one that waits in Python.

    A child that does nothing for a while is asked, with a signal, whether it still runs Python: a
    `sleep`, a read and the locks of Python answer. A lock of a library does not.
    """

    def __init__(self, child: int, board: Board):
        self._child, self._board = child, board
        self._work, self._since = None, 0.0
        self._asked: float | None = None
        self._answers = 0

    def is_stuck(self, now: float, work) -> bool:
        """work: what changes as long as the child does anything."""
        if work != self._work:
            self._work, self._since, self._asked = work, now, None
        if self._asked is None and now - self._since > STILL and _waits_for_a_lock(self._child):
            self._asked, self._answers = now, self._board.answers()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, PROBE)
        return (
            self._asked is not None
            and now - self._asked > ANSWER
            and self._board.answers() == self._answers
            and _waits_for_a_lock(self._child)
        )


def _waits_for_a_lock(process: int) -> bool:
    """Whether its main thread does; False where that cannot be known."""
    try:
        return Path(f"/proc/{process}/syscall").read_text().split()[0] == _FUTEX
    except (OSError, IndexError):
        return False


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
    """End the child and what it started.

    leaves: it says that it started nothing that still lives, and is about to leave by itself. As
        soon as the system has it on its way out, the rest of that way is left to `collect`.
    """
    for _ in range(2000 if leaves else 0):
        if _is_collected(child):
            return
        if _is_exiting(child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # its threads too, whichever of them is leaving
            _leaving.append(child)
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
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


@atexit.register
def collect() -> None:
    """Take the children that have left off the list of processes; at most one is ever on it."""
    while _leaving:
        with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
            os.waitpid(_leaving.pop(), 0)


def _is_collected(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _is_exiting(process: int) -> bool:
    """Whether it runs nothing of its own any more; False where that cannot be known."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _EXITING)
    except (OSError, ValueError, IndexError):
        return False


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
