"""Tables with names: numbers scaled and categories numbered, by what the training rows show."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Columns:
    """Turns the columns of a table into one array of numbers, for `networks.TableEmbedding`.

    Called with a table it gives float32 [N, C]: numbers first, in standard deviations from the
    training mean, then the codes of the categories, from 1 on. A category that training has not
    seen is refused or, with ``unknown="zero"``, gets code 0, which a network reads as nothing.
    `numbers` and `levels` are what `networks.TableEmbedding` asks for.

    Args:
        train: column -> values [N] of the training rows: a dict, a data set or a pandas DataFrame.
        numbers: names of the columns with numbers.
        categories: names of those with categories: texts, whole numbers, or anything that can be
            told apart by ``==``.
        unknown: "refuse" or "zero".

    Raises:
        ValueError: for a column that is missing or has another length, a number or category that is
            missing (NaN), a category that training has not seen, a column of numbers that is the
            same everywhere in training, or another `unknown`. It names column and row.

    Example:
        >>> train = {"age": [20, 30, 40], "job": ["cook", "smith", "cook"]}
        >>> columns = Columns(train, numbers=["age"], categories=["job"])
        >>> columns.levels, columns(train)[:, 1].tolist()
        ({'job': 2}, [1.0, 2.0, 1.0])
        >>> columns({"age": [30, 35], "job": ["smith", "clerk"]})
        Traceback (most recent call last):
        ValueError: Row 1 has 'clerk' in column 'job', which no training row has...
    """

    def __init__(
        self,
        train: Mapping[str, ArrayLike],
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        unknown: str = "refuse",
    ):
        if unknown not in ("refuse", "zero"):
            raise ValueError(f"unknown must be 'refuse' or 'zero'; it is {unknown!r}.")
        self.numbers, self.unknown = list(numbers), unknown
        if twice := {name for name in self.numbers if name in categories}:
            raise ValueError(
                f"Column {sorted(twice)[0]!r} is among the numbers and the categories."
            )
        self._codes = {name: {} for name in categories}
        self._rows(train)
        values = np.column_stack([self._numbers(train, name) for name in self.numbers] or [[]])
        self._mean, self._deviation = values.mean(0), values.std(0)
        for name, low, high in zip(self.numbers, values.min(0), values.max(0), strict=False):
            if low == high:
                raise ValueError(
                    f"Column {name!r} is {low:g} in all training rows: it says nothing, so leave it"
                    " out."
                )
        for name in categories:
            kinds = dict.fromkeys(self._categories(train, name))
            self._codes[name] = {kind: code for code, kind in enumerate(_in_order(kinds), 1)}

    @property
    def levels(self) -> dict[str, int]:
        """Column -> how many categories the training rows have there."""
        return {name: len(codes) for name, codes in self._codes.items()}

    def categories(self, name: str) -> list:
        """The categories of a column in the order of their codes, which begin at 1."""
        return list(self._codes[name])

    def __call__(self, table: Mapping[str, ArrayLike]) -> NDArray:
        """The rows of a table as float32 [N, C]; ValueError as from the class."""
        x = np.empty((self._rows(table), len(self.numbers) + len(self._codes)), dtype=np.float32)
        for place, name in enumerate(self.numbers):
            values = self._numbers(table, name)
            x[:, place] = (values - self._mean[place]) / self._deviation[place]
        for place, (name, codes) in enumerate(self._codes.items(), len(self.numbers)):
            values = self._categories(table, name)
            x[:, place] = column = np.array([codes.get(value, 0) for value in values])
            if self.unknown == "refuse" and not column.all():
                row = int((column == 0).argmax())
                raise ValueError(
                    f"Row {row} has {values[row]!r} in column {name!r}, which no training row has."
                    ' With unknown="zero" it counts as nothing.'
                )
        return x

    def _rows(self, table: Mapping[str, ArrayLike]) -> int:
        """The rows of a table; ValueError unless it has every column, all of one length."""
        names = [*self.numbers, *self._codes]
        if not names:
            raise ValueError("Name at least one column, among `numbers` or `categories`.")
        if missing := [name for name in names if name not in table]:
            raise ValueError(
                f"The table has no column {', '.join(map(repr, missing))}; it has"
                f" {', '.join(map(repr, table))}."
            )
        lengths = {name: len(table[name]) for name in names}
        rows = lengths[names[0]]
        if other := [name for name in names if lengths[name] != rows]:
            raise ValueError(
                f"Column {other[0]!r} has {lengths[other[0]]} rows and {names[0]!r} has {rows}."
            )
        if not rows:
            raise ValueError("The table has no rows.")
        return rows

    def _numbers(self, table: Mapping[str, ArrayLike], name: str) -> NDArray:
        """A column of numbers, float64 [N]."""
        try:
            values = np.asarray(table[name], dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"Column {name!r} is no column of numbers: is it one of categories?"
            ) from None
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise ValueError(
                f"Row {bad[0]} has {values[bad[0]]} in column {name!r}: fill it, for instance with"
                " the training mean, or leave the column out."
            )
        return values

    def _categories(self, table: Mapping[str, ArrayLike], name: str) -> list:
        """A column of categories as plain objects."""
        values = np.asarray(table[name]).tolist()
        if (row := next((row for row, v in enumerate(values) if v != v), None)) is not None:
            raise ValueError(
                f"Row {row} has {values[row]} in column {name!r}: give what is missing a category"
                " of its own, such as 'missing'."
            )
        return values


def _in_order(kinds) -> list:
    """Categories in their order or, where there is none, in that of their texts."""
    try:
        return sorted(kinds)
    except TypeError:
        return sorted(kinds, key=repr)
