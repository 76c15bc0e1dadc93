"""A small diffusion laboratory: `from diffusion import load`, then `load("unet").sample(16, label=3)`."""

from importlib import import_module
from typing import Any

# What a newcomer needs, imported when it is asked for: `python src --help` does not wait for torch.
DOORS = {"load": "api.model", "configure": "api.model", "Model": "api.model", "Config": "experiment.config"}


def __getattr__(name: str) -> Any:
    if name not in DOORS:
        raise AttributeError(f"module 'diffusion' has no attribute {name!r}; it has {', '.join(DOORS)}")
    return getattr(import_module(f"diffusion.{DOORS[name]}"), name)
