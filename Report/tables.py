"""The tables and numbers of the report as LaTeX, from the runs' JSON, the presets and what weight files say.

Nothing is measured here. What a record does not say is a dash.
"""

import importlib.util
import json
import re
import statistics
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffusion import files
from diffusion.experiment.build import build
from diffusion.experiment.config import Config, checked
from diffusion.experiment.coursework import NAME
from diffusion.experiment.presets import COLD, DDPM, GUIDED
from diffusion.experiment.samplers import FEWEST, build_sampler
from diffusion.networks.classifier import FEATURES

ROOT = Path(__file__).parents[1]
RESULTS, WEIGHTS = ROOT / "Report" / "results", ROOT / "weights"
DASH = "--"

# --- What was measured ---


@cache
def read(name: str) -> list[dict[str, Any]]:
    """The records of a results file; none if there is no such file."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def one(records: Iterable[dict], **wanted: Any) -> dict[str, Any]:
    """The last record with these values; {} if there is none."""
    return next((r for r in reversed(list(records)) if all(r.get(k) == v for k, v in wanted.items())), {})


class Shipped(NamedTuple):
    """A denoiser in weights/."""

    path: Path
    family: str  # its preset, after the axis if it is a cold one
    epoch: float
    config: Config
    about: dict[str, Any]

    @property
    def scores(self) -> dict[str, Any]:
        return self.about.get("scores", {})


@cache
def shipped() -> list[Shipped]:
    """All denoisers of digits of our own in weights/, family by family in the order of their epochs."""
    found = []
    for path in sorted(WEIGHTS.glob("*.pth")):
        content = files.load(path)
        if isinstance(content, dict) and str(content.get("format", "")).startswith("cold_dif_model"):
            named, config, about = NAME.fullmatch(path.stem), checked(content["config"]), content["about"]
            family = " ".join(filter(None, [named["axis"], named["preset"]])) if named else path.stem
            if config.dataset == "MNIST":  # others are seen through other eyes
                found.append(Shipped(path, family, about.get("epoch", 0), config, about))
    place = lambda each: (each.config.process != "gaussian", each.config.axis, each.family, each.epoch)
    return sorted(found, key=lambda each: (place(each)[0], place(each)[1] != "row", *place(each)[2:]))


def families() -> dict[str, list[Shipped]]:
    """family -> its states in the order of their epochs."""
    found = {}
    for each in shipped():
        found.setdefault(each.family, []).append(each)
    return found


def longest() -> list[str]:
    """The hot and the cold family that has most states."""
    of = lambda kind: [states for states in families().values() if states[0].config.process == kind]
    return [max(of(kind), key=len)[0].family for kind in ("gaussian", "averaging") if of(kind)]


def chosen() -> list[Shipped]:
    """All states of the longest families, and the last of every other."""
    whole = longest()
    return [each for name, states in families().items() for each in (states if name in whole else states[-1:])]


@cache
def eyes() -> dict[str, Any]:
    """The classifier that everything was measured through: sha256 of its file, accuracy on n_test images."""
    path = WEIGHTS / "classifier_MNIST.pth"
    return {"sha256": files.sha256(path), **{key: files.load(path)[key] for key in ("accuracy", "n_test")}}


def reference() -> int | None:
    """How many real images everything was compared with."""
    return next((row["n_reference"] for r in read("evaluate") for row in r["rows"]), None)


def same_eyes(record: dict) -> bool:
    """Whether a record was measured through that classifier, as far as it says, and on enough images."""
    sha = record.get("sha256") or eyes()["sha256"]
    return eyes()["sha256"].startswith(sha) and not record.get("warning")


def histories() -> dict[str, list[dict[str, Any]]]:
    """family -> the history of its training, one record an epoch (or a mark)."""
    names = {path.stem: path.stem for path in sorted(RESULTS.glob("*.jsonl"))}
    family = lambda stem: re.sub(r"^(DDPM|train|custom)_", "", stem).replace("row_", "row ").replace("col_", "col ")
    return {family(stem): read(stem) for stem in names if re.match("(DDPM|train|custom)_", stem)}


@cache
def cold_recipes(preset: str | None = None) -> dict[str, tuple[Config, list]]:
    """benchmarks/cold.py's recipes for a preset of the coursework, or those of cold.jsonl: name -> config and ways."""
    spec = importlib.util.spec_from_file_location("cold", ROOT / "benchmarks" / "cold.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GROUPS[preset] if preset in COLD else module.GROUPS["default_28"] | module.GROUPS["unet"]


def cold_rows(file: str = "cold") -> list[tuple[dict, list[dict]]]:
    """(what, its records, one a seed) of each recipe and way in the file, in the order of benchmarks/cold.py."""
    keys, groups = ("preset", "axis", "steps", "n", "recipe", "way", "begin", "calls"), {}
    for record in read(file):
        groups.setdefault(tuple(record.get(key) for key in keys), {})[record.get("seed", 0)] = record
    names, ways = list(cold_recipes()), ["direct", "alg2", "alg1", "pinned", "ddpm"]

    def place(key: tuple) -> tuple:
        preset, axis, steps, _, recipe, way, begin, calls = key
        of = names.index(recipe) if recipe in names else len(names)
        first = of if file == "cold" else steps
        return str(preset), axis != "row", first, of, steps, ways.index(way), begin, calls or 0

    return [(dict(zip(keys, key)), list(groups[key].values())) for key in sorted(groups, key=place)]


def cold_one(recipe: str, way: str, begin: int = 0) -> dict[str, Any]:
    """Means over the seeds of one recipe and way, by rows; {} if it was not run."""
    asked = {"recipe": recipe, "way": way, "begin": begin, "axis": "row"}
    return cold_means([records for what, records in cold_rows() if asked.items() <= what.items()])


def cold_long_one(title: str, way: str, preset: str = "default_28", axis: str = "row", **more: Any) -> dict[str, Any]:
    """The same of the longest training of a preset, by what the report calls the recipe; of the most calls."""
    asked = {"way": way, "begin": 0, "axis": axis, "preset": preset} | more
    rows = [(what, records) for what, records in cold_rows("cold_long") if asked.items() <= what.items()]
    return cold_means([records for what, records in rows if recipe_of(what)[0].startswith(title)])


def cold_means(found: list[list[dict]]) -> dict[str, Any]:
    """Means over the seeds of the last of these groups of records."""
    if not found:
        return {}
    numeric = [key for key, value in found[-1][0].items() if isinstance(value, int | float)]
    means = {key: statistics.mean(record[key] for record in found[-1]) for key in numeric}
    return means | {"labels": labels_of(found[-1])}


def sampler_rows() -> list[dict[str, Any]]:
    """FID against network calls without guidance: the last record of each sampler and number of calls, of one model."""
    plain = [r for r in read("samplers") if r["guidance_scale"] == 1]
    return list({(r["sampler"], r["calls"]): r for r in plain if r["weights"] == plain[0]["weights"]}.values())


def guidance_rows() -> list[dict[str, Any]]:
    """The last record of each guidance scale, with its first seed's scores, in the order of the scales."""
    rows = {r["guidance_scale"]: {**r, **r["rows"][0]} for r in read("guidance")}
    return [rows[scale] for scale in sorted(rows)]


def floor_of(n: int, which: str = "drawn") -> float | None:
    """What n real test images score, "drawn" from all of them or the "first" of the file."""
    return one(read("floors"), n=n, which=which).get("fid")


@cache
def parameters(config: Config) -> int:
    return sum(p.numel() for p in build(config).denoiser.network.parameters())


# --- How it is written ---


def number(value: float | None, form: str = ".2f") -> str:
    """A number with a thin space between thousands; a dash for None."""
    return DASH if value is None else f"{value:{form}}".replace(",", r"\,")


def count(value: float | None) -> str:
    return number(value, ",.0f")


def percent(value: float | None, form: str = ".1f") -> str:
    return DASH if value is None else rf"{100 * value:{form}}\,\%"


def plus_minus(mean: float | None, sd: float | None, form: str = ".2f") -> str:
    return number(mean, form) if mean is None or sd is None else rf"${mean:{form}}\pm{sd:{form}}$"


def digits(value: float) -> str:
    """The format that leaves two or three digits that mean something."""
    return ".4f" if value < 0.1 else ".3f" if value < 1 else ".2f" if value < 20 else ".1f"


def over(values: Iterable[float | None], form: str | None = None) -> str:
    """The mean ± sd over seeds; of one seed, its value."""
    values = [value for value in values if value is not None]
    if len(values) < 2:
        return number(values[0], form or digits(values[0])) if values else DASH
    mean = statistics.mean(values)
    return plus_minus(mean, statistics.stdev(values), form or digits(mean))


def over_percent(shares: Iterable[float | None], form: str = ".1f") -> str:
    text = over([100 * share for share in shares if share is not None], form)
    return text if text == DASH else rf"{text}\,\%"


def code(text: str) -> str:
    return r"\texttt{" + text.replace("_", r"\_") + "}"


def power(value: float) -> str:
    """2e-4 as 2 times a power of ten."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return rf"${mantissa}\cdot10^{{{int(exponent)}}}$"


def seeds_of(k: int | None) -> str:
    return DASH if k is None else "one sampling seed" if k == 1 else f"mean $\\pm$ sd over {k} sampling seeds"


def floors(n: int) -> str:
    """What as many real test images score."""
    return (
        f"floor {number(floor_of(n), '.3f')} for {count(n)} test images drawn from all, "
        f"{number(floor_of(n, 'first'), '.3f')} for the first {count(n)} of the file"
    )


def note(n: str, seeds: str, floor: str) -> str:
    """What has to stand under every table of scores."""
    return (
        f"$N={n}$; {seeds}; features: MNIST classifier, penultimate layer, sha256 {code(eyes()['sha256'][:12])}; "
        f"reference: {count(reference())} training images; {floor}."
    )


def table(columns: str, header: list[str], rows: list[list[str] | str], *notes: str, above: str = "") -> str:
    """A booktabs table; a row that is a string is a heading over those that follow; `above` goes over the header."""
    lines = []
    for row in rows:
        if isinstance(row, str):
            lines += [r"\midrule"] * bool(lines)
            lines.append(rf"\multicolumn{{{len(header)}}}{{@{{}}l}}{{\emph{{{row}}}}} \\")
        else:
            lines.append(" & ".join(row) + r" \\")
    under = [rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {text}}}" for text in notes]
    return "\n".join(
        [rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", above + " & ".join(header) + r" \\", r"\midrule",
         *lines, r"\bottomrule", r"\end{tabular}", *under, ""]
    )  # fmt: skip


# --- The tables ---


def presets_ddpm() -> str:
    rows = []
    for name, c in DDPM.items():
        schedule = rf"linear, $T={c.timesteps}$" if c.schedule == "linear" else c.schedule
        target = {"eps": r"$\varepsilon$", "velocity": r"$u$"}.get(c.target, c.target)
        rows.append([code(name), schedule, target, power(c.lr), network(c), c.activation.upper() if c.network == "cnn"
                     else "SiLU", count(parameters(c))])  # fmt: skip
    header = ["preset", "schedule", "target", "learning rate", "network and widths", "activation", "parameters"]
    return table("llclllr", header, rows)


def network(c: Config) -> str:
    return f"{ {'cnn': 'CNN', 'unet': 'U-Net'}[c.network] } {'--'.join(map(str, c.hidden))}"


def presets_cold() -> str:
    rows = []
    for name, c in COLD.items():
        low, high = c.pixel_range
        lines, noise = str(c.shape[1] // c.timesteps), number(c.noise / (high - low), ".3f")
        rows.append([code(name), str(c.timesteps), lines, noise, power(c.lr), network(c), count(parameters(c))])
    header = ["preset", "groups $T$", "lines each", "noise", "learning rate", "network and widths", "parameters"]
    return table("lcccllr", header, rows, "Noise: standard deviation, as a share of the range from black to white.")


def weights() -> str:
    """The last state of every shipped family with the scores in its file; then the FIDs of all states."""
    last = [states[-1] for states in families().values()]
    known = [each.scores for each in shipped()]
    rows = []
    for each in last:
        s, about = each.scores, each.about
        back = [s.get("restored", {}).get(way, {}).get("fid") for way in ("direct", "alg1", "alg2", "pinned")]
        rows.append([
            code(each.family), number(each.epoch, ".3g"), count(about.get("step")), number(about.get("loss"), ".4f"),
            score_of(s), plus_minus(s.get("inception_score"), s.get("inception_score_sd")),
            ", ".join(number(fid, ".1f") for fid in back) if any(back) else DASH,
            count(s.get("n")), str(s.get("seeds", DASH)), str(s.get("calls", DASH)), number(s.get("floor"), ".3f"),
        ])  # fmt: skip
    header = ["weights", "epochs", "steps", "loss", "FID", "IS", "restored FID", "$N$", "seeds", "calls", "floor"]
    shas = sorted({s["sha256"][:12] for s in known if "sha256" in s})
    told = (
        r"FID and IS: mean $\pm$ sd over sampling seeds of one training, through our MNIST classifier (penultimate "
        f"layer, sha256 {', '.join(map(code, shas)) or DASH}), against {count(reference())} training images; restored "
        "FID: test images from their averages, by one step, Algorithm~1, Algorithm~2 and pinned; floor: that of "
        "$N$ real test images. Losses of different targets cannot be compared. A dash: the file does not say."
    )
    table_ = table("lrrrlllrrrl", header, rows, told)
    many = {name: states for name, states in families().items() if len(states) > 1}
    if not many:
        return table_
    at = sorted({each.epoch for states in many.values() for each in states})
    rows = []
    for name, states in many.items():
        scores = {each.epoch: score_of(each.scores) for each in states}
        rows.append([code(name), *(scores.get(epoch, "") for epoch in at)])
    header = ["FID after epochs", *(f"{epoch:g}" for epoch in at)]
    return table_ + "\n\\bigskip\n\n" + table("l" + "l" * len(at), header, rows, "Measured as above.")


def score_of(scores: dict) -> str:
    """FID ± sd of a file's scores."""
    fid = scores.get("fid")
    return plus_minus(fid, scores.get("fid_sd"), digits(fid) if fid else ".2f")


RECIPES = {
    "original: t < T only": "original: $t<T$ only",
    "t = T trained": "no noise, $t=T$ trained",
    "noise 0.15 (of 2)": "noise",
    "no noise": "no noise",
    "noise 0.15": "noise",
    "DDPM, same network": "Gaussian noise",
}
WAYS = {"direct": "one step", "alg2": "Alg.~2", "alg1": "Alg.~1", "pinned": "pinned", "ddpm": "DDPM"}


def recipe_of(what: dict) -> tuple[str, Config | None]:
    """How a recipe of benchmarks/cold.py is called here, and its config."""
    name = what["recipe"]
    config = cold_recipes(what.get("preset")).get(name, (None,))[0]
    title = RECIPES.get(name, name.replace("_", r"\_"))
    for each in shipped():
        if each.path.stem == name:
            title, config = "noise", each.config
    if title == "noise" and config:
        title += f" {number(config.noise / (config.pixel_range[1] - config.pixel_range[0]), '.3f')}"
    return title, config


def calls_of(what: dict) -> int | None:
    """Network calls of a way back."""
    _, config = recipe_of(what)
    return what["calls"] or config and build_sampler(build(config), what["way"]).calls - what["begin"]


def way_of(what: dict) -> str:
    _, config = recipe_of(what)
    name = WAYS[what["way"]]
    if what["way"] in ("alg1", "pinned") and config and config.noise:
        name += ", fresh noise"
    return name + (f", from $T-{what['begin']}$" if what["begin"] else "")


def labels_of(records: list[dict]) -> list[float] | None:
    """The share of each digit, over all seeds."""
    shares = [r["labels"] for r in records if "labels" in r]
    return [statistics.mean(column) for column in zip(*shares)] if shares else None


def rare_to_common(shares: list[float] | None) -> str:
    return DASH if shares is None else rf"{100 * min(shares):.1f}--{percent(max(shares))}"


BRIEFLY = {("original", "alg2"), ("noise", "direct"), ("noise", "pinned")}  # the first word of a recipe, a way back


def cold(file: str = "cold", brief: bool = False) -> str:
    """Recipes of cold diffusion, all ways back or those of BRIEFLY, restored and new digits."""
    rows, head, before = [], None, None
    for what, records in cold_rows(file):
        title, config = recipe_of(what)
        if brief and (re.match(r"\w+", title)[0], what["way"]) not in BRIEFLY:
            continue
        groups = f"{what['axis']}s in {config.timesteps} groups" if config and config.process == "averaging" else ""
        name = ", ".join(
            filter(None, [network(config) if config else DASH, groups, f"{count(what['steps'])} training steps"])
        )
        if name != head:
            rows.append(name)
            head, before = name, None
        get = lambda key, records=records: [r.get(key) for r in records]
        rows.append([
            title if title != before else "", way_of(what), count(calls_of(what)), over(get("restored")),
            over_percent(get("agreement")), over(get("ssim"), ".3f"), over(get("mean"), ".3f"),
            over(get("new")), over(get("inception_score"), ".2f"), rare_to_common(labels_of(records)),
        ])  # fmt: skip
        before = title
    header = ["recipe", "way back", "calls", "FID", "label kept", "SSIM", "grey", "FID", "IS", "labels"]
    n, original = {what["n"] for what, _ in cold_rows(file)}, one(read(file), way="alg2")
    told = (
        f"Grey: mean grey value, of the originals {number(original.get('mean_original'), '.3f')}; label kept: by the "
        f"classifier, of the originals {percent(original.get('agreement_original'))}. New digits: averages drawn from "
        "the prior; labels: the share of the rarest and of the commonest digit."
    )
    floor = "; ".join(map(floors, sorted(n)))
    above = r" & & & \multicolumn{4}{c}{test digits restored} & \multicolumn{3}{c}{new digits} \\"
    above += r" \cmidrule(lr){4-7} \cmidrule(l){8-10}" + "\n"
    numbers = note(", ".join(map(count, sorted(n))), cold_seeds(file), floor)
    return table("llrrrrrrrr", header, rows, told, numbers, above=above)


def cold_seeds(file: str) -> str:
    most = max((len(records) for _, records in cold_rows(file)), default=1)
    return (
        "one training and one sampling seed"
        if most == 1
        else rf"one training; mean $\pm$ sd over {most} sampling seeds"
    )


def equal_budget() -> list[tuple[dict, list[dict]]]:
    """The rows of cold.jsonl that have the network and the training steps of its DDPM, and new digits."""
    hot = one(read("cold"), way="ddpm")
    same = lambda config: config and (config.network, config.hidden) == (ours.network, ours.hidden)
    _, ours = recipe_of(hot) if hot else ("", None)
    return [
        (what, records)
        for what, records in cold_rows()
        if hot
        and same(recipe_of(what)[1])
        and (what["steps"], what["n"]) == (hot["steps"], hot["n"])
        and "new" in records[0]
    ]


def hot_cold() -> str:
    rows = []
    for what, records in sorted(equal_budget(), key=lambda row: statistics.mean(r["new"] for r in row[1])):
        fids, floor = [r["new"] for r in records], floor_of(what["n"])
        name = recipe_of(what)[0] if what["way"] == "ddpm" else f"{what['axis']}s, {recipe_of(what)[0]}"
        times = number(statistics.mean(fids) / floor, ".1f") if floor else DASH
        scores = over([r["inception_score"] for r in records], ".2f")
        shares = rare_to_common(labels_of(records))
        rows.append([name, way_of(what), count(calls_of(what)), over(fids), times, scores, shares])
    header = ["process", "way back", "calls", "FID", r"$\times$ floor", "IS", "labels"]
    n = next((what["n"] for what, _ in equal_budget()), 0)
    return table("llrrrrr", header, rows, note(count(n), cold_seeds("cold"), floors(n)))


def guided() -> str:
    """The evaluations of models that are told what to draw; of a benchmark's trainings, all seeds in one row."""
    groups = {}
    for r in read("evaluate"):
        name = re.sub(r"time_to_quality_(\w+)_\d+", r"\1, five minutes", Path(r["weights"]).stem)
        groups.setdefault((name, r["guidance_scale"], -r["calls"], r["samples"]), []).append(r)
    rows = []
    for (name, scale, calls, n), records in sorted(groups.items()):
        scored = [row for r in records for row in r["rows"]]
        get = lambda key, scored=scored: [row.get(key) for row in scored]
        mean, floor = lambda key, get=get: statistics.mean(get(key)), records[0]["floor"]
        rows.append([
            name.replace("_", r"\_"), f"{scale:g}", str(-calls), count(n), str(len(scored)), over(get("fid")),
            number(floor, ".3f"), number(mean("fid") / floor, ".2f"), over(get("inception_score")),
            over_percent(get("agreement"), ".2f"), number(mean("precision"), ".3f"), number(mean("recall"), ".3f"),
        ])  # fmt: skip
    header = ["weights", "scale", "calls", "$N$", "seeds", "FID", "floor", r"$\times$", "IS", "label", "precision",
              "recall"]  # fmt: skip
    told = f"{code(str((read('evaluate') or [{}])[0].get('sampler')))}; calls of the network a sample; "
    floor = "floor: the FID of as many real test images, each label as often as among all"
    seeds = r"FID and IS: mean $\pm$ sd over seeds, of sampling; of five minutes, of training"
    return table("lrrrrlrrlrrr", header, rows, told + note(r"\text{as said in the row}", seeds, floor))


def guidance() -> str:
    rows = [
        [f"{r['guidance_scale']:g}", number(r["fid"], ".3f"), number(r["inception_score"]), percent(r["agreement"]),
         number(r["precision"], ".3f"), number(r["recall"], ".3f"), rare_to_common(r["labels"])]
        for r in guidance_rows()
    ]  # fmt: skip
    header = ["scale", "FID", "IS", "label seen", "precision", "recall", "labels"]
    first = (guidance_rows() or [{}])[0]
    floor = f"floor {number(first.get('floor'), '.3f')}, IS of the floor {number(first.get('floor_is'))}"
    told = f"{code(str(first.get('weights')))}, {code(str(first.get('sampler')))}, {first.get('calls')} network calls"
    return table("lrrrrrr", header, rows, f"{told}; " + note(count(first.get("samples")), seeds_of(1), floor))


def by_calls(records: list[dict], cell: Callable[[dict], str]) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a table of samplers against network calls; heun's odd numbers go to the nearest."""
    budgets = sorted({r["calls"] for r in records if r["sampler"] != "heun"})
    nearest = lambda calls: min(budgets, key=lambda budget: abs(budget - calls))
    rows = []
    for name in dict.fromkeys(r["sampler"] for r in records):
        mine = {nearest(r["calls"]): r for r in records if r["sampler"] == name}
        rows.append([code(name), *(cell(mine[budget]) if budget in mine else DASH for budget in budgets)])
    return ["sampler", *(f"{count(budget)} calls" for budget in budgets)], rows


def samplers() -> str:
    """FID against network calls."""
    records = sampler_rows()
    header, rows = by_calls(records, lambda r: f"{r['fid']:.3f} ({percent(r['agreement'])})")
    first = (records or [{}])[0]
    told = "FID, and in brackets how often the classifier sees the label asked for. "
    told += f"{code(str(first.get('weights')))}; heun makes an odd number of calls, one less where the column is even. "
    floor = f"floor {number(first.get('floor'), '.3f')}"
    told += note(count(first.get("samples")), seeds_of(1), floor)
    return table("l" + "r" * (len(header) - 1), header, rows, told)


def convergence() -> str:
    """How far from the ODE's own images the deterministic samplers end."""
    records = read("convergence")
    header, rows = by_calls(records, lambda r: f"{r['rmse']:.3f} ({percent(r['other_label'], '.0f')})")
    first = (records or [{}])[0]
    told = (
        f"RMSE of a pixel in $[0, 1]$ to the images that {code('heun')} draws of the same noise with "
        f"{header[-1]}, mean of {first.get('samples')} samples; in brackets how often the "
        f"classifier sees another label. {code(str(first.get('weights')))}, {seeds_of(1)}."
    )
    return table("l" + "r" * (len(header) - 1), header, rows, told)


PEERS = {
    "ours": r"\texttt{unet\_fast}, ours",
    "ours unet": r"\texttt{unet}, ours",
    "best": "diffusers' UNet2DModel, our optimizer settings",
    "tutorial": "diffusers' UNet2DModel, its tutorial's recipe",
    "course": "diffusers' UNet2DModel, its course's recipe",
}


def five_minutes() -> str:
    rows = []
    for name in dict.fromkeys(r["row"] for r in read("time_to_quality")):
        mine = [r for r in read("time_to_quality") if r["row"] == name]
        get = lambda key, mine=mine: [r[key] for r in mine]
        mean = lambda key, get=get: count(statistics.mean(get(key)))
        rows.append([
            PEERS.get(name, name), mean("parameters"), f"{mean('steps')} of {mine[0]['batch_size']}", over(get("fid")),
            over(get("inception_score"), ".2f"), over_percent(get("agreement")), over(get("images_per_second")),
        ])  # fmt: skip
    header = ["network and recipe", "parameters", "steps", "FID", "IS", "label seen", "images/s"]
    first = (read("time_to_quality") or [{}])[0]
    runs = max((sum(r["row"] == name for r in read("time_to_quality")) for name in PEERS), default=1)
    told = f"{number(first.get('minutes'), 'g')} minutes of {first.get('threads')} CPU threads each, in turn; "
    told += f"{first.get('calls')} network calls a sample ({code(str(first.get('sampler')))}). "
    seeds = "one training seed" if runs == 1 else rf"mean $\pm$ sd over {runs} training seeds, without it of one"
    told += note(count(first.get("n")), seeds, f"floor {number(first.get('floor'), '.3f')}")
    return table("lrrrrrr", header, rows, told)


TABLES: dict[str, Callable[[], str]] = {
    "presets_ddpm": presets_ddpm,
    "presets_cold": presets_cold,
    "weights": weights,
    "cold": cold,
    "cold_long": partial(cold, "cold_long"),
    "hot_cold": hot_cold,
    "guided": guided,
    "guidance": guidance,
    "samplers": samplers,
    "convergence": convergence,
    "five_minutes": five_minutes,
}

# --- The numbers in the prose ---


def numbers() -> dict[str, str]:
    """The name of each LaTeX macro, and what it says."""
    return set_up() | cold_facts() | guided_facts() | sampler_facts() | minute_facts()


def set_up() -> dict[str, str]:
    c, flow, cold_unet, seven = DDPM["default"], GUIDED["unet"], COLD["cold_unet"], COLD["default_7"]
    side, (low, high) = c.shape[1], cold_unet.pixel_range
    mixture = lambda each: int((files.load(each.path)["process"]["averages.weights"] > 0).sum())
    return {
        "Sha": code(eyes()["sha256"][:16]),
        "Accuracy": percent(eyes()["accuracy"], ".2f"),
        "Dim": str(FEATURES),
        "Train": count(reference()),
        "Test": count(eyes()["n_test"]),
        "Side": str(side),
        "Pixels": str(side**2),
        "HotT": str(c.timesteps),
        "HotCalls": str(build_sampler(build(c), "ddpm").calls),
        "BetaMin": power(c.beta_min),
        "BetaMax": number(c.beta_max, "g"),
        "AlphaLast": number(build(c).process.schedule(torch.ones(()))[0].item(), ".4f"),
        "ColdT": str(cold_unet.timesteps),
        "SevenT": str(seven.timesteps),
        "SevenLines": str(side // seven.timesteps),
        "NoiseShare": percent(cold_unet.noise / (high - low)),
        "Hidden": percent(flow.drop_prob, ".0f"),
        "FewestSteps": str(FEWEST),
        "PriorParts": next((str(mixture(each)) for each in shipped() if each.family == "row cold_unet"), DASH),
        "FloorN": count(2000),
        "FloorFirst": number(floor_of(2000, "first"), ".3f"),
        "FloorDrawn": number(floor_of(2000), ".3f"),
        "FloorManyN": count(10_000),
        "FloorMany": number(floor_of(10_000), ".3f"),
    }


def cold_facts() -> dict[str, str]:
    """Of benchmarks/cold.py: per recipe and way, FID restored and new, label kept, rarest and commonest digit."""
    known = {
        "OriginalDirect": cold_one("original: t < T only", "direct"),
        "OriginalTwo": cold_one("original: t < T only", "alg2"),
        "OriginalTwoLess": cold_one("original: t < T only", "alg2", begin=1),
        "OriginalOne": cold_one("original: t < T only", "alg1"),
        "TrainedTwo": cold_one("t = T trained", "alg2"),
        "TrainedOne": cold_one("t = T trained", "alg1"),
        "CnnFresh": cold_one("noise 0.15 (of 2)", "alg1"),
        "CnnPinned": cold_one("noise 0.15 (of 2)", "pinned"),
        "CleanDirect": cold_one("no noise", "direct"),
        "CleanTwo": cold_one("no noise", "alg2"),
        "CleanOne": cold_one("no noise", "alg1"),
        "CleanPinned": cold_one("no noise", "pinned"),
        "NoisyTwo": cold_one("noise 0.15", "alg2"),
        "Fresh": cold_one("noise 0.15", "alg1"),
        "Pinned": cold_one("noise 0.15", "pinned"),
        "Hot": cold_one("DDPM, same network", "ddpm"),
        "LongOriginalTwo": cold_long_one("original", "alg2"),
        "LongOriginalTwoLess": cold_long_one("original", "alg2", begin=1),
        "LongDirect": cold_long_one("noise", "direct"),
        "LongFresh": cold_long_one("noise", "alg1"),
        "LongPinned": cold_long_one("noise", "pinned"),
        "LongPinnedLess": cold_long_one("noise", "pinned", begin=1),
    }
    for name, of in {"Columns": ("default_28", "col"), "Seven": ("default_7", "row")}.items():
        known[f"{name}OriginalTwo"] = cold_long_one("original", "alg2", *of)
        known[f"{name}OriginalTwoLess"] = cold_long_one("original", "alg2", *of, begin=1)
        known[f"{name}Direct"] = cold_long_one("noise", "direct", *of)
        known[f"{name}Pinned"] = cold_long_one("noise", "pinned", *of)
        known[f"{name}PinnedLess"] = cold_long_one("noise", "pinned", *of, begin=1)
    once = COLD["default_7"].timesteps
    known["SevenOnce"] = cold_long_one("noise", "pinned", "default_7", "row", calls=once)
    said = {}
    for name, r in known.items():
        labels = r.get("labels")
        said[f"{name}Restored"] = over([r.get("restored")])
        said[f"{name}New"] = over([r.get("new")])
        said[f"{name}Kept"] = percent(r.get("agreement"))
        said[f"{name}Grey"] = number(r.get("mean"), ".3f")
        said[f"{name}Rare"] = percent(min(labels)) if labels else DASH
        said[f"{name}Common"] = percent(max(labels)) if labels else DASH
    return said | {
        "RealGrey": number(known["CleanTwo"].get("mean_original"), ".3f"),
        "CnnSteps": count(known["CnnFresh"].get("steps")),
        "LongSteps": count(known["LongOriginalTwo"].get("steps")),
        "ColumnsSteps": count(known["ColumnsOriginalTwo"].get("steps")),
        "EqualSteps": count(known["Hot"].get("steps")),
    }


def guided_facts() -> dict[str, str]:
    """Of the shipped model that is told what to draw."""
    unet = one(read("evaluate"), weights="unet", guidance_scale=1.0, calls=20)
    get = lambda key: [row.get(key) for row in unet.get("rows", [])]
    mean = lambda key: statistics.mean(get(key)) if get(key) else None
    about = next((each.about for each in shipped() if each.family == "unet"), {})
    seconds = one(read("train_unet"), step=about.get("step")).get("seconds")
    marks = [r for r in read("train_unet") if r.get("loss") is not None and "fid" in r]
    marks = [r for r in marks if r["n"] == marks[0]["n"]]  # later ones were scored on other images
    fall = lambda key: 1 - marks[-1][key] / marks[0][key] if marks else None
    return {
        "HistoryLoss": percent(fall("loss"), ".0f"),
        "HistoryFid": percent(fall("fid"), ".0f"),
        "HistoryFrom": count(marks[0]["step"] if marks else None),
        "HistoryTo": count(marks[-1]["step"] if marks else None),
        "HistoryN": count(marks[0]["n"] if marks else None),
        "UnetFid": over(get("fid")),
        "UnetTimes": number(mean("fid") and mean("fid") / unet["floor"], ".2f"),
        "UnetN": count(unet.get("samples")),
        "UnetSeeds": str(len(get("fid"))),
        "UnetCalls": str(unet.get("calls", DASH)),
        "UnetLabel": percent(mean("agreement")),
        "UnetNearest": number(unet.get("nearest"), ".3f"),
        "RealNearest": number(unet.get("nearest_of_real"), ".3f"),
        "UnetSteps": count(about.get("step")),
        "UnetMinutes": count(seconds and seconds / 60),
        "UnetParameters": count(parameters(GUIDED["unet"])),
    }


def sampler_facts() -> dict[str, str]:
    """Of the way back: the best sampler of the fewest and of the most calls, the best and the strongest guidance."""
    plain = sampler_rows()
    calls = [r["calls"] for r in plain]
    budgets = sorted({each for each in calls if calls.count(each) > 2}) or [0]  # where there is something to compare
    best = lambda calls: min((r for r in plain if r["calls"] == calls), key=lambda r: r["fid"], default={})
    few, many, scales = best(budgets[0]), best(budgets[-1]), guidance_rows()
    gentle, strong = min(scales, key=lambda r: r["fid"], default={}), (scales or [{}])[-1]
    last = {r["sampler"]: r["fid"] for r in plain if r["calls"] == max(calls)}
    arrived = [r for r in read("convergence") if r["calls"] in (49, 50) and r["sampler"] != "ddim"]
    return {
        "NearCalls": str(max((r["calls"] for r in arrived), default=DASH)),
        "NearRmse": number(max((r["rmse"] for r in arrived), default=None), ".4f"),
        "FewCalls": str(few.get("calls", DASH)),
        "FewBest": code(few.get("sampler", DASH)),
        "FewFid": number(few.get("fid"), ".3f"),
        "ManyCalls": str(many.get("calls", DASH)),
        "ManyBest": code(many.get("sampler", DASH)),
        "ManyFid": number(many.get("fid"), ".3f"),
        "LastCalls": count(max(calls, default=0)),
        "LastDdpm": number(last.get("ddpm"), ".3f"),
        "LastSde": number(last.get("sde"), ".3f"),
        "GentleScale": number(gentle.get("guidance_scale"), "g"),
        "GentleFid": number(gentle.get("fid"), ".3f"),
        "StrongScale": number(strong.get("guidance_scale"), "g"),
        "StrongFid": number(strong.get("fid"), ".2f"),
        "StrongLabel": percent(strong.get("agreement")),
        "StrongPrecision": number(strong.get("precision"), ".2f"),
        "StrongRecall": number(strong.get("recall"), ".2f"),
    }


def minute_facts() -> dict[str, str]:
    """Of what a few minutes of training buy."""
    of = lambda name: [r for r in read("time_to_quality") if r["row"] == name] or [{}]
    ours, peer = of("ours"), of("tutorial")
    get = lambda records, key: [r[key] for r in records if key in r]
    times = [r["fid"] / r["floor"] for r in ours if r]
    return {
        "Minutes": number(ours[0].get("minutes"), "g"),
        "Threads": str(ours[0].get("threads", DASH)),
        "FastSteps": count(statistics.mean(get(ours, "steps") or [0])),
        "FastFid": over(get(ours, "fid"), ".3f"),
        "FastTimes": number(statistics.mean(times) if times else None, ".1f"),
        "FastLabel": over_percent(get(ours, "agreement")),
        "PeerSteps": count(peer[0].get("steps")),
        "PeerFid": number(peer[0].get("fid"), ".0f"),
    }


def write_numbers() -> str:
    return "".join(rf"\newcommand{{\{name}}}{{{text}}}" + "\n" for name, text in numbers().items())
