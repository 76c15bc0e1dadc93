"""Scenes of one to four coloured digits and the captions that are true of them: a function of (seed, index).

The caption is made from the scene, never read from text: whoever checks a picture asks the scene what it must show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

SIDE = 32  # pixels of a scene
GAP = 2  # pixels that always lie between two digits
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = {2: "two", 3: "three", 4: "four"}
COLOURS = {
    "red": (230, 25, 35),
    "green": (40, 190, 60),
    "blue": (50, 100, 255),
    "yellow": (250, 230, 40),
    "orange": (255, 135, 0),
    "purple": (175, 50, 220),
    "cyan": (50, 225, 235),
    "white": (255, 255, 255),
}
GROUNDS = {"black": (0, 0, 0), "grey": (112, 112, 112), "navy": (10, 10, 95), "maroon": (85, 5, 20)}
SIZES = {"small": 9, "large": 14}  # pixels of the longer side
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
PLACES = tuple(f"{row} {column}".strip() or "centre" for row in ROWS for column in COLUMNS)
OPPOSITE = {"left of": "right of", "above": "below", "right of": "left of", "below": "above"}
KINDS = {"one": 5, "two": 6, "count": 3, "groups": 3, "three": 4, "four": 4}  # and how often each is drawn
PLURALS = tuple("sixes" if digit == "six" else f"{digit}s" for digit in DIGITS)
GRAMMAR = "a an and at the on which is left right of above below"
SAID = {*GRAMMAR.split(), *" ".join(PLACES).split(), *COLOURS, *GROUNDS, *SIZES, *DIGITS, *PLURALS}
WORDS = ("", *sorted(SAID))  # the vocabulary of all captions; the first is the padding
LENGTH = 24  # words of the longest caption
Split = Literal["seen", "unseen"]


@dataclass(frozen=True)
class Rules:
    """What scenes are drawn from."""

    kinds: dict[str, int] = field(default_factory=KINDS.copy)  # and how often each is drawn
    colours: tuple[str, ...] = tuple(COLOURS)
    coloured: float = 0.6  # how often the ground is any of GROUNDS; else it is black


RULES = {  # by data set; the second is learnt in minutes
    "digits": Rules(),
    "digits-simple": Rules({"one": 4, "two": 6}, ("red", "green", "blue", "yellow", "orange", "purple"), 0.0),
}


@dataclass(frozen=True)
class Digit:
    """One digit of a scene. What the caption leaves unsaid is in `Scene.unsaid`."""

    digit: int
    colour: str  # of COLOURS
    size: str  # of SIZES
    top: int  # pixels; of the square of the size that it lies in
    left: int
    style: float  # in [0, 1): which of the handwritten digits it is

    @property
    def side(self) -> int:
        return SIZES[self.size]

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x) in pixels."""
        return _middle((self.top, self.left), self.side)


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the order in which its caption says it."""

    kind: str  # of KINDS
    digits: tuple[Digit, ...]
    relations: tuple[str, ...] = ()  # digit i is relations[i] digit i + 1
    place: str | None = None  # of a single digit
    ground: str = "black"
    unsaid: frozenset[str] = frozenset()  # of "size", "colour", "place", "ground"

    @property
    def combinations(self) -> set[tuple]:
        """What is combined: digit with colour, digit with place, digit with relation and digit."""
        found: set[tuple] = {(each.digit, each.colour) for each in self.digits}
        found |= {(self.digits[0].digit, self.place)} if self.place else set()
        for first, relation, second in zip(self.digits, self.relations, self.digits[1:]):
            turned = relation in ("right of", "below")  # "b right of a" says what "a left of b" says
            pair = (second.digit, first.digit) if turned else (first.digit, second.digit)
            found.add((pair[0], OPPOSITE[relation] if turned else relation, pair[1]))
        return found

    @property
    def split(self) -> Split:
        """Whether training may show it: a scene with any combination that is held out is unseen."""
        return "unseen" if any(map(is_held_out, self.combinations)) else "seen"

    @property
    def caption(self) -> str:
        return caption(self)


def is_held_out(combination: tuple) -> bool:
    """One combination in ten, by a fair rule: no digit, colour, place or relation is held out more often than another.
    Each is well known from training; only the combination is new.
    """
    if len(combination) == 3:
        first, relation, second = combination
        return (first + 3 * second + 5 * ("left of", "above").index(relation)) % 10 == 2
    digit, other = combination
    if other in COLOURS:
        return (3 * digit + [*COLOURS].index(other)) % 10 == 7
    return (digit + PLACES.index(other)) % 10 == 4


# --- Drawing ---


def draw(
    seed: int, index: int, split: Split | None = None, kind: str | None = None, rules: Rules = RULES["digits"]
) -> Scene:
    """Scene `index` under a seed, of one split or of both, of one kind or of all; the same on every machine."""
    random = Random(f"{seed} {index}")
    kind = kind or random.choices([*rules.kinds], [*rules.kinds.values()])[0]
    while True:
        scene = _draw(random, kind, rules)
        if split in (None, scene.split):
            return scene


def _draw(random: Random, kind: str, rules: Rules) -> Scene:
    count = {"one": 1, "two": 2, "three": 3, "four": 4}.get(kind) or random.randint(2, 4)
    sizes = random.choices([*SIZES], k=count) if kind in ("one", "two") else ["small"] * count
    if kind == "count" and count == 2:
        sizes = [random.choice([*SIZES])] * 2
    kinds = [(random.randrange(10), random.choice(rules.colours)) for _ in range(count)]
    if kind == "count":
        kinds = kinds[:1] * count
    elif kind == "groups":  # two kinds of digits, the first `cut` of the one
        cut = random.randint(1, count - 1)
        kinds = kinds[:1] * cut + kinds[1:2] * (count - cut)
        if kinds[0] == kinds[-1]:
            return _draw(random, kind, rules)
    place = random.choice(PLACES) if kind == "one" else None
    related = kind in ("two", "three", "four")
    sides = [SIZES[size] for size in sizes]
    spots = [_spot(random, place, sides[0])] if place else layout(random, sides, related)
    digits = tuple(Digit(*what, size, *spot, random.random()) for what, size, spot in zip(kinds, sizes, spots))
    relations = tuple(relation(a.centre, b.centre) for a, b in zip(digits, digits[1:])) if related else ()
    ground = random.choice([*GROUNDS]) if random.random() < rules.coloured else "black"
    return Scene(kind, digits, relations, place, ground, _unsaid(random, kind, count, ground))


def _unsaid(random: Random, kind: str, count: int, ground: str) -> frozenset[str]:
    """What the caption leaves out: sometimes size, place or colour; of more than two digits the size, mostly black."""
    chances = {"size": 0.2 if count <= 2 and kind != "groups" else 1, "place": 0.2, "colour": 0.05}
    chances["ground"] = 0.8 if ground == "black" else 0
    return frozenset(what for what, chance in chances.items() if random.random() < chance)


def _spot(random: Random, place: str, side: int) -> tuple[int, int]:
    """Top and left of a digit at one of the nine places, give or take a pixel."""
    at = divmod(PLACES.index(place), 3)
    top, left = (round(7 + 9 * each - side / 2) + random.randint(-1, 1) for each in at)
    return min(max(top, 0), SIDE - side), min(max(left, 0), SIDE - side)


def layout(random: Random, sides: Sequence[int], related: bool) -> list[tuple[int, int]]:
    """Top and left of squares that keep apart; if they are `related`, each is clearly on one side of the one before."""
    while True:
        spots: list[tuple[int, int]] = []
        for side in sides:
            for _ in range(30):
                spot = random.randint(0, SIDE - side), random.randint(0, SIDE - side)
                if not all(_distance(spot, side, other, its) >= GAP for other, its in zip(spots, sides)):
                    continue
                if not (related and spots) or relation(_middle(spots[-1], sides[len(spots) - 1]), _middle(spot, side)):
                    spots.append(spot)
                    break
        if len(spots) == len(sides):
            return spots


def _middle(spot: tuple[int, int], side: int) -> tuple[float, float]:
    return spot[0] + side / 2, spot[1] + side / 2


def _distance(a: tuple[int, int], a_side: int, b: tuple[int, int], b_side: int) -> int:
    """Pixels between two squares, along the axis on which they are further apart."""
    return max(max(a[i] - b[i] - b_side, b[i] - a[i] - a_side) for i in (0, 1))


def relation(a: tuple[float, float], b: tuple[float, float], clear: float = 1.5) -> str:
    """What a centre (y, x) is of another, "left of", …; "" if neither axis has `clear` times the other's distance."""
    down, right = b[0] - a[0], b[1] - a[1]
    if max(abs(down), abs(right)) < clear * min(abs(down), abs(right)):
        return ""
    if abs(right) > abs(down):
        return "left of" if right > 0 else "right of"
    return "above" if down > 0 else "below"


