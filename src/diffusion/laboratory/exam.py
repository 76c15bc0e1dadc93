"""An examination in obedience: a text model, real pictures and chance before the same prompts."""

from collections.abc import Callable, Iterator, Sequence
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
    """Prompts that no training has seen, and real pictures of them, drawn from digits of the test split."""

    def __init__(self, sample: Draw, root: Path, device: torch.device, count: int):
        self.sample, self.count, self.device = sample, count, device
        self.source = Digits(handwritten("test", root), SEED)
        self.reader = extractor_for("MNIST-crops", shipped_weights(), device)

    def sit(self, splits: Sequence[Split] = ("seen", "unseen")) -> Iterator[Sat]:
        """One kind of prompts after the other, `count` of each."""
        for split in splits:
            for kind in KINDS:
                scenes = [draw(SEED, index, split, kind) for index in range(self.count)]
                views = look(self.render(scenes), self.reader)
                chance = [check(view, scene) for view, scene in zip(views[1:] + views[:1], scenes)]
                real = [check(view, scene) for view, scene in zip(views, scenes)]
                yield Sat(kind, split, self.judge(scenes), real, chance)

    def twins(self) -> tuple[Share, Share]:
        """Of the model and of real pictures: pairs of prompts with their roles swapped that are both right."""
        pairs, index = [], 0
        while len(pairs) < self.count:
            scene, index = draw(SEED + 1, index, "seen", "two"), index + 1
            first, second = scene.digits
            if twin(scene).split == "seen" and first.digit != second.digit and first.colour != second.colour:
                pairs.append(scene)
        swapped = [redraw(twin(scene), SEED) for scene in pairs]
        real = [[check(view, scene) for view, scene in zip(look(self.render(asked), self.reader), asked)]
                for asked in (pairs, swapped)]  # fmt: skip
        return twins(self.judge(pairs), self.judge(swapped)), twins(*real)

    def diversity(self) -> tuple[float, float]:
        """How much pictures of the same prompt differ, of the model and of real ones."""
        scenes = [scene for kind in KINDS for scene in self._said(kind)]
        prompts = [scene.caption for scene in scenes for _ in range(EACH)]
        real = self.render([redraw(scene, seed) for scene in scenes for seed in range(EACH)])
        return tuple(diversity(each.unflatten(0, (-1, EACH))) for each in (self.sample(prompts), real))

    def judge(self, scenes: Sequence[Scene]) -> Verdicts:
        """Of the model's pictures."""
        views = look(self.sample([scene.caption for scene in scenes]), self.reader)
        return [check(view, scene) for view, scene in zip(views, scenes)]

    def render(self, scenes: Sequence[Scene]) -> Tensor:
        return torch.from_numpy(np.stack([self.source.render(scene) for scene in scenes])).to(self.device) / 255

    def _said(self, kind: str) -> list[Scene]:
        """Some scenes whose captions leave neither colour nor size open."""
        open_ = {"colour", "size"} if kind in ("one", "two") else {"colour"}
        drawn = (draw(SEED + 2, index, "seen", kind) for index in range(10_000))
        found = (scene for scene in drawn if not open_ & scene.unsaid)
        return [scene for _, scene in zip(range(VARIED), found)]


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
