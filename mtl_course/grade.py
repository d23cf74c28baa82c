"""Grade a submitted notebook.

``python -m mtl_course.grade SUBMISSION.ipynb results.json [--rounds 10] [--only NAME ...]``

Writes a results file as Gradescope reads it. The submission's code is run: do that in a container,
as autograders do, and look at the entry "for the teacher", which names what an honest answer does
not need.
"""

import argparse
import ast
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from .checks.exercise import REGISTRY

INSTALL = (
    'Grading needs nbclient, nbformat and ipykernel: pip install "nbclient" "nbformat" "ipykernel"'
)
MARKER = re.compile(r"^# EXERCISE (\w+)", re.M)
# Reaching for these means looking for the answer, or for the checker, instead of writing one.
UNUSUAL = {
    "REGISTRY",
    "exercises",
    "checks",
    "grade",
    "reference",
    "_judge",
    "examine",
    "share",
    "Result",
}
PROBE = """
def _grade():
    import json
    from mtl_course.checks import check
    results = {{}}
    for name in {names!r}:
        result = check(name, seed={seed!r}, rounds={rounds!r})
        shown = result._repr_html_()
        results[name] = {{"state": result.state, "score": result.score, "html": shown}}
    with open({path!r}, "w", encoding="utf-8") as file:
        json.dump(results, file)
_grade()
"""


def grade(
    path: str | Path,
    only: list[str] | None = None,
    rounds: int = 10,
    seed: int | None = None,
    cell_timeout: int = 300,
) -> dict:
    """Run the notebook at `path` and check its answers.

    Args:
        path: of the notebook.
        only: the exercises that count; by default all of every chapter that the notebook has an
            exercise of, so that a deleted cell earns nothing.
        rounds: draws from each generator of inputs, as in `check`.
        seed: of the draws; by default new ones.
        cell_timeout: seconds that one cell may run; its errors do not stop the run.

    Returns:
        The content of a Gradescope results file.

    Raises:
        ValueError: the file is no notebook or has no exercise, or `only` has an unknown name.
        ImportError: nbclient or nbformat is missing; the message says what to install.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError as missing:
        raise ImportError(INSTALL) from missing
    try:
        notebook = nbformat.read(path, 4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a notebook: {type(error).__name__}: {error}"[:300]
        ) from error
    names = _exercises(cells, only)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        probe = PROBE.format(names=names, seed=seed, rounds=rounds, path=str(report))
        notebook.cells.append(nbformat.v4.new_code_cell(probe))
        client = NotebookClient(
            notebook,
            timeout=cell_timeout,
            interrupt_on_timeout=True,
            allow_errors=True,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        stopped = None
        env = {**os.environ, "MTL_COURSE_HOME": folder, "MTL_COURSE_CHECKS": "learn"}
        try:
            client.execute(env=env)
        except Exception as error:  # the kernel died, or could not be interrupted
            stopped = f"{type(error).__name__}: {error}"[:500]
        results = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    tests = [_entry(name, results.get(name)) for name in names]
    remarks = []
    if unusual := suspicious(cells):
        remarks.append(f"names that an answer does not need: {', '.join(unusual)}")
    if stopped:
        remarks.append(f"the run stopped: {stopped}")
    if remarks:
        told = {"name": "for the teacher", "visibility": "hidden", "output": "; ".join(remarks)}
        tests.append(told)
    return {
        "score": round(sum(test.get("score", 0) for test in tests), 2),
        "tests": tests,
        "stdout_visibility": "hidden",
    }


def _exercises(cells, only: list[str] | None) -> list[str]:
    from . import exercises  # noqa: F401  registers them

    if only:
        if unknown := [name for name in only if name not in REGISTRY]:
            raise ValueError(f"There is no exercise {', '.join(unknown)}.")
        return only
    there = {name for cell in cells for name in MARKER.findall(cell.source) if name in REGISTRY}
    if not there:
        raise ValueError(
            "The notebook has no exercise of the course (a cell that begins with `# EXERCISE"
            " name`)."
        )
    chapters = {REGISTRY[name].chapter for name in there}
    return [name for name, exercise in REGISTRY.items() if exercise.chapter in chapters]


def _entry(name: str, result: dict | None) -> dict:
    return {
        "name": name,
        "score": round(result["score"], 2) if result else 0,
        "max_score": REGISTRY[name].points,
        "status": "passed" if result and result["state"] == "solved" else "failed",
        "output": (
            result["html"]
            if result
            else "<p>The notebook stopped before this could be checked.</p>"
        ),
        "output_format": "html",
        "visibility": "visible",
    }


def suspicious(cells) -> list[str]:
    """Names in the submission's code that an honest answer does not need."""
    used: set[str] = set()
    for cell in cells:
        try:
            tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                used |= {part for alias in node.names for part in alias.name.split(".")}
                used |= set((getattr(node, "module", None) or "").split("."))
    return sorted(used & UNUSUAL)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.grade", description="Grade a submitted notebook."
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
        "--only",
        nargs="+",
        metavar="NAME",
        help="the exercises that count (default: all of the chapter)",
    )
    options = parser.parse_args(arguments)
    try:
        results = grade(options.notebook, options.only, options.rounds, options.seed)
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return 2
    except ValueError as error:  # the student sees why
        results = {"score": 0, "output": str(error), "tests": []}
    options.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    most = sum(test.get("max_score", 0) for test in results["tests"])
    print(
        f"{options.notebook.name}: {results['score']:g} of {most:g} points, written to"
        f" {options.results}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
