"""A small image classifier, whose features the metrics compare."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


# --- Files ---


def half(classifier: Classifier) -> dict[str, Tensor]:
    """Its state on the CPU in half precision, as the file holds it."""
    state = classifier.state_dict()
    return {name: value.cpu().half() if value.is_floating_point() else value.cpu() for name, value in state.items()}


def save(path: Path, classifier: Classifier, facts: dict[str, Any]) -> Path:
    """Write the classifier and `facts` about it (plain values; `dataset` is a must) as a file that `load` reads."""
    network = {"arguments": classifier.arguments, "state": half(classifier)}
    return files.save(path, {"kind": "classifier", **facts, **network})


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
