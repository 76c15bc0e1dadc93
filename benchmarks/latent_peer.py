"""Flows on latents in one run, before one judge: ours, and the project whose command line they answer to.

python benchmarks/latent_peer.py                            ours: what they draw, how fast; a minute or two
python benchmarks/latent_peer.py --peer FOLDER              the peer, too; its Bayes' rule takes half an hour

FOLDER holds github.com/sofia-dominguezc/MNIST-diffusion at 005fc0c. The peer is its own code with the weights for MNIST
that lie there, those that it brings or what its own commands trained, sampled and tested as they do. Speed: labels in,
guided and decoded images out, the first batch apart; on a CPU by the seconds of its threads, which other processes
hardly change: give it one (OMP_NUM_THREADS=1).
"""

import argparse
import importlib
import json
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion.api.generation import generate
from diffusion.data.datasets import Dataset, load
from diffusion.experiment.weights import load_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.losses import codec_losses
from diffusion.laboratory.options import Parser, directory, number, output_file, run_command
from diffusion.laboratory.progress import track
from diffusion.laboratory.show import row
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

COMMIT = "005fc0c"
TOGETHER = 1000  # images in a batch
SEEDS = 3


class Contender(NamedTuple):
    about: dict[str, Any]
    draw: Callable[[Tensor, int], Tensor]  # labels (N,), seed -> images (N, 1, 28, 28) in [0, 1]
    reconstruct: Callable[[Tensor], Tensor]  # images uint8 -> images in [0, 1], of the mean code
    classify: Callable[[Dataset], Tensor] | None = None  # -> labels (N,)


def main(argv: list[str] | None = None) -> None:
    p = Parser(__doc__)
    p.add_argument("--peer", type=directory, help=f"the peer's folder, at {COMMIT}")
    p.add_argument("--count", type=number(int, 100, 10_000), default=10_000, help="samples of a seed")
    p.add_argument(
        "--test-count", type=number(int, 0, 10_000), default=10_000, help="images for the peer's Bayes' rule"
    )
    add_flags(p, "data-root", "device")
    p.add_argument("--record", type=output_file(".jsonl"), help="append the numbers to X.jsonl")
    args = p.parse_args(argv)
    device = open_device(args.device)
    data, test = (load("MNIST", split, args.data_root, device) for split in ("train", "test"))
    reference = Reference.of(extractor_for("MNIST", shipped_weights(), device), data.images, args.data_root / "cache")
    about = {"n": args.count, "floor": floor(test.stratified(args.count).images, reference).fid, "device": device.type}
    about |= {"threads": torch.get_num_threads(), "matrix_rate": matrix_rate(device)}
    print(f"matrix products in float32: {about['matrix_rate'] / 1e12:.3f} TFLOP/s by {about['threads']} threads\n")
    print(row("", "to draw", "FID", "label seen", "digits/s", "rec. FID", "half SSE", "KL", "Bayes"))
    for contender in contenders(args, device, test):
        found = contender.about | about | measured(contender, data, test, args, reference)
        show(found)
        if args.record:
            with open(args.record, "a") as file:
                file.write(f"{json.dumps(found)}\n")


def contenders(args: argparse.Namespace, device: torch.device, test: Dataset) -> Iterator[Contender]:
    for name in ("latent", "latent_tiny"):
        yield ours(name, device, test)
    if args.peer:
        yield theirs(args.peer, device, test)


def sizes(flow: Any, codec: Any) -> dict[str, int]:
    of = lambda module: sum(each.numel() for each in module.parameters())
    drawn = of(flow) + of(codec.decoder)
    return {"to_draw": drawn, "size_in_all": drawn + of(codec.encoder)}


def ours(name: str, device: torch.device, test: Dataset) -> Contender:
    """A shipped flow, as saved."""
    model = load_weights(shipped_weights() / f"{name}.pth").to(device)
    codec, config = model.codec, model.config
    about = {"name": name, **sizes(model.network, codec.autoencoder)}
    about |= {"calls": config.sampler_steps, "guidance_scale": config.guidance_scale, **codec_losses(codec, test)}
    draw = lambda labels, seed: generate(model, torch.arange(len(labels), device=device), seed=seed, labels=labels)
    return Contender(about, draw, lambda images: codec.decode(codec.encode(images)))


