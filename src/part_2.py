"""Part 2: cold diffusion. Train a network to undo the averaging of rows or columns; restore test digits, draw new ones.

python src/part_2.py 2 default_28 row      default_7, default_28, more_capacity, cold_unet; row or col
"""

import torch

from diffusion import figures
from diffusion.api.generation import degrade_images
from diffusion.experiment import coursework
from diffusion.experiment.presets import COLD, preset
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.laboratory.flags import add_flags, add_sampling_flags, add_score_flags, add_training_flags
from diffusion.laboratory.judge import COLD_SAMPLERS, Judge, check_features, likeness_table, table
from diffusion.laboratory.options import Parser, number, one_of, run_command
from diffusion.laboratory.run import Run
from diffusion.laboratory.settings import RunOptions, ScoreOptions
from diffusion.laboratory.show import draw, draw_curves, report
from diffusion.laboratory.stopping import stoppable


def parser() -> Parser:
    p = Parser(prog="python src/part_2.py", description=__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", COLD), help=f"one of {', '.join(COLD)}")
    p.add_argument("axis", metavar="AXIS", type=one_of("axis", ["row", "col"]), help="row or col: what is averaged")
    add_flags(p, "noise", "order", "loss")
    add_training_flags(p)
    add_sampling_flags(p, "averaging")
    add_score_flags(p)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check_features(args.features, args.dataset, labels=True)
    base, name = preset(COLD, args.preset).replace(axis=args.axis), f"{args.axis}_{args.preset}"
    run = Run(base, RunOptions.of(args), *coursework.run_names(base))
    options = SamplingOptions(args.sampler, args.steps)
    build_sampler(run.experiment, options)  # impossible steps are refused now, not after an epoch
    judge, originals, seed = Judge(run, ScoreOptions.of(args)), run.test.images, run.config.seed
    restore = lambda count, options: run.sample(count, seed, "restoring test images", options, originals=originals)

    for epoch in run.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        stem, due = f"{epoch:04d}_{name}.png", epoch % args.eval_every == 0 or epoch == args.epochs
        images = restore(args.eval_samples if due else 16, options)
        for kind, some in {
            "custom": run.gather(images)[:16],
            "original": originals[:16] / 255,
            "degraded": degrade_images(run.experiment, originals[:16], torch.tensor(1.0)),
            "direct": run.gather(restore(16, SamplingOptions("direct")))[:16],
            "unconditional": run.gather(run.sample(16, seed, "unconditional samples", options))[:16],
        }.items():
            draw(run, figures.grid, some, name=f"contents_custom/{kind}_sample_{stem}")
        # --- Measure ---
        floor = {"floor": judge.floor.fid}
        scores = judge.score(images)._asdict() | floor | judge.likeness(images)._asdict() if due else {}
        run.record(epoch, **scores)
        draw_curves(run, judge.floor)

    # --- Report ---
    restored = {sampler: restore(args.eval_samples, SamplingOptions(sampler)) for sampler in COLD_SAMPLERS}
    rows = {sampler: (judge.score(images), judge.likeness(images)) for sampler, images in restored.items()}
    new = lambda seed: run.sample(args.eval_samples, seed, f"unconditional, seed {seed}", options)
    news = [judge.score(new(each)) for each in range(seed, seed + args.eval_seeds)]
    report(run, f"{likeness_table(rows, judge)}\n\nunconditional\n{table(run, news, judge.floor)}")


if __name__ == "__main__":
    run_command(main)
