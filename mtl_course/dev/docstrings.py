"""The public names of each room and what their docstrings say, read from the source alone.

Nothing is imported but this: the API page of the book, which is built without torch, and the test
of the docstrings both read what is here.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = (
    *("data", "networks", "training", "multitask", "transfer", "meta", "streams"),
    *("trust", "serving", "labs"),
)
SECTIONS = ("Args", "Returns", "Raises", "Source", "Example")


@dataclass(frozen=True)
class Name:
    """A public name of a room: where it is defined, its syntax tree, and its docstring."""

    room: str
    name: str
    module: str
    node: ast.AST | None
    text: str

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.text.split("\n")[0]

    @property
    def kind(self) -> str:
        """``"class"``, ``"function"``, or ``"value"`` for a constant or a type."""
        if isinstance(self.node, ast.ClassDef):
            return "class"
        return "function" if isinstance(self.node, ast.FunctionDef) else "value"

    @property
    def parameters(self) -> list[str]:
        """What a caller passes, in order: to a function, a class, or a dataclass."""
        call = self.node
        if isinstance(call, ast.ClassDef):
            inside = [n for n in call.body if isinstance(n, ast.FunctionDef)]
            call = next((n for n in inside if n.name == "__init__"), None)
            if call is None and any(
                "dataclass" in ast.unparse(d) for d in self.node.decorator_list
            ):
                fields = [n for n in self.node.body if isinstance(n, ast.AnnAssign)]
                return [n.target.id for n in fields if "ClassVar" not in ast.unparse(n.annotation)]
        if not isinstance(call, ast.FunctionDef):
            return []
        given = call.args
        names = [a.arg for a in (*given.posonlyargs, *given.args)]
        names += [given.vararg.arg] if given.vararg else []
        names += [a.arg for a in given.kwonlyargs]
        names += [given.kwarg.arg] if given.kwarg else []
        return [name for name in names if name not in ("self", "cls")]

    @property
    def raised(self) -> set[str]:
        """The kinds of errors that the definition itself raises by name."""
        calls = [
            n.exc for n in ast.walk(self.node) if isinstance(n, ast.Raise) and n.exc is not None
        ]
        names = {n.func for n in calls if isinstance(n, ast.Call)} | {
            n for n in calls if isinstance(n, ast.Name)
        }
        named = {ast.unparse(n) for n in names}
        return {name for name in named if re.fullmatch(r"(torch\.)?[A-Z]\w*Error", name)}

    def section(self, title: str) -> str:
        """The text below a title such as ``Returns:``, dedented; empty where there is none."""
        return sections(self.text).get(title, "")

    @property
    def arguments(self) -> dict[str, str]:
        """Argument -> what the docstring says of it."""
        return entries(self.section("Args"))


def sections(text: str) -> dict[str, str]:
    """Title -> text of a docstring's sections; what stands above the first is under ``""``."""
    parts, title = {"": []}, ""
    for line in text.split("\n"):
        head = re.fullmatch(rf"({'|'.join(SECTIONS)}):", line)
        if head:
            title = head[1]
            parts[title] = []
        elif title and line and not line.startswith(" "):
            title = ""
            parts[""].append(line)
        else:
            parts[title].append(line[4:] if title and line.startswith("    ") else line)
    return {name: "\n".join(lines).strip("\n") for name, lines in parts.items()}


def entries(text: str) -> dict[str, str]:
    """``name: meaning`` lines, continued below with more indentation, as name -> meaning."""
    meanings = {}
    for line in text.split("\n"):
        head = re.match(r"(\*{0,2}\w[\w., *]*): +(.*)", line)
        if head:
            key = head[1]
            meanings[key] = head[2]
        elif line.strip() and meanings:
            meanings[key] += " " + line.strip()
    return {
        name.strip().lstrip("*"): meaning
        for names, meaning in meanings.items()
        for name in names.split(", ")
    }


def _exports(room: str) -> dict[str, str]:
    """Public name -> module, as the room's ``__init__`` lists them."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exports":
            return ast.literal_eval(node.args[1])
    raise ValueError(f"mtl_course/{room}/__init__.py has no `exports(__name__, {{...}})`.")


def public(room: str) -> Iterator[Name]:
    """The names that a room lists, in its order.

    ValueError for one that its module does not define.
    """
    trees = {}
    for name, module in _exports(room).items():
        if module not in trees:
            path = PACKAGE / room / (module.replace(".", "/") + ".py")
            if not path.exists():
                path = PACKAGE / room / module / "__init__.py"
            trees[module] = ast.parse(path.read_text(encoding="utf-8"))
        yield Name(room, name, module, *_definition(trees[module], name, f"{room}/{module}"))


def _definition(tree: ast.Module, name: str, where: str) -> tuple[ast.AST, str]:
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, ast.get_docstring(node) or ""
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return node, str(after.value.value).strip() if said else ""
    raise ValueError(f"mtl_course/{where}.py does not define {name!r}, which its room lists.")
