"""weights/README.md, written from the weight files alone."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from diffusion import files
from diffusion.experiment.build import Experiment
from diffusion.experiment.coursework import NAME
from diffusion.experiment.weights import load_weights
from diffusion.laboratory.judge import COLD_SAMPLERS

HEADS = ("file", "epochs", "parameters", "loss", "N × seeds", "FID", "inception score", "label seen", "restored FID",
         "sha256")  # fmt: skip
EYES = ("file", "what", "parameters", "measured", "sha256")
ABOUT = """\
Made by `make weights`; `python src weights --table` writes this page from the files. The number in a name is that of
its finished epochs, 0 is untrained. Files hold half precision, are loaded as float32 and were scored so; denoisers are
moving averages. Mean ± sd over sampling seeds of one training, sampled in the file's own way, against training images:

{measures}

Restored: test images from their averages, by one prediction, Algorithm 1 and Algorithm 2 of Bansal et al. (2022), and
Algorithm 1 with pinned averages in 28 steps, which is how new images are drawn."""


def catalogue(folder: Path) -> str:
    """The page for every weight file in the folder."""
    paths = sorted(folder.glob("*.pth"), key=_place)
    eyes = [path for path in paths if path.stem.startswith("classifier_")]
    models = {path: load_weights(path) for path in paths if path not in eyes}
    about = ABOUT.format(measures="\n".join(_measures(models.values())))
    rows = _table(HEADS, [_model(path, experiment) for path, experiment in models.items()])
    return f"# Weights\n\n{rows}\n{about}\n\n{_table(EYES, map(_eye, eyes))}"


def _measures(experiments: Iterable[Experiment]) -> Iterator[str]:
    """A line for every data set: through what it was seen, and what real test images score."""
    found: dict[tuple, set] = {}
    for each in experiments:
        scores = each.about["scores"]
        measure = each.config.dataset, scores["n_reference"], scores["extractor"], scores["sha256"]
        found.setdefault(measure, set()).add((scores["n"], scores["floor"]))
    for (dataset, n_reference, extractor, sha256), floors in sorted(found.items()):
        real = ", ".join(f"{fid:.3f} at N = {n:,}" for n, fid in sorted(floors))
        yield f"- {n_reference:,} of {dataset}, through the {extractor} `{sha256}`; real test images score {real}"


def _model(path: Path, experiment: Experiment) -> list[str]:
    about, scores = experiment.about, experiment.about["scores"]
    spread = lambda key, form: " ± ".join(format(scores[k], form) for k in (key, f"{key}_sd") if k in scores)
    back = scores.get("restored", {})
    return [
        f"`{path.name}`",
        f"{about['epoch']:.4g}",
        f"{sum(each.numel() for each in experiment.denoiser.network.parameters()) / 1e6:.2f} M",
        "–" if about.get("loss") is None else f"{about['loss']:.4f}",
        f"{scores['n']:,} × {scores['seeds']}",
        spread("fid", ".4f" if scores["fid"] < 0.1 else ".2f"),
        spread("inception_score", ".2f"),
        f"{scores['agreement']:.1%}" if "agreement" in scores else "–",
        ", ".join(f"{back[each]['fid']:.1f}" for each in COLD_SAMPLERS) if back else "–",
        _digest(path),
    ]


def _eye(path: Path) -> list[str]:
    content = files.load(path)
    made = f"`python src train-classifier --dataset {content['dataset']}`: what scores look through"
    size = f"{sum(value.numel() for value in content['state'].values()) / 1e6:.2f} M"
    return [f"`{path.name}`", made, size, f"{content['accuracy']:.2%} of {content['n_test']:,} test images",
            _digest(path)]  # fmt: skip


def _table(heads, rows) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, ["---"] * len(heads), *rows))


def _digest(path: Path) -> str:
    return f"`{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}`"


def _place(path: Path) -> tuple[str, int]:
    """Families one after another, each by epoch."""
    match = NAME.fullmatch(path.stem)
    epoch = match and match["epoch"]
    return (path.stem.replace(f"_{epoch}_", "_", 1), int(epoch)) if match else (path.stem, 0)
