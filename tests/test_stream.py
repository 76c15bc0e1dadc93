"""Version 2.0 of the stream: batches from a server are those from memory, whatever happens on the way."""

import asyncio
import contextlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from stream_server import Cable, numbered, serving, take
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from diffusion.data.batches import batches
from diffusion.data.sources import load
from diffusion.errors import Failure, UserError
from diffusion.streaming import protocol, remote
from diffusion.streaming.client import Client, OldServer
from diffusion.streaming.protocol import About, Damaged, Get
from diffusion.streaming.server import Server

TRAIN, TEST = numbered(200), numbered(40, first=200)
SERVED = {"numbers": {"train": TRAIN, "test": TEST}, "others": {"train": numbered(30, "others")}}


@pytest.fixture(scope="module")
def address():
    with serving(SERVED, patience=2) as (address, _):
        yield address


def opened(address, name="numbers", split="train", **settings):
    return remote.load(Client(address, **{"timeout": 5, **settings}), name, split)


# --- The order ---


@pytest.mark.parametrize(("seed", "first", "world"), [(0, 0, 1), (7, 11, 1), (1 << 62, 3, 2), (1, 30, 4)])
def test_batches_of_a_stream_are_those_of_memory(address, seed, first, world):
    there = opened(address)
    for rank in range(world):
        order = {"batch_size": 16, "seed": seed, "first_step": first, "rank": rank, "world": world}
        for a, b in islice(zip(batches(there, **order), batches(TRAIN, **order)), 30):
            assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
            assert (a.name, a.classes) == (b.name, b.classes)


@pytest.mark.parametrize("clients", [1, 2, 4])
def test_clients_that_share_an_epoch_see_each_sample_once(address, clients):
    def part(rank):
        return take(batches(opened(address), 20, seed=5, rank=rank, world=clients), 20)

    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(part, range(clients)))
    for epoch in (range(10), range(10, 20)):
        seen = [number for step in epoch for labels in parts for number in labels[step]]
        assert sorted(seen) == list(range(200))
    assert [sum(together, []) for together in zip(*parts)] == take(batches(TRAIN, 20, seed=5), 20)


def test_an_epoch_that_changes_hands_is_seen_once_all_the_same(address):
    """Four steps by one process, three by two, the rest by four."""
    plan = [(step, 1 if step < 4 else 2 if step < 7 else 4) for step in range(10)]
    seen = [
        number
        for step, world in plan
        for rank in range(world)
        for number in take(batches(opened(address), 20, seed=8, first_step=step, rank=rank, world=world), 1)[0]
    ]
    assert sorted(seen) == list(range(200)) and seen == sum(take(batches(TRAIN, 20, seed=8), 10), [])


def test_one_server_has_several_data_sets_at_a_time(address):
    one, other = batches(opened(address), 10, seed=1), batches(opened(address, "others"), 10, seed=1)
    pairs = [(take(one, 1), take(other, 1)) for _ in range(6)]
    near = batches(TRAIN, 10, seed=1), batches(SERVED["others"]["train"], 10, seed=1)
    assert pairs == [(take(near[0], 1), take(near[1], 1)) for _ in range(6)]


def test_the_whole_split_and_its_beginning_come_in_the_order_of_the_files(address):
    there = opened(address)
    assert torch.equal(there.whole().images, TRAIN.images) and there.whole(7).labels.tolist() == list(range(7))
    assert there.whole().fingerprint == TRAIN.fingerprint == there.fingerprint


def test_captions_travel_as_numbers_of_words():
    rows = torch.tensor([[1, 2, 0], [2, 2, 1], [1, 0, 0]])
    said = type(TRAIN)("said", TRAIN.images[:3], rows, ("", "red", "seven"))
    with serving({"said": {"train": said}}) as (address, _):
        assert torch.equal(opened(address, "said").whole().labels, rows)


