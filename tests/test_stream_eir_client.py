"""Version 1.0 of the stream from the other side: our client at a server that behaves as EIR's do."""

import base64
import contextlib
import json
import threading

import numpy as np
import pytest
import torch
from in_process import Death
from stream_server import numbered
from test_stream_training import SMALL, dying, few_digits, trained  # noqa: F401 - few_digits is a fixture
from test_train import same_run, state
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from diffusion.data.batches import batches
from diffusion.errors import Failure, UserError
from diffusion.streaming import eir, eir_client
from diffusion.streaming.source import Stream

TRAIN = numbered(120)


def samples_of(data):
    """What EIR's servers send of a data set."""
    for image, label in zip(data.images, data.labels):
        file = eir.encode(image)
        inputs = {"image": file, "caption": eir.caption(label, data.classes)}
        yield {"inputs": inputs, "target_labels": {"image": {"image": file}}}


INFO = {"inputs": {"caption": {"type": "sequence", "shape": None}, "image": {"type": "image", "shape": None}}}


class EIR:
    """A server with EIR's habits: one place in the data for all clients, ids that count what was sent, as many samples
    as it likes, resets that everybody hears of, and not a word of any version but its own.
    """

    def __init__(self, samples, *, batch=7, empty=0, ends=True, info=INFO):
        self.samples, self.batch, self.empty, self.ends, self.info = list(samples), batch, empty, ends, info
        self.next = self.sent = 0

    def talk(self, connection):
        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                for answer in self.answers(json.loads(text)):
                    connection.send(json.dumps(answer))
                    if answer["type"] == "error":
                        return

    def answers(self, message):
        kind = message["type"]
        if kind == "handshake" and message["version"] != "1.0":
            yield {"type": "error", "payload": {"message": "Protocol version mismatch"}}
        elif kind == "handshake":
            yield {"type": "handshake", "version": "1.0"}
        elif kind == "getInfo":
            yield {"type": "reset", "payload": {"message": "somebody else reset"}}
            yield {"type": "info", "payload": self.info | {"outputs": {}}}
        else:
            assert kind == "getData", f"our client must not say {kind}: it is heard by all"
            yield {"type": "heartbeat", "payload": {}}
            yield {"type": "data", "payload": self.batch_or_end()}

    def batch_or_end(self):
        self.empty -= 1
        if self.empty >= 0 or (self.ends and self.next >= len(self.samples)):
            return ["terminate"]
        places = [place % len(self.samples) for place in range(self.next, self.next + self.batch)]
        self.next += self.batch
        if self.ends:
            places = [place for place in places if place >= places[0]]
        self.sent += len(places)
        return [self.samples[place] | {"sample_id": str(self.sent + place)} for place in places]


