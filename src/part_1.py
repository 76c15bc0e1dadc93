"""Part 1: train a DDPM, and after every epoch look at its digits, its loss, FID and inception score.

python src/part_1.py 1 default             one epoch, a few minutes on a laptop
python src/part_1.py 20 testing --resume   go on with an earlier run, up to epoch 20
"""

import torch

from diffusion import figures
from diffusion.api.generation import degrade_images
from diffusion.experiment import coursework
from diffusion.experiment.presets import DDPM, preset
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.laboratory.flags import add_sampling_flags, add_score_flags, add_training_flags
from diffusion.laboratory.judge import Judge, check_features, table
from diffusion.laboratory.options import Parser, number, one_of, run_command
from diffusion.laboratory.run import Run
from diffusion.laboratory.settings import RunOptions, ScoreOptions
from diffusion.laboratory.show import draw, draw_curves, report
from diffusion.laboratory.stopping import stoppable


def parser() -> Parser:
    p = Parser(prog="python src/part_1.py", description=__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", DDPM), help=f"one of {', '.join(DDPM)}")
    add_training_flags(p)
    add_sampling_flags(p, "gaussian")
    add_score_flags(p)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check_features(args.features, args.dataset)
    base = preset(DDPM, args.preset)
    run = Run(base, RunOptions.of(args), *coursework.run_names(base))
    options = SamplingOptions(args.sampler, args.steps)
    build_sampler(run.experiment, options)  # impossible steps are refused now, not after an epoch
    judge, originals, seed = Judge(run, ScoreOptions.of(args)), run.test.images[:16], run.config.seed
    for t in torch.tensor([0, 0.25, 0.5, 0.75, 1]):
        name = f"Plots/ddpm_degraded_sample_{round(t.item() * run.config.timesteps)}.png"
        draw(run, figures.grid, degrade_images(run.experiment, originals, t), name=name)

    scores = None  # of the latest epoch, under the first seed
    for epoch in run.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        stem, due = f"{epoch:04d}_{args.preset}.png", epoch % args.eval_every == 0 or epoch == args.epochs
        images = run.sample(args.eval_samples if due else 16, seed, f"samples of epoch {epoch}", options)
        draw(run, figures.grid, run.gather(images)[:16], name=f"contents/ddpm_sample_{stem}")
        ladder = degrade_images(run.experiment, originals, torch.arange(1, 17) / 16)  # nearly clean to pure noise
        draw(run, figures.grid, ladder, name=f"contents/ddpm_degraded_{stem}")
        # --- Measure ---
        scores = judge.score(images) if due else None
        run.record(epoch, **(scores._asdict() | {"floor": judge.floor.fid} if due else {}))
        draw_curves(run, judge.floor)

    # --- Report ---
    sample = lambda seed: judge.score(run.sample(args.eval_samples, seed, f"seed {seed}", options))
    seeds = range(seed, seed + args.eval_seeds)
    report(run, table(run, [scores if scores and each == seed else sample(each) for each in seeds], judge.floor))


if __name__ == "__main__":
    run_command(main)
