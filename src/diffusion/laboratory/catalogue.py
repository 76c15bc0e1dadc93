"""weights/README.md, written from the weight files alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from diffusion import files
from diffusion.experiment.build import Experiment
from diffusion.experiment.naming import NAME
from diffusion.experiment.weights import load_weights
from diffusion.laboratory.judge import COLD_SAMPLERS
from diffusion.method.codec import Latents

ABOUT = """\
Made by `make weights`; `python src weights --table` writes this page from the files. The number in a name is that of
its finished epochs, 0 is untrained. Files hold half precision, are loaded as float32 and were scored so; denoisers are
moving averages. Mean ± sd over sampling seeds of one training, sampled as the file says, against training images:

{measures}

Restored: test images from their averages, by one prediction, Algorithm 1 and Algorithm 2 of Bansal et al. (2022), and
Algorithm 1 with pinned averages in 28 steps, which is how new images are drawn."""

TEXTS = """\
Models that read prompts, examined by `python src evaluate`: in how many pictures all that was asked for is right, of
how many of real pictures the checkers say so; with combinations that training shows, and with those it never shows."""


def catalogue(folder: Path) -> str:
    """The page for every weight file in the folder."""
    paths = sorted(folder.glob("*.pth"), key=_family_and_epoch)
    classifiers = [path for path in paths if path.stem.startswith("classifier_")]
    known = {path: load_weights(path) for path in paths if path not in classifiers}
    models = {path: each for path, each in known.items() if _is_scored(each)}
    others = ", ".join(f"`{path.name}`" for path in known if path not in models)
    others = others and f"\nWithout the scores of this page: {others}\n"
    readers = {path: models.pop(path) for path in paths if path in models and models[path].config.reads}
    about = ABOUT.format(measures="\n".join(_measures(models.values())))
    denoisers = _table({path: _denoiser(each) for path, each in models.items() if not each.config.is_codec})
    codecs = _table({path: _codec(each) for path, each in models.items() if each.config.is_codec})
    codecs = codecs and f"{codecs}\n"
    texts = f"{TEXTS}\n\n{_table({path: _text(each) for path, each in readers.items()})}\n" if readers else ""
    of_classifiers = _table({path: _classifier(path) for path in classifiers})
    return f"# Weights\n\n{denoisers}\n{about}\n\n{texts}{codecs}{of_classifiers}{others}"


def _is_scored(experiment: Experiment) -> bool:
    """Whether it has what the tables say: what `weights` and `evaluate --ship` find, and training alone does not."""
    return ("model" if experiment.config.reads else "seeds") in experiment.about.get("scores", {})


def _measures(experiments: Iterable[Experiment]) -> Iterator[str]:
    """A line for every data set: the features, and what real test images score."""
    found: dict[tuple, set[tuple[int, str]]] = {}
    for each in experiments:
        scores = each.about["scores"]
        measure = each.config.dataset, scores["n_reference"], scores["extractor"], scores["sha256"]
        found.setdefault(measure, set()).add((scores["n"], f"{scores['floor']:.3f}"))  # equal up to rounding
    for (dataset, n_reference, extractor, sha256), floors in sorted(found.items()):
        real = ", ".join(f"{fid} at N = {n:,}" for n, fid in sorted(floors))
        yield f"- {n_reference:,} of {dataset}, through the {extractor} `{sha256}`; real test images score {real}"


def _denoiser(experiment: Experiment) -> dict[str, str]:
    about, scores = experiment.about, experiment.about["scores"]
    spread = lambda key, form: " ± ".join(format(scores[k], form) for k in (key, f"{key}_sd") if k in scores)
    restored, mean_of = scores.get("restored", {}), about.get("mean_of", 1)
    decoder = experiment.codec.autoencoder.decoder.parameters() if isinstance(experiment.codec, Latents) else ()
    return {
        "epochs": f"{about['epoch']:.4g}" + (f", mean of {mean_of} trainings" if mean_of > 1 else ""),
        "parameters to draw": _size(*experiment.denoiser.network.parameters(), *decoder),
        "loss": "–" if about.get("loss") is None or mean_of > 1 else f"{about['loss']:.4f}",
        "N × seeds": f"{scores['n']:,} × {scores['seeds']}",
        "FID": spread("fid", ".4f" if scores["fid"] < 0.1 else ".3f" if scores["fid"] < 1 else ".2f"),
        "inception score": spread("inception_score", ".2f"),
        "label seen": f"{scores['agreement']:.1%}" if "agreement" in scores else "–",
        "restored FID": ", ".join(f"{restored[each]['fid']:.1f}" for each in COLD_SAMPLERS) if restored else "–",
    }


def _text(experiment: Experiment) -> dict[str, str]:
    about, scores = experiment.about, experiment.about["scores"]
    right = lambda split: f"{scores['model'][split]:.1%} of {scores['real'][split]:.1%}"
    return {
        "steps": f"{about['step']:,}",
        "parameters": _size(*experiment.denoiser.network.parameters()),
        "guidance scale": f"{scores['guidance_scale']:g}",
        "prompts of a kind": str(scores["prompts"]),
        "all right, seen": right("seen"),
        "all right, unseen": right("unseen"),
    }


def _codec(experiment: Experiment) -> dict[str, str]:
    scores, autoencoder = experiment.about["scores"], experiment.network
    halves = [sum(each.numel() for each in half.parameters()) for half in (autoencoder.encoder, autoencoder.decoder)]
    return {
        "what": f"an autoencoder of {experiment.config.dataset}, {experiment.config.latent} latents",
        "parameters to encode, to decode": " + ".join(f"{each:,}" for each in halves),
        "half SSE": f"{scores['half_sse']:.2f}",
        "KL": f"{scores['kl']:.1f}",
        "FID of reconstructions": f"{scores['fid']:.3f}",
    }


def _classifier(path: Path) -> dict[str, str]:
    content = files.load(path)
    return {
        "what": f"`python src train-classifier --dataset {content['dataset']}`: the features of the scores",
        "parameters": _size(*content["state"].values()),
        "measured": f"{content['accuracy']:.2%} of {content['n_test']:,} test images",
    }


def _size(*tensors: Tensor) -> str:
    """How many numbers they hold."""
    size = sum(each.numel() for each in tensors)
    return f"{size:,}" if size < 1e6 else f"{size / 1e6:.2f} M"


def _table(cells: dict[Path, dict[str, str]]) -> str:
    """A line a file in Markdown: its name, its cells by their heads, its hash."""
    name, digest = lambda path: f"`{path.name}`", lambda path: f"`{files.sha256(path)[:16]}`"
    rows = [{"file": name(path), **of_file, "sha256": digest(path)} for path, of_file in cells.items()]
    lines = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)] if rows else []
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _family_and_epoch(path: Path) -> tuple[str, int]:
    """Families one after another, each by epoch."""
    match = NAME.fullmatch(path.stem)
    epoch = match and match["epoch"]
    return (path.stem.replace(f"_{epoch}_", "_", 1), int(epoch)) if match else (path.stem, 0)
