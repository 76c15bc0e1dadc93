"""Part 1: train a DDPM, and after every epoch look at its digits, its loss, FID and inception score.

python src/part_1.py 1 default             one epoch, a few minutes on a laptop
python src/part_1.py 20 testing --resume   go on with an earlier run, up to epoch 20
"""

import torch

from diffusion import figures
from diffusion.experiment import coursework
from diffusion.experiment.presets import DDPM, preset
from diffusion.laboratory.judge import Judge, add_measuring_options, add_sampling_options, check_features, table
from diffusion.laboratory.options import Parser, number, one_of, run_command
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.settings import add_training_options
from diffusion.laboratory.stopping import stoppable


def parser() -> Parser:
    p = Parser(prog="python src/part_1.py", description=__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", DDPM), help=f"one of {', '.join(DDPM)}")
    add_training_options(p)
    add_sampling_options(p, "gaussian")
    add_measuring_options(p)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check_features(args, args.dataset)
    base = preset(DDPM, args.preset)
    lab = Laboratory(base, args, *coursework.run_names(base))
    how = {"sampler": args.sampler, "steps": args.steps}
    lab.check_sampling(**how)
    judge = Judge(lab)
    originals = lab.test.images[:16]
    for t in (0, 0.25, 0.5, 0.75, 1):
        name = f"Plots/ddpm_degraded_sample_{round(t * lab.config.timesteps)}.png"
        lab.draw(figures.grid, lab.degrade_images(originals, t), name=name)

    scores = None  # of the latest epoch, under the first seed
    for epoch in lab.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        stem, due = f"{epoch:04d}_{args.preset}.png", epoch % args.eval_every == 0 or epoch == args.epochs
        images = lab.sample(args.eval_samples if due else 16, lab.config.seed, f"samples of epoch {epoch}", **how)
        lab.draw(figures.grid, lab.gather(images)[:16], name=f"contents/ddpm_sample_{stem}")
        ladder = lab.degrade_images(originals, torch.arange(1, 17) / 16)  # from nearly clean to pure noise
        lab.draw(figures.grid, ladder, name=f"contents/ddpm_degraded_{stem}")
        # --- Measure ---
        scores = judge.score(images) if due else None
        lab.record(epoch, **(scores._asdict() | {"floor": judge.floor.fid} if due else {}))
        lab.draw_curves(judge.floor)

    # --- Report ---
    first, seeds = lab.config.seed, range(lab.config.seed, lab.config.seed + args.eval_seeds)
    draw = lambda seed: judge.score(lab.sample(args.eval_samples, seed, f"seed {seed}", **how))
    finals = [scores if scores and seed == first else draw(seed) for seed in seeds]
    lab.report(table(lab, finals, judge.floor))


if __name__ == "__main__":
    run_command(main)
