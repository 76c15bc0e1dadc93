"""How small can it be? Size to draw, from 5 k to 300 k parameters, against FID and labels.

python benchmarks/latent_size.py                     every size: an autoencoder and a flow each, in as many steps
python benchmarks/latent_size.py --sizes 5k 15k      some of them; what is recorded is skipped, what was stopped goes on

Several may run at once, with other sizes each: all append to one record. The contrast of a decoder is chosen on
held-out training images; everything else is as in the presets `latent_vae` and `latent`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from diffusion.api.generation import generate
from diffusion.data.datasets import Dataset, load
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.weights import load_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, output_file, run_command
from diffusion.laboratory.show import row
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

ROOT = Path(__file__).parents[1]
SIZES = {  # latents, widths of the decoder, widths of the flow
    "5k": (10, (2, 12, 6), (20, 24)),
    "8k": (12, (3, 16, 8), (28, 32)),
    "15k": (16, (4, 24, 12), (36, 56)),
    "30k": (20, (6, 32, 16), (64, 96)),
    "60k": (24, (8, 40, 20), (96, 128)),
    "150k": (36, (12, 48, 24), (128, 160, 160)),
    "300k": (40, (16, 64, 32), (192, 224, 224)),
}
SCALES = (1.0, 1.5)
CONTRASTS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
HELD_OUT = 5000  # training images that no preset of latents trains on


def main(argv: list[str] | None = None) -> None:
    p = Parser(__doc__)
    p.add_argument("--sizes", nargs="+", type=one_of("size", SIZES), default=list(SIZES), help=", ".join(SIZES))
    of_both = {"nargs": 2, "type": number(int, 1), "metavar": ("CODEC", "FLOW")}
    p.add_argument("--steps", **of_both, default=(4000, 12_000), help="of training (default: 4000 12000)")
    p.add_argument("--batch-sizes", **of_both, default=(128, 512), help="(default: 128 512)")
    p.add_argument("--count", type=number(int, 100, 10_000), default=10_000, help="samples of a seed to score")
    record = {"type": output_file(".jsonl"), "default": ROOT / "Report/results/latent_size.jsonl", "help": "X.jsonl"}
    p.add_argument("--record", **record)
    add_flags(p, "data-root", "device", "precision", "out")
    args = p.parse_args(argv)
    lines = args.record.read_text().splitlines() if args.record.exists() else []
    done = {json.loads(line)["size"] for line in lines}
    print(row("size to draw", "scale", "FID", "label seen", "rec. FID", "floor"))
    for name in args.sizes:
        if name not in done:
            found = list(measured(args, name, *train(args, name)))
            with open(args.record, "a") as file:
                file.write("".join(f"{json.dumps(each)}\n" for each in found))  # at once: others append, too
    print(f"recorded in {args.record}")


def train(args: argparse.Namespace, name: str) -> tuple[Path, Path]:
    """The weight files of a codec and of its flow, trained by the ordinary command, in a folder of their own."""
    latent, decoder, flow = SIZES[name]
    out = args.out / f"latent_size_{name}"
    files = [out / "runs" / preset / f"{preset}.pth" for preset in ("latent_vae", "latent")]
    settings = [f"--network.latent={latent}", f"--network.hidden={list(decoder)}"], [f"--network.hidden={list(flow)}"]
    settings[1].append(f"--data.codec={files[0]}")
    command = [sys.executable, ROOT / "src", "train", "--out", out, "--resume"]
    command += ["--data-root", args.data_root, "--device", args.device, "--eval-samples", 500, "--eval-seeds", 1]
    command += ["--train.sheet_steps=[]", "--train.sheet_every=1000000"]
    command += ["--precision", args.precision] if args.precision else []
    for file, steps, batch_size, words in zip(files, args.steps, args.batch_sizes, settings, strict=True):
        words = [*command, "--preset", file.stem, "--steps", steps, f"--train.batch_size={batch_size}", *words]
        subprocess.run([str(word).replace(", ", ",") for word in words], check=True, stdout=subprocess.DEVNULL)
    return files[0], files[1]


def measured(args: argparse.Namespace, name: str, codec_file: Path, flow_file: Path) -> Iterator[dict[str, Any]]:
    """A record for each guidance scale and sampling seed, printed as it comes."""
    device = open_device(args.device)
    data, test = (load("MNIST", split, args.data_root, device) for split in ("train", "test"))
    reference = Reference.of(extractor_for("MNIST", shipped_weights(), device), data.images, args.data_root / "cache")
    real = floor(test.stratified(min(args.count, len(test))).images, reference)
    codec, flow = load_weights(codec_file), load_weights(flow_file).to(device)
    size = lambda module: sum(each.numel() for each in module.parameters())
    about = {"size": name, "to_draw": size(flow.network) + size(codec.network.decoder)}
    about |= {"size_in_all": about["to_draw"] + size(codec.network.encoder), "latents": flow.codec.shape[0]}
    about |= {"contrast": sharpest(flow.codec, data, reference)}
    about |= {"codec_fid": score(flow.codec.decode(flow.codec.encode(test.images)), reference).fid}
    about |= {"codec_steps": codec.about["step"], "steps": flow.about["step"], "floor": real.fid, "n": args.count}
    about |= dict(zip(("codec_batch_size", "batch_size"), args.batch_sizes))
    for scale in SCALES:
        for seed in range(3):
            labels = data.stratified(args.count, seed).labels
            index, options = torch.arange(args.count, device=device), SamplingOptions("dpm", 10, scale)
            images = generate(flow, index, options, seed=seed, labels=labels)
            found = about | {"guidance_scale": scale, "seed": seed, "calls": 10, "fid": score(images, reference).fid}
            found |= {"agreement": agreement(reference.extractor, images, labels)}
            cells = f"{scale:g}", f"{found['fid']:.3f}", f"{found['agreement']:.1%}", f"{about['codec_fid']:.3f}"
            print(row(f"{about['to_draw']:,}", *cells, f"{real.fid:.3f}"), flush=True)
            yield found


def sharpest(codec: Any, data: Dataset, reference: Reference) -> float:
    """The contrast with which held-out images come back with the lowest FID; the codec keeps it."""
    held_out = data.without(HELD_OUT)[1].images
    latents, found = codec.encode(held_out), {}
    for contrast in CONTRASTS:
        codec.contrast = contrast
        found[contrast] = score(codec.decode(latents), reference).fid
    codec.contrast = min(found, key=found.__getitem__)
    return codec.contrast


if __name__ == "__main__":
    run_command(main)
