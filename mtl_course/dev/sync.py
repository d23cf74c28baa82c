"""Write the generated parts of learner notebooks: first cell, exercise stubs, Colab link, folds."""

import argparse
import ast
import builtins
import copy
import inspect
import re
import sys
from importlib import import_module

import nbformat

from .. import chapters
from . import notebooks

FIRST_CELL = """\
# @title Set up the course
# Run this first. On Colab it installs the course's package.
import importlib, importlib.util, os
if importlib.util.find_spec("mtl_course") is None:
{spec}
    %pip install -q --no-deps "{{spec}}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("mtl_course") is None:
        raise ImportError("The course's package could not be "
                          f"installed from {{spec}}: see above.")
import mtl_course
from mtl_course import check, claim, hint, progress, solution, use
session = mtl_course.setup("{number}")"""
PUBLISHED = """\
    spec = os.environ.get(
        "MTL_COURSE_SPEC",
{address})"""
UNPUBLISHED = """\
    spec = os.environ.get("MTL_COURSE_SPEC")
    if not spec:
        raise ImportError(
            "This copy of the course has no address yet: set "
            "MTL_COURSE_SPEC to a wheel of its package, or give it "
            "an address with `make publish URL=...`.")"""

COLAB = re.compile(r"<!-- colab -->.*?<!-- /colab -->", re.S)
NO_COLAB = "<!-- colab -->On Colab as soon as this copy has an address<!-- /colab -->"
EXACT = "nbval-check-output"
# A cell with the tag FOLD is shut in the book, by the tag HIDDEN and with these words, and on Colab
# by the metadata `cellView: form`, with its title.
FOLD, HIDDEN = "fold", "hide-input"
PROMPTS = {"code_prompt_show": "Show code: {}", "code_prompt_hide": "Hide code: {}"}


def published(url: str) -> bool:
    """Whether the repository has an address, or the placeholder that a new copy starts with."""
    return "/OWNER/" not in f"{url}/"


def first_cell(chapter, url: str) -> str:
    """Source of the generated first cell of a chapter; `url` is the address of the repository.

    Without an address it refuses with one sentence, unless MTL_COURSE_SPEC says what to install or
    the package is there.
    """
    if published(url):
        pieces = re.findall(r".{1,50}", f"git+{url}")  # lines of code have at most 72 characters
        spec = PUBLISHED.format(address="\n".join(f'        "{piece}"' for piece in pieces))
    else:
        spec = UNPUBLISHED
    return FIRST_CELL.format(spec=spec, number=chapter.number)


def colab_link(chapter, url: str, branch: str) -> str:
    """The link that opens a chapter on Colab, between its markers; none without an address."""
    if not published(url):
        return NO_COLAB
    place = url.removeprefix("https://github.com/")
    address = f"https://colab.research.google.com/github/{place}/blob/{branch}/{chapter.notebook}"
    return f"<!-- colab -->[Open this notebook on Colab]({address})<!-- /colab -->"


def load_exercises(chapter) -> dict:
    """Name -> exercise of one chapter, in the order in which its module defines them."""
    from ..checks.exercise import REGISTRY

    if isinstance(chapter, chapters.Lab):
        return {}
    module = import_module(f"mtl_course.exercises.ch{chapter.number}")
    return {
        name: exercise
        for name, exercise in REGISTRY.items()
        if exercise.reference.__module__ == module.__name__
    }


def lab_task(lab):
    """A lab as its scorer sees it."""
    return import_module(f"mtl_course.labs.{lab.number}").TASK


def imports_of(exercise) -> str:
    """The import statements that an exercise's cell needs to stand alone, one per line.

    Each ends in a line break. They are those of the exercise's module that bind a name used in the
    stub or in the solution; relative ones are made absolute. ValueError if the solution uses
    anything else of its module, which a learner's notebook would not have.
    """
    module = sys.modules[exercise.reference.__module__]
    used, bound = set(), set()
    for source in (exercise.stub, exercise.solution):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.alias):
                bound.add(node.asname or node.name.split(".")[0])
    needed = {name for name in used - bound if not hasattr(builtins, name)}
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
    """Source of an exercise's cell around `source`: stub, solution, or a learner's answer."""
    imports = imports_of(exercise)
    return f"# EXERCISE {exercise.name}\n{imports}" + ("\n" if imports else "") + source


