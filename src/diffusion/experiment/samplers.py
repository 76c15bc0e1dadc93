"""The samplers by name, their options, and what these make of an experiment: a loop, a process and its times."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from torch import Tensor

from diffusion.errors import UserError, check_float, check_int, unknown
from diffusion.experiment.build import Experiment
from diffusion.experiment.config import MOST_STEPS
from diffusion.method.process import Eta, Process, straight_eta
from diffusion.method.sampler import heun, multistep, one_late, sample

Loop = Callable[..., Iterator[Tensor]]
Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)


class SamplerSpec(NamedTuple):
    """A line of the table."""

    loop: Loop
    eta: float  # 0: nothing random but the start
    steps: int | None  # by default; None is T, and of pinned averages at least FEWEST
    grid: str | None = None  # of the times; None: even
    pinned: bool = False  # whether averages are held fixed
    clip: bool = True  # whether estimates of x_0 are clipped, if that is not declined


FEWEST = 28  # steps of pinned averages: where there are few groups, each is visited several times

SAMPLERS: dict[str, dict[str, SamplerSpec]] = {  # of each kind of process
    "gaussian": {
        "ddpm": SamplerSpec(sample, 1.0, 100),  # Ho et al. (2020)
        "ddim": SamplerSpec(sample, 0.0, 50),  # Song et al. (2021)
        "heun": SamplerSpec(heun, 0.0, 10),  # Karras et al. (2022)
        "dpm": SamplerSpec(multistep, 0.0, 20, "karras"),  # Lu et al. (2022)
        "sde": SamplerSpec(multistep, 1.0, 20),  # its SDE form
        "consistency": SamplerSpec(sample, inf, 4),  # Song et al. (2023), for networks that were distilled
    },
    "averaging": {  # Bansal et al. (2022)
        "alg2": SamplerSpec(sample, 0.0, None),
        "alg1": SamplerSpec(sample, 1.0, None),
        "pinned": SamplerSpec(sample, 1.0, None, pinned=True),  # ours
        "coursework": SamplerSpec(one_late, 0.0, None, clip=False),  # its code, literally
        "direct": SamplerSpec(sample, 1.0, 1),
    },
}
NAMES = [name for known in SAMPLERS.values() for name in known]
VARIANCES = ("beta", "posterior")
MOST_DIFFUSION = 8**0.5  # where eta is 1 at t = 1/2


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn, checked once, here. None: as the weights were saved. UserError for what cannot be."""

    sampler: str | None = None  # a name in SAMPLERS
    steps: int | None = None  # None: the sampler's default
    guidance_scale: float | None = None  # 0 ignores the condition, 1 follows it, more exaggerates it
    interval: Interval = ALWAYS  # the times at which the scale applies; outside it is 1
    variance: str | None = None  # of ddpm's noise, "beta" or "posterior"
    clip: bool = True  # whether estimates of x_0 are kept in the range of images; never by "coursework"
    begin: int = 0  # steps left out at the start, where originals are restored
    negative_prompt: str | None = None  # of a text model: guidance leads away from this, not from "no caption"
    diffusion: float | None = None  # on straight lines, by sde or ddpm: noise drawn on the way is diffusion t

    def __post_init__(self) -> None:
        for kind, name, known in (("sampler", self.sampler, NAMES), ("variance", self.variance, VARIANCES)):
            if name not in (None, *known):
                raise unknown(kind, name, known)
        if self.steps is not None:
            check_int("steps", self.steps, 1, MOST_STEPS)
        if self.guidance_scale is not None:
            rule = "a guidance scale is a number (0 ignores the label, 1 follows it)"
            check_float(rule, self.guidance_scale, lambda scale: abs(scale) < 1e6)  # of more, float32 loses the rest
        if self.diffusion is not None:
            rule = "the diffusion is a number from 0, no noise on the way, to 2.828: more than DDPM's cannot be added"
            check_float(rule, self.diffusion, lambda diffusion: 0 <= diffusion <= MOST_DIFFUSION)
        rule = "a guidance interval is two times from 0 to 1, the lower first"
        if not isinstance(self.interval, tuple | list) or len(self.interval) != 2:
            raise UserError(f"{rule}, not {self.interval!r}")
        low = check_float(rule, self.interval[0], lambda t: 0 <= t < 1)
        check_float(rule, self.interval[1], lambda t: low < t <= 1)


AS_SAVED = SamplingOptions()


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
    return Sampler(spec.loop, process, times[check_int("begin", options.begin, 0, len(times) - 2) :])


def _diffusion_eta(experiment: Experiment, name: str, diffusion: float) -> Eta:
    if experiment.config.process != "gaussian" or experiment.config.schedule != "rectified":
        raise UserError("a diffusion is of a flow on straight lines: these weights have another schedule")
    if name not in ("sde", "ddpm"):
        raise UserError(f"a diffusion goes by sde or ddpm, not by {name!r}")
    return straight_eta(diffusion)
