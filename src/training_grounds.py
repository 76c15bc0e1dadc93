"""The training grounds: train a model of either part and keep its weights, nothing else.

python src/training_grounds.py 5 default False         part 1, a DDPM
python src/training_grounds.py 5 default_28 True row   part 2, cold diffusion of rows
"""

from diffusion.errors import UserError
from diffusion.experiment import coursework
from diffusion.experiment.presets import COLD, DDPM, preset
from diffusion.laboratory.options import Parser, number, one_of, run_command
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.settings import add_training_options
from diffusion.laboratory.stopping import stoppable
from diffusion.method.averaging import ORDERS

ANSWERS = {"true": True, "yes": True, "false": False, "no": False}


def parser() -> Parser:
    p = Parser(prog="python src/training_grounds.py", description=__doc__)
    p.add_argument("epochs", metavar="EPOCHS", type=number(int, 0), help="0 writes the untrained weights")
    p.add_argument("preset", metavar="PRESET", help=f"DDPM: {', '.join(DDPM)}; cold: {', '.join(COLD)}")
    p.add_argument("cold", metavar="COLD", type=lambda word: one_of("answer", ANSWERS)(word.lower()),
                   help="True (or yes) for cold diffusion, False (or no) for a DDPM")  # fmt: skip
    p.add_argument(
        "axis", metavar="AXIS", nargs="?", type=one_of("axis", ["row", "col"]), help="of cold diffusion only"
    )
    p.add_argument("--noise", type=number(float, 0, 10),
                   help="on averaged images, in units of x (default: the preset's; 0 is the coursework's)")  # fmt: skip
    p.add_argument("--order", type=one_of("order", ORDERS), help="in which lines are averaged (default: random)")
    add_training_options(p)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    cold = ANSWERS[args.cold]
    if cold and not args.axis:
        raise UserError("cold diffusion needs an AXIS, row or col, after True")
    if args.axis and not cold:
        raise UserError(f"a DDPM has no axis: leave {args.axis!r} out, or say True for cold diffusion")
    base = preset(COLD if cold else DDPM, args.preset)
    base = base.replace(axis=args.axis) if cold else base
    lab = Laboratory(base, args, *coursework.run_names(base))

    # --- Train ---
    for epoch in lab.epochs(args.epochs):
        lab.record(epoch)
    losses = [line["loss"] for line in lab.history if line["loss"] is not None]
    lab.report(f"{lab.name}: loss {losses[-1]:.4f} in the last epoch" if losses else f"{lab.name}: not trained")


if __name__ == "__main__":
    run_command(main)
