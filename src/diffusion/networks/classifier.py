"""A small image classifier: the eye with which the metrics look at images."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion import files
from diffusion.errors import UserError

FEATURES = 128


class Classifier(nn.Module):
    """Images (N, C, H, W), float in [0, 1], H and W even, to logits (N, classes).

    The image is folded 2×2 into channels, then seen by two convolutions at half and two at a quarter of its size.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 64):
        super().__init__()
        self.shape = tuple(shape)
        self.arguments = {"shape": self.shape, "classes": classes, "width": width}
        self.trunk = nn.Sequential(
            nn.BatchNorm2d(shape[0], affine=False),  # the input normalisation: learnt from the training images
            nn.PixelUnshuffle(2),
            convolution(4 * shape[0], width),
            convolution(width, width),
            nn.MaxPool2d(2),
            convolution(width, 2 * width),
            convolution(2 * width, FEATURES),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ).to(memory_format=torch.channels_last)  # nearly twice as fast on a CPU
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer (N, 128): the last convolution after its ReLU, averaged over the image."""
        return self.trunk(images.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def convolution(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


# --- Train ---


class Training:
    """AdamW with a one-cycle rate, of so many steps in all. Its `state` is all that the rest of it depends on."""

    def __init__(self, classifier: Classifier, steps: int, seed: int = 0, lr: float = 6e-3, flip: bool = False,
                 bf16: bool = False):  # fmt: skip
        self.classifier, self.steps, self.flip, self.bf16, self.step = classifier, steps, flip, bf16, 0
        self.ema = copy.deepcopy(classifier).requires_grad_(False).eval()  # the moving average: the classifier to keep
        self.optimizer = torch.optim.AdamW(classifier.parameters(), lr, weight_decay=0.02)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=steps, pct_start=0.2)
        self.random = torch.Generator(next(classifier.parameters()).device).manual_seed(seed)

    def train(self, batches: Iterator[Any]) -> Iterator[Tensor]:
        """Train to the end on batches (.images uint8 (B, C, H, W), .labels (B,)); the loss () of every step."""
        self.classifier.train()
        while self.step < self.steps:
            batch = next(batches)
            with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
                seen = augment(batch.images, self.flip, self.random) / 255
                loss = F.cross_entropy(self.classifier(seen), batch.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.rate.step()
            self.step += 1
            average(self.ema, self.classifier, keep=min(0.998, self.step / (self.step + 10)))
            yield loss.detach()

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, for files.save."""
        parts = {name: getattr(self, name).state_dict() for name in ("classifier", "ema", "optimizer", "rate")}
        return parts | {"random": self.random.get_state(), "step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        for name in ("classifier", "ema", "optimizer", "rate"):
            getattr(self, name).load_state_dict(state[name])
        self.random.set_state(state["random"])
        self.step = state["step"]


def augment(images: Tensor, flip: bool, generator: torch.Generator | None = None, reach: int = 1) -> Tensor:
    """Every image shifted by up to `reach` pixels (zeros come in) and, if `flip`, mirrored half the time."""
    n, _, height, width = images.shape
    random = lambda high: torch.randint(high, (n, 1), device=images.device, generator=generator)
    row = torch.arange(height, device=images.device) + random(2 * reach + 1)  # (B, H)
    column = torch.arange(width, device=images.device) + random(2 * reach + 1)  # (B, W)
    if flip:
        column = torch.where(random(2) == 1, column.flip(1), column)
    each = torch.arange(n, device=images.device)[:, None, None]
    seen = F.pad(images, [reach] * 4).permute(0, 2, 3, 1)  # (B, H + 2 reach, W + 2 reach, C)
    return seen[each, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def average(ema: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average towards the network, weights and the statistics of its BatchNorms alike."""
    for mean, value in zip(ema.state_dict().values(), network.state_dict().values()):
        mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)


@torch.inference_mode()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 images (N, C, H, W) whose label it names, in evaluation mode."""
    right = [classifier(some / 255).argmax(1) == truth for some, truth in zip(images.split(500), labels.split(500))]
    return torch.cat(right).double().mean().item()


# --- Files ---


def half(classifier: Classifier) -> dict[str, Tensor]:
    """Its state on the CPU in half precision, as the file holds it."""
    state = classifier.state_dict()
    return {name: value.cpu().half() if value.is_floating_point() else value.cpu() for name, value in state.items()}


def save(path: Path, classifier: Classifier, dataset: str, **facts: Any) -> Path:
    """Write the classifier, what it was trained on and other `facts` (plain values) as a file that `load` reads."""
    network = {"arguments": classifier.arguments, "state": half(classifier)}
    return files.save(path, {"kind": "classifier", "dataset": dataset, **facts, **network})


def load(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a file, float32, in evaluation mode, and the facts saved with it; UserError if it is none."""
    content = files.load(path)
    if not isinstance(content, dict) or content.get("kind") != "classifier":
        raise UserError(f"{str(path)!r} is not a classifier: `python src train-classifier` makes one")
    try:
        facts = {name: value for name, value in content.items() if name not in ("arguments", "state")}
        classifier = Classifier(**content["arguments"])
        classifier.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{str(path)!r} is not a classifier of this version: {str(error).splitlines()[0]}") from None
    return classifier.eval(), facts
