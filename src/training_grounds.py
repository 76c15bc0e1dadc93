"""The training grounds: train a model of either part and keep its weights, nothing else.

python src/training_grounds.py 5 default False         part 1, a DDPM
python src/training_grounds.py 5 default_28 True row   part 2, cold diffusion of rows
"""

from diffusion.laboratory.stopping import importing

with importing():
    from argparse import Namespace

    from diffusion.errors import UserError
    from diffusion.experiment.naming import run_names
    from diffusion.experiment.presets import COLD, DDPM, preset
    from diffusion.laboratory.flags import RunOptions, add_flags, add_training_flags
    from diffusion.laboratory.options import Parser, number, one_of, run_command

ANSWERS = {"true": True, "yes": True, "false": False, "no": False}


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__)
    answer = lambda word: ANSWERS[one_of("answer", ANSWERS)(word.lower())]
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained weights")
    p.add_argument("preset", metavar="PRESET", help=f"DDPM: {', '.join(DDPM)}; cold: {', '.join(COLD)}")
    p.add_argument("cold", metavar="COLD", type=answer, help="True (or yes) for cold diffusion, False (or no) for DDPM")
    axis = one_of("axis", ["row", "col"])
    p.add_argument("axis", metavar="AXIS", nargs="?", type=axis, help="row or col, of cold diffusion only")
    add_flags(p, "noise", "order", "loss")
    add_training_flags(p, "runs", scores=False)
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = read(argv)  # --help and mistakes do not wait for torch
    if args.cold and not args.axis:
        raise UserError("cold diffusion needs an AXIS, row or col, after True")
    for value in () if args.cold else (args.axis, args.noise, args.order):
        if value is not None:
            raise UserError(f"a DDPM averages no lines: leave {value!r} out, or say True for cold diffusion")
    base = preset(COLD, args.preset).replace(axis=args.axis) if args.cold else preset(DDPM, args.preset)
    with importing():
        from diffusion.laboratory.run import Run
        from diffusion.laboratory.show import report
    run = Run(base, RunOptions.of(args), *run_names(base))

    # --- Train ---
    for epoch in run.epochs(args.epochs):
        run.record(epoch)
    losses = [line["loss"] for line in run.history if line["loss"] is not None]
    report(run, f"{run.name}: loss {losses[-1]:.4f} in the last epoch" if losses else f"{run.name}: not trained")


if __name__ == "__main__":
    run_command(main)
