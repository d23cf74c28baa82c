"""Transformers: attention by hand, layers of it, a trunk for texts and series, and task tokens.

    words = nn.Embedding(5000, 64, padding_idx=0)
    trunk = Transformer(words, width=64, layers=2, heads=4)  # int64 [B, L] -> features [B, 64]
    steps = Transformer(nn.Linear(12, 64), width=64)  # series [B, L, 12], NaN after the end
    pattern = TaskTokens(trunk, ["stars", "department"], width=64)  # a query for each task

`mtl_course.networks.sentence_encoder` has the pretrained one, with the layers of this file.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sequences import embedded, present


# ---------------------------------------------------------------------------------------- attention
def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of values, weighted by how well query and key agree: softmax(Q K' / sqrt(d)) V.

    Args:
        query: what is looked for, [..., Q, d].
        key: what each place offers to be found by, [..., K, d].
        value: what each place says, [..., K, v].
        mask: bool, of a shape that broadcasts to [..., Q, K]: True where a query may look; None for
            everywhere.

    Returns:
        The means [..., Q, v], and the weights [..., Q, K], whose rows sum to 1.

    Raises:
        ValueError: for a query that may look nowhere; it names its place in the mask. (On a GPU its
            mean is NaN.)

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1.

    Example:
        >>> query, key = torch.zeros(1, 2), torch.randn(3, 2)  # it asks for nothing in particular
        >>> value = torch.tensor([[1.0], [3.0], [8.0]])
        >>> mean, weights = attention(query, key, value)
        >>> mean.item()
        4.0
        >>> attention(query, key, value, torch.tensor([[True, True, False]]))[1]
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        _require_a_place(mask)
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    return weights @ value, weights


def attention_mask(there: Tensor, causal: bool = False) -> Tensor:
    """Where each place of a padded batch may look: at no padding, perhaps at nothing later.

    Args:
        there: bool [B, L], from `present`.
        causal: whether a place sees itself and what stands before it alone.

    Returns:
        bool, [B, 1, 1, L] or, if causal, [B, 1, L, L]: it broadcasts over heads and queries.

    Example:
        >>> attention_mask(torch.tensor([[True, True, False]])).int().tolist()
        [[[[1, 1, 0]]]]
        >>> attention_mask(torch.tensor([[True, True, False]]), causal=True).int().tolist()
        [[[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]]
    """
    mask = there[:, None, None, :]
    if causal:
        steps = there.shape[1]
        mask = mask & torch.ones(steps, steps, dtype=torch.bool, device=there.device).tril()
    return mask


class MultiHeadAttention(nn.Module):
    """Attention in parts: each head looks with its share of the width, then all are joined.

    Called with x [B, Q, width], memory [B, K, width], from which it reads (None: x itself), and a
    mask as in `attention`, for [B, heads, Q, K], it gives [B, Q, width]. `weights`, called in the
    same way, gives what each head looked at, [B, heads, Q, K].

    Args:
        width: numbers per place.
        heads: parts of the width that look on their own.
        dropout: share of the weights that is left out while training.
        fused: whether torch's fused attention computes it, else `attention` of this file: the same
            numbers, with all weights in memory.

    Raises:
        ValueError: if the heads do not divide the width; when called, for a query that may look
            nowhere.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.2.

    Example:
        >>> layer = MultiHeadAttention(8, heads=2)
        >>> x, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
        >>> list(layer(x).shape), list(layer(x, memory).shape), list(layer.weights(x, memory).shape)
        ([3, 4, 8], [3, 4, 8], [3, 2, 4, 5])
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, fused: bool = True):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a width of {width} evenly.")
        self.heads, self.dropout, self.fused = heads, dropout, fused
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        """[B, L, width] -> [B, heads, L, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """What each place of x reads from the memory, [B, Q, width]."""
        memory = x if memory is None else memory
        query = self._split(self.query(x))
        key, value = self._split(self.key(memory)), self._split(self.value(memory))
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            if mask is not None:
                _require_a_place(mask)
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        else:
            _, weights = attention(query, key, value, mask)
            mixed = F.dropout(weights, dropout) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """How much each head looks at each place, [B, heads, Q, K], without dropout."""
        key = self._split(self.key(x if memory is None else memory))
        return attention(self._split(self.query(x)), key, key, mask)[1]


def _require_a_place(mask: Tensor) -> None:
    """ValueError where a query may look nowhere; not asked where the answer would be waited for."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not (some := mask.any(-1)).all():
        where = (~some).nonzero()[0].tolist()
        raise ValueError(
            f"The mask lets a query look nowhere: it has no True in its row {where}. Is a row of"
            " the batch nothing but padding?"
        )


