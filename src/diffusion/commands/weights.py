"""Train, score and store every weight file that is shipped; what is there is skipped, what was stopped goes on."""

import argparse
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from diffusion import files
from diffusion.experiment.build import Experiment
from diffusion.experiment.config import Config
from diffusion.experiment.coursework import run_names
from diffusion.experiment.presets import COLD, DDPM, GUIDED
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import build_sampler
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.laboratory.catalogue import catalogue
from diffusion.laboratory.judge import WAYS, WEIGHTS, Judge, add_measuring_options
from diffusion.laboratory.options import Parser, directory, one_of
from diffusion.laboratory.run import Laboratory
from diffusion.laboratory.stopping import stoppable
from diffusion.metrics.likeness import Likeness
from diffusion.metrics.scores import Scores

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
    p = Parser(prog="python src weights", description=__doc__, epilog=EXAMPLES)
    p.add_argument("--only", nargs="+", type=one_of("family", FAMILIES), default=list(FAMILIES), metavar="FAMILY",
                   help=f"some of {', '.join(FAMILIES)} (default: all)")  # fmt: skip
    p.add_argument("--into", type=Path, default=WEIGHTS, help="the folder of the finished files (default: weights/)")
    p.add_argument("--rescore", action="store_true", help="train nothing; score the files that are there anew")
    p.add_argument("--table", action="store_true", help="only write the folder's README.md anew")
    p.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    p.add_argument("--out", type=directory, default=Path("."), help="where runs/ is made")
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    add_measuring_options(p)
    p.add_argument("--resume", action="store_true", help="understood, not needed: what was stopped goes on")
    p.set_defaults(eval_samples=None, dataset=None, limit_steps=None, save_every=60)
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for name in args.only if not args.table else ():
        family = FAMILIES[name]
        due = [file for file in file_names(family) if (args.into / file).exists() == args.rescore]
        if due:
            told = vars(args) | {"eval_samples": args.eval_samples or family.samples}
            told["resume"] = (args.out / "runs" / family.run / "state.pt").exists()
            lab = Laboratory(family.config, argparse.Namespace(**told), family.run, family.pattern)
            if not args.rescore:
                train(lab, family)
            ship(lab, due, args.into if args.rescore else lab.folder.path, args.into)
        nothing = "nothing is there" if args.rescore else "nothing was missing"
        print(f"{name}: {', '.join(due) or nothing}", flush=True)
    text = catalogue(args.into)
    files.write_atomically(args.into / "README.md", lambda file: file.write(text.encode()))
    print(f"wrote {args.into / 'README.md'}")


def file_names(family: Family) -> list[str]:
    """The names of a family's weight files."""
    name = family.pattern.replace("{dataset}", family.config.dataset.lower())
    return [name.format(epoch=epoch) for epoch in family.epochs or (None,)]


def train(lab: Laboratory, family: Family) -> None:
    """To the end, every epoch's weights kept in the run's folder."""
    if family.steps:
        for step in lab.marks(Plan(steps=family.steps)):
            lab.record(step / lab.trainer.steps_per_epoch)
    else:
        for epoch in lab.epochs(family.epochs[-1]):
            lab.record(epoch)


def ship(lab: Laboratory, names: list[str], source: Path, folder: Path) -> None:
    """Round weight files to half precision, score what is left, and store both in `folder`."""
    judge = Judge(lab)
    for name in names:
        experiment = load_weights(source / name).to(lab.device)
        experiment.denoiser.network.half().float()
        scores = scored(lab, judge, experiment, name)
        if lab.is_main:
            save_weights(folder / name, experiment, half=True, **(experiment.about | {"scores": scores}))


def scored(lab: Laboratory, judge: Judge, experiment: Experiment, name: str) -> dict[str, Any]:
    """Mean and deviation of each score over the seeds, and what they were measured with."""
    args, rows = lab.args, []
    for seed in range(args.eval_seeds):
        labels = lab.data.stratified(args.eval_samples, seed).labels if experiment.config.classes else None
        images = lab.sample(args.eval_samples, seed, f"{name}, seed {seed}", labels=labels, experiment=experiment)
        row = judge.score(images)
        told = {} if labels is None else {"agreement": judge.agreement(images, labels)}
        rows.append({"fid": row.fid, "inception_score": row.inception_score, "kid": row.kid} | told)
    way, known = build_sampler(experiment), judge.floor
    scores = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    if len(rows) > 1:
        scores |= {f"{key}_sd": statistics.stdev(row[key] for row in rows) for key in rows[0]}
    scores |= {"n": known.n, "seeds": len(rows), "calls": way.calls, "n_reference": known.n_reference}
    scores |= {"floor": known.fid, "floor_is": known.inception_score}
    scores |= {"extractor": known.extractor, "sha256": known.sha256[:16]}
    if experiment.config.process == "averaging":
        scores["restored"] = {way: restored(lab, judge, experiment, way) for way in WAYS}
    return scores


def restored(lab: Laboratory, judge: Judge, experiment: Experiment, way: str) -> dict[str, float]:
    """How test images come back from their averages, under the first seed."""
    images = lab.sample(lab.args.eval_samples, 0, way, lab.test.images, experiment=experiment, sampler=way)
    scores: Scores = judge.score(images)
    likeness: Likeness = judge.likeness(images)
    return {"fid": scores.fid, "inception_score": scores.inception_score} | likeness._asdict()
