"""Training of images with labels, of captions, and of the models of --model."""

import os
import sys
from argparse import Namespace
from dataclasses import replace

from diffusion import files
from diffusion.experiment.recipe import Recipe
from diffusion.experiment.samplers import AS_SAVED
from diffusion.laboratory import versions
from diffusion.laboratory.examiner import Examiner
from diffusion.laboratory.flags import RunOptions
from diffusion.laboratory.judge import open_run
from diffusion.laboratory.losses import held_out_loss
from diffusion.laboratory.promotion import promote
from diffusion.laboratory.run import Run
from diffusion.laboratory.show import draw_curves, draw_grid, draw_losses, report, table
from diffusion.streaming.source import Stream


def warn(text: str) -> None:
    """Say it once, whatever the number of processes; this one may have no run yet."""
    if os.environ.get("RANK", "0") == "0":
        print(f"\n{text}", file=sys.stderr, flush=True)


def write_recipe(run: Run, recipe: Recipe) -> None:
    """Keep the recipe, with what the run has decided, beside the state."""
    if run.is_main:
        text = replace(recipe, config=run.config).text().encode()
        files.write_atomically(run.folder.path / "recipe.yaml", lambda file: file.write(text))


def main(args: Namespace) -> None:
    # --- Setup ---
    recipe, stream = args.recipe, Stream(args.stream, warn) if args.stream else None
    if args.model:
        return train_model(args, recipe, stream)
    if recipe.config.network == "text":
        return train_on_captions(args, recipe, stream)
    run, judge = open_run(args, recipe.config, recipe.name, f"{recipe.name}.pth", AS_SAVED, recipe.explicit, stream)
    scores = None

    for step in run.steps(recipe.plan):  # --- Train ---
        write_recipe(run, recipe)
        # --- Sample ---
        sheet = run.sample(recipe.sheet.count, run.config.seed, f"samples after step {step}")
        draw_grid(run, sheet, f"contents/{run.name}_sample_{step:06d}.png", columns=10)
        # --- Measure ---
        scores = judge.score(judge.sample(run.config.seed))
        run.record(step / run.trainer.steps_per_epoch, **scores._asdict(), floor=judge.floor.fid)
        draw_curves(judge)

    # --- Report ---
    report(run, table(judge, judge.final_scores(scores)))


def train_on_captions(args: Namespace, recipe: Recipe, stream: Stream | None) -> None:
    """As `main`, for a text network: sheets of prompts, scored by what they show of what was asked for."""
    # --- Setup ---
    run = Run(recipe.config, RunOptions.of(args), recipe.name, f"{recipe.name}.pth", recipe.explicit, stream=stream)
    examiner = Examiner(run, recipe.sheet.count)

    for step in run.steps(recipe.plan):  # --- Train ---
        write_recipe(run, recipe)
        run.record(step / run.trainer.steps_per_epoch, **examiner.examine(step))  # --- Sample, Measure ---
        examiner.draw_curves()

    # --- Report ---
    report(run, examiner.table())


def train_model(args: Namespace, recipe: Recipe, stream: Stream | None) -> None:
    """By data set and kind: a version dev after every epoch, measured by its loss on held-out training images."""
    run = Run(recipe.config, RunOptions.of(args), recipe.name, f"{recipe.name}.pth", recipe.explicit, stream=stream)
    every = run.trainer.steps_per_epoch
    for step in run.steps(replace(recipe.plan, sheet_steps=(), sheet_every=every)):
        sheet = run.sample(recipe.sheet.count, run.config.seed, f"samples after step {step}")
        draw_grid(run, sheet, f"contents/{run.name}.png", columns=10)
        loss = held_out_loss(run.experiment, run.held_out)
        run.record(step / every, held_out=loss)
        run.say(f"epoch {step / every:.4g}: loss {loss:.4f} on {len(run.held_out):,} held-out training images")
        draw_losses(run)
    text = ""
    if run.is_main:
        dev, main = (versions.path_of(args.out, run.name, each) for each in versions.VERSIONS)
        text = promote(dev, main, args.promote, run.held_out)
    report(run, text)
