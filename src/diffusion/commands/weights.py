"""Train, score and store every weight file that is shipped; what is there is skipped, what was stopped goes on."""

import statistics
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion import files
from diffusion.experiment.config import Config
from diffusion.experiment.coursework import run_names
from diffusion.experiment.presets import COLD, DDPM, GUIDED, LATENT
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.catalogue import catalogue
from diffusion.laboratory.flags import SCORES, add_flags
from diffusion.laboratory.judge import COLD_SAMPLERS, Judge, open_run
from diffusion.laboratory.losses import codec_losses
from diffusion.laboratory.options import Parser, one_of, output_directories, output_directory
from diffusion.laboratory.run import Run

EXAMPLES = """examples:
  python src weights                            all of them: on two CPU cores an hour or more for most, days in all
  python src weights --only default unet        two families
  python src weights --table                    no training: write weights/README.md anew
"""


@dataclass(frozen=True)
class Family:
    """What one training gives: a weight file after each of these epochs, or one after so many steps."""

    config: Config
    epochs: tuple[int, ...] = ()
    steps: int | None = None
    samples: int = 1024  # of each seed

    @property
    def names(self) -> tuple[str, str]:
        """Of its run, and of its files by {dataset} and {epoch}."""
        return run_names(self.config) if self.epochs else (self.config.preset, f"{self.config.preset}.pth")

    @property
    def files(self) -> list[str]:
        pattern = self.names[1].replace("{dataset}", self.config.dataset.lower())
        return [pattern.format(epoch=epoch) for epoch in self.epochs or (None,)]


EIGHTY, ROW, COL = (0, 20, 40, 60, 80), {"axis": "row"}, {"axis": "col"}
FAMILIES = {  # in the order they are made
    "default": Family(DDPM["default"], (*EIGHTY, 100)),
    "default_28_row": Family(COLD["default_28"].replace(**ROW), EIGHTY),
    "default_28_col": Family(COLD["default_28"].replace(**COL), EIGHTY),
    "testing2": Family(DDPM["testing2"], EIGHTY),
    "testing": Family(DDPM["testing"], EIGHTY),
    "default_7_row": Family(COLD["default_7"].replace(**ROW), EIGHTY),
    "default_7_col": Family(COLD["default_7"].replace(**COL), EIGHTY),
    "light": Family(DDPM["light"], (80,)),
    "more_capacity": Family(DDPM["more_capacity"], (80,)),
    "more_capacity_row": Family(COLD["more_capacity"].replace(**ROW), (80,)),
    "more_capacity_col": Family(COLD["more_capacity"].replace(**COL), (80,)),
    "ddpm_unet": Family(DDPM["ddpm_unet"], (5,)),
    "cold_unet_row": Family(COLD["cold_unet"].replace(**ROW), (8,)),
    "cold_unet_col": Family(COLD["cold_unet"].replace(**COL), (12,)),
    "unet": Family(GUIDED["unet"], steps=18_000, samples=10_000),
    "unet_few": Family(GUIDED["unet_few"], steps=40_000, samples=10_000),
    "unet_fashion": Family(GUIDED["unet_fashion"], steps=6000, samples=10_000),
    **{name: Family(config, steps=20_000, samples=10_000) for name, config in LATENT.items()},
}


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "weights")
    family, families = one_of("family", FAMILIES), f"some of {', '.join(FAMILIES)} (default: all)"
    p.add_argument("--only", nargs="+", type=family, default=list(FAMILIES), metavar="FAMILY", help=families)
    into = "the folder of the finished files (default: weights/)"
    p.add_argument("--into", type=output_directory, default=str(shipped_weights()), help=into)
    p.add_argument("--rescore", action="store_true", help="train nothing; score the files that are there anew")
    p.add_argument("--table", action="store_true", help="only write the folder's README.md anew")
    resume = {"help": "understood, not needed: what was stopped goes on"}
    out = {"type": output_directories("runs"), "help": "where runs/ is made"}
    add_flags(p, "data-root", "out", "device", "resume", out=out, resume=resume)
    add_flags(p, *SCORES)
    p.set_defaults(eval_samples=None)  # the family's
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for name in args.only if not args.table else ():
        family = FAMILIES[name]
        due = [file for file in family.files if (args.into / file).exists() == args.rescore]
        if due:
            begun = (args.out / "runs" / family.names[0] / "state.pt").exists()
            own = {"resume": begun, "eval_samples": args.eval_samples or family.samples}
            run, judge = open_run(Namespace(**vars(args) | own), family.config, *family.names)
            for epoch in () if args.rescore else trained(run, family):
                run.record(epoch)
            ship(judge, due, args.into if args.rescore else run.folder.path, args.into)
        nothing = "nothing is there" if args.rescore else "nothing was missing"
        written = ", ".join(str(args.into / file) for file in due)
        print(f"{name}: {f'wrote {written}' if due else nothing}", flush=True)
    text = catalogue(args.into)
    files.write_atomically(args.into / "README.md", lambda file: file.write(text.encode()))
    print(f"wrote {args.into / 'README.md'}")


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
    for seed in range(1 if experiment.config.is_codec else judge.options.eval_seeds):  # reconstructions need no seed
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
    images = judge.run.sample(count, 0, sampler, SamplingOptions(sampler), originals=originals)
    scores, likeness = judge.score(images), judge.likeness(images)
    return {"fid": scores.fid, "inception_score": scores.inception_score} | likeness._asdict()
