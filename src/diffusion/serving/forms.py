"""Multipart bodies: fields of an edit, and pictures beside them."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from torch import Tensor

from diffusion.errors import unknown
from diffusion.serving.pictures import read_image, read_mask
from diffusion.serving.problems import Problem, at, of_validation
from diffusion.serving.schemas import EditRequest

PICTURES = ("image", "mask", "first", "second")
FILE = {"type": "string", "format": "binary"}
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Form:
    """What a multipart body held."""

    body: EditRequest
    files: dict[str, list[bytes]]

    def images(self, name: str, shape: Shape) -> list[Tensor]:
        """The pictures of that name, of a model's shape; Problem if there is none."""
        if not self.files.get(name):
            raise Problem(422, f"{name}: there is no picture of that name", param=name)
        with at(name):
            return [read_image(data, shape, name) for data in self.files[name]]

    def mask(self, shape: Shape) -> Tensor | None:
        if "mask" not in self.files:
            return None
        with at("mask"):
            return read_mask(self.files["mask"][0], shape)

    def end(self, name: str, shape: Shape) -> Tensor | int:
        """A seed, or a picture."""
        seed: int | None = getattr(self.body, name)
        return self.images(name, shape)[0] if seed is None else seed


async def read_form(request: Request, most: int) -> Form:
    """The form of a request; `image[]` is `image`, and a file has at most so many bytes."""
    try:
        form = await request.form(max_files=128, max_fields=64, max_part_size=most)
    except Exception as error:  # the parser's own
        why = f": {error.detail}" if isinstance(error, HTTPException) else ""
        raise Problem(422, f"the body has to be multipart/form-data{why}", code="invalid_form") from None
    files: dict[str, list[bytes]] = {}
    values: dict[str, Any] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(await value.read())
        elif name == "interval":
            values.setdefault(name, []).append(value)
        elif value != "null":  # which is how JSON's null looks in a form
            values[name] = value
    for name in sorted(set(files) - set(PICTURES)):
        raise Problem(422, str(unknown("picture", name[:40], PICTURES)), param=name[:40])
    try:
        return Form(EditRequest.model_validate(values, strict=False), files)
    except ValidationError as error:
        raise of_validation(error, EditRequest.model_fields) from None


def form_of(*pictures: str) -> dict[str, Any]:
    """The OpenAPI description of a multipart body: an edit's fields and these pictures, the first a must."""
    schema = EditRequest.model_json_schema()
    schema["properties"] |= dict.fromkeys(pictures, FILE)
    schema["required"] = [pictures[0]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
