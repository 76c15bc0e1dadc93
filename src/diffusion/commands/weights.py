"""Training, scoring and storing of all that is shipped."""

import statistics
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import load_alike, load_weights, mean_of, save_weights, weight_folders
from diffusion.laboratory.catalogue import catalogue
from diffusion.laboratory.families import FAMILIES, Family
from diffusion.laboratory.judge import COLD_SAMPLERS, Judge, open_run
from diffusion.laboratory.losses import codec_losses
from diffusion.laboratory.run import Run


def main(args: Namespace) -> None:
    if args.mean:
        check_mean(args)
    make = lambda name: load_alike("--mean", name, FAMILIES[args.only[0]].config, weight_folders())
    parts = [*map(make, args.mean)]
    for name in args.only if not args.table else ():
        family = FAMILIES[name]
        due = [file for file in family.files if (args.into / file).exists() == args.rescore]
        if due:
            begun = not parts and (args.out / "runs" / family.names[0] / "state.pt").exists()
            own = {"resume": begun, "eval_samples": args.eval_samples or family.samples}
            run, judge = open_run(Namespace(**vars(args) | own), family.config, *family.names)
            for epoch in () if args.rescore or parts else trained(run, family):
                run.record(epoch)
            source = args.into if args.rescore else run.folder.path
            if parts:
                parts[0].config, source = run.config, source / "mean"  # beside what a training here has written
                save_weights(source / due[0], mean_of(parts))
            ship(judge, due, source, args.into)
        nothing = "nothing is there" if args.rescore else "nothing was missing"
        written = ", ".join(str(args.into / file) for file in due)
        print(f"{name}: {f'wrote {written}' if due else nothing}", flush=True)
    text = catalogue(args.into)
    files.write_atomically(args.into / "README.md", lambda file: file.write(text.encode()))
    print(f"wrote {args.into / 'README.md'}")


def check_mean(args: Namespace) -> None:
    """UserError unless --mean makes one file, which is not there."""
    if [len(FAMILIES[name].files) for name in args.only] != [1]:
        raise UserError("--mean makes one file: name it by --only, a family that has no other")
    if args.rescore or args.table:
        raise UserError("--mean makes a file, and scores it: leave --rescore and --table out")
    if (file := args.into / FAMILIES[args.only[0]].files[0]).exists():
        raise UserError(f"{str(file)!r} is there: --mean does not replace it; name another folder by --into")


def trained(run: Run, family: Family) -> Iterator[float]:
    """Train to the end, yielding the epochs done when their `record` is due."""
    if family.epochs:
        return run.epochs(family.epochs[-1])
    return (step / run.trainer.steps_per_epoch for step in run.steps(Plan(steps=family.steps)))


def ship(judge: Judge, names: list[str], source: Path, folder: Path) -> None:
    """Round weight files to half precision, score what is left, and store both in `folder`."""
    for name in names:
        experiment = load_weights(source / name).to(judge.run.device)
        experiment.network.half().float()
        judge.run.experiment = experiment  # what is sampled from now on
        scores = scored(judge, name)
        if judge.run.is_main:
            experiment.about["scores"] = scores
            save_weights(folder / name, experiment, half=True)


def scored(judge: Judge, name: str) -> dict[str, Any]:
    """Mean and deviation of each score over the seeds, and what they were measured with."""
    rows, real, experiment = [], judge.floor, judge.run.experiment
    for seed in judge.seeds:
        images, labels = judge.sample(seed, f"{name}, seed {seed}"), judge.labels(seed)
        scores = judge.score(images)
        rows.append({"fid": scores.fid, "inception_score": scores.inception_score, "kid": scores.kid})
        if labels is not None:
            rows[-1]["agreement"] = judge.agreement(images, labels)
    about = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    if len(rows) > 1:
        about |= {f"{key}_sd": statistics.stdev(row[key] for row in rows) for key in rows[0]}
    about |= {"n": real.n, "seeds": len(rows)}
    if experiment.config.is_codec:
        about |= codec_losses(experiment.codec, judge.run.test)
    else:
        about["calls"] = build_sampler(experiment).nfe
    about |= {"n_reference": real.n_reference, "floor": real.fid, "floor_is": real.inception_score}
    about |= {"extractor": real.extractor, "sha256": real.sha256[:16]}
    if experiment.config.process == "averaging":
        about["restored"] = {sampler: restored(judge, sampler) for sampler in COLD_SAMPLERS}
    return about


def restored(judge: Judge, sampler: str) -> dict[str, float]:
    """How test images come back from their averages, under the first seed."""
    count, originals = judge.options.eval_samples, judge.run.test.images
    images = judge.run.sample(count, judge.seeds[0], sampler, SamplingOptions(sampler), originals=originals)
    scores, likeness = judge.score(images), judge.likeness(images)
    return {"fid": scores.fid, "inception_score": scores.inception_score} | likeness._asdict()
