"""Write the solved edition of chapters: first cell, exercises with their answers, checks.

It runs in seconds.
"""

import argparse
import copy
from pathlib import Path

from . import normalise, notebooks, sync


def solved(nb, exercises: dict):
    """The solved edition of a notebook, without outputs.

    Exercise cells bring their own imports, so nothing else is needed.
    """
    nb = copy.deepcopy(nb)
    nb.cells = [
        cell
        for cell in nb.cells
        if notebooks.is_first(cell) or notebooks.exercise_of(cell) or notebooks.checked_by(cell)
    ]
    sync.fill(nb, exercises, lambda exercise: exercise.solution)
    for cell in nb.cells:
        # No comparison of outputs: only the learner edition stores them.
        cell.outputs, cell.execution_count, cell.metadata = [], None, {}
    normalise.normalise(nb)
    return nb


def main(arguments: list[str]) -> int:
    """Write the solved editions of the chapters."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev solve", description=__doc__)
    parser.add_argument("chapters", nargs="*", metavar="NN", help="numbers of chapters")
    parser.add_argument("--all", action="store_true", help="every chapter")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the solved notebooks"
    )
    options = parser.parse_args(arguments)
    if bool(options.chapters) == options.all:
        parser.error("name the chapters, such as 01, or give --all")
    for chapter, path in notebooks.chosen(parser, options.chapters):
        target = options.out / path.name
        if target.resolve() == path.resolve():
            parser.error("--out is the folder of the learner editions; choose another")
        notebooks.write(solved(notebooks.read(path), sync.load_exercises(chapter)), target)
        print(f"{chapter.notebook} -> {target}")
    return 0
