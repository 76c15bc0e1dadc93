"""Hyper-parameters as data: one frozen Config."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from diffusion.errors import UserError, unknown

Pixel = Annotated[float, Field(ge=-1000, le=1000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Level = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
SamplerName = Literal[
    "ddpm", "ddim", "heun", "dpm", "sde", "consistency", "alg2", "alg1", "pinned", "coursework", "direct"
]
MOST_STEPS = 100_000  # of a sampler
T = TypeVar("T")


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[1] - ends[0] < 1e-3:
        raise ValueError("the lower end comes first")
    return ends


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    dataset: str = "MNIST"  # a name in data.DATASETS
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 28, 28)  # (C, H, W) of an image
    pixel_range: Annotated[tuple[Pixel, Pixel], AfterValidator(_rising)] = (-0.5, 0.5)  # [0, 1] inside the process
    codec: str = "pixels"  # what x is: pixels, or latents of the autoencoder in the weight file of this name
    held_out: NonNegativeInt = 0  # training images that are not trained on, to choose and to calibrate with
    samples: PositiveInt | None = None  # training pictures of a data set that is drawn, such as digits; None: its usual


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    process: Literal["gaussian", "averaging"] = "gaussian"
    schedule: Literal["linear", "cosine", "rectified"] = "linear"
    timesteps: PositiveInt = 1000  # T, of the linear schedule; of averaging, the number of groups of lines
    beta_min: Share = 1e-4
    beta_max: Annotated[float, Field(gt=0, lt=1)] = 0.02
    target: Literal["eps", "x_0", "v", "velocity"] = "eps"  # what the network regresses
    variance: Literal["beta", "posterior"] = "posterior"  # of the ancestral step's noise; the coursework adds beta
    draw_time: Literal["uniform", "logit-normal"] = "uniform"  # how often each t is trained
    axis: Literal["row", "col"] = "row"  # of averaging: which lines
    order: Literal["random", "inside-out", "outside-in"] = "random"  # in which they are averaged
    noise: Level = 0.0  # standard deviation of the noise on every averaged image, in units of x


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    network: Literal["cnn", "unet", "text", "mlp", "autoencoder", "vae"] = "cnn"  # the last two are codecs of others
    hidden: Widths = (16, 32, 32, 16)  # channels: of each block; of each resolution of a unet; of mlp, of its trunk and
    # inside each block; of an autoencoder, of what its decoder unflattens, at a quarter of the resolution, at half
    activation: Literal["gelu", "selu", "silu", "relu"] = "gelu"
    classes: NonNegativeInt = 0  # labels that the network is conditioned on; 0: none
    text_encoder: Literal["words", "minilm"] = "words"  # what reads captions: word vectors that are trained with the
    # rest, or pretrained MiniLM, frozen, which knows any word
    pooled: bool = True  # whether the mean of a caption's words is added to the time: it soon tells what is drawn, and
    # long hides which word belongs to which
    words: tuple[str, ...] = ()  # of the captions that a text network reads, the padding first; of minilm, none
    caption_length: NonNegativeInt = 0  # words, or pieces, of the longest; both are the data set's
    drop_prob: Probability = 0.1  # how often training hides the label, so that the network can also do without
    encoder: Widths = (16, 32, 8)  # of an autoencoder: channels at half resolution, at a quarter, of what is flattened
    latent: PositiveInt = 36  # numbers that an autoencoder makes of an image
    contrast: Annotated[float, Field(gt=0, le=100)] = 1.0  # of an autoencoder's pictures: more makes their edges sharp


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    lr: Annotated[float, Field(gt=0, le=100)] = 2e-4  # Adam's learning rate
    beta1: Share = 0.9  # Adam's, of the gradients; two networks that answer each other circle less with 0
    beta2: Share = 0.999  # Adam's, of the squared gradients
    warmup: NonNegativeInt = 0  # steps over which lr rises to its height
    decay: Share = 0.0  # the last part of a training of planned length over which lr falls to 0
    batch_size: PositiveInt = 128  # of all processes together
    ema_decay: Share = 0.999  # of the averaged weights, after their warm-up
    milestones: tuple[PositiveInt, ...] = ()  # epochs after each of which lr is multiplied by gamma
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    loss: Literal["l2", "l1"] = "l2"
    teacher: str = "none"  # the weight file of a model that is distilled for few network calls
    distillation: Literal["consistency", "matching"] = "consistency"  # of a teacher's paths, or of what it draws
    start: str = "none"  # the weight file that a distilled model begins with; none: its teacher
    teacher_steps: PositiveInt = 32  # of consistency: into which the teacher's way from noise to image is divided
    teacher_scale: Annotated[float, Field(ge=-100, le=100)] = 1.0  # of matching: the teacher's guidance scale
    critic_pace: Annotated[float, Field(gt=0, le=100)] = 5.0  # its critic's learning rate, in lr; at 1 they may circle
    kl_weight: Level = 0.2  # of a vae: of the KL divergence beside half the squared error, both sums over an image
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of the forward pass; bf16 if the processor has it
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:  # defaults of sampling; None: the first sampler of the process, its usual steps
    sampler: SamplerName | None = None
    sampler_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=-100, le=100)] = 1.0  # 0 ignores the condition, 1 follows it


@dataclass(frozen=True)
class Config(SamplingSettings, TrainingSettings, NetworkSettings, ProcessSettings, DataSettings):
    """Everything that decides what is trained; saved with the weights as a flat dict. A base is a section of a file."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    preset: str = "default"  # the line of the table it came from

    @property
    def is_codec(self) -> bool:
        """Whether it describes an autoencoder, on whose latents others work, and not a model that draws."""
        return self.network in ("autoencoder", "vae")

    @property
    def conditional(self) -> bool:
        """Whether the network is conditioned on labels or captions."""
        return bool(self.classes or self.reads)

    @property
    def reads(self) -> bool:
        """Whether the network is conditioned on captions."""
        return self.network == "text"

    def replace(self, **changes: Any) -> "Config":
        """A changed copy, checked like any other."""
        return checked(asdict(replace(self, **changes)))


CONFIG = TypeAdapter(Config)


def choices(setting: str) -> tuple[str, ...]:
    """The words that a setting may be."""
    return get_args(get_type_hints(Config)[setting])


def checked(values: dict[str, Any]) -> Config:
    """The Config of a dict from outside (a file, a command line); UserError names the first wrong setting."""
    return validated(CONFIG, values, Config.__dataclass_fields__)


def validated(kind: TypeAdapter[T], values: dict[str, Any], settings: Collection[str]) -> T:
    """What pydantic makes of the values; UserError for the first that is wrong or none of the `settings`."""
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "preset"
    if first["type"] == "unexpected_keyword_argument":
        namesake = f".{name.split('.')[-1].lower()}"  # the same name in another section is meant before a similar one
        raise unknown("setting", name, settings, next((each for each in settings if each.endswith(namesake)), None))
    hint = ", a list such as [32, 64]" if first["type"] == "tuple_type" else ""
    reason = first["msg"].lower().removeprefix("value error, ")
    raise UserError(f"setting {name!r} cannot be {first['input']!r}: {reason}{hint}")
