"""Weight files: written, found by name, and read, ours and the coursework's."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import torch
from torch import Tensor, nn

from diffusion import files
from diffusion.data import minilm
from diffusion.errors import Failure, UserError
from diffusion.experiment import coursework
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import Config, checked
from diffusion.experiment.naming import NAME
from diffusion.method.averaging import Averaging
from diffusion.method.codec import Codec, Latents

FORMAT = "cold_dif_model 1"
# What two experiments have in common if the one can have the weights of the other:
ALIKE: tuple[str, ...] = ("shape", "codec", "pixel_range", "process", "axis", "schedule", "target", "network", "hidden")
ALIKE += ("activation", "classes", "text_encoder", "pooled", "words", "caption_length", "encoder", "latent")


def save_weights(path: Path, experiment: Experiment, half: bool = False) -> Path:
    """Write config, weights and `experiment.about` to one file, atomically; with `half` the network in float16.

    A model of latents carries its codec, in float16. Failure if a weight is not finite, or too large for float16.
    """
    content: dict[str, Any] = {"config": asdict(experiment.config), "network": _state(experiment.network, half)}
    content["process"] = experiment.process_state()
    if experiment.config.text_encoder != "words":
        content["text_encoder"] = experiment.text_encoder  # its weights are not in the file, but its sha256 is
    if isinstance(codec := experiment.codec, Latents):
        statistics = {"mean": codec.mean, "std": codec.std}
        if experiment.config.is_codec:
            content["statistics"] = statistics
        else:
            own = {"config": codec.settings, "network": _state(codec.autoencoder, half=True)}
            content["codec"] = own | {"statistics": statistics}
    for state in (content["network"], content.get("codec", {}).get("network", {})):
        _check_numbers(f"the weights for {str(path)!r}", state)
    return files.save(path, {"format": FORMAT, **content, "about": experiment.about})


def _state(network: nn.Module, half: bool) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value.half() if half and value.is_floating_point() else value for name, value in state.items()}


def load_weights(path: Path, preset: str | None = None) -> Experiment:
    """The experiment in a weight file, ours or the coursework's; on the CPU, ready to sample.

    `preset` is that of a file of the coursework whose name does not say it. Raises UserError with one sentence when the
    file is missing, cut short, of another kind or another architecture; Failure when a weight is not finite.
    """
    content = files.load(path)
    if states := coursework.find_states(content):
        content = coursework.read(states, Path(path).stem, preset)
    elif not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a weight file of a diffusion model")
    elif preset is not None:
        raise UserError(f"{str(path)!r} says itself what it holds: leave the preset out")
    for part in ("config", "network", "process", "about"):
        if not isinstance(content.get(part), dict):
            raise UserError(f"{str(path)!r} is not a whole weight file: its {part!r} is missing")
    _check_numbers(f"the weights in {str(path)!r}", content["network"] | content["process"])
    try:
        experiment = _rebuilt(content)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        wrong = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"the weights in {str(path)!r} do not fit the network they name: {wrong}") from None
    experiment.about, experiment.path = content["about"], Path(path)
    return experiment


def _rebuilt(content: dict[str, Any]) -> Experiment:
    """The experiment of a whole file's content, or the codec of the part that a model of its latents carries."""
    config = checked(content["config"])
    codec = _rebuilt(content["codec"]).codec if "codec" in content else None
    pretrained = open_text_encoder(config)
    if content.get("text_encoder") != (pretrained.digest if pretrained else None):
        raise UserError(
            f"these weights need the text encoder of sha256 {content.get('text_encoder')}, which is not here"
        )
    experiment = build(config, content.get("process", {}).get("schedule.alpha_bar"), codec, pretrained)
    experiment.network.load_state_dict(coursework.plain_keys(content["network"]))
    if config.is_codec:
        experiment.codec.load_state_dict(experiment.codec.state_dict() | content["statistics"])
        return experiment
    experiment.process.load_state_dict({**experiment.process.state_dict(), **content["process"]})
    if isinstance(experiment.process, Averaging) and not experiment.process.is_order:
        raise UserError("the order of the lines in these weights is none: each is in one of groups of equal size")
    return experiment


def open_codec(config: Config, folders: Iterable[Path]) -> Codec | None:
    """The codec in the weight file that config.codec names, None for pixels; UserError if it is no autoencoder's."""
    if config.codec == "pixels" or config.is_codec:
        return None
    experiment = load_weights(find_weights(config.codec, folders))
    if not experiment.config.is_codec:
        raise UserError(f"codec {config.codec!r}: {experiment.path} is no autoencoder, but a model that draws")
    if experiment.config.shape != config.shape:
        raise UserError(f"codec {config.codec!r} is of images {experiment.config.shape}, not {config.shape}")
    return experiment.codec


def open_text_encoder(config: Config, root: str | Path = "data") -> minilm.Pretrained | None:
    """The pretrained text encoder that config names, from root or fetched into it; None for words."""
    return minilm.load(root) if config.reads and config.text_encoder == "minilm" else None


