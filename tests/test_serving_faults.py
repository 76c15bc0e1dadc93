"""What goes wrong around a server: full queues, clients that leave, bodies that never end, strangers, the end."""

import concurrent.futures
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
from server import running, started

from diffusion.__main__ import main
from diffusion.errors import UserError
from diffusion.serving import engine

SRC = Path(__file__).parents[1] / "src"
MODEL = "default@20"  # a small network: a step of one image takes about a millisecond
GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def server():
    with running(weights=(MODEL,), max_queue=300, deadline=30, max_body=100_000, body_seconds=0.5) as client:
        yield client


def idle(server) -> bool:
    return not server.engine.open and server.engine.batcher.backlog == 0


@contextmanager
def held(server, requests: int = 0, **body) -> Iterator[threading.Event]:
    """The worker waits in a network call until the event is set; meanwhile so many requests wait for it."""
    gate, denoiser = threading.Event(), server.engine.catalogue.find(MODEL).model.experiment.denoiser
    predict = denoiser.predict
    vars(denoiser)["predict"] = lambda *given: gate.wait(30) and predict(*given)
    with concurrent.futures.ThreadPoolExecutor(requests + 1) as pool:
        answers = [pool.submit(server.post, GENERATIONS, json=body) for _ in range(requests)]
        try:
            server.wait(lambda: len(server.engine.open) == requests)
            yield gate
        finally:
            gate.set()
            del vars(denoiser)["predict"]
        assert all(answer.result().status_code == 200 for answer in answers)
    server.wait(lambda: idle(server))


# --- The queue ---


def test_beyond_the_queue_is_429_with_the_time_to_wait(server):
    with held(server, 2, steps=100):
        full = server.post(GENERATIONS, json={"steps": 60, "n": 2})
        assert full.status_code == 429 and full.json()["error"]["code"] == "queue_full"
        assert 1 <= int(full.headers["retry-after"]) <= 60
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
        with pytest.raises(openai.RateLimitError, match="the queue is full"):
            client.images.generate(prompt="", n=2, extra_body={"steps": 60})
    assert server.post(GENERATIONS, json={"steps": 60, "n": 2}).status_code == 200


def test_openais_client_waits_as_it_is_told_and_comes_again(server, monkeypatch):
    with held(server, 3, steps=100) as gate:
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            gate.set()
            server.wait(lambda: idle(server))

        monkeypatch.setattr(openai._base_client, "time", SimpleNamespace(**vars(time) | {"sleep": sleep}))
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=1)
        assert client.images.generate(prompt="", extra_body={"steps": 5}).data and len(waits) == 1


def test_what_would_never_fit_is_refused_at_once(server):
    answer = server.post(GENERATIONS, json={"steps": 100, "n": 4})
    assert answer.status_code == 422 and "ask for fewer images or steps" in answer.json()["detail"]


def test_a_request_past_its_deadline_is_504_and_no_client_tries_it_again():
    with running(weights=(MODEL,), deadline=0.2) as server:
        late = server.post(GENERATIONS, json={"steps": 1000, "n": 8})
        assert late.status_code == 504 and late.headers["x-should-retry"] == "false"
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=2)
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError):
            client.images.generate(prompt="", n=8, extra_body={"steps": 1000})
        assert time.monotonic() - began < 2
        with pytest.raises(openai.APIError, match="not finished within"):
            list(client.images.generate(prompt="", n=8, stream=True, partial_images=1, extra_body={"steps": 1000}))
        server.wait(lambda: idle(server))


# --- Clients that leave ---


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_rows(server, stream):
    body = {"steps": 100, "n": 2, "stream": stream}
    with held(server) as gate:
        with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ReadTimeout):
            client.post(GENERATIONS, json=body, timeout=0.3)
        server.wait(lambda: not server.engine.open)  # though the worker is still in the call
        rows = server.engine.metrics.calls
        before = rows._value.get()
        gate.set()
        server.wait(lambda: not server.engine.batcher._cohorts)
        assert rows._value.get() - before <= 2, "one call of two rows was under way, no more"
    told = server.get("/metrics").text
    assert "diffusion_cancelled_total" in told and (stream or 'status="499"' in told)


def test_many_clients_some_of_whom_leave():
    with running(weights=(MODEL,)) as server:
        answered, left, _ = crowd(server.url, clients=8, turns=4)
        assert (answered, left) == (28, 4)


