"""Inputs of several kinds about the same row, a picture and its name, and what if one is missing.

    entries = {"picture": PictureCells(3, width=64), "name": WordTokens(pieces, width=64)}
    fusion = LateFusion(entries, width=64, dropout=0.5)
    fusion({"picture": x, "name": ids})  # features [B, 64]
    fusion({"picture": x}, there={"name": False})  # the same network, without names

Each kind of input is called a modality. A learned vector takes the place of one that is missing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .sequences import embedded, present
from .transformer import MultiHeadAttention, mean_of


# ---------------------------------------------------------------------------------------- entrances
class WordTokens(nn.Module):
    """An entrance for texts: int64 [B, L], padded with 0 -> tokens [B, L, width], and where.

    Args:
        pieces: of the vocabulary.
        width: numbers per word.

    Raises:
        ValueError: when called, for an empty row, a gap, or a token outside the vocabulary; it
            names the row.

    Example:
        >>> tokens, there = WordTokens(50, width=8)(torch.tensor([[2, 7, 0]]))
        >>> list(tokens.shape), there.tolist()
        ([1, 3, 8], [[True, True, False]])
    """

    def __init__(self, pieces: int, width: int):
        super().__init__()
        self.table = nn.Embedding(pieces, width, padding_idx=0)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, width], and bool [B, L], True where there is a word."""
        there = present(ids)
        return embedded(self.table, ids, there), there


class PictureCells(nn.Module):
    """An entrance for pictures: [B, C, H, H] -> a token for each cell of a coarse grid.

    Two 3x3 convolutions, each followed by ReLU and the maximum of 2x2 pixels, so that a cell is as
    wide as four pixels; a learned vector says where a cell is.

    Args:
        channels: of the pictures.
        width: numbers per cell.
        size: side of the pictures in pixels, a multiple of four.

    Raises:
        ValueError: for a size that is no multiple of four; when called, for pictures of another.

    Example:
        >>> tokens, there = PictureCells(3, width=8, size=16)(torch.zeros(2, 3, 16, 16))
        >>> list(tokens.shape), there.all().item()
        ([2, 16, 8], True)
    """

    def __init__(self, channels: int, width: int, size: int = 16):
        super().__init__()
        if size % 4 or size < 4:
            raise ValueError(
                f"A picture of {size} pixels has no whole cells: take a multiple of 4."
            )
        self.shape = channels, size, size
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width // 2, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.places = nn.Parameter(0.02 * torch.randn((size // 4) ** 2, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, cells, width], and bool [B, cells], True throughout."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"The pictures have the shape {list(x.shape[1:])}; this entrance was made for"
                f" {list(self.shape)}."
            )
        tokens = self.layers(x).flatten(2).transpose(1, 2) + self.places
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


class OneToken(nn.Module):
    """An entrance that makes a single token of what a module gives: [B, ...] -> [B, 1, width].

    Args:
        module: from inputs to features [B, width]: a trunk, or an ``nn.Embedding`` of categories.

    Example:
        >>> tokens, there = OneToken(nn.Embedding(6, 8))(torch.tensor([5, 1, 4]))
        >>> list(tokens.shape), list(there.shape)
        ([3, 1, 8], [3, 1])
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, 1, width], and bool [B, 1], True throughout."""
        tokens = self.module(x)[:, None]
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