def begin_from_teacher(experiment: Experiment, folders: Iterable[Path]) -> Experiment:
    """Give an untrained experiment the teacher that its config names, if it names one, and that one's weights.

    Or those of config.start, if it names a file. UserError if either answers another question or has another network.
    """
    config = experiment.config
    if config.teacher == "none":
        if config.start != "none" or config.distillation != "consistency":
            raise UserError("start and distillation are of a model that learns from another: name its teacher, too")
        return experiment
    if config.process != "gaussian" or config.schedule == "linear":
        raise UserError(f"teacher {config.teacher!r}: only models in continuous time are distilled")
    teacher = load_alike("teacher", config.teacher, config, folders)
    start = teacher if config.start == "none" else load_alike("start", config.start, config, folders)
    experiment.network.load_state_dict(start.network.state_dict())
    experiment.teacher = teacher.denoiser.requires_grad_(False)
    return experiment


def load_alike(what: str, name: str, config: Config, folders: Iterable[Path]) -> Experiment:
    """The experiment in a weight file; UserError, which says `what` named it, if its weights do not suit config."""
    known = load_weights(find_weights(name, folders))
    for each in ALIKE:
        if (its := getattr(known.config, each)) != (own := getattr(config, each)):
            why = f"its weights do not suit a model with {brief(own)}"
            raise UserError(f"{what} {name!r} has {each} {brief(its)}: {why}")
    return known


def mean_of(experiments: Sequence[Experiment]) -> Experiment:
    """The first, given the mean of the weights of all, whose networks are alike. Of trainings that began alike it is
    often better than any of them (Wortsman et al., 2022).
    """
    states = [each.network.state_dict() for each in experiments]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    experiments[0].network.load_state_dict(mean)
    experiments[0].about["mean_of"] = len(experiments)
    return experiments[0]


def weight_folders() -> list[Path]:
    """Where weight files are found by name: those that are shipped, weights/ and the runs here."""
    return [files.shipped_weights(), Path("weights"), *sorted(Path("runs").glob("*"))]


def find_weights(name: str, folders: Iterable[Path]) -> Path:
    """The file of that path, or of that name in one of the folders; UserError with the nearest names if there is none.

    A name is a file's own, or a preset with axis and epoch: "cold_unet row", "default_28 row@40". One axis need not be
    said; no epoch means the longest training. What the first folder has, the shipped weights, keeps its names; a name
    that means files in several of the others is refused. What was put aside has no name, only a path.
    """
    if files.is_file(path := files.expand(name)):
        return path
    folders = [folder for folder in map(Path, folders) if not files.is_aside(folder)]
    shelves = weight_names(folders[:1]), weight_names(folders[1:])
    for known in shelves:
        if found := _choose(name, known):
            return found
    known, own = shelves[0] | shelves[1], name.removesuffix(".pth")
    near = get_close_matches(own, [each for each in known if ("@" in each) == ("@" in name)], n=3, cutoff=0.0)
    hint = f" — did you mean {', '.join(map(repr, near))}?" if near else ""
    raise UserError(f"unknown weight file {name!r}{hint} (weights/README.md lists the shipped ones)")


def _choose(name: str, known: dict[str, list[Path]]) -> Path | None:
    """The file that is meant, or None; UserError if it could be several."""
    own = name.removesuffix(".pth")
    preset, at, epoch = own.partition("@")
    meant = [each for each in (own, f"{preset} row{at}{epoch}", f"{preset} col{at}{epoch}") if each in known]
    if own not in known and len(meant) > 1:
        raise UserError(f"{name!r} is there for both axes: say {' or '.join(map(repr, meant))}")
    paths = known[meant[0]] if meant else []
    if len(paths) > 1:
        raise UserError(f"{name!r} is the name of several files, say which: {', '.join(map(str, paths))}")
    return paths[0] if paths else None


def weight_names(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Weight files of denoisers by all their names; of equal names in one folder the longest training."""
    names: dict[str, list[Path]] = {}
    for folder in {folder.resolve(): folder for folder in folders}.values():
        matches = [(path, NAME.fullmatch(path.stem)) for path in sorted(folder.glob("*.pth"))]
        short: dict[str, Path] = {}
        for path, match in sorted(matches, key=lambda each: int(each[1]["epoch"]) if each[1] else 0):
            if match:
                name = " ".join(filter(None, match.group("preset", "axis")))
                short |= {name: path, f"{name}@{match['epoch']}": path}
        own = {path.stem: path for path, _ in matches if not path.stem.startswith("classifier_")}
        for name, path in [*short.items(), *own.items()]:
            names.setdefault(name, []).append(path)
    return names


def _check_numbers(what: str, state: dict[str, Any]) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise UserError(f"{what} are of no use: {name!r} is no plain table of numbers")
        if not value.isfinite().all():
            raise Failure(f"{what} are of no use: {name!r} is not finite everywhere")
