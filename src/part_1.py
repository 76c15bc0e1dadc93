"""Part 1: train a DDPM, and after every epoch look at its digits, its loss, FID and inception score.

python src/part_1.py 1 default             one epoch, a few minutes on a laptop
python src/part_1.py 20 testing --resume   go on with an earlier run, up to epoch 20
"""

from diffusion.laboratory.stopping import importing

with importing():
    from argparse import Namespace

    from diffusion.experiment.naming import run_names
    from diffusion.experiment.presets import DDPM, preset
    from diffusion.laboratory.flags import add_training_flags
    from diffusion.laboratory.options import Parser, number, one_of, run_command


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained model and its samples")
    p.add_argument("preset", metavar="PRESET", type=one_of("preset", DDPM), help=f"one of {', '.join(DDPM)}")
    add_training_flags(p, "runs", "Plots", "contents", process="gaussian")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = read(argv)  # --help and mistakes do not wait for torch
    with importing():
        import torch

        from diffusion.api.generation import degrade_images
        from diffusion.laboratory.judge import open_run
        from diffusion.laboratory.show import draw_curves, draw_grid, report, table
    base = preset(DDPM, args.preset)
    run, judge = open_run(args, base, *run_names(base))
    originals, seed, scores = run.test.images[:16], run.config.seed, None
    for t in torch.tensor([0, 0.25, 0.5, 0.75, 1]):
        name = f"Plots/ddpm_degraded_sample_{round(t.item() * run.config.timesteps)}.png"
        draw_grid(run, degrade_images(run.experiment, originals, t), name)

    for epoch in run.epochs(args.epochs):  # --- Train ---
        # --- Sample ---
        stem, due = f"{epoch:04d}_{args.preset}.png", epoch % args.eval_every == 0 or epoch == args.epochs
        count, text = args.eval_samples if due else 16, f"samples of epoch {epoch}"
        images = run.sample(count, seed, text, judge.sampling)
        draw_grid(run, images[:16], f"contents/ddpm_sample_{stem}")
        times = torch.arange(1, 17) / 16  # nearly clean to pure noise
        draw_grid(run, degrade_images(run.experiment, originals, times), f"contents/ddpm_degraded_{stem}")
        # --- Measure ---
        scores = judge.score(images) if due else None
        run.record(epoch, **(scores._asdict() | {"floor": judge.floor.fid} if scores else {}))
        draw_curves(judge)

    # --- Report ---
    report(run, table(judge, judge.final_scores(scores)))


if __name__ == "__main__":
    run_command(main)
