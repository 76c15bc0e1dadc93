"""What a training on captions is looked at with: sheets of the same prompts, and how well they are obeyed."""

import statistics
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffusion import figures
from diffusion.data import captions
from diffusion.laboratory.exam import Exam, table
from diffusion.laboratory.run import Run

PROMPTS = 20  # of each kind, while training


class Examiner:
    """Draws the same prompts, of the test split, from the same noise after every so many steps, and checks pictures."""

    def __init__(self, run: Run, count: int):
        self.run, self.rows, self.sat = run, run.test.labels[:count], []
        self.exam = (
            Exam(self.sample, run.options.data_root, run.device, PROMPTS) if run.config.dataset == "digits" else None
        )

    def sample(self, prompts: Sequence[str], text: str = "prompts") -> Tensor:
        """A picture of each prompt, drawn by all processes together."""
        run = self.run
        rows = captions.encode(prompts, run.config.words, run.config.caption_length).to(run.device)
        return run.sample(len(rows), run.config.seed, text, labels=rows)

    def draw_sheet(self, step: int) -> None:
        """Write the pictures of the prompts, each with its prompt under it."""
        run, prompts = self.run, captions.decode(self.rows, self.run.config.words)
        images = self.sample(prompts, f"samples after step {step}")
        if run.is_main:
            path = run.options.out / f"contents/{run.name}_sample_{step:06d}.png"
            run.written.append(figures.captioned(images, prompts, path))

    def score(self) -> dict[str, Any]:
        """The share of prompts, all their combinations known from training, that are obeyed in everything, by kind."""
        self.sat = [*self.exam.sit(["seen"])] if self.exam else []
        right = {each.kind: statistics.mean(all(v.values()) for v in each.model) for each in self.sat}
        return right | ({"all_right": statistics.mean(right.values())} if right else {})

    def draw_curves(self) -> None:
        """The loss of every step, and what was right so far."""
        run, path = self.run, lambda stem: self.run.options.out / f"Plots/{stem}_for_{self.run.name}.png"
        if not run.is_main:
            return
        title = f"{run.name}, {run.config.dataset}"
        run.written.append(figures.losses(run.trainer.losses, run.trainer.steps_per_epoch, path("losses"), title))
        if self.sat:
            real = sum(all(v.values()) for each in self.sat for v in each.real) / sum(
                len(each.real) for each in self.sat
            )
            epochs, values = ([line[key] for line in run.history] for key in ("epoch", "all_right"))
            about = (path("obedience"), title, "share of prompts with all right", real)
            run.written.append(figures.curve(epochs, values, None, *about))

    def table(self) -> str:
        """What the last pictures show of what was asked for."""
        return table(self.sat) if self.sat else ""
