"""How long a learner waits for a check.

``python benchmarks/check_latency.py [--repeat 20] [--right] [--beside-kernel] [--out FILE.json]``

Two figures per exercise, each the median over fresh seeds after one check to warm up: a right
answer (every row is tried), and the last of the known mistakes (which is compared with all of
them). Wall time until the card is there, and the processor's, which other programs disturb less;
that of the process which a check has to itself is in it, its end included, for which nobody waits.
MTL_COURSE_SANDBOX=kernel measures checks without one; --beside-kernel measures both in turn, check
by check, so that what else the machine does meets both alike. --right leaves out the mistakes.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mtl_course.checks import check, child
from mtl_course.runtime import environment

resource = None
with contextlib.suppress(ImportError):  # Windows has none
    import resource


def processor_time() -> float:
    """Seconds that this process and those that it has ended have used."""
    if resource is None:
        return time.process_time()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def median_ms(name: str, answer, repeat: int, ways: tuple[str, ...]) -> list[float]:
    """(wall, processor) milliseconds of one check, for each way in turn."""
    seen: dict = {way: ([], []) for way in ways}
    for seed in range(repeat + 1):
        for way, (wall, processor) in seen.items():
            os.environ["MTL_COURSE_SANDBOX"] = way
            started, used = time.perf_counter(), processor_time()
            check(name, answer, seed=seed)
            if seed:  # the first one warms up
                wall.append(1e3 * (time.perf_counter() - started))
            child.collect()
            if seed:
                processor.append(1e3 * (processor_time() - used))
    return [round(statistics.median(times), 2) for both in seen.values() for times in both]


def line(name: str, row: dict) -> str:
    return " ".join([f"{name:28}", *(f"{ms:20.1f}" for ms in row.values())])


def answer_from(exercise):
    """The reference as a learner would have written it.

    The course's own object does not count as an answer.
    """
    scope = dict(vars(sys.modules[exercise.reference.__module__]))
    exec(compile(exercise.solution, "<answer>", "exec"), scope)
    return scope[exercise.name]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeat", type=int, default=20, help="checks to take the median of (default: 20)"
    )
    parser.add_argument("--right", action="store_true", help="right answers only")
    parser.add_argument("--beside-kernel", action="store_true", help="checks in the kernel too")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    started = time.perf_counter()
    from mtl_course import exercises  # noqa: F401  registers them
    from mtl_course.checks.exercise import REGISTRY

    ways = (os.environ.get(child.SWITCH) or "child",)
    if options.beside_kernel:
        ways = ("child", "kernel")
    answers = ("right",) if options.right else ("right", "wrong")
    heads = [(answer, way, unit) for answer in answers for way in ways for unit in ("wall", "cpu")]
    columns = ["_".join([*(head if len(ways) > 1 else head[::2]), "ms"]) for head in heads]
    rows = {}
    print(" " * 28, *(f"{column:>20}" for column in columns), f"  (median of {options.repeat})")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MTL_COURSE_HOME=folder, MTL_COURSE_CHECKS="learn")
        for name, exercise in REGISTRY.items():
            answer = answer_from(exercise)
            if not rows:
                check(name, answer)
                first = round(time.perf_counter() - started, 2)
            given = (answer, exercise.mistakes[-1][0])[: len(answers)]
            times = [ms for a in given for ms in median_ms(name, a, options.repeat, ways)]
            rows[name] = dict(zip(columns, times, strict=True))
            print(line(name, rows[name]), flush=True)
    middle = {
        key: round(statistics.median(row[key] for row in rows.values()), 2)
        for key in next(iter(rows.values()))
    }
    print(line("median", middle))
    print(f"first check, exercises' import included: {first} s")
    if hasattr(os, "getloadavg"):
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if options.out:
        settings = {"environment": environment(), "repeat": options.repeat}
        report = settings | {"first_check_s": first, "median": middle, "exercises": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
