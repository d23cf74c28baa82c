"""The first thing that a fresh process does: it takes the channel and sets a guard behind itself.

Without torch, since the guard is a copy of the process that stays behind while the other goes on.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

# Of prctl: orphans below become children; a signal when the parent ends.
SUBREAPER, WITH_PARENT = 36, 1


def main() -> None:
    """Take the channel from the standard streams, set the guard, and answer what is asked."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if sys.platform == "linux":
        _stand_guard([source, sink])
    from .pupil import serve

    serve(source, sink)
    os._exit(0)  # no handler that the learner's code has set runs at the end


_adopting = False


def adopt_orphans() -> None:
    """Make this process the parent of what outlives its guard, for `end_orphans`; on Linux only."""
    global _adopting
    if sys.platform == "linux":
        _adopting = ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) == 0


def end_orphans() -> None:
    """End every child of this process, if it has said that they are all orphans."""
    if _adopting:
        _end_children()


def _stand_guard(files) -> None:
    """Fork, and stay behind as the guard of the process that goes on.

    When it ends, or when the guard is told to, the guard ends every process that came out of it:
    one that made itself independent becomes the guard's own child.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        libc.prctl(WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        return
    for file in files:
        file.close()

    def stop(*_):
        raise SystemExit

    try:
        signal.signal(signal.SIGTERM, stop)
        while os.waitpid(-1, 0)[0] != child:
            pass
    except (SystemExit, ChildProcessError):
        pass
    finally:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _end_children()
        os._exit(0)


def _end_children() -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for child in _children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _children() -> list[int]:
    """Processes whose parent is this one."""
    me, children = os.getpid(), []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{entry}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == me:
                children.append(int(entry))
    return children
