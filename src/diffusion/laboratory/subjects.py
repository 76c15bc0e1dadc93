"""What models are examined in: scenes of digits, nouns, and emoji."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion.data import captions
from diffusion.data.digits import Digits, handwritten
from diffusion.data.emoji import STYLES, open_emoji
from diffusion.data.nouns import LAYERS, Noun, open_nouns
from diffusion.data.scenes import RULES, Rules, Scene, Split, draw, redraw, twin
from diffusion.files import shipped_weights
from diffusion.laboratory.exam import Exam
from diffusion.metrics.features import extractor_for
from diffusion.metrics.obedience import ATTRIBUTES, Share, View, check, diversity, look, twins
from diffusion.metrics.parts import recognise

SEED = 10  # of the first prompts; training's are drawn from 0
VARIED, EACH = 4, 8  # prompts of a kind that diversity is measured on, and pictures of each
Draw = Callable[[Sequence[str]], Tensor]  # prompts -> pictures (N, 3, H, W) in [0, 1]


class DigitsExam(Exam):
    """Scenes; real pictures of them are drawn from the digits of the test split."""

    attributes = ATTRIBUTES

    def __init__(self, root: Path, device: torch.device, count: int, seed: int = 0, rules: Rules = RULES["digits"]):
        """`count` prompts of each kind, others for each seed."""
        self.rules, self.kinds = rules, tuple(rules.kinds)
        self.count, self.device, self.seed = count, device, SEED + 3 * seed
        self.source = Digits(handwritten("test", root))
        self.reader = extractor_for("MNIST-crops", shipped_weights(), device)

    def questions(self, split: str) -> list[Scene]:
        return [self._draw(index, split, kind) for kind in self.kinds for index in range(self.count)]

    def render(self, questions: Sequence[Scene]) -> Tensor:
        return torch.from_numpy(np.stack([self.source.render(scene) for scene in questions])).to(self.device) / 255

    def look(self, images: Tensor) -> list[View]:
        return look(images, self.reader)

    def check(self, view: View, question: Scene) -> dict[str, bool]:
        return check(view, question)

    def twins(self, sample: Draw) -> tuple[Share, Share]:
        """Of a model and of real pictures: pairs of prompts with their roles swapped that are both right."""
        drawn = (self._draw(index, "seen", "two", 1) for index in count())
        pairs = [*islice(filter(_has_twin, drawn), self.count)]
        swapped = [redraw(twin(scene), self.seed) for scene in pairs]
        verdict = lambda images, asked: [*map(check, self.look(images), asked)]
        of_model = (verdict(sample([each.caption for each in asked]), asked) for asked in (pairs, swapped))
        return twins(*of_model), twins(*(verdict(self.render(asked), asked) for asked in (pairs, swapped)))

    def diversity(self, sample: Draw) -> tuple[float, float]:
        """How much pictures of the same prompt differ, of a model and of real ones."""
        drawn = ((self._draw(index, "seen", kind, 2) for index in count()) for kind in self.kinds)
        scenes = [scene for each in drawn for scene in islice(filter(_is_described, each), VARIED)]
        prompts = [scene.caption for scene in scenes for _ in range(EACH)]
        real = self.render([redraw(scene, seed) for scene in scenes for seed in range(EACH)])
        differ = lambda images: diversity(images.unflatten(0, (-1, EACH)))
        return differ(sample(prompts)), differ(real)

    def _draw(self, index: int, split: Split, kind: str, after: int = 0) -> Scene:
        return draw(self.seed + after, index, split, kind, self.rules)


class NounsExam(Exam):
    """Nouns, and the parts that are found in their pictures."""

    kinds, attributes = ("noun",), LAYERS

    def __init__(self, root: Path, device: torch.device, count: int, seed: int = 0):
        self.count, self.device = 4 * count, device  # they are of one kind
        self.sources = {split: open_nouns(root, SEED + seed, split) for split in ("seen", "unseen")}
        self.nouns = self.sources["seen"]
        self.parts = {layer: torch.from_numpy(self.nouns.pixels[layer]).to(device) for layer in LAYERS}

    def questions(self, split: str) -> list[Noun]:
        return [self.sources[split][index].noun for index in range(self.count)]

    def render(self, questions: Sequence[Noun]) -> Tensor:
        return torch.from_numpy(np.stack([self.nouns.render(noun) for noun in questions])).to(self.device) / 255

    def look(self, images: Tensor) -> list[dict[str, int]]:
        found = [recognise(part, self.parts) for part in images.split(500)]
        numbers = {layer: torch.cat([each[layer] for each in found]).tolist() for layer in LAYERS}
        return [dict(zip(numbers, each)) for each in zip(*numbers.values())]

    def check(self, view: dict[str, int], question: Noun) -> dict[str, bool]:
        """A part is right if the one that was asked for would look no different there: another may hide it."""
        seen = replace(question, parts=view)
        right = {}
        for layer in set(LAYERS) - question.unsaid:
            asked = replace(seen, parts=view | {layer: question.parts[layer]})
            right[layer] = np.array_equal(self.nouns.render(asked), self.nouns.render(seen))
        return right


class Asked(NamedTuple):
    """An emoji in a style, and what was said of it."""

    caption: str
    split: str
    emoji: int
    style: int
    kind: str = "emoji"


class EmojiExam(Exam):
    """Emoji: a picture shows the one, in the style, whose picture it is nearest to, of all that there are."""

    kinds, attributes = ("emoji",), ("emoji", "style")

    def __init__(self, root: Path, device: torch.device, count: int, seed: int = 0):
        self.count, self.device = 4 * count, device  # they are of one kind
        self.sources = {split: open_emoji(root, SEED + seed, split) for split in ("seen", "unseen")}
        self.images = self.sources["seen"].images  # (emoji, styles, 3, H, W) uint8
        self.known = self.images.to(device).flatten(0, 1).flatten(1) / 255

    def questions(self, split: str) -> list[Asked]:
        source = self.sources[split]
        numbers, styles = {code: number for number, code in enumerate(source.codes)}, [*STYLES]
        pictures = [source[index] for index in range(self.count)]
        return [
            Asked(each.caption, split, numbers[each.emoji], styles.index(captions.split(each.caption)[0]))
            for each in pictures
        ]

    def render(self, questions: Sequence[Asked]) -> Tensor:
        return torch.stack([self.images[each.emoji, each.style] for each in questions]).to(self.device) / 255

    def look(self, images: Tensor) -> list[tuple[int, ...]]:
        nearest = torch.cat([torch.cdist(part, self.known).argmin(1) for part in images.flatten(1).split(500)])
        return [divmod(number, self.images.shape[1]) for number in nearest.tolist()]

    def check(self, view: tuple[int, int], question: Asked) -> dict[str, bool]:
        """Some emoji have the same picture: then it is any of them."""
        emoji, style = view
        same = torch.equal(self.images[emoji, style], self.images[question.emoji, style])
        return {"emoji": same, "style": style == question.style}


EXAMS: dict[str, Callable[..., Any]] = {"nouns": NounsExam, "emoji": EmojiExam}
EXAMS |= {name: partial(DigitsExam, rules=rules) for name, rules in RULES.items()}


def _has_twin(scene: Scene) -> bool:
    """Whether its roles can be swapped, and training may show that."""
    first, second = scene.digits
    return twin(scene).split == "seen" and first.digit != second.digit and first.colour != second.colour


def _is_described(scene: Scene) -> bool:
    """Whether its caption leaves neither colour nor size open: real pictures of it differ in all the rest."""
    return "colour" not in scene.unsaid and (scene.kind not in ("one", "two") or "size" not in scene.unsaid)
