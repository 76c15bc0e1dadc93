"""An examination in obedience: a text model, real pictures and chance before the same prompts."""

from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion.data.digits import Digits, handwritten
from diffusion.data.scenes import KINDS, Scene, Split, draw, redraw, twin
from diffusion.files import shipped_weights
from diffusion.laboratory.show import row
from diffusion.metrics.features import extractor_for
from diffusion.metrics.obedience import ATTRIBUTES, Share, check, diversity, look, shares, twins

SEED = 2  # of the prompts; training's are drawn from 0
VARIED, EACH = 4, 8  # prompts of a kind that diversity is measured on, and pictures of each
Draw = Callable[[Sequence[str]], Tensor]  # prompts -> pictures (N, 3, 32, 32) in [0, 1]
Verdicts = list[dict[str, bool]]


class Sat(NamedTuple):
    """The verdicts of one kind of prompts."""

    kind: str
    split: Split
    model: Verdicts
    real: Verdicts  # pictures drawn from test digits: as much as the checkers can see
    chance: Verdicts  # those pictures, each before its neighbour's prompt


class Exam:
    """Prompts of a seed that no training uses, and real pictures of them, drawn from digits of the test split."""

    def __init__(self, root: Path, device: torch.device, count: int):
        self.count, self.device = count, device
        self.source = Digits(handwritten("test", root), SEED)
        self.reader = extractor_for("MNIST-crops", shipped_weights(), device)

    def scenes(self, split: Split) -> list[Scene]:
        """`count` of each kind, one kind after the other."""
        return [draw(SEED, index, split, kind) for kind in KINDS for index in range(self.count)]

    def mark(self, scenes: Sequence[Scene], images: Tensor) -> list[Sat]:
        """The verdicts on a model's pictures (N, 3, 32, 32) of these scenes, in [0, 1], by kind."""
        model, views = look(images, self.reader), look(self.render(scenes), self.reader)
        neighbours = views[1:] + views[:1]
        found = [[*map(check, each, scenes)] for each in (model, views, neighbours)]
        kinds = {kind: [i for i, scene in enumerate(scenes) if scene.kind == kind] for kind in KINDS}
        split = scenes[0].split
        return [Sat(kind, split, *([each[i] for i in some] for each in found)) for kind, some in kinds.items()]

    def twins(self, sample: Draw) -> tuple[Share, Share]:
        """Of a model and of real pictures: pairs of prompts with their roles swapped that are both right."""
        pairs = [*islice(filter(_has_twin, (draw(SEED + 1, i, "seen", "two") for i in count())), self.count)]
        swapped = [redraw(twin(scene), SEED) for scene in pairs]
        verdict = lambda images, asked: [*map(check, look(images, self.reader), asked)]
        of_model = (verdict(sample([each.caption for each in asked]), asked) for asked in (pairs, swapped))
        return twins(*of_model), twins(*(verdict(self.render(asked), asked) for asked in (pairs, swapped)))

    def diversity(self, sample: Draw) -> tuple[float, float]:
        """How much pictures of the same prompt differ, of a model and of real ones."""
        scenes = [scene for kind in KINDS for scene in _told(kind)]
        prompts = [scene.caption for scene in scenes for _ in range(EACH)]
        real = self.render([redraw(scene, seed) for scene in scenes for seed in range(EACH)])
        differ = lambda images: diversity(images.unflatten(0, (-1, EACH)))
        return differ(sample(prompts)), differ(real)

    def render(self, scenes: Sequence[Scene]) -> Tensor:
        return torch.from_numpy(np.stack([self.source.render(scene) for scene in scenes])).to(self.device) / 255


def _has_twin(scene: Scene) -> bool:
    """Whether its roles can be swapped, and training may show that."""
    first, second = scene.digits
    return twin(scene).split == "seen" and first.digit != second.digit and first.colour != second.colour


def _told(kind: str) -> list[Scene]:
    """Some scenes whose captions leave neither colour nor size open: real pictures of them differ in all the rest."""
    drawn = (draw(SEED + 2, index, "seen", kind) for index in count())
    is_told = lambda scene: "colour" not in scene.unsaid and (kind not in ("one", "two") or "size" not in scene.unsaid)
    return [*islice(filter(is_told, drawn), VARIED)]


# --- Its table ---


def table(sat: Sequence[Sat]) -> str:
    """All right by kind of prompt, then each attribute over all of them, with 95 % intervals."""
    lines = [row("all right", "model", "95 %", "real", "chance")]
    for each in sat:
        lines.append(row(f"{each.kind}, {each.split}", *_cells([each], "all right")))
    for split in dict.fromkeys(each.split for each in sat):
        of = [each for each in sat if each.split == split]
        lines += ["", row(f"all kinds, {split}", "model", "95 %", "real", "chance")]
        lines += [row(what, *_cells(of, what)) for what in ("all right", *ATTRIBUTES)]
    return "\n".join(lines)


def _cells(sat: Sequence[Sat], what: str) -> list[str]:
    model, real, chance = (shares([v for each in sat for v in getattr(each, who)])[what] for who in Sat._fields[2:])
    value, interval = describe(model).split()
    return [value, interval, f"{real.value:.1%}", f"{chance.value:.1%}"]


def describe(share: Share) -> str:
    """Its value and its 95 % interval."""
    low, high = share.interval
    return f"{share.value:.1%} {low:.1%}–{high:.1%}"


def record(sat: Sequence[Sat]) -> dict[str, Any]:
    """The same as numbers: right of how many, by kind, split, who and attribute."""
    return {f"{each.kind} {each.split}": {who: shares(getattr(each, who)) for who in Sat._fields[2:]} for each in sat}
