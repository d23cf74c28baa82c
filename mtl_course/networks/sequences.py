"""Padded batches of texts and series: which of their places hold something.

Texts are numbers of tokens, int64 [B, L], padded with 0. Series are floats [B, L, D], padded with
NaN: a network that reads padding by mistake then says so at once. Both are padded after their end.
"""

import torch
from torch import Tensor, nn


def present(x: Tensor) -> Tensor:
    """True where a padded batch has a token or a step.

    On a GPU the shape alone is looked at, since the rest would wait for the device.

    Args:
        x: texts int64 [B, L], where 0 is the padding; or series, floats [B, L, D], where it is NaN.

    Returns:
        bool [B, L], in each row True up to its end.

    Raises:
        ValueError: for another shape, a row of nothing but padding, one that goes on after its
            padding, and a step with a number that is missing or infinite. It names row, place and,
            in series, column.

    Example:
        >>> present(torch.tensor([[5, 8, 0], [7, 0, 0]])).tolist()
        [[True, True, False], [True, False, False]]
        >>> present(torch.tensor([[[0.2], [torch.nan], [0.4]]]))
        Traceback (most recent call last):
        ValueError: Row 0 has a gap at place 1: fill it, or cut the sequence there...
    """
    series = x.is_floating_point()
    if x.dim() != 2 + series or not x.shape[1]:
        raise ValueError(
            "A batch is int64 [B, L] for texts or floats [B, L, D] for series, with L of at least"
            f" 1; this is {x.dtype} {list(x.shape)}."
        )
    there = ~x.isnan().all(-1) if series else x != 0
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return there
    lengths = there.sum(1)
    if not lengths.all():
        thing = "step" if series else "token"
        raise ValueError(f"Row {_first(lengths == 0)[0]} has no {thing}, only padding.")
    gaps = ~there & (torch.arange(x.shape[1]) < lengths[:, None])
    if gaps.any():
        row, place = _first(gaps)
        raise ValueError(
            f"Row {row} has a gap at place {place}: fill it, or cut the sequence there. Padding"
            " stands after the end only."
        )
    if series and (bad := ~x.isfinite() & there[..., None]).any():
        row, place, column = _first(bad)
        raise ValueError(
            f"Row {row} has {float(x[row, place, column])} at place {place}, column {column}: fill"
            " it, or leave the column out."
        )
    return there


def _first(mask: Tensor) -> list[int]:
    """Where the first True of a mask is."""
    return mask.nonzero()[0].tolist()


def embedded(embed: nn.Module, x: Tensor, there: Tensor) -> Tensor:
    """``embed(x)`` [B, L, width] of a padded batch, whose series get 0 in place of NaN.

    ValueError for a token that an ``nn.Embedding`` has no place for; it names row and place.
    """
    if x.is_floating_point():
        x = x.masked_fill(~there[..., None], 0)
    elif isinstance(embed, nn.Embedding) and x.device.type == "cpu":
        require_known(x, embed.num_embeddings)
    return embed(x)


def require_known(ids: Tensor, known: int) -> None:
    """ValueError for a token outside a vocabulary of so many; it names row and place."""
    if not torch.compiler.is_compiling() and (bad := (ids < 0) | (ids >= known)).any():
        row, place = _first(bad)
        raise ValueError(
            f"Row {row} has the token {int(ids[row, place])} at place {place}, outside the"
            f" vocabulary of {known} pieces."
        )
