"""The tables as plain text: what tables.yaml makes of the records."""

import itertools
import statistics
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import records
import yaml
from records import Groups, Record, grouped, means

from diffusion.experiment.presets import COLD, DDPM

DASH = "–"
GROUPS: dict[str, Callable[[], Groups]] = {
    "presets_ddpm": lambda: [[records.preset(c)] for c in DDPM.values()],
    "presets_cold": lambda: [[records.preset(c)] for c in COLD.values()],
    "weights": lambda: [states[-1:] for states in grouped(records.shipped(), "family")],
    "weights_epochs": lambda: [states for states in grouped(records.shipped(), "family") if len(states) > 1],
    "cold": records.cold,
    "cold_long": partial(records.cold, "cold_long"),
    "cold_brief": partial(records.cold, "cold_long", brief=True),
    "hot_cold": records.hot_cold,
    "cold_files": records.cold_files,
    "original_epochs": partial(records.files_epochs, "original"),
    "our_epochs": partial(records.files_epochs, "ours"),
    "class_conditional": partial(records.evaluations, "evaluate", "name", "guidance_scale", "calls"),
    "guidance": partial(records.evaluations, "guidance", "guidance_scale"),
    "samplers": partial(records.samplers, least=5),
    "few_calls": partial(records.samplers, most=5),
    "convergence": partial(records.samplers, "convergence"),
    "start": records.start,
    "minutes": records.minutes,
    "speed": records.speed,
    "compiling": records.compiling,
    "obedience": records.obedience,
    "obedience_digits": records.obedience_digits,
    "latents": records.latents,
    "latent_size": records.latent_size,
    "bayes": records.bayes,
}
LAYOUTS = yaml.safe_load((records.ROOT / "Report" / "tables.yaml").read_text())


class Table(NamedTuple):
    """Cells are text with Markdown's *emphasis* and `code`; a row of one cell is a heading over those that follow."""

    header: list[str]
    rows: list[list[str]]
    note: str
    left: int  # columns of words; those of numbers follow


def show(value: float | None, form: str = "", sd: float | None = None) -> str:
    """A number ± sd: "d" is a whole one, "%" the hundredfold, and "" has two or three digits that mean something."""
    if value is None:
        return DASH
    if form.endswith("%"):
        return show(100 * value, form[:-1] + "f", sd and 100 * sd) + " %"
    form = form or (".4f" if value < 0.1 else ".3f" if value < 1 else ".2f" if value < 20 else ".1f")
    return " ± ".join(f"{each:{',.0f' if form == 'd' else form}}" for each in (value, sd) if each is not None)


def cell(group: list[Record], column: str) -> str:
    """What the records of several seeds say, "key format": words (`: code) or a mean ± sd (~: no sd, ±: their own)."""
    key, _, form = column.partition(" ")
    values = [record[key] for record in group if record.get(key) is not None]
    if not values or isinstance(values[0], str):
        return f"{form}{values[0]}{form}" if values else DASH
    if isinstance(values[0], list):  # the share of each digit: that of the rarest and the commonest
        shares = means(group)[key]
        return f"{100 * min(shares):.1f}–{show(max(shares), '.1%')}"
    sd = statistics.stdev(values) if len(set(values)) > 1 and form[:1] != "~" else None
    return show(statistics.mean(values), form.lstrip("~±"), group[0][f"{key}_sd"] if form[:1] == "±" else sd)


def pivoted(groups: Groups, corner: str, row: str, column: str, *columns: str) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a table whose cells are records, one by the value of `column`."""
    at = sorted({r[column] for group in groups for r in group})
    text = lambda first, *others: first + "".join(f" ({other})" for other in others)
    texts = [{r[column]: text(*(cell([r], each) for each in columns)) for r in group} for group in groups]
    rows = [[cell(group, row), *(found.get(each, DASH) for each in at)] for group, found in zip(groups, texts)]
    return [corner, *(f"{each:,.0f}" for each in at)], rows


def under_heads(groups: Groups, columns: list[str], heads: str | None) -> list[list[str]]:
    """The rows, with a heading wherever that of the records changes; what begins like the row above it begins blank."""
    rows = []
    for head, members in itertools.groupby(groups, key=lambda group: group[0].get(heads)):
        found = [[cell(group, column) for column in columns] for group in members]
        blank = [bool(head) and row[0] == above[0] for above, row in itertools.pairwise(found)]
        rows += [[f"*{head}*"]] * bool(head)
        rows += [["", *row[1:]] if same else row for same, row in zip([False, *blank], found)]
    return rows


@cache
def table(name: str) -> Table:
    layout, groups = LAYOUTS[name], GROUPS[name]()
    if "pivot" in layout:
        header, rows = pivoted(groups, *layout["pivot"])
    else:
        header = list(layout["columns"])
        rows = under_heads(groups, list(layout["columns"].values()), layout.get("heads"))
    sha256, n = records.classifier()["sha256"][:12], records.read("floors")[0]["n_reference"]
    measured = f"features: MNIST classifier, penultimate layer, sha256 `{sha256}`; reference: {n:,} training images"
    words = {"measured": measured, "seeds": len(groups[0])} | groups[0][0]
    return Table(header, rows, layout.get("note", "").format(**words).replace("%", " %"), layout.get("left", 1))
