"""The trials of a sweep, and how each is trained."""

import contextlib
import dataclasses
import math
import os
import statistics
import warnings
from argparse import Namespace
from typing import Any

import optuna
import torch

from diffusion.cli.sweep import FIELDS
from diffusion.errors import Failure, UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.presets import DDPM
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.laboratory.flags import RunOptions
from diffusion.laboratory.judge import Judge
from diffusion.laboratory.run import Run
from diffusion.laboratory.standings import report
from diffusion.laboratory.stopping import Stopped, on_stop
from diffusion.laboratory.trials import Sweep


def check(args: Namespace) -> None:
    """UserError for --steps that the sampler of a preset cannot take."""
    for name in args.presets or [args.preset]:
        if "timesteps" not in (args.search or []):
            build_sampler(build(DDPM[name]), SamplingOptions(args.sampler, args.steps))


# --- One trial ---


def drawn(trial: optuna.Trial, args: Namespace) -> Config:
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


def trained(run: Run, judge: Judge, args: Namespace) -> dict[str, Any]:
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


def main(args: Namespace) -> None:
    # --- Setup ---
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its heartbeat
    check(args)
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