# --- Captions ---


def caption(scene: Scene) -> str:
    """The sentence of a scene, such as "a large blue three left of a small green eight on navy"."""
    names = [_phrase(scene, digit, 1) for digit in scene.digits]
    if scene.kind == "count":
        text = _phrase(scene, scene.digits[0], len(scene.digits))
    elif scene.kind == "groups":
        kinds = dict.fromkeys((each.digit, each.colour) for each in scene.digits)
        groups = [[each for each in scene.digits if (each.digit, each.colour) == kind] for kind in kinds]
        text = " and ".join(_phrase(scene, group[0], len(group)) for group in groups)
    else:
        text = names[0]
        for number, (said, name) in enumerate(zip(scene.relations, names[1:])):
            text += f" which is {said} {name}" if number else f" {said} {name}"
    if scene.place and "place" not in scene.unsaid:
        text += f" at the {scene.place}"
    return text if "ground" in scene.unsaid else f"{text} on {scene.ground}"


def _phrase(scene: Scene, digit: Digit, count: int) -> str:
    """A digit or several alike: "an orange three", "two small red sixes"."""
    said = [getattr(digit, what) for what in ("size", "colour") if what not in scene.unsaid]
    name = DIGITS[digit.digit]
    if count > 1:
        return " ".join([COUNTS[count], *said, PLURALS[digit.digit]])
    words = [*said, name]
    return " ".join(["an" if words[0][0] in "aeio" and words[0] != "one" else "a", *words])


def twin(scene: Scene) -> Scene:
    """The scene of two digits with their roles swapped: the first is now where the second was said to be."""
    assert scene.kind == "two", f"roles can be swapped between two digits, not in a scene of kind {scene.kind!r}"
    return replace(scene, digits=scene.digits[::-1])


def redraw(scene: Scene, seed: int) -> Scene:
    """Another scene of the same caption: other places where the caption leaves them open, and other handwriting."""
    random, sides = Random(f"{seed} {scene.caption}"), [each.side for each in scene.digits]
    place = random.choice(PLACES) if scene.place and "place" in scene.unsaid else scene.place
    while True:
        spots = [_spot(random, place, sides[0])] if place else layout(random, sides, bool(scene.relations))
        new = [replace(each, top=y, left=x, style=random.random()) for each, (y, x) in zip(scene.digits, spots)]
        found = [relation(a.centre, b.centre) for a, b in zip(new, new[1:])] if scene.relations else []
        if found == [*scene.relations]:
            return replace(scene, digits=tuple(new), place=place)
