"""The checkers of obedience against pictures and views of which everything is known."""

from dataclasses import replace
from random import Random

import pytest
import torch
from in_process import DATA, ROOT

from diffusion.data import digits
from diffusion.data.glyphs import components, count_components
from diffusion.data.scenes import COLOURS, GROUNDS, KINDS, draw, redraw, twin
from diffusion.metrics.features import extractor_for
from diffusion.metrics.obedience import ATTRIBUTES, Seen, Share, View, check, diversity, look, shares, twins, unmix

SCENES = [draw(9, index, None, kind) for kind in KINDS for index in range(40)]


def view_of(scene):
    """What a perfect eye sees, in an order that says nothing."""
    seen = [Seen(each.digit, each.colour, each.size, each.centre) for each in scene.digits]
    return View(scene.ground, Random(0).sample(seen, len(seen)))


@pytest.fixture(scope="module")
def source():
    kept, digits.HANDWRITTEN = digits.HANDWRITTEN, 1000
    made = digits.Digits(digits.handwritten("test", DATA[1]))
    digits.HANDWRITTEN = kept
    return made


def pictures(source, scenes):
    return torch.stack([torch.from_numpy(source.render(scene)) for scene in scenes]) / 255


def test_a_perfect_picture_has_all_right_in_whatever_order_its_digits_are_found():
    for scene in SCENES:
        assert all(check(view_of(scene), scene).values())


def test_what_is_said_is_judged_and_nothing_else():
    for scene in SCENES:
        verdict = check(view_of(scene), scene)
        assert set(verdict) <= set(ATTRIBUTES) and not scene.unsaid & set(verdict)
        assert ("relation" in verdict) is bool(scene.relations)


@pytest.mark.parametrize("what", ["digit", "colour", "size", "ground", "count"])
def test_one_thing_wrong_is_found_and_alone(what):
    for scene in SCENES:
        if what in scene.unsaid or (what == "size" and len(scene.digits) > 2):
            continue
        first, *others = scene.digits
        wrong = {
            "digit": (first.digit + 1) % 10,
            "colour": next(each for each in COLOURS if each not in {d.colour for d in scene.digits}),
            "size": "small" if first.size == "large" else "large",
        }
        view = view_of(scene)
        if what == "ground":
            view = View(next(each for each in GROUNDS if each != scene.ground), view.digits)
        elif what == "count":
            view = View(view.ground, view.digits[:-1])
        else:
            moved = replace(first, **{what: wrong[what]}) if what != "size" else first
            seen = [Seen(d.digit, d.colour, d.size, d.centre) for d in (moved, *others)]
            seen[0] = seen[0]._replace(size=wrong["size"]) if what == "size" else seen[0]
            view = View(view.ground, seen)
        verdict = check(view, scene)
        assert not verdict[what]
        if what not in ("count", "digit"):  # another digit may match another place better
            assert [each for each, right in verdict.items() if not right] == [what]


def test_a_bag_of_words_is_caught_by_twins():
    pairs = [scene for scene in SCENES if scene.kind == "two" and len({(d.digit, d.colour) for d in scene.digits}) == 2]
    verdicts = [check(view_of(scene), scene) for scene in pairs]
    same_picture = [check(view_of(scene), twin(scene)) for scene in pairs]  # drawn for either prompt
    redrawn = [check(view_of(redraw(twin(scene), 0)), twin(scene)) for scene in pairs]
    assert twins(verdicts, same_picture).right == 0 and twins(verdicts, redrawn).right == len(pairs) > 20


def test_a_scene_drawn_again_has_the_same_caption_and_is_true_to_it():
    for scene in SCENES:
        again = redraw(scene, 3)
        assert again.caption == scene.caption and all(check(view_of(again), scene).values())
        assert again.digits != scene.digits and redraw(scene, 3) == again != redraw(scene, 4)


def test_a_mixture_of_a_colour_with_the_ground_is_unmixed():
    grounds = torch.tensor([*GROUNDS.values()]).float()
    palette = torch.tensor([*COLOURS.values()]).float()
    for share in (0.5, 0.8, 1.0):
        pixels = grounds[:, None] + share * (palette - grounds[:, None])  # (grounds, colours, 3)
        ink, colour = unmix(pixels.mT[:, :, None], grounds)
        torch.testing.assert_close(ink, torch.full((len(grounds), 1, len(palette)), share))
        assert (colour == torch.arange(len(palette))).all()


def test_components_touch_diagonally_and_are_counted():
    mask = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]]).bool()
    spiral = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1]]).bool()
    spiral[3, 1:4] = True
    assert count_components(torch.stack([mask, spiral, torch.zeros_like(mask)])).tolist() == [4, 1, 0]
    labels = components(mask[None])[0]
    assert labels[0, 0] == labels[1, 1] > 0 and (labels > 0).equal(mask)


@pytest.mark.parametrize("kind", KINDS)
def test_real_pictures_pass_and_those_of_others_do_not(source, kind):
    scenes = [draw(11, index, None, kind) for index in range(40)]
    views = look(pictures(source, scenes), extractor_for("MNIST-crops", ROOT / "weights"))
    right = shares([check(view, scene) for view, scene in zip(views, scenes)])
    assert right["count"] == (40, 40) and right["all right"].value >= 0.85
    for what in {"colour", "size", "place", "relation", "ground"} & set(right):
        assert right[what].value >= 0.95 * right["digit"].value
    chance = shares([check(view, scene) for view, scene in zip(views[1:] + views[:1], scenes)])
    assert chance["all right"].value < 0.1


def test_an_empty_picture_shows_its_ground_alone(source):
    reader = extractor_for("MNIST-crops", ROOT / "weights")
    empty = torch.tensor(GROUNDS["navy"]).view(1, 3, 1, 1).expand(2, 3, 32, 32) / 255
    assert look(empty, reader) == [View("navy", [])] * 2
    noisy = (empty + 0.02 * torch.randn(empty.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert look(noisy, reader) == [View("navy", [])] * 2


def test_the_interval_is_wilsons():
    low, high = Share(9, 10).interval  # the textbook's 0.596 and 0.982
    assert abs(low - 0.596) < 1e-3 and abs(high - 0.982) < 1e-3
    assert Share(0, 10).interval[0] == pytest.approx(0, abs=1e-12) and Share(10, 10).interval[1] == pytest.approx(1)


def test_diversity_is_the_mean_rmse_of_pairs():
    images = torch.rand(3, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(images[p, i] - images[p, j]).square().mean().sqrt() for p in range(3) for i in range(4) for j in range(i)]
    assert diversity(images) == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-4)
    assert diversity(images[:, :1].expand(3, 4, 3, 5, 5)) == pytest.approx(0, abs=1e-3)
