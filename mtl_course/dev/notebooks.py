"""Reading, finding and writing the course's notebooks: what the other tools share."""

import ast
import os
import re
import sys
from pathlib import Path

import nbformat

from .. import chapters

ROOT = Path(__file__).resolve().parents[2]

FIRST = "# @title Set up the course"
FIRST_LINES = (FIRST, "# Run this first.")  # and of editions before cells were folded
TITLE = re.compile(r"# @title (\S.*)")  # what Colab shows in place of a folded cell's code
EXERCISE = re.compile(r"# EXERCISE (\w+)\n?")
CHECK = re.compile(r"check\(\"(\w+)\"\)")
LAB = re.compile(r"# LAB (\w+)\n?")
SCORE = re.compile(r"score\(\"(\w+)\", (\w+)\)")


def code_cells(nb):
    """The code cells of a notebook, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tree(cell) -> ast.Module | None:
    """Syntax tree of a code cell without IPython's magics; None for what does not parse."""
    try:
        return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.M))
    except SyntaxError:
        return None


def exercise_of(cell) -> str | None:
    """Name of the exercise whose stub this cell is, or None."""
    match = EXERCISE.match(cell.source) if cell.cell_type == "code" else None
    return match[1] if match else None


def checked_by(cell) -> str | None:
    """Name of the exercise that this cell checks, or None."""
    match = CHECK.fullmatch(cell.source.strip()) if cell.cell_type == "code" else None
    return match[1] if match else None


def lab_of(cell) -> str | None:
    """Name of the lab in whose cell a learner writes, if this is that cell, or None."""
    match = LAB.match(cell.source) if cell.cell_type == "code" else None
    return match[1] if match else None


def scored_by(cell) -> tuple[str, str] | None:
    """(lab, function) that this cell scores, or None."""
    match = SCORE.fullmatch(cell.source.strip()) if cell.cell_type == "code" else None
    return (match[1], match[2]) if match else None


def is_first(cell) -> bool:
    """True for the generated first cell."""
    return cell.cell_type == "code" and cell.source.split("\n")[0] in FIRST_LINES


def title_of(cell) -> str | None:
    """The title of a code cell, from its first line ``# @title ...``, or None."""
    match = TITLE.match(cell.source) if cell.cell_type == "code" else None
    return match[1].strip() if match else None


def read(path: Path):
    """A notebook in the current format (4.5, cells with ids); nbformat's error for a bad file."""
    return nbformat.read(path, as_version=4)


def write(nb, path: Path) -> None:
    """Write a notebook; the old file stays until the new one is whole."""
    nbformat.validate(nb)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def find(
    numbers: list[str], root: Path = ROOT, labs: bool = False
) -> list[tuple[chapters.Chapter, Path]]:
    """Chapters and labs with their notebooks: those with these numbers, or all chapters.

    Args:
        numbers: such as ``"01"`` and ``"lab_1"``; empty for all.
        root: folder of the repository.
        labs: whether all includes the labs.

    Raises:
        ValueError: there is no such chapter, or its notebook is missing.
    """
    every = [*chapters.CHAPTERS.values(), *(chapters.LABS.values() if labs else [])]
    wanted = [chapters.find(number) for number in numbers] or every
    pairs = [(chapter, root / chapter.notebook) for chapter in wanted]
    for chapter, path in pairs:
        if not path.exists():
            raise ValueError(f"{chapter.name} has no notebook yet: {chapter.notebook} is missing.")
    return pairs


def chosen(
    parser, numbers: list[str], root: Path = ROOT, labs: bool = False
) -> list[tuple[chapters.Chapter, Path]]:
    """`find` for a command line: an unknown chapter ends the command with a message."""
    try:
        return find(numbers, root, labs)
    except ValueError as error:
        parser.error(str(error))


def repository(root: Path = ROOT) -> tuple[str, str]:
    """Address and branch of the repository, from `_config.yml`: the one place that names them."""
    import yaml

    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return config["url"].rstrip("/"), config["branch"]


def say(*lines: str) -> None:
    """Print to stderr what went wrong."""
    print(*lines, sep="\n", file=sys.stderr)
