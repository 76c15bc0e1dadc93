"""The application: routes, documentation, the page, and the guard before them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from diffusion.errors import Failure, UserError
from diffusion.serving import eir, images
from diffusion.serving.engine import Engine
from diffusion.serving.guard import Guard
from diffusion.serving.images import engine_of
from diffusion.serving.problems import Problem, ProblemBody, answer
from diffusion.serving.schemas import Health
from diffusion.serving.settings import Settings

log = logging.getLogger("diffusion.serving")
HERE = Path(__file__).parent
ERRORS = {
    status: {"model": ProblemBody, "description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        400: "a body that cannot be read",
        401: "the token is missing or wrong",
        403: "a Host or an Origin that may not ask",
        404: "there is no such model",
        408: "the body came too slowly",
        413: "the body is too large",
        422: "what was asked for cannot be",
        429: "the queue is full: Retry-After says for how long",
        500: "the server failed",
        503: "loading, or being stopped",
        504: "not finished in time",
    }.items()
}
router = APIRouter(tags=["server"])


def create(settings: Settings, device: torch.device) -> Guard:
    """The ASGI application, which loads its models when it starts. `.app.state.engine` is its Engine."""
    engine = Engine(settings, device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loading = asyncio.create_task(engine.load())  # kept, or it might be collected
        yield
        await asyncio.to_thread(engine.stop)

    app = FastAPI(
        title="cold_dif_model",
        description="Small diffusion models on MNIST-sized images: OpenAI's images API, EIR's, and a little more.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=ERRORS,  # type: ignore[arg-type]
    )
    app.state.engine = engine
    for kind in (Problem, RequestValidationError, HTTPException, UserError, Failure, Exception):
        app.add_exception_handler(kind, answer)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origins, allow_methods=["*"], allow_headers=["*"]
        )
    for each in (router, images.router, eir.router):
        app.include_router(each)
    app.mount("/static/swagger", StaticFiles(directory=HERE / "swagger"))
    app.mount("/static", StaticFiles(directory=HERE / "page"))
    return Guard(app, settings, engine.metrics)


@router.get("/health", response_model=Health)
async def health(request: Request) -> Response:
    """Whether the process is of use: 503 if the worker does not move."""
    engine = engine_of(request)
    well, status = engine.health
    body = {"status": status, "models": len(engine.catalogue.by_name), "queue": engine.batcher.backlog}
    return JSONResponse(body, 200 if well else 503)


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """Whether requests are accepted: 503 while the models are loaded, and once the server is being stopped."""
    engine_of(request).check_ready()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Numbers for a Prometheus."""
    return Response(engine_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="cold_dif_model: the API",
        swagger_js_url="/static/swagger/swagger-ui-bundle.js",
        swagger_css_url="/static/swagger/swagger-ui.css",
        swagger_favicon_url="data:,",
    )


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(HERE / "page" / "index.html")
