"""Captions as numbers: the words of a vocabulary, a caption as a row of them, and back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import UserError, unknown


@dataclass(frozen=True)
class Words:
    """Captions as numbers of words of a vocabulary."""

    words: Sequence[str]
    length: int

    @property
    def size(self) -> int:
        return len(self.words)

    def encode(self, said: Sequence[str]) -> Tensor:
        """As `encode` below."""
        return encode(said, self.words, self.length)

    def decode(self, rows: Tensor) -> list[str]:
        return decode(rows, self.words)


def split(caption: str) -> list[str]:
    """Its words, in lower case and without punctuation."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", caption.lower())


def encode(captions: Sequence[str], words: Sequence[str], length: int) -> Tensor:
    """Captions as (N, length) int64 numbers of words, padded with 0; `words[0]` is the padding.

    UserError for a word that is not among them (with the nearest), and for a caption that is too long.
    """
    numbers = {word: number for number, word in enumerate(words)}
    rows = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, caption in zip(rows, captions):
        said = split(caption)
        if len(said) > length:
            raise UserError(f"a caption has at most {length} words, not {len(said)}: {caption!r}")
        for place, word in enumerate(said):
            if word not in numbers:
                raise unknown("word", word, words[1:])
            row[place] = numbers[word]
    return rows


def decode(rows: Tensor, words: Sequence[str]) -> list[str]:
    """The captions of (N, length) numbers of words."""
    return [" ".join(words[number] for number in row if number) for row in rows.tolist()]
