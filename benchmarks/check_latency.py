"""How long a learner waits for a check.

``python benchmarks/check_latency.py [--repeat 20] [--out latency.json]``

Two figures per exercise, each the median over fresh seeds after one check to warm up: a right
answer (every row is tried), and the last of the known mistakes (which is compared with all of
them). Wall time, and the processor's, which other programs disturb less; that of the process which
a check has to itself is in it. MTL_COURSE_SANDBOX=kernel measures checks without one.
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

from mtl_course.checks import check
from mtl_course.runtime import environment

resource = None
with contextlib.suppress(ImportError):  # Windows has none
    import resource

COLUMNS = ("right_wall_ms", "right_cpu_ms", "wrong_wall_ms", "wrong_cpu_ms")
LINE = "{:28} {:12.1f} {:8.1f} {:12.1f} {:8.1f}"


def processor_time() -> float:
    """Seconds that this process and those that it has ended have used."""
    if resource is None:
        return time.process_time()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def median_ms(name: str, answer, repeat: int) -> tuple[float, float]:
    """(wall, processor) milliseconds of one check."""
    check(name, answer, seed=0)
    wall, processor = [], []
    for seed in range(1, repeat + 1):
        started, used = time.perf_counter(), processor_time()
        check(name, answer, seed=seed)
        wall.append(1e3 * (time.perf_counter() - started))
        processor.append(1e3 * (processor_time() - used))
    return round(statistics.median(wall), 2), round(statistics.median(processor), 2)


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
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    started = time.perf_counter()
    from mtl_course import exercises  # noqa: F401  registers them
    from mtl_course.checks.exercise import REGISTRY

    rows = {}
    print(
        f"{'exercise':28} {'right: wall':>12} {'cpu':>8} {'wrong: wall':>12} {'cpu':>8}   (ms,"
        f" median of {options.repeat})"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MTL_COURSE_HOME=folder, MTL_COURSE_CHECKS="learn")
        for name, exercise in REGISTRY.items():
            answer = answer_from(exercise)
            if not rows:
                check(name, answer)
                first = round(time.perf_counter() - started, 2)
            right, wrong = (
                median_ms(name, a, options.repeat) for a in (answer, exercise.mistakes[-1][0])
            )
            rows[name] = dict(zip(COLUMNS, right + wrong, strict=True))
            print(LINE.format(name, *rows[name].values()))
    middle = {
        key: round(statistics.median(row[key] for row in rows.values()), 2)
        for key in next(iter(rows.values()))
    }
    print(LINE.format("median", *middle.values()))
    print(f"first check, exercises' import included: {first} s")
    if hasattr(os, "getloadavg"):
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if options.out:
        settings = {"environment": environment(), "repeat": options.repeat}
        report = settings | {"first_check_s": first, "median": middle, "exercises": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
