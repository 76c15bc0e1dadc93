"""EIR's serving API, so that its clients work unchanged: POST /predict and GET /info."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError

from diffusion.serving import orders
from diffusion.serving.catalogue import Served
from diffusion.serving.images import engine_of, gone
from diffusion.serving.labels import find_label
from diffusion.serving.pictures import base64_floats
from diffusion.serving.problems import Problem, at, of_validation
from diffusion.serving.schemas import GenerationRequest
from diffusion.serving.settings import Settings

router = APIRouter(tags=["EIR"])
EXAMPLE = [{"mnist_tabular": {"CLASS": "3"}}, {"caption": "a seven"}]
Items = Annotated[
    list[dict[str, Any]], Field(min_length=1, description="one for each image that is wanted", examples=[EXAMPLE])
]


@router.post("/predict")
async def predict(request: Request, items: Items, model: str | None = None) -> dict[str, Any]:
    """An image for each item, drawn by its label or caption, as base64 of little-endian float32 (C, H, W).

    `{"image": …, "mnist_tabular": {"CLASS": "3"}}` or `{"image": …, "caption": "a seven"}`; the image is a placeholder
    and may be left out.
    """
    engine = engine_of(request)
    engine.check_ready()
    served = engine.catalogue.find(model)
    prompts = [prompt_of(item, served, engine.settings, number) for number, item in enumerate(items)]
    try:
        body = GenerationRequest(model=model, n=len(items), prompts=prompts)
    except ValidationError as error:
        raise of_validation(error) from None
    order = orders.generation(body, engine.catalogue, engine.settings)
    images = await engine.images(engine.accept(order.task), lambda: gone(request))
    return {"result": [{engine.settings.eir_input: base64_floats(image)} for image in images]}


def prompt_of(item: dict[str, Any], served: Served, settings: Settings, number: int) -> str:
    """The label or caption that an item asks for, "" for neither."""
    row, caption = item.get(settings.eir_table), item.get("caption")
    if row is None:
        if not isinstance(caption, str | None):
            raise Problem(422, f"{number}: caption has to be a text", param="caption")
        return caption or ""
    if not isinstance(row, dict) or not isinstance(label := row.get(settings.eir_column), str):
        what = f'{settings.eir_table} has to be {{"{settings.eir_column}": "3"}}, a text'
        raise Problem(422, f"{number}: {what}", param=settings.eir_table)
    with at(settings.eir_table):
        return str(find_label(label, served.labels))


@router.get("/info")
async def info(request: Request, model: str | None = None) -> dict[str, Any]:
    """Names and shapes of what /predict takes and gives."""
    engine = engine_of(request)
    engine.check_ready()
    served, settings = engine.catalogue.find(model), engine.settings
    image = {settings.eir_input: {"type": "image", "shape": list(served.shape)}}
    told = {settings.eir_table: {"type": "tabular", "shape": [1, 1]}} if served.labels else {}
    told |= {"caption": {"type": "sequence", "shape": None}} if served.model.config.reads else {}
    return {"inputs": image | told, "outputs": image}