def fill(nb, exercises: dict, text) -> None:
    """Put ``text(exercise)`` into every exercise cell of a notebook, in place.

    Cells of unknown exercises stay as they are.
    """
    for cell in nb.cells:
        exercise = exercises.get(notebooks.exercise_of(cell))
        if exercise is not None:
            _set(cell, exercise_cell(exercise, text(exercise)))


def synced(nb, chapter, exercises: dict, url: str, branch: str):
    """A copy of a notebook with its generated parts as they should be.

    A cell that changes loses its outputs, except a first cell: what it prints does not depend on
    the address that it names.
    """
    nb = copy.deepcopy(nb)
    if not any(notebooks.is_first(cell) for cell in nb.cells):
        nb.cells.insert(min(1, len(nb.cells)), nbformat.v4.new_code_cell(notebooks.FIRST))
    for cell in nb.cells:
        exact = notebooks.checked_by(cell) or notebooks.scored_by(cell)
        if exact and EXACT not in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), EXACT]
    address(nb, chapter, url, branch)
    fill(nb, exercises, lambda exercise: exercise.stub)
    if isinstance(chapter, chapters.Lab):
        for cell in nb.cells:
            if notebooks.lab_of(cell) == chapter.number:
                _set(cell, f"# LAB {chapter.number}\n{lab_task(chapter).stub}")
    for cell in notebooks.code_cells(nb):
        fold(cell)
    return nb


def fold(cell) -> None:
    """Derive from a code cell's tag `fold` what shuts it in the book and on Colab, in place.

    Without the tag, or without a title to show in place of the code, it is open. The first cell
    always has the tag.
    """
    if notebooks.is_first(cell) and FOLD not in cell.metadata.get("tags", []):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), FOLD]
    tags = [tag for tag in cell.metadata.get("tags", []) if tag != HIDDEN]
    look = {k: v for k, v in cell.metadata.get("mystnb", {}).items() if k not in PROMPTS}
    view, title = None, notebooks.title_of(cell)
    if FOLD in tags and title:
        tags.append(HIDDEN)
        look |= {name: words.format(title) for name, words in PROMPTS.items()}
        view = "form"
    for name, value in (("tags", tags), ("mystnb", look), ("cellView", view)):
        if value:
            cell.metadata[name] = value
        else:
            cell.metadata.pop(name, None)


def address(nb, chapter, url: str, branch: str) -> bool:
    """Write the two cells that name the repository's address, in place; True if one changed.

    A first cell keeps what it printed, which does not depend on the address.
    """
    before = [cell.source for cell in nb.cells]
    for cell in nb.cells:
        if notebooks.is_first(cell):
            if f'mtl_course.setup("{chapter.number}")' not in cell.source:
                cell.outputs, cell.execution_count = [], None
            cell.source = first_cell(chapter, url)
    card = nb.cells[0]
    if card.cell_type == "markdown":
        card.source = COLAB.sub(lambda _: colab_link(chapter, url, branch), card.source)
    return before != [cell.source for cell in nb.cells]


def _set(cell, source: str) -> None:
    if cell.source != source:
        cell.source, cell.outputs, cell.execution_count = source, [], None


def differences(old, new) -> list[str]:
    """Names of the generated cells in which two editions of a notebook differ."""
    if len(old.cells) != len(new.cells):
        return ["the first cell is missing"]
    names = []
    for i, (a, b) in enumerate(zip(old.cells, new.cells, strict=True)):
        if a.source == b.source and a.metadata == b.metadata:
            continue
        exercise = notebooks.exercise_of(b) or notebooks.checked_by(b)
        lab = notebooks.lab_of(b) or notebooks.scored_by(b)
        if notebooks.is_first(b):
            name = "the first cell"
        elif lab:
            name = "the lab's cell"
        elif b.cell_type == "code" and not exercise:
            name = "the fold"
        else:
            name = f"the exercise {exercise}" if exercise else "the Colab link"
        names.append(f"{name} (cell {i}) is stale")
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
    for chapter, path in notebooks.chosen(parser, options.chapters, labs=True):
        old = notebooks.read(path)
        new = synced(old, chapter, load_exercises(chapter), *notebooks.repository())
        stale_cells = differences(old, new)
        stale += bool(stale_cells)
        for name in stale_cells:
            print(f"{chapter.notebook}: {name}")
        if stale_cells and not options.check:
            notebooks.write(new, path)
            print(
                f"{chapter.notebook}: written; run it with: python -m mtl_course.dev execute"
                f" {chapter.number}"
            )
        elif not stale_cells:
            print(f"{chapter.notebook}: generated cells are up to date")
    return int(options.check and stale > 0)
