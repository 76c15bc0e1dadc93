"""The latents of a data set, in a file."""

from argparse import Namespace

from diffusion.api.model import load as load_model
from diffusion.data.datasets import load
from diffusion.data.latents import latents_path, save_latents
from diffusion.errors import UserError
from diffusion.laboratory import versions
from diffusion.laboratory.device import open_device
from diffusion.laboratory.latents import posterior
from diffusion.laboratory.settings import check_data
from diffusion.method.codec import Latents


def main(args: Namespace) -> None:
    # --- Setup ---
    path = versions.open_version(args, "autoencoder", "vae")
    experiment = load_model(path, open_device(args.device)).experiment
    if not isinstance(experiment.codec, Latents):
        raise UserError(f"{path} works on pixels: it has no latents to encode into")
    dataset = versions.dataset_of(args) if args.dataset else experiment.config.dataset
    data = load(dataset, args.part, args.data_root, experiment.device)
    check_data(experiment.config.replace(classes=0), data)  # a codec knows no labels
    codec = experiment.config.codec if not experiment.config.is_codec else str(path)
    out = args.out or latents_path(args.data_root, dataset, args.part, codec)

    # --- Encode ---
    latents = posterior(experiment.codec, data)
    save_latents(out, data, args.part, latents, codec, experiment.codec.digest)

    # --- Report ---
    mean, log_var = latents.chunk(2, dim=1)
    drawn = (mean.double().var((0, 2, 3)) + log_var.double().exp().mean((0, 2, 3))).sqrt()
    print(f"{len(data):,} {dataset} {args.part} images, {mean[0].numel()} latents each by {experiment.origin}")
    print(f"deviation of a latent from {drawn.min():.3f} to {drawn.max():.3f}; codec {experiment.codec.digest}")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
