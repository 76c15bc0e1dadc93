"""What every training command measures with: an extractor, the real images, their floor; and the table it prints."""

import argparse
import functools
import statistics
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data.datasets import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.samplers import SAMPLERS, build_sampler
from diffusion.laboratory.options import number, one_of
from diffusion.laboratory.run import Laboratory
from diffusion.metrics.features import CLASSIFIERS, Extractor, extractor, extractor_for, find_classifier
from diffusion.metrics.likeness import Likeness, agreement, likeness
from diffusion.metrics.scores import Reference, Scores, floor, score

WEIGHTS = Path(__file__).parents[3] / "weights"
WAYS = ("direct", "alg1", "alg2", "pinned")  # back from fully averaged test images


def add_sampling_options(parser: argparse.ArgumentParser, kind: str) -> None:
    """How a `kind` of process is sampled, and how often."""
    names = SAMPLERS[kind]
    usual = (
        "T, of pinned 28 or more"
        if kind == "averaging"
        else ", ".join(f"{way.steps} for {name}" for name, way in names.items())
    )
    group = parser.add_argument_group("sampling")
    group.add_argument("--sampler", type=one_of("sampler", names), help=f"{', '.join(names)} (default: the preset's)")
    group.add_argument("--steps", type=number(int, 1), help=f"steps of the sampler (default: {usual})")
    group.add_argument("--eval-every", type=number(int, 1), default=1, help="epochs between two scores")


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """What is common to everything that scores."""
    group = parser.add_argument_group("scores")
    group.add_argument("--eval-samples", type=number(int, 2), default=1024, help="images a score is measured on")
    group.add_argument("--eval-seeds", type=number(int, 1), default=3, help="seeds of the final score, for its spread")
    add_feature_options(group)


def add_feature_options(group: argparse._ActionsContainer) -> None:
    """What scores look through."""
    group.add_argument("--features", type=one_of("features", ["auto", *CLASSIFIERS, "inception"]), default="auto",
                       help="what FID and IS look through; auto is the classifier of the data set")  # fmt: skip
    group.add_argument("--inception-weights", type=Path, help="Inception's file, if it cannot be downloaded")


def check_features(args: argparse.Namespace, dataset: str, labels: bool = False) -> None:
    """Raise UserError if nothing here can score that data set, or tell its `labels`: now, not when it is downloaded."""
    if dataset not in DATASETS:
        raise unknown("dataset", dataset, DATASETS)
    if args.features == "auto" or (labels and args.features == "inception"):
        find_classifier(dataset, WEIGHTS)


def named_extractor(args: argparse.Namespace, dataset: str, device: torch.device) -> Extractor:
    """What those options name."""
    if args.features == "auto":
        return extractor_for(dataset, WEIGHTS, device)
    return extractor(args.features, WEIGHTS, args.inception_weights, device)


class Judge:
    """Scores images of one data set, always with the same extractor, reference and floor."""

    def __init__(self, lab: Laboratory):
        self.lab, args = lab, lab.args
        if args.eval_samples > len(lab.test):
            raise UserError(f"--eval-samples {args.eval_samples}: the floor is measured on as many test images, "
                            f"of which there are {len(lab.test)}")  # fmt: skip
        self.extractor = named_extractor(args, lab.config.dataset, lab.device)
        seen = lambda parts: lab.progress(parts, "real images")
        with lab.accelerator.main_process_first():  # one looks at the real images, the others find it in the cache
            self.reference = Reference.of(self.extractor, lab.data.images, args.data_root / "cache", seen)
        told = lab.config.classes  # a model that is told labels is told them in proportion
        real = lab.test.stratified(args.eval_samples) if told else lab.test
        self.floor = floor(lab.share(real.images[: args.eval_samples]), self.reference)

    @functools.cached_property
    def classifier(self) -> Extractor:
        """What tells labels; UserError if there is none for this data set."""
        if self.lab.args.features != "inception":
            return self.extractor
        return extractor_for(self.lab.config.dataset, WEIGHTS, self.lab.device)

    def score(self, images: Tensor) -> Scores:
        """Of this process's share of the images; every process must call."""
        return score(images, self.reference)

    def agreement(self, images: Tensor, labels: Tensor) -> float:
        """The share of this process's images that show the first of `labels`; every process must call."""
        return agreement(self.classifier, images, self.lab.share(labels[: self.lab.args.eval_samples]))

    def likeness(self, images: Tensor) -> Likeness:
        """Of this process's share of restored test images to the first test images; every process must call."""
        test, count = self.lab.test, self.lab.args.eval_samples
        originals, labels = self.lab.share(test.images[:count]), self.lab.share(test.labels[:count])
        return likeness(self.classifier, images, originals, labels)


def likeness_table(rows: dict[str, tuple[Scores, Likeness]], judge: Judge) -> str:
    """The ways back from fully averaged test images, side by side."""
    line = lambda name, *cells: f"{name:<26}" + "".join(f"{cell:>11}" for cell in cells)
    lines = [line("restored test images", "FID", "IS", "SSIM", "RMSE", "label kept", "mean grey")]
    for way, (scores, like) in rows.items():
        cells = (f"{scores.fid:.2f}", f"{scores.inception_score:.2f}", f"{like.ssim:.3f}", f"{like.rmse:.3f}",
                 f"{like.agreement:.1%}", f"{like.mean:.4f}")  # fmt: skip
        steps = build_sampler(judge.lab.experiment, way).calls
        lines.append(line(f"{way}, {steps} step{'s' if steps > 1 else ''}", *cells))
    real = f"{judge.floor.fid:.2f}", f"{judge.floor.inception_score:.2f}"
    lines.append(
        line("the originals", *real, "1.000", "0.000", f"{like.agreement_original:.1%}", f"{like.mean_original:.4f}")
    )
    return "\n".join(lines)


def table(lab: Laboratory, finals: list[Scores], real: Scores) -> str:
    """The last words of a run: scores over seeds, the floor in the same columns, and what they were measured with."""
    loss = next((f"{line['loss']:.4f}" for line in reversed(lab.history) if line["loss"] is not None), "–")
    row = lambda *cells: "{:<26}{:>8}{:>17}{:>17}{:>21}".format(*cells)
    over = lambda name, form: " ± ".join(f"{value:{form}}" for value in _mean_and_sd(finals, name))
    form = {"fid": ".2f", "inception_score": ".2f", "kid": ".4f"}
    spread = f"mean ± sd over {len(finals)} seeds" if len(finals) > 1 else "one seed, so no spread"
    lines = [
        row("", "loss", "FID", "IS", "KID"),
        row(lab.name, loss, *(over(name, form[name]) for name in form)),
        row("floor (real test images)", "–", *(f"{getattr(real, name):{form[name]}}" for name in form)),
        f"N = {real.n:,} images a seed, {spread}; against all {real.n_reference:,} training images",
        f"features: {real.extractor}, sha256 {real.sha256[:16]}",
    ]
    return "\n".join(lines + [f"warning: {finals[0].warning}"] * bool(finals[0].warning))


def _mean_and_sd(finals: list[Scores], name: str) -> list[float]:
    values = [getattr(each, name) for each in finals]
    return [statistics.mean(values), statistics.stdev(values)] if len(values) > 1 else values
