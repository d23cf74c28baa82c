"""Tables of results: HTML in a notebook, aligned text of at most 76 columns elsewhere."""

import html
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from .._markup import to_html, to_text
from .._output import BORDER, NBSP, WIDTH, Output, show, wrapped

GAP = 2  # spaces between the columns of the text
BROAD = 36  # characters after which the text of a cell is broken
SHORT = 24  # characters up to which a page does not break it
NUMBER = re.compile(r"[+\-−±]?\.?\d[\d.,]*(e[+\-−]?\d+)?\s?%?")


@dataclass(frozen=True)
class _Cell:
    """A cell: its text (Markdown), a spread beside it, and what it is ranked by."""

    text: str
    spread: str = ""
    value: float | None = None
    best: bool = False

    @property
    def plain(self) -> str:
        return to_text(f"{self.text} {self.spread}" if self.spread else self.text)


def table(
    rows,
    caption: str = "",
    *,
    note: "str | object | Sequence | None" = None,
    digits: "int | str | Mapping" = 3,
    best: "str | Mapping | None" = None,
    by: str = "column",
    corner: str = "",
    over: str = "seeds",
) -> None:
    """Show results as a table: the names of its rows in the first column, numbers to the right.

    A notebook shows HTML; where there is none, aligned text is printed, and what is too wide for
    76 characters goes on below with the first column repeated. A cell is a number, a text, None
    (a dash), an array with one value per seed, which shows as mean ± sample standard deviation, or
    what `claims.paired` gives, which shows as mean ± 95 % limit. Which of these the table has is
    said below it. Captions, headers and texts may have `code`, **bold** and short $formulas$.

    Args:
        rows: a dict of columns, header -> list of cells, of which the first names the rows; or a
            dict of rows, name -> {header: cell}; or a pandas DataFrame, whose index names the rows
            unless it only counts them.
        caption: what the table says, above it.
        note: below in small type: a text, a record of `mtl_course.records`, or a list of these.
        digits: decimals of what is no whole number, or a format such as ``"+.2f"`` or ``".0%"``;
            or header -> one of these.
        best: ``"max"`` or ``"min"``: the best number is bold (in the text it has a star), and what
            shows as the same number too; or header (of a row, where `by` is ``"row"``) -> one of
            these, for some only.
        by: where to look for the best, in each ``"column"`` or each ``"row"``.
        corner: header of the first column, where `rows` has none for it.
        over: what the values of an array belong to, for the line below.

    Raises:
        ValueError: columns of different lengths, an array of more than one dimension, or a word
            for `best` or `by` that is none of the above.

    Example:
        >>> table(
        ...     {"labels": [1, 5], "scratch": [[0.50, 0.60], [0.78, 0.80]], "tuned": [0.6, 0.7]},
        ...     "Test accuracy",
        ...     best="max",
        ...     by="row",
        ... )
        Test accuracy
        labels         scratch   tuned
             1   0.550 ± 0.071   0.600*
             5   0.790 ± 0.014*  0.700
        Mean ± standard deviation over 2 seeds. * best of its row
    """
    headers, cells = _columns(rows, corner)
    shown, legend = _cells(headers, cells, digits, over)
    marked = _mark(headers, shown, best, by)
    notes = _notes(note)
    if marked:
        where = {"column": "its column", "row": "its row"}[by]
        starred = [*legend, f"* best of {where}"]
        legend = [*legend, f"Bold: best of {where}"]
    else:
        starred = legend
    text = _text(headers, shown, caption, [*_line(starred), *notes])
    show(Output(_html(headers, shown, caption, [*_line(legend), *notes]), text))


def _line(legend: list[str]) -> list[str]:
    return [". ".join(legend)] if legend else []


def _notes(note) -> list[str]:
    """The lines below a table; a record's own line breaks are the page's affair."""
    if note is None:
        return []
    several = note if isinstance(note, list | tuple) else [note]
    return [" ".join(str(one).split()) for one in several]


