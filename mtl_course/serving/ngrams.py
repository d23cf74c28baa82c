"""Texts as numbers of the words and pairs of words in them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

WORD = re.compile(r"[a-z0-9']+")


def grams(text: str) -> list[str]:
    """The different words and pairs of neighbours of a text, in the order of their first use."""
    words = WORD.findall(text.lower())
    return list(dict.fromkeys([*words, *(f"{a} {b}" for a, b in pairwise(words))]))


class NGrams:
    """Reads texts with a fixed list of words and pairs of words.

    Called with texts it gives int64 [N, length]: a number from 1 on for each different word or pair
    that the list has, words first, then 0. What does not fit is left out.

    Args:
        names: words and pairs of words, without repetition.
        length: numbers per text.

    Raises:
        ValueError: for a name that comes twice, or a length below 1.

    Example:
        >>> reader = NGrams(["soft", "very", "very soft"], length=4)
        >>> reader(["Very, VERY soft!", "Stiff."]).tolist()
        [[2, 1, 3, 0], [0, 0, 0, 0]]
        >>> reader.known(["Very soft", "very stiff"])  # the share of a text's words on the list
        tensor([1.0000, 0.5000])
        >>> NGrams.learned(["a soft dress", "a dress"], least=2, most=9, length=4).names
        ['a', 'dress']
    """

    def __init__(self, names: Sequence[str], length: int):
        if len(set(names)) < len(names):
            raise ValueError("A word or pair of words comes twice.")
        if length < 1:
            raise ValueError(f"A text needs at least one number, not {length}.")
        self.names, self.length = list(names), length
        self._number = {name: k for k, name in enumerate(self.names, 1)}

    @classmethod
    def learned(cls, texts: Iterable[str], least: int, most: int, length: int) -> "NGrams":
        """The `most` frequent that occur in at least `least` of these texts."""
        counts = Counter(name for text in texts for name in grams(text))
        often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return cls([name for name, count in often if count >= least], length)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Numbers int64 [N, length], 0 where a text has ended."""
        ids = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in enumerate(texts):
            numbers = [self._number[name] for name in grams(text) if name in self._number]
            numbers = numbers[: self.length]
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return ids

    def known(self, texts: Sequence[str]) -> Tensor:
        """Share of each text's different words that the list has, [N]; 0 for one without a word."""
        shares = []
        for text in texts:
            words = set(WORD.findall(text.lower()))
            shares.append(sum(word in self._number for word in words) / max(1, len(words)))
        return torch.tensor(shares)
