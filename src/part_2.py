"""Part 2: cold diffusion. Train a network to undo the averaging of rows or columns; restore test digits, draw new ones.

python src/part_2.py 2 default_28 row      default_7, default_28, more_capacity, cold_unet; row or col
"""

from diffusion.laboratory.stopping import importing

with importing():
    from argparse import Namespace

    from diffusion.experiment.naming import run_names
    from diffusion.experiment.presets import COLD, preset
    from diffusion.experiment.samplers import SamplingOptions
    from diffusion.laboratory.flags import add_flags, add_training_flags
    from diffusion.laboratory.options import Parser, number, one_of, run_command


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", COLD), help=f"one of {', '.join(COLD)}")
    p.add_argument("axis", metavar="AXIS", type=one_of("axis", ["row", "col"]), help="row or col: what is averaged")
    add_flags(p, "noise", "order", "loss")
    add_training_flags(p, "runs", "Plots", "contents_custom", process="averaging")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = read(argv)  # --help and mistakes do not wait for torch
    with importing():
        import torch

        from diffusion.api.generation import degrade_images
        from diffusion.laboratory.judge import COLD_SAMPLERS, open_run
        from diffusion.laboratory.show import draw_curves, draw_grid, likeness_table, report, table
    base = preset(COLD, args.preset).replace(axis=args.axis)
    run, judge = open_run(args, base, *run_names(base))
    originals, seed, most = run.test.images, run.config.seed, args.eval_samples
    restore = lambda count, options: run.sample(count, seed, "restoring test images", options, originals=originals)

    for epoch in run.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        due = epoch % args.eval_every == 0 or epoch == args.epochs
        images = restore(most if due else 16, judge.sampling)
        for kind, some in {
            "custom": images[:16],
            "original": originals[:16] / 255,
            "degraded": degrade_images(run.experiment, originals[:16], torch.tensor(1.0)),
            "direct": restore(16, SamplingOptions("direct")),
            "unconditional": run.sample(16, seed, "unconditional samples", judge.sampling),
        }.items():
            draw_grid(run, some, f"contents_custom/{kind}_sample_{epoch:04d}_{args.axis}_{args.preset}.png")
        # --- Measure ---
        floor = {"floor": judge.floor.fid}
        scores = judge.score(images)._asdict() | floor | judge.likeness(images)._asdict() if due else {}
        run.record(epoch, **scores)
        draw_curves(judge)

    # --- Report ---
    restored = {sampler: restore(most, SamplingOptions(sampler)) for sampler in COLD_SAMPLERS}
    rows = {sampler: (judge.score(images), judge.likeness(images)) for sampler, images in restored.items()}
    report(run, f"{likeness_table(judge, rows)}\n\nunconditional\n{table(judge, judge.final_scores())}")


if __name__ == "__main__":
    run_command(main)
