"""An examination in obedience: a text model, real pictures and chance before the same prompts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from diffusion.laboratory.show import row
from diffusion.metrics.obedience import Share, shares

Verdicts = list[dict[str, bool]]  # of each picture, whether each attribute that was said is right


class Marks(NamedTuple):
    """The verdicts of one kind of prompts."""

    kind: str
    split: str
    model: Verdicts
    real: Verdicts  # of pictures put together from what models do not train on: as much as the checkers can see
    chance: Verdicts  # of those pictures, each before its neighbour's prompt


class Exam(ABC):
    """Prompts of a seed that no training uses, and how their pictures are checked.

    A question knows its `caption`, its `kind`, and its `split`: "seen" if training shows all its combinations.
    """

    kinds: Sequence[str]
    attributes: Sequence[str]

    @abstractmethod
    def questions(self, split: str) -> list[Any]:
        """As many of each kind, one kind after the other."""

    @abstractmethod
    def render(self, questions: Sequence[Any]) -> Tensor:
        """Real pictures (N, C, H, W) of questions, in [0, 1]."""

    @abstractmethod
    def look(self, images: Tensor) -> list[Any]:
        """What is seen in each picture."""

    @abstractmethod
    def check(self, view: Any, question: Any) -> dict[str, bool]:
        """Whether each attribute that the question's caption speaks of is right in what was seen."""

    def mark(self, questions: Sequence[Any], images: Tensor) -> list[Marks]:
        """The verdicts on a model's pictures (N, C, H, W) of these questions, in [0, 1], by kind."""
        model, real = self.look(images), self.look(self.render(questions))
        found = [[*map(self.check, views, questions)] for views in (model, real, real[1:] + real[:1])]
        kinds = {kind: [i for i, each in enumerate(questions) if each.kind == kind] for kind in self.kinds}
        return [Marks(kind, questions[0].split, *([v[i] for i in some] for v in found)) for kind, some in kinds.items()]


# --- Its table ---


def table(marks: Sequence[Marks], attributes: Sequence[str]) -> str:
    """All right by kind of prompt, then each attribute over all of them, with 95 % intervals."""
    line = lambda *cells: row(*cells, width=15)
    lines = [line("all right", "model", "95 %", "real", "chance")]
    for each in marks:
        lines.append(line(f"{each.kind}, {each.split}", *_cells([each], "all right")))
    for split in dict.fromkeys(each.split for each in marks):
        of = [each for each in marks if each.split == split]
        lines += ["", line(f"all kinds, {split}", "model", "95 %", "real", "chance")]
        lines += [line(what, *_cells(of, what)) for what in ("all right", *attributes)]
    return "\n".join(lines)


def _cells(marks: Sequence[Marks], what: str) -> list[str]:
    of = lambda who: shares([verdict for each in marks for verdict in getattr(each, who)]).get(what, Share(0, 0))
    model, real, chance = map(of, ("model", "real", "chance"))
    value, interval = describe(model).split()
    return [value, interval, f"{real.value:.1%}", f"{chance.value:.1%}"]


def describe(share: Share) -> str:
    """Its value and its 95 % interval."""
    low, high = share.interval
    return f"{share.value:.1%} {low:.1%}–{high:.1%}"


def summary(marks: Sequence[Marks]) -> dict[str, dict[str, float]]:
    """The share with all right, of the model and of real pictures, by split."""
    of = lambda who, split: [verdict for each in marks if each.split == split for verdict in getattr(each, who)]
    splits = dict.fromkeys(each.split for each in marks)
    return {who: {split: shares(of(who, split))["all right"].value for split in splits} for who in ("model", "real")}


def record(marks: Sequence[Marks]) -> dict[str, Any]:
    """The same as numbers: right of how many, by kind, split, who and attribute."""
    return {
        f"{each.kind} {each.split}": {who: shares(getattr(each, who)) for who in Marks._fields[2:]} for each in marks
    }
