"""The options that command lines share, each declared once."""

from pathlib import Path
from typing import Any

from diffusion.data.datasets import DATASETS
from diffusion.experiment.samplers import FEWEST, NAMES, SAMPLERS
from diffusion.laboratory.options import directory, number, one_of
from diffusion.method.averaging import ORDERS
from diffusion.method.denoiser import LOSSES
from diffusion.metrics.features import CLASSIFIERS

STEPS = ", ".join(f"{spec.steps} for {name}" for name, spec in SAMPLERS["gaussian"].items())
COLD_STEPS = f"T, of pinned at least {FEWEST}, 1 for direct"
FLAGS: dict[str, dict[str, Any]] = {
    "weights": {"help": "a weight file, or the name of one in weights/ or runs/*/: unet, 'cold_unet row', default@20"},
    "count": {"type": number(int, 1, 10**9), "default": 16, "help": "how many samples"},
    "seed": {"type": number(int, 0), "default": 0, "help": "of all noise: sample i of a seed is always the same image"},
    "sampler": {
        "type": one_of("sampler", NAMES),
        "help": f"{', '.join(NAMES)}; the last four of cold weights (default: as saved)",
    },
    "steps": {"type": number(int, 1), "help": f"of the sampler (default: {STEPS}; of cold weights {COLD_STEPS})"},
    "guidance-scale": {
        "type": number(float, -100, 100),
        "default": 1.0,
        "help": "0 ignores the label, 1 follows it, more exaggerates it",
    },
    "guidance-interval": {
        "type": number(float, 0, 1),
        "nargs": 2,
        "default": (0.0, 1.0),
        "metavar": ("LOW", "HIGH"),
        "help": "guide only between these times (default: 0 1, all)",
    },
    "batch-size": {"type": number(int, 1), "help": "images at a time; does not change them (default: by device)"},
    "dataset": {"type": one_of("dataset", DATASETS), "default": "MNIST", "help": ", ".join(DATASETS)},
    "data-root": {"type": directory, "default": Path("data"), "help": "where data sets are kept"},
    "device": {
        "type": one_of("device", ["auto", "cpu", "cuda"]),
        "default": "auto",
        "help": "auto is the GPU if there is one",
    },
    "out": {"type": directory, "default": Path("."), "help": "where runs/, Plots/ and contents/ are made"},
    "resume": {"action": "store_true", "help": "continue this run from its last saved state"},
    "save-every": {"type": number(float, 0), "default": 60, "help": "seconds between saves"},
    "limit-steps": {"type": number(int, 1), "help": "end the training after this many steps in all"},
    "lr": {"type": number(float, 1e-9), "help": "learning rate (default: the preset's)"},
    "precision": {
        "type": one_of("precision", ["bf16", "fp32"]),
        "help": "of the network (default: bf16 where the processor computes in it)",
    },
    "noise": {
        "type": number(float, 0, 10),
        "help": "on averaged images, in units of x (default: the preset's; 0 is the coursework's)",
    },
    "order": {"type": one_of("order", ORDERS), "help": "in which lines are averaged (default: random)"},
    "loss": {"type": one_of("loss", LOSSES), "help": "l2 or l1 (default: l2)"},
    "eval-every": {"type": number(int, 1), "default": 1, "help": "epochs between two scores"},
    "eval-samples": {"type": number(int, 2), "default": 1024, "help": "images a score is measured on"},
    "eval-seeds": {"type": number(int, 1), "default": 3, "help": "seeds of the final score, for its spread"},
    "features": {
        "type": one_of("features", ["auto", *CLASSIFIERS, "inception"]),
        "default": "auto",
        "help": "what FID and IS look through; auto is the classifier of the data set",
    },
    "inception-weights": {"type": Path, "help": "Inception's file, if it cannot be downloaded"},
}


def add_flags(parser: Any, *names: str, **changes: dict[str, Any]) -> None:
    """Add shared options to a parser or a group of one; `changes` are of single ones: `out={"default": …}`."""
    for name in names:
        parser.add_argument(f"--{name}", **FLAGS[name] | changes.get(name.replace("-", "_"), {}))


def add_training_flags(parser: Any) -> None:
    """What is common to everything that trains."""
    group = parser.add_argument_group("training")
    seed = {"default": None, "help": "of weights, order and noise (default: 0)"}
    batch_size = {"help": "of all processes together (default: the preset's)"}
    add_flags(group, "dataset", "data-root", "out", "seed", "lr", "batch-size", seed=seed, batch_size=batch_size)
    add_flags(group, "precision", "device", "resume", "limit-steps", "save-every")


def add_sampling_flags(parser: Any, kind: str) -> None:
    """How a `kind` of process is sampled, and how often."""
    names, steps = SAMPLERS[kind], {"gaussian": STEPS, "averaging": COLD_STEPS}[kind]
    sampler = {"type": one_of("sampler", names), "help": f"{', '.join(names)} (default: the preset's)"}
    steps = {"help": f"steps of the sampler (default: {steps})"}
    add_flags(parser.add_argument_group("sampling"), "sampler", "steps", "eval-every", sampler=sampler, steps=steps)


def add_score_flags(parser: Any) -> None:
    """What is common to everything that scores as it trains."""
    add_flags(parser.add_argument_group("scores"), "eval-samples", "eval-seeds", "features", "inception-weights")