@pytest.mark.slow
def test_sixty_four_clients_for_a_minute():
    with started("--weights", MODEL, "--max-queue", "50000") as (process, url):
        crowd(url, clients=8, turns=5)  # what it will ever need is there
        before = memory(process.pid)
        answered, left, waits = crowd(url, clients=64, seconds=60)
        waits.sort()
        print(f"{answered} answered, {left} left, /health p99 {1000 * waits[int(0.99 * len(waits))]:.0f} ms")
        assert answered >= 64 and left >= 7 and waits[int(0.99 * len(waits))] < 0.1
        assert memory(process.pid) - before < 200e6


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def crowd(url: str, clients: int, turns: int = 10**9, seconds: float = 1e9) -> tuple[int, int, list[float]]:
    """Clients that ask and ask, and give up a tenth of their requests; every other one has to be answered.

    How many were, how many were given up, and the seconds that each /health took meanwhile.
    """
    until, waits, done = time.monotonic() + seconds, [], threading.Event()

    def client(number: int) -> list[bool]:
        with httpx.Client(base_url=url, timeout=60) as http:
            outcomes = []
            while len(outcomes) < turns and time.monotonic() < until:
                turn = len(outcomes)
                body = {"steps": 3 + (number + turn) % 5, "n": 1 + number % 3, "stream": turn % 2 == 0}
                outcomes.append((number + turn) % 8 > 0)
                if not outcomes[-1]:
                    with pytest.raises(httpx.ReadTimeout):
                        http.post(GENERATIONS, json=body | {"steps": 50, "n": 2, "stream": False}, timeout=0.01)
                    continue
                reply = http.post(GENERATIONS, json=body)
                assert reply.status_code == 200, reply.text
                whole = reply.text.count("event: image_generation.completed")
                assert (whole if body["stream"] else len(reply.json()["data"])) == body["n"]
            return outcomes

    def watch() -> None:
        with httpx.Client(base_url=url, timeout=10) as http:
            while not done.is_set():
                began = time.perf_counter()
                assert http.get("/health").status_code == 200
                waits.append(time.perf_counter() - began)
                time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(clients + 1) as pool:
        watching = pool.submit(watch)
        try:
            outcomes = [outcome for part in pool.map(client, range(clients)) for outcome in part]
            while httpx.get(f"{url}/health").json()["queue"]:
                time.sleep(0.02)
        finally:
            done.set()
        watching.result()
    return sum(outcomes), len(outcomes) - sum(outcomes), waits


# --- Bodies ---


