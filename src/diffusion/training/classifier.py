"""Training the small classifier whose features the metrics compare."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.classifier import Classifier

LR = 6e-3  # at its highest
PARTS = ("classifier", "ema", "optimizer", "rate")


class Training:
    """AdamW with a one-cycle learning rate over all `steps`. Its `state` is all that the rest of them depends on."""

    def __init__(self, classifier: Classifier, steps: int, seed: int = 0, flip: bool = False, bf16: bool = False):
        self.classifier, self.steps, self.flip, self.bf16, self.step = classifier, steps, flip, bf16, 0
        self.ema = copy.deepcopy(classifier).requires_grad_(False).eval()  # the moving average, which is kept
        self.optimizer = torch.optim.AdamW(classifier.parameters(), LR, weight_decay=0.02)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, LR, total_steps=steps, pct_start=0.2)
        self.random = torch.Generator(next(classifier.parameters()).device).manual_seed(seed)

    def train(self, batches: Iterator[Any]) -> Iterator[Tensor]:
        """Train to the end on batches (images uint8 (B, C, H, W), labels (B,)), yielding the loss () of every step."""
        self.classifier.train()
        while self.step < self.steps:
            batch = next(batches)
            with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.classifier(augment(batch.images, self.flip, self.random) / 255)
                loss = F.cross_entropy(logits, batch.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.rate.step()
            self.step += 1
            update_ema(self.ema, self.classifier, keep=min(0.998, self.step / (self.step + 10)))
            yield loss.detach()

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, for files.save."""
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        return parts | {"random": self.random.get_state(), "step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.step = state["step"]
        self.random.set_state(state["random"])
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])


def augment(images: Tensor, flip: bool, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W), each shifted by up to a pixel (zeros move in) and, with `flip`, mirrored half the time."""
    n, _, height, width = images.shape
    random = lambda high: torch.randint(high, (n, 1), device=images.device, generator=generator)
    row = torch.arange(height, device=images.device) + random(3)  # (B, H)
    column = torch.arange(width, device=images.device) + random(3)  # (B, W)
    if flip:
        column = torch.where(random(2) == 1, column.flip(1), column)
    each = torch.arange(n, device=images.device)[:, None, None]
    padded = F.pad(images, [1] * 4).permute(0, 2, 3, 1)  # (B, H + 2, W + 2, C)
    return padded[each, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average towards the network, weights and the statistics of its BatchNorms alike."""
    for mean, value in zip(ema.state_dict().values(), network.state_dict().values()):
        mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)


@torch.inference_mode()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 images (N, C, H, W) that a classifier in evaluation mode gives their label."""
    right = [classifier(some / 255).argmax(1) == truth for some, truth in zip(images.split(500), labels.split(500))]
    return torch.cat(right).double().mean().item()
