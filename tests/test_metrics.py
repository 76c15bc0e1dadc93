"""The scores are their formulas, of any batch size, and unfit images get none."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion import files
from diffusion.data import datasets as data
from diffusion.errors import UserError
from diffusion.metrics import features as features_room
from diffusion.metrics import scores as metrics
from diffusion.metrics.features import Extractor, as_bytes
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score
from diffusion.networks import classifier

ROOT = Path(__file__).parents[1]
SHAPE, DIM, CLASSES = (1, 4, 3), 12, 5


def flat(sha256: str = "f1a7") -> Extractor:
    """An extractor with nothing to hide: its features are the pixels / 255, its logits a fixed mixture of them."""
    mixture = torch.linspace(-3, 3, DIM * CLASSES).sin().view(DIM, CLASSES) * 60

    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        features = images.flatten(1) / 255
        return features, features @ mixture

    return Extractor("pixels", sha256, DIM, "nothing", SHAPE, torch.device("cpu"), look)


def pictures(n: int, seed: int = 0, high: int = 200) -> Tensor:
    """n random uint8 images with correlated pixels."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(n, *SHAPE, generator=draw).cumsum(2) / 4 * high).byte()


def features(images: Tensor) -> np.ndarray:
    return (images.flatten(1).double() / 255).numpy()


# --- The formulas ---


def test_fid_is_the_frechet_distance_of_two_gaussians():
    a, b = pictures(300, 1, high=120), pictures(500, 2)
    (m_a, m_b), (s_a, s_b) = zip(*((f.mean(0), np.cov(f, rowvar=False)) for f in (features(a), features(b))))
    expected = ((m_a - m_b) ** 2).sum() + np.trace(s_a + s_b - 2 * scipy.linalg.sqrtm(s_a @ s_b).real)
    assert score(a, Reference.of(flat(), b)).fid == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


def test_fid_is_symmetric():
    a, b = pictures(300, 1, high=120), pictures(500, 2)
    assert score(a, Reference.of(flat(), b)).fid == pytest.approx(score(b, Reference.of(flat(), a)).fid, rel=1e-6)


def test_fid_of_a_shift_is_its_square_and_of_no_shift_zero():
    a = pictures(200)
    reference = Reference.of(flat(), a)
    assert score(a, reference).fid == pytest.approx(0, abs=1e-6)
    assert score(a + 51, reference).fid == pytest.approx(DIM * 0.2**2, rel=1e-5)


@pytest.mark.parametrize(
    "images",
    [pictures(1).expand(50, *SHAPE), pictures(2), pictures(DIM // 2), torch.zeros(50, *SHAPE, dtype=torch.uint8)],
    ids=["all equal", "two", "fewer than features", "black"],
)
def test_degenerate_images_still_get_finite_scores(images):
    for real in (images, pictures(100, 3)):
        result = score(images, Reference.of(flat(), real))
        numbers = torch.tensor(result[:5])
        assert numbers.isfinite().all() and result.fid >= 0 and result.inception_score >= 1 - 1e-9


def test_inception_score_is_its_formula():
    images, seed = pictures(203), 5
    _, logits = flat()(images)
    order = torch.randperm(203, generator=torch.Generator().manual_seed(seed))
    p = scipy.special.softmax(logits.double().numpy()[order], 1)
    parts = [p[i : i + 21] for i in range(0, 203, 21)]
    each = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in parts]
    result = score(images, Reference.of(flat(), images), seed=seed)
    assert (result.inception_score, result.inception_score_sd) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert result.inception_score > 1.1


def test_kid_is_the_unbiased_mmd_of_a_cubic_kernel():
    a, b = pictures(60, 1, high=150), pictures(60, 2)  # one draw of 60 is all of them
    x, y = features(a), features(b)
    k = lambda u, v: (u @ v.T / DIM + 1) ** 3
    off = lambda m: (m.sum() - np.trace(m)) / (60 * 59)
    expected = off(k(x, x)) + off(k(y, y)) - 2 * k(x, y).mean()
    result = score(a, Reference.of(flat(), b))
    assert (result.kid, result.kid_sd) == (pytest.approx(expected, rel=1e-3), pytest.approx(0, abs=1e-6))


def test_kid_is_near_zero_for_the_same_distribution_only(monkeypatch):
    monkeypatch.setattr(metrics, "SUBSETS", 20)  # 100 take seconds
    reference = Reference.of(flat(), pictures(3000, 1))
    same, other = score(pictures(2000, 2), reference), score(pictures(2000, 3, high=150), reference)
    assert abs(same.kid) < 2 * same.kid_sd < other.kid / 10


# --- What must not matter ---


def test_nothing_depends_on_the_batch_size():
    eye, (images, _) = shipped("MNIST"), real("MNIST", "test", 300)
    reference = Reference.of(eye, images[150:])
    alone, together = (score(images[:150], reference, batch_size=size) for size in (7, 150))
    assert alone[:5] == pytest.approx(together[:5], rel=1e-4)


def test_floats_and_bytes_of_an_image_score_the_same():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for kind in (torch.float32, torch.float64):
        assert torch.equal(as_bytes(every.to(kind) / 255), every)
    images, reference = pictures(50), Reference.of(flat(), pictures(60, 1))
    assert score(images.float() / 255, reference) == score(images, reference)


def test_a_score_depends_on_its_seed_and_leaves_the_global_generator_alone():
    images, reference = pictures(100), Reference.of(flat(), pictures(200, 1))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = score(images, reference)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert score(images, reference) == first != score(images, reference, seed=1)


def test_a_callers_autocast_does_not_change_the_scores():
    eye, (images, _) = shipped("MNIST"), real("MNIST", "test", 300)
    with torch.autocast("cpu", torch.bfloat16):
        inside = score(images[:100], Reference.of(eye, images[100:]))
    assert inside == score(images[:100], Reference.of(eye, images[100:]))


# --- What is refused, and what is said ---


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(9, *SHAPE) - 0.5, r"from -0\..* decoded first"),
        (torch.rand(9, *SHAPE) * 2 - 1, r"from -0\..* to 0\..*decoded"),
        (torch.rand(9, *SHAPE) * 255, r"from .* to 2..\..*decoded"),
        (torch.full((9, *SHAPE), 1 + 1e-5), "from 1.00001 to 1.00001"),
        (torch.full((9, *SHAPE), -1e-5), "from -1e-05"),
        (torch.rand(9, *SHAPE).index_fill(0, torch.tensor(4), torch.nan), "from nan to nan"),
        (torch.rand(9, *SHAPE).index_fill(0, torch.tensor(4), torch.inf), "inf"),
        (pictures(9).long(), "int64"),
        (pictures(9)[0], r"\(N, C, H, W\)"),
        (torch.rand(9, 1, 8, 8), r"knows only \(1, 4, 3\)"),
        (pictures(1), "at least 2"),
    ],
)
def test_unfit_images_are_refused_by_every_door(images, said):
    reference = Reference.of(flat(), pictures(30))
    doors = [lambda: score(images, reference), lambda: floor(images, reference), lambda: Reference.of(flat(), images)]
    for door in doors:
        with pytest.raises(UserError, match=said):
            door()


