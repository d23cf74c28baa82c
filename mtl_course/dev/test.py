"""Run every test: lints, package and book, learner notebooks, their solved editions.

At the end stand the ten slowest tests. ``--fast`` is for work: it leaves out the notebooks, the
browser, the Colab twin and what is marked slow. Whatever follows the options goes to pytest:
``python -m mtl_course.dev test --fast -- -k claims``.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

from . import execute, sample
from .notebooks import ROOT

CELL_TIMEOUT = 300  # seconds; a chapter's slowest cell takes some ten on two cores
PYTEST = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope"]
NBVAL = [
    "--nbval-lax",
    "--nbval-current-env",
    "--nbval-cell-timeout",
    str(CELL_TIMEOUT),
    "--nbval-kernel-startup-timeout",
    "120",
]
NO_TESTS = 5  # pytest's exit code
SLOWEST = 10  # tests that the summary names
FAST = ["-m", "not slow and not browser and not colab"]
RUFF = {
    "ruff check": ["check", "--quiet", "."],
    "ruff format": ["format", "--check", "--quiet", "."],
}


@dataclass
class Outcome:
    """What a part of the run gave.

    Counts of tests, seconds, why it failed where no test says so, and (seconds, name) of each test.
    """

    part: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    problem: str = ""
    times: list[tuple[float, str]] = field(default_factory=list)

    def __str__(self):
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        problem = f"  {self.problem}" if self.problem else ""
        return f"{self.part:18} {counts:40} {self.seconds:6.0f} s{problem}"


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests in a JUnit report.

    An error while setting up or collecting is a failure.
    """
    passed = failed = skipped = 0
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed += 1
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def times(report: Path) -> list[tuple[float, str]]:
    """Seconds and name of each test in a JUnit report, with its fixtures."""
    cases = ET.parse(report).iter("testcase")
    return [
        (float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}")
        for case in cases
    ]


def environment(home: Path, checks: str | None) -> dict[str, str]:
    """Environment of a part: as `execute` has it, with one thread per process.

    `checks` is the mode in which notebooks run; None, for the package's own tests, sets no mode.
    """
    env = {**execute.environment(str(home), checks or "learn"), "OMP_NUM_THREADS": "1"}
    if checks is None:
        for name in ("MPLBACKEND", "MTL_COURSE_CHECKS", "MTL_COURSE_PHONE", "MTL_COURSE_STRICT"):
            del env[name]
        if "MTL_COURSE_DATA" in os.environ:
            env["MTL_COURSE_DATA"] = os.environ["MTL_COURSE_DATA"]
    return env


def pytest_part(
    part: str,
    folder: Path,
    arguments: list[str],
    checks: str | None = None,
    may_be_empty: bool = False,
) -> Outcome:
    """Run pytest in its own process; `checks` is the mode of notebooks, as for `environment`."""
    report = folder / f"{part.split()[0]}.xml"
    code = subprocess.call(
        [*PYTEST, f"--junitxml={report}", *arguments],
        cwd=ROOT,
        env=environment(folder / "home", checks),
    )
    if code == NO_TESTS and may_be_empty:
        return Outcome(part)
    if not report.exists():
        return Outcome(part, failed=1, problem=f"pytest could not run (exit code {code})")
    outcome = Outcome(part, *counts(report), times=times(report))
    if code == NO_TESTS:
        outcome.problem = "no test ran"
    elif code and not outcome.failed:
        outcome.problem = f"pytest ended with exit code {code}"
    if outcome.problem:
        outcome.failed += 1
    return outcome


def command_part(part: str, folder: Path, *arguments: str) -> Outcome:
    """Run one of the developer tools in its own process: one test, passed or failed."""
    code = subprocess.call(
        [sys.executable, "-m", "mtl_course.dev", *arguments],
        cwd=ROOT,
        env=environment(folder / "home", None),
    )
    return Outcome(
        part, passed=int(code == 0), failed=int(code != 0), problem="see above" if code else ""
    )


def main(arguments: list[str]) -> int:
    """Run the parts one after another, sum up, and name the slowest tests."""
    parts = {"lints": _lints, "package": _package, "learner": _learner, "solved": _solved}
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev test", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--only", choices=parts, action="append", help="run this part alone (may be given again)"
    )
    parser.add_argument(
        "--fast", action="store_true", help="only lints, and tests that are neither slow nor apart"
    )
    options, extra = parser.parse_known_args(arguments)
    extra = [argument for argument in extra if argument != "--"]
    chosen = options.only or list(parts)
    if options.fast:
        chosen = [name for name in chosen if name in ("lints", "package")]
        extra = [*FAST, *extra]
    outcomes = []
    with tempfile.TemporaryDirectory(
        prefix="mtl_course_test_", ignore_cleanup_errors=True
    ) as folder:
        for name in chosen:
            print(f"\n=== {name} ===", flush=True)
            start = time.perf_counter()
            outcome = parts[name](Path(folder), extra)
            outcome.seconds = time.perf_counter() - start
            outcomes.append(outcome)
    slowest = sorted((row for outcome in outcomes for row in outcome.times), reverse=True)
    if slowest:
        print("\n=== slowest ===")
        print(*[f"{seconds:6.1f} s  {test}" for seconds, test in slowest[:SLOWEST]], sep="\n")
    print("\n=== summary ===", *outcomes, sep="\n")
    totals = [
        sum(getattr(outcome, kind) for outcome in outcomes)
        for kind in ("passed", "failed", "skipped")
    ]
    print("{} passed, {} failed, {} skipped".format(*totals), flush=True)
    return int(totals[1] > 0 or totals[0] == 0)


def _package(folder: Path, extra: list[str]) -> Outcome:
    if "-m" not in extra:
        print(*sample.this_run(), sep="\n", flush=True)
    return pytest_part("package and book", folder, [*extra, "tests"], may_be_empty=bool(extra))


def _learner(folder: Path, extra: list[str]) -> Outcome:
    arguments = [*NBVAL, *extra, "notebooks"]
    return pytest_part("learner notebooks", folder, arguments, "blank", may_be_empty=bool(extra))


def _solved(folder: Path, extra: list[str]) -> Outcome:
    editions = folder / "solved"
    made = command_part("solved editions", folder, "solve", "--all", "--out", str(editions))
    if made.failed:
        return made
    # The project's pytest settings hold for notebooks outside its folder only if the file is named.
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(editions)]
    arguments = [*settings, *NBVAL, *extra, str(editions)]
    return pytest_part("solved editions", folder, arguments, "strict", may_be_empty=bool(extra))


def _lints(folder: Path, extra: list[str]) -> Outcome:
    """Ruff over the whole repository, then `check` over the notebooks: three tests."""
    outcome = command_part("lints", folder, "check")
    failures = [name for name, arguments in RUFF.items() if _ruff(name, arguments)]
    outcome.passed += len(RUFF) - len(failures)
    outcome.failed += len(failures)
    outcome.problem = ", ".join([*(["notebooks: see above"] if outcome.problem else []), *failures])
    return outcome


def _ruff(name: str, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "ruff", *arguments]
    code = subprocess.call(command, cwd=ROOT)
    print(f"{name}: {'no problem found' if code == 0 else f'run {shlex.join(command[1:])}'}")
    return code
