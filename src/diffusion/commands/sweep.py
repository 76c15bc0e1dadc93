"""Try many: some presets under several seeds, or a search through settings; one trial a row, best first."""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import statistics
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError

from diffusion.errors import Failure, UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config, checked
from diffusion.experiment.presets import DDPM
from diffusion.experiment.samplers import build_sampler
from diffusion.laboratory.judge import Judge, add_measuring_options, add_sampling_options, check_features
from diffusion.laboratory.options import Parser, number, one_of
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.settings import add_training_options
from diffusion.laboratory.standings import report
from diffusion.laboratory.stopping import Stopped, stoppable
from diffusion.laboratory.trials import GRACE, Sweep

# What --search may vary. Two numbers: anything between them, log-uniform; a list: one of it, by network if need be.
# fmt: off
FIELDS: dict[str, Any] = {
    "lr":         (5e-5, 5e-3),
    "timesteps":  (100, 2000),
    "beta_max":   (0.005, 0.05),
    "hidden":     {"cnn": ["16,64,16", "16,32,32,16", "32,64,32", "32,64,64,32", "64,128,64"],
                   "unet": ["16,32", "24,48", "32,64", "48,96", "64,128"]},
    "activation": {"cnn": ["gelu", "selu", "silu", "relu"]},
    "schedule":   ["linear", "cosine", "rectified"],
    "target":     ["eps", "x_0", "v", "velocity"],
    "draw_time":  ["uniform", "logit-normal"],
    "loss":       ["l2", "l1"],
    "batch_size": [32, 64, 128, 256, 512],
    "beta2":      [0.9, 0.95, 0.99, 0.999],
    "warmup":     [0, 50, 200, 500],
    "ema_decay":  [0.99, 0.995, 0.999, 0.9995],
}
# fmt: on


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
or --trials add only what is missing. Started several times at once, on one machine or many, it shares the work: one
journal file serves all machines that share its disk (NFSv3 or later), a database all that reach it, sqlite one machine.

