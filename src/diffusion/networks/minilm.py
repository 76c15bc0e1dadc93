"""A caption encoder that has read far more than captions: all-MiniLM-L6-v2, frozen (Wang et al., 2020)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEPT = 30_000  # captions whose answers a CPU keeps, in about 8 kB each


class MiniLM:
    """BERT (Devlin et al., 2019) without its head: pieces of words (B, L) to (B, L, width), 0 at the padding, piece 0.

    It is no module and has no parameters: whatever holds it trains, averages, copies and saves without it. On a CPU a
    caption is encoded alone, once, so that its numbers depend on nothing else and cost nothing the next time.
    """

    def __init__(self, weights: dict[str, Tensor], heads: int = 12):
        self.weights = {torch.device("cpu"): {name: value.float() for name, value in weights.items()}}
        self.heads = heads
        self.width = weights["embeddings.word_embeddings.weight"].shape[1]
        self.layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self.kept: dict[tuple[int, ...], Tensor] = {}
        self.read = torch.compiler.disable(self._read)  # not as a decorator: that takes a second to import

    def __deepcopy__(self, memo: dict[int, Any]) -> "MiniLM":
        return self  # it never changes

    @torch.no_grad()
    def _read(self, pieces: Tensor) -> Tensor:
        """What `read` answers, in half precision."""
        with torch.autocast(pieces.device.type, enabled=False):
            if pieces.device.type != "cpu":
                return self.encode(pieces).half().float()
            return torch.stack([self._alone(row) for row in pieces]).float()

    def _alone(self, row: Tensor) -> Tensor:
        """One caption (L,) as (L, width) float16, kept if there is room."""
        if (found := self.kept.get(key := tuple(row[row > 0].tolist()))) is None:
            found = self.encode(torch.tensor([key or (0,)]))[0].half()
            if len(self.kept) < KEPT:
                self.kept[key] = found
        return F.pad(found, (0, 0, 0, len(row) - len(found)))

    def encode(self, pieces: Tensor) -> Tensor:
        """The last hidden states (B, L, width)."""
        device = pieces.device
        if device not in self.weights:
            self.weights[device] = {name: value.to(device) for name, value in self.weights[torch.device("cpu")].items()}
        w, said = self.weights[device], pieces > 0
        linear = lambda name, x: F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
        norm = lambda name, x: F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)
        words, places, kinds = (
            w[f"embeddings.{each}_embeddings.weight"] for each in ("word", "position", "token_type")
        )
        x = norm("embeddings.LayerNorm", words[pieces] + places[: pieces.shape[1]] + kinds[0])  # (B, L, width)
        asked = said.clone()
        asked[:, 0] = True  # of an empty caption something has to be asked
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            heads = lambda x: x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, width / heads)
            q, k, v = (heads(linear(f"{at}.attention.self.{part}", x)) for part in ("query", "key", "value"))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=asked[:, None, None]).transpose(1, 2).flatten(2)
            x = norm(f"{at}.attention.output.LayerNorm", x + linear(f"{at}.attention.output.dense", mixed))
            inside = F.gelu(linear(f"{at}.intermediate.dense", x))
            x = norm(f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", inside))
        return x * said[..., None]


class FrozenEncoder(nn.Module):
    """Pieces (B, length) to tokens (B, length, width): what MiniLM makes of them, projected, and their places."""

    def __init__(self, minilm: MiniLM, length: int, width: int):
        super().__init__()
        self.minilm = minilm
        self.project = nn.Sequential(nn.LayerNorm(minilm.width), nn.Linear(minilm.width, width))
        self.positions = nn.Parameter(torch.randn(length, width))

    def forward(self, pieces: Tensor) -> Tensor:
        return self.project(self.minilm.read(pieces)) + self.positions