def test_a_folder_of_pictures_is_in_memory_as_it_travels(tmp_path):
    """To the layout: in bfloat16 a network's bits depend on it."""
    draw = np.random.default_rng(0)
    lines = []
    for i in range(40):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    near = {split: load("folder", split, tmp_path) for split in ("train", "test")}
    with serving({"folder": near}) as (address, _):
        far = {split: opened(address, "folder", split) for split in near}
        for a, b in islice(zip(batches(far["train"], 4, 0), batches(near["train"], 4, 0)), 12):
            assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
            assert a.images.stride() == b.images.stride() and a.labels.stride() == b.labels.stride()
        assert far["test"].whole().fingerprint == near["test"].fingerprint


def test_the_held_out_split_never_leaks(address):
    seen = {n for labels in take(batches(opened(address), 200, seed=0), 5) for n in labels}
    assert seen == set(range(200)) and set(TEST.labels.tolist()) == set(range(200, 240))
    get = Get(0, "numbers", "train", TRAIN.fingerprint, None, 0, 199, 2)
    assert refusal(address, protocol.say("get", vars(get)))["code"] == "range"  # one past its end


# --- What happens on the way ---


@pytest.mark.parametrize("kind", ["cut", "silent", "garble", "slow"])
def test_whatever_befalls_a_connection_the_batches_are_the_same(address, kind):
    draw, notes = random.Random(kind), []
    hello = len(protocol.offer(SERVED))
    faults = [(kind, hello // 2), *((kind, hello + draw.randrange(2000, 9000)) for _ in range(3))]
    with Cable(address, [(None, 0), *faults]) as cable:
        there = opened(cable.address, timeout=0.3, notify=notes.append)
        assert take(batches(there, 20, seed=3), 60) == take(batches(TRAIN, 20, seed=3), 60)
    assert (cable.connections, len(notes) > 0) == ((2, False) if kind == "slow" else (6, True))


def test_a_server_that_is_stopped_and_started_again_changes_nothing():
    with serving(SERVED) as (address, _):
        there, port = opened(address), int(address.rpartition(":")[2])
        stream = batches(there, 20, seed=4)
        got = take(stream, 5)
    threading.Timer(0.5, lambda: later.set()).start()
    later, rest = threading.Event(), []
    waiting = threading.Thread(target=lambda: rest.extend(take(stream, 25)))
    waiting.start()
    later.wait()
    with serving(SERVED, port=port):
        waiting.join(20)
    assert got + rest == take(batches(TRAIN, 20, seed=4), 30)


def test_a_server_that_stays_away_is_a_failure_and_a_wait_can_be_ended():
    with serving(SERVED) as (address, _):
        there = opened(address, patience=0.3)
    with pytest.raises(Failure, match=r"cannot be had for 0\.3 s"):
        next(batches(there, 20, seed=0))

    class Enough(Exception): ...

    def enough():
        raise Enough

    there.client.patience, there.client.waiting = 600, enough
    with pytest.raises(Enough):
        next(batches(there, 20, seed=0))


def test_nobody_at_the_address_is_a_failure_soon():
    with serving(SERVED) as (address, _):
        pass
    with pytest.raises(Failure, match="refused"):
        Client(address, first_patience=0.1)


def test_a_slow_reader_holds_up_nobody_else_and_little_is_kept_for_it():
    large = replace(TRAIN, images=TRAIN.images.repeat(1, 3, 16, 16))  # 2.5 MB an answer
    with (
        serving({"numbers": {"train": large}}) as (address, server),
        connect(address, max_queue=1, max_size=None) as slow,
    ):
        slow.send(protocol.say("handshake", version="2.0"))
        for number in range(100):  # it reads none of the answers
            slow.send(protocol.say("get", vars(Get(number, "numbers", "train", large.fingerprint, 0, 0, 0, 200))))
        assert take(batches(opened(address), 20, seed=0), 10) == take(batches(TRAIN, 20, seed=0), 10)
        assert not until(lambda: server.samples > 50 * 200, seconds=1)
        slow.socket.close()


def test_a_connection_that_is_half_open_is_ended_by_the_server():
    with (
        serving(SERVED, patience=0.3) as (address, server),
        Cable(address, [("silent", 700)]) as cable,
        connect(cable.address, ping_interval=None, close_timeout=0.1) as client,
    ):
        client.send(protocol.say("handshake", version="2.0"))
        assert until(lambda: server.clients == 1) and until(lambda: server.clients == 0)


def until(true, seconds=5):
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def test_one_who_says_nothing_is_not_waited_for():
    with serving(SERVED, patience=0.2) as (address, _), connect(address) as silent, pytest.raises(ConnectionClosed):
        silent.recv(timeout=3)


# --- What is refused ---


def refusal(address, *messages, **settings):
    """The payload of the error that a server answers with, after a handshake."""
    with connect(address, **settings) as client:
        client.send(protocol.say("handshake", version="2.0"))
        client.recv(timeout=5)
        for message in messages:
            client.send(message)
        while isinstance(answer := client.recv(timeout=5), bytes):
            pass
        message = json.loads(answer)
        assert message["type"] == "error"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
        return message["payload"]


GET = vars(Get(0, "numbers", "train", TRAIN.fingerprint, 0, 0, 0, 10))


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("{", "request", "JSON object"),
        (b"\x00\x01", "request", "JSON object"),
        ("[" * 50_000, "request", "JSON object"),
        ('{"type": 1}', "request", "JSON object"),
        (protocol.say("getData", {"batch_size": 3}), "request", "not by 'getData'"),
        (protocol.say("get"), "request", "payload"),
        (protocol.say("get", GET | {"count": 0}), "request", "count"),
        (protocol.say("get", GET | {"count": "10"}), "request", "count"),
        (protocol.say("get", GET | {"first": -1}), "request", "first"),
        (protocol.say("get", GET | {"seed": 1 << 63}), "request", "seed"),
        (protocol.say("get", GET | {"speed": 1}), "request", "speed"),
        (protocol.say("get", GET | {"first": 191}), "range", "not below 200"),
        (protocol.say("get", GET | {"split": "valid"}), "unknown", "numbers test"),
        (protocol.say("get", GET | {"dataset": "../numbers"}), "unknown", "there are"),
        (protocol.say("get", GET | {"fingerprint": "0" * 64}), "fingerprint", "changed"),
    ],
)
def test_a_message_that_is_none_is_answered_with_a_sentence_and_the_end(address, message, code, says):
    found = refusal(address, message)
    assert found["code"] == code and says in found["message"]


