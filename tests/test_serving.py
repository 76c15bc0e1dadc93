"""`python src serve`: people's own clients, errors that say what is allowed, a queue that is bounded."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import openai
import pytest
import torch
from PIL import Image
from server import running

from diffusion import load
from diffusion.data.registry import DATASETS
from diffusion.errors import UserError
from diffusion.experiment.samplers import SAMPLERS
from diffusion.serving import streams
from diffusion.serving.labels import find_label, read_prompt
from diffusion.serving.settings import Settings, read_settings

ROOT = Path(__file__).parents[1]

NEAR = 1.001 / 255


@pytest.fixture(scope="module")
def server():
    with running(weights=("unet", "cold_unet row", "default@20"), max_queue=40_000) as client:
        yield client


@pytest.fixture(scope="module")
def unet():
    return load("unet")


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(server, request):
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", _strict_response_validation=request.param, max_retries=0
    )


def pixels(b64: str) -> torch.Tensor:
    """(1, H, W) in [0, 1] of a PNG in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(b64)))
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)[None]


def png(image: torch.Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().byte().numpy()).save(file, "PNG")
    return file.getvalue()


# --- OpenAI's client ---


def test_openais_client_draws_what_the_library_draws(client, unet):
    own = {"seed": 5, "steps": 4, "guidance_scale": 2.0}
    reply = client.images.generate(prompt="a seven", model="unet", n=3, extra_body=own)
    images = torch.stack([pixels(each.b64_json) for each in reply.data])
    torch.testing.assert_close(images, unet.sample(3, label=7, **own), atol=NEAR, rtol=0)
    assert [(each.seed, each.index, each.label) for each in reply.data] == [(5, 0, 7), (5, 1, 7), (5, 2, 7)]
    assert reply.steps == 4 and reply.sampler == "sde" and reply.created > 1.7e9


def test_one_of_many_can_be_drawn_again(server):
    body = {"seed": 5, "steps": 3, "label": [1, "two", 3]}
    many = server.post("/v1/images/generations", json=body | {"n": 3}).json()["data"]
    again = server.post("/v1/images/generations", json=body | {"index": 1, "label": 2}).json()["data"]
    torch.testing.assert_close(pixels(again[0]["b64_json"]), pixels(many[1]["b64_json"]), atol=NEAR, rtol=0)


def test_openais_client_hears_of_the_states_on_the_way(client, unet):
    own = {"seed": 5, "steps": 4, "estimates": True, "probabilities": True}
    events = list(client.images.generate(prompt="7", stream=True, partial_images=2, extra_body=own))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1] and [event.t for event in events[:2]] == [
        0.75,
        0.5,
    ]
    final = unet.sample(1, label=7, seed=5, steps=4)[0]
    torch.testing.assert_close(pixels(events[-1].b64_json), final, atol=NEAR, rtol=0)
    assert events[-1].usage.total_tokens == 0
    assert np.argmax(events[1].probabilities) == 7 and (pixels(events[1].x_0) - final).abs().mean() < 0.1


def test_openais_client_edits(client, unet):
    digit = unet.sample(1, label=3, seed=1)
    varied = client.images.edit(image=png(digit[0]), prompt="3", extra_body={"seed": 4, "strength": 0.6, "steps": 5})
    digit = pixels(base64.b64encode(png(digit[0])).decode())[None]  # in 256 levels
    expected = unet.edit.vary(digit, 0.6, 3, seed=4, steps=5)
    torch.testing.assert_close(pixels(varied.data[0].b64_json), expected[0], atol=NEAR, rtol=0)
    mask = torch.zeros(1, 28, 28)
    mask[:, :14] = 1
    own = {"seed": 4, "steps": 5, "resample": 2}
    filled = client.images.edit(image=[("a.png", png(digit[0]))], mask=("m.png", png(mask)), prompt="3", extra_body=own)
    expected = unet.edit.inpaint(digit, mask[0], 3, **own)
    torch.testing.assert_close(pixels(filled.data[0].b64_json), expected[0], atol=NEAR, rtol=0)
    assert filled.data[0].seed == 4
    events = list(client.images.edit(image=png(digit[0]), prompt="3", stream=True, partial_images=1, extra_body=own))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_openais_client_lists_the_models(client):
    models = list(client.models.list())
    assert [model.id for model in models] == ["unet", "cold_unet row", "default@20"]
    assert models[0].labels == list("0123456789") and models[0].samplers == list(SAMPLERS["gaussian"])
    assert models[1].kind == "averaging" and models[1].axis == "row" and models[2].family == "default"
    assert client.models.retrieve("unet").id == "unet"


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"model": "unett"}, openai.NotFoundError, "unknown model 'unett' — did you mean 'unet'?"),
        ({"prompt": "banana"}, openai.UnprocessableEntityError, "unknown prompt 'banana' (allowed: 0, 1"),
        ({"prompt": "3 or 5"}, openai.UnprocessableEntityError, "several labels (3, 5)"),
        ({"extra_body": {"guidence_scale": 2}}, openai.UnprocessableEntityError, "did you mean 'guidance_scale'?"),
        ({"extra_body": {"sampler": "huen"}}, openai.UnprocessableEntityError, "did you mean 'heun'?"),
        ({"extra_body": {"label": "sevn"}}, openai.UnprocessableEntityError, "did you mean 'seven'?"),
        ({"n": 65}, openai.UnprocessableEntityError, "n is at most 64"),
        ({"size": "1024x1024"}, openai.UnprocessableEntityError, "draws 28x28 pixels"),
        ({"n": 64, "extra_body": {"steps": 999}}, openai.UnprocessableEntityError, "are more than 40,000"),
    ],
)
def test_openais_client_gets_its_own_errors(client, given, error, says):
    with pytest.raises(error) as caught:
        client.images.generate(**{"prompt": "7", **given})
    assert says in caught.value.message and caught.value.request_id


