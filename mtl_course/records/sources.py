"""Which code a record rests on: the files of its experiment, and a fingerprint of them."""

import ast
import hashlib
import io
import tokenize
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __package__.split(".")[0]
# What does not bear on results: where they run, and how they are written, told and drawn.
APART = ("runtime", "records", "claims", "plots", "chapters")


def experiment(chapter: str) -> str:
    """The module of a chapter's experiment."""
    return f"{PACKAGE}.experiments.ch{chapter}"


def exists(module: str) -> bool:
    """Whether there is a module of this name."""
    return _spec(module) is not None


def _spec(module: str) -> ModuleSpec | None:
    """Where a module lies; its package is imported, it is not."""
    package = module.rpartition(".")[0]
    if not package:
        return find_spec(module)
    return PathFinder.find_spec(module, import_module(package).__path__)


def fingerprint(module: str) -> str:
    """A hash of a module's code and of all of the course's code that it imports.

    Comments, docstrings and white space do not count, and it is the same on every version of
    Python. Records keep it, so that one which is older than its code shows.

    Args:
        module: its full name, such as ``"mtl_course.experiments.ch04"``.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files(module).items()):
        digest.update(f"{name}\0{essence(path.read_text(encoding='utf-8'))}\0".encode())
    return digest.hexdigest()[:16]


def files(module: str) -> dict[str, Path]:
    """The modules of the course on which one rests, itself among them: name -> file.

    Imports are read, not run, wherever they stand; a name that a room lends is looked up in the
    room's list.
    """
    paths, queue = {}, [module]
    while queue:
        name = queue.pop()
        room = (name.split(".") + [PACKAGE])[1]
        if name in paths or name == PACKAGE or room in APART:
            continue
        path, tree = _source(name)
        if _lent(tree) is None:  # a room's list holds no code of its own
            paths[name] = path
            queue += _imported(tree, name, is_package=path.name == "__init__.py")
    return paths


def _source(module: str) -> tuple[Path, ast.Module]:
    """The file of a module, and its syntax tree."""
    path = Path(_spec(module).origin)
    return path, _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed: int) -> ast.Module:
    """The syntax tree of a file that was last changed then."""
    return ast.parse(path.read_text(encoding="utf-8"))


def parts(module: str) -> list[str]:
    """The names of the records that an experiment makes beside its profiles: its ``RECORDS``."""
    for node in _source(module)[1].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RECORDS":
            return [ast.literal_eval(key) for key in node.value.keys]
    return []


def _imported(tree: ast.Module, name: str, is_package: bool) -> set[str]:
    """The course's modules that a module's code imports, all over its text."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    modules, rooms = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if _is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names if _is_ours(base) else ():
                module = _home(base, alias.name)
                modules.add(module)
                if _room(module) is not None:
                    rooms[alias.asname or alias.name] = module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in rooms:  # room.function
            modules.add(_home(rooms[ast.unparse(node.value)], node.attr))
    return modules


def _is_ours(module: str) -> bool:
    """Whether a module is the course's."""
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _home(module: str, name: str) -> str:
    """The module of a name that is imported from another: below it, lent by it, or in it."""
    if _source(module)[0].name == "__init__.py" and exists(f"{module}.{name}"):
        return f"{module}.{name}"
    lent = (_room(module) or {}).get(name)
    return f"{module}.{lent}" if lent else module


def _room(module: str) -> dict[str, str] | None:
    """What a room lends: name -> its module; None for what is no room."""
    return _lent(_source(module)[1])


def _lent(tree: ast.Module) -> dict[str, str] | None:
    """The mapping in a room's call of `exports`; None where there is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "exports":
            return ast.literal_eval(node.args[1])
    return None


def essence(source: str) -> str:
    """Code without comments, docstrings and white space."""
    lines = source.splitlines(keepends=True)
    gone = []  # (first line, column), (last line, column)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            gone.append((token.start, token.end))
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            # ast counts bytes, not characters; such a statement fills its lines
            start, end = (node.lineno, 0), (node.end_lineno, len(lines[node.end_lineno - 1]))
            gone.append((start, end))
    for (first, left), (last, right) in sorted(gone, reverse=True):
        head, tail = lines[first - 1][:left], lines[last - 1][right:]
        lines[first - 1 : last] = [head + tail] + [""] * (last - first)
    return "".join("".join(lines).split())
