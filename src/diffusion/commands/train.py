"""Train a model from a preset or a YAML file, by steps, epochs or minutes."""

import argparse
import os
import sys
from dataclasses import replace

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment import recipe as recipes
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.recipe import MOST, SETTINGS, Recipe
from diffusion.experiment.samplers import AS_SAVED
from diffusion.laboratory.examiner import Examiner
from diffusion.laboratory.flags import RunOptions, add_training_flags
from diffusion.laboratory.judge import open_run
from diffusion.laboratory.options import Parser, number, path
from diffusion.laboratory.run import Run
from diffusion.laboratory.show import draw_curves, draw_grid, report, table
from diffusion.streaming.source import Stream

EXAMPLES = """examples:
  python src train --preset unet_fast --minutes 5                  the digits that five minutes can buy
  python src train --config configs/mnist_guided.yaml              as the file says
  python src train --config configs/text_digits.yaml --minutes 15  pictures by prompt; single digits obey after that
  python src train --config configs/mnist_guided.yaml --train.lr=1e-3 --network.hidden=[32,64] --steps 9000
"""
BUDGETS = ("steps", "epochs", "minutes")


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "train")
    source = p.add_mutually_exclusive_group()
    source.add_argument("--preset", help=f"one of {', '.join(PRESETS)}")
    source.add_argument("--config", type=path, help="a YAML file, as in configs/")
    p.add_argument("--steps", type=number(int, 1, MOST), help="train so many steps; with --resume, more extend a run")
    p.add_argument("--epochs", type=number(float, 1e-3, MOST), help="… or passes over the data")
    minutes = "… or minutes; what is used up first ends the training"
    p.add_argument("--minutes", type=number(float, 1e-3, MOST), help=minutes)
    p.add_argument("--stream", help="take the data from a server, ws://HOST:PORT (python src stream), not from files")
    add_training_flags(p, "runs", "Plots", "contents")
    p.set_defaults(dataset=None)  # the recipe's
    return p


def read_recipe(argv: list[str] | None) -> tuple[argparse.Namespace, Recipe]:
    """The options, and the recipe that they and the dotted overrides make."""
    args, overrides = parser().parse_dotted(SETTINGS, argv)
    given = {key: getattr(args, key) for key in BUDGETS if getattr(args, key)}
    if given:  # budgets on the command line take the place of the file's
        others = [key for key in BUDGETS if not any(word.startswith(f"--train.{key}=") for word in overrides)]
        overrides += [f"--train.{key}={value}" for key, value in (dict.fromkeys(others, "null") | given).items()]
    if args.config:
        recipe = recipes.read(args.config, overrides)
    else:
        name = "unet" if args.preset is None else args.preset
        recipe = recipes.recipe(name, {"preset": name}, overrides)
    if not any(getattr(recipe.plan, key) for key in BUDGETS):
        raise UserError("how long? Say --steps, --epochs or --minutes")
    return args, recipe


def warn(text: str) -> None:
    """Say it once, whatever the number of processes; this one may have no run yet."""
    if os.environ.get("RANK", "0") == "0":
        print(f"\n{text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args, recipe = read_recipe(argv)
    stream = Stream(args.stream, warn) if args.stream else None
    if recipe.config.network == "text":
        return train_on_captions(args, recipe, stream)
    load = stream.load if stream else None
    run, judge = open_run(args, recipe.config, recipe.name, f"{recipe.name}.pth", AS_SAVED, recipe.explicit, load)
    if stream:
        stream.on_wait(run.stop_waiting)
    text, scores = replace(recipe, config=run.config).text().encode(), None

    for step in run.steps(recipe.plan):  # --- Train ---
        if run.is_main:
            files.write_atomically(run.folder.path / "recipe.yaml", lambda file: file.write(text))
        # --- Sample ---
        sheet = run.sample(recipe.sheet.count, run.config.seed, f"samples after step {step}")
        draw_grid(run, sheet, f"contents/{run.name}_sample_{step:06d}.png", columns=10)
        # --- Measure ---
        scores = judge.score(judge.sample(run.config.seed))
        run.record(step / run.trainer.steps_per_epoch, **scores._asdict(), floor=judge.floor.fid)
        draw_curves(judge)

    # --- Report ---
    report(run, table(judge, judge.final_scores(scores)))


def train_on_captions(args: argparse.Namespace, recipe: Recipe, stream: Stream | None) -> None:
    """As `main`, for a text network: sheets of prompts, scored by what they show of what was asked for."""
    # --- Setup ---
    load = stream.load if stream else None
    run = Run(recipe.config, RunOptions.of(args), recipe.name, f"{recipe.name}.pth", recipe.explicit, load_data=load)
    if stream:
        stream.on_wait(run.stop_waiting)
    examiner = Examiner(run, recipe.sheet.count)
    text = replace(recipe, config=run.config).text().encode()

    for step in run.steps(recipe.plan):  # --- Train ---
        if run.is_main:
            files.write_atomically(run.folder.path / "recipe.yaml", lambda file: file.write(text))
        run.record(step / run.trainer.steps_per_epoch, **examiner.examine(step))  # --- Sample, Measure ---
        examiner.draw_curves()

    # --- Report ---
    report(run, examiner.table())
