"""A pretrained encoder of sentences as a plain torch module, and the tokens that it reads.

    from mtl_course import data, networks

    minilm = data.load("minilm")  # 84 MB, fetched once
    tokens = networks.WordPiece(minilm.vocabulary)
    encoder = networks.minilm(minilm)
    ids = tokens(["It fits well.", "I sent it back."], length=64)  # int64 [2, 8]
    encoder(ids)  # features [2, 384]

It is a trunk like any other: put heads on it, freeze it, or train some of its Linear layers by
name, ``"layers.*.query"`` and ``"layers.*.value"`` for instance. Its layers are those of
`mtl_course.networks.transformer`.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .sequences import present, require_known
from .transformer import EncoderLayer, attention_mask, mean_of

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
LONGEST = 100  # a word with more characters is unknown
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F))


class WordPiece:
    """Cuts texts into pieces of words that a network has a number for.

    Text is brought to lower case without accents and cut at spaces and at punctuation, which stays.
    A word is the longest piece of the vocabulary that it begins with, then the longest that goes
    on ("##ing"), and so forth; if none goes on, the whole word is unknown. "[MASK]" in a text is
    three ordinary tokens; its number is ``numbers["[MASK]"]``.

    Args:
        vocabulary: pieces [V]; a piece's place is its number. Number 0 is the padding.

    Raises:
        ValueError: for a vocabulary without the four special pieces, or whose first is another, and
            for a length without room for start and end.
        TypeError: for one text where a list of texts is asked for.

    Source:
        Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
        Language Understanding", NAACL 2019, section 3 (input representations).

    Example:
        >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "it", "fit", "##s", "!"]
        >>> tokens = WordPiece(pieces)
        >>> tokens.pieces("It fits, it fits!")
        ['it', 'fit', '##s', '[UNK]', 'it', 'fit', '##s', '!']
        >>> tokens(["It fits!", "it"])
        tensor([[2, 4, 5, 6, 7, 3],
                [2, 4, 3, 0, 0, 0]])
    """

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = [str(piece) for piece in vocabulary]
        self.numbers = {piece: number for number, piece in enumerate(self.vocabulary)}
        missing = [piece for piece in (PAD, UNKNOWN, START, END) if piece not in self.numbers]
        if missing or self.numbers[PAD] != 0:
            raise ValueError(
                f"The vocabulary needs the pieces {PAD} (as its first), {UNKNOWN}, {START} and"
                f" {END}; it lacks {', '.join(missing) or 'none, but begins with another'}."
            )
        self._seen: dict[str, list[str]] = {}  # most words come again

    def pieces(self, text: str) -> list[str]:
        """The pieces of one text, without start and end."""
        chunks = text.split(" ")
        for chunk in set(chunks) - self._seen.keys():
            self._seen[chunk] = [piece for word in words(chunk) for piece in self._cut(word)]
        return [piece for chunk in chunks for piece in self._seen[chunk]]

    def _cut(self, word: str) -> list[str]:
        pieces, start = [], 0
        while start < len(word) <= LONGEST:
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.numbers:
                    break
            else:
                return [UNKNOWN]
            pieces.append(piece)
            start = end
        return pieces or [UNKNOWN]

    def __call__(self, texts: Iterable[str], length: int = 256) -> Tensor:
        """Numbers int64 [N, L] of N texts, zeros after the end; L is at most `length`."""
        if isinstance(texts, str):
            raise TypeError("WordPiece takes a list of texts, and this is one text: put it in [].")
        if length < 2:
            raise ValueError(f"length must be at least 2, for {START} and {END}; it is {length}.")
        start, end = self.numbers[START], self.numbers[END]
        rows = [
            [start, *(self.numbers[piece] for piece in self.pieces(text)[: length - 2]), end]
            for text in texts
        ]
        longest = max(map(len, rows), default=0)
        rows = [row + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), longest)


def vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """Pieces for a `WordPiece` of your own: the most frequent words of your texts.

    Every character that occurs is a piece too, so that a rarer word is spelled and no text becomes
    unknown. Take the training texts alone: a word of the test texts is news.

    Args:
        texts: in any order; ties in frequency go by alphabet.
        size: pieces at most, special ones and characters among them.

    Returns:
        Up to `size` pieces: "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", characters, words.

    Raises:
        ValueError: if the characters alone are too many.

    Example:
        >>> pieces = vocabulary(["a cat", "a cab"], size=14)
        >>> pieces[5:]
        ['a', 'b', 'c', 't', '##a', '##b', '##t', 'cab', 'cat']
        >>> WordPiece(pieces).pieces("a taba cat")
        ['a', 't', '##a', '##b', '##a', 'cat']
    """
    counts = Counter(word for text in texts for word in words(text))
    counts = Counter({word: n for word, n in counts.items() if len(word) <= LONGEST})
    first = {character for word in counts for character in word}
    later = {"##" + character for word in counts for character in word[1:]}
    pieces = [PAD, UNKNOWN, START, END, MASK, *sorted(first), *sorted(later)]
    if len(pieces) > size:
        raise ValueError(
            f"The characters of these texts take {len(pieces)} pieces and size is {size}: make it"
            " larger, or clean the texts."
        )
    frequent = sorted(counts.keys() - first, key=lambda word: (-counts[word], word))
    return pieces + frequent[: size - len(pieces)]


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case and without accents."""
    spaced = []
    for character in unicodedata.normalize("NFD", text):
        kind, code = unicodedata.category(character), ord(character)
        if character in "\t\n\r" or kind[0] == "Z":
            spaced.append(" ")
        # each Chinese character is a word
        elif (
            kind[0] == "P"
            or character in "$+<=>^`|~"
            or any(first <= code <= last for first, last in IDEOGRAPHS)
        ):
            spaced.append(f" {character} ")
        # accents and what is not printed fall away
        elif kind not in ("Mn", "Cc", "Cf", "Co") and character != "\N{REPLACEMENT CHARACTER}":
            spaced.append(character.lower())
    return "".join(spaced).split()


