"""Version 1.0 of the stream: what EIR's clients say to our server, in their order."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image
from stream_server import numbered, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from diffusion.data.datasets import Dataset
from diffusion.streaming import eir

TRAIN, TEST = numbered(300), numbered(40, first=300)
SERVED = {"numbers": {"train": TRAIN, "test": TEST}, "others": {"train": numbered(30, "others")}}


@pytest.fixture(scope="module")
def address():
    with serving(SERVED, patience=2) as (address, _):
        yield address


def message(kind, payload=None, **more):
    return json.dumps({"type": kind, **more} | ({} if payload is None else {"payload": payload}))


class Peer:
    """A connection as EIR's client has it: a handshake first, messages of at most ten million bytes."""

    def __init__(self, address, path=""):
        self.socket = connect(address + path, max_size=10_000_000, ping_interval=None, legacy=True)
        self.socket.send(message("handshake", version="1.0", worker_id=0))
        assert self.hear() == {"type": "handshake", "version": "1.0"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, kind, payload=None):
        self.socket.send(message(kind, payload))

    def hear(self, timeout=5):
        return json.loads(self.socket.recv(timeout=timeout))

    def ask(self, kind, payload=None):
        self.say(kind, payload)
        return self.hear()

    def data(self, count):
        answer = self.ask("getData", {"batch_size": count})
        assert answer["type"] == "data"
        return answer["payload"]


def number(sample):
    """What a sample's caption says, checked against its picture."""
    said = int(re.fullmatch(r"number (\d+)", sample["inputs"]["caption"])[1])
    file = base64.b64decode(sample["inputs"]["image"])
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    assert pixels.shape == (4, 4) and int(pixels[0, 0]) + 256 * int(pixels[0, 1]) == said
    return said


# --- The whole sequence of a client's run ---


