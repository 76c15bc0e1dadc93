"""Errors as RFC 9457 problem details, with the `error` member that OpenAI's clients read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from diffusion.errors import Failure, UserError, unknown
from diffusion.serving.schemas import GenerationRequest

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ClientGone(Failure):
    """Nobody is there to be answered."""


class Problem(Exception):
    """Answers a request with a status and one sentence; `param` is the field at fault."""

    def __init__(self, status: int, detail: str, *, param: str | None = None, code: str | None = None, **headers: str):
        super().__init__(detail)
        self.status, self.detail, self.param, self.code = status, detail, param, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def error(self) -> dict[str, Any]:
        """As OpenAI says it."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"message": self.detail, "type": kind, "param": self.param, "code": self.code}

    def body(self) -> dict[str, Any]:
        title = "Client Closed Request" if self.status == 499 else HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail} | {
            "error": self.error()
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers, "application/problem+json")


class ErrorMember(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="the field at fault")
    code: str | None


class ProblemBody(BaseModel):
    """RFC 9457; `error` says the same to OpenAI's clients."""

    type: str
    title: str
    status: int
    detail: str = Field(description="one sentence: what was wrong, what is allowed")
    error: ErrorMember


def of_validation(error: ValidationError | RequestValidationError, fields: Iterable[str] = ()) -> Problem:
    """The first thing that pydantic found wrong, in a sentence; `fields` are those that are known."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(part for part in place if not part.startswith("function-")) or "the body"
    if first["type"] == "extra_forbidden":
        return Problem(422, str(unknown("field", name, fields)), param=name, code="unknown_field")
    if first["type"] == "json_invalid" or (not place and first["type"] in ("model_attributes_type", "dict_type")):
        return Problem(422, "the body has to be one JSON object", code="invalid_json")
    reason = first["msg"].removeprefix("Value error, ")
    return Problem(422, f"{name}: {reason[:1].lower()}{reason[1:]}, not {first['input']!r:.60}", param=name)


def of_error(error: Exception, param: str | None = None) -> Problem:
    """What the library raised: a mistake in what was asked is 422, all the rest is ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ClientGone):
        return Problem(499, str(error))
    if isinstance(error, UserError):
        return Problem(422, str(error), param=param)
    if isinstance(error, Failure):
        return Problem(500, str(error), x_should_retry="false")
    return Problem(500, "the server failed at this request; its log says why, by the x-request-id")


@contextmanager
def at(field: str) -> Iterator[None]:
    """Whatever the library finds wrong inside is wrong with that field."""
    try:
        yield
    except UserError as error:
        raise Problem(422, str(error), param=field) from None


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The handler of everything that a route raises."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), **dict(error.headers or {})).response()
    if isinstance(error, RequestValidationError):
        return of_validation(error, GenerationRequest.model_fields).response()
    return of_error(error).response()
