"""A fresh process for one exercise: started apart from everything, asked, and ended whole."""

import contextlib
import math
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import guard, wire

ROOT = Path(__file__).resolve().parents[2]  # where the package lies
STARTING = 120  # seconds for importing torch on a busy machine
# What a process needs of the environment to compute, and nothing that may be a secret.
PASSED = ("PATH", "LANG", "LC_", "TZ", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_")
PASSED += ("OPENBLAS_", "MKL_", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS")


class ProcessEnded(Exception):  # noqa: N818  it is what the card says
    """The process of an answer ended, or said what is no reply."""


class TimeIsOver(Exception):  # noqa: N818  as above
    """The time of an exercise is over."""


class Process:
    """A Python of its own that runs the learner's code of one exercise.

    It has an empty home and working directory, no path of the submission's, no secret of the
    environment, and on POSIX a session of its own.
    """

    def __init__(self, seconds: float, closed_to: Path | None = None):
        """Start it.

        seconds: that it may take, from its first message on. closed_to: a folder that does not come
        onto its path.
        """
        self.end_at = time.monotonic() + STARTING
        self.seconds = seconds
        self.folder = tempfile.mkdtemp()
        self._token = secrets.token_hex(16)
        paths = [p for p in sys.path if p and Path(p).is_dir() and _differs(p, closed_to)]
        boot = (
            f"import sys; sys.path += [p for p in {[*paths, str(ROOT)]!r} if p not in sys.path];"
            " from mtl_course.grading.guard import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", "-c", boot],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=self._environment(),
            start_new_session=True,
        )
        self._replies: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _environment(self) -> dict:
        kept = {k: v for k, v in os.environ.items() if k.upper().startswith(PASSED)}
        homes = ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "MTL_COURSE_HOME")
        return kept | {
            **dict.fromkeys(homes, self.folder),
            "CUDA_VISIBLE_DEVICES": "",
            "GRADER_TOKEN": self._token,
            "OMP_NUM_THREADS": "1",
        }

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._process.stdout as replies:
            while (reply := wire.receive(replies)) is not None:
                self._replies.put(reply)
        self._replies.put(None)

    def begin(self, task: dict) -> None:
        """Send the task; from the reply on the time of the exercise runs."""
        self.ask(task)
        self.end_at = time.monotonic() + self.seconds

    def ask(self, message: dict, seconds: float = math.inf) -> dict:
        """The reply to a message, within `seconds` and the time of the exercise.

        Raises:
            TimeIsOver: there was none in time.
            ProcessEnded: the process is no more, or what it said is no reply.
        """
        message = {"id": secrets.token_hex(16)} | message
        wait = max(0.0, min(self.end_at - time.monotonic(), seconds))
        # A process that does not read any more would hold the sender for ever.
        watch = threading.Timer(wait + 1, self._stop)
        watch.daemon = True
        watch.start()
        try:
            wire.send(self._process.stdin, message)
            reply = self._replies.get(timeout=wait)
        except queue.Empty:
            self.end()
            raise TimeIsOver("the time of this exercise is over") from None
        except (OSError, ValueError):
            reply = None
        finally:
            watch.cancel()
        if reply is None or reply.get("id") != message["id"]:
            self.end()
            raise ProcessEnded("the process of this answer ended before its reply")
        return reply

    def end(self) -> None:
        """End the process and every one that came out of it; remove its folder."""
        process = self._process
        if process.poll() is None:
            process.terminate()  # the guard ends all that it has, then itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(6)
        self._stop()
        process.wait()
        guard.end_orphans()
        for pid in _with_token(self._token):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self) -> None:
        """End at once what is in the process's session."""
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()


def _differs(path: str, other: Path | None) -> bool:
    return other is None or Path(path).resolve() != other.resolve()


def _with_token(token: str) -> list[int]:
    """Processes that have the token in their environment, and so came out of ours."""
    marked, wanted = [], f"GRADER_TOKEN={token}".encode()
    with contextlib.suppress(OSError):
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    marked.append(int(entry))
    return marked
