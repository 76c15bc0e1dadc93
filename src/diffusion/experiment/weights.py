"""Weight files: written, found by name, and read, ours and the coursework's."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusion import files
from diffusion.errors import UserError, unknown
from diffusion.experiment import coursework
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import checked

FORMAT = "cold_dif_model 1"


def save_weights(path: Path, experiment: Experiment, half: bool = False, **about: Any) -> Path:
    """Write config, weights and what is known `about` them (epoch, holds, scores) to one file, atomically.

    `half` stores the network in half precision, for a file of half the size; it loads as float32.
    """
    network, process = experiment.denoiser.network.state_dict(), experiment.process.state_dict()
    if half:
        network = {name: value.half() if value.is_floating_point() else value for name, value in network.items()}
    content = {"format": FORMAT, "config": asdict(experiment.config), "network": network, "process": process}
    content["about"] = about
    return files.save(path, content)


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
    """The file of that path, or of that name (with or without .pth) in one of the folders."""
    name = str(name)
    if Path(name).is_file():
        return Path(name)
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.pth"))]
    known = {path.stem: path for path in found if not path.stem.startswith("classifier_")}
    stem = Path(name).name.removesuffix(".pth")
    if "/" in name or stem not in known:
        raise unknown("weight file", name, sorted(known))
    return known[stem]