A killed worker costs only what its trial had not saved yet. On its own machine the next worker that looks for work sees
at once that it is gone (its lock is free); on another machine after {GRACE // 60} minutes without a sign of life, if
the clocks agree so far. The trial is trained on from its last state if its folder is within reach, else anew.
Start a single worker first on an empty database: it makes the tables.
"""


def listed(kind: str, names: Any) -> Any:
    """An argparse type: some of `names`, separated by commas."""
    return lambda text: list(dict.fromkeys(one_of(kind, names)(word) for word in text.split(",")))


def parser() -> Parser:
    p = Parser(prog="python src sweep", description=__doc__, epilog=EXAMPLES)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--presets", type=listed("preset", DDPM), help=f"some of {', '.join(DDPM)}")
    what.add_argument("--search", type=listed("setting", FIELDS), help="settings to search through, see below")
    p.add_argument("--seeds", type=number(int, 1), help="of each of the --presets, from --seed on (default: 3)")
    p.add_argument("--trials", type=number(int, 1), help="of a --search (default: 20)")
    p.add_argument("--preset", type=one_of("preset", DDPM), help="that a --search starts from (default: default)")
    p.add_argument("--epochs", type=number(int, 1), default=1, help="that each trial is trained")
    p.add_argument("--name", help="of the sweep (default: what is tried)")
    p.add_argument("--storage", help="a journal file or a database URL (default: runs/sweeps/NAME/journal.log)")
    add_training_options(p)
    add_sampling_options(p, "gaussian")
    add_measuring_options(p)
    p.set_defaults(eval_every=None, eval_seeds=1)  # a sweep has many trials: only their ends are scored unless told
    return p


def read(argv: list[str] | None) -> argparse.Namespace:
    """The options, with what goes without saying; UserError for those that do not go together."""
    args = parser().parse_args(argv)
    check_features(args, args.dataset)
    for option, mode in (("seeds", "presets"), ("trials", "search"), ("preset", "search")):
        if getattr(args, option) and not getattr(args, mode):
            raise UserError(f"--{option} goes with --{mode}")
    for field in args.search or []:
        if getattr(args, field, None) is not None:
            raise UserError(f"--{field.replace('_', '-')} is what is searched: leave the option out")
    args.preset, args.seed = args.preset or "default", args.seed or 0
    args.seeds, args.trials = args.seeds or 3, args.trials or 20
    args.name = args.name or "-".join(args.presets or [args.preset, *args.search])
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise UserError(f"--name {args.name!r}: letters, digits, dots, dashes and underscores only")
    for name in args.presets or [args.preset]:
        within = [FIELDS[field] for field in args.search or []]
        if any(isinstance(each, dict) and DDPM[name].network not in each for each in within):
            raise UserError(f"activation is nothing that the network of {name!r} knows: leave it out of --search")
        if "timesteps" not in (args.search or []):
            build_sampler(build(DDPM[name]), args.sampler, args.steps)  # wrong --steps are refused now
    return args


# --- One trial ---


def drawn(trial: optuna.Trial, args: argparse.Namespace) -> Config:
    """The config of a trial: a preset of the grid, or the base of the search with the settings drawn for it."""
    if not args.search:
        return DDPM[trial.user_attrs["preset"]].replace(dataset=args.dataset)
    base, settings = DDPM[args.preset].replace(dataset=args.dataset), {}
    for field in args.search:
        within = FIELDS[field][base.network] if isinstance(FIELDS[field], dict) else FIELDS[field]
        if isinstance(within, list):
            settings[field] = trial.suggest_categorical(field, within)
        elif isinstance(within[0], int):
            settings[field] = trial.suggest_int(field, *within, log=True)
        else:
            settings[field] = trial.suggest_float(field, *within, log=True)
    if "hidden" in settings:
        settings["hidden"] = tuple(map(int, settings["hidden"].split(",")))
    return base.replace(**settings)


def attempt(sweep: Sweep, trial: optuna.Trial) -> str:
    """Train and score a trial, or go on with what is left of an earlier attempt; a sentence of how it went."""
    args, cell = sweep.args, trial.user_attrs["cell"]
    if args.search:  # each trial draws by a seed of its own: with one for all, all workers would draw the same
        seed = (args.seed * 1_000_003 + int(cell.removeprefix("trial_"))) % 2**32
        sweep.study.sampler = optuna.samplers.TPESampler(seed=seed)
    try:
        config = drawn(trial, args)
        build_sampler(build(config), args.sampler, args.steps)
    except UserError as error:
        return failed(trial, error)
    told = argparse.Namespace(**vars(args) | {"seed": trial.user_attrs.get("seed", args.seed), "resume": False})
    folder = sweep.folder / cell
    lab = Laboratory(config, told, cell, "weights_{epoch}.pth", folder=folder)
    told.resume = is_of(folder, lab.config)
    try:
        scores = trained(lab, Judge(lab))
    except (Failure, torch.OutOfMemoryError) as error:  # it would come to the same end again
        return failed(trial, error)
    for line in lab.history:
        if "fid" in line:
            trial.report(line["fid"], line["epoch"])
    trial.set_user_attr("scores", scores)
    sweep.study.tell(trial, scores["fid"])
    return f"{cell}: FID {scores['fid']:.2f}"


def failed(trial: optuna.Trial, error: Exception) -> str:
    """Note why a trial cannot have a result, so that nobody tries again."""
    trial.set_user_attr("error", str(error).splitlines()[0])
    return f"{trial.user_attrs['cell']} failed: {error}"


def is_of(folder: Path, config: Config) -> bool:
    """Whether a folder holds a run of that very config, to go on with; any other is put aside."""
    try:
        return checked(json.loads((folder / "config.json").read_text())) == config
    except (OSError, ValueError):
        return False


def trained(lab: Laboratory, judge: Judge) -> dict[str, Any]:
    """Train to the end; what is remembered of the trial: means over the sampling seeds, loss and minutes."""
    args, how = lab.args, {"sampler": lab.args.sampler, "steps": lab.args.steps}
    draw = lambda seed, text: judge.score(lab.sample(args.eval_samples, seed, text, **how))._asdict()
    for epoch in lab.epochs(args.epochs):
        ends = epoch == args.epochs or (args.limit_steps and lab.trainer.step >= args.limit_steps)
        due = ends or (args.eval_every and epoch and epoch % args.eval_every == 0)
        lab.record(epoch, **(draw(lab.config.seed, f"samples of epoch {epoch}") if due else {}))
    last, first = lab.history[-1], lab.config.seed
    finals = [last, *(draw(seed, f"seed {seed}") for seed in range(first + 1, first + args.eval_seeds))]
    mean = {key: statistics.mean(each[key] for each in finals) for key in ("fid", "inception_score", "kid")}
    if not math.isfinite(mean["fid"]):
        raise Failure(f"its FID is {mean['fid']}")
    told = {key: last[key] for key in ("n", "n_reference", "extractor", "sha256", "loss", "step")}
    return {**mean, **told, "floor": judge.floor.fid, "minutes": lab.seconds / 60}


@stoppable
def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    args = read(argv)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("a trial is trained by one process: start the command several times instead of by a launcher")
    sweep = Sweep(args)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_signal)

    # --- Try ---
    try:
        while trial := sweep.claim():
            with contextlib.suppress(UpdateFinishedTrialError), sweep.owned(trial):  # or taken for dead, and passed on
                print(attempt(sweep, trial), flush=True)
    except Stopped:
        report(sweep)
        raise

    # --- Report ---
    report(sweep)


def on_signal(number: int, frame: object) -> None:
    raise Stopped(number)
