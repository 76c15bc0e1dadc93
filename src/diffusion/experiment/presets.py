"""The tables of presets: each line is a Config with a name."""

from diffusion.errors import unknown
from diffusion.experiment.config import Config

WIDE = (64, 128, 256, 128, 64)

# fmt: off
DDPM = {  # part 1: the coursework's five, and one of ours; scores are in the README
    "default":       Config("default"),
    "light":         Config("light", hidden=(16, 64, 16)),
    "more_capacity": Config("more_capacity", hidden=WIDE),
    "testing":       Config("testing", timesteps=100, lr=6e-4, activation="selu"),
    "testing2":      Config("testing2", timesteps=1500, lr=4e-4),
    "ddpm_unet":     Config("ddpm_unet", schedule="rectified", target="velocity", lr=1e-3,
                            network="unet", hidden=(48, 96), pixel_range=(-1, 1)),
}
COLD = {  # part 2, for either axis; with noise 0, which is the coursework's, what the CNN draws looks alike
    "default_7":     Config("default_7", process="averaging", target="x_0", timesteps=7, noise=0.075),
    "default_28":    Config("default_28", process="averaging", target="x_0", timesteps=28, noise=0.075),
    "more_capacity": Config("more_capacity", process="averaging", target="x_0", timesteps=7, noise=0.075, hidden=WIDE),
    "cold_unet":     Config("cold_unet", process="averaging", target="x_0", timesteps=28, noise=0.15,
                            lr=1e-3, network="unet", hidden=(48, 96), pixel_range=(-1, 1)),
}
FLOW = Config(schedule="rectified", target="velocity", draw_time="logit-normal", pixel_range=(-1, 1),
              sampler="sde", sampler_steps=20, network="unet", hidden=(64, 128), classes=10,
              lr=2e-3, beta2=0.99, warmup=100, decay=0.3, ema_decay=0.9995)
GUIDED = {  # told what to draw
    "unet":          FLOW.replace(preset="unet"),
    "unet_fast":     FLOW.replace(preset="unet_fast", hidden=(48, 96), batch_size=64, ema_decay=0.999),
    "unet_fashion":  FLOW.replace(preset="unet_fashion", dataset="FashionMNIST", hidden=(48, 96), batch_size=64,
                                  ema_decay=0.999),
    "unet_cifar":    FLOW.replace(preset="unet_cifar", dataset="CIFAR10", shape=(3, 32, 32), hidden=(128, 256)),
}
# fmt: on
PRESETS = {**{f"cold_{name}" if name in DDPM else name: cold for name, cold in COLD.items()}, **DDPM, **GUIDED}


def preset(table: dict[str, Config], name: str) -> Config:
    """The named line of a table of presets."""
    if name not in table:
        raise unknown("preset", name, table)
    return table[name]