def raw(server, *parts: bytes, pause: float = 0.0) -> bytes:
    """What a server answers to bytes that somebody sends by hand."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        for part in parts:
            line.sendall(part)
            time.sleep(pause)
        said = b""
        with suppress(ConnectionResetError):  # it closes as soon as it has answered, whatever is still being sent
            while part := line.recv(65536):
                said += part
        return said


HEAD = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_bodies_that_are_too_large_or_too_slow_are_refused_before_they_are_read(server):
    large = raw(server, HEAD + b"Content-Length: 100001\r\n\r\n")
    assert large.startswith(b"HTTP/1.1 413") and b"at most 100,000 bytes" in large
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    chunked = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 7)
    assert chunked.startswith(b"HTTP/1.1 413")
    slow = raw(server, HEAD + b"Content-Length: 20\r\n\r\n", b'{"n"', pause=0.3)
    assert slow.startswith(b"HTTP/1.1 408") and b"within 0.5 s" in slow
    assert idle(server)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"n": 1e999}', b"[" * 90_000])
def test_bodies_that_are_no_request_are_refused(server, body):
    answer = server.post(GENERATIONS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "at least 1 item"),
        (b"{}", "list"),
        (b"[1]", "0: "),
        (b"[" + b"{}," * 1000 + b"{}]", "at most 1000 items"),
        (b'[{"caption": "' + b"x" * 4001 + b'"}]', "at most 4000 characters"),
        (rb'[{"caption": "\ud800"}]', "unicode"),
    ],
)
def test_items_of_eirs_clients_that_are_none_are_422(server, body, says):
    answer = server.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and says in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\n", b"x" * 1000, b"--x\r\nContent-Disposition: form-data; name=image\r\n\r\nX"]
)
def test_forms_that_are_none_are_422(server, body):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = server.post("/v1/images/edits", content=body, headers=headers)
    assert answer.status_code == 422 and answer.json()["error"]["message"]


def test_pictures_that_are_none_are_422_and_no_path_is_opened(server):
    for image in (b"no picture", b"/etc/hostname", b"\x89PNG\r\n\x1a\n" + bytes(50)):
        answer = server.post("/v1/images/edits", files={"image": image})
        assert answer.status_code == 422 and answer.json()["error"]["param"] == "image"
    for model in ("/etc/passwd", "../weights/unet.pth", "http://localhost/x.pth", str(SRC.parent / "weights/unet.pth")):
        assert server.post(GENERATIONS, json={"model": model}).status_code == 404


def test_more_pictures_than_a_server_takes_are_refused_unread(server):
    for count, says in ((65, "n is at most 64 here, not 65"), (129, "Maximum number of files is 128")):
        answer = server.post("/v1/images/edits", files=[("image[]", b"no picture")] * count)
        assert answer.status_code == 422 and says in answer.json()["detail"]


# --- Strangers ---


def test_a_token_keeps_others_out():
    with running(weights=(MODEL,), token="a-long-secret") as server:
        for header in ("", "Bearer", "Bearer wrong-secret", "Basic a-long-secret", "Bearer é"):
            wrong = httpx.get(f"{server.url}/v1/models", headers={"Authorization": header.encode()})
            assert wrong.status_code == 401 and wrong.headers["www-authenticate"] == "Bearer"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong").models.list()
        right = openai.OpenAI(base_url=f"{server.url}/v1", api_key="a-long-secret")
        assert [model.id for model in right.models.list()] == [MODEL]
        for path in ("/health", "/ready", "/docs", "/openapi.json"):
            assert httpx.get(server.url + path).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 401


def test_pages_of_other_servers_call_only_where_it_was_allowed():
    with running(weights=(MODEL,), allow_origins=("https://example.org",)) as server:
        friend = server.get("/v1/models", headers={"Origin": "https://example.org"})
        assert friend.headers["access-control-allow-origin"] == "https://example.org"
        assert server.get("/v1/models", headers={"Origin": "https://example.com"}).status_code == 403


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Host": "a]b"}, {"Origin": "http://[x"}])
def test_names_that_are_none_are_refused_in_a_sentence(server, headers):
    answer = server.get("/health", headers=headers)
    assert answer.status_code == 403 and answer.json()["error"]["code"] in ("wrong_host", "wrong_origin")


def test_a_name_is_the_same_in_capitals():
    with running(weights=(MODEL,), allow_hosts=("MyBox",)) as server:
        for name in ("MyBox", "mybox"):
            assert server.get("/health", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--token", "short"], ["--host", "::", "--port", "0"]])
def test_no_door_is_opened_by_mistake(words):
    with pytest.raises(UserError, match="token"):
        main(["serve", *words])


# --- The beginning and the end ---


def test_it_says_503_while_it_loads(monkeypatch):
    go, load = threading.Event(), engine.load_catalogue
    monkeypatch.setattr(engine, "load_catalogue", lambda *given: go.wait(20) and load(*given))
    threading.Timer(0.5, go.set).start()
    seen = []
    get = httpx.Client.get
    monkeypatch.setattr(httpx.Client, "get", lambda *given, **more: seen.append(get(*given, **more)) or seen[-1])
    with running(weights=(MODEL,)) as server:
        early = [answer for answer in seen if answer.status_code == 503]
        assert early and early[0].headers["retry-after"] and early[0].json()["error"]["code"] == "loading"
        assert server.get("/ready").status_code == 200


def test_told_to_stop_it_finishes_what_it_accepted_and_exits_with_0():
    words = ("--weights", MODEL, "--drain-seconds", "200")
    with started(*words) as (process, url), httpx.Client(base_url=url, timeout=200) as client:
        body = {"steps": 500, "n": 1, "stream": True, "partial_images": 20}
        with client.stream("POST", GENERATIONS, json=body) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("event: image_generation.partial_image")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            refused = httpx.post(url + GENERATIONS, json={"steps": 1})
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
            assert httpx.get(url + "/ready").status_code == 503 and httpx.get(url + "/health").status_code == 200
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert events[-1]["type"] == "image_generation.completed"
        assert process.wait(60) == 0
        process.log.seek(0)
        assert "Traceback" not in process.log.read()


def test_told_twice_it_ends_at_once():
    with started("--weights", MODEL) as (process, url), httpx.Client(base_url=url, timeout=20) as client:
        body = {"steps": 1000, "n": 64, "stream": True, "partial_images": 1000}
        with suppress(httpx.TransportError), client.stream("POST", GENERATIONS, json=body) as stream:
            assert next(stream.iter_lines())
            process.send_signal(signal.SIGTERM)
            while httpx.get(url + "/ready").json()["error"]["code"] != "draining":
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 128 + signal.SIGTERM
        process.log.seek(0)
        said = process.log.read()
        assert "Traceback" not in said and "terminate" not in said


def test_a_port_that_is_taken_is_one_sentence():
    sentence = pytest.raises(UserError, match="nothing can be served at 127.0.0.1:.*in use")
    with socket.create_server(("127.0.0.1", 0)) as taken, sentence:
        main(["serve", "--weights", MODEL, "--port", str(taken.getsockname()[1])])


def test_two_files_of_one_name_are_not_served(tmp_path):
    files = [tmp_path / name / "same.pth" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        file.symlink_to(SRC.parent / "weights" / "unet.pth")
    with pytest.raises(UserError, match="would both be served as 'same'"):
        main(["serve", "--port", "0", "--weights", *map(str, files)])


def test_weights_that_cannot_be_served_end_it_with_one_sentence(tmp_path, capsys):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    for weights, says in (("unett", "did you mean 'unet'"), (str(damaged), "is not a weight file")):
        with pytest.raises(UserError, match=says):
            main(["serve", "--port", "0", "--weights", weights])
