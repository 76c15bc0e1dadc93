"""Part 2: cold diffusion. Train a network to undo the averaging of rows or columns; restore test digits, draw new ones.

python src/part_2.py 2 default_28 row      default_7, default_28, more_capacity, cold_unet; row or col
"""

from diffusion import figures
from diffusion.experiment import coursework
from diffusion.experiment.presets import COLD, preset
from diffusion.laboratory.judge import (
    WAYS,
    Judge,
    add_measuring_options,
    add_sampling_options,
    check_features,
    likeness_table,
    table,
)
from diffusion.laboratory.options import Parser, number, one_of, run_command
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.settings import add_training_options
from diffusion.laboratory.stopping import stoppable
from diffusion.method.averaging import ORDERS
from diffusion.method.denoiser import LOSSES


def parser() -> Parser:
    p = Parser(prog="python src/part_2.py", description=__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", COLD), help=f"one of {', '.join(COLD)}")
    p.add_argument("axis", metavar="AXIS", type=one_of("axis", ["row", "col"]), help="row or col: what is averaged")
    p.add_argument("--noise", type=number(float, 0, 10),
                   help="on averaged images, in units of x (default: the preset's; 0 is the coursework's)")  # fmt: skip
    p.add_argument("--order", type=one_of("order", ORDERS), help="in which lines are averaged (default: random)")
    p.add_argument("--loss", type=one_of("loss", LOSSES), help="l2 or l1 (default: l2)")
    add_training_options(p)
    add_sampling_options(p, "averaging")
    add_measuring_options(p)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check_features(args, args.dataset, labels=True)
    base, name = preset(COLD, args.preset).replace(axis=args.axis), f"{args.axis}_{args.preset}"
    lab = Laboratory(base, args, *coursework.run_names(base))
    how = {"sampler": args.sampler, "steps": args.steps}
    lab.check_sampling(**how)
    judge, originals = Judge(lab), lab.test.images
    restore = lambda count, **how: lab.sample(count, lab.config.seed, "restoring test images", originals, **how)

    for epoch in lab.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        stem, due = f"{epoch:04d}_{name}.png", epoch % args.eval_every == 0 or epoch == args.epochs
        images = restore(args.eval_samples if due else 16, **how)
        for kind, some in {
            "custom": lab.gather(images)[:16],
            "original": originals[:16] / 255,
            "degraded": lab.degrade_images(originals[:16], 1.0),
            "direct": lab.gather(restore(16, sampler="direct"))[:16],
            "unconditional": lab.gather(lab.sample(16, lab.config.seed, "unconditional samples", **how))[:16],
        }.items():
            lab.draw(figures.grid, some, name=f"contents_custom/{kind}_sample_{stem}")
        # --- Measure ---
        scores = (
            judge.score(images)._asdict() | {"floor": judge.floor.fid} | judge.likeness(images)._asdict() if due else {}
        )
        lab.record(epoch, **scores)
        lab.draw_curves(judge.floor)

    # --- Report ---
    ways = {way: restore(args.eval_samples, sampler=way) for way in WAYS}
    rows = {way: (judge.score(images), judge.likeness(images)) for way, images in ways.items()}
    seeds = range(lab.config.seed, lab.config.seed + args.eval_seeds)
    news = [judge.score(lab.sample(args.eval_samples, seed, f"unconditional, seed {seed}", **how)) for seed in seeds]
    lab.report(f"{likeness_table(rows, judge)}\n\nunconditional\n{table(lab, news, judge.floor)}")


if __name__ == "__main__":
    run_command(main)
