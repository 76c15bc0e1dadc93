"""What a training on captions is looked at with: sheets of the same prompts, and how well they are obeyed."""

import statistics

from diffusion import figures
from diffusion.laboratory.exam import Marks, table
from diffusion.laboratory.run import Run
from diffusion.laboratory.show import draw_losses
from diffusion.laboratory.subjects import EXAMS

PROMPTS = 20  # of each kind, while training


class Examiner:
    """Draws the same prompts, of the test split, from the same noise after every so many steps, and checks pictures."""

    def __init__(self, run: Run, count: int):
        exam = EXAMS.get(run.config.dataset)  # of other pictures nobody knows what they show
        self.run, self.exam = run, exam and exam(run.options.data_root, run.device, PROMPTS)
        self.questions = self.exam.questions("seen") if self.exam else []
        self.sheet = run.experiment.reader.decode(run.test.labels[:count])
        self.marks: list[Marks] = []

    def examine(self, step: int) -> dict[str, float]:
        """Draw all prompts, write the sheet, each picture with its prompt under it, and score the rest: the share in
        which everything is right, by kind. All processes draw, and each must call.
        """
        run, prompts = self.run, [*self.sheet, *(each.caption for each in self.questions)]
        rows = run.experiment.reader.encode(prompts).to(run.device)
        images = run.sample(len(rows), run.config.seed, f"prompts after step {step}", labels=rows)
        if run.is_main:
            path = run.options.out / f"contents/{run.name}_sample_{step:06d}.png"
            run.written.append(figures.captioned(images[: len(self.sheet)], self.sheet, path))
        if not self.exam:
            return {}
        self.marks = self.exam.mark(self.questions, images[len(self.sheet) :])
        right = {each.kind: statistics.mean(all(v.values()) for v in each.model) for each in self.marks}
        return right | {"all_right": statistics.mean(right.values())}

    def draw_curves(self) -> None:
        """The loss of every step, and what was right so far."""
        run, path = self.run, lambda stem: self.run.options.out / f"Plots/{stem}_for_{self.run.name}.png"
        if not run.is_main:
            return
        draw_losses(run)
        if self.marks:
            title = f"{run.name}, {run.config.dataset}"
            real = statistics.mean(all(verdict.values()) for each in self.marks for verdict in each.real)
            epochs, values = ([line[key] for line in run.history] for key in ("epoch", "all_right"))
            about = (path("obedience"), title, "share of prompts with all right", real)
            run.written.append(figures.curve(epochs, values, None, *about))

    def table(self) -> str:
        """What the last pictures show of what was asked for."""
        return table(self.marks, self.exam.attributes) if self.exam else ""
