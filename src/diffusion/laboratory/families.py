"""What is shipped: each training, and the weight files that it gives."""

from dataclasses import dataclass

from diffusion.experiment.config import Config
from diffusion.experiment.naming import run_names
from diffusion.experiment.presets import COLD, DDPM, GUIDED, LATENT


@dataclass(frozen=True)
class Family:
    """What one training gives: a weight file after each of these epochs, or one after so many steps."""

    config: Config
    epochs: tuple[int, ...] = ()
    steps: int | None = None
    samples: int = 1024  # of each seed

    @property
    def names(self) -> tuple[str, str]:
        """Of its run, and of its files by {dataset} and {epoch}."""
        return run_names(self.config) if self.epochs else (self.config.preset, f"{self.config.preset}.pth")

    @property
    def files(self) -> list[str]:
        pattern = self.names[1].replace("{dataset}", self.config.dataset.lower())
        return [pattern.format(epoch=epoch) for epoch in self.epochs or (None,)]


EIGHTY, ROW, COL = (0, 20, 40, 60, 80), {"axis": "row"}, {"axis": "col"}
FAMILIES = {  # in the order they are made
    "default": Family(DDPM["default"], (*EIGHTY, 100)),
    "default_28_row": Family(COLD["default_28"].replace(**ROW), EIGHTY),
    "default_28_col": Family(COLD["default_28"].replace(**COL), EIGHTY),
    "testing2": Family(DDPM["testing2"], EIGHTY),
    "testing": Family(DDPM["testing"], EIGHTY),
    "default_7_row": Family(COLD["default_7"].replace(**ROW), EIGHTY),
    "default_7_col": Family(COLD["default_7"].replace(**COL), EIGHTY),
    "light": Family(DDPM["light"], (80,)),
    "more_capacity": Family(DDPM["more_capacity"], (80,)),
    "more_capacity_row": Family(COLD["more_capacity"].replace(**ROW), (80,)),
    "more_capacity_col": Family(COLD["more_capacity"].replace(**COL), (80,)),
    "ddpm_unet": Family(DDPM["ddpm_unet"], (5,)),
    "cold_unet_row": Family(COLD["cold_unet"].replace(**ROW), (8,)),
    "cold_unet_col": Family(COLD["cold_unet"].replace(**COL), (12,)),
    "unet": Family(GUIDED["unet"], steps=18_000, samples=10_000),
    "unet_few": Family(GUIDED["unet_few"], steps=22_000, samples=10_000),
    "unet_matched": Family(GUIDED["unet_matched"], steps=16_200, samples=10_000),  # shipped: a mean of three
    "unet_fashion": Family(GUIDED["unet_fashion"], steps=37_800, samples=10_000),
    **{name: Family(config, steps=20_000, samples=10_000) for name, config in LATENT.items()},
}
