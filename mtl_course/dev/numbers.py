"""Where the numbers of a chapter's prose come from.

``python -m mtl_course.dev numbers NN`` lists those without a source and proposes one; ``--write``
keeps what it proposes in ``tests/numbers/NN.json``. A decimal, a percentage or a number of points
is one of

- shown: an output or the code of the named cell has it, or a number that rounds to it;
- worked: an expression in the file, such as ``= 1 - 0.3 / 2``, gives it;
- cited: the prose links the work that states it, and the file names the link;
- given: it is no result but a setting or a line of a worked example, and the file says which.

A number that a cell of prose has several times has their count before its source (``3 x shown
...``), so that none of them can be altered unseen.

A test holds the file against the notebooks: altering a decimal in the prose, or a result in a
table, turns it red.
"""

import argparse
import ast
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import notebooks

FOLDER = notebooks.ROOT / "tests" / "numbers"
# Numbers that are no results: addresses, code, the headings' counts, chapters and equations.
ELSEWHERE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)\s]*\)|<[^>]*>|\\tag\{[^}]*\}", re.S)
WRITTEN = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:,\d{3})*\.\d+|\d+\.\d+"
    r"|\d+(?=(?:\\,|\s|\u00a0)*(?:\\?%|per cent\b|points?\b)))(?![\w]|\.\d)"
)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\.?\d*(?:e[+-]?\d+)?(?!\w)", re.I)
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
FUNCTIONS = {name: getattr(math, name) for name in ("sqrt", "exp", "log", "cos", "sin", "comb")}


def written(source: str) -> Counter[str]:
    """The numbers of a Markdown cell that need a source, as they stand there, and how often."""
    return Counter(WRITTEN.findall(ELSEWHERE.sub(" ", source)))


def counted(source: str) -> tuple[int, str]:
    """How many times the file says that a number stands in its cell, and its source."""
    times, source = re.fullmatch(r"(?:(\d+) x )?(.*)", source, re.S).groups()
    return int(times or 1), source


def rounds_to(value: float, number: str) -> bool:
    """Whether a value, or a hundred times it, is the written number at its number of decimals."""
    decimals = len(number.partition(".")[2])
    wanted = float(number.replace(",", ""))
    near = 0.5 * 10**-decimals + 1e-9 * max(1, wanted)
    scales = (1,) if decimals > 2 else (1, 100)
    return any(abs(abs(value) * scale - wanted) <= near for scale in scales)


def values(text: str) -> Iterator[float]:
    """The numbers in an output or in code."""
    for match in NUMBER.findall(text):
        try:
            yield float(match.replace(",", ""))
        except ValueError:
            continue


def text_of(cell) -> str:
    """What a cell shows and what its code says; prose is no source for prose."""
    if cell.cell_type != "code":
        return ""
    shown = [cell.source]
    for output in cell.get("outputs", []):
        shown.append(output.get("text", ""))
        shown.append(output.get("data", {}).get("text/plain", ""))
        alt = re.findall(r'alt="([^"]*)"', output.get("data", {}).get("text/html", ""))
        shown += alt
    return "\n".join(shown)


def worked(expression: str) -> float:
    """The value of an arithmetic expression of numbers.

    Raises:
        ValueError: it is more than that.
    """

    def value(node):
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return ARITHMETIC[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(value, args))
        raise ValueError(f"{expression!r} is not arithmetic with numbers alone")

    return value(ast.parse(expression.strip(), mode="eval").body)


def fault(number: str, source: str, cell, cells: dict) -> str | None:
    """What is wrong with a number's source, or None."""
    kind, _, rest = source.partition(" ")
    if kind == "=":
        return None if rounds_to(worked(rest), number) else f"{rest} is {worked(rest):g}"
    if kind == "cited":
        return None if f"]({rest})" in cell.source else f"the cell does not link {rest}"
    if kind == "given":
        return None if len(rest) > 3 else "say what it is"
    if kind != "shown":
        return f"a source is shown, =, cited or given, not {kind!r}"
    if rest not in cells:
        return f"there is no cell {rest}"
    if any(rounds_to(value, number) for value in values(text_of(cells[rest]))):
        return None
    return f"cell {rest} does not show it"


