"""What was measured: the records of runs and benchmarks, and the weights that are shipped."""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from diffusion import files
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import Config
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import load_weights
from diffusion.metrics.obedience import Share

ROOT = Path(__file__).parents[1]
RESULTS, WEIGHTS = ROOT / "Report" / "results", ROOT / "weights"
Record = dict[str, Any]
Groups = list[list[Record]]  # the rows of a table: of each, the records of all seeds

# Names in the records -> names in the tables.
SAMPLERS = {"direct": "one step", "alg1": "Algorithm 1", "alg2": "Algorithm 2", "pinned": "pinned", "ddpm": "DDPM"}
LATE = "the coursework's"  # its sampler "coursework", which the report does not show
PEERS = {"ours": "`unet_fast`, ours", "tutorial": "diffusers' tutorial"}
MINUTES_N = 2000
RECIPES = {  # of benchmarks/cold.py: in keys, in tables, and the preset of records that name none
    "original: t < T only": ("original", "original: *t* < *T* only", "default_28"),
    "t = T trained": ("trained", "no noise, *t* = *T* trained", "default_28"),
    "no noise": ("clean", "no noise", "cold_unet"),
    "noise 0.15 (of 2)": ("noise", "noise {:.3f}", "default_28"),
    "noise 0.15": ("noise", "noise {:.3f}", "cold_unet"),
    "DDPM, same network": ("hot", "Gaussian noise", "ddpm_unet"),
}
MEASURES = ("fid", "agreement", "ssim")
BRIEF = ("original alg2", "noise direct", "noise pinned")


@cache
def read(name: str) -> list[Record]:
    """The records in results/NAME.jsonl, the oldest first."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines() if line]


def grouped(records: Iterable[Record], *keys: str) -> Groups:
    """The records in groups that agree in all of these keys, in the order of their first members."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record.get(key) for key in keys), []).append(record)
    return list(groups.values())


def newest(records: Iterable[Record], *keys: str) -> list[Record]:
    """The last record of each such group."""
    return [group[-1] for group in grouped(records, *keys)]


def means(group: list[Record]) -> Record:
    """One record of several seeds: numbers, and lists of them, are means; the rest is the first's."""
    numeric = [key for key, value in group[0].items() if isinstance(value, int | float | list)]
    return group[0] | {key: np.mean([record[key] for record in group], axis=0).tolist() for key in numeric}


@cache
def preset(c: Config) -> Record:
    """The fields of a preset, and what tables say of it."""
    low, high = c.pixel_range
    return vars(c) | {
        "widths": f"{ {'cnn': 'CNN', 'unet': 'U-Net'}[c.network] } {'–'.join(map(str, c.hidden))}",
        "activation": c.activation if c.network == "cnn" else "silu",
        "T": c.timesteps if c.schedule == "linear" else None,
        "lines": c.shape[1] // c.timesteps,
        "share": c.noise / (high - low),  # of the range from black to white
        "parameters": sum(p.numel() for p in build(c).denoiser.network.parameters()),
    }


@cache
def shipped() -> list[Record]:
    """The MNIST models in weights/, family by family: the `model`, and what its file says of training and scores."""
    found = []
    for path in WEIGHTS.glob("*.pth"):
        if path.stem.startswith("classifier_") or (model := load_weights(path)).config.is_codec:
            continue
        if (c := model.config).dataset == "MNIST" and c.codec == "pixels":
            scores = model.about["scores"]
            family = f"{c.axis} {c.preset}" if c.process == "averaging" else c.preset
            fids = [f"{scores['restored'][name]['fid']:.1f}" for name in SAMPLERS if name in scores.get("restored", {})]
            own = {"family": family, "process": c.process, "model": model, "fids": ", ".join(fids) or None}
            own["epochs"] = model.about["epoch"]
            if "mean_of" in model.about:  # of several trainings: what it tells of one is not the whole
                own |= dict.fromkeys(("epochs", "step", "loss"))
            found.append(model.about | scores | own)
    return sorted(found, key=lambda r: (r["process"] != "gaussian", r["family"][:3] == "col", r["family"], r["epoch"]))


def model(family: str) -> Experiment:
    """The state of a family that was trained longest."""
    return next(r["model"] for r in reversed(shipped()) if r["family"] == family)


