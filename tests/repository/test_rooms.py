"""Imports go one way: a room imports from the rooms below it and from itself, never from above."""

import ast
from pathlib import Path

import pytest

import mtl_course

PACKAGE = Path(mtl_course.__file__).parent
# From the ground up; the rooms of one floor do not import each other.
FLOORS = [
    ["_lazy", "_markup", "_output", "seeds"],
    ["chapters", "claims", "plots", "data", "networks"],
    ["runtime", "training"],
    ["multitask", "transfer", "meta", "streams", "trust", "serving"],
    ["checks", "drawings", "records"],
    ["exercises", "experiments"],
    ["grading", "labs"],
    ["record", "grade", "dev"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# A check finds the exercises by importing their room when it is first asked, so that they register.
REGISTRATION = {("checks/__init__.py", "exercises")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms and root modules of the package that a file imports from, anywhere in it."""
    package = ["mtl_course", *path.relative_to(PACKAGE).parent.parts]
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mtl_course.")}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module or "").split(".")]
            parts = [part for part in parts if part]
            if parts[:1] == ["mtl_course"]:
                rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return rooms - {"__version__"}


MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_below_only(path):
    here, name = room_of(path), path.relative_to(PACKAGE).as_posix()
    assert here in FLOOR, f"{here} has no floor yet: give it one above"
    for room in imported(path) - {here}:
        if (name, room) not in REGISTRATION:
            assert FLOOR[room] < FLOOR[here], f"{name} imports {room}, which is not below {here}"


def test_the_reader_of_imports_reads_them():
    assert imported(PACKAGE / "meta" / "maml.py") >= {"data", "training"}
    assert imported(PACKAGE / "record.py") == {"records"}