# ------------------------------------------------------------------------------------------- layers
class EncoderLayer(nn.Module):
    """Attention between the places, then two dense layers for each; a shortcut around both.

    Called with x [B, L, width] and a mask (None, or as for `MultiHeadAttention`), it gives the same
    shape. A norm follows each half or, with `norm_first`, precedes it inside the shortcut, which
    trains without a slow start.

    Args:
        width: numbers per place.
        heads: parts of the width that look on their own.
        hidden: numbers per place between the two dense layers.
        dropout: share that is left out while training.
        norm_first: where the norms stand.
        eps: what the norms add to a variance.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, sections 3.1 to 3.3; norms first:
        Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020, table 1.

    Example:
        >>> layer = EncoderLayer(8, heads=2, hidden=16)
        >>> list(layer(torch.randn(3, 5, 8)).shape)
        [3, 5, 8]
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        norm_first: bool = False,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm_first, self.dropout = norm_first, nn.Dropout(dropout)
        self.attention = MultiHeadAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.grow, self.shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, L, width]."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
            return x + self.dropout(self._dense(self.norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm(x + self.dropout(self._dense(x)))

    def _dense(self, x: Tensor) -> Tensor:
        return self.shrink(F.gelu(self.grow(x)))


class Positions(nn.Module):
    """Adds to each place what a table says of it: attention alone does not see any order.

    Called with x [B, L, width], it gives the same shape.

    Args:
        longest: rows of the table.
        width: numbers per place.

    Raises:
        ValueError: when called with more places than the table has.

    Example:
        >>> positions = Positions(longest=4, width=2)
        >>> x = torch.zeros(1, 3, 2)
        >>> torch.equal(positions(x)[0], positions.table.weight[:3])
        True
        >>> positions(torch.zeros(1, 5, 2))
        Traceback (most recent call last):
        ValueError: The sequences have 5 places and the table of positions 4: cut them, or make...
    """

    def __init__(self, longest: int, width: int):
        super().__init__()
        self.table = nn.Embedding(longest, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, width]."""
        places, longest = x.shape[1], self.table.num_embeddings
        if places > longest:
            raise ValueError(
                f"The sequences have {places} places and the table of positions {longest}: cut"
                " them, or make a network with a longer table."
            )
        return x + self.table.weight[:places]


