"""The same numbers give the same answer whatever holds them; what is as good as none is refused in one sentence."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from test_metrics import CLASSES, flat, pictures

from diffusion import configure
from diffusion.errors import UserError
from diffusion.method.arrays import as_tensor
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.features import as_bytes
from diffusion.metrics.likeness import agreement, likeness
from diffusion.metrics.scores import Reference, floor, score

IMAGES = pictures(40)
LABELS = flat()(IMAGES)[1].argmax(1)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {  # of an array, its values unchanged
    "array": lambda x: x,
    "negative strides": lambda x: x[..., ::-1].copy()[..., ::-1],
    "first axis backwards": lambda x: x[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": read_only,
    "every other": lambda x: x.repeat(2, 0)[::2],
    "list of arrays": list,
    "list of tensors": lambda x: list(torch.from_numpy(x)),
    "tuple of lists": lambda x: tuple(x.tolist()),
    "strided tensor": lambda x: torch.from_numpy(x.T.copy()).permute(*reversed(range(x.ndim))),
    "sparse tensor": lambda x: torch.from_numpy(x).to_sparse(),
}


@pytest.fixture(scope="module")
def model():
    settings = {"shape": (1, 8, 8), "network": "unet", "hidden": (8, 8), "classes": 10}
    model = configure(**settings, schedule="rectified", target="velocity")
    for parameter in model.experiment.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_an_array_does_not_matter(layout, model):
    change, reference = LAYOUTS[layout], Reference.of(flat(), pictures(60, 1))
    floats = (IMAGES.float() / 255).numpy()
    with warnings.catch_warnings(action="error"):  # torch warns of what it must not write to, and of slow lists
        assert torch.equal(as_bytes(change(floats)), IMAGES)
        assert agreement(flat(), IMAGES, change(LABELS.numpy())) == 1
    if layout != "tuple of lists":  # whole numbers in a list are no uint8
        assert torch.equal(as_bytes(change(IMAGES.numpy())), IMAGES)
    assert score(change(floats), reference) == score(IMAGES, reference)
    rng = np.random.default_rng(0)
    x, t, label = rng.random((3, 1, 8, 8), np.float32), np.array([0.2, 0.5, 0.7]), np.array([3, 1, 4])
    expected, _ = model.forward_diffusion(x, t)
    assert torch.equal(model.forward_diffusion(change(x), change(t))[0], expected)
    assert torch.equal(model.denoise(change(x), change(t), change(label)), model.denoise(x, t, label))
    assert torch.equal(model.sample(3, change(label), steps=2), model.sample(3, label, steps=2))
    assert torch.equal(model.decode(change(x)), model.decode(torch.from_numpy(x)))
    ends = model.edit.interpolate(change(x[0]), 3, count=2, steps=2)
    assert torch.equal(ends, model.edit.interpolate(x[0], 3, count=2, steps=2))
    mask = np.triu(np.ones((8, 8)))
    filled = model.edit.inpaint(change(x), change(mask), change(label), steps=2, resample=1)
    assert torch.equal(filled, model.edit.inpaint(x, mask, label, steps=2, resample=1))


@pytest.mark.parametrize("order", "<>")
def test_16_bit_pictures_are_divided_by_65535(order, model):
    grey = np.array(Image.fromarray(IMAGES[0, 0].numpy().astype("u2") * 257))  # 255 becomes 65,535
    assert torch.equal(as_bytes(grey.astype(f"{order}u2")[None, None]), IMAGES[:1])
    wide = np.random.default_rng(0).integers(0, 65_536, (2, 1, 8, 8)).astype(f"{order}u2")
    expected = model.edit.vary(torch.from_numpy(wide.astype("f4")) / 65_535, steps=2)
    assert torch.equal(model.edit.vary(wide, steps=2), expected)
    holes = model.edit.inpaint(wide, np.eye(8), steps=2, resample=1)
    assert torch.equal(holes[:, :, 0, 1:], torch.from_numpy(wide.astype("f4") / 65_535)[:, :, 0, 1:])


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool])
def test_images_of_0_and_1_are_asked_what_they_mean(kind, model):
    reference = Reference.of(flat(), IMAGES)
    binary, small = (IMAGES > 100).to(kind), (torch.rand(2, 1, 8, 8) > 0.5).to(kind)
    doors = [lambda: score(binary, reference), lambda: neighbours(binary, IMAGES), lambda: Reference.of(flat(), binary)]
    for door in [
        *doors,
        lambda: model.restore(small),
        lambda: model.bits_per_dim(small),
        lambda: model.edit.vary(small),
    ]:
        with pytest.raises(UserError, match=r"of 0 and 1 alone, hand in images\.float\(\), or 255 \* images"):
            door()
    assert score(binary.float(), reference) == score(255 * binary.byte(), reference)


@pytest.mark.parametrize("how", ["meta", "nested", "quantized", "complex", "complex array"])
def test_what_holds_no_plain_numbers_is_refused_in_one_sentence(how, model):
    x = torch.rand(2, 1, 8, 8)
    odd = {
        "meta": lambda: x.to("meta"),
        "nested": lambda: torch.nested.nested_tensor([x[0], x[1, :, :4]]),
        "quantized": lambda: torch.quantize_per_tensor(x, 0.01, 0, torch.quint8),
        "complex": lambda: x.to(torch.complex64),
        "complex array": lambda: x.numpy().astype("c8"),
    }
    with warnings.catch_warnings(action="ignore"):  # that such tensors are new, or old
        odd = odd[how]()
    for door in (
        lambda: model.edit.vary(odd, steps=2),
        lambda: model.denoise(odd, 0.5),
        lambda: model.decode(odd),
        lambda: model.denoise(x, odd),
        lambda: model.sample(2, odd, steps=2),
        lambda: model.edit.inpaint(x, odd, steps=2),
        lambda: as_bytes(odd),
    ):
        with pytest.raises(UserError) as error:
            door()
        assert "\n" not in str(error.value)


def test_8_bit_floats_and_images_with_a_gradient_are_images(model):
    x = torch.rand(2, 1, 8, 8)
    eighths = x.to(torch.float8_e4m3fn)
    assert torch.equal(model.edit.vary(eighths, steps=2), model.edit.vary(eighths.float(), steps=2))
    for draw in (model.edit.vary, lambda x, steps: model.edit.inpaint(x, np.eye(8), steps=steps, resample=1)):
        assert not draw(x.clone().requires_grad_(), steps=2).requires_grad


def test_a_read_only_view_of_a_picture_is_an_image_and_stays_as_it_is():
    picture = Image.fromarray(IMAGES[0, 0].numpy())
    view = np.asarray(picture)
    assert not view.flags.writeable
    with warnings.catch_warnings(action="error"):
        assert torch.equal(as_bytes(view[None, None]), IMAGES[:1])
    assert torch.equal(as_tensor(0.1, "", torch.float64), torch.tensor(0.1, dtype=torch.float64))


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS[:1], LABELS[:-1], LABELS.float(), LABELS > 2, LABELS - 9, LABELS[0], 3, None]
    + ["digits", ["a"] * 40, np.eye(40), [[1], [2, 3]], LABELS.numpy().astype(object), {1, 2}],
)
def test_labels_are_one_integer_for_each_image(labels):
    for ask in (agreement, lambda eye, x, y: likeness(eye, x, x, y)):
        with pytest.raises(UserError, match="^labels are integers from 0, one for each image") as error:
            ask(flat(), IMAGES, labels)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "u8", ">i8"])
def test_labels_of_every_kind_of_integer_are_the_same(kind):
    wrong = (LABELS + 1) % CLASSES
    assert agreement(flat(), IMAGES, LABELS.numpy().astype(kind)) == 1
    assert agreement(flat(), IMAGES, wrong.numpy().astype(kind)) == 0


def test_what_cannot_be_measured_is_one_sentence():
    reference, few = Reference.of(flat(), pictures(60, 1)), "needs 4 images and as many real ones: 3"
    for door, said in {
        lambda: coverage(IMAGES[:3], reference): few,
        lambda: coverage(IMAGES, Reference.of(flat(), IMAGES[:3])): few,
        lambda: coverage(IMAGES, reference, k=0): "k must be a whole number of at least 1",
        lambda: score(IMAGES, reference, batch_size=0): "batch_size must be a whole number of at least 1, not 0",
        lambda: score(IMAGES, reference, seed=0.5): "a seed must be",
        lambda: flat()(IMAGES, -1): "batch_size must be",
        lambda: score(IMAGES[:0], reference): "no images",
        lambda: agreement(flat(), IMAGES[:0], LABELS[:0]): "no images",
        lambda: likeness(flat(), IMAGES[:3], IMAGES, LABELS[:3]): "each image needs its original",
        lambda: neighbours(IMAGES, IMAGES[:0]): "of the same shape",
        lambda: neighbours(torch.rand(2, 1, 8, 8), IMAGES): "of the same shape",
        lambda: score("digits", reference): "images must be a tensor, or as good as one, not 'digits'",
        lambda: floor(None, reference): "not None",
        lambda: score([IMAGES[0], IMAGES[0, :, 1:]], reference): "images must be a tensor",
        lambda: score(IMAGES.numpy().astype("i4"), reference): "uint8, uint16, or floats from 0 to 1, not torch.int32",
    }.items():
        with pytest.raises(UserError, match=said) as error:
            door()
        assert "\n" not in str(error.value)
    assert coverage(IMAGES[:4], reference) == coverage(list(IMAGES[:4].numpy()), reference)
