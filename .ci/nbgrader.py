"""nbgrader itself grades a right, a wrong, a blank and a cheating submission of the export.

Run by .ci/run with the environment's own Python. nbgrader lies in an environment beside it, in
build/, so that its many requirements meet nothing of the course's. Its notebooks run in a kernel of
the course's environment.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import nbformat

from mtl_course.checks.exercise import BLANK
from mtl_course.dev import notebooks, sync

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "build" / "nbgrader"
WANTED = "nbgrader>=0.9.5,<0.10"
CHAPTER, NAME = "01", "ps1"
WRONG = "def {name}(*args, **kwargs):\n    return 0.0"
CHEAT = """
class Everything:
    state, score = "solved", 99.0

def check(*args, **kwargs):
    return Everything()

def display(result):
    result.score = 99.0
"""
SCORES = """
import json, sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    worth = book.find_assignment(sys.argv[1]).max_score
    students = book.assignment_submissions(sys.argv[1])
    print(json.dumps([worth, {s.student.id: s.score for s in students}]))
"""


def tool(name: str) -> str:
    """Path of a program of nbgrader's environment, which is made where it is missing."""
    ready = TOOL / WANTED.replace(">", "").replace("<", "")
    if not ready.exists():
        venv.create(TOOL, clear=True, with_pip=True)
        python = str(TOOL / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-qq", WANTED], check=True)
        ready.touch()
    return str(TOOL / "bin" / name)


def run(course: Path, *command: str) -> str:
    """What a program of nbgrader's prints, in the course's folder; its whole output if it fails."""
    specs = course / "jupyter" / "kernels" / "python3"
    specs.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(spec))
    programs = f"{TOOL / 'bin'}{os.pathsep}{os.environ['PATH']}"  # it calls alembic by its name
    env = os.environ | {"PATH": programs, "HOME": str(course)}
    env |= {"JUPYTER_PATH": str(course / "jupyter")}
    env |= {"MTL_COURSE_HOME": str(course / "home"), "MTL_COURSE_CHECKS": "learn"}
    done = subprocess.run(command, cwd=course, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def short(nb):
    """The first cell, the exercises and their checks: what takes seconds."""
    wanted = (notebooks.is_first, notebooks.exercise_of, notebooks.checked_by)
    nb.cells = [
        cell
        for cell in nb.cells
        if cell.metadata.get("nbgrader") or any(look(cell) for look in wanted)
    ]
    return nb


def submissions(released, exercises: dict) -> dict:
    """Student -> notebook, made of the students' version."""

    def filled(write):
        nb = nbformat.from_dict(json.loads(json.dumps(released)))
        for cell in nb.cells:
            name = notebooks.exercise_of(cell)
            if name:
                cell.source = write(name, cell.source)
        return nb

    def marked(name, text):
        return f"# EXERCISE {name}\n{text}"

    return {
        "right": filled(
            lambda name, _: sync.exercise_cell(exercises[name], exercises[name].solution)
        ),
        "wrong": filled(lambda name, _: marked(name, WRONG.format(name=name))),
        "blank": filled(lambda _, source: source),
        "cheating": filled(lambda name, _: marked(name, WRONG.format(name=name) + CHEAT)),
    }


def main() -> None:
    """Make the assignment, grade the four, and say what each has got."""
    started = time.monotonic()
    nbgrader = tool("nbgrader")
    installed = time.monotonic() - started
    ((chapter, _),) = notebooks.find([CHAPTER])
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        source = course / "source" / NAME
        export = [sys.executable, "-m", "mtl_course.dev", "nbgrader", CHAPTER, "--out", str(source)]
        subprocess.run(export, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        (path,) = source.iterdir()
        notebooks.write(short(notebooks.read(path)), path)
        run(course, nbgrader, "generate_assignment", NAME)
        released = notebooks.read(course / "release" / NAME / path.name)
        exercises = sync.load_exercises(chapter)
        text = "\n".join(cell.source for cell in released.cells)
        assert "BEGIN SOLUTION" not in text, "the students' version has no answer"
        assert BLANK in text or "NotImplementedError" in text
        for student, nb in submissions(released, exercises).items():
            target = course / "submitted" / student / NAME / path.name
            notebooks.write(nb, target)
        run(course, nbgrader, "autograde", NAME)
        told = run(course, str(TOOL / "bin" / "python"), "-c", SCORES, NAME)
        worth, scores = json.loads(told.splitlines()[-1])
    total = sum(exercises[name].points for name in exercises)
    told = ", ".join(f"{student} {score:g}" for student, score in sorted(scores.items()))
    print(
        f"nbgrader, chapter {CHAPTER}, of {worth:g} points: {told}"
        f" ({installed:.0f} s to install, {time.monotonic() - started - installed:.0f} s to grade)"
    )
    assert worth == total == scores["right"]
    assert scores["blank"] == 0 <= scores["cheating"] <= scores["wrong"] < worth


if __name__ == "__main__":
    main()
