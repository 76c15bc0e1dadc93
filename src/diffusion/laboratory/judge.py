"""What every training command measures with: an extractor, the real images, their floor; and the tables it prints."""

import functools
import statistics

import torch
from torch import Tensor

from diffusion.data.datasets import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.files import shipped_weights
from diffusion.laboratory.progress import track
from diffusion.laboratory.run import Run
from diffusion.laboratory.settings import ScoreOptions
from diffusion.metrics.features import Extractor, extractor_for, find_classifier, load_extractor
from diffusion.metrics.likeness import Likeness, agreement, likeness
from diffusion.metrics.scores import Reference, Scores, floor, score

COLD_SAMPLERS = ("direct", "alg1", "alg2", "pinned")  # compared on fully averaged test images


def check_features(features: str, dataset: str, labels: bool = False) -> None:
    """Raise UserError if nothing here can score that data set, or tell its `labels`: now, not when it is downloaded."""
    if dataset not in DATASETS:
        raise unknown("dataset", dataset, DATASETS)
    if features == "auto" or (labels and features == "inception"):
        find_classifier(dataset, shipped_weights())


def named_extractor(options: ScoreOptions, dataset: str, device: torch.device) -> Extractor:
    """The features that the options name."""
    if options.features == "auto":
        return extractor_for(dataset, shipped_weights(), device)
    return load_extractor(options.features, shipped_weights(), options.inception_weights, device)


class Judge:
    """Scores images of one data set, always with the same extractor, reference and floor."""

    def __init__(self, run: Run, options: ScoreOptions):
        self.run, self.options, count = run, options, options.eval_samples
        if count > len(run.test):
            there = f"the floor is measured on as many test images, of which there are {len(run.test)}"
            raise UserError(f"--eval-samples {count}: {there}")
        self.extractor = named_extractor(options, run.config.dataset, run.device)
        bar = functools.partial(track, text="real images", show=run.is_main)
        with run.accelerator.main_process_first():  # one looks at the real images, the others find them in the cache
            self.reference = Reference.of(self.extractor, run.data.images, run.options.data_root / "cache", bar)
        real = run.test.stratified(count) if run.config.classes else run.test  # as the labels of its samples are
        self.floor = floor(run.share(real.images[:count]), self.reference)

    @functools.cached_property
    def classifier(self) -> Extractor:
        """What tells labels; UserError if there is none for this data set."""
        if self.options.features != "inception":
            return self.extractor
        return extractor_for(self.run.config.dataset, shipped_weights(), self.run.device)

    def score(self, images: Tensor) -> Scores:
        """Of this process's share of the images; every process must call."""
        return score(images, self.reference)

    def agreement(self, images: Tensor, labels: Tensor) -> float:
        """The share of this process's images that show the first of `labels`; every process must call."""
        return agreement(self.classifier, images, self.run.share(labels[: self.options.eval_samples]))

    def likeness(self, images: Tensor) -> Likeness:
        """Of this process's share of restored test images to the first test images; every process must call."""
        test, count = self.run.test, self.options.eval_samples
        originals, labels = self.run.share(test.images[:count]), self.run.share(test.labels[:count])
        return likeness(self.classifier, images, originals, labels)


def likeness_table(rows: dict[str, tuple[Scores, Likeness]], judge: Judge) -> str:
    """The samplers of cold diffusion on fully averaged test images, side by side."""
    line = lambda name, *cells: f"{name:<26}" + "".join(f"{cell:>11}" for cell in cells)
    lines = [line("restored test images", "FID", "IS", "SSIM", "RMSE", "label kept", "mean grey")]
    scored = lambda scores: (f"{scores.fid:.2f}", f"{scores.inception_score:.2f}")
    for name, (scores, like) in rows.items():
        steps = build_sampler(judge.run.experiment, SamplingOptions(name)).steps
        cells = f"{like.ssim:.3f}", f"{like.rmse:.3f}", f"{like.agreement:.1%}", f"{like.mean:.4f}"
        lines.append(line(f"{name}, {steps} step{'s' if steps > 1 else ''}", *scored(scores), *cells))
    real = f"{like.agreement_original:.1%}", f"{like.mean_original:.4f}"
    return "\n".join([*lines, line("the originals", *scored(judge.floor), "1.000", "0.000", *real)])


def table(run: Run, finals: list[Scores], real: Scores) -> str:
    """The last words of a run: scores over seeds, the floor in the same columns, and what they were measured with."""
    loss = next((f"{line['loss']:.4f}" for line in reversed(run.history) if line["loss"] is not None), "–")
    row = lambda *cells: "{:<26}{:>8}{:>17}{:>17}{:>21}".format(*cells)
    over = lambda name, form: " ± ".join(f"{value:{form}}" for value in _mean_and_sd(finals, name))
    form = {"fid": ".2f", "inception_score": ".2f", "kid": ".4f"}
    spread = f"mean ± sd over {len(finals)} seeds" if len(finals) > 1 else "one seed, so no spread"
    lines = [
        row("", "loss", "FID", "IS", "KID"),
        row(run.name, loss, *(over(name, form[name]) for name in form)),
        row("floor (real test images)", "–", *(f"{getattr(real, name):{form[name]}}" for name in form)),
        f"N = {real.n:,} images a seed, {spread}; against all {real.n_reference:,} training images",
        f"features: {real.extractor}, sha256 {real.sha256[:16]}",
    ]
    return "\n".join(lines + [f"warning: {finals[0].warning}"] * bool(finals[0].warning))


def _mean_and_sd(finals: list[Scores], name: str) -> list[float]:
    values = [getattr(each, name) for each in finals]
    return [statistics.mean(values), statistics.stdev(values)] if len(values) > 1 else values
