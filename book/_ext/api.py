"""The directive ``room``: what one room of the package offers, made from its docstrings.

``mtl_course/dev/docstrings.py`` reads the sources without importing them, for the book is built
without torch. The texts become nodes, never Markdown: a star, a bracket or a dollar sign in a
docstring stays what it is.
"""

import ast
import re
import sys
import textwrap
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

READER = Path("mtl_course", "dev", "docstrings.py")
WIDTH = 72  # characters; a longer signature has one parameter per line
CODE = re.compile(r"(``.+?``|`.+?`)", re.S)
ITEM = re.compile(r"(?:[-*]|\d+\.) +")


def reader(root: Path):
    """The module `mtl_course.dev.docstrings`, from its file: no package is installed here."""
    spec = spec_from_file_location("mtl_course_docstrings", root / READER)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def label(room: str, name: str) -> str:
    """The anchor of a room's name, such as ``api-data-Info``; ``api-data-info`` is another."""
    return f"api-{room}-{name}"


def signature(name) -> str:
    """The call as Python would read it, one parameter per line where one line is too short."""
    node = name.node
    returns = ""
    if isinstance(node, ast.ClassDef):
        arguments = [field_or_argument(node, parameter) for parameter in name.parameters]
    elif isinstance(node, ast.FunctionDef):
        arguments = listed(node.args)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    else:
        return ast.unparse(node)
    line = f"{name.name}({', '.join(arguments)}){returns}"
    if len(line) <= WIDTH or not arguments:
        return line
    rows = "".join(f"    {argument},\n" for argument in arguments)
    return f"{name.name}(\n{rows}){returns}"


def listed(given: ast.arguments) -> list[str]:
    """The parameters of a function with their types and defaults, without ``self``."""
    named = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(named) - len(given.defaults)) + given.defaults
    rows = [one(argument, default) for argument, default in zip(named, defaults, strict=True)]
    if named and named[0].arg in ("self", "cls"):
        rows = rows[1:]
    if given.vararg:
        rows.append("*" + one(given.vararg))
    elif given.kwonlyargs:
        rows.append("*")
    rows += [one(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return rows + (["**" + one(given.kwarg)] if given.kwarg else [])


def one(argument: ast.arg, default: ast.expr | None = None) -> str:
    """``name: type = default``, as far as they are there."""
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    if default is None:
        return f"{argument.arg}{kind}"
    return f"{argument.arg}{kind}{' = ' if kind else '='}{ast.unparse(default)}"


def field_or_argument(node: ast.ClassDef, parameter: str) -> str:
    """What a class takes under this name: an argument of ``__init__``, or a dataclass's field."""
    for inside in node.body:
        if isinstance(inside, ast.FunctionDef) and inside.name == "__init__":
            rows = {re.match(r"\**(\w*)", row)[1]: row for row in listed(inside.args)}
            return rows[parameter]
        if isinstance(inside, ast.AnnAssign) and getattr(inside.target, "id", "") == parameter:
            default = f" = {ast.unparse(inside.value)}" if inside.value else ""
            return f"{parameter}: {ast.unparse(inside.annotation)}{default}"
    return parameter


def inline(text: str) -> list[nodes.Node]:
    """A line of a docstring: what stands between backticks as code, the rest as it is."""
    pieces = CODE.split(re.sub(r"\s+", " ", text.strip()))
    return [
        nodes.literal("", piece.strip("`")) if i % 2 else nodes.Text(piece)
        for i, piece in enumerate(pieces)
        if piece
    ]


def blocks(text: str) -> list[nodes.Node]:
    """Paragraphs, lists and indented code of a docstring."""
    made = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines if line.strip()):
            made.append(code(textwrap.dedent(block), "text"))
        elif ITEM.match(lines[0]):
            items = re.split(r"\n(?=(?:[-*]|\d+\.) +)", block)
            entries = [ITEM.sub("", item, count=1) for item in items]
            paragraphs = [nodes.paragraph("", "", *inline(entry)) for entry in entries]
            made.append(nodes.bullet_list("", *[nodes.list_item("", p) for p in paragraphs]))
        elif block.strip():
            made.append(nodes.paragraph("", "", *inline(block)))
    return made


def code(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


def terms(rows: list[tuple[str, str]]) -> nodes.definition_list:
    """Name and meaning, one below the other."""
    items = []
    for name, meaning in rows:
        term = nodes.term("", "", nodes.literal("", name))
        definition = nodes.definition("", nodes.paragraph("", "", *inline(meaning)))
        items.append(nodes.definition_list_item("", term, definition))
    return nodes.definition_list("", *items)


def entry(name, docstrings) -> list[nodes.Node]:
    """All that is shown of one name below its heading; `docstrings` is the `reader`."""
    if not name.text:
        raise ExtensionError(
            f"mtl_course/{name.room}/{name.module}.py: {name.name} has no docstring, and the"
            " appendix on the package shows every name that a room lists."
        )
    parts = docstrings.sections(name.text)
    shown = [code(signature(name), "python"), *blocks(parts[""])]
    if name.arguments:
        shown += [nodes.rubric("", "Arguments"), terms(list(name.arguments.items()))]
    for title in ("Returns", "Raises", "Source"):
        if not parts.get(title):
            continue
        errors = docstrings.entries(parts[title]) if title == "Raises" else {}
        shown.append(nodes.rubric("", title))
        shown += [terms(list(errors.items()))] if errors else blocks(parts[title])
    if parts.get("Example"):
        shown += [nodes.rubric("", "Example"), code(parts["Example"], "pycon")]
    home = f"mtl_course/{name.room}/{name.module.replace('.', '/')}.py"
    where = nodes.paragraph("", "", nodes.Text("Defined in "), nodes.literal("", home))
    where["classes"].append("home")
    return [*shown, where]


class Room(SphinxDirective):
    """One room by its name: what it is for, a table of its names, then each name."""

    required_arguments = 1

    def run(self):
        root, room = Path(self.env.srcdir), self.arguments[0]
        docstrings = reader(root)
        self.env.note_dependency(str(root / READER))
        for path in sorted((root / "mtl_course" / room).rglob("*.py")):
            self.env.note_dependency(str(path))
        names = list(docstrings.public(room))
        about = ast.get_docstring(
            ast.parse((root / "mtl_course" / room / "__init__.py").read_text(encoding="utf-8"))
        )
        use = f"from mtl_course.{room} import {names[0].name}"
        shown = [*blocks(about.split("\n\n")[0]), code(use, "python")]
        shown.append(self.index(room, names))
        for name in names:
            anchor = label(room, name.name)
            title = nodes.title("", "", nodes.literal("", name.name))
            section = nodes.section("", title, ids=[anchor], names=[anchor])
            self.state.document.note_explicit_target(section)
            section += entry(name, docstrings)
            shown.append(section)
        return shown

    def index(self, room: str, names) -> nodes.Node:
        """A list of the names with their summaries, each a link to its entry."""
        items = []
        for name in names:
            link = nodes.reference("", "", nodes.literal("", name.name), internal=True)
            link["refid"] = label(room, name.name)
            term = nodes.term("", "", link)
            about = nodes.definition("", nodes.paragraph("", "", *inline(name.summary)))
            items.append(nodes.definition_list_item("", term, about))
        return nodes.definition_list("", *items)


def setup(app):
    app.add_directive("room", Room)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
