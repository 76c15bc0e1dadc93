"""What requests may hold and replies do hold: OpenAI's fields and ours."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Whole = Annotated[int, BeforeValidator(lambda n: int(n) if isinstance(n, float) and n.is_integer() else n)]
Label = Whole | str
Prompt = Annotated[str, Field(max_length=4000)]
MOST_SEED = 2**53 - 1  # the largest whole number that JavaScript keeps


class Strict(BaseModel):
    """No field that is not known, no number in quotes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SamplingFields(Strict):
    """How images are drawn. Without a word, as the model's weights say."""

    model: str | None = Field(None, max_length=200, description="an id of GET /v1/models; the first if absent")
    prompt: str | None = Field(
        None, max_length=4000, description='a label where the model knows labels: "7", "seven", "a sneaker, please"'
    )
    negative_prompt: str | None = Field(None, max_length=4000, description="of a model that reads: guidance leads away")
    steps: Whole | None = Field(None, ge=1, description="of the sampler; by default as the sampler is usually run")
    num_inference_steps: Whole | None = Field(None, ge=1, description="the same as steps")
    sampler: str | None = Field(None, max_length=40, description="a name of the model's `samplers`")
    guidance_scale: float | None = Field(
        None,
        ge=-100,
        le=100,
        description="0 ignores the label, 1 (usually the default) follows it, more exaggerates it",
    )
    interval: list[float] | None = Field(
        None, min_length=2, max_length=2, description="guide only at these times t, the lower first"
    )
    seed: Whole | None = Field(None, ge=0, le=MOST_SEED, description="of all noise; drawn and told if absent")

    n: Whole | None = Field(None, ge=1, description="how many images")
    stream: bool | None = Field(None, description="server-sent events, an image as it comes into being")
    partial_images: Whole | None = Field(
        None, ge=0, le=100_000, description="of a stream: states on the way, evenly spread; absent: every step"
    )
    sprite: bool | None = Field(None, description="of a stream: all n images side by side in one picture a step")
    estimates: bool | None = Field(None, description="of a stream: also the model's estimate of x_0 at each step")
    probabilities: bool | None = Field(None, description="what the data set's classifier takes the images for")

    response_format: Literal["b64_json"] | None = Field(None, description="nothing else: no image is kept for a URL")
    output_format: Literal["png"] | None = None
    size: str | None = Field(None, max_length=20, description='"auto" or the model\'s own, such as "28x28"')
    quality: str | None = Field(None, max_length=40, description="OpenAI's; of no effect here")
    background: str | None = Field(None, max_length=40, description="OpenAI's; of no effect here")
    moderation: str | None = Field(None, max_length=40, description="OpenAI's; of no effect here")
    style: str | None = Field(None, max_length=40, description="OpenAI's; of no effect here")
    output_compression: Whole | None = Field(None, description="OpenAI's; of no effect here")
    user: str | None = Field(None, max_length=200, description="OpenAI's; of no effect here")


EXAMPLE = {"model": "unet", "prompt": "seven", "n": 4, "steps": 10, "guidance_scale": 2, "seed": 0}


class GenerationRequest(SamplingFields):
    """The body of POST /v1/images/generations."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    label: Label | Annotated[list[Label], Field(min_length=1, max_length=1000)] | None = Field(
        None,
        description='one for all images or a list of n; a number, a name, or "none": unconditional. By default what '
        "the prompt says, and if it says nothing 0, 1, 2, … in turn",
    )
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="one for each image, in the place of prompt"
    )
    index: Whole | None = Field(
        None, ge=0, le=10**9, description="which sample of its seed the first image is: one of many can be drawn again"
    )


class EditRequest(SamplingFields):
    """The fields of POST /v1/images/edits and /v1/images/interpolations beside the pictures."""

    label: Label | None = Field(None, description="a number or a name; by default what the prompt says, or none")
    first: Whole | None = Field(None, ge=0, le=MOST_SEED, description="an interpolation's end: a seed, or a picture")
    second: Whole | None = Field(None, ge=0, le=MOST_SEED, description="its other end")
    strength: float | None = Field(
        None,
        ge=0.001,
        le=1,
        description="without a mask: the time t from which the image is brought back, 0.5 by default",
    )
    resample: Whole | None = Field(
        None, ge=1, le=100, description="with a mask: passes a step (RePaint), 10 by default"
    )
    input_fidelity: str | None = Field(None, max_length=40, description="OpenAI's; of no effect here")


class ImageEntry(BaseModel):
    b64_json: str = Field(description="a PNG file")
    revised_prompt: str | None = Field(description="what the prompt was taken for")
    seed: int
    index: int = Field(description="which sample of its seed; of an edit, which image")
    label: int | None
    probabilities: list[float] | None = None


class ImagesReply(BaseModel):
    """OpenAI's reply, and how the images were drawn."""

    created: int
    data: list[ImageEntry]
    output_format: Literal["png"] = "png"
    model: str
    sampler: str
    steps: int
    nfe: int = Field(description="network calls an image")
    guidance_scale: float


class ModelEntry(BaseModel):
    id: str
    created: int
    object: Literal["model"]
    owned_by: str
    kind: Literal["gaussian", "averaging"]
    axis: str | None
    dataset: str
    shape: list[int]
    labels: list[str]
    samplers: list[str]
    defaults: dict[str, str | int | float]
    prompts: bool = Field(description="whether it reads sentences, not labels")
    words: list[str] = Field(description="those that its sentences are made of; none: any")
    examples: list[str] = Field(description="some sentences that it was trained on")
    timesteps: int | None = Field(description="T of a discrete process")
    classifier: bool = Field(description="whether probabilities can be had")
    family: str
    epoch: int | float | None
    epochs: list[int] = Field(description="those of its family that are served, as family@epoch")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ClassificationReply(BaseModel):
    model: str
    labels: list[str]
    probabilities: list[float]
    label: int = Field(description="the most probable")
    name: str


class Health(BaseModel):
    status: str
    models: int
    queue: int = Field(description="image-calls that are accepted and not done")