def theirs(folder: Path, device: torch.device, test: Dataset) -> Contender:
    """The peer: Euler-Maruyama in 50 steps, two calls each, weight 4, diffusion 1.5; tested with 50 steps a class."""
    sys.path.insert(0, str(folder / "src"))
    architectures, generation = (importlib.import_module(name) for name in ("architectures", "generate"))
    flow, codec = (opened(folder, getattr(architectures, name)).to(device) for name in ("Diffusion", "VarAutoEncoder"))

    @torch.no_grad()
    def draw(labels: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        parts = []
        for part in labels.split(TOGETHER):
            y = generation.process_labels(part.tolist(), 10, device=device)
            solver = generation.SDESolver(flow, y=y, weight=4, diffusion=1.5)
            z = solver.integrate(torch.randn(len(part), *codec.z_shape, device=device), t0=0, t1=1, num_steps=50)
            parts.append(codec.decode(z).clip(0, 1))
        return torch.cat(parts)

    @torch.no_grad()
    def reconstruct(images: Tensor) -> Tensor:
        return torch.cat([codec(part / 255).clip(0, 1) for part in images.split(TOGETHER)])

    @torch.no_grad()
    def classify(test: Dataset) -> Tensor:
        parts = track((test.images / 255).split(100), "the peer's labels")
        return torch.cat([generation.classify(flow, codec, part, num_steps=50).argmax(1) for part in parts])

    about = {"name": "peer", "commit": COMMIT, **sizes(flow, codec), "calls": 100, "guidance_scale": 4}
    return Contender(about | their_losses(codec, test.images / 255), draw, reconstruct, classify)


def opened(folder: Path, kind: type[nn.Module]) -> Any:
    """One of the peer's networks with its weights for MNIST."""
    path = folder / "parameters" / "MNIST" / kind.__name__
    with open(path.with_suffix(".pickle"), "rb") as file:
        network = kind(**Numbers(file).load())
    network.load_state_dict(torch.load(path.with_suffix(".pth"), weights_only=True))
    return network.requires_grad_(False)


class Numbers(pickle.Unpickler):
    """Reads the arguments that the peer pickles: plain numbers, no objects, which could run anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no number")


@torch.no_grad()
def their_losses(codec: Any, images: Tensor) -> dict[str, float]:
    """As `codec_losses`: of one draw of q(z | x), sums over an image."""
    torch.manual_seed(0)
    parts = []
    for part in images.split(TOGETHER):
        mean, variance = codec.get_encoding(part)
        decoded = codec.decode(mean + variance.sqrt() * torch.randn_like(mean))
        kl = (mean.square() + variance - 1 - variance.log()).flatten(1).sum(1) / 2
        parts.append(torch.stack([(decoded - part).square().flatten(1).sum(1) / 2, kl]))
    half_sse, kl = torch.cat(parts, 1).mean(1).tolist()
    return {"half_sse": half_sse, "kl": kl}


def measured(
    contender: Contender, data: Dataset, test: Dataset, args: argparse.Namespace, reference: Reference
) -> dict[str, Any]:
    """Scores of every seed, and how fast its samples came."""
    found: dict[str, Any] = {"fid": [], "agreement": [], "rate": []}
    contender.draw(data.labels[:TOGETHER], 0)  # what starts once is over
    for seed in range(SEEDS):
        labels = data.stratified(args.count, seed).labels
        began = seconds(labels.device)
        images = contender.draw(labels, seed).cpu()
        found["rate"].append(len(images) / (seconds(labels.device) - began))
        found["fid"].append(score(images, reference).fid)
        found["agreement"].append(agreement(reference.extractor, images, labels))
    found["codec_fid"] = score(contender.reconstruct(test.images), reference).fid
    if contender.classify and args.test_count:
        some = test.shuffled()[torch.arange(args.test_count, device=test.images.device)]
        found |= {"accuracy": (contender.classify(some) == some.labels).double().mean().item()}
        found |= {"test_count": args.test_count}
    return found


def seconds(device: torch.device) -> float:
    """Of a clock: that of our threads on a CPU."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def matrix_rate(device: torch.device, size: int = 1024) -> float:
    """Operations a second of a matrix product in float32: the fastest of ten."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    took = []
    for _ in range(10):
        began = seconds(device)
        (a @ b)[0, 0].item()  # waits for a GPU
        took.append(seconds(device) - began)
    return 2 * size**3 / min(took)


def show(found: dict[str, Any]) -> None:
    mean = {key: statistics.mean(found[key]) for key in ("fid", "agreement", "rate")}
    cells = f"{found['to_draw']:,}", f"{mean['fid']:.3f}", f"{mean['agreement']:.1%}", f"{mean['rate']:,.0f}"
    kept = f"{found['codec_fid']:.3f}", f"{found['half_sse']:.2f}", f"{found['kl']:.1f}"
    print(row(found["name"], *cells, *kept, f"{found['accuracy']:.2%}" if "accuracy" in found else "–"), flush=True)


if __name__ == "__main__":
    run_command(main)
