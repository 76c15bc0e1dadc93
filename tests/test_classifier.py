"""The classifier learns, its augmentation moves and mirrors, its file holds what was measured."""

import itertools
import os
import re
import signal

import pytest
import torch
from in_process import Death, run
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


@pytest.fixture
def train(monkeypatch):
    """The command on a few stripes, train(folder, death, *words); at step 13 comes its death: a signal, or Death."""
    splits = {"train": stripes(512), "test": stripes(200, seed=1)}
    monkeypatch.setattr(train_classifier, "load", lambda name, split, root, device: splits[split])
    update_ema = fitting.update_ema

    def train(folder, death, *words):
        steps = itertools.count(1)

        def dying(*args, **kwargs):
            update_ema(*args, **kwargs)
            if next(steps) != 13 or not death:
                return
            if death is Death:
                raise Death
            os.kill(os.getpid(), death)

        monkeypatch.setattr(fitting, "update_ema", dying)
        place = ["--out", folder / "c.pth", "--state", folder / "s.pt", "--device", "cpu"]
        return run("src", "train-classifier", *place, *words)

    return train


def test_the_command_measures_what_it_writes(tmp_path, train, monkeypatch):
    accuracy, measured = fitting.accuracy, []
    monkeypatch.setattr(train_classifier, "accuracy", lambda *args: measured.append(args) or accuracy(*args))
    done = train(tmp_path, None, "--epochs", "2", "--seed", "3")
    out = tmp_path / "c.pth"
    network, facts = classifier.load(out)
    ((tested, images, labels),) = measured
    for name, value in tested.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name  # what was measured is rounded already
    assert facts["accuracy"] == accuracy(network, images, labels)
    expected = {"kind": "classifier", "dataset": "MNIST", "n_test": 200, "seed": 3, "epochs": 2}
    assert facts == expected | {"accuracy": facts["accuracy"]}
    assert re.search(rf"test accuracy {facts['accuracy']:.2%} of 200", done.stdout)
    assert str(out) in done.stdout and files.sha256(out) in done.stdout


def test_a_training_that_was_stopped_or_died_goes_on_to_the_same_bits(tmp_path, train):
    """Death is that of a kill: the last state that was saved, of which test_checkpoint.py shows that it is whole."""
    words = ["--epochs", "20"]
    assert train(tmp_path / "whole", None, *words).returncode == 0
    stopped = train(tmp_path / "stopped", signal.SIGINT, *words)
    assert stopped.returncode == 130 and "Continue with" in stopped.stdout
    with pytest.raises(Death):
        train(tmp_path / "died", Death, *words, "--save-every", "0")
    for name, at in (("stopped", 13), ("died", 12)):  # the first is saved once more
        folder = tmp_path / name
        assert files.load(folder / "s.pt")["training"]["step"] == at and not (folder / "c.pth").exists()
        assert train(folder, None, *words, "--resume").returncode == 0
        assert (folder / "c.pth").read_bytes() == (tmp_path / "whole/c.pth").read_bytes()


@pytest.mark.parametrize(
    ("state", "says"),
    [({"asked": {"seed": 1}}, "was begun with seed 1, not 0"), ({"training": {}}, "start anew without --resume")],
)
def test_a_resumed_training_is_that_which_was_begun_with_all_its_tensors(tmp_path, train, state, says):
    asked = {"dataset": "MNIST", "epochs": 20, "seed": 0} | state.get("asked", {})
    files.save(tmp_path / "s.pt", state | {"asked": asked})
    refused = train(tmp_path, None, "--epochs", "20", "--resume")
    assert refused.returncode == 2 and says in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "c.pth").exists()


def test_a_new_training_keeps_the_state_of_an_earlier_one(tmp_path, train):
    assert train(tmp_path, signal.SIGINT, "--epochs", "20").returncode == 130
    kept = (tmp_path / "s.pt").read_bytes()
    again = train(tmp_path, None, "--epochs", "2")
    assert again.returncode == 0 and f"is kept in {tmp_path / 's.pt.1'}" in again.stdout
    assert (tmp_path / "s.pt.1").read_bytes() == kept