# -------------------------------------------------------------------------------------------- trunk
class Transformer(nn.Module):
    """A trunk: padded texts or series in, the mean of their words' or steps' features out.

    Args:
        embed: module from x to [B, L, width]: ``nn.Embedding(vocabulary, width)`` for texts, int64
            [B, L] padded with 0; ``nn.Linear(D, width)`` for series [B, L, D] padded with NaN.
        width: features.
        layers: number of `EncoderLayer`, norms first.
        heads: of each layer.
        hidden: numbers per place inside a layer; None for four times the width.
        longest: places of the longest sequence.
        dropout: share that is left out while training.
        causal: whether a place sees only itself and what stands before it.

    Raises:
        ValueError: if the heads do not divide the width; when called, for more than `longest`
            places, an empty row, a gap, a number that is not finite, or a token without a place in
            the embedding. It names the row.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

    Example:
        >>> trunk = Transformer(nn.Embedding(50, 8), width=8, layers=1)
        >>> list(trunk(torch.tensor([[2, 7, 9, 3], [2, 7, 3, 0]])).shape)
        [2, 8]
        >>> trunk(torch.tensor([[2, 7], [0, 0]]))
        Traceback (most recent call last):
        ValueError: Row 1 has no token, only padding.
    """

    def __init__(
        self,
        embed: nn.Module,
        width: int,
        layers: int = 2,
        heads: int = 2,
        hidden: int | None = None,
        longest: int = 128,
        dropout: float = 0.0,
        causal: bool = False,
    ):
        super().__init__()
        self.features, self.causal = width, causal
        self.embed, self.positions = embed, Positions(longest, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, hidden or 4 * width, dropout, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def each_word(self, x: Tensor) -> Tensor:
        """Features [B, L, width] of every word or step; what stands at padding means nothing."""
        return self._read(x, present(x))

    def _read(self, x: Tensor, there: Tensor) -> Tensor:
        z = self.dropout(self.positions(embedded(self.embed, x, there)))
        mask = attention_mask(there, self.causal)
        for layer in self.layers:
            z = layer(z, mask)
        return self.norm(z)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, width]."""
        there = present(x)
        return mean_of(self._read(x, there), there)


def mean_of(z: Tensor, there: Tensor) -> Tensor:
    """Mean [B, width] of z [B, L, width] over the places that are there, bool [B, L]."""
    there = there[..., None]
    return (z * there).sum(1) / there.sum(1)


class TaskTokens(nn.Module):
    """Pattern: a learned query for each task reads the sequence, attention(q_t, x).

    A pattern in the sense of `mtl_course.multitask.sharing`: from x to a dict task -> features. The
    tasks share all but their query, and each looks at the words that it needs. `weights` gives
    what each looks at.

    Args:
        trunk: `Transformer`, `LastState` or `SentenceEncoder`: a module with `each_word`.
        tasks: names of the tasks, or a mapping whose keys they are, such as the heads.
        width: features that the trunk gives for each word.
        heads: parts of the width that look on their own.

    Raises:
        ValueError: if the heads do not divide the width; when called, as from the trunk.

    Source:
        Lee et al., "Set Transformer: A Framework for Attention-based Permutation-Invariant Neural
        Networks", ICML 2019, section 3.2, with a seed vector for each task.

    Example:
        >>> trunk = Transformer(nn.Embedding(50, 8), width=8, layers=1)
        >>> pattern = TaskTokens(trunk, ["stars", "department"], width=8)
        >>> ids = torch.tensor([[2, 7, 9, 3], [2, 7, 3, 0]])
        >>> {task: list(z.shape) for task, z in pattern(ids).items()}
        {'stars': [2, 8], 'department': [2, 8]}
        >>> pattern.weights(ids)["stars"][1, 3].item()  # nobody looks at padding
        0.0
    """

    def __init__(self, trunk: nn.Module, tasks: Iterable[str], width: int, heads: int = 1):
        super().__init__()
        self.trunk, self.tasks = trunk, tuple(tasks)
        self.tokens = nn.Parameter(torch.randn(len(self.tasks), width))
        self.attention = MultiHeadAttention(width, heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> what its token read, [B, width]."""
        return dict(zip(self.tasks, self.attention(*self._reading(x)).unbind(1), strict=True))

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> how much its token looks at each word, [B, L], the mean over heads."""
        weights = self.attention.weights(*self._reading(x)).mean(1)
        return dict(zip(self.tasks, weights.unbind(1), strict=True))

    def _reading(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, T, width], words [B, L, width], and where the tokens may look."""
        words = self.trunk.each_word(x)
        return self.tokens.expand(len(x), -1, -1), words, attention_mask(present(x))
