"""Hyper-parameters as data: one frozen Config."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from diffusion.errors import UserError, unknown

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Pixel = Annotated[float, Field(ge=-1000, le=1000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Level = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1)]
Steps = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Config:
    """Everything that decides what is trained; saved with the weights. The comment of a field is its meaning."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    preset: str = "default"  # the line of the table it came from
    dataset: str = "MNIST"  # a name in data.DATASETS
    shape: tuple[Count, Count, Count] = (1, 28, 28)  # (C, H, W) of an image
    pixel_range: tuple[Pixel, Pixel] = (-0.5, 0.5)  # what [0, 1] becomes inside the process

    process: Literal["gaussian", "averaging"] = "gaussian"
    schedule: Literal["linear", "cosine", "rectified"] = "linear"
    timesteps: Count = 1000  # T, of the linear schedule; of averaging, the number of groups of lines
    beta_min: Share = 1e-4
    beta_max: Annotated[float, Field(gt=0, lt=1)] = 0.02
    target: Literal["eps", "x_0", "v", "velocity"] = "eps"  # what the network regresses
    variance: Literal["beta", "posterior"] = "posterior"  # of the ancestral step's noise; the coursework adds beta
    axis: Literal["row", "col"] = "row"  # of averaging: which lines
    order: Literal["random", "inside-out", "outside-in"] = "random"  # in which they are averaged
    noise: Level = 0.0  # standard deviation of the noise on every averaged image, in units of x
    loss: Literal["l2", "l1"] = "l2"
    draw_time: Literal["uniform", "logit-normal"] = "uniform"  # how often each t is trained
    sampler: Literal["ddpm", "ddim", "heun", "dpm", "sde", "alg2", "alg1", "pinned", "direct"] | None = None  # way back
    sampler_steps: Steps | None = None  # of it; both unless told; None: the first of its process, its usual number

    network: Literal["cnn", "unet"] = "cnn"
    hidden: Widths = (16, 32, 32, 16)  # channels of each block, or of each resolution of the U-Net
    activation: Literal["gelu", "selu", "silu", "relu"] = "gelu"
    classes: Natural = 0  # labels that the network can be told; 0: none
    drop_prob: Probability = 0.1  # how often training hides the label, so that the network can also do without

    lr: Annotated[float, Field(gt=0, le=100)] = 2e-4  # Adam's
    beta2: Share = 0.999  # Adam's, of the squared gradients
    warmup: Natural = 0  # steps over which lr rises to its height
    decay: Share = 0.0  # the last part of a training of planned length over which lr falls to 0
    batch_size: Count = 128  # of all processes together
    ema_decay: Share = 0.999  # of the averaged weights, after their warm-up
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of the forward pass; bf16 if the processor has it
    seed: Seed = 0

    def replace(self, **changes: Any) -> "Config":
        """A changed copy, checked like any other."""
        return checked(asdict(replace(self, **changes)))


def checked(values: dict[str, Any]) -> Config:
    """The Config of a dict from outside (a file, a command line); UserError names the first wrong field."""
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "preset"
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise unknown("setting", field, Config.__dataclass_fields__) from None
        hint = ", a list such as [32, 64]" if first["type"] == "tuple_type" else ""
        raise UserError(f"setting {field!r} cannot be {first['input']!r}: {first['msg'].lower()}{hint}") from None
    if config.pixel_range[1] - config.pixel_range[0] < 1e-3:
        raise UserError(f"setting 'pixel_range' cannot be {config.pixel_range}: the lower end comes first")
    return config
