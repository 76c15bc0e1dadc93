"""Shards: what is written comes back, each sample of an epoch once, and a resume goes on where it was."""

import contextlib
import errno
import json
import os
import shutil
from dataclasses import replace
from tarfile import TarFile

import pytest
import torch
from in_process import Death
from stream_server import numbered, take
from test_stream_training import SMALL, dying, few_digits, trained  # noqa: F401 - few_digits is a fixture
from test_train import same_run, state

from diffusion.data.batches import batches
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.streaming import shards
from diffusion.streaming.source import Stream

DATA = numbered(203)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    assert sum(shards.write({"train": DATA, "test": numbered(20)}, folder / "numbers", 7)) == 223
    return folder


def part(folder, rank=0, world=1):
    return replace(shards.load(folder, "numbers"), rank=rank, world=world)


def test_they_are_webdataset_files_in_a_random_order(folder):
    files = sorted((folder / "numbers").glob("train-*.tar"))
    tars = [TarFile.open(file) for file in files]
    members = [name for tar in tars for name in tar.getnames()]
    order = [int(name.split(".")[0]) for name in members if name.endswith(".png")]
    assert len(files) == 7 and sorted(order) == list(range(203)) and order[:29] != sorted(order[:29])
    said = {name.split(".")[1]: tars[0].extractfile(name).read() for name in tars[0].getnames()[:3]}
    for tar in tars:
        tar.close()
    assert json.loads(said["json"])["label"] == order[0] and said["txt"].decode() == f"number {order[0]}"


def test_all_of_it_is_the_data_set_again(folder):
    there = shards.load(folder, "numbers")
    assert there.whole().fingerprint == DATA.fingerprint == there.fingerprint
    assert torch.equal(there.whole().images, DATA.images) and len(there.whole(9)) == 9


@pytest.mark.parametrize(("shape", "name"), [((1, 5, 7), "said"), ((3, 6, 4), "said"), ((1, 5, 7), "s[1]*?")])
def test_pictures_and_captions_survive(tmp_path, shape, name):
    images = torch.randint(0, 256, (9, *shape), dtype=torch.uint8)
    data = Dataset("said", images, torch.randint(0, 3, (9, 4)), ("", "red", "seven"))
    list(shards.write({"train": data}, tmp_path / name, 2))
    back = shards.load(tmp_path, name).whole()
    assert torch.equal(back.images, images) and torch.equal(back.labels, data.labels) and back.classes == data.classes


@pytest.mark.parametrize("world", [1, 2, 7])
def test_processes_share_an_epoch_see_no_sample_twice_and_each_epoch_has_its_order(folder, world):
    """Of 7 shards, 7 processes have one each; 2 processes share all of them."""
    parts = [take(batches(part(folder, rank, world), 28, 3, rank=rank, world=world), 14) for rank in range(world)]
    epochs = [[n for steps in parts for labels in steps[at : at + 7] for n in labels] for at in (0, 7)]
    assert all(len(set(epoch)) == len(epoch) == 196 for epoch in epochs) and epochs[0] != epochs[1]


@pytest.mark.parametrize("step", [0, 3, 7, 10])
def test_a_resume_goes_on_at_the_same_sample_with_its_state_and_without(folder, step, monkeypatch):
    for rank in (0, 1):
        order = {"batch_size": 28, "seed": 3, "rank": rank, "world": 2}
        whole, first = take(batches(part(folder, rank, 2), **order), 14), part(folder, rank, 2)
        stream = batches(first, **order)
        assert take(stream, step) == whole[:step]
        position = json.loads(json.dumps(first.position()))
        assert take(stream, 2) == whole[step : step + 2]  # the position is of that moment, not of later
        blind = part(folder, rank, 2)
        assert take(batches(blind, first_step=step, **order), 14 - step) == whole[step:]
        resumed = part(folder, rank, 2)
        resumed.seek(position)
        assert resumed.position() == position
        with counted(monkeypatch) as read:
            assert take(batches(resumed, first_step=step, **order), 1) == whole[step : step + 1]
        assert step % 7 == 0 or read == [0, 14]  # nothing of what was seen is read again


@contextlib.contextmanager
def counted(monkeypatch):
    """How many samples are asked for, each time."""
    read, islice = [], shards.islice
    with monkeypatch.context() as patch:
        patch.setattr(shards, "islice", lambda rows, n: read.append(n) or islice(rows, n))
        yield read


def test_training_killed_and_resumed_reaches_the_unbroken_weights(tmp_path, monkeypatch):
    list(shards.write(SMALL, tmp_path / "files/MNIST", 4))
    words = ["--stream", tmp_path / "files", "--steps", "30", "--train.sheet_steps=[30]"]  # 25 steps an epoch
    trained(tmp_path / "whole", *words)
    with monkeypatch.context() as patch, pytest.raises(Death):
        dying(patch, 27)
        trained(tmp_path / "killed", *words)
    assert len(state(tmp_path / "killed")["trainer"]["losses"]) == 27
    trained(tmp_path / "killed", *words, "--resume")
    same_run(state(tmp_path / "whole"), state(tmp_path / "killed"))


def test_a_failed_writing_leaves_nothing_and_a_folder_that_is_there_is_left_alone(tmp_path, folder, monkeypatch):
    before = {path: path.read_bytes() for path in (folder / "numbers").iterdir()}
    with pytest.raises(UserError, match="is there already"):
        next(shards.write({"train": DATA}, folder / "numbers", 7))
    assert before == {path: path.read_bytes() for path in (folder / "numbers").iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards.TarWriter, "write", full)
    with pytest.raises(OSError, match="No space"):
        list(shards.write({"train": DATA}, tmp_path / "numbers", 7))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="that many shards at most, not 204"):
        list(shards.write({"train": DATA}, tmp_path / "numbers", 204))
    with pytest.raises(UserError, match="a word has at most 200 characters, not 201"):
        list(shards.write({"train": replace(DATA, classes=("x" * 201,) * 203)}, tmp_path / "numbers", 7))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda place: (place / "train-00003.tar").unlink(), "missing or cut short"),
        (lambda place: os.truncate(place / "train-00003.tar", 1000), "missing or cut short"),
        (lambda place: (place / "shards.json").unlink(), "missing or damaged"),
        (lambda place: (place / "shards.json").write_text("{}}"), "missing or damaged"),
        (
            lambda place: (place / "shards.json").write_text(
                (place / "shards.json").read_text().replace("train-00001.tar", "../x.tar")
            ),
            "missing or damaged",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, folder, damage, says):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "numbers")
    with pytest.raises(UserError, match=says):
        shards.load(tmp_path, "numbers")


def test_what_is_not_in_it_is_answered_with_the_nearest(tmp_path, folder):
    with pytest.raises(UserError, match="did you mean 'numbers'"):
        shards.load(folder, "number")
    with pytest.raises(UserError, match="did you mean 'train'"):
        shards.load(folder, "numbers", "trian")
    with pytest.raises(UserError, match="203 samples of numbers train"):
        shards.load(folder, "numbers", samples=100)
    with pytest.raises(UserError, match="or a folder of stream --write-shards"):
        Stream(str(tmp_path / "nowhere"))
