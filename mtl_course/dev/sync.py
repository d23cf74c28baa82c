"""Write the generated parts of the learner notebooks: the first cell, the exercise stubs, the Colab
link.
"""

import argparse
import ast
import builtins
import copy
import inspect
import re
import sys
from importlib import import_module

import nbformat

from . import notebooks

FIRST_CELL = """\
# Run this first.
# On Colab it installs the course's package; elsewhere it is there.
import importlib, importlib.util, os
if importlib.util.find_spec("mtl_course") is None:
    spec = os.environ.get(
        "MTL_COURSE_SPEC",
        "git+{url}")
    %pip install -q --no-deps "{{spec}}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("mtl_course") is None:
        raise ImportError("The course's package could not be "
                          f"installed from {{spec}}: see above.")
import mtl_course
from mtl_course import check, claim, hint, progress, solution, use
session = mtl_course.setup("{number}")"""

COLAB = re.compile(r"<!-- colab -->.*?<!-- /colab -->", re.S)
EXACT = "nbval-check-output"


def first_cell(chapter, url: str) -> str:
    """Source of the generated first cell of a chapter; `url` is the address of the repository."""
    return FIRST_CELL.format(url=url, number=chapter.number)


def colab_link(chapter, url: str, branch: str) -> str:
    """The text link that opens a chapter on Colab, between its markers."""
    place = url.removeprefix("https://github.com/")
    address = f"https://colab.research.google.com/github/{place}/blob/{branch}/{chapter.notebook}"
    return f"<!-- colab -->[Open this notebook on Colab]({address})<!-- /colab -->"


def load_exercises(chapter) -> dict:
    """Name -> exercise of one chapter, in the order in which its module defines them."""
    from ..checks.exercise import REGISTRY

    module = import_module(f"mtl_course.exercises.ch{chapter.number}")
    return {
        name: exercise
        for name, exercise in REGISTRY.items()
        if exercise.reference.__module__ == module.__name__
    }


def imports_of(exercise) -> str:
    """The import statements that an exercise's cell needs to stand alone, one a line, each ending
    in a line break.

    They are those of the exercise's module that bind a name used in the stub or in the solution;
    relative ones are made absolute. ValueError if the solution uses anything else of its module,
    which a learner's notebook would not have.
    """
    module = sys.modules[exercise.reference.__module__]
    used, own = set(), set()
    for source in (exercise.stub, exercise.solution):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
            elif isinstance(node, ast.arg):
                own.add(node.arg)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.alias):
                own.add(node.asname or node.name.split(".")[0])
    needed = {name for name in used - own if not hasattr(builtins, name)}
    lines = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [
                alias
                for alias in node.names
                if (alias.asname or alias.name.split(".")[0]) in needed
            ]
            needed -= {alias.asname or alias.name.split(".")[0] for alias in names}
            if names:
                node.names = names
                if isinstance(node, ast.ImportFrom) and node.level:
                    base = module.__name__.split(".")[: -node.level]
                    node.module, node.level = ".".join([*base, *filter(None, [node.module])]), 0
                lines.append(ast.unparse(node) + "\n")
    if needed:
        raise ValueError(
            f"The exercise {exercise.name!r} uses {', '.join(sorted(needed))}, which its cell"
            " cannot import."
        )
    return "".join(lines)


def exercise_cell(exercise, source: str) -> str:
    """Source of an exercise's cell around `source`: its stub, its solution, or a learner's answer."""
    imports = imports_of(exercise)
    return f"# EXERCISE {exercise.name}\n{imports}" + ("\n" if imports else "") + source


def fill(nb, exercises: dict, text) -> None:
    """Put ``text(exercise)`` into every exercise cell of a notebook, in place; cells of unknown
    exercises stay as they are.
    """
    for cell in nb.cells:
        exercise = exercises.get(notebooks.exercise_of(cell))
        if exercise is not None:
            _set(cell, exercise_cell(exercise, text(exercise)))


def synced(nb, chapter, exercises: dict, url: str, branch: str):
    """A copy of a notebook with its generated parts as they should be. A cell that changes loses
    its outputs.
    """
    nb = copy.deepcopy(nb)
    if not any(notebooks.is_first(cell) for cell in nb.cells):
        nb.cells.insert(min(1, len(nb.cells)), nbformat.v4.new_code_cell(notebooks.FIRST))
    for cell in nb.cells:
        if notebooks.is_first(cell):
            _set(cell, first_cell(chapter, url))
        elif notebooks.checked_by(cell) and EXACT not in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), EXACT]
    card = nb.cells[0]
    if card.cell_type == "markdown":
        card.source = COLAB.sub(lambda _: colab_link(chapter, url, branch), card.source)
    fill(nb, exercises, lambda exercise: exercise.stub)
    return nb


def _set(cell, source: str) -> None:
    if cell.source != source:
        cell.source, cell.outputs, cell.execution_count = source, [], None


def differences(old, new) -> list[str]:
    """Names of the generated cells in which two editions of a notebook differ."""
    if len(old.cells) != len(new.cells):
        return ["the first cell is missing"]
    names = []
    for i, (a, b) in enumerate(zip(old.cells, new.cells, strict=True)):
        if a.source != b.source or a.metadata != b.metadata:
            exercise = notebooks.exercise_of(b) or notebooks.checked_by(b)
            part = (
                "the first cell"
                if notebooks.is_first(b)
                else f"the exercise {exercise}"
                if exercise
                else "the Colab link"
            )
            names.append(f"{part} (cell {i}) is stale")
    return names


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev sync", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    parser.add_argument(
        "--check", action="store_true", help="only report what is stale; exit with 1 if anything is"
    )
    options = parser.parse_args(arguments)
    stale = 0
    for chapter, path in notebooks.chosen(parser, options.chapters):
        old = notebooks.read(path)
        new = synced(old, chapter, load_exercises(chapter), *notebooks.repository())
        found = differences(old, new)
        stale += bool(found)
        for name in found:
            print(f"{chapter.notebook}: {name}")
        if found and not options.check:
            notebooks.write(new, path)
            print(
                f"{chapter.notebook}: written; run it with: python -m mtl_course.dev execute"
                f" {chapter.number}"
            )
        elif not found:
            print(f"{chapter.notebook}: generated cells are up to date")
    return int(options.check and stale > 0)