def test_a_word_that_no_client_would_take_is_refused_before_it_is_served():
    words = ("", "x" * protocol.LONGEST)
    said = replace(TRAIN.whole(2), labels=torch.tensor([[1], [1]]), classes=words)
    with serving({"said": {"train": said}}) as (address, _):
        assert opened(address, "said").classes == words
    with pytest.raises(UserError, match="said cannot be streamed: a word has at most 200 characters, not 201: 'xxx"):
        Server({"said": {"train": replace(said, name="said", classes=("", words[1] + "x"))}})


def test_more_than_an_answer_may_hold_is_refused(address, monkeypatch):
    monkeypatch.setattr(protocol, "MOST_BYTES", 50 * 24)
    assert "at most 50" in refusal(address, protocol.say("get", GET | {"count": 51}))["message"]
    assert len(opened(address).whole()) == 200  # in parts
    with pytest.raises(UserError, match="a smaller batch size"):
        next(batches(opened(address), 100, seed=0))


def test_a_message_that_is_too_long_ends_the_connection(address):
    with connect(address) as client:
        client.send(" " * (protocol.MOST_TEXT + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=5)
        assert closed.value.rcvd.code == 1009


def test_another_version_is_refused_by_both_sides(address):
    with connect(address) as client:
        client.send(protocol.say("handshake", version="3.0"))
        assert "1.0 and 2.0, not '3.0'" in json.loads(client.recv())["payload"]["message"]
    with answering(protocol.say("handshake", version="1.5")) as old, pytest.raises(OldServer):
        Client(old)


@contextlib.contextmanager
def answering(*answers):
    """The address of a server that says these messages, one for each that it gets."""

    def talk(connection):
        with contextlib.suppress(ConnectionClosed):
            for answer in answers:
                connection.recv()
                connection.send(answer)
            connection.recv()

    with serve(talk, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


@pytest.mark.parametrize("spoiled", ["magic", "id", "place", "pixel", "label", "short", "long", "text", "nothing"])
def test_an_answer_that_is_not_what_was_asked_for_is_never_trained_on(spoiled):
    get, about = Get(**GET), About.of(TRAIN)
    good = protocol.answer(TRAIN, get)
    flip = lambda at: good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    bad = {"magic": flip(0), "id": flip(7), "place": flip(15), "pixel": flip(40), "label": flip(len(good) - 8),
           "short": good[:-1], "long": good + b"0", "text": good.decode("latin1"), "nothing": b""}[spoiled]  # fmt: skip
    with pytest.raises(Damaged):
        protocol.read_answer(bad, get, about)
    images, labels = protocol.read_answer(good, get, about)
    assert labels.tolist() == next(batches(TRAIN, 10, seed=0)).labels.tolist() == images[:, 0, 0, 0].tolist()


def test_a_label_that_no_class_has_is_not_trained_on():
    get, about = Get(**GET), About.of(replace(TRAIN, classes=("only one",)))
    with pytest.raises(Damaged, match="one of the 1"):
        protocol.read_answer(protocol.answer(TRAIN, get), get, about)


@pytest.mark.parametrize("greeting", ["{", "[]", '{"type": "handshake", "version": "2.0", "payload": {"datasets": 3}}'])
def test_a_server_that_talks_nonsense_is_a_failure(greeting):
    with answering(greeting) as address, pytest.raises(Failure, match="cannot be had"):
        Client(address, first_patience=0.05)


def test_data_that_changed_are_refused_by_their_fingerprint():
    changed = replace(TRAIN, images=TRAIN.images + (TRAIN.images == 7))
    assert changed.fingerprint != TRAIN.fingerprint
    with serving(SERVED) as (address, _):
        there, port = opened(address), int(address.rpartition(":")[2])
        stream = batches(there, 20, seed=4)
        take(stream, 2)
    with serving({"numbers": {"train": changed}}, port=port), pytest.raises(UserError, match="not what it was"):
        take(stream, 20)


def test_a_name_that_is_not_served_is_answered_with_the_nearest(address):
    with pytest.raises(UserError, match="did you mean 'numbers'"):
        opened(address, "number")
    with pytest.raises(UserError, match="unknown split 'test'"):
        opened(address, "others", "test")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "ws://", "127.0.0.1:8765", "ws:///x", "ws://a:99999", "ws://a:b", "ws://[::1", "ws://a:0"],
)
def test_an_address_that_is_none_is_refused_and_its_token_is_not_shown(url):
    with pytest.raises(UserError, match="ws://HOST:PORT") as error:
        Client(url + "?token=secret")
    assert "secret" not in str(error.value)


