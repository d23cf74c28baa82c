"""Grade a submitted notebook: the door to `grading`.

``python -P -m mtl_course.grade SUBMISSION.ipynb results.json [--rounds 10] [--only NAME ...]``

Writes a results file as Gradescope reads it. Each exercise runs in a process of its own, with
limits; nothing of the submission runs in this one. The page "How to teach with this book" says what
remains possible.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the working directory first on the path, and the submission may lie in it.
    del sys.path[0]

import os

if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same rows on every machine

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

from .checks.exercise import REGISTRY
from .checks.report import Result
from .checks.rows import Row
from .grading import guard, submission
from .grading.judge import Settings, judge, judged_here


def grade(
    path: str | Path,
    only: list[str] | None = None,
    rounds: int = 10,
    seed: int | None = None,
    seconds: float = 60,
    total: float = 900,
) -> dict:
    """Check the answers in the notebook at `path`.

    Of the notebook the grader takes the source of the exercises' cells, of the cells with nothing
    but imports, functions and classes, and the imports of the others.

    Args:
        path: of the notebook.
        only: the exercises that count; by default all of every chapter that the notebook has an
            exercise of, so that a deleted cell earns nothing.
        rounds: draws from each generator of inputs, as in `check`.
        seed: of the draws; by default new ones.
        seconds: that one exercise may take, the start of its process aside.
        total: seconds that the whole run may take; what is not begun by then earns nothing, and
            the entry for the teacher names it.

    Returns:
        The content of a Gradescope results file.

    Raises:
        ValueError: the file is no notebook or has no exercise, `only` has an unknown name, or a
            number makes no sense.
    """
    if rounds < 1 or not all(0 < t < math.inf for t in (seconds, total)):
        raise ValueError("rounds, seconds and total must be positive.")
    sources = submission.read(path)
    pieces = submission.pieces(sources)
    names = _exercises(pieces, only)
    settings = Settings(rounds, seed, seconds, Path(path).resolve().parent)
    end = time.monotonic() + total
    results, late = [], []
    for name in names:
        left = end - time.monotonic()
        if left > 0:
            results.append(judge(name, pieces, replace(settings, seconds=min(seconds, left))))
        else:
            late.append(name)
            told = f"The whole run was over after {total:g} s, before this was checked."
            rows = [Row("runs on fresh random inputs", False, told)]
            results.append(Result(REGISTRY[name], "timeout", rows, 0.0, None, 0))
    tests = [_entry(result) for result in results]
    remarks = []
    if unusual := submission.suspicious(pieces):
        remarks.append(f"names that an answer does not need: {', '.join(unusual)}")
    if late:
        remarks.append(f"no time was left for {', '.join(late)}")
    if remarks:
        told = {"name": "for the teacher", "visibility": "hidden", "output": "; ".join(remarks)}
        tests.append({**told, "score": 0, "max_score": 0, "output_format": "text"})
    return {
        "score": round(sum(test["score"] for test in tests), 2),
        "tests": tests,
        "stdout_visibility": "hidden",
    }


def _exercises(pieces: list[submission.Piece], only: list[str] | None) -> list[str]:
    from . import exercises  # noqa: F401  registers them

    if only:
        if unknown := [name for name in only if name not in REGISTRY]:
            raise ValueError(f"There is no exercise {', '.join(unknown)}.")
        return list(dict.fromkeys(only))
    there = {piece.exercise for piece in pieces if piece.exercise in REGISTRY}
    if not there:
        raise ValueError(
            "The notebook has no exercise of the course (a cell that begins with `# EXERCISE"
            " name`)."
        )
    chapters = {REGISTRY[name].chapter for name in there}
    return [name for name, exercise in REGISTRY.items() if exercise.chapter in chapters]


def _entry(result: Result) -> dict:
    worth = result.exercise.points
    score = result.score if math.isfinite(result.score) else 0.0
    return {
        "name": result.exercise.name,
        "score": round(min(max(score, 0.0), worth), 2),
        "max_score": worth,
        "status": "passed" if result.state == "solved" else "failed",
        "output": result._repr_html_(),
        "output_format": "html",
        "visibility": "visible",
    }


def main(arguments: list[str] | None = None) -> int:
    """Grade as the command line asks; 2 where nothing could be graded, and no file is written."""
    parser = argparse.ArgumentParser(
        prog="python -P -m mtl_course.grade", description="Grade a submitted notebook."
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument(
        "results", type=Path, help="where to write the results, such as results.json"
    )
    parser.add_argument(
        "--rounds", type=int, default=10, help="draws of inputs for each check (default: 10)"
    )
    parser.add_argument("--seed", type=int, help="check on the same inputs every time")
    parser.add_argument(
        "--seconds", type=float, default=60, help="that one exercise may take (default: 60)"
    )
    parser.add_argument(
        "--total", type=float, default=900, help="seconds for the whole run (default: 900)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="the exercises that count (default: all of the chapter)",
    )
    options = parser.parse_args(arguments)
    try:
        results = grade(
            options.notebook,
            options.only,
            options.rounds,
            options.seed,
            options.seconds,
            options.total,
        )
        _write(results, options.results)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    graded = [test for test in results["tests"] if test["max_score"]]
    here = sum(judged_here(REGISTRY[test["name"]]) for test in graded)
    most = sum(test["max_score"] for test in graded)
    print(
        f"{options.notebook.name}: {results['score']:g} of {most:g} points, written to"
        f" {options.results}; {here} of {len(graded)} exercises judged outside of their process"
    )
    if sys.platform == "win32":
        print("On Windows only the time of an exercise is limited, not its memory.")
    return 0


def _write(results: dict, path: Path) -> None:
    """Write the file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


if __name__ == "__main__":
    guard.adopt_orphans()
    sys.exit(main())
