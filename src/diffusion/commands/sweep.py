"""Try many: some presets under several seeds, or a search through settings; one trial a row, best first."""

import argparse
import contextlib
import dataclasses
import math
import os
import re
import statistics
import warnings
from typing import Any

import optuna
import torch

from diffusion.errors import Failure, UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.presets import DDPM
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.laboratory.flags import RunOptions, add_training_flags
from diffusion.laboratory.judge import Judge, check_features
from diffusion.laboratory.options import Parser, number, one_of
from diffusion.laboratory.run import Run
from diffusion.laboratory.standings import report
from diffusion.laboratory.stopping import Stopped, on_stop
from diffusion.laboratory.trials import GRACE, Sweep

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


def read(argv: list[str] | None) -> argparse.Namespace:
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
        if "timesteps" not in (args.search or []):  # wrong --steps are refused now
            build_sampler(build(DDPM[name]), SamplingOptions(args.sampler, args.steps))
    return args


# --- One trial ---


def drawn(trial: optuna.Trial, args: argparse.Namespace) -> Config:
    """The config of a trial: a preset with the settings drawn for it; Failure if they do not go together."""
    base = DDPM[trial.user_attrs.get("preset", args.preset)].replace(dataset=args.dataset)
    if args.search:  # each trial draws by a seed of its own: with one for all, all workers would draw the same
        seed = (args.seed * 1_000_003 + int(trial.user_attrs["cell"].removeprefix("trial_"))) % 2**32
        trial.study.sampler = optuna.samplers.TPESampler(seed=seed)
    settings = {}
    for field in args.search or []:
        within = FIELDS[field][base.network] if isinstance(FIELDS[field], dict) else FIELDS[field]
        if isinstance(within, list):
            settings[field] = trial.suggest_categorical(field, within)
        else:
            suggest = trial.suggest_int if isinstance(within[0], int) else trial.suggest_float
            settings[field] = suggest(field, *within, log=True)
    if "hidden" in settings:
        settings["hidden"] = tuple(map(int, settings["hidden"].split(",")))
    try:
        config = base.replace(**settings)
        build_sampler(build(config), SamplingOptions(args.sampler, args.steps))
    except UserError as error:
        raise Failure(str(error)) from None
    return config


def attempt(sweep: Sweep, trial: optuna.Trial) -> float:
    """Train and score a trial, or what is left of it, and keep its scores. Returns its FID; a Failure is final."""
    args, cell = sweep.args, trial.user_attrs["cell"]
    options = dataclasses.replace(RunOptions.of(args), resume=False)
    options.changes["seed"] = trial.user_attrs.get("seed", args.seed)
    try:
        run = Run(drawn(trial, args), options, cell, "weights_{epoch}.pth", folder=sweep.folder / cell)
        with contextlib.suppress(UserError):  # a folder of another config, or a damaged one, is put aside
            run.options = dataclasses.replace(options, resume=run.folder.config() == run.config)
        scores = trained(run, Judge(run), args)
    except (Failure, torch.OutOfMemoryError) as error:  # it would come to the same end again
        trial.set_user_attr("error", str(error).splitlines()[0])
        print(f"{cell} failed: {error}", flush=True)
        raise Failure(str(error)) from None
    for line in run.history:
        if "fid" in line:
            trial.report(line["fid"], line["epoch"])
    trial.set_user_attr("scores", scores)
    print(f"{cell}: FID {scores['fid']:.2f}", flush=True)
    return scores["fid"]


def trained(run: Run, judge: Judge, args: argparse.Namespace) -> dict[str, Any]:
    """Train to the end; what is remembered of the trial: means over the sampling seeds, loss and minutes."""
    first, options = run.config.seed, SamplingOptions(args.sampler, args.steps)
    score = lambda seed, text: judge.score(run.sample(args.eval_samples, seed, text, options))._asdict()
    for epoch in run.epochs(args.epochs):
        ends = epoch == args.epochs or run.trainer.step >= run.limit
        due = ends or (args.eval_every and epoch and epoch % args.eval_every == 0)
        run.record(epoch, **(score(first, f"samples of epoch {epoch}") if due else {}))
    last = run.history[-1]
    finals = [last, *(score(seed, f"seed {seed}") for seed in range(first + 1, first + args.eval_seeds))]
    mean = {key: statistics.mean(each[key] for each in finals) for key in ("fid", "inception_score", "kid")}
    if not math.isfinite(mean["fid"]):
        raise Failure(f"its FID is {mean['fid']}")
    about = {key: last[key] for key in ("n", "n_reference", "extractor", "sha256", "loss", "step")}
    return {**mean, **about, "floor": judge.floor.fid, "minutes": run.seconds / 60}


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its heartbeat
    args = read(argv)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("a trial is trained by one process: start the command several times instead of by a launcher")
    sweep = Sweep(args)
    on_stop(stop)

    try:  # --- Try ---
        sweep.work(lambda trial: attempt(sweep, trial))
    finally:  # --- Report ---
        report(sweep)


def stop(number: int) -> None:
    raise Stopped(number)
