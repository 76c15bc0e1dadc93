"""What is refused at once and not after hours of training: sampling that cannot be."""

from diffusion.api.generation import guided_denoiser
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import Sampler, build_sampler


def check_sampling(experiment: Experiment, options: SamplingOptions) -> Sampler:
    """The sampler; UserError for impossible steps or a scale without labels: now, not after an epoch."""
    guided_denoiser(experiment, options)
    return build_sampler(experiment, options)
