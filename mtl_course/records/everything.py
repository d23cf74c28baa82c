"""Make every record that is missing or older than its code, most valuable first.

Each chapter runs in a process of its own, so that one which fails or runs out of memory stops no
other. At the end of the budget the running one is stopped; the pieces that it finished are kept,
and the same command goes on from there.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import chapters, records
from . import pieces, sources

# First what the book would gain most by; then the other chapters in their order.
ORDER = ("03", "12", "08", "18", "06", "13", "19")
START = 10  # seconds that it takes to start a process and to import torch: no less is worth it


@dataclass
class Job:
    """A record to be made.

    Args:
        chapter: its number.
        profile: ``"cpu"``, ``"gpu"``, or the name of a part.
        seeds: how many; never fewer than the record that is there has.
        seconds: how long it should take, from the last record; None where none tells.
        current: the record that is there has these seeds and comes from this code.
        first: the first of the seeds; that of the last record, which may go on from another's.
    """

    chapter: str
    profile: str
    seeds: int
    seconds: float | None
    current: bool
    first: int = 0

    def __str__(self):
        return f"{self.chapter} {self.profile}"


def jobs(profile: str, seeds: int, folder: Path) -> list[Job]:
    """All records of a profile, in the order in which they are worth making.

    Args:
        profile: ``"cpu"`` or ``"gpu"``. The parts that chapters have beside their profiles were
            made for the CPU and come with it.
        seeds: how many a record should have.
        folder: where the records lie.

    Returns:
        One job per record, whether it must be made or not.
    """
    rest = [number for number in chapters.CHAPTERS if number not in ORDER]
    first = [number for number in ORDER if number in chapters.CHAPTERS]
    listed = []
    for number in [*first, *rest]:
        module = sources.experiment(number)
        if sources.exists(module):
            code = sources.fingerprint(module)
            names = [profile, *(sources.parts(module) if profile == "cpu" else [])]
            listed += [_job(number, name, seeds, folder, code) for name in names]
    return listed


def _job(chapter: str, profile: str, seeds: int, folder: Path, code: str) -> Job:
    """A record, with what the last one and the pieces of the last try tell about it."""
    there = records.load(chapter, profile, folder)
    last = there or records.load(chapter, profile)
    have = len(there.provenance["seeds"]) if there else 0
    seeds = max(seeds, have)
    seconds = None
    if last and last.provenance.get("seconds"):
        took, cpu = last.provenance["seconds"], last.provenance.get("cpu_minutes")
        # on a busy machine the clock counts the waiting, too
        took = min(took, 60 * cpu) if cpu and last.provenance["device"].startswith("CPU") else took
        each = took / len(last.provenance["seeds"])
        done, _ = pieces.spent(pieces.place(folder, chapter, profile, code))
        seconds = max(0.0, seeds * each - done)
    current = there is not None and there.provenance.get("code") == code and have >= seeds
    first = last.provenance["seeds"][0] if last else 0
    return Job(chapter, profile, seeds, seconds, current, first)


def make(profile: str, seeds: int, folder: Path, options) -> int:
    """Make the records that fit, and say how long each took and what did not fit.

    Args:
        profile: ``"cpu"`` or ``"gpu"``.
        seeds: how many a record should have.
        folder: where the records go.
        options: of the command line: `budget` (seconds or None), `force`, `replace`.

    Returns:
        0, or 1 where an experiment failed.
    """
    end = time.monotonic() + options.budget if options.budget else float("inf")
    outcomes = {}
    try:
        for job in jobs(profile, seeds, folder):
            left = end - time.monotonic()
            if job.current:
                outcomes[str(job)] = "is as new as its code"
            elif left < START or (job.seconds or 0) > left:
                about = f"about {job.seconds:.0f} s" if job.seconds else "never timed"
                outcomes[str(job)] = f"did not fit ({about}; {max(left, 0):.0f} s were left)"
            else:
                print(f"== {job}: {job.seeds} seeds", flush=True)
                outcomes[str(job)] = _run(job, profile, folder, options, left)
    finally:
        print("\n".join(["", *(f"{name:12} {outcome}" for name, outcome in outcomes.items())]))
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def _run(job: Job, profile: str, folder: Path, options, left: float) -> str:
    """Run a job in a process of its own; what came of it, in words."""
    command = [sys.executable, "-m", "mtl_course.record", job.chapter, "--profile", profile]
    span = f"{job.first}:{job.first + job.seeds}" if job.first else str(job.seeds)
    command += ["--seeds", span]
    command += ["--part", job.profile] if job.profile != profile else []
    if folder != records.FOLDER.resolve():  # the record names its command: no path of one machine
        command += ["--out", str(folder)]
    command += [f"--{flag}" for flag in ("force", "replace") if getattr(options, flag)]
    start = time.monotonic()
    process = subprocess.Popen(command)
    with _ending(process):
        try:
            status = process.wait(None if left == float("inf") else left)
        except subprocess.TimeoutExpired:
            return f"stopped at the end of the budget after {left:.0f} s; finished pieces are kept"
    took = f"{time.monotonic() - start:.0f} s"
    return f"made in {took}" if status == 0 else f"failed after {took} (see above)"


@contextmanager
def _ending(process: subprocess.Popen) -> Iterator[None]:
    """End a process with the block, also where this one is asked to stop."""

    def stop(*_):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if process.poll() is None:
            process.kill()  # pieces are written aside and renamed: none can be half there
            process.wait()