def test_a_run_of_eirs_client_from_its_first_message_to_its_last_epoch():
    with serving(SERVED) as (address, _):
        with Peer(address) as peer:  # (1)
            status = peer.ask("status", {})
            assert status["type"] == "status" and isinstance(status["payload"], dict)
        with Peer(address) as peer:  # (2) samples to set up by, some of them to validate with
            info = peer.ask("getInfo")
            image = {"type": "image", "shape": [1, 4, 4]}
            caption = {"type": "sequence", "shape": None}
            inputs = {"image": image, "caption": caption}
            assert info == {"type": "info", "payload": {"inputs": inputs, "outputs": {"image": image}}}
            gathered = [sample for _ in range(4) for sample in peer.data(32)]
        assert len(gathered) == 128
        for sample in gathered:
            assert sample.keys() == {"inputs", "target_labels", "sample_id"}  # one more would end the client
            assert re.fullmatch(r"[A-Za-z0-9_-]+", sample["sample_id"])
            assert sample["target_labels"] == {"image": {"image": sample["inputs"]["image"]}}
        ids = {sample["sample_id"]: number(sample) for sample in gathered}
        validated = [*ids][:50]
        with Peer(address) as peer:  # (3) of two messages after a reset it waits for both
            peer.say("reset", {})
            assert [peer.hear()["type"], peer.hear()["type"]] == ["resetConfirmation", "reset"]
            assert peer.ask("status", {})["type"] == "status"
            answer = peer.ask("setValidationIds", {"validation_ids": validated})
            assert answer["type"] == "validationIdsConfirmation" and "50" in answer["payload"]["message"]
        orders = [epoch(address) for _ in range(3)]  # (4)
    held = {ids[each] for each in validated}
    assert all(sorted(order) == sorted(set(range(300)) - held) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def epoch(address, path=""):
    """One worker's epoch: it probes the connection, resets it again, then sends two requests for each answer it reads.

    The heartbeat it sends first is never read, so its answers pile up.
    """
    with Peer(address, path) as peer:
        assert peer.ask("getInfo")["type"] == "info"
        assert len(peer.data(1)) == 1
        assert peer.ask("heartbeat")["type"] == "heartbeat"
        peer.say("reset", {})
        assert [peer.hear()["type"], peer.hear()["type"]] == ["resetConfirmation", "reset"]
        seen, requests, replies = [], 0, 0
        peer.say("heartbeat")
        requests += 1
        while True:
            peer.say("heartbeat")
            peer.say("getData", {"batch_size": 16})
            requests += 2
            answer = peer.hear()
            replies += 1
            if answer["type"] == "data":
                if answer["payload"] == ["terminate"]:
                    break
                seen += map(number, answer["payload"])
        backlog = [peer.hear()["type"] for _ in range(requests - replies)]
        assert len(backlog) > 20 and set(backlog) == {"heartbeat", "data"}
        return seen


def test_the_end_is_said_again_to_who_asks_again_and_a_reset_begins_anew(address):
    with Peer(address, "/others") as peer:
        first = [number(sample) for sample in peer.data(20)]
        rest = [number(sample) for sample in peer.data(20)]
        assert sorted(first + rest) == list(range(30)) and len(rest) == 10
        assert [peer.data(20) for _ in range(3)] == [["terminate"]] * 3
        peer.ask("reset"), peer.hear()
        assert [number(sample) for sample in peer.data(20)] == first  # ids and order survive a reset


def test_a_reset_is_of_one_connection_alone(address):
    with Peer(address) as one, Peer(address) as other:
        first = [number(sample) for sample in other.data(10)]
        one.ask("reset"), one.hear()
        second = [number(sample) for sample in other.data(10)]
        assert not set(first) & set(second)
        with pytest.raises(TimeoutError):
            other.hear(timeout=0.1)  # nobody told it of the reset


def test_ids_to_validate_with_are_those_of_one_run():
    with serving(SERVED) as (address, _):
        for run in "ab":
            with Peer(address, f"/?run={run}") as peer:
                chosen = [sample["sample_id"] for sample in peer.data(100)][: 10 if run == "a" else 20]
                peer.ask("setValidationIds", {"validation_ids": chosen})
        assert [len(epoch(address, f"/?run={run}")) for run in "abc"] == [290, 280, 300]


def test_the_test_split_is_never_served(address):
    assert sorted(epoch(address)) == list(range(300))  # those of the test split are 300 and more


def test_a_client_that_does_not_read_is_not_cut_off_and_its_answers_come_in_order():
    with serving(SERVED, patience=0.3) as (address, _), Peer(address) as peer:
        for _ in range(300):
            peer.say("heartbeat")
        time.sleep(1)  # three times what a silent client of version 2.0 is given
        peer.say("status", {})
        assert [peer.hear()["type"] for _ in range(301)] == ["heartbeat"] * 300 + ["status"]


def test_a_message_stays_below_what_a_client_takes():
    noise = torch.randint(0, 256, (80, 3, 128, 128), dtype=torch.uint8)
    large = Dataset("large", noise, torch.zeros(80, dtype=torch.int64), ("noise",))
    with serving({"large": {"train": large}}) as (address, _), Peer(address) as peer:
        sizes = []
        while (samples := peer.data(200)) != ["terminate"]:
            sizes.append(len(samples))
        assert sum(sizes) == 80 and 20 < max(sizes) < 80


@pytest.mark.parametrize(
    ("asked", "got"), [({"batch_size": 5}, 5), ({}, 32), ({"batch_size": "many"}, 32), ({"batch_size": -1}, 32)]
)
def test_as_many_samples_come_as_were_asked_for(address, asked, got):
    with Peer(address) as peer:
        assert len(peer.ask("getData", asked)["payload"]) == got


def test_what_no_client_says_is_answered_with_a_sentence(address):
    with Peer(address) as peer:
        assert "did you mean 'getData'" in peer.ask("getdata")["payload"]["message"]
        assert len(peer.data(3)) == 3  # and it goes on
        peer.say("setValidationIds", {"validation_ids": 3})
        assert peer.hear()["type"] == "error"
        with pytest.raises(ConnectionClosed):
            peer.hear()
    with connect(address + "/number") as stranger:
        stranger.send(message("handshake", version="1.0", worker_id=0))
        assert "did you mean 'numbers'" in json.loads(stranger.recv())["payload"]["message"]


# --- Pictures and captions ---


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_from_its_file_as_it_was(channels):
    image = torch.randint(0, 256, (channels, 7, 5), dtype=torch.uint8)
    assert torch.equal(eir.decode(eir.encode(image)), image)


@pytest.mark.parametrize(
    "text", ["no picture", "", "AAAA", base64.b64encode(b"GIF89a" + b"\xff" * 30).decode(), 7, None]
)
def test_what_is_no_picture_is_none(text):
    assert eir.decode(text) is None


def test_a_label_is_said_in_words():
    assert eir.caption(torch.tensor(1), ("zero", "one")) == "one"
    assert eir.caption(torch.tensor([2, 1, 0, 0]), ("", "seven", "red")) == "red seven"
