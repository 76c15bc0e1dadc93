"""Which parts a picture of a noun is made of: those whose figure is nearest to it, pixel by pixel."""

from collections.abc import Mapping

import torch
from torch import Tensor

SWEEPS = 3  # over all layers
ORDER = (3, 4, 1, 2, 0)  # head, glasses, body, accessory, ground: what covers most is chosen first


@torch.no_grad()
def recognise(images: Tensor, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The number (N,) of each layer's part, for images (N, 3, H, W) in [0, 1].

    `parts` are (n, 4, H, W) uint8, red, green, blue and opacity, by layer from back to front. One layer after the other
    takes the part that leaves the least squared error, the others staying as they are.
    """
    x = images.flatten(2)  # (N, 3, HW)
    layers = [(each[:, :3].flatten(2).to(x) / 255, (each[:, 3:] > 0).flatten(2).to(x)) for each in parts.values()]
    chosen = [torch.zeros(len(x), dtype=torch.int64, device=x.device) for _ in layers]
    for _ in range(SWEEPS):
        for k in ORDER:
            below = torch.zeros_like(x)
            for (colour, mask), number in zip(layers[:k], chosen):
                below = torch.where(mask[number] > 0, colour[number], below)
            seen = torch.ones_like(x[:, :1])  # what no layer above hides
            for (_, mask), number in zip(layers[k + 1 :], chosen[k + 1 :]):
                seen = seen * (1 - mask[number])
            chosen[k] = _nearest(x, below, seen, *layers[k])
    return dict(zip(parts, chosen))


def _nearest(x: Tensor, below: Tensor, seen: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    """The part (n, 3, HW), with its mask (n, 1, HW), that comes nearest to x (N, 3, HW) when laid over `below`."""
    # The error of part n is that of `below`, but under its mask |x - colour|^2 = |x|^2 - 2 x colour + |colour|^2.
    under = (seen * (x.square() - (x - below).square())).sum(1) @ mask[:, 0].T  # (N, n)
    cross = (seen * x).flatten(1) @ (mask * colour).flatten(1).T
    return (under - 2 * cross + seen[:, 0] @ (mask * colour.square()).sum(1).T).argmin(1)
