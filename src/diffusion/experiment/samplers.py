"""The samplers by name, and the options of sampling. No torch here: command lines ask for this."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from diffusion.errors import UserError, check_float, check_int, unknown
from diffusion.experiment.config import MOST_STEPS

Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)


class SamplerSpec(NamedTuple):
    """A line of the table."""

    loop: str  # its function in method.sampler, as `sampling` knows it
    eta: float  # 0: nothing random but the start
    steps: int | None  # by default; None is T, and of pinned averages at least FEWEST
    grid: str | None = None  # of the times; None: even
    pinned: bool = False  # whether averages are held fixed
    clip: bool = True  # whether estimates of x_0 are clipped, if that is not declined


FEWEST = 28  # steps of pinned averages: where there are few groups, each is visited several times

SAMPLERS: dict[str, dict[str, SamplerSpec]] = {  # of each kind of process
    "gaussian": {
        "ddpm": SamplerSpec("sample", 1.0, 100),  # Ho et al. (2020)
        "ddim": SamplerSpec("sample", 0.0, 50),  # Song et al. (2021)
        "heun": SamplerSpec("heun", 0.0, 10),  # Karras et al. (2022)
        "dpm": SamplerSpec("multistep", 0.0, 20, "karras"),  # Lu et al. (2022)
        "sde": SamplerSpec("multistep", 1.0, 20),  # its SDE form
        "consistency": SamplerSpec("sample", inf, 4),  # Song et al. (2023), for networks that were distilled
    },
    "averaging": {  # Bansal et al. (2022)
        "alg2": SamplerSpec("sample", 0.0, None),
        "alg1": SamplerSpec("sample", 1.0, None),
        "pinned": SamplerSpec("sample", 1.0, None, pinned=True),  # ours
        "coursework": SamplerSpec("one_late", 0.0, None, clip=False),  # its code, literally
        "direct": SamplerSpec("sample", 1.0, 1),
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