# --- EIR's clients ---


def test_eirs_clients_get_floats(server, unet):
    items = [{"image": "placeholder", "mnist_tabular": {"CLASS": "3"}}, {"caption": "a five", "more": 1}, {}]
    result = server.post("/predict", json=items).json()["result"]
    arrays = [np.frombuffer(base64.b64decode(each["image"]), "<f4").reshape(1, 28, 28) for each in result]
    assert len(arrays) == 3 and all(each.min() >= 0 and each.max() <= 1 for each in arrays)
    info = server.get("/info").json()
    assert info["inputs"]["image"] == info["outputs"]["image"] == {"type": "image", "shape": [1, 28, 28]}
    wrong = server.post("/predict", json=[{"mnist_tabular": {"CLASS": 3}}])
    assert wrong.status_code == 422 and "a text" in wrong.json()["detail"]


# --- Labels and prompts ---


def test_a_letter_is_itself_before_it_is_another_in_small():
    names = list(DATASETS["EMNIST-balanced"].classes)
    for text, name in {"A": "A", "a": "a", "the letter G": "G", "a letter g": "g", "c": "C", "a Seven": "7"}.items():
        assert read_prompt(text, names) == names.index(name)
        assert len(text) > 1 or find_label(text, names) == names.index(name)
    with pytest.raises(UserError, match="unknown prompt"):
        read_prompt("\u017feven", names)  # a long s, which is a capital S to Unicode


def test_edits_by_a_text_model_take_prompts_that_it_knows_and_those_to_avoid():
    with running(weights=("text_digits",)) as server:
        files, own = {"image": (ROOT / "docs" / "digits.png").read_bytes()}, {"steps": 2, "seed": 1, "strength": 0.9}

        def vary(**fields):
            return server.post("/v1/images/edits", files=files, data=own | fields)

        red = {"prompt": "a red seven", "guidance_scale": 3}
        plain, away = vary(**red), vary(negative_prompt="a green two", **red)
        assert plain.json()["data"][0]["b64_json"] != away.json()["data"][0]["b64_json"]
        assert plain.json()["guidance_scale"] == 3 and vary().json()["guidance_scale"] == 1
        for stream in ("false", "true"):
            unknown = vary(prompt="a red zebra", stream=stream)
            assert unknown.status_code == 422 and unknown.json()["error"]["param"] == "prompt"


# --- The rest of the API ---


def test_a_picture_is_recognised_and_two_are_blended(server, unet):
    digits = unet.sample(2, label=torch.tensor([3, 8]), seed=1)
    seen = server.post("/v1/images/classifications", files={"image": png(digits[0])}).json()
    assert seen["label"] == 3 and abs(sum(seen["probabilities"]) - 1) < 1e-4
    files = {"first": png(digits[0]), "second": png(digits[1])}
    strip = server.post("/v1/images/interpolations", files=files, data={"n": "4", "steps": "5"})
    assert strip.status_code == 200 and len(strip.json()["data"]) == 4


def test_what_a_cold_model_cannot_do_is_said_of_the_model(server, unet):
    picture = png(unet.sample(1, label=3)[0])
    for path, files in (
        ("interpolations", {"first": picture, "second": picture}),
        ("edits", {"image": picture, "mask": picture}),
    ):
        answer = server.post(f"/v1/images/{path}", files=files, data={"model": "cold_unet row"})
        assert answer.json()["error"]["param"] == "model" and "this one is cold" in answer.json()["detail"]


def test_a_sprite_shows_all_images_of_a_step(server):
    body = {"n": 3, "seed": 1, "steps": 3, "stream": True, "sprite": True, "estimates": True, "probabilities": True}
    text = server.post("/v1/images/generations", json=body | {"label": 5}).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert [event["type"].split(".")[1] for event in events] == ["partial_image"] * 3 + ["completed"] * 3
    assert pixels(events[0]["b64_json"]).shape == pixels(events[0]["x_0"]).shape == (1, 28, 84)
    assert [event["step"] for event in events[:3]] == [0, 1, 2] and events[0]["sigma"] == 1
    assert np.array(events[2]["probabilities"]).shape == (3, 10)


def test_states_are_left_out_for_a_slow_reader_but_no_image(server, monkeypatch):
    monkeypatch.setattr(streams, "FRAMES", 2)
    partials = streams.Stream.partials
    monkeypatch.setattr(streams.Stream, "partials", lambda *given: time.sleep(0.1) or partials(*given))
    text = server.post("/v1/images/generations", json={"model": "default@20", "steps": 60, "stream": True}).text
    assert 2 <= text.count("event: image_generation.partial_image") < 60
    assert text.count("event: image_generation.completed") == 1


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json"])
def test_the_doors_around_it_open(server, path):
    assert server.get(path).status_code == 200


def test_every_answer_has_an_id_and_every_error_is_a_problem(server):
    answer = server.get("/no/such/path")
    assert answer.headers["content-type"] == "application/problem+json" and answer.headers["x-request-id"]
    assert answer.json()["status"] == 404 and answer.json()["error"]["type"] == "not_found_error"


def test_pages_and_names_from_elsewhere_are_refused(server):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert server.get("/health", headers=headers).status_code == 403
    assert server.get("/health", headers={"Origin": server.url}).status_code == 200


def test_the_shipped_settings_are_the_defaults():
    assert read_settings(ROOT / "configs" / "serve.yaml", {}) == Settings()
