"""Captions as numbers, and the scenes that they are true of."""

from collections import Counter
from random import Random

import pytest

from diffusion.data import captions
from diffusion.data.scenes import (
    COLOURS,
    GAP,
    KINDS,
    LENGTH,
    OPPOSITE,
    PLACES,
    RULES,
    SIDE,
    WORDS,
    Scene,
    _distance,
    draw,
    is_held_out,
    relation,
    twin,
)
from diffusion.errors import UserError

SCENES = [draw(seed, index) for seed in (0, 1) for index in range(2000)]


def test_captions_are_read_back_as_they_were_written():
    said = [scene.caption for scene in SCENES]
    rows = captions.encode(said, WORDS, LENGTH)
    assert captions.decode(rows, WORDS) == said
    assert captions.encode(["A red, SEVEN!"], WORDS, LENGTH).equal(captions.encode(["a red seven"], WORDS, LENGTH))


def test_every_word_is_needed_and_the_longest_caption_fits():
    said = [draw(2, index).caption.split() for index in range(6000)]
    assert {word for words in said for word in words} == set(WORDS[1:])
    assert max(map(len, said)) == LENGTH


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("a larg three", "unknown word 'larg' — did you mean 'large'?"),
        ("a red elephant", "unknown word 'elephant' — did you mean 'left'?"),
        ("a " * 25, "a caption has at most 24 words, not 25"),
    ],
)
def test_a_caption_that_cannot_be_read_is_refused(caption, says):
    with pytest.raises(UserError) as error:
        captions.encode([caption], WORDS, LENGTH)
    assert str(error.value).startswith(says)


def test_a_refusal_lists_no_more_words_than_can_be_read():
    words = ("", *(f"word{number}" for number in range(3000)), "zebra")
    with pytest.raises(UserError) as error:
        captions.encode(["a"], ("", "zebra"), 3)
    assert "(allowed: zebra)" in str(error.value)
    with pytest.raises(UserError) as error:
        captions.encode(["zebr"], words, 3)
    assert "did you mean 'zebra'?" in str(error.value) and "(allowed: zebra, word" in str(error.value)
    assert str(error.value).endswith(", and 2,989 more)")


def test_a_scene_is_a_function_of_seed_and_index():
    assert [draw(0, index) for index in range(9)] == SCENES[:9]
    assert draw(0, 3) != draw(1, 3) != draw(1, 4)


def test_digits_lie_inside_and_apart_and_where_the_caption_says():
    for scene in SCENES:
        for i, each in enumerate(scene.digits):
            assert 0 <= each.top <= SIDE - each.side and 0 <= each.left <= SIDE - each.side
            for other in scene.digits[:i]:
                spots = (each.top, each.left), each.side, (other.top, other.left), other.side
                assert _distance(*spots) >= GAP
        centres = [each.centre for each in scene.digits]
        assert [relation(a, b) for a, b in zip(centres, centres[1:])][: len(scene.relations)] == [*scene.relations]
        if scene.place:
            (y, x), row_column = centres[0], divmod(PLACES.index(scene.place), 3)
            assert (int(3 * y / SIDE), int(3 * x / SIDE)) == row_column


def test_a_relation_and_its_opposite_say_the_same_and_the_diagonal_says_nothing():
    random = Random(0)
    for _ in range(200):
        a, b = ((random.uniform(0, 32), random.uniform(0, 32)) for _ in range(2))
        there, back = relation(a, b), relation(b, a)
        assert (OPPOSITE[there] == back) if there else back == ""
    assert (
        relation((0, 0), (3, 3)) == "" and relation((0, 0), (0, 3)) == "left of" and relation((3, 0), (0, 0)) == "below"
    )


def test_what_is_held_out_is_a_tenth_of_each_kind_and_fair_to_every_value():
    pairs = [(digit, colour) for digit in range(10) for colour in COLOURS if is_held_out((digit, colour))]
    places = [(digit, place) for digit in range(10) for place in PLACES if is_held_out((digit, place))]
    triples = [(a, r, b) for a in range(10) for r in ("left of", "above") for b in range(10) if is_held_out((a, r, b))]
    assert (len(pairs), len(places), len(triples)) == (8, 9, 20)
    often = lambda combinations, part: set(Counter(each[part] for each in combinations).values())
    assert often(pairs, 1) == often(places, 1) == {1}
    assert often(pairs, 0) == often(places, 0) == {1}
    assert often(triples, 0) == often(triples, 2) == {2}


def test_training_never_shows_what_is_held_out_but_every_value_of_it():
    seen = [draw(3, index, "seen") for index in range(3000)]
    shown = {each for scene in seen for each in scene.combinations}
    assert not any(map(is_held_out, shown))
    everything = {each for scene in (draw(4, index) for index in range(9000)) for each in scene.combinations}
    assert len({each for each in everything if not is_held_out(each)} - shown) < 9  # rare ones may be missed by chance
    assert all(draw(5, index, "unseen", kind).split == "unseen" for index in range(50) for kind in KINDS)


def test_simple_scenes_have_one_or_two_digits_of_six_colours_on_black():
    scenes = [draw(6, index, rules=RULES["digits-simple"]) for index in range(1000)]
    assert {scene.kind for scene in scenes} == {"one", "two"} and {scene.ground for scene in scenes} == {"black"}
    colours = {each.colour for scene in scenes for each in scene.digits}
    assert len(colours) == 6 and colours < set(COLOURS)


def test_a_pair_is_held_out_whichever_is_mentioned_first():
    for scene in SCENES:
        if scene.kind == "two":
            (a, b), (said,) = scene.digits, scene.relations
            turned = Scene("two", (b, a), (OPPOSITE[said],))
            assert turned.combinations == scene.combinations


def test_a_twin_has_the_same_words_and_another_meaning():
    pair = next(scene for scene in SCENES if scene.kind == "two" and scene.digits[0].digit != scene.digits[1].digit)
    other = twin(pair)
    assert sorted(other.caption.split()) == sorted(pair.caption.split()) and other.caption != pair.caption
    assert twin(other) == pair


def test_captions_say_what_scenes_show():
    for scene in SCENES:
        words = scene.caption.split()
        for each in scene.digits:
            assert "colour" in scene.unsaid or each.colour in words
        assert ("on" in words) is ("ground" not in scene.unsaid)
        assert words.count("of") + words.count("above") + words.count("below") == len(scene.relations)
