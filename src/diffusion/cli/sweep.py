"""Try many: some presets under several seeds, or a search through settings; one trial a row, best first."""

import re
from argparse import Namespace
from typing import Any

from diffusion.errors import UserError
from diffusion.experiment.presets import DDPM
from diffusion.laboratory.flags import add_training_flags
from diffusion.laboratory.heartbeat import GRACE
from diffusion.laboratory.options import Parser, number, one_of
from diffusion.metrics.classifiers import check_features

# What --search may vary. Two numbers: anything between them, log-uniform; a list: one of it, by network if need be.
FIELDS: dict[str, Any] = {
    "lr": (5e-5, 5e-3),
    "timesteps": (100, 2000),
    "beta_max": (0.005, 0.05),
    "hidden": {
        "cnn": ["16,64,16", "16,32,32,16", "32,64,32", "32,64,64,32", "64,128,64"],
        "unet": ["16,32", "24,48", "32,64", "48,96", "64,128"],
    },
    "activation": {"cnn": ["gelu", "selu", "silu", "relu"]},
    "schedule": ["linear", "cosine", "rectified"],
    "target": ["eps", "x_0", "v", "velocity"],
    "draw_time": ["uniform", "logit-normal"],
    "loss": ["l2", "l1"],
    "batch_size": [32, 64, 128, 256, 512],
    "beta2": [0.9, 0.95, 0.99, 0.999],
    "warmup": [0, 50, 200, 500],
    "ema_decay": [0.99, 0.995, 0.999, 0.9995],
}


def _words(within: Any) -> str:
    """The limits of a field, for --help."""
    if isinstance(within, dict):
        return f"\n{'':14}".join(f"{network}: {_words(each)}" for network, each in within.items())
    return "  ".join(map(str, within)) if isinstance(within, list) else f"{within[0]:g} to {within[1]:g}"


EXAMPLES = f"""examples:
  python src sweep --presets default,testing2 --seeds 3 --epochs 5
  python src sweep --presets default,light --seeds 1 --limit-steps 60 --eval-samples 256        a minute or two
  python src sweep --search lr,hidden,timesteps --trials 20 --epochs 2                          by optuna's TPE
  python src sweep --search lr,target --preset ddpm_unet --trials 40 --storage postgresql://user@host/sweeps

what may be searched, within which limits (a combination that cannot be is a failed trial, and the search goes on):
{chr(10).join(f"  {field:<12}{_words(within)}" for field, within in FIELDS.items())}

The same command again goes on where the sweep was left (--resume is understood, not needed); more --seeds, --presets
or --trials add only what is missing. Started several times at once, it shares the work: on one machine through an
SQLite file, on many through a database server, named by --storage.

A killed worker costs only what its trial had not saved yet. {GRACE} s after its last sign of life, the next worker that
looks for work takes the trial up: from its last saved state if its folder is within reach, otherwise anew.
"""


def listed(kind: str, names: Any) -> Any:
    """An argparse type: some of `names`, separated by commas."""
    return lambda text: list(dict.fromkeys(one_of(kind, names)(word) for word in text.split(",")))


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "sweep")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--presets", type=listed("preset", DDPM), help=f"some of {', '.join(DDPM)}")
    what.add_argument("--search", type=listed("setting", FIELDS), help="settings to search through, see below")
    p.add_argument("--seeds", type=number(int, 1), help="of each of the --presets, from --seed on (default: 3)")
    p.add_argument("--trials", type=number(int, 1), help="of a --search (default: 20)")
    p.add_argument("--preset", type=one_of("preset", DDPM), help="that a --search starts from (default: default)")
    p.add_argument("--epochs", type=number(int, 1), default=1, help="that each trial is trained")
    p.add_argument("--name", help="of the sweep (default: what is tried)")
    p.add_argument("--storage", help="database URL (default: sqlite:///OUT/runs/sweeps/NAME/trials.db)")
    add_training_flags(p, "runs", "Plots", process="gaussian")
    p.set_defaults(eval_every=None, eval_seeds=1)  # a sweep has many trials: by default only their ends are scored
    return p


def read(argv: list[str] | None = None) -> Namespace:
    """The options, with what goes without saying; UserError for those that do not go together."""
    args = parser().parse_args(argv)
    check_features(args.features, args.dataset)
    for option, mode in (("seeds", "presets"), ("trials", "search"), ("preset", "search")):
        if getattr(args, option) and not getattr(args, mode):
            raise UserError(f"--{option} goes with --{mode}")
    for field in args.search or []:
        if getattr(args, field, None) is not None:
            raise UserError(f"--{field.replace('_', '-')} is what is searched: leave the option out")
    if "://" not in (args.storage or "://"):
        raise UserError(f"--storage is a database URL; for an SQLite file say sqlite:///{args.storage}")
    args.preset, args.seed = args.preset or "default", args.seed or 0
    args.seeds, args.trials = args.seeds or 3, args.trials or 20
    args.name = args.name or "-".join(args.presets or [args.preset, *args.search])
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise UserError(f"--name {args.name!r}: letters, digits, dots, dashes and underscores only")
    for name in args.presets or [args.preset]:
        within = [FIELDS[field] for field in args.search or []]
        if any(isinstance(each, dict) and DDPM[name].network not in each for each in within):
            raise UserError(f"the network of {name!r} has no choice of activation: leave it out of --search")
    return args
