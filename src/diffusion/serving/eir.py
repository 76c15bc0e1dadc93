"""EIR's serving API, so that its clients work unchanged: POST /predict and GET /info."""

from typing import Any

from fastapi import APIRouter, Request

from diffusion.serving import labels as words
from diffusion.serving import orders
from diffusion.serving.engine import Engine
from diffusion.serving.images import engine_of, gone
from diffusion.serving.orders import at
from diffusion.serving.pictures import base64_floats
from diffusion.serving.problems import Problem
from diffusion.serving.schemas import GenerationRequest

router = APIRouter(tags=["EIR"])


@router.post("/predict")
async def predict(request: Request, items: list[dict[str, Any]], model: str | None = None) -> dict[str, Any]:
    """An image for each item, drawn by its label or caption, as base64 of little-endian float32 (C, H, W).

    `{"image": …, "mnist_tabular": {"CLASS": "3"}}` or `{"image": …, "caption": "a seven"}`; the image is a placeholder
    and may be left out.
    """
    engine = engine_of(request)
    engine.check_ready()
    if not items:
        raise Problem(422, "the list is empty: one item for each image that is wanted")
    names = engine.catalogue.find(model).labels
    labels = [label_of(item, names, engine, number) for number, item in enumerate(items)]
    body = GenerationRequest(model=model, n=len(items), label=labels if names else None)
    order = orders.generation(body, engine.catalogue, engine.settings)
    images = await engine.images(engine.accept(order.task), lambda: gone(request))
    return {"result": [{engine.settings.eir_input: base64_floats(image)} for image in images]}


def label_of(item: dict[str, Any], names: list[str], engine: Engine, number: int) -> int:
    """The label that an item asks for; one in turn if it asks for none."""
    table, column = engine.settings.eir_table, engine.settings.eir_column
    row, caption = item.get(table), item.get("caption")
    with at(f"{number}.{table}"):
        if row is not None and not (isinstance(row, dict) and isinstance(row.get(column), str)):
            raise Problem(422, f'{table} has to be {{"{column}": "3"}}, a text', param=f"{number}.{table}")
        if row is not None:
            return words.find_label(row[column], names)
    if caption is not None and not isinstance(caption, str):
        raise Problem(422, "caption has to be a text", param=f"{number}.caption")
    with at(f"{number}.caption"):
        label = words.read_prompt(caption or "", names)
    return number % max(1, len(names)) if label is None else label


@router.get("/info")
async def info(request: Request, model: str | None = None) -> dict[str, Any]:
    """Names and shapes of what /predict takes and gives."""
    engine = engine_of(request)
    engine.check_ready()
    served, settings = engine.catalogue.find(model), engine.settings
    image = {settings.eir_input: {"type": "image", "shape": list(served.shape)}}
    table = {settings.eir_table: {"type": "tabular", "shape": [1, 1]}} if served.labels else {}
    return {"inputs": image | table, "outputs": image}