def _columns(rows, corner: str) -> tuple[list[str], list[list]]:
    """Headers, and the cells of each column."""
    if hasattr(rows, "columns") and hasattr(rows, "index"):  # a DataFrame, without importing pandas
        columns = {_joined(name): list(rows[name]) for name in rows.columns}
        if type(rows.index).__name__ != "RangeIndex":
            names = [_joined(name) for name in rows.index]
            columns = {str(rows.index.name or corner): names, **columns}
    elif rows and all(isinstance(row, Mapping) for row in rows.values()):
        headers = list(dict.fromkeys(header for row in rows.values() for header in row))
        columns = {corner: list(rows)}
        columns |= {str(h): [row.get(h) for row in rows.values()] for h in headers}
    else:
        columns = {str(name): list(column) for name, column in rows.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a table have the same length; these have {lengths}")
    return list(columns), list(columns.values())


def _joined(name) -> str:
    """A name as text; one of several levels as ``a, b``."""
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _cells(headers, columns, digits, over) -> tuple[list[list[_Cell]], list[str]]:
    """The cells as they are shown, column by column; and what their ± means."""
    shown, seeds, limits = [], set(), set()
    for header, column in zip(headers, columns, strict=True):
        spec = digits.get(header, 3) if isinstance(digits, Mapping) else digits
        spec = f".{spec}f" if isinstance(spec, int) else spec
        written = isinstance(digits, str) or (isinstance(digits, Mapping) and header in digits)
        shown.append([_cell(value, spec, written, seeds, limits) for value in column])
    legend = []
    if seeds:
        counts = sorted(seeds)
        some = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        legend.append(f"Mean ± standard deviation over {some} {over}")
    if limits:
        both = "Differences: mean" if seeds else "Mean of the differences"
        legend.append(f"{both} ± 95 % limit, paired")
    return shown, legend


def _cell(value, spec: str, written: bool, seeds: set, limits: set) -> _Cell:
    """One cell. `written`: whether its format was asked for, and so is for whole numbers too."""
    if value is None:
        return _Cell("–")
    if isinstance(value, str):
        return _Cell(value)
    if isinstance(value, bool | np.bool_):
        return _Cell("yes" if value else "no")
    if hasattr(value, "mean") and hasattr(value, "limit"):  # what `claims.paired` gives
        limits.add(value.seeds)
        return _pair(value.mean, value.limit, spec)
    if isinstance(value, Integral):
        text = format(int(value), spec if written and not spec.startswith(".") else "d")
        return _Cell(text, value=float(value))
    if isinstance(value, Real):
        return _Cell(format(float(value), spec), value=float(value))
    array = np.asarray(value, dtype=float)
    if array.ndim > 1 or array.size == 0:
        raise ValueError(f"a cell has one value per seed, [S]; this has shape {array.shape}")
    if array.size == 1:
        return _Cell(format(float(array.item()), spec), value=float(array.item()))
    seeds.add(array.size)
    return _pair(float(array.mean()), float(array.std(ddof=1)), spec)


def _pair(mean: float, spread: float, spec: str) -> _Cell:
    text = format(mean, spec)
    return _Cell(text, f"± {format(spread, spec.replace('+', ''))}", mean)


def _mark(headers, shown, best, by) -> bool:
    """Mark the best cells, in place; whether there are any."""
    if by not in ("column", "row"):
        raise ValueError(f'by is "column" or "row", not {by!r}')
    if best is None:
        return False
    if by == "column":
        lines = [
            (header, [(i, j) for j in range(len(column))])
            for i, (header, column) in enumerate(zip(headers, shown, strict=True))
        ][1:]
    else:
        lines = [
            (name.text, [(i, j) for i in range(1, len(shown))]) for j, name in enumerate(shown[0])
        ]
    directions = best if isinstance(best, Mapping) else {name: best for name, _ in lines}
    if not set(directions.values()) <= {"max", "min"}:
        raise ValueError(f'best is "max" or "min", not {best!r}')
    directions = {str(name): direction for name, direction in directions.items()}
    if unknown := set(directions) - {name for name, _ in lines}:
        raise ValueError(f"best names {sorted(unknown)}, which the table does not have")
    for name, places in lines:
        ranked = [
            (shown[i][j].value, i, j)
            for i, j in places
            if shown[i][j].value is not None and not math.isnan(shown[i][j].value)
        ]
        if name in directions and len(ranked) > 1:
            _, i, j = (max if directions[name] == "max" else min)(ranked, key=lambda r: r[0])
            winner = shown[i][j].text
            for _, i, j in ranked:
                if shown[i][j].text == winner:
                    cell = shown[i][j]
                    shown[i][j] = _Cell(cell.text, cell.spread, cell.value, best=True)
    return any(cell.best for column in shown for cell in column)


def _is_number(column: list[_Cell], is_name: bool = False) -> bool:
    """Whether a column is set flush right: numbers, or texts that begin like one.

    The names of the rows must be nothing but numbers: "5 labels" is a name, and stands left.
    """
    full = [cell for cell in column if cell.text != "–"]
    if is_name:
        return all(c.value is not None or NUMBER.fullmatch(c.text) for c in full)
    return all(c.value is not None or c.text[:1] in "0123456789+-−±" for c in full)


# --------------------------------------------------------------------------------------------- text
def _text(headers, shown, caption, notes) -> str:
    """The table as aligned text, in as many blocks as its width asks for."""
    columns = []
    for i, (header, column) in enumerate(zip(headers, shown, strict=True)):
        columns.append(_text_column(to_text(header), column, i == 0))
    head, rest = columns[0], columns[1:]
    blocks, block = [], [head]
    for column in rest:
        if len(block) > 1 and sum(map(_width, [*block, column])) + GAP * len(block) > WIDTH:
            blocks.append(block)
            block = [head]
        block.append(column)
    blocks.append(block)
    parts = [wrapped(to_text(caption))] if caption else []
    parts.append("\n\n".join(map(_block, blocks)))
    return "\n".join([*parts, *(wrapped(to_text(note)) for note in notes)])


def _text_column(header: str, column: list[_Cell], is_name: bool) -> list[list[str]]:
    """A column as text: the lines of its header and of each cell, all of one width."""
    right = _is_number(column, is_name)
    starred = any(cell.best for cell in column)
    cells = []
    for cell in column:
        lines = textwrap.wrap(cell.plain, BROAD) or [""]
        lines[-1] += "*" if cell.best else " " * starred
        cells.append(lines)
    broad = max([len(line) for lines in cells for line in lines] or [0])
    words = max(map(len, header.split()), default=0)
    lines = textwrap.wrap(header, max(broad - starred, words, 10)) or [""]
    if right and starred:
        lines = [f"{line} " for line in lines]
    cells = [lines, *cells]
    width = max(len(line) for lines in cells for line in lines)
    return [[line.rjust(width) if right else line.ljust(width) for line in c] for c in cells]


def _width(column: list[list[str]]) -> int:
    return len(column[0][0])


def _block(columns: list[list[list[str]]]) -> str:
    """Some columns side by side."""
    lines = []
    for i in range(len(columns[0])):
        height = max(len(column[i]) for column in columns)
        for k in range(height):
            row = []
            for column in columns:
                # A header stands on the line above its cells, a long cell hangs from its row.
                at = k - (height - len(column[i])) if i == 0 else k
                blank = " " * _width(column)
                row.append(column[i][at] if 0 <= at < len(column[i]) else blank)
            lines.append((" " * GAP).join(row).rstrip())
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------- HTML
def _html(headers, shown, caption, notes) -> str:
    """The table as HTML, the same in every run: no ids."""
    sides = ["right" if _is_number(column, i == 0) else "left" for i, column in enumerate(shown)]
    thick = "border-bottom:2px solid rgba(128,128,128,.6)"
    parts, above = [], ""
    if caption:  # above the table and not in it, where it would be no wider than the table
        style = "font-weight:600;font-size:.85em;line-height:1.4;padding:.2em 0"
        above = f'<div class="mtl-caption" style="{style}">{to_html(caption)}</div>'
    heads = (
        f'<th scope="col" style="{_box(side)};vertical-align:bottom;{thick}">{to_html(h)}</th>'
        if h
        else f'<td style="{_box(side)};{thick}"></td>'
        for h, side in zip(headers, sides, strict=True)
    )
    parts.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for j in range(len(shown[0])):
        name = shown[0][j]
        head = f'<th scope="row" style="{_box(sides[0])};font-weight:400">{_inner(name, True)}</th>'
        cells = "".join(
            f'<td style="{_box(side)}">{_inner(column[j])}</td>'
            for column, side in zip(shown[1:], sides[1:], strict=True)
        )
        parts.append(f"<tr>{head}{cells}</tr>")
    parts.append("</tbody>")
    label = html.escape(to_text(caption) or "Table")
    style = (
        "border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85em;width:auto;"
        "margin:0"
    )
    small = "".join(
        f'<div class="mtl-note" style="font-size:.8em;line-height:1.4;margin-top:.3em;'
        f'overflow-wrap:anywhere">{to_html(note)}</div>'
        for note in notes
    )
    return (
        f'<div class="mtl-table" style="margin:.5em 0">{above}'
        f'<div role="group" aria-label="{label}" tabindex="0" style="overflow-x:auto">'
        f'<table style="{style}">{"".join(parts)}</table>'
        f"</div>{small}</div>"
    )


def _box(side: str) -> str:
    return f"text-align:{side};padding:.25em .5em;border:0;border-bottom:{BORDER}"


def _inner(cell: _Cell, is_name: bool = False) -> str:
    """What stands in a cell: a mean and its spread stay together, whatever a page's styles say.

    A short text breaks only if it is a list, and a name not even then.
    """
    text = to_html(cell.text)
    if cell.value is None:
        if len(cell.text) <= SHORT and ", " in cell.text and not is_name:
            return text
        style = "white-space:nowrap" if len(cell.text) <= SHORT else "display:block;min-width:9em"
        return f'<span style="{style}">{text}</span>'
    text = text.replace("-", "−")
    text = f"<strong>{text}</strong>" if cell.best else text
    if cell.spread:
        spread = cell.spread.replace("-", "−").replace(" ", NBSP)
        text = f'{text}{NBSP}<span style="font-size:.9em">{spread}</span>'
    return f'<span class="mtl-number" style="white-space:nowrap">{text}</span>'