# --------------------------------------------------------------------------------- modality dropout
def modality_dropout(
    there: Tensor, share: float, generator: torch.Generator | None = None
) -> Tensor:
    """Hide one modality in some rows, never the last one that a row has.

    With probability `share` a row loses one of the modalities that it has, each equally likely. A
    row that has only one keeps it.

    Args:
        there: bool [B, M], which of M modalities each row has.
        share: of the rows, from 0 to 1.
        generator: of the draws; None takes torch's own.

    Returns:
        bool [B, M], new. True only where `there` is.

    Raises:
        ValueError: for a share outside 0 to 1, or a row that has nothing; it names the row.

    Source:
        Neverova et al., "ModDrop: Adaptive Multi-Modal Gesture Recognition", IEEE TPAMI 2016,
        section 4.2, with one modality dropped at a time.

    Example:
        >>> both = torch.ones(1000, 2, dtype=torch.bool)
        >>> kept = modality_dropout(both, 0.5, torch.Generator().manual_seed(0))
        >>> kept.any(1).all().item(), 400 < (~kept).sum().item() < 600
        (True, True)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of rows that lose a modality is {share}; it is from 0 to 1.")
    if there.device.type == "cpu" and not (some := there.any(1)).all():
        raise ValueError(f"Row {int((~some).nonzero()[0])} has no modality at all: leave it out.")
    hit = torch.rand(len(there), generator=generator).to(there.device) < share
    draws = torch.rand(there.shape, generator=generator).to(there.device)
    chosen = draws.masked_fill(~there, -1.0).argmax(1)  # one that the row has, each equally likely
    lost = torch.zeros_like(there).scatter_(1, chosen[:, None], True)
    several = there.sum(1, keepdim=True) > 1
    return there & ~(lost & several & hit[:, None])


# ------------------------------------------------------------------------------------------- fusion
class _Modalities(nn.Module):
    """What both fusions do first: tokens of every modality, a learned one for what is missing.

    Args:
        entries: modality -> module from its inputs to (tokens [B, L, width], bool [B, L]).
        width: numbers per token.
        dropout: share of the rows that lose one modality in training, see `modality_dropout`.
    """

    def __init__(self, entries: Mapping[str, nn.Module], width: int, dropout: float = 0.0):
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout}; it is a share, from 0 to 1.")
        self.entries, self.dropout = nn.ModuleDict(entries), dropout
        self.missing = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(width)) for name in entries}
        )

    def _present(
        self, x: Mapping[str, Tensor], there: Mapping[str, Tensor | bool] | None
    ) -> Tensor:
        """Which modality each row has, bool [B, M]; after dropout, in training."""
        there = dict(there or {})
        if unknown := (set(x) | set(there)) - set(self.entries):
            raise ValueError(
                f"{', '.join(map(repr, sorted(unknown)))} is no modality of this network, which"
                f" has {', '.join(self.entries)}."
            )
        given = [name for name in self.entries if name in x]
        if not given:
            raise ValueError(f"There are no inputs: give {' or '.join(self.entries)}.")
        rows, device = len(x[given[0]]), x[given[0]].device
        for name in given:
            if len(x[name]) != rows:
                fewer, more = sorted((given[0], name), key=lambda n: len(x[n]))
                raise ValueError(
                    f"Row {len(x[fewer])} has a {more!r} without its {fewer!r}: there are"
                    f" {len(x[more])} rows of the one and {len(x[fewer])} of the other."
                )
        columns = []
        for name in self.entries:
            column = there.get(name, True)
            if name not in x and column is not False:
                raise ValueError(
                    f"A {given[0]!r} without its {name!r}: give the inputs {name!r}, or say that"
                    f" they are missing, with there={{{name!r}: False}}."
                )
            if isinstance(column, bool):
                column = torch.full((rows,), column, device=device)
            elif column.dtype != torch.bool or column.shape != (rows,):
                raise ValueError(
                    f"there[{name!r}] is {column.dtype} {list(column.shape)}; it is bool"
                    f" [{rows}], or one bool for all rows."
                )
            columns.append(column.to(device))
        kept = torch.stack(columns, dim=1)
        if self.training and self.dropout:
            return modality_dropout(kept, self.dropout)
        if kept.device.type == "cpu" and not (some := kept.any(1)).all():
            raise ValueError(
                f"Row {int((~some).nonzero()[0])} has none of {', '.join(self.entries)}: leave it"
                " out."
            )
        return kept

    def _tokens(self, x: Mapping[str, Tensor], kept: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens [B, L, width] and where they are, bool [B, L], of each modality."""
        tokens = []
        for (name, entry), rows in zip(self.entries.items(), kept.unbind(1), strict=True):
            blank = self.missing[name].expand(len(rows), 1, -1)
            first = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
            # only rows that have this modality go through its entrance
            if rows.any():
                z, there = entry(x[name][rows])
                whole = blank.repeat(1, z.shape[1], 1).index_put((rows,), z)
                places = first & (torch.arange(z.shape[1], device=rows.device) == 0)
                tokens.append((whole, places.index_put((rows,), there)))
            else:
                tokens.append((blank, first))
        return tokens


