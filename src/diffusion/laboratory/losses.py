"""Losses on images that were not trained on, of the same noise every time."""

import torch

from diffusion.data.datasets import Dataset
from diffusion.experiment.build import Experiment
from diffusion.method.codec import Latents
from diffusion.method.noise import Noise
from diffusion.training.objectives import objective_of, reconstruction_terms


@torch.no_grad()
def held_out_loss(experiment: Experiment, held_out: Dataset) -> float:
    """What training minimises, of the averaged weights, on images or latents."""
    objective, total = objective_of(experiment), 0.0
    for index in torch.arange(len(held_out), device=held_out.images.device).split(1000):
        part = held_out[index]
        inputs = objective.draw(part.images, part.labels if experiment.config.classes else None, Noise(0, index))
        total += objective.loss(experiment.trained, *inputs).item() * len(part)
    return total / len(held_out)


@torch.no_grad()
def codec_losses(codec: Latents, data: Dataset) -> dict[str, float]:
    """Half the squared error and the absolute one of an image, decoded from one draw of q(z | x), and the KL divergence
    of q(z | x) from N(0, 1) if there is one; sums over an image, means over the images.
    """
    index = torch.arange(len(data), device=data.images.device)
    eps, parts = Noise(0, index)(torch.empty(len(data), *codec.shape, device=index.device)), []
    for part in index.split(1000):
        images = data.images[part] / 255
        terms = reconstruction_terms(codec.autoencoder, images, eps[part])
        parts.append(torch.stack([*terms, reconstruction_terms(codec.autoencoder, images, eps[part], "l1")[0]]))
    half_sse, kl, absolute = torch.cat(parts, dim=1).mean(1).tolist()
    return {"half_sse": half_sse, "absolute_error": absolute} | ({"kl": kl} if codec.autoencoder.variational else {})
