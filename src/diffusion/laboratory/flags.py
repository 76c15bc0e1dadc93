"""The options of command lines, each declared once; those of a run are the fields of RunOptions."""

from argparse import Namespace
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from diffusion.data.registry import DATASETS
from diffusion.experiment.config import choices
from diffusion.experiment.presets import COLD, DDPM
from diffusion.experiment.samplers import FEWEST, NAMES, SAMPLERS
from diffusion.laboratory.options import directory, number, one_of, output_directories, output_directory, path
from diffusion.metrics.classifiers import CLASSIFIERS

CHANGEABLE = ("dataset", "lr", "batch_size", "precision", "seed", "axis", "order", "noise", "loss")  # by options
ORDERS = choices("order")
FEATURES = ("auto", *CLASSIFIERS, "inception")
T = TypeVar("T")


def option(default: Any, explanation: str, **argument: Any) -> Any:
    """A field that is an option of command lines, too: its default, its help, what else argparse has to know."""
    text = str(default) if isinstance(default, Path) else default  # argparse checks only defaults that are text
    return field(default=default, metadata={"default": text, "help": explanation, **argument})


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept and scored, whatever is trained."""

    out: Path = option(Path("."), "where runs/, Plots/ and contents/ are made", type=output_directory)
    data_root: Path = option(Path("data"), "where data sets are kept", type=directory)
    device: str = option("auto", "auto is the GPU if there is one", type=one_of("device", ["auto", "cpu", "cuda"]))
    resume: bool = option(False, "continue this run from its last saved state", action="store_true")
    limit_steps: int | None = option(None, "end the training after this many steps in all", type=number(int, 1))
    save_every: float = option(60, "seconds between saves", type=number(float, 0))
    eval_samples: int = option(1024, "images a score is measured on", type=number(int, 2))
    eval_seeds: int = option(3, "seeds of the final score, for its spread", type=number(int, 1))
    features: str = option("auto", "of FID and IS; auto: the data set's classifier", type=one_of("features", FEATURES))
    inception_weights: Path | None = option(None, "Inception's file, if it cannot be downloaded", type=path)
    changes: dict[str, Any] = field(default_factory=dict)  # settings of the Config that the user gave as options

    @classmethod
    def of(cls, args: Namespace) -> "RunOptions":
        """From a command line."""
        changes = {key: getattr(args, key) for key in CHANGEABLE if getattr(args, key, None) is not None}
        return replace(options_of(cls, args), changes=changes)


def options_of(kind: type[T], args: Namespace) -> T:
    """The options of that kind on a command line; those that it does not have keep their defaults."""
    return kind(**{each.name: getattr(args, each.name) for each in fields(kind) if hasattr(args, each.name)})


STEPS = ", ".join(f"{spec.steps} for {name}" for name, spec in SAMPLERS["gaussian"].items())
COLD_STEPS = f"T, of pinned at least {FEWEST}, 1 for direct"
SCORES = ("eval-samples", "eval-seeds", "features", "inception-weights")
ROWS: dict[str, tuple] = {  # type, help and default
    "weights": (
        str,
        "a weight file, or the name of one in weights/, else in runs/*/: unet, 'cold_unet row', default@20",
    ),
    "preset": (one_of("preset", [*DDPM, *COLD]), "of a file of the coursework, if its name does not say it"),
    "count": (number(int, 1, 10**9), "how many samples", 16),
    "seed": (number(int, 0, 2**63 - 1), "of all noise: sample i of a seed is always the same image", 0),
    "sampler": (one_of("sampler", NAMES), f"{', '.join(NAMES)}; the last five of cold weights (default: as saved)"),
    "steps": (number(int, 1), f"of the sampler (default: {STEPS}; of cold weights {COLD_STEPS})"),
    "guidance-scale": (
        number(float, -100, 100),
        "0 ignores the label, 1 follows it, 2 exaggerates it (default: as saved)",
    ),
    "guidance-interval": (number(float, 0, 1), "guide only at these times (default: 0 1, always)", (0.0, 1.0)),
    "batch-size": (number(int, 1), "images at a time; does not change them (default: by device)"),
    "dataset": (one_of("dataset", DATASETS), ", ".join(DATASETS), "MNIST"),
    "lr": (number(float, 1e-9), "learning rate (default: the preset's)"),
    "precision": (one_of("precision", ["bf16", "fp32"]), "bf16 or fp32 (default: bf16 where the hardware has it)"),
    "noise": (number(float, 0, 10), "on averaged images, in units of x (default: the preset's; the coursework's: 0)"),
    "order": (one_of("order", ORDERS), f"of averaged lines: {', '.join(ORDERS)} (default: random)"),
    "loss": (one_of("loss", choices("loss")), "l2 or l1 (default: l2)"),
    "eval-every": (number(int, 1), "epochs between two scores", 1),
}
FLAGS: dict[str, dict[str, Any]] = {name: dict(zip(("type", "help", "default"), row)) for name, row in ROWS.items()}
FLAGS["guidance-interval"] |= {"dest": "interval", "nargs": 2, "metavar": ("LOW", "HIGH")}
FLAGS |= {each.name.replace("_", "-"): dict(each.metadata) for each in fields(RunOptions) if each.metadata}


NOT_NEEDED = {"help": "understood, not needed: a thousand images at a time fit into memory"}


def add_flags(parser: Any, *names: str, **changes: dict[str, Any]) -> None:
    """Add shared options to a parser or a group of one; `changes` are of single ones: `out={"default": …}`."""
    for name in names:
        parser.add_argument(f"--{name}", **FLAGS[name] | changes.get(name.replace("-", "_"), {}))


def add_training_flags(parser: Any, *folders: str, process: str = "", scores: bool = True) -> None:
    """What is common to everything that trains; how a kind of `process` is sampled meanwhile; how that is scored.

    `folders` are those that it writes in --out.
    """
    group = parser.add_argument_group("training")
    seed = {"default": None, "help": "of weights, order and noise (default: 0)"}
    batch_size = {"help": "of all processes together (default: the preset's)"}
    changes = {"seed": seed, "batch_size": batch_size, "out": {"type": output_directories(*folders)}}
    add_flags(group, "dataset", "data-root", "out", "seed", "lr", "batch-size", **changes)
    add_flags(group, "precision", "device", "resume", "limit-steps", "save-every")
    if process:
        known, usual = SAMPLERS[process], {"gaussian": STEPS, "averaging": COLD_STEPS}[process]
        sampler = {"type": one_of("sampler", known), "help": f"{', '.join(known)} (default: the preset's)"}
        steps, group = {"help": f"of the sampler (default: {usual})"}, parser.add_argument_group("sampling")
        add_flags(group, "sampler", "steps", "eval-every", sampler=sampler, steps=steps)
    if scores:
        add_flags(parser.add_argument_group("scores"), *SCORES)