class SentenceEncoder(nn.Module):
    """A Transformer from tokens to the mean of its words' features (`minilm` fills it).

    Args:
        vocabulary: number of different tokens; 0 is the padding.
        width: features of a sentence.
        layers: number of `EncoderLayer`.
        heads: of each layer.
        hidden: width of each layer's inner part.
        positions: tokens of the longest sentence.
        dropout: share that is left out while training.

    Raises:
        ValueError: from a call, for no tokens, too many, numbers out of the vocabulary, or a row of
            nothing but padding.

    Example:
        >>> encoder = SentenceEncoder(vocabulary=50, width=8, layers=2, heads=2, hidden=16)
        >>> list(encoder(torch.tensor([[2, 7, 9, 3], [2, 7, 3, 0]])).shape)
        [2, 8]
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 384,
        layers: int = 6,
        heads: int = 12,
        hidden: int = 1536,
        positions: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.width = width
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, hidden, dropout, eps=1e-12) for _ in range(layers)
        )

    def each_word(self, ids: Tensor) -> Tensor:
        """Features [B, L, width] of every token of ids, int64 [B, L]."""
        self._check(ids)
        mask = attention_mask(ids != 0)
        x = self.words(ids) + self.positions.weight[: ids.shape[1]]
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, ids: Tensor) -> Tensor:
        """Features [B, width] of sentences: ids int64 [B, L] as `WordPiece` gives them."""
        return mean_of(self.each_word(ids), ids != 0)

    def _check(self, ids: Tensor) -> None:
        """ValueError for ids that cannot be read."""
        longest, known = self.positions.num_embeddings, self.words.num_embeddings
        if ids.dim() != 2 or not 1 <= ids.shape[1] <= longest:
            raise ValueError(
                f"The encoder takes ids [B, L] of 1 to {longest} tokens; these have the shape"
                f" {list(ids.shape)}."
            )
        if ids.device.type == "cpu":
            require_known(ids, known)
        present(ids)


# Where a layer's parts stand in the published file, below "encoder.layer.0." and so on.
PARTS = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "grow": "intermediate.dense",
    "shrink": "output.dense",
    "norm": "output.LayerNorm",
}


def minilm(files: Mapping, dropout: float = 0.1) -> SentenceEncoder:
    """The pretrained encoder all-MiniLM-L6-v2: 6 layers, 384 features, 22.6 million weights.

    In evaluation mode, as pretrained networks are used. Its own pipeline brings the features to
    length 1 afterwards: ``torch.nn.functional.normalize(features)``.

    Args:
        files: ``data.load("minilm")``: weights, names, shapes.
        dropout: share that is left out while training.

    Returns:
        The encoder, float32, in evaluation mode.

    Raises:
        ValueError: for weights of another network.

    Source:
        Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
        Pre-Trained Transformers", NeurIPS 2020; Reimers and Gurevych, "Sentence-BERT: Sentence
        Embeddings using Siamese BERT-Networks", EMNLP 2019, section 3.

    Example:
        >>> minilm({"weights": [1, 2, 3, 4], "names": ["other"], "shapes": [(2, 2)]})
        Traceback (most recent call last):
        ValueError: These are not the weights of a BERT: 'embeddings.word_embeddings.weight' is ...
    """
    shapes = [[int(size) for size in row if size] for row in files["shapes"]]
    ends = [torch.Size(shape).numel() for shape in shapes]
    flat = torch.from_numpy(np.array(files["weights"], dtype=np.float32)).split(ends)
    tensors = {
        str(name): values.view(shape)
        for name, values, shape in zip(files["names"], flat, shapes, strict=True)
    }
    return from_bert(tensors, dropout)


def from_bert(tensors: Mapping[str, Tensor], dropout: float) -> SentenceEncoder:
    """An encoder with the weights of a BERT under their published names; 12 heads of equal width.

    Of the two kinds of tokens only the first occurs in single sentences: it is added to each place.
    ValueError if a weight is missing, too much or of another size.
    """
    tensors = {name: value for name, value in tensors.items() if not name.startswith("pooler.")}
    try:
        words = tensors.pop("embeddings.word_embeddings.weight")
        places = tensors.pop("embeddings.position_embeddings.weight")
        kinds = tensors.pop("embeddings.token_type_embeddings.weight")
        hidden = len(tensors["encoder.layer.0.intermediate.dense.bias"])
    except KeyError as error:
        raise ValueError(f"These are not the weights of a BERT: {error} is missing.") from None
    layers = len({name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")})
    encoder = SentenceEncoder(
        *words.shape, layers=layers, hidden=hidden, positions=len(places), dropout=dropout
    )
    state = {"words.weight": words, "positions.weight": places + kinds[0]}
    for kind in ("weight", "bias"):
        names = {"norm": "embeddings.LayerNorm"}
        names |= {
            f"layers.{number}.{here}": f"encoder.layer.{number}.{there}"
            for number in range(layers)
            for here, there in PARTS.items()
        }
        state |= {
            f"{here}.{kind}": tensors.pop(f"{there}.{kind}")
            for here, there in names.items()
            if f"{there}.{kind}" in tensors
        }
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"These are not the weights of such an encoder: {' '.join(str(error).split())}"
        ) from None
    if tensors:
        raise ValueError(f"These weights have no place in the encoder: {', '.join(tensors)}.")
    return encoder.eval()


@torch.no_grad()
def encode(encoder: SentenceEncoder, ids: Tensor, batch: int = 64) -> Tensor:
    """Features of many sentences from a frozen encoder, short ones together.

    A batch is as long as its longest sentence, so sorting by length saves most of the padding.

    Args:
        encoder: as it is; its mode of training or evaluation is left alone.
        ids: int64 [N, L], as `WordPiece` gives them.
        batch: sentences that go through together.

    Returns:
        Features [N, width] in the order of ids, on their device.

    Raises:
        ValueError: as from the encoder.

    Example:
        >>> encoder = SentenceEncoder(50, width=8, layers=2, heads=2, hidden=16).eval()
        >>> ids = torch.tensor([[2, 7, 3, 0], [2, 7, 9, 3], [2, 3, 0, 0]])
        >>> torch.allclose(encode(encoder, ids, batch=2), encoder(ids), atol=1e-6)
        True
    """
    if not len(ids):
        return torch.zeros(0, encoder.width, device=ids.device)
    # here, so that an error names the row of these ids and not of a batch
    encoder._check(ids)
    lengths = (ids != 0).sum(1)
    order = lengths.argsort(descending=True)
    parts = order.split(batch)
    features = torch.cat([encoder(ids[part, : int(lengths[part[0]])]) for part in parts])
    return features[order.argsort()]
