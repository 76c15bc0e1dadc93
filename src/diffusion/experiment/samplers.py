"""The samplers by name, and what each makes of an experiment: a loop, a process and its times."""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from diffusion.errors import check_int, unknown
from diffusion.experiment.build import Experiment
from diffusion.method.process import Process
from diffusion.method.sampler import heun, multistep, sample


class Sampler(NamedTuple):
    """A way back by name."""

    loop: Callable[..., Iterator[Tensor]]
    eta: float  # 0: nothing random but the start
    steps: int | None  # unless told; None is all there are, and for pinned averages not fewer than FEWEST
    grid: str | None = None  # of the times, where there is a choice
    pinned: bool = False  # whether averages are held on to


VARIANCES = (None, "beta", "posterior")  # of ddpm's noise; None: as the config says
FEWEST = 28  # steps of pinned averages: few groups are come to again and again

SAMPLERS: dict[str, dict[str, Sampler]] = {  # of each kind of process
    "gaussian": {
        "ddpm": Sampler(sample, 1.0, 100, "uniform"),  # Ho et al. (2020)
        "ddim": Sampler(sample, 0.0, 50, "uniform"),  # Song et al. (2021)
        "heun": Sampler(heun, 0.0, 10, "uniform"),  # Karras et al. (2022)
        "dpm": Sampler(multistep, 0.0, 20, "karras"),  # Lu et al. (2022)
        "sde": Sampler(multistep, 1.0, 20, "uniform"),  # its SDE form
    },
    "averaging": {  # Bansal et al. (2022)
        "alg2": Sampler(sample, 0.0, None),
        "alg1": Sampler(sample, 1.0, None),
        "pinned": Sampler(sample, 1.0, None, pinned=True),  # ours
        "direct": Sampler(sample, 1.0, 1),
    },
}


class Way(NamedTuple):
    """A way back: `loop(denoiser, process, x, times, noise, **cond)` yields its states, x at times[0]."""

    loop: Callable[..., Iterator[Tensor]]
    process: Process
    times: Tensor  # (steps + 1,) from 1, unless it begins later, down to 0

    @property
    def calls(self) -> int:
        """Network calls for one sample."""
        steps = len(self.times) - 1
        return 2 * steps - 1 if self.loop is heun else steps


def build_sampler(
    experiment: Experiment,
    sampler: str | None = None,
    steps: int | None = None,
    variance: str | None = None,
    begin: int = 0,
) -> Way:
    """The way back of a named sampler (None: the config's), without its first `begin` steps.

    `variance` is that of ddpm's noise; the other ways are exact for the posterior's.
    """
    known = SAMPLERS[experiment.config.process]
    if sampler is None:
        sampler = experiment.config.sampler
        steps = experiment.config.sampler_steps if steps is None else steps
    if sampler is None:  # noise in every degraded image is there to be drawn afresh
        cold = experiment.config.process == "averaging"
        sampler = "pinned" if cold and experiment.config.noise else next(iter(known))
    if str(sampler) not in known:
        raise unknown("sampler", sampler, known)
    if variance not in VARIANCES:
        raise unknown("variance", variance, VARIANCES[1:])
    process = copy.copy(experiment.process)
    way = known[sampler]
    process.eta = way.eta
    if way.pinned:
        process.pinned = True
    if experiment.config.process == "gaussian":
        process.variance = variance or process.variance if sampler == "ddpm" else "posterior"
    most = process.timesteps or 1000
    if steps is None:
        steps = max(most, FEWEST) if way.pinned else min(way.steps or most, most)
    grid = [way.grid] if way.grid else []
    times = process.times(steps, *grid)
    return Way(way.loop, process, times[check_int("begin", begin, 0, len(times) - 2) :])
