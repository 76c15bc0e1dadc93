"""What the options of sampling make of an experiment: a loop, a process and its times."""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from diffusion.errors import UserError, check_int, unknown
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import AS_SAVED, FEWEST, SAMPLERS, SamplingOptions
from diffusion.method.process import Eta, Process, straight_eta
from diffusion.method.sampler import heun, multistep, one_late, sample

Loop = Callable[..., Iterator[Tensor]]
LOOPS: dict[str, Loop] = {"sample": sample, "heun": heun, "multistep": multistep, "one_late": one_late}


class Sampler(NamedTuple):
    """A sampler at work: `loop(denoiser, process, x, times, noise, cond)` yields its states, x at times[0]."""

    loop: Loop
    process: Process
    times: Tensor  # (steps + 1,) from 1, unless it begins later, down to 0

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def nfe(self) -> int:
        """Network calls a sample."""
        return 2 * self.steps - 1 if self.loop is heun else self.steps


def sampler_name(experiment: Experiment, options: SamplingOptions) -> str:
    """The sampler that is meant; UserError if the experiment's process has none of that name."""
    config, known = experiment.config, SAMPLERS[experiment.config.process]
    name = options.sampler or ("sde" if options.diffusion is not None else config.sampler)
    if name is None:  # noise in every degraded image is there to be drawn afresh
        name = "pinned" if config.process == "averaging" and config.noise else next(iter(known))
    if name not in known:
        raise unknown("sampler", name, known)
    return name


def clips(experiment: Experiment, options: SamplingOptions) -> bool:
    """Whether estimates of x_0 are clipped."""
    return options.clip and SAMPLERS[experiment.config.process][sampler_name(experiment, options)].clip


def build_sampler(experiment: Experiment, options: SamplingOptions = AS_SAVED) -> Sampler:
    """What the options make of an experiment; UserError for a sampler or a number of steps that its process has not."""
    config, name, steps = experiment.config, sampler_name(experiment, options), options.steps
    if options.sampler is None and steps is None:
        steps = config.sampler_steps
    spec, process = SAMPLERS[config.process][name], copy.copy(experiment.process)
    # Only ddpm has a choice of variance: the others are exact for the posterior's.
    variance = options.variance or config.variance if name == "ddpm" else "posterior"
    eta = spec.eta if options.diffusion is None else _diffusion_eta(experiment, name, options.diffusion)
    vars(process).update(eta=eta, pinned=spec.pinned, variance=variance)  # each process reads its own of these
    most = process.timesteps or 1000
    if steps is None:
        steps = max(most, FEWEST) if spec.pinned else min(spec.steps or most, most)
    grid = [spec.grid] if spec.grid else []
    times = process.times(check_int("steps", steps, 1, process.most_steps), *grid)
    return Sampler(LOOPS[spec.loop], process, times[check_int("begin", options.begin, 0, len(times) - 2) :])


def _diffusion_eta(experiment: Experiment, name: str, diffusion: float) -> Eta:
    if experiment.config.process != "gaussian" or experiment.config.schedule != "rectified":
        raise UserError("a diffusion is of a flow on straight lines: these weights have another schedule")
    if name not in ("sde", "ddpm"):
        raise UserError(f"a diffusion goes by sde or ddpm, not by {name!r}")
    return straight_eta(diffusion)