# --- Who may come in ---


def test_a_token_is_asked_for_and_never_shown(monkeypatch):
    with serving(SERVED, token="secret word") as (address, _):
        for wrong in ("", "?token=secret", "?token="):
            with pytest.raises(UserError, match="wants its token") as error:
                Client(address + wrong)
            assert "secret" not in str(error.value)
        client = Client(address + "/?token=secret+word")
        assert "numbers" in client.offer and "secret" not in client.url
        monkeypatch.setenv("STREAM_TOKEN", "secret word")
        assert Client(address).offer == client.offer


def test_a_token_that_is_soon_guessed_is_refused():
    with pytest.raises(UserError, match="at least 8 characters"):
        asyncio.run(Server(SERVED, token="1234").run("127.0.0.1", 0, print, asyncio.Event()))


def test_other_machines_need_a_token_and_pages_of_a_browser_are_kept_out(address):
    with pytest.raises(UserError, match="other machines"):
        asyncio.run(Server(SERVED).run("0.0.0.0", 0, print, asyncio.Event()))
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="http://example.org")


def test_no_more_clients_than_allowed():
    with serving(SERVED, clients=1) as (address, server):
        with connect(address) as first:
            first.send(protocol.say("handshake", version="2.0"))
            first.recv()
            with pytest.raises(InvalidStatus, match="503"):
                connect(address)
        assert until(lambda: server.clients == 0)
        assert Client(address).offer
