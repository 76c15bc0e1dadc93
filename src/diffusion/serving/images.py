"""OpenAI's images API: generations, edits and models; and beside them interpolations and classifications."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from torch import Tensor

from diffusion.errors import unknown
from diffusion.serving import orders
from diffusion.serving.catalogue import Served
from diffusion.serving.engine import Engine
from diffusion.serving.orders import Order, at
from diffusion.serving.pictures import base64_png, read_image, read_mask
from diffusion.serving.problems import Problem, of_validation
from diffusion.serving.schemas import (
    ClassificationReply,
    EditRequest,
    GenerationRequest,
    ImagesReply,
    ModelEntry,
    ModelList,
    SamplingFields,
)
from diffusion.serving.streams import Stream

router = APIRouter(prefix="/v1", tags=["images"])
STREAM = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
PICTURES = ("image", "mask", "first", "second")
FILE = {"type": "string", "format": "binary"}


def engine_of(request: Request) -> Engine:
    return request.app.state.engine


def form_of(*pictures: str) -> dict[str, Any]:
    """The OpenAPI description of a multipart body of the edit's fields and these pictures."""
    schema = EditRequest.model_json_schema()
    schema["properties"] = dict.fromkeys(pictures, FILE) | schema["properties"]
    schema["required"] = [pictures[0]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def gone(request: Request) -> None:
    """Returns when the client went away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def answer(kind: str, order: Order, body: SamplingFields, request: Request) -> Response:
    """The reply to an order, at once or as a stream."""
    engine = engine_of(request)
    if body.stream:
        stream = Stream(kind, order, body, engine)  # accepted, or refused, before the status is sent
        return StreamingResponse(stream.events(), media_type="text/event-stream", headers={"cache-control": "no-store"})
    images = await engine.images(engine.accept(order.task), lambda: gone(request))
    shares: list[Any] = [None] * len(images)
    if body.probabilities:
        shares = await asyncio.to_thread(order.served.probabilities, images)
    encoded = await asyncio.to_thread(lambda: [base64_png(image) for image in images])
    rows = zip(encoded, order.names(), order.index, order.labels, shares)
    data = [
        {"b64_json": png, "revised_prompt": name, "seed": order.seed, "index": index, "label": label}
        | ({"probabilities": share} if share is not None else {})
        for png, name, index, label, share in rows
    ]
    told = {"model": order.served.name, "sampler": order.sampler, "steps": order.task.sampler.steps}
    told |= {"nfe": order.task.calls, "guidance_scale": order.task.options.guidance_scale}
    return JSONResponse({"created": int(time.time()), "data": data, "output_format": "png", **told})


@router.post("/images/generations", response_model=ImagesReply, responses=STREAM)
async def generations(request: Request, body: Annotated[GenerationRequest, Body()]) -> Response:
    """New images. With `stream`, server-sent events: the states on the way and what the model believes."""
    engine = engine_of(request)
    engine.check_ready()
    return await answer("image_generation", orders.generation(body, engine.catalogue, engine.settings), body, request)


@router.post("/images/edits", response_model=ImagesReply, responses=STREAM, openapi_extra=form_of("image", "mask"))
async def edits(request: Request) -> Response:
    """With a mask, the image is drawn anew where that is transparent or white; without one, it is varied."""
    engine = engine_of(request)
    engine.check_ready()
    body, files = await read_form(request)
    served = engine.catalogue.find(body.model)
    images, masks = pictures_of(files, served, "image"), files.get("mask", [])
    with at("mask"):
        mask = read_mask(masks[0], served.shape).to(served.model.device) if masks else None
    return await answer("image_edit", orders.edit(body, images, mask, engine.catalogue, engine.settings), body, request)


@router.post("/images/interpolations", response_model=ImagesReply, openapi_extra=form_of("first", "second"))
async def interpolations(request: Request) -> Response:
    """A strip of n images from the first of two to the second, on the arc between their noises."""
    engine = engine_of(request)
    engine.check_ready()
    body, files = await read_form(request)
    if body.stream:
        raise Problem(422, "an interpolation is no stream: leave stream out", param="stream")
    served = engine.catalogue.find(body.model)
    images = pictures_of(files, served, *(("first", "second") if "first" in files else ("image",)))
    order = orders.interpolation(body, images, engine.catalogue, engine.settings)
    return await answer("image_edit", order, body, request)


@router.post("/images/classifications", response_model=ClassificationReply, openapi_extra=form_of("image"))
async def classifications(request: Request) -> Response:
    """What the classifier of the model's data set takes an image for."""
    engine = engine_of(request)
    engine.check_ready()
    body, files = await read_form(request)
    served = engine.catalogue.find(body.model)
    task = orders.classification(served, pictures_of(files, served, "image"))
    (shares,) = (await engine.images(engine.accept(task), lambda: gone(request))).tolist()
    best = max(range(len(shares)), key=shares.__getitem__)
    told = {"labels": served.labels, "label": best, "name": served.labels[best]}
    return JSONResponse({"model": served.name, "probabilities": shares, **told})


@router.get("/models", response_model=ModelList)
async def models(request: Request) -> dict[str, Any]:
    """The models that are served; the first is the default."""
    engine = engine_of(request)
    engine.check_ready()
    return {"object": "list", "data": [served.entry() for served in engine.catalogue]}


@router.get("/models/{name}", response_model=ModelEntry)
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    engine = engine_of(request)
    engine.check_ready()
    return engine.catalogue.find(name).entry()


def pictures_of(files: dict[str, list[bytes]], served: Served, *names: str) -> list[Tensor]:
    """The images of the parts of these names; Problem if one of them has none."""
    images = []
    for name in names:
        if not files.get(name):
            raise Problem(422, f"{name}: there is no picture of that name", param=name)
        with at(name):
            images += [read_image(data, served.shape, name) for data in files[name]]
    return images


async def read_form(request: Request) -> tuple[EditRequest, dict[str, list[bytes]]]:
    """The fields of a multipart body, and the bytes of its files by name; `image[]` is `image`."""
    most = engine_of(request).settings.max_body
    try:
        form = await request.form(max_files=64, max_fields=64, max_part_size=most)
    except Exception:  # the parser's own, of a body that is none
        raise Problem(422, "the body has to be multipart/form-data", code="invalid_form") from None
    files: dict[str, list[bytes]] = {}
    values: dict[str, Any] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(await value.read())
        elif name == "interval":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    for name in set(files) - set(PICTURES):
        raise Problem(422, str(unknown("picture", name[:40], PICTURES)), param=name[:40])
    try:
        return EditRequest.model_validate(values, strict=False), files
    except ValidationError as error:
        raise of_validation(error, EditRequest.model_fields) from None
