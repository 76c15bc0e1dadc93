"""Text to image: the network that reads captions, prompts at every door, and a training on captions."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from in_process import DATA, run
from PIL import Image
from server import running
from torch.nn import functional as F
from torchvision.transforms.functional import to_tensor

from diffusion import configure, load
from diffusion.api.generation import generate, guided_denoiser
from diffusion.commands import train
from diffusion.data import captions, digits
from diffusion.data.datasets import Dataset
from diffusion.data.scenes import KINDS, LENGTH, WORDS
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory import examiner
from diffusion.laboratory.catalogue import catalogue
from diffusion.method.noise import Noise
from diffusion.networks.text import CrossAttention, TextUNet, waves
from diffusion.training.trainer import Trainer

TINY = {
    "dataset": "digits",
    "network": "text",
    "hidden": (8, 16),
    "shape": (3, 32, 32),
    "schedule": "rectified",
    "target": "velocity",
}
SEVEN, THREE = "a red seven", "a small blue three at the left"


@pytest.fixture
def model():
    """Untrained, but with weights that let every word show."""
    made = configure(**TINY, words=WORDS, caption_length=LENGTH, precision="fp32", sampler_steps=3)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.experiment.denoiser.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


# --- The network ---


@pytest.mark.parametrize("pooled", [False, True])
def test_only_a_pooled_caption_reaches_what_does_not_read_word_by_word(pooled):
    torch.manual_seed(0)
    network = TextUNet((3, 8, 8), (8, 16), words=5, length=4, pooled=pooled)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1), torch.ones(2)
    said = torch.tensor([[1, 2, 0, 0], [3, 4, 1, 0]])
    first, second = network(x, t, said)
    assert not torch.allclose(first, second)
    for block in network.middle:
        if isinstance(block, CrossAttention):
            torch.nn.init.zeros_(block.answer.weight)
    first, second = network(x, t, said)
    assert torch.allclose(first, second) is not pooled


def test_places_begin_equally_large_all_different_and_like_their_neighbours():
    for places in (8, 24):
        near = waves(places, 128) @ waves(places, 128).T / 128
        assert torch.allclose(near.diagonal(), torch.ones(places))
        assert (near - torch.eye(places) < 0.999).all()
        assert (near.diagonal(1)[:, None] > torch.stack([near.diagonal(k).max() for k in range(2, places)])).all()


def test_cross_attention_is_the_textbooks():
    torch.manual_seed(0)
    layer, x, tokens = CrossAttention(8, 6, heads=2), torch.randn(2, 8, 3, 3), torch.randn(2, 5, 6)
    torch.nn.init.normal_(layer.answer.weight)
    q = F.group_norm(x, 8)
    q = layer.ask(layer.norm(x)).flatten(2).mT  # (B, HW, C)
    k, v = layer.offer(tokens).chunk(2, dim=2)  # (B, L, C) each
    out = torch.zeros(2, 9, 8)
    for b in range(2):
        for h in (slice(0, 4), slice(4, 8)):
            out[b, :, h] = (q[b, :, h] @ k[b, :, h].T / 2).softmax(1) @ v[b, :, h]
    torch.testing.assert_close(layer(x, None, tokens), x + layer.answer(out.mT.reshape(2, 8, 3, 3)))


def test_every_word_and_its_place_in_the_sentence_reach_the_picture(model):
    network, x, t = model.experiment.denoiser.network, torch.randn(1, 3, 32, 32), torch.full((1,), 0.5)
    said = ["a red three left of a blue four", "a blue four left of a red three", "a red four left of a blue three"]
    answers = [network(x, t, captions.encode([each], WORDS, LENGTH)) for each in said]
    differences = [(a - b).abs().max().item() for a, b in ((answers[0], answers[1]), (answers[0], answers[2]))]
    assert min(differences) > 1e-3  # the same words in another order are another caption


def test_no_caption_is_the_caption_of_padding(model):
    network, x, t = model.experiment.denoiser.network, torch.randn(2, 3, 32, 32), torch.rand(2)
    nothing = network.null(captions.encode([SEVEN, THREE], WORDS, LENGTH))
    assert torch.equal(nothing, captions.encode(["", ""], WORDS, LENGTH))
    assert torch.equal(network(x, t), network(x, t, nothing))


def test_the_middle_knows_its_places():
    torch.manual_seed(0)
    network = TextUNet((3, 8, 8), (8, 16), 5, 4)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, t, caption = torch.zeros(1, 3, 8, 8), torch.ones(1), torch.tensor([[1, 2, 0, 0]])
    before = network(x, t, caption)
    vectors = network.middle[0].vectors
    vectors.data = vectors.data.flip(2)
    assert not torch.allclose(network(x, t, caption), before)


# --- Prompts ---


def test_a_prompt_is_followed_alone_or_among_others(model):
    both = model.sample(2, prompt=[SEVEN, THREE], seed=3)
    assert torch.allclose(both[:1], model.sample(1, prompt=SEVEN, seed=3), atol=1e-5)
    same = model.sample(2, prompt=THREE, seed=3)
    assert torch.allclose(both[1], same[1], atol=1e-5) and not torch.allclose(both[0], same[0], atol=1e-3)
    assert torch.equal(model.sample(2, label=[SEVEN, THREE], seed=3), both)


def test_a_negative_prompt_takes_the_place_of_no_caption(model):
    x, t, noise = torch.randn(2, 3, 32, 32), torch.full((2,), 0.6), Noise(0, torch.arange(2))
    rows = captions.encode([SEVEN, THREE], WORDS, LENGTH)
    plain = model.experiment.denoiser
    away = captions.encode(["a white one"] * 2, WORDS, LENGTH)
    expected = plain(x, t, away) + 3 * (plain(x, t, rows) - plain(x, t, away))
    options = SamplingOptions(guidance_scale=3, clip=False, negative_prompt="a white one")
    torch.testing.assert_close(guided_denoiser(model.experiment, options)(x, t, rows), expected, atol=1e-4, rtol=1e-4)
    empty = model.sample(1, prompt=SEVEN, guidance_scale=3, negative_prompt="")
    assert torch.equal(empty, model.sample(1, prompt=SEVEN, guidance_scale=3))
    assert noise.draws == 0


def test_the_scale_that_weights_were_saved_with_is_the_default(tmp_path, model):
    made = configure(**TINY, words=WORDS, caption_length=LENGTH, guidance_scale=2.5, sampler_steps=3)
    made.experiment.denoiser.load_state_dict(model.experiment.denoiser.state_dict())
    again = load(made.save(tmp_path / "text.pth"))
    assert again.config == made.config and again.config.words == WORDS
    usual = again.sample(1, prompt=SEVEN)
    assert torch.equal(usual, again.sample(1, prompt=SEVEN, guidance_scale=2.5))
    assert not torch.equal(usual, again.sample(1, prompt=SEVEN, guidance_scale=1))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m: m.sample(1, prompt="a redd seven"), "unknown word 'redd' — did you mean 'red'?"),
        (lambda m: m.sample(3, prompt=[SEVEN, THREE]), "3 images need one prompt or 3, not 2"),
        (lambda m: m.sample(1, 3, prompt=SEVEN), "a label or a prompt, not both"),
        (lambda m: m.sample(1, label=3), "a prompt is a text"),
        (lambda m: m.sample(1, prompt=[SEVEN, 3]), "a prompt is a text"),
        (lambda m: m.sample(1, prompt=SEVEN, negative_prompt="a redd"), "unknown word 'redd'"),
        (lambda m: m.sample(1, prompt=SEVEN, negative_prompt=THREE), "does nothing at guidance scale 1"),
        (lambda m: configure(network="cnn").sample(1, prompt=SEVEN), "read no prompts"),
        (lambda m: configure(network="text", hidden=(8, 16)), "'text' reads captions: train it on"),
        (lambda m: configure(network="unet", hidden=(8, 16), words=("", "a")), "by the network 'text' alone"),
    ],
)
def test_a_mistake_is_one_sentence(model, act, says):
    with pytest.raises(UserError) as error:
        act(model)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_generate_draws_a_prompt(tmp_path, model):
    path = model.save(tmp_path / "text.pth")
    words = ["--weights", path, "--count", 4, "--seed", 5, "--steps", 2, "--device", "cpu", "--out", tmp_path / "x.png"]
    done = run("src", "generate", *words, "--prompt", SEVEN, "--negative-prompt", THREE, "--guidance-scale", 2)
    assert done.returncode == 0 and "4 samples" in done.stdout
    assert Image.open(tmp_path / "x.png").size == (4 * 67, 4 * 67)
    done = run("src", "generate", *words, "--prompt", "a redd seven")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown word 'redd'")


def test_test_pictures_are_restored_by_their_captions_or_by_a_prompt(tmp_path, model, monkeypatch):
    monkeypatch.setattr(digits, "HANDWRITTEN", 300)
    monkeypatch.setattr(digits, "SAMPLES", {"train": 2, "test": 2})
    test, path = digits.load("test", DATA[1]), model.save(tmp_path / "text.pth")
    words = ["--weights", path, "--count", 2, "--from", "test", "--device", "cpu", "--out", tmp_path / "x.npy", *DATA]
    for said, prompts in ((), captions.decode(test.labels, WORDS)), (("--prompt", SEVEN), SEVEN):
        done = run("src", "generate", *words, *said)
        assert done.returncode == 0, done.stderr
        drawn = generate(model.experiment, torch.arange(2), labels=prompts, originals=test.images)
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), drawn, atol=1e-5, rtol=0)


def test_the_demo_shows_a_text_model(tmp_path, model, monkeypatch):
    monkeypatch.setattr(digits, "HANDWRITTEN", 300)
    monkeypatch.setattr(digits, "SAMPLES", {"train": 2, "test": 2})
    words = ["--weights", model.save(tmp_path / "text.pth"), "--count", 2, "--ddpm-steps", 2, "--ddim-steps", 2]
    done = run("src", "demo", *words, "--device", "cpu", "--out", tmp_path, *DATA)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("diffusion_digits_*.png")]) == 4


def test_it_is_served_with_its_words_and_draws_as_the_library_does(tmp_path, model):
    model.experiment.about["examples"] = [SEVEN]
    path, prompts = model.save(tmp_path / "text.pth"), [SEVEN, THREE]
    with running(weights=(str(path),)) as server:
        entry, info = server.get("/v1/models/text").json(), server.get("/info").json()
        assert entry["prompts"] and entry["words"] == [*WORDS[1:]] and entry["examples"] == [SEVEN]
        assert info["inputs"]["caption"] == {"type": "sequence", "shape": None}
        items = [{"image": "placeholder", "caption": each} for each in prompts]
        floats = [base64.b64decode(each["image"]) for each in server.post("/predict", json=items).json()["result"]]
        assert [len(each) for each in floats] == [4 * 3 * 32 * 32] * 2
        body = {"prompts": prompts, "n": 2, "seed": 4, "negative_prompt": "a white one", "guidance_scale": 3}
        reply = server.post("/v1/images/generations", json=body).json()["data"]
        images = [to_tensor(Image.open(io.BytesIO(base64.b64decode(each["b64_json"])))) for each in reply]
        drawn = load(path).sample(2, prompt=prompts, seed=4, negative_prompt="a white one", guidance_scale=3)
        torch.testing.assert_close(torch.stack(images), drawn, atol=1.01 / 255, rtol=0)
        refused = server.post("/predict", json=[{"caption": "a redd seven"}])
        assert refused.status_code == 422 and "did you mean 'red'?" in refused.json()["detail"]


# --- Training ---


def test_dropped_captions_are_dropped_whole(model):
    rows = captions.encode([SEVEN, THREE] * 8, WORDS, LENGTH)
    images = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    made = configure(**TINY, words=WORDS, caption_length=LENGTH, drop_prob=0.5, batch_size=16, precision="fp32")
    trainer, seen = Trainer(made, Dataset("digits", images, rows, WORDS)), []
    hook = lambda network, given: seen.append(given[2].clone())
    trainer.trained.network.register_forward_pre_hook(hook)
    list(trainer.train(until=2))
    told = (torch.cat(seen) != 0).sum(1).tolist()
    assert set(told) == {0, 3, 8} - ({8} if THREE.count(" ") != 7 else set()) | {THREE.count(" ") + 1}


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_on_disk_and_in_memory_are_the_same(split, monkeypatch):
    monkeypatch.setattr(digits, "HANDWRITTEN", 300)
    source = digits.Digits(digits.handwritten(split, DATA[1]), split="seen" if split == "train" else None)
    data = digits.load(split, DATA[1], 5)
    for index in range(5):
        picture = source[index]
        assert torch.equal(data.images[index], torch.from_numpy(picture.image))
        assert captions.decode(data.labels[index : index + 1], WORDS) == [picture.caption]


def test_a_picture_shows_its_ground_and_its_colours(monkeypatch):
    monkeypatch.setattr(digits, "HANDWRITTEN", 300)
    source = digits.Digits(digits.handwritten("test", DATA[1]))
    for index in range(30):
        image, _, scene = source[index]
        pixels = {tuple(pixel) for pixel in image.reshape(3, -1).T.tolist()}
        assert digits.GROUNDS[scene.ground] in pixels
        for each in scene.digits:
            part = image[:, each.top : each.top + each.side, each.left : each.left + each.side]
            assert digits.COLOURS[each.colour] in {tuple(pixel) for pixel in part.reshape(3, -1).T.tolist()}


def test_a_training_on_captions_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "HANDWRITTEN", 300)
    monkeypatch.setattr(digits, "SAMPLES", {"train": 64, "test": 16})
    monkeypatch.setattr(train.Examiner, "draw_curves", lambda self: None)
    monkeypatch.setattr(examiner, "PROMPTS", 2)
    words = ["--config", "configs/text_digits.yaml", "--data.samples=64", "--network.hidden=[8,16]", "--train.warmup=2"]
    words += ["--train.batch_size=8", "--train.sheet_steps=[2]", "--sample.count=3", "--sample.steps=2", *DATA]
    words += ["--device", "cpu"]
    whole = run("src", "train", *words, "--steps", 4, "--out", tmp_path / "a")
    assert whole.returncode == 0, whole.stderr
    assert run("src", "train", *words, "--steps", 4, "--limit-steps", 3, "--out", tmp_path / "b").returncode == 0
    resumed = run("src", "train", *words, "--steps", 4, "--resume", "--out", tmp_path / "b")
    assert resumed.returncode == 0 and "as it was begun" not in resumed.stdout
    a, b = (load(tmp_path / each / "runs/text_digits/text_digits.pth") for each in "ab")
    assert torch.equal(a.sample(2, prompt=SEVEN, seed=1), b.sample(2, prompt=SEVEN, seed=1))
    assert a.config.words == WORDS and a.config.guidance_scale == 3
    trained_on = digits.load("train", DATA[1], 64).labels
    assert a.experiment.about["examples"] == captions.decode(trained_on[:8], WORDS)
    names = sorted(path.name for path in (tmp_path / "a/contents").iterdir())
    assert names == [f"text_digits_sample_{step:06d}.png" for step in (0, 2, 4)]
    history = [json.loads(line) for line in (tmp_path / "a/runs/text_digits/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [0, 2, 4]


@pytest.mark.parametrize("changes", [
    {"words": ("", *reversed(WORDS[1:]))},  # as many
    {"words": WORDS[:-1]},
    {"caption_length": LENGTH + 1},
])  # fmt: skip
def test_a_teacher_of_other_captions_is_refused(tmp_path, model, changes):
    teacher = model.save(tmp_path / "teacher.pth")
    settings = TINY | {"words": WORDS, "caption_length": LENGTH} | changes
    with pytest.raises(UserError, match=f"has {next(iter(changes))} .*: its weights do not suit") as error:
        configure(**settings, teacher=str(teacher))
    assert len(str(error.value)) < 400


def test_labels_and_captions_are_not_mixed_up(tmp_path):
    done = run("src", "train", "--config", "configs/text_digits.yaml", "--data.dataset=MNIST", "--out", tmp_path)
    assert done.returncode == 2 and "go together" in done.stderr
    done = run("src", "train", "--preset", "unet_fast", "--steps", 1, "--data.dataset=digits", "--out", tmp_path)
    assert done.returncode == 2 and not [*tmp_path.iterdir()]


def test_an_examined_model_is_shipped_with_what_the_exam_found(tmp_path, model):
    experiment = model.experiment
    experiment.about = {"step": 7, "epoch": 0.5, "holds": "ema"}
    path = model.save(tmp_path / "text.pth")
    words = ["--weights", path, "--count", 16, "--steps", 1, "--device", "cpu", *DATA, "--seed", 4]
    done = run("src", "evaluate", *words, "--out", tmp_path / "x.jsonl", "--ship", tmp_path / "shelf/text_x.pth")
    assert done.returncode == 0, done.stderr
    shipped, line = load(tmp_path / "shelf/text_x.pth"), json.loads((tmp_path / "x.jsonl").read_text())
    scores = shipped.experiment.about["scores"]
    examples = shipped.experiment.about["examples"]
    assert len(set(examples)) == 8 and captions.encode(examples, WORDS, LENGTH).any(1).all()
    right = [line["obedience"][f"{kind} seen"]["real"]["all right"] for kind in KINDS]
    assert scores["real"]["seen"] == sum(a for a, _ in right) / sum(b for _, b in right) > 0.8
    assert scores["model"]["seen"] < 0.1 and scores["prompts"] == 16 and line["guidance_scale"] == 1
    page = catalogue(tmp_path / "shelf")
    share = f"{scores['model']['seen']:.1%} of {scores['real']['seen']:.1%}"
    assert f"| `text_x.pth` | 7 | 454,284 | 1 | 16 | {share} |" in page
    half = model.experiment.denoiser.network.state_dict()
    for name, value in shipped.experiment.denoiser.network.state_dict().items():
        assert torch.equal(value, half[name].half().float() if value.is_floating_point() else half[name])
