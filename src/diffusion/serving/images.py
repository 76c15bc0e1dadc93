"""OpenAI's images API: generations, edits and models; and beside them interpolations and classifications."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from diffusion.api.generation import guidance_scale
from diffusion.serving import orders
from diffusion.serving.engine import Engine
from diffusion.serving.forms import form_of, read_form
from diffusion.serving.labels import class_names
from diffusion.serving.orders import Order
from diffusion.serving.pictures import base64_png
from diffusion.serving.problems import Problem
from diffusion.serving.schemas import (
    ClassificationReply,
    GenerationRequest,
    ImagesReply,
    ModelEntry,
    ModelList,
    SamplingFields,
)
from diffusion.serving.streams import Stream

router = APIRouter(prefix="/v1", tags=["images"])
EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}  # of a stream
STREAM = {200: {"content": {"text/event-stream": {"schema": EVENT}}}}


def engine_of(request: Request) -> Engine:
    return request.app.state.engine


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
    told = {"model": order.served.name, "sampler": order.sampler, "steps": order.steps, "nfe": order.task.calls}
    told |= {"guidance_scale": guidance_scale(order.served.model.experiment, order.task.options)}
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
    form = await read_form(request, engine.settings.max_body)
    served = engine.catalogue.find(form.body.model)
    orders.check_count(len(form.files.get("image", ())), engine.settings)
    images = await asyncio.to_thread(form.images, "image", served.shape)
    mask = await asyncio.to_thread(form.mask, served.shape)
    order = orders.edit(form.body, images, mask, engine.catalogue, engine.settings)
    return await answer("image_edit", order, form.body, request)


@router.post("/images/interpolations", response_model=ImagesReply, openapi_extra=form_of("first", "second"))
async def interpolations(request: Request) -> Response:
    """A strip of n images from the first of two to the second, on the arc between their noises."""
    engine = engine_of(request)
    engine.check_ready()
    form = await read_form(request, engine.settings.max_body)
    if form.body.stream:
        raise Problem(422, "an interpolation is no stream: leave stream out", param="stream")
    served = engine.catalogue.find(form.body.model)
    ends = [await asyncio.to_thread(form.end, name, served.shape) for name in ("first", "second")]
    order = orders.interpolation(form.body, *ends, engine.catalogue, engine.settings)
    return await answer("image_edit", order, form.body, request)


@router.post("/images/classifications", response_model=ClassificationReply, openapi_extra=form_of("image"))
async def classifications(request: Request) -> Response:
    """What the classifier of the model's data set takes an image for."""
    engine = engine_of(request)
    engine.check_ready()
    form = await read_form(request, engine.settings.max_body)
    served = engine.catalogue.find(form.body.model)
    task = orders.classification(served, await asyncio.to_thread(form.images, "image", served.shape))
    (shares,) = (await engine.images(engine.accept(task), lambda: gone(request))).tolist()
    best = max(range(len(shares)), key=shares.__getitem__)
    names = class_names(served.model.config)
    told = {"labels": names, "label": best, "name": names[best]}
    return JSONResponse({"model": served.name, "probabilities": shares, **told})


@router.get("/models", response_model=ModelList)
async def models(request: Request) -> dict[str, Any]:
    """The models that are served; the first is the default."""
    engine = engine_of(request)
    engine.check_ready()
    return {"object": "list", "data": [engine.catalogue.entry(served) for served in engine.catalogue]}


@router.get("/models/{name}", response_model=ModelEntry)
async def model(request: Request, name: Annotated[str, Path(examples=["unet"])]) -> dict[str, Any]:
    """One of them."""
    engine = engine_of(request)
    engine.check_ready()
    return engine.catalogue.entry(engine.catalogue.find(name))