def test_a_rounding_error_beyond_the_range_is_let_in_and_floats_are_rounded():
    assert as_bytes(torch.tensor([-5e-7, 1 + 5e-7]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]
    assert as_bytes(torch.tensor([9.6, 10.4]).view(1, 1, 1, 2) / 255).flatten().tolist() == [10, 10]  # to the nearest


def test_a_score_says_what_it_was_measured_with_and_warns_of_few_images():
    reference = Reference.of(flat(), pictures(99))
    few, enough = score(pictures(2 * DIM - 1), reference), score(pictures(2 * DIM), reference)
    assert (few.n, few.n_reference, few.extractor, few.sha256) == (2 * DIM - 1, 99, "pixels", "f1a7")
    assert f"{2 * DIM - 1} images are too few" in few.warning and few.warning in str(few)
    assert enough.warning == ""
    assert floor(pictures(50), reference, 30).n == 30


# --- The cache of a reference ---


def test_a_reference_is_measured_once(tmp_path):
    def blind(images):
        raise AssertionError("looked again")

    images = pictures(80)
    first = Reference.of(flat(), images, tmp_path)
    again = Reference.of(Extractor(**{**vars(flat()), "forward": blind}), images, tmp_path)
    assert score(images, replace(again, extractor=flat())) == score(images, first)
    for eye, other in ((flat(), pictures(80, 1)), (flat("other"), images), (flat(), images[:-1])):
        with pytest.raises(AssertionError, match="looked again"):
            Reference.of(Extractor(**{**vars(eye), "forward": blind}), other, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])  # a damaged one is measured again, and mended
    assert torch.equal(Reference.of(flat(), images, tmp_path).fid.real_features_sum, first.fid.real_features_sum)
    assert files.load(path)["kind"] == "reference"
    files.save(path, {"kind": "reference", "n": 80, "sum": first.features, "features": first.features})  # as once made
    assert score(images, Reference.of(flat(), images, tmp_path)) == score(images, first)


def test_a_reference_keeps_some_features_and_shows_its_progress(monkeypatch):
    monkeypatch.setattr(metrics, "KEPT", 40)
    seen = []
    reference = Reference.of(flat(), pictures(1100), progress=lambda parts: seen.extend(map(len, parts)) or parts)
    assert (seen, reference.n, len(reference.features)) == ([500, 500, 100], 1100, 40)
    every = {tuple(row) for row in flat()(pictures(1100))[0].tolist()}
    assert {tuple(row) for row in reference.features.tolist()} <= every


# --- The shipped classifiers ---


def real(name: str, split: str, n: int | None = None) -> tuple[Tensor, Tensor]:
    try:
        dataset = data.load(name, split, ROOT / "data")
    except UserError as error:
        pytest.skip(str(error))
    return dataset.images[:n], dataset.labels[:n]


