"""The tables of presets: each line is a Config with a name, ending in the score it was measured at."""

from typing import Any

from diffusion.errors import unknown
from diffusion.experiment.config import Config

CNN = Config()  # the coursework's
AVERAGE = Config(process="averaging", target="x_0", timesteps=28, noise=0.075)  # with noise 0 it draws alike digits
UNET: dict[str, Any] = {"network": "unet", "hidden": (48, 96), "pixel_range": (-1, 1), "lr": 1e-3}
FLOW = Config(schedule="rectified", target="velocity", **UNET)
CONDITIONAL = FLOW.replace(classes=10, draw_time="logit-normal", sampler="sde", sampler_steps=20)
FAST = CONDITIONAL.replace(batch_size=64, lr=2e-3, beta2=0.99, warmup=100, decay=0.3)
LONG = FAST.replace(batch_size=128, hidden=(64, 128), ema_decay=0.9995)
WIDE = (64, 128, 256, 128, 64)
FEW = LONG.replace(teacher="unet", draw_time="uniform", lr=5e-4, sampler="consistency", sampler_steps=4)
FEW = FEW.replace(guidance_scale=1.25)
MATCHED = FEW.replace(distillation="matching", start="unet_few", lr=1e-4, critic_pace=10, teacher_scale=1.15)
MATCHED = MATCHED.replace(guidance_scale=1.0)
VAE = Config(network="vae", hidden=(12, 48, 24), kl_weight=0.14, lr=4e-3, beta2=0.99, warmup=200, decay=0.5)
VAE = VAE.replace(batch_size=512, held_out=5000)
MLP = Config(network="mlp", hidden=(128, 160, 160), schedule="rectified", target="velocity", classes=10, lr=2e-3)
MLP = MLP.replace(batch_size=512, beta2=0.99, warmup=500, decay=0.6, ema_decay=0.9995, held_out=5000)
MLP = MLP.replace(sampler="dpm", sampler_steps=10, guidance_scale=1.25)
CIFAR10: dict[str, Any] = {"dataset": "CIFAR10", "shape": (3, 32, 32)}


def _named(table: dict[str, Config]) -> dict[str, Config]:
    return {name: config.replace(preset=name) for name, config in table.items()}


# Scores: FID through the classifier of the data set, N samples, network calls a sample (NFE), length of the training.
# fmt: off
DDPM = _named({  # part 1: the coursework's five, and one of ours
    "default":       CNN,                                                     # FID 7.96 (N=1,024, 100 NFE, 100 epochs)
    "light":         CNN.replace(hidden=(16, 64, 16)),                        # not measured
    "more_capacity": CNN.replace(hidden=WIDE),                                # not measured
    "testing":       CNN.replace(timesteps=100, lr=6e-4, activation="selu"),  # not measured
    "testing2":      CNN.replace(timesteps=1500, lr=4e-4),                    # FID 7.53 (N=1,024, 100 NFE, 80 epochs)
    "ddpm_unet":     FLOW,                                                    # FID 1.71 (N=1,024, 100 NFE, 5 epochs)
})
COLD = _named({  # part 2, for either axis
    "default_7":     AVERAGE.replace(timesteps=7),               # FID 7.97 row (N=1,024, 28 NFE, 80 epochs)
    "default_28":    AVERAGE,                                    # FID 2.67 row, 4.55 col (N=1,024, 28 NFE, 80 epochs)
    "more_capacity": AVERAGE.replace(timesteps=7, hidden=WIDE),  # not measured
    "cold_unet":     AVERAGE.replace(noise=0.15, **UNET),        # FID 1.30 row, 2.95 col (N=1,024, 28 NFE, 8/12 epochs)
})
GUIDED = _named({  # class-conditional
    "unet":          LONG,                                        # FID 0.0254 (N=10,000, 20 NFE, 38.5 epochs)
    "unet_few":      FEW,                                         # FID 0.0797 (N=10,000, 4 NFE, 47 epochs)
    "unet_matched":  MATCHED,                                     # FID 0.0572 (N=10,000, 4 NFE, 34.7 epochs)
    "unet_fast":     FAST,                                        # FID 0.19 (N=10,000, 20 NFE, 5 minutes)
    "unet_fashion":  LONG.replace(dataset="FashionMNIST"),        # FID 0.11 (N=10,000, 20 NFE, 80.8 epochs)
    "unet_cifar":    LONG.replace(**CIFAR10, hidden=(128, 256)),  # not measured
})
TINY: dict[str, Any] = {"hidden": (4, 24, 12), "latent": 16}
CLOTHES: dict[str, Any] = {"dataset": "FashionMNIST"}
SMALL_MLP = MLP.replace(hidden=(36, 56), guidance_scale=1.5)
FASHION_MLP = MLP.replace(guidance_scale=2.0, **CLOTHES)
LATENT = _named({  # flows on the latents of an autoencoder, which stands before each; its FID is of reconstructions
    "latent_vae":         VAE.replace(contrast=1.4),  # FID 0.21 (N=10,000, reconstructions, 189 epochs)
    "latent":             MLP.replace(codec="latent_vae"),  # FID 0.13 (N=10,000, 10 NFE, 189 epochs)
    "latent_tiny_vae":    VAE.replace(contrast=1.6, **TINY),  # FID 0.23 (N=10,000, reconstructions, 265 epochs)
    "latent_tiny":        SMALL_MLP.replace(codec="latent_tiny_vae"),  # FID 0.16 (N=10,000, 10 NFE, 872 epochs)
    "latent_fashion_vae": VAE.replace(contrast=1.6, **CLOTHES),  # FID 1.95 (N=10,000, reconstructions, 191 epochs)
    "latent_fashion":     FASHION_MLP.replace(codec="latent_fashion_vae"),  # FID 1.25 (N=10,000, 10 NFE, 187 epochs)
})
# fmt: on
PLAIN: dict[str, Any] = {"lr": 1e-3, "batch_size": 128, "warmup": 0, "decay": 0.0}
MODELS = _named(
    {  # what `train --model` starts from, of any data set
        "autoencoder": VAE.replace(network="autoencoder", loss="l1", **PLAIN),
        "vae": VAE.replace(kl_weight=0.2, **PLAIN),
        "flow": MLP.replace(codec="vae", **PLAIN),
    }
)
PRESETS = {f"cold_{name}" if name in DDPM else name: cold for name, cold in COLD.items()}
PRESETS |= DDPM | GUIDED | LATENT | MODELS


def preset(table: dict[str, Config], name: str) -> Config:
    """The named line of a table of presets."""
    if name not in table:
        raise unknown("preset", name, table)
    return table[name]
