"""MiniLM as a frozen text encoder: the textbook's BERT, captions of any words, and models that read with it."""

import math

import numpy as np
import pytest
import torch
from in_process import ROOT, run
from PIL import Image
from safetensors.torch import save_file
from server import running
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from diffusion import configure, load
from diffusion.api.generation import generate
from diffusion.data import fetch, minilm
from diffusion.data.captions import decode, encode
from diffusion.data.datasets import Dataset
from diffusion.data.sources import load as load_data
from diffusion.data.spelled import SpelledStream, spelled
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.networks.minilm import FrozenEncoder, MiniLM

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "cat", "##s", *(f"##{c}" for c in "abdez"), "z"]
WIDTH, INSIDE, PLACES = 24, 40, 40
TINY = {"network": "text", "text_encoder": "minilm", "hidden": (8, 16), "schedule": "rectified", "target": "velocity"}


def weights() -> dict[str, torch.Tensor]:
    """Of a BERT of two layers, at random."""
    shapes = {
        f"embeddings.{name}_embeddings.weight": (count, WIDTH)
        for name, count in (("word", len(WORDS)), ("position", PLACES), ("token_type", 2))
    }
    linear = {"attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH)}
    linear |= {"attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH)}
    linear |= {"intermediate.dense": (INSIDE, WIDTH), "output.dense": (WIDTH, INSIDE)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        for name, (out, inside) in linear.items():
            shapes |= {f"{at}.{name}.weight": (out, inside), f"{at}.{name}.bias": (out,)}
    shapes |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    draw = torch.Generator().manual_seed(0)
    return {name: 0.4 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Files in the real formats, and a library that finds them wherever it looks."""
    folder = tmp_path / "minilm"
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors")
    known = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.save(str(folder / "tokenizer.json"))
    monkeypatch.setattr(fetch, "is_whole", lambda path, digest: path.is_file())
    pretrained = minilm.load(tmp_path)
    monkeypatch.setattr(minilm, "load", lambda root="": pretrained)
    return pretrained


# --- The encoder ---


def naive(w: dict[str, torch.Tensor], pieces: list[int], heads: int = 12) -> torch.Tensor:
    """Devlin et al. (2019), a place and a head at a time, without padding."""

    def norm(name, x):
        mean, var = x.mean(), ((x - x.mean()) ** 2).mean()
        return (x - mean) / (var + 1e-12).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    linear = lambda name, x: w[f"{name}.weight"] @ x + w[f"{name}.bias"]
    tables = [w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    states = [norm("embeddings.LayerNorm", tables[0][p] + tables[1][i] + tables[2][0]) for i, p in enumerate(pieces)]
    part = WIDTH // heads
    for layer in range(2):
        at, after = f"encoder.layer.{layer}", []
        q, k, v = ([linear(f"{at}.attention.self.{n}", x) for x in states] for n in ("query", "key", "value"))
        for i, x in enumerate(states):
            mixed = torch.zeros(WIDTH)
            for head in range(heads):
                own = slice(head * part, (head + 1) * part)
                share = torch.stack([q[i][own] @ each[own] / math.sqrt(part) for each in k]).softmax(0)
                mixed[own] = sum(s * each[own] for s, each in zip(share, v))
            x = norm(f"{at}.attention.output.LayerNorm", x + linear(f"{at}.attention.output.dense", mixed))
            inside = linear(f"{at}.intermediate.dense", x)
            inside = inside * (1 + torch.erf(inside / math.sqrt(2))) / 2
            after.append(norm(f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", inside)))
        states = after
    return torch.stack(states)


def test_it_is_the_textbooks_bert_and_padding_is_not_read(tiny):
    encoder, rows = MiniLM(tiny.weights), tiny.pieces.encode(["a red cat", "blue cats", ""])
    out = encoder.encode(rows)
    for row, states in zip(rows[:2], out):
        said = row[row > 0].tolist()
        torch.testing.assert_close(states[: len(said)], naive(tiny.weights, said), atol=2e-5, rtol=1e-4)
        assert not states[len(said) :].any()
    assert not out[2].any()
    torch.testing.assert_close(encoder.read(rows), out, atol=3e-3, rtol=1e-3)  # in half precision


def test_a_caption_is_read_alone_and_once(tiny, monkeypatch):
    encoder, rows = MiniLM(tiny.weights), tiny.pieces.encode(["a red cat", "blue", "a red cat", ""])
    reads, read = [], MiniLM.encode
    monkeypatch.setattr(MiniLM, "encode", lambda self, pieces: reads.append(pieces.shape) or read(self, pieces))
    together = encoder.read(rows)
    assert reads == [(1, 5), (1, 3), (1, 1)] and torch.equal(encoder.read(rows[[1, 0]]), together[[1, 0]])
    assert len(reads) == 3 and torch.equal(MiniLM(tiny.weights).read(rows[:1]), together[:1])


@pytest.mark.skipif(not (ROOT / "data/minilm/model.safetensors").is_file(), reason="its 91 MB have not been fetched")
def test_the_real_files_give_the_numbers_of_transformers():
    pretrained = minilm.load(ROOT / "data")  # against BertModel of transformers 5, with the same files
    rows = pretrained.pieces.encode(["noto grinning face, happy", "a woman in a green coat, oil on canvas", "zzyzx"])
    assert rows[1, :13].tolist() == [101, 1037, 2450, 1999, 1037, 2665, 5435, 1010, 3514, 2006, 10683, 102, 0]
    out = MiniLM(pretrained.weights).encode(rows)
    first = [
        [-0.1371, 0.0896, -0.0311, -0.2129],
        [-0.4567, -0.147, 0.3166, -0.0197],
        [-0.7861, 0.7903, -0.1381, -0.0874],
    ]
    torch.testing.assert_close(out[:, 1, :4], torch.tensor(first), atol=1e-4, rtol=0)
    norms = out.square().sum((1, 2)).sqrt()
    torch.testing.assert_close(norms, torch.tensor([25.9348, 31.0514, 22.3506]), atol=1e-3, rtol=0)


# --- Pieces of words ---


def test_any_word_is_spelled_and_nothing_is_only_padding(tiny):
    rows = tiny.pieces.encode(["A red cat", "blue CATS zebz", "", "  "])
    assert rows.shape == (4, 32) and rows[0, :6].tolist() == [2, 4, 5, 7, 3, 0]
    assert rows[1, :10].tolist() == [2, 6, 7, 8, 14, 12, 10, 13, 3, 0] and not rows[2:].any()
    assert tiny.pieces.decode(rows)[0] == "a red cat"


def test_what_is_too_long_is_cut_in_training_and_refused_in_a_prompt(tiny):
    long = "red " * 31
    with pytest.raises(UserError, match="at most 30 pieces of words, not 31"):
        tiny.pieces.encode([long])
    (row,) = tiny.pieces.encode([long], cut=True)
    assert row.tolist() == [2, *[5] * 30, 3]


def test_a_data_set_is_spelled_and_stays_what_it_was(tiny):
    words = ("", "a", "blue", "cat", "red")
    rows, images = encode(["a red cat", "a blue cat"], words, 4), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    data = Dataset("folder", images, rows, words)
    told = spelled(data, tiny.pieces)
    assert torch.equal(told.labels, tiny.pieces.encode(["a red cat", "a blue cat"]))
    assert told.fingerprint == told.whole(1).fingerprint == data.fingerprint  # so a run may go on from a stream
    stream = SpelledStream(data, tiny.pieces)
    assert torch.equal(stream.whole().labels, told.labels) and stream.fingerprint == data.fingerprint


# --- A model that reads with it ---


def test_it_is_frozen_and_not_in_the_weight_file(tiny, tmp_path):
    model = configure(**TINY, caption_length=32, shape=(3, 16, 16))
    network = model.experiment.denoiser.network
    assert isinstance(network.encoder, FrozenEncoder) and network.encoder.project[1].in_features == WIDTH
    assert not any("minilm" in name or "word_embeddings" in name for name in network.state_dict())
    path = model.save(tmp_path / "reader.pth")
    content = torch.load(path, weights_only=True)
    assert content["text_encoder"] == minilm.DIGESTS["model.safetensors"]
    assert torch.equal(load(path).sample(1, prompt="zebz", seed=1), model.sample(1, prompt="zebz", seed=1))
    torch.save(content | {"text_encoder": "0" * 64}, path)
    with pytest.raises(UserError, match=f"need the text encoder of sha256 {'0' * 64}, which is not here"):
        load(path)


def pictures(folder, count=40):
    """Red and blue pictures with captions."""
    folder.mkdir()
    lines = []
    for number in range(count):
        colour = ("red", "blue")[number % 2]
        Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
        lines.append(f'{{"file_name": "{number}.png", "text": "a {colour} cat"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_a_training_is_resumed_to_the_same_bits_and_understands_words_it_never_saw(tiny, tmp_path):
    words = [
        "--config",
        ROOT / "configs/text_emoji.yaml",
        "--data.dataset=folder",
        "--data-root",
        pictures(tmp_path / "p"),
    ]
    words += ["--network.text_encoder=minilm", "--network.hidden=[8,16]", "--train.batch_size=8", "--device", "cpu"]
    words += ["--train.sheet_steps=[2]", "--sample.count=2", "--sample.steps=2"]
    whole = run("src", "train", *words, "--steps", 4, "--out", tmp_path / "a")
    assert whole.returncode == 0, whole.stderr
    assert run("src", "train", *words, "--steps", 4, "--limit-steps", 3, "--out", tmp_path / "b").returncode == 0
    resumed = run("src", "train", *words, "--steps", 4, "--resume", "--out", tmp_path / "b")
    assert resumed.returncode == 0, resumed.stderr
    paths = [next((tmp_path / each / "runs").glob("*/*.pth")) for each in "ab"]
    a, b = map(load, paths)
    state, other = (each.experiment.denoiser.network.state_dict() for each in (a, b))
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert a.config.words == () and a.experiment.about["examples"][0].startswith("a ")
    prompt = ["--weights", paths[0], "--prompt", "zebz cats", "--steps", 2, "--device", "cpu"]
    assert run("src", "generate", *prompt, "--count", 2, "--out", tmp_path / "x.png").returncode == 0
    test = load_data("folder", "test", tmp_path / "p")
    start = ["--from", "test", "--count", 1, "--seed", 3, "--data-root", tmp_path / "p", "--out", tmp_path / "x.npy"]
    done = run("src", "generate", "--weights", paths[0], "--steps", 2, "--device", "cpu", *start)
    assert done.returncode == 0, done.stderr
    (said,) = decode(test.labels[:1], test.classes)
    given = {"labels": said, "originals": test.images[:1], "seed": 3}
    drawn = generate(a.experiment, torch.arange(1), SamplingOptions(steps=2), **given)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), drawn, atol=1e-5, rtol=0)
    with running(weights=(str(paths[0]),)) as server:
        (entry,) = server.get("/v1/models").json()["data"]
        assert entry["prompts"] and entry["words"] == []
        body = {"prompt": "zebz cats", "negative_prompt": "blue", "guidance_scale": 3, "steps": 2, "seed": 1}
        assert server.post("/v1/images/generations", json=body).status_code == 200
        refused = server.post("/v1/images/generations", json=body | {"prompt": "red " * 31})
        assert refused.status_code == 422 and "at most 30 pieces" in refused.json()["detail"]
