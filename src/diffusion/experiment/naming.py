"""The coursework's names of runs and of weight files. No torch here: command lines ask for this."""

import re

from diffusion.experiment.config import Config

NAME = re.compile(r"(?:ddpm|custom)_mnist_(?P<epoch>\d+)_(?:(?P<axis>row|col)_)?(?P<preset>\w+)")


def run_names(config: Config) -> tuple[str, str]:
    """The coursework's name for the run of a preset, and for its weight files by {dataset} and {epoch}."""
    if config.process == "averaging":
        name = f"{config.axis}_{config.preset}"
        return f"custom_{name}", f"custom_{{dataset}}_{{epoch}}_{name}.pth"
    return f"DDPM_{config.preset}", f"ddpm_{{dataset}}_{{epoch}}_{config.preset}.pth"
