"""Weight files: written, found by name, and read, ours and the coursework's."""

from collections.abc import Iterable
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment import coursework
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import checked

FORMAT = "cold_dif_model 1"


def save_weights(path: Path, experiment: Experiment, half: bool = False) -> Path:
    """Write config, weights and `experiment.about` to one file, atomically; with `half` the network in float16."""
    network, process = experiment.denoiser.network.state_dict(), experiment.process.state_dict()
    if half:
        network = {name: value.half() if value.is_floating_point() else value for name, value in network.items()}
    content = {"config": asdict(experiment.config), "network": network, "process": process, "about": experiment.about}
    return files.save(path, {"format": FORMAT, **content})


def load_weights(path: Path) -> Experiment:
    """The experiment in a weight file, ours or the coursework's; on the CPU, ready to sample.

    Raises UserError with one sentence when the file is missing, cut short, of another kind or another architecture.
    """
    content = files.load(path)
    if coursework.is_coursework(content):
        content = coursework.read(content, Path(path).stem)
    elif not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a weight file of a diffusion model")
    try:
        experiment = build(checked(content["config"]))
        experiment.denoiser.network.load_state_dict(content["network"])
        experiment.process.load_state_dict({**experiment.process.state_dict(), **content.get("process", {})})
        experiment.about = content["about"]
    except (RuntimeError, KeyError) as error:
        wrong = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"the weights in {str(path)!r} do not fit the network they name: {wrong}") from None
    return experiment


def find_weights(name: str, folders: Iterable[Path]) -> Path:
    """The file of that path, or of that name in one of the folders; UserError with the nearest names if there is none.

    A name is a file's own, or a preset with axis and epoch: "cold_unet row", "default_28 row@40". One axis need not be
    said; no epoch means the longest training.
    """
    if Path(name).is_file():
        return Path(name)
    known = _names(path for folder in folders for path in sorted(Path(folder).glob("*.pth")))
    own = name.removesuffix(".pth")
    preset, at, epoch = own.partition("@")
    meant = [each for each in (own, f"{preset} row{at}{epoch}", f"{preset} col{at}{epoch}") if each in known]
    if own in known or len(meant) == 1:
        return known[meant[0]]
    if meant:
        raise UserError(f"{name!r} is there for both axes: say {' or '.join(map(repr, meant))}")
    near = get_close_matches(own, [each for each in known if ("@" in each) == ("@" in name)], n=3, cutoff=0.0)
    hint = f" — did you mean {', '.join(map(repr, near))}?" if near else ""
    raise UserError(f"unknown weight file {name!r}{hint} (weights/README.md lists the shipped ones)")


def _names(paths: Iterable[Path]) -> dict[str, Path]:
    """Weight files of denoisers by all their names; of equal names the longest training, then the last folder."""
    matches = [(path, coursework.NAME.fullmatch(path.stem)) for path in paths]
    names: dict[str, Path] = {}
    for path, match in sorted(matches, key=lambda each: int(each[1]["epoch"]) if each[1] else 0):
        if match:
            short = " ".join(filter(None, match.group("preset", "axis")))
            names |= {short: path, f"{short}@{match['epoch']}": path}
    own = {path.stem: path for path, _ in matches if not path.stem.startswith("classifier_")}
    return names | own
