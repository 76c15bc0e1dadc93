"""The classifier learns, its augmentation moves and mirrors, its file holds what was measured."""

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from diffusion import files
from diffusion.commands import train_classifier
from diffusion.data.batches import batches
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.networks import classifier
from diffusion.networks.classifier import Classifier
from diffusion.training import classifier as fitting


def stripes(n: int, seed: int = 0) -> Dataset:
    """Images with a bright line, across (0) or down (1), anywhere."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=draw)
    images = torch.randint(100, (n, 1, 8, 8), generator=draw)
    for image, label, place in zip(images, labels, torch.randint(1, 7, (n,), generator=draw)):
        (image if label == 0 else image.mT)[0, place] += 150
    return Dataset("stripes", images.byte(), labels, ("across", "down"))


def test_an_augmented_image_is_the_image_moved_and_perhaps_mirrored():
    torch.manual_seed(0)
    image = torch.randint(1, 255, (1, 3, 6, 4), dtype=torch.uint8)
    moved = lambda x: [F.pad(x, [1] * 4)[0, :, i : i + 6, j : j + 4] for i, j in itertools.product(range(3), range(3))]
    for flip, allowed in ((False, moved(image)), (True, moved(image) + moved(image.flip(3)))):
        seen = fitting.augment(image.expand(400, 3, 6, 4), flip)
        which = [[torch.equal(x, y) for y in allowed].index(True) for x in seen]  # ValueError if it is none of them
        assert set(which) == set(range(len(allowed)))


def test_it_learns_and_its_average_is_better_than_chance():
    torch.manual_seed(0)
    data, test = stripes(600), stripes(300, seed=1)
    network = Classifier((1, 8, 8), 2, width=8)
    before = fitting.accuracy(network.eval(), test.images, test.labels)
    training = fitting.Training(network, steps=60)
    losses = list(training.train(batches(data, 50, seed=0)))
    assert len(losses) == 60 and before < 0.8
    assert fitting.accuracy(training.ema, test.images, test.labels) > 0.95
    assert not training.ema.training


def test_the_logits_are_the_head_of_128_features_and_the_input_scale_does_not_matter_in_training():
    network = Classifier((3, 8, 8), 10).train()
    images = torch.rand(64, 3, 8, 8)
    assert network.features(images).shape == (64, 128) and network.features(images).min() >= 0
    torch.testing.assert_close(network(images), network.head(network.features(images)))
    torch.testing.assert_close(network(images), network(images * 0.5 + 0.2), atol=2e-2, rtol=0)


def test_a_file_is_the_classifier_rounded_to_half(tmp_path):
    network = Classifier((1, 8, 8), 2, width=8)
    network.head.bias.data.fill_(1 / 3)
    path = classifier.save(tmp_path / "c.pth", network, {"dataset": "stripes", "accuracy": 0.5})
    back, facts = classifier.load(path)
    assert facts == {"kind": "classifier", "dataset": "stripes", "accuracy": 0.5}
    assert not back.training and back.head.bias.dtype == torch.float32
    for name, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.half().to(value.dtype)), name
    files.save(path, {**torch.load(path), "state": {}})
    with pytest.raises(UserError, match="not a classifier of this version"):
        classifier.load(path)


def test_the_command_measures_what_it_writes(tmp_path, monkeypatch, capsys):
    splits = {"train": stripes(512), "test": stripes(200, seed=1)}
    monkeypatch.setattr(train_classifier, "load", lambda name, split, root, device: splits[split])
    accuracy, measured = fitting.accuracy, []
    monkeypatch.setattr(train_classifier, "accuracy", lambda *args: measured.append(args[0]) or accuracy(*args))
    out = tmp_path / "c.pth"
    words = ["--epochs", "2", "--device", "cpu", "--seed", "3", "--out", str(out), "--state", str(tmp_path / "s.pt")]
    train_classifier.main(words)
    network, facts = classifier.load(out)
    for name, value in measured[0].state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name  # what was measured is rounded already
    test = splits["test"]
    assert facts["accuracy"] == accuracy(network, test.images, test.labels)
    assert {**facts, "accuracy": None} == {
        "kind": "classifier", "dataset": "MNIST", "accuracy": None, "n_test": 200, "seed": 3, "epochs": 2
    }  # fmt: skip
    said = capsys.readouterr().out
    assert re.search(rf"test accuracy {facts['accuracy']:.2%} of 200", said)
    assert str(out) in said and files.sha256(out) in said


# The command on a few stripes; it sends itself a signal at step 13.
CHILD = """
import os, sys
from test_classifier import fitting, stripes, train_classifier
splits = {"train": stripes(512), "test": stripes(200, seed=1)}
train_classifier.load = lambda name, split, root, device: splits[split]
update_ema, steps = fitting.update_ema, []
def dying(*args, **kwargs):
    update_ema(*args, **kwargs)
    steps.append(1)
    if len(steps) == 13 and int(sys.argv[1]):
        os.kill(os.getpid(), int(sys.argv[1]))
fitting.update_ema = dying
sys.exit(train_classifier.main(sys.argv[2:]))
"""


def run(folder, death, *words):
    place = ["--out", folder / "c.pth", "--state", folder / "s.pt"]
    command = [sys.executable, "-c", CHILD, str(int(death)), *place, "--epochs", "20", "--device", "cpu", *words]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")])
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    assert run(tmp_path / "whole", 0).returncode == 0
    for death, at in ((signal.SIGINT, 13), (signal.SIGKILL, 12)):  # the first is saved once more
        folder = tmp_path / str(int(death))
        killed = run(folder, death, "--save-every", "0")
        assert killed.returncode == (130 if death == signal.SIGINT else -death), killed.stderr
        assert ("Continue with" in killed.stdout) == (death == signal.SIGINT)
        assert files.load(folder / "s.pt")["training"]["step"] == at and not (folder / "c.pth").exists()
        assert run(folder, 0, "--resume").returncode == 0
        assert (folder / "c.pth").read_bytes() == (tmp_path / "whole/c.pth").read_bytes()


def test_a_resumed_training_is_that_which_was_begun(tmp_path):
    files.save(tmp_path / "s.pt", {"asked": {"dataset": "MNIST", "epochs": 20, "seed": 1}})
    refused = run(tmp_path, 0, "--resume")
    assert refused.returncode and "was begun with seed 1, not 0" in refused.stderr
    assert not (tmp_path / "c.pth").exists()


def test_a_new_training_keeps_the_state_of_an_earlier_one(tmp_path):
    assert run(tmp_path, signal.SIGINT).returncode == 130
    kept = (tmp_path / "s.pt").read_bytes()
    again = run(tmp_path, 0)
    assert again.returncode == 0 and f"is kept in {tmp_path / 's.pt.1'}" in again.stdout
    assert (tmp_path / "s.pt.1").read_bytes() == kept


def test_a_state_without_its_tensors_is_refused(tmp_path):
    files.save(tmp_path / "s.pt", {"asked": {"dataset": "MNIST", "epochs": 20, "seed": 0}, "training": {}})
    refused = run(tmp_path, 0, "--resume")
    assert refused.returncode and "start anew without --resume" in refused.stderr
