"""Write source notebooks for nbgrader.

``python -m mtl_course.dev nbgrader 01 --out source/ps1``.
The solved regions are marked for `nbgrader generate_assignment`, and each check cell ends in the
points that its answer earns (nbgrader's partial credit). nbgrader itself is not needed here.
It runs a submission in one kernel, where its code may do anything; `mtl_course.grade` does not.
"""

import argparse
import copy
from pathlib import Path

from . import notebooks, sync

# Every name anew: a cell before may have given `check` or `display` another meaning.
CHECK = """\
from IPython.display import display
from mtl_course.checks import check
result = check("{name}", rounds=10)
display(result)
result.score"""


def to_nbgrader(nb, exercises: dict):
    """A copy of a learner notebook as a source notebook for nbgrader.

    `exercises`: name -> exercise.
    An exercise that begins from buggy code ("spot the bug") stays an ordinary cell: nbgrader would
    replace the code by a blank.
    """
    from ..checks.exercise import source_of  # brings torch

    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        name, checked = notebooks.exercise_of(cell), notebooks.checked_by(cell)
        exercise = exercises.get(name or checked)
        if exercise is None:
            continue
        cell.outputs, cell.execution_count = [], None
        if name and exercise.starter is not None:
            cell.source = sync.exercise_cell(exercise, exercise.stub)
        elif name:
            cell.source = sync.exercise_cell(exercise, source_of(exercise.reference))
            cell.metadata["nbgrader"] = _mark(name, grade=False, solution=True)
        else:
            cell.source = CHECK.format(name=checked)
            cell.metadata["nbgrader"] = _mark(f"check_{checked}", grade=True, solution=False) | {
                "points": exercise.points
            }
    return nb


def _mark(grade_id: str, grade: bool, solution: bool) -> dict:
    return {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": grade,
        "solution": solution,
        "locked": grade,
        "task": False,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev nbgrader", description=__doc__)
    parser.add_argument("chapters", nargs="+", metavar="NN", help="numbers of chapters")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the assignment, such as source/ps1",
    )
    options = parser.parse_args(arguments)
    for chapter, path in notebooks.chosen(parser, options.chapters):
        target = options.out / path.name
        if target.resolve() == path.resolve():
            parser.error("--out is the folder of the learner editions; choose another")
        notebooks.write(to_nbgrader(notebooks.read(path), sync.load_exercises(chapter)), target)
        print(f"{chapter.notebook} -> {target}")
    return 0