def shipped(name: str) -> Extractor:
    return features_room.extractor_for(name, ROOT / "weights")


@pytest.mark.parametrize(("name", "short", "least"), [("MNIST", "mnist", 0.994), ("FashionMNIST", "fashion", 0.92)])
def test_a_shipped_classifier_is_as_good_as_its_file_says(name, short, least):
    path = ROOT / "weights" / f"classifier_{name}.pth"
    facts = torch.load(path, weights_only=True)
    images, labels = real(name, "test")
    eye = features_room.extractor_for(short, ROOT / "weights")
    assert agreement(eye, images, labels) == pytest.approx(facts["accuracy"], abs=2e-4)  # other CPUs round otherwise
    assert facts["accuracy"] >= least and facts["n_test"] == len(images)
    assert path.stat().st_size < 1e6 and eye.sha256 == files.sha256(path) and eye.dataset == name


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_the_shipped_features_notice_what_the_label_does_not(name, monkeypatch):
    monkeypatch.setattr(metrics, "SUBSETS", 1)  # the KID, which nobody reads here, would take most of the time
    eye, (images, labels) = shipped(name), real(name, "test", 500)
    reference = Reference.of(eye, real(name, "train", 1500)[0])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(images / 255 + level * noise).clamp(0, 1) for level in (0, 0.05, 0.1)]
    clean, some, more = (score(x, reference).fid for x in noisy)
    assert 3 * clean < some < more / 2
    assert score(F.avg_pool2d(images / 255, 3, 1, 1), reference).fid > 3 * clean
    assert agreement(eye, noisy[1], labels) > 0.85


# --- Refusals of extractors, and Inception ---


def test_what_is_no_extractor_is_refused_in_one_sentence(tmp_path):
    other = files.save(tmp_path / "x.pth", {"kind": "diffusion"})
    absent = str(tmp_path / "none.pth")
    cases = {"minst": "did you mean 'mnist'", "mnist": "train-classifier"}
    cases |= {str(other): "is not a classifier", absent: "there is no file"}
    for features, said in cases.items():
        with pytest.raises(UserError, match=said) as error:
            features_room.extractor_for(features, tmp_path)
        assert "\n" not in str(error.value)


def test_inception_that_cannot_be_had_says_what_to_put_where(tmp_path, monkeypatch):
    torch_home = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    try:
        for url, said in [("http://127.0.0.1:9/x.pth", "refused"), (f"file://{__file__}", "invalid hash")]:
            monkeypatch.setattr(features_room, "INCEPTION_URL", url)
            with pytest.raises(UserError, match=f"{said}.* put pt_inception-2015-12-05-6726825d.pth .* into 'w'"):
                features_room.extractor_for("inception", "w")
        assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []
    finally:
        torch.hub.set_dir(torch_home)


def test_a_file_that_is_not_inception_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").write_text, ("!",))

    path = tmp_path / features_room.INCEPTION_FILE
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError, match="is not FID's Inception-v3: its sha256"):
        features_room.extractor_for("inception", inception_weights=path)
    with pytest.raises(UserError, match="is not FID's Inception-v3: its sha256"):
        features_room.extractor_for("inception", tmp_path)  # found there, and checked as well
    monkeypatch.setattr(features_room, "INCEPTION_SHA256", files.sha256(path))
    with pytest.raises(UserError, match="weight file|could run code"):  # even with the right hash nothing in it is run
        features_room.extractor_for("inception", inception_weights=path)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UserError, match="there is no file"):
        features_room.extractor_for("inception", inception_weights=tmp_path / "none.pth")


def test_inception_sees_grey_images_as_rgb(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            """Keep the random weights."""

    torch.save({}, nothing := io.BytesIO())
    nothing.seek(0)
    network = Random("random", ["2048", "logits_unbiased"], nothing)
    path = tmp_path / "random.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(features_room, "INCEPTION_SHA256", files.sha256(path)[:8])
    eye = features_room.extractor_for("inception", inception_weights=path)
    grey = (torch.rand(3, 1, 28, 28) * 255).byte()
    for seen, expected in zip(eye(grey / 255), network(grey.repeat(1, 3, 1, 1))):
        torch.testing.assert_close(seen, expected, rtol=1e-3, atol=0)  # the features of random weights are tiny
    assert (eye.dim, eye.name) == (2048, "Inception-v3 (2048-d)")
    with pytest.raises(UserError, match="knows only grey and RGB"):
        eye(torch.rand(2, 4, 28, 28))
    with pytest.raises(UserError, match="does not know the labels"):
        agreement(eye, grey, torch.zeros(3))


def test_agreement_is_the_share_of_right_labels():
    images = pictures(40)
    labels = flat()(images)[1].argmax(1)
    labels[:10] = (labels[:10] + 1) % CLASSES
    assert agreement(flat(), images, labels) == 0.75
    assert classifier.FEATURES == 128
