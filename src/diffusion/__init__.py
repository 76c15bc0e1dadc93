"""A small diffusion laboratory: `from diffusion import load`, then `load("unet").sample(16, label=3)`."""

__all__ = ["Config", "Model", "Trainer", "configure", "load"]

TYPE_CHECKING = False  # typing's takes longer to import than all else here; type checkers know the name
if TYPE_CHECKING:  # what editors and type checkers read
    from diffusion.api.model import Model, configure, load
    from diffusion.experiment.config import Config
    from diffusion.training.trainer import Trainer

    __version__: str
else:  # the same names, imported when they are asked for: `cold-dif-model --help` does not wait for torch
    from importlib import import_module

    HOMES = {
        "Config": "experiment.config",
        "Model": "api.model",
        "Trainer": "training.trainer",
        "configure": "api.model",
        "load": "api.model",
    }

    def __getattr__(name):
        if name == "__version__":
            return import_module("importlib.metadata").version("cold-dif-model")
        if name not in HOMES:
            raise AttributeError(f"module 'diffusion' has no attribute {name!r}; it has {', '.join(HOMES)}")
        return getattr(import_module(f"diffusion.{HOMES[name]}"), name)

    def __dir__():
        return [*globals(), *HOMES, "__version__"]