def histories() -> dict[str, list[Record]]:
    """Family -> the records of its training, one an epoch or mark."""
    stems = sorted(path.stem for path in RESULTS.glob("*.jsonl") if re.match("DDPM_|train_|custom_", path.stem))
    return {re.sub("^(row|col)_", r"\1 ", stem.partition("_")[2]): read(stem) for stem in stems}


@cache
def classifier() -> Record:
    """What every score was measured through: the sha256 of its file, its accuracy on n_test images."""
    path = WEIGHTS / "classifier_MNIST.pth"
    return files.load(path) | {"sha256": files.sha256(path)}


def floor(n: int, which: str = "drawn") -> Record:
    """The scores of n real test images, "drawn" from all of them or the "first" of the file."""
    return next(r for r in read("floors") if (r["n"], r["which"]) == (n, which))


def samplers(name: str = "samplers", least: int = 1, most: int = 1000) -> Groups:
    """Of each sampler, or distilled model, the unguided records of so many calls; heun's odd NFE belongs to the nearest
    `budget` of the others."""
    some = (r for r in read(name) if r.get("guidance_scale", 1) == 1 and least <= r["calls"] <= most)
    found = newest(some, "weights", "sampler", "calls")
    budgets = {r["calls"] for r in found if r["sampler"] != "heun"}
    nearest = lambda r: min(budgets, key=lambda budget: abs(budget - r["calls"]))
    named = lambda r: f"`{r['weights']}`" if r["sampler"] == "consistency" else f"`{r['sampler']}`"
    return grouped((r | {"budget": nearest(r), "name": named(r)} for r in found), "weights", "sampler")


def evaluations(name: str, *keys: str) -> Groups:
    """Evaluations of class-conditional models, sorted; trainings of a benchmark count as seeds of one model."""
    model = lambda r: re.sub(r"time_to_quality_(\w+)_\d+", r"\1, five minutes", Path(r["weights"]).stem)
    rows = [r | row | {"name": model(r), "times": row["fid"] / r["floor"]} for r in read(name) for row in r["rows"]]
    last = newest(rows, "weights", "guidance_scale", "calls", "samples", "seed")
    groups = grouped(sorted(last, key=lambda r: [r[key] for key in keys]), *keys)
    return [[r | {"rows": None, "seeds": len(group)} for r in group] for group in groups]


def obedience() -> Groups:
    """The exams of text models with the report's prompts (seed 0), a row for each guidance scale and split."""
    exams = newest((r for r in read("obedience") if r["seed"] == 0), "weights", "guidance_scale")
    return [[_examined(exam, split)] for exam in exams for split in ("seen", "unseen")]


def obedience_digits() -> Groups:
    """The last exam of a model of digits, a row for each kind of scene and split, then for all kinds together."""
    exam = read("obedience_digits")[-1]
    kinds = list(dict.fromkeys(name.split()[0] for name in exam["obedience"]))
    rows = [(kind, split) for split in ("seen", "unseen") for kind in [*kinds, ""]]
    return [[_examined(exam, split, kind) | {"kind": kind or "all"}] for kind, split in rows]


def _examined(exam: Record, split: str, kind: str = "") -> Record:
    """What one exam found in one split: each attribute over prompts of one kind or, if none is named, of all."""
    named = ((name.split(), found) for name, found in exam["obedience"].items())
    kinds = [found for (its_kind, its_split), found in named if its_split == split and kind in ("", its_kind)]
    every = dict.fromkeys(what for kind in kinds for what in kind["model"])
    total = lambda who, what: Share(*(sum(kind[who].get(what, (0, 0))[i] for kind in kinds) for i in (0, 1)))
    right = total("model", "all right")
    low, high = right.interval
    found = {what: total("model", what).value for what in every} | {"split": split, "n": right.of}
    found |= {"all_right": right.value, "interval": f"{100 * low:.1f}–{100 * high:.1f} %", "obedience": None}
    return exam | found | {who: total(who, "all right").value for who in ("real", "chance")}