def faults(nb, sources: dict[str, dict[str, str]]) -> list[str]:
    """What is wrong with a chapter's file: numbers without a source, sources that lack them."""
    cells, found = {cell.id: cell for cell in nb.cells}, []
    prose = {cell.id: written(cell.source) for cell in nb.cells if cell.cell_type == "markdown"}
    for name, numbers in prose.items():
        listed = sources.get(name, {})
        found += [f"cell {name}: {n} has no source" for n in numbers if n not in listed]
        found += [f"cell {name}: {n} is not in the prose" for n in listed if n not in numbers]
        for number in filter(listed.__contains__, numbers):
            times, source = counted(listed[number])
            if times != numbers[number]:
                found.append(f"cell {name}: {number} stands there {numbers[number]} times")
            if wrong := fault(number, source, cells[name], cells):
                found.append(f"cell {name}: {number}: {wrong}")
    found += [f"there is no Markdown cell {name}" for name in sources if name not in prose]
    return found


def proposal(number: str, place: int, cells: list) -> str | None:
    """The nearest cell that shows the number, above it first; a person looks whether it is that."""
    for i in [*range(place - 1, -1, -1), *range(place + 1, len(cells))]:
        if notebooks.is_first(cells[i]):
            continue
        if any(rounds_to(value, number) for value in values(text_of(cells[i]))):
            return f"shown {cells[i].id}"
    return None


def proposed(nb, sources: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The file as it may be: what holds is kept, the rest is found anew where it can be.

    A cell that came under another id takes over the sources of the cell that is gone and has most
    of its numbers.
    """
    cells, new = {cell.id: cell for cell in nb.cells}, {}
    gone = [listed for name, listed in sources.items() if name not in cells]
    for place, cell in enumerate(nb.cells):
        if cell.cell_type != "markdown":
            continue
        numbers = written(cell.source)
        alike = max(gone, key=lambda listed: len(numbers.keys() & listed), default={})
        known = sources.get(cell.id, alike)
        for number, times in numbers.items():
            _, source = counted(known.get(number, ""))
            if not source or fault(number, source, cell, cells):
                source = proposal(number, place, nb.cells)
            if source:
                prefix = f"{times} x " if times > 1 else ""
                new.setdefault(cell.id, {})[number] = prefix + source
    return new


def load(number: str, folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """Markdown cell -> number -> source, of a chapter; empty if it has no file."""
    path = folder / f"{number}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev numbers", description=__doc__)
    parser.add_argument("chapters", nargs="*", metavar="NN", help="chapters (default: all)")
    parser.add_argument("--write", action="store_true", help="keep the sources that were found")
    options = parser.parse_args(arguments)
    lacking = 0
    for chapter, path in notebooks.chosen(parser, options.chapters, labs=True):
        nb = notebooks.read(path)
        sources = load(chapter.number)
        new = proposed(nb, sources)
        for cell in nb.cells:
            for number, source in new.get(cell.id, {}).items():
                if sources.get(cell.id, {}).get(number) != source:
                    print(f"{chapter.number} {cell.id} {number}: {source}  | {_line(cell, number)}")
        if options.write:
            FOLDER.mkdir(exist_ok=True)
            text = json.dumps(new, indent=1, ensure_ascii=False) + "\n"
            (FOLDER / f"{chapter.number}.json").write_text(text, encoding="utf-8")
            sources = new
        open_ = faults(nb, sources)
        lacking += len(open_)
        for line in open_:
            name, number = (
                re.match(r"cell (\S+): ([\d.,]+)", line).groups() if ":" in line else ("", "")
            )
            cell = next((c for c in nb.cells if c.id == name), None)
            print(f"{chapter.number} {line}" + (f"  | {_line(cell, number)}" if cell else ""))
    return int(lacking > 0)


def _line(cell, number: str) -> str:
    """The words around a number in a cell's prose."""
    text = " ".join(cell.source.split())
    place = re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text)
    return text[max(0, place.start() - 50) : place.end() + 30] if place else ""
