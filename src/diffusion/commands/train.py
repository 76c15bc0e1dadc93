"""Train a model from a preset or a YAML file, by steps, epochs or minutes."""

import argparse
import dataclasses
from pathlib import Path

from diffusion import figures, files
from diffusion.api.generation import guided_denoiser
from diffusion.errors import UserError
from diffusion.experiment import recipe
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.recipe import MOST, SETTINGS, Recipe
from diffusion.laboratory.judge import Judge, add_measuring_options, check_features, table
from diffusion.laboratory.options import Parser, number
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.settings import add_training_options
from diffusion.laboratory.stopping import stoppable

EXAMPLES = """examples:
  python src train --preset unet --minutes 5                       the best digits that five minutes can buy
  python src train --config configs/mnist_guided.yaml              as the file says
  python src train --config configs/mnist_guided.yaml --train.lr=1e-3 --network.hidden=[32,64] --steps 9000
"""


def parser() -> Parser:
    p = Parser(prog="python src train", description=__doc__, epilog=EXAMPLES)
    source = p.add_mutually_exclusive_group()
    source.add_argument("--preset", help=f"one of {', '.join(PRESETS)}")
    source.add_argument("--config", type=Path, help="a YAML file, as in configs/")
    p.add_argument("--steps", type=number(int, 1, MOST), help="train so many steps; with --resume, more extend a run")
    p.add_argument("--epochs", type=number(float, 1e-3, MOST), help="… or passes over the data")
    p.add_argument(
        "--minutes", type=number(float, 1e-3, MOST), help="… or minutes; what is used up first ends the training"
    )
    add_training_options(p)
    p.set_defaults(dataset=None)  # the recipe's
    add_measuring_options(p)
    return p


def read_recipe(argv: list[str] | None) -> tuple[argparse.Namespace, Recipe]:
    """The options, and the recipe that they and the dotted overrides make."""
    args, overrides = parser().parse_dotted_args(SETTINGS, argv)
    if args.config:
        what = recipe.read(args.config, overrides)
    else:
        name = "unet" if args.preset is None else args.preset
        what = recipe.recipe(name, {"preset": name}, overrides)
    budget = {key: getattr(args, key) for key in ("steps", "epochs", "minutes") if getattr(args, key)}
    if budget:  # budgets on the command line take the place of the file's
        told = {word.split("=")[0].removeprefix("--train.") for word in overrides}
        none = {key: None for key in ("steps", "epochs", "minutes") if key not in told}
        what = dataclasses.replace(what, plan=dataclasses.replace(what.plan, **(none | budget)))
    plan = what.plan
    if not (plan.steps or plan.epochs or plan.minutes):
        raise UserError("how long? Say --steps, --epochs or --minutes")
    return args, what


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args, what = read_recipe(argv)
    check_features(args, args.dataset or what.config.dataset)
    lab = Laboratory(what.config, args, what.name, f"{what.name}.pth", what.told)
    what = dataclasses.replace(what, config=lab.config)
    how = {"guidance_scale": what.looks.guidance_scale}
    lab.check_sampling()
    guided_denoiser(lab.experiment, what.looks.guidance_scale)  # a wrong one is refused now
    judge = Judge(lab)
    labels = lambda seed: lab.data.stratified(args.eval_samples, seed).labels if guided else None
    draw = lambda seed, text: lab.sample(args.eval_samples, seed, text, labels=labels(seed), **how)
    guided, seed = lab.config.classes > 0, lab.config.seed

    for step in lab.marks(what.plan):  # --- Train ---
        if lab.is_main:
            files.write_atomically(lab.folder.path / "recipe.yaml", lambda file: file.write(what.text().encode()))
        # --- Sample ---
        sheet = lab.gather(lab.sample(what.looks.count, seed, f"samples after step {step}", **how))
        lab.draw(figures.grid, sheet, name=f"contents/{lab.name}_sample_{step:06d}.png", columns=10)
        # --- Measure ---
        scores = judge.score(draw(seed, "samples to score"))
        lab.record(step / lab.trainer.steps_per_epoch, **scores._asdict(), floor=judge.floor.fid)
        lab.draw_curves(judge.floor)

    # --- Report ---
    finals = [judge.score(draw(each, f"seed {each}")) for each in range(seed, seed + args.eval_seeds)]
    lab.report(table(lab, finals, judge.floor))