def latents() -> Groups:
    """Shipped flows on latents, one row a model: what they need to draw, what their codec keeps, and what they draw."""
    rows, size = [], lambda module: sum(each.numel() for each in module.parameters())
    for path in sorted(WEIGHTS.glob("latent*_vae.pth")):
        codec, flow = load_weights(path), load_weights(path.with_name(path.name.replace("_vae", "")))
        scores, drawn = flow.about["scores"], size(flow.network) + size(codec.network.decoder)
        own = {"name": flow.config.preset, "latents": codec.config.latent, "guidance_scale": flow.config.guidance_scale}
        own |= {"to_draw": drawn, "size": drawn + size(codec.network.encoder), "dataset": flow.config.dataset}
        own |= {f"codec_{key}": codec.about["scores"][key] for key in ("half_sse", "kl", "fid")}
        rows.append([scores | own | {"by_codec": scores["fid"] / own["codec_fid"]}])
    return sorted(rows, key=lambda row: (row[0]["dataset"] != "MNIST", row[0]["to_draw"]))


def latent_size() -> Groups:
    """Autoencoders and flows of as many steps, one row a size: of each sampling seed a record of all scales."""
    merged = {}
    for record in read("latent_size"):
        own = {f"{key}_{record['guidance_scale']:g}": record[key] for key in ("fid", "agreement")}
        key = record["size"], record["seed"]
        merged[key] = merged.get(key, record) | own
    return sorted(grouped(merged.values(), "size"), key=lambda group: group[0]["to_draw"])


def bayes() -> Groups:
    """Accuracies by Bayes' rule, of the last test of each model on so many images."""
    name = lambda record: {"model": Path(record["weights"]).stem}
    found = [record | row | name(record) for record in read("latent_bayes") for row in record["bayes"]]
    rows = newest((row for row in found if "accuracy" in row), "model", "name", "n")
    return [[row] for row in sorted(rows, key=lambda row: row["dataset"] != "MNIST")]


def start() -> Groups:
    """What each command costs before it does anything, and what it cost in an older checkout, if that was measured."""
    found = {(r["checkout"], r["command"]): r for r in read("start")}
    torch = found.pop(("this", "import torch"))["cpu"]
    older = {command: r for (checkout, command), r in found.items() if checkout == "other"}
    about = {"torch": torch, "before": " or ".join(map(str, sorted({r["rounds"] for r in older.values()})))}
    was = lambda r: {f"{key}_before": older[r["command"]][key] for key in ("ratio", "cpu") if r["command"] in older}
    return [[r | was(r) | about] for (checkout, _), r in found.items() if checkout == "this"]


def minutes() -> Groups:
    """The rows of benchmarks/time_to_quality.py, by minutes, clock and network: the records of all training seeds.

    All of as many samples: some were scored by more of them, too.
    """
    keys = ("minutes", "clock", "threads", "row")
    clock = lambda r: {"wall": "wall", "cpu": "CPU"}[r.get("clock", "wall")]
    own = [r for r in read("time_to_quality") if r["n"] == MINUTES_N]
    named = [r | {"name": PEERS.get(r["row"], r["row"]), "clock": clock(r)} for r in own]
    last = sorted(newest(named, *keys, "seed"), key=lambda r: [r[key] for key in (*keys, "seed")])
    groups = grouped(last, *keys)
    return [[r | {"seeds": ", ".join(str(r["seed"]) for r in group)} for r in group] for group in groups]


def machine(r: Record) -> str:
    """The machine and its threads, a heading."""
    return f"{r['machine']}, {r['threads']} thread{'s' * (r['threads'] > 1)}"


def speed() -> Groups:
    """The rows of benchmarks/sampling.py, each machine's under a heading, ours first."""
    last = newest(read("speed"), "machine", "row", "sampler", "variant")
    return [[r | {"head": machine(r), "mflop": r["flop"] / 1e6}] for r in last]


def compiling() -> Groups:
    """The rows of benchmarks/compiling.py, one a network and number of threads: a call of each size in both forms."""
    rows = {}
    for r in newest(read("compiling"), "machine", "threads", "model", "batch_size"):
        call = f"{r['eager_ms']:#.3g} → {r['compiled_ms']:#.3g}"
        own = {"head": machine(r), f"calls_{r['batch_size']}": call, f"gain_{r['batch_size']}": r["gain"]}
        key = r["machine"], r["threads"], r["model"]
        rows[key] = rows.get(key, r) | own
    return [[row] for row in rows.values()]


