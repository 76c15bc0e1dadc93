"""Train, score and store every weight file that is shipped; what is there is skipped, what was stopped goes on."""

import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from diffusion import files
from diffusion.experiment.build import Experiment
from diffusion.experiment.config import Config
from diffusion.experiment.coursework import run_names
from diffusion.experiment.presets import COLD, DDPM, GUIDED
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.catalogue import catalogue
from diffusion.laboratory.flags import add_flags, add_score_flags
from diffusion.laboratory.judge import COLD_SAMPLERS, Judge, open_run
from diffusion.laboratory.options import Parser, one_of
from diffusion.laboratory.run import Run

EXAMPLES = """examples:
  python src weights                            all of them: on two CPU cores an hour or more for most, days in all
  python src weights --only default unet        two families
  python src weights --table                    no training: write weights/README.md anew
"""


class Family(NamedTuple):
    """What one training gives: a weight file after each of these epochs, or one after so many steps."""

    config: Config
    run: str  # its folder in runs/
    pattern: str  # of its files' names
    epochs: tuple[int, ...] = ()
    steps: int | None = None
    samples: int = 1024  # of each seed


def coursework(config: Config, epochs: tuple[int, ...]) -> Family:
    return Family(config, *run_names(config), epochs)


def cold(preset: str, axis: str, epochs: tuple[int, ...]) -> Family:
    return coursework(COLD[preset].replace(axis=axis), epochs)


HUNDRED, EIGHTY = (0, 20, 40, 60, 80, 100), (0, 20, 40, 60, 80)
FAMILIES = {  # in the order they are made
    "default": coursework(DDPM["default"], HUNDRED),
    "default_28_row": cold("default_28", "row", EIGHTY),
    "default_28_col": cold("default_28", "col", EIGHTY),
    "testing2": coursework(DDPM["testing2"], EIGHTY),
    "testing": coursework(DDPM["testing"], EIGHTY),
    "default_7_row": cold("default_7", "row", EIGHTY),
    "default_7_col": cold("default_7", "col", EIGHTY),
    "light": coursework(DDPM["light"], (80,)),
    "more_capacity": coursework(DDPM["more_capacity"], (80,)),
    "more_capacity_row": cold("more_capacity", "row", (80,)),
    "more_capacity_col": cold("more_capacity", "col", (80,)),
    "ddpm_unet": coursework(DDPM["ddpm_unet"], (5,)),
    "cold_unet_row": cold("cold_unet", "row", (8,)),
    "cold_unet_col": cold("cold_unet", "col", (12,)),
    "unet": Family(GUIDED["unet"], "unet", "unet.pth", steps=18_000, samples=10_000),
    "unet_fashion": Family(GUIDED["unet_fashion"], "unet_fashion", "unet_fashion.pth", steps=6000, samples=10_000),
}


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "weights")
    family, families = one_of("family", FAMILIES), f"some of {', '.join(FAMILIES)} (default: all)"
    p.add_argument("--only", nargs="+", type=family, default=list(FAMILIES), metavar="FAMILY", help=families)
    into = "the folder of the finished files (default: weights/)"
    p.add_argument("--into", type=Path, default=shipped_weights(), help=into)
    p.add_argument("--rescore", action="store_true", help="train nothing; score the files that are there anew")
    p.add_argument("--table", action="store_true", help="only write the folder's README.md anew")
    resume = {"help": "understood, not needed: what was stopped goes on"}
    add_flags(p, "data-root", "out", "device", "resume", out={"help": "where runs/ is made"}, resume=resume)
    add_score_flags(p)
    p.set_defaults(eval_samples=None)  # the family's
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for name in args.only if not args.table else ():
        family = FAMILIES[name]
        due = [file for file in file_names(family) if (args.into / file).exists() == args.rescore]
        if due:
            begun = (args.out / "runs" / family.run / "state.pt").exists()
            own = {"resume": begun, "eval_samples": args.eval_samples or family.samples}
            run, judge = open_run(Namespace(**vars(args) | own), family.config, family.run, family.pattern)
            if not args.rescore:
                train(run, family)
            ship(judge, due, args.into if args.rescore else run.folder.path, args.into)
        nothing = "nothing is there" if args.rescore else "nothing was missing"
        print(f"{name}: {', '.join(due) or nothing}", flush=True)
    text = catalogue(args.into)
    files.write_atomically(args.into / "README.md", lambda file: file.write(text.encode()))
    print(f"wrote {args.into / 'README.md'}")


def file_names(family: Family) -> list[str]:
    """The names of a family's weight files."""
    name = family.pattern.replace("{dataset}", family.config.dataset.lower())
    return [name.format(epoch=epoch) for epoch in family.epochs or (None,)]


def train(run: Run, family: Family) -> None:
    """To the end, every epoch's weights kept in the run's folder."""
    if family.steps:
        for step in run.marks(Plan(steps=family.steps)):
            run.record(step / run.trainer.steps_per_epoch)
    else:
        for epoch in run.epochs(family.epochs[-1]):
            run.record(epoch)


def ship(judge: Judge, names: list[str], source: Path, folder: Path) -> None:
    """Round weight files to half precision, score what is left, and store both in `folder`."""
    for name in names:
        experiment = load_weights(source / name).to(judge.run.device)
        experiment.denoiser.network.half().float()
        scores = scored(judge, experiment, name)
        if judge.run.is_main:
            experiment.about["scores"] = scores
            save_weights(folder / name, experiment, half=True)


def scored(judge: Judge, experiment: Experiment, name: str) -> dict[str, Any]:
    """Mean and deviation of each score over the seeds, and what they were measured with."""
    rows, real = [], judge.floor
    for seed in range(judge.options.eval_seeds):
        images, labels = judge.sample(seed, f"{name}, seed {seed}", experiment), judge.labels(seed)
        row = judge.score(images)
        rows.append({"fid": row.fid, "inception_score": row.inception_score, "kid": row.kid})
        if labels is not None:
            rows[-1]["agreement"] = judge.agreement(images, labels)
    scores = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    if len(rows) > 1:
        scores |= {f"{key}_sd": statistics.stdev(row[key] for row in rows) for key in rows[0]}
    scores |= {"n": real.n, "seeds": len(rows), "calls": build_sampler(experiment).nfe}
    scores |= {"n_reference": real.n_reference, "floor": real.fid, "floor_is": real.inception_score}
    scores |= {"extractor": real.extractor, "sha256": real.sha256[:16]}
    if experiment.config.process == "averaging":
        scores["restored"] = {sampler: restored(judge, experiment, sampler) for sampler in COLD_SAMPLERS}
    return scores


def restored(judge: Judge, experiment: Experiment, sampler: str) -> dict[str, float]:
    """How test images come back from their averages, under the first seed."""
    count, options, test = judge.options.eval_samples, SamplingOptions(sampler), judge.run.test.images
    images = judge.run.sample(count, 0, sampler, options, originals=test, experiment=experiment)
    scores, likeness = judge.score(images), judge.likeness(images)
    return {"fid": scores.fid, "inception_score": scores.inception_score} | likeness._asdict()
