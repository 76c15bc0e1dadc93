"""What every training command measures with: an extractor, the real images, their floor."""

import functools
from argparse import Namespace

from torch import Tensor

from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.experiment.config import Config
from diffusion.experiment.samplers import AS_SAVED, SamplingOptions
from diffusion.files import shipped_weights
from diffusion.laboratory.checks import check_sampling
from diffusion.laboratory.flags import RunOptions, options_of
from diffusion.laboratory.progress import track
from diffusion.laboratory.run import Run, Stream
from diffusion.metrics.classifiers import check_features
from diffusion.metrics.features import Extractor, extractor_for
from diffusion.metrics.likeness import Likeness, agreement, likeness
from diffusion.metrics.scores import Reference, Scores, floor, score

COLD_SAMPLERS = ("direct", "alg1", "alg2", "pinned")  # compared on fully averaged test images


def open_reference(options: RunOptions, data: Dataset, show: bool = True) -> Reference:
    """The features of the training images, of the kind that the options name."""
    name, device = data.name if options.features == "auto" else options.features, data.images.device
    extractor = extractor_for(name, shipped_weights(), device, options.inception_weights)
    bar = functools.partial(track, text="real images", show=show)
    return Reference.of(extractor, data.images, options.data_root / "cache", bar)


def open_run(
    args: Namespace,
    base: Config,
    name: str,
    weights: str,
    sampling: SamplingOptions | None = None,
    explicit=(),
    stream: Stream | None = None,
) -> tuple[Run, "Judge"]:
    """The run that a command line asks for, and its judge; sampled as that says, unless by other options."""
    options = RunOptions.of(args)
    dataset = options.changes.get("dataset", base.dataset)
    check_features(options.features, dataset, labels=base.process == "averaging")
    run = Run(base, options, name, weights, explicit, stream=stream)
    return run, Judge(run, sampling or options_of(SamplingOptions, args))


class Judge:
    """Scores samples of a run, always with the same sampler, extractor, reference and floor."""

    def __init__(self, run: Run, sampling: SamplingOptions = AS_SAVED):
        self.run, self.options, self.sampling, count = run, run.options, sampling, run.options.eval_samples
        if not run.config.is_codec:
            check_sampling(run.experiment, sampling)
        if count > len(run.test):
            there = f"the floor is measured on as many test images, of which there are {len(run.test)}"
            raise UserError(f"--eval-samples {count}: {there}")
        with run.accelerator.main_process_first():  # one computes the features, the others find them in the cache
            self.reference = open_reference(run.options, run.data, run.is_main)
        real = run.test.stratified(count) if run.config.classes else run.test  # as the labels of its samples are
        self.floor = floor(run.share(real.images[:count]), self.reference)

    @functools.cached_property
    def classifier(self) -> Extractor:
        """What tells labels; UserError if there is none for this data set."""
        if self.options.features != "inception":
            return self.reference.extractor
        return extractor_for(self.run.config.dataset, shipped_weights(), self.run.device)

    def labels(self, seed: int) -> Tensor | None:
        """Of the samples to score, in the proportions of the training set; None for an unconditional model."""
        return self.run.data.stratified(self.options.eval_samples, seed).labels if self.run.config.classes else None

    def sample(self, seed: int, text: str = "samples to score") -> Tensor:
        """The samples to score."""
        return self.run.sample(self.options.eval_samples, seed, text, self.sampling, labels=self.labels(seed))

    def score(self, images: Tensor) -> Scores:
        """Of images, in equal shares by all processes: each must call."""
        return score(self.run.share(images), self.reference)

    @property
    def seeds(self) -> range:
        """Of the final scores; of an autoencoder one, as its reconstructions need none."""
        first = self.run.config.seed
        return range(first, first + (1 if self.run.config.is_codec else self.options.eval_seeds))

    def final_scores(self, first: Scores | None = None) -> list[Scores]:
        """A score of every seed; that of the `first` seed may be known already."""
        known = [first] if first else []
        return known + [self.score(self.sample(each, f"samples of seed {each}")) for each in self.seeds[len(known) :]]

    def agreement(self, images: Tensor, labels: Tensor) -> float:
        """The fraction of images that show their label; each process must call."""
        return agreement(self.classifier, self.run.share(images), self.run.share(labels))

    def likeness(self, images: Tensor) -> Likeness:
        """Of restored test images to the originals, the first of the test split; each process must call."""
        test, count = self.run.test, len(images)
        parts = (self.run.share(each[:count]) for each in (images, test.images, test.labels))
        return likeness(self.classifier, *parts)