@cache
def cold(file: str = "cold", brief: bool = False) -> Groups:
    """The records of each recipe and sampler, one a seed, under their heads; briefly, the original's and ours."""
    records = newest((_described(file, record) for record in read(file)), "key", "seed")
    heads = [r["head"] for r in records]
    some = [r for r in records if not brief or f"{r['recipe']} {r['way']}" in BRIEF]
    return grouped(sorted(some, key=lambda r: heads.index(r["head"])), "key")


def _described(file: str, r: Record) -> Record:
    """A record with its NFE, floors, the tables' words, and a key: "cold default_28 row original alg2 28"."""
    recipe, title, name = RECIPES.get(r["recipe"], RECIPES["noise 0.15"])  # shipped weights are named by their file
    c = preset(PRESETS[r.get("preset", name)].replace(axis=r["axis"]))
    options = SamplingOptions(sampler=r["way"], begin=r["begin"])
    nfe = r.get("calls") or build_sampler(build(PRESETS[c["preset"]]), options).nfe
    groups = f", {c['axis']}s in {c['T']} groups" if c["process"] == "averaging" else ""
    fresh = ", fresh noise" if recipe == "noise" and r["way"] in ("alg1", "pinned") else ""
    late = f", from *T* − {r['begin']}" if r["begin"] else ""
    return r | {
        "key": f"{file} {c['preset']} {c['axis']} {recipe} {r['way']} {nfe}",
        "recipe": recipe,
        "title": title.format(c["share"]),
        "head": f"{c['widths']}{groups}, {r['steps']:,} training steps",
        "widths": c["widths"],
        "sampler": SAMPLERS[r["way"]] + fresh + late,
        "nfe": nfe,
        "floor": floor(r["n"])["fid"],
        "first": floor(r["n"], "first")["fid"],
    }


def files_of(whose: str) -> list[Record]:
    """The records of benchmarks/weight_files.py on the "original" files or on "ours", by family and epoch."""
    family = lambda r: f"{r['axis']} {r['preset']}" if r["process"] == "averaging" else r["preset"]
    words = SAMPLERS | {"coursework": LATE}
    found = [r for r in newest(read("weight_files"), "of", "file", "sampler") if r["of"] == whose]
    found = [r | {"family": family(r), "title": words.get(r["sampler"], r["sampler"])} for r in found]
    return sorted(found, key=lambda r: (r["process"] != "averaging", r["family"], r["epoch"]))


def cold_files() -> Groups:
    """The last state of each cold family by every sampler, one a row: the original's file, and ours beside it."""
    last = {whose: {} for whose in ("original", "ours")}
    for whose, found in last.items():
        found |= {(r["family"], r["sampler"]): r for r in files_of(whose) if r["process"] == "averaging"}
    rows = []
    for key in {**last["original"], **last["ours"]}:
        theirs, own = (last[whose].get(key, {}) for whose in last)
        some = theirs or own
        after = [f"{who} {r['epoch']}" for who, r in (("the original's", theirs), ("ours", own)) if r]
        head = f"{some['axis']}s in {some['timesteps']} groups, `{some['preset']}`; epochs: {', '.join(after)}"
        beside = {f"{whose}_{name}": r.get(name) for whose, r in (("their", theirs), ("our", own)) for name in MEASURES}
        rows.append([some | {"head": head, **beside}])
    return sorted(rows, key=lambda row: ("unet" in row[0]["preset"], row[0]["family"]))


def files_epochs(whose: str) -> Groups:
    """The states of each family, sampled as their files say; the cold ones also by the coursework's sampler."""
    some = [r for r in files_of(whose) if r["sampler"] not in ("alg1", "alg2", "direct")]
    named = [r | {"row": f"`{r['family']}`, {r['title']}"} for r in some]
    return grouped(named, "row")


def hot_cold() -> Groups:
    """The rows of new digits that have the network and the training steps of the DDPM, the best first."""
    hot = next(r for r, *_ in cold() if r["way"] == "ddpm")
    same = lambda r: "new" in r and all(r[key] == hot[key] for key in ("widths", "steps", "n"))
    found = [[r | {"times": r["new"] / r["floor"]} for r in group] for group in cold() if same(group[0])]
    return sorted(found, key=lambda group: means(group)["new"])
