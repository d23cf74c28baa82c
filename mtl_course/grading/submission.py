"""What is taken out of a submitted notebook: source text, of which nothing is run here."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

LARGEST = 64 * 2**20  # bytes of a notebook with its figures
MARKER = re.compile(r"^# EXERCISE (\w+)", re.M)
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Reaching for these means looking for the answer, or for the grader, instead of writing one.
UNUSUAL = {
    "REGISTRY",
    "Result",
    "_getframe",
    "__subclasses__",
    "checks",
    "ctypes",
    "examine",
    "exercises",
    "gc",
    "grade",
    "grading",
    "inspect",
    "linecache",
    "reference",
    "share",
    "socket",
    "solution",
    "subprocess",
    "use",
}


@dataclass(frozen=True)
class Piece:
    """Source that the grader runs.

    number: of its code cell in the notebook, from 1. exercise: which one the cell answers, or None.
    defines_only: whether it holds nothing but imports, functions and classes.
    """

    number: int
    source: str
    exercise: str | None
    defines_only: bool


def read(path: str | Path) -> list[str]:
    """Sources of the code cells of a notebook, in order.

    Raises:
        ValueError: the file is missing, or is no notebook.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] < 4:
            raise ValueError("its format is older than 4: open it in Jupyter and save it")
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        return [_text(cell["source"]) for cell in cells]
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there.") from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        told = f"{path} cannot be read as a notebook: {type(error).__name__}: {error}"
        raise ValueError(told[:300]) from error


def _text(source: str | list[str]) -> str:
    """Source as one text that can be encoded, whatever the file has."""
    text = source if isinstance(source, str) else "".join(source)
    return text.encode("utf-8", "replace").decode("utf-8")


def pieces(sources: list[str]) -> list[Piece]:
    """What the grader runs of these cells, in their order.

    Every cell of an exercise; every other cell that only defines; of the rest, the imports at the
    top level, each by itself, of names that the others use. A cell with a mistake in its syntax is
    left out unless it is an exercise's, whose card says so.
    """
    kept, rest = [], []
    for number, source in enumerate(sources, 1):
        marker = MARKER.search(source)
        text = without_magics(source)
        tree = parsed(text)
        only = tree is not None and all(map(_defines, tree.body))
        if marker or only:
            kept.append(Piece(number, text, marker[1] if marker else None, only))
        elif tree is not None:
            imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            rest += [(number, node) for node in imports]
    used = set().union(*(_names(parsed(piece.source)) for piece in kept)) if kept else set()
    for number, node in rest:
        aliases = [a for a in node.names if a.name == "*" or _bound(a) in used]
        if aliases:
            node.names = aliases
            kept.append(Piece(number, ast.unparse(node), None, True))
    return sorted(kept, key=lambda piece: piece.number)


def without_magics(source: str) -> str:
    """Source without IPython's commands: a line of them becomes `pass`, a cell of one nothing."""
    if source.lstrip().startswith("%%"):
        return ""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def parsed(source: str) -> ast.Module | None:
    """Syntax tree of a source, or None for what is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(node: ast.stmt) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, DEFINITIONS)


def _bound(alias: ast.alias) -> str:
    """The name that an import gives."""
    return alias.asname or alias.name.split(".")[0]


def _names(tree: ast.Module | None) -> set[str]:
    """Every name in a source, those in annotations that are text left out."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} if tree else set()


def is_untouched(source: str, stub: str, name: str) -> bool:
    """Whether the function or class `name` in the source is still the stub's.

    Comments and docstrings do not count.
    """
    bodies = [_body(parsed(text), name) for text in (source, stub)]
    return bodies[0] is not None and bodies[0] == bodies[1]


def _body(tree: ast.Module | None, name: str) -> str | None:
    for top in tree.body if tree else []:
        if isinstance(top, DEFINITIONS[2:]) and top.name == name:
            for node in ast.walk(top):
                if isinstance(node, DEFINITIONS[2:]) and ast.get_docstring(node) is not None:
                    node.body = node.body[1:]
            try:
                return ast.dump(top)
            except RecursionError:
                return None
    return None


def suspicious(answers: list[Piece]) -> list[str]:
    """Names in the pieces that an honest answer does not need."""
    used: set[str] = set()
    for piece in answers:
        tree = parsed(piece.source)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                used |= {part for alias in node.names for part in alias.name.split(".")}
                used |= set((getattr(node, "module", None) or "").split("."))
    return sorted(used & UNUSUAL)