@contextlib.contextmanager
def served_by(eir_server):
    with serve(eir_server.talk, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def gathered(samples, most=eir_client.MOST, **habits):
    with served_by(EIR(samples, **habits)) as address:
        return eir_client.gather(address, most=most, timeout=2, patience=1)


def test_all_that_it_serves_is_gathered_each_sample_once_in_an_order_of_its_own():
    straight = gathered(samples_of(TRAIN))
    turned = gathered(reversed([*samples_of(TRAIN)]), batch=11)
    with_repeats = gathered([*samples_of(TRAIN)] * 2, batch=50)
    for found in (straight, turned, with_repeats):
        train, test = (found.load("numbers", split) for split in ("train", "test"))
        assert len(train) + len(test) == 120 and len(test) > 3
        assert train.fingerprint == straight.load("numbers").fingerprint
        for data in (train, test):
            said = [
                int("".join(data.classes[word] for word in row.tolist()).removeprefix("number")) for row in data.labels
            ]
            assert torch.equal(data.images, TRAIN.images[said])


def test_what_is_held_out_is_never_trained_on():
    found = gathered(samples_of(TRAIN))
    held = {image.numpy().tobytes() for image in found.load("numbers", "test").images}
    train = found.load("numbers")
    seen = {image.numpy().tobytes() for batch, _ in zip(batches(train, 20, 0), range(30)) for image in batch.images}
    assert len(seen) == len(train) and not seen & held


def test_a_server_that_never_ends_one_that_is_empty_at_first_and_a_limit():
    assert len(gathered(samples_of(TRAIN), ends=False).samples) == 120
    assert len(gathered(samples_of(TRAIN), empty=3).samples) == 120
    assert len(gathered(samples_of(TRAIN), most=30).samples) == 30
    with pytest.raises(Failure, match="it has no samples"):
        gathered([])


def test_arrays_and_tables_are_read_too():
    info = {"inputs": {"picture": {"type": "array", "shape": [1, 4, 4]}, "table": {"type": "tabular", "shape": None}}}
    raw = lambda image: base64.b64encode((image.numpy() / np.float32(255)).astype("<f4").tobytes()).decode()
    sent = [{"inputs": {"picture": raw(image), "table": {"CLASS": str(int(label) % 10)}}, "target_labels": {}}
            for image, label in zip(TRAIN.images, TRAIN.labels)]  # fmt: skip
    train = gathered(sent, info=info).load("numbers")
    assert train.labels.shape[1] == 1 and train.images.dtype == torch.uint8 and train.images.max() > 100


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": "no picture"}, "no picture"),
        ({"caption": 7}, "no caption"),
        ({"image": None}, "no picture"),
    ],
)
def test_a_sample_that_is_none_ends_it_with_a_sentence(change, says):
    first, *rest = samples_of(TRAIN)
    with pytest.raises(Failure, match=says):
        gathered([first | {"inputs": first["inputs"] | change}, *rest])


@pytest.mark.parametrize("payload", [5, None, "samples", {"samples": []}])
def test_samples_that_are_no_list_end_it_with_a_sentence(payload):
    server = EIR([])
    server.batch_or_end = lambda: payload
    with served_by(server) as address, pytest.raises(Failure, match="its samples are not a list"):
        eir_client.gather(address, timeout=2, patience=1)


def test_a_server_on_this_machine_is_reached_without_the_proxy_of_the_environment(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody is
    assert len(gathered(samples_of(TRAIN)).samples) == 120


def test_labels_are_those_of_the_data_set_that_is_trained():
    some = gathered(samples_of(SMALL["train"].whole(100)))
    train = some.load("MNIST")
    assert train.classes == SMALL["train"].classes and train.labels.shape == (len(train),)
    pairs = {image.numpy().tobytes(): label for image, label in zip(SMALL["train"].images, SMALL["train"].labels)}
    assert all(pairs[image.numpy().tobytes()] == label for image, label in zip(train.images, train.labels))
    with pytest.raises(UserError, match="unknown label 'number"):
        gathered(samples_of(TRAIN)).load("MNIST")


def test_a_training_from_an_old_server_can_be_resumed_while_that_serves_the_same(tmp_path, monkeypatch):
    digits = [*samples_of(SMALL["train"])]
    with served_by(EIR(digits)) as address:
        said = trained(tmp_path / "whole", "--stream", address).stderr
    assert "does not speak version 2.0: all it has is gathered first" in said and "gathered 400 samples" in said
    with served_by(EIR(digits)) as address, monkeypatch.context() as patch, pytest.raises(Death):
        dying(patch, 5)
        trained(tmp_path / "killed", "--stream", address)
    with served_by(EIR(digits[::-1])) as address:
        trained(tmp_path / "killed", "--stream", address, "--resume")
    same_run(state(tmp_path / "whole"), state(tmp_path / "killed"))
    with served_by(EIR(digits[1:])) as address:
        assert "its images changed" in trained(tmp_path / "killed", "--stream", address, "--resume", code=2).stderr


def test_our_own_server_is_never_taken_for_an_old_one():
    with pytest.raises(Failure, match="cannot be had"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusion.streaming.client.FIRST", 0.1)
        Stream("ws://127.0.0.1:9")