class LateFusion(_Modalities):
    """The mean token of each modality, side by side, through one layer: they meet at the end.

    Called with x, modality -> inputs of B rows, and perhaps `there`, modality -> bool [B] or one
    bool for all rows, it gives features [B, width]. A modality that no row has may be left out of
    x, if `there` says so.

    Args:
        entries: modality -> module from its inputs to (tokens [B, L, width], bool [B, L]).
        width: numbers per token, and features.
        dropout: share of the rows that lose one modality in training, see `modality_dropout`.

    Raises:
        ValueError: for a dropout outside 0 to 1; when called, for a modality without inputs, which
            it names, for unequal numbers of rows, or a row that has nothing; and as the entrances.

    Example:
        >>> entries = {"stars": OneToken(nn.Embedding(6, 8)), "text": WordTokens(50, 8)}
        >>> fusion = LateFusion(entries, width=8)
        >>> stars, ids = torch.tensor([5, 1]), torch.tensor([[7, 9], [8, 0]])
        >>> list(fusion({"stars": stars, "text": ids}).shape)
        [2, 8]
        >>> list(fusion({"text": ids}, there={"stars": False}).shape)
        [2, 8]
        >>> fusion({"text": ids})
        Traceback (most recent call last):
        ValueError: A 'text' without its 'stars': give the inputs 'stars', or say that they are...
    """

    def __init__(self, entries: Mapping[str, nn.Module], width: int, dropout: float = 0.0):
        super().__init__(entries, width, dropout)
        self.join = nn.Linear(len(entries) * width, width)

    def forward(
        self, x: Mapping[str, Tensor], there: Mapping[str, Tensor | bool] | None = None
    ) -> Tensor:
        """Features [B, width]."""
        means = [mean_of(z, places) for z, places in self._tokens(x, self._present(x, there))]
        return self.join(torch.cat(means, dim=1)).relu()


class CrossAttentionFusion(_Modalities):
    """Tokens of each modality look at those of the others first; then as in `LateFusion`.

    A word can look for the part of the picture that it names. Called as `LateFusion` is.

    Args:
        entries: modality -> module from its inputs to (tokens [B, L, width], bool [B, L]).
        width: numbers per token, and features.
        heads: of the attention.
        dropout: share of the rows that lose one modality in training, see `modality_dropout`.

    Raises:
        ValueError: if the heads do not divide the width; for fewer than two modalities; else as
            from `LateFusion`.

    Source:
        Lu et al., "ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for
        Vision-and-Language Tasks", NeurIPS 2019, section 2.2 (co-attention), one layer of it.

    Example:
        >>> entries = {"stars": OneToken(nn.Embedding(6, 8)), "text": WordTokens(50, 8)}
        >>> fusion = CrossAttentionFusion(entries, width=8)
        >>> ids = torch.tensor([[7, 9], [8, 0]])
        >>> list(fusion({"stars": torch.tensor([5, 1]), "text": ids}).shape)
        [2, 8]
    """

    def __init__(
        self, entries: Mapping[str, nn.Module], width: int, heads: int = 2, dropout: float = 0.0
    ):
        super().__init__(entries, width, dropout)
        if len(entries) < 2:
            raise ValueError(
                f"There is nothing to look at across: {len(entries)} modality; take two or more."
            )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in entries})
        self.looks = nn.ModuleDict({name: MultiHeadAttention(width, heads) for name in entries})
        self.join = nn.Linear(len(entries) * width, width)

    def forward(
        self, x: Mapping[str, Tensor], there: Mapping[str, Tensor | bool] | None = None
    ) -> Tensor:
        """Features [B, width]."""
        tokens = dict(zip(self.entries, self._tokens(x, self._present(x, there)), strict=True))
        ready = {name: self.norms[name](z) for name, (z, _) in tokens.items()}
        means = []
        for name, (z, places) in tokens.items():
            others = [other for other in tokens if other != name]
            memory = torch.cat([ready[other] for other in others], dim=1)
            mask = torch.cat([tokens[other][1] for other in others], dim=1)[:, None, None]
            means.append(mean_of(z + self.looks[name](ready[name], memory, mask), places))
        return self.join(torch.cat(means, dim=1)).relu()
