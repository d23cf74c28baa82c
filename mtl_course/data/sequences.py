"""Texts and series of unequal length as tensors, and batches of them with little padding.

Texts are padded with 0, series with NaN, after the end: see `mtl_course.networks.sequences`.

    ids = text_ids(texts, tokens, length=64)  # tokens: a `networks.WordPiece`
    train = Sequences(ids, {"stars": stars, "department": department})
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .batches import Table


def pad(series: Sequence[ArrayLike]) -> Tensor:
    """Series of unequal length in one tensor, NaN after the end of each.

    Args:
        series: N arrays [L_n, D], or [L_n] for one column.

    Returns:
        float32 [N, L, D], L the length of the longest.

    Raises:
        ValueError: if there is none, one has no step or other columns than the first, or a number
            is missing or infinite. It names the series, the step and the column.

    Example:
        >>> x = pad([[[1.0], [2.0], [3.0]], [[4.0]]])
        >>> list(x.shape), x[1, :, 0].tolist()
        ([2, 3, 1], [4.0, nan, nan])
    """
    rows = [np.asarray(row, dtype=np.float32) for row in series]
    rows = [row[:, None] if row.ndim == 1 else row for row in rows]
    if not rows:
        raise ValueError("There is no series.")
    for number, row in enumerate(rows):
        if row.ndim != 2 or not row.size:
            raise ValueError(
                f"Series {number} has the shape {list(row.shape)}; it needs at least one step and"
                " one column."
            )
        if row.shape[1] != rows[0].shape[1]:
            raise ValueError(
                f"Series {number} has {row.shape[1]} columns and series 0 has {rows[0].shape[1]}."
            )
        if not np.isfinite(row).all():
            step, column = np.argwhere(~np.isfinite(row))[0]
            raise ValueError(
                f"Series {number} has {row[step, column]} at step {step}, column {column}: fill it,"
                " or cut the series there."
            )
    x = torch.full((len(rows), max(map(len, rows)), rows[0].shape[1]), torch.nan)
    for number, row in enumerate(rows):
        x[number, : len(row)] = torch.from_numpy(row)
    return x


def text_ids(
    texts: Iterable[str], tokens: Callable[..., Tensor], length: int = 256, unknown: int = 1
) -> Tensor:
    """Texts as numbers of tokens, refusing those that say nothing.

    Args:
        texts: N texts, in any collection.
        tokens: (list of texts, length) -> int64 [N, L], 0 after the end, with a start and an end
            token: a `networks.WordPiece`.
        length: tokens of a text at most; what is longer is cut.
        unknown: the number of the unknown token.

    Returns:
        int64 [N, L].

    Raises:
        ValueError: for a row that is no text, or is empty, or of which no piece is in the
            vocabulary; it names the row. Also if there is none.

    Example:
        >>> from mtl_course.networks import WordPiece
        >>> tokens = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "it", "fit", "##s"])
        >>> text_ids(["It fits", "it"], tokens).tolist()
        [[2, 4, 5, 6, 3], [2, 4, 3, 0, 0]]
        >>> text_ids(["it fits", "quite"], tokens)
        Traceback (most recent call last):
        ValueError: Row 1, 'quite', has no piece that is in the vocabulary.
    """
    texts = list(texts)
    if not texts:
        raise ValueError("There is no text.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Row {row} is no text but {text!r}: leave it out.")
        if not text.strip():
            raise ValueError(f"Row {row} is an empty text: leave it out.")
    ids = tokens(texts, length)
    sizes = (ids != 0).sum(1) - 2  # without start and end
    silent = (ids == unknown).sum(1) >= sizes
    if silent.any():
        row = int(silent.nonzero()[0])
        raise ValueError(f"Row {row}, {texts[row][:40]!r}, has no piece that is in the vocabulary.")
    return ids


class Sequences(Table):
    """A `Table` of padded sequences, in batches of like length and little padding.

    Every epoch shuffles the rows, sorts `pool` batches at a time by length, cuts them into batches
    as long as their longest row, and shuffles these. Short and long rows so come together less
    often than by chance.

    Args:
        x: texts int64 [N, L] with 0, or series [N, L, D] with NaN after the end.
        targets: task -> labels [N, ...], on the device of x.
        labelled: task -> bool [N], True where the label may be used, as in `Table`.
        pool: batches that are sorted together; 1 sorts nothing.

    Raises:
        ValueError: as from `Table`, for inputs of another shape, and for a row without any token or
            step, or one that goes on after its padding; it names the row.

    Example:
        >>> x = torch.tensor([[5, 0, 0], [7, 8, 9], [6, 0, 0], [4, 3, 2]])
        >>> rows = Sequences(x, {"kind": torch.tensor([0, 1, 0, 1])}, pool=2)
        >>> sorted(batch.x.shape[1] for batch in rows.batches(2, torch.Generator().manual_seed(0)))
        [1, 3]
    """

    def __init__(
        self,
        x: Tensor,
        targets: Mapping[str, Tensor],
        labelled: Mapping[str, Tensor] | None = None,
        pool: int = 16,
    ):
        super().__init__(x, targets, labelled)
        series = x.is_floating_point()
        if x.dim() != 2 + series:
            raise ValueError(
                "Sequences are int64 [N, L] for texts or floats [N, L, D] for series; these are"
                f" {x.dtype} {list(x.shape)}."
            )
        if pool < 1:
            raise ValueError(f"pool must be at least 1; it is {pool}.")
        there = ~x.isnan().all(-1) if series else x != 0
        self.pool, self.lengths = pool, there.sum(1).cpu()
        if (empty := self.lengths == 0).any():
            raise ValueError(
                f"Row {int(empty.nonzero()[0])} has nothing but padding: leave it out."
            )
        ends = there.shape[1] - there.flip(1).int().argmax(1).cpu()
        if (gaps := ends != self.lengths).any():
            raise ValueError(
                f"Row {int(gaps.nonzero()[0])} goes on after its padding, which stands at the end"
                " only: fill the gap, or cut the row there."
            )

    def only(self, names: Iterable[str]) -> "Sequences":
        """The same sequences with the labels of these tasks alone."""
        table = super().only(names)
        return Sequences(self.x, table.targets, table.labelled, self.pool)

    def _order(self, groups: Sequence[int], generator: torch.Generator) -> Tensor:
        """The rows of an epoch in the order of its batches, whose sizes are `groups`."""
        rows = super()._order(groups, generator)
        # a last batch of another size stays the last
        whole = len(rows) if groups[-1] == groups[0] else sum(groups[:-1])
        size = groups[0]
        pools = rows[:whole].split(size * self.pool)
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in pools]
        batches = [batch for pool in pools for batch in pool.split(size)]
        batches = [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
        return torch.cat([*batches, rows[whole:]])

    def _widths(self, order: Tensor, groups: Sequence[int]) -> list[int]:
        """The length of each batch's longest row."""
        lengths, ends = self.lengths[order].tolist(), list(accumulate(groups, initial=0))
        return [max(lengths[start:end]) for start, end in pairwise(ends)]
