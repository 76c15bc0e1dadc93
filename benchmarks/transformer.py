"""Does a transformer draw better digits than the U-Net after the same CPU time? Trained in turns, then scored.

python benchmarks/transformer.py --minutes 10 --lr 1e-3 2e-3

All have the recipe of the preset unet_fast, but for the learning rate: the U-Net keeps its own, each transformer (DiT,
Peebles & Xie (2023), adaLN-Zero) is trained once with every one given. States are not kept.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.samplers import SamplingOptions
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score
from diffusion.precision import computes_bf16
from diffusion.training.trainer import Trainer

SLICE = 5.0  # seconds of one training before the next has its turn
ROOT = Path(__file__).parents[1]


class Block(nn.Module):
    """Attention and a perceptron; time and label scale, shift and gate them, at first to nothing."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulate = zeroed(nn.Linear(width, 6 * width))
        self.heads = heads

    def forward(self, x, cond):
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulate(cond)[:, None].chunk(6, -1)  # (B, 1, D) each
        qkv = self.qkv(self.norm(x) * (1 + scale_1) + shift_1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, D / heads) each
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, D)
        x = x + gate_1 * self.merge(seen)
        return x + gate_2 * self.mlp(self.norm(x) * (1 + scale_2) + shift_2)


class DiT(nn.Module):
    """A transformer over patches: (x, t, label) -> x's shape."""

    def __init__(self, shape, classes: int, patch: int, width: int, depth: int, heads: int = 4):
        super().__init__()
        channels, *size = shape
        self.grid, self.classes = [each // patch for each in size], classes
        self.cut, self.join = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.enter = nn.Linear(channels * patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, math.prod(self.grid), width))
        self.label_embed = nn.Embedding(classes + 1, width)
        self.register_buffer("frequencies", 2 * math.pi * torch.logspace(0, 1.5, 32) / 4)
        self.time_embed = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, channels * patch**2))

    def null(self, cond):
        return torch.full_like(cond, self.classes)

    def forward(self, x, t, cond=None):
        angle = t.float()[:, None] * self.frequencies
        label = self.null(t.long()) if cond is None else cond
        cond = F.silu(self.time_embed(torch.cat([angle.sin(), angle.cos()], 1)) + self.label_embed(label))
        x = self.enter(self.cut(x).flatten(2).transpose(1, 2)) + self.place  # (B, N, D)
        for block in self.blocks:
            x = block(x, cond)
        scale, shift = self.modulate(cond)[:, None].chunk(2, -1)
        x = self.leave(self.norm(x) * (1 + scale) + shift)
        return self.join(x.transpose(1, 2).unflatten(2, self.grid))


def zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


NETWORKS = {  # about as many operations or parameters as the U-Net
    "DiT/2": lambda *about: DiT(*about, patch=2, width=96, depth=5),
    "DiT/4": lambda *about: DiT(*about, patch=4, width=112, depth=4),
    "DiT/4, wide": lambda *about: DiT(*about, patch=4, width=160, depth=5),
}


class Contestant:
    """A training and the CPU seconds that it has had."""

    def __init__(self, name, lr, data, args):
        config = GUIDED["unet_fast"].replace(precision="bf16" if computes_bf16(torch.device("cpu")) else "fp32")
        self.name, self.config = name, config.replace(lr=lr) if lr else config
        self.experiment, self.seconds, self.budget = build(self.config), 0.0, 60 * args.minutes
        if name in NETWORKS:
            torch.manual_seed(0)
            self.experiment.denoiser.network = NETWORKS[name](config.shape, config.classes)
        e = self.experiment
        self.parameters = sum(each.numel() for each in e.denoiser.network.parameters())
        self.trainer = Trainer(e, data)
        self.steps = self.trainer.train(10**9)

    @property
    def ended(self):
        return self.trainer.end is not None and self.trainer.step >= self.trainer.end

    def go_on(self, seconds):
        began, before = time.process_time(), self.seconds
        while not self.ended and self.seconds - before < seconds:
            next(self.steps)
            self.seconds = before + time.process_time() - began
            if self.trainer.end is None and self.seconds >= self.budget * (1 - self.config.decay):
                self.trainer.end = round(self.trainer.step / (1 - self.config.decay))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of CPU time for each training")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="of the transformers")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="transformers")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_transformer.jsonl"))
    args = parser.parse_args()
    data, test = (load("MNIST", split, args.data_root) for split in ("train", "test"))
    eyes = extractor_for("MNIST", ROOT / "weights")
    reference = Reference.of(eyes, data.images, Path(args.data_root) / "cache")
    real = floor(test.stratified(args.samples).images, reference)
    contestants = [Contestant("U-Net", None, data, args)]
    contestants += [Contestant(name, lr, data, args) for name in args.only for lr in args.lr]
    with tqdm(total=round(60 * args.minutes * len(contestants)), unit="s", leave=False) as bar:
        while not all(each.ended for each in contestants):
            for each in contestants:
                each.go_on(SLICE)
            bar.update(round(sum(each.seconds for each in contestants)) - bar.n)
    print(f"{args.minutes:g} min of CPU time each, N = {args.samples}, one seed, {eyes.name} {eyes.sha256[:16]}; "
          f"floor {real.fid:.3f}\n\n{'network':<14}{'lr':>8}{'parameters':>12}{'steps of 64':>13}{'FID':>9}{'label':>8}"
          f"{'images/s':>10}")  # fmt: skip
    labels = data.stratified(args.samples).labels
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for each in contestants:
        began, options = time.process_time(), SamplingOptions("sde", 20)
        images = generate(each.experiment, torch.arange(args.samples), options, labels=labels)
        rate = args.samples / (time.process_time() - began)
        fid, agree = score(images, reference).fid, agreement(eyes, images, labels)
        print(f"{each.name:<14}{each.config.lr:>8g}{each.parameters:>12,}{each.trainer.step:>13,}{fid:>9.3f}{agree:>8.1%}{rate:>10.1f}",
              flush=True)  # fmt: skip
        record = {"network": each.name, "parameters": each.parameters, "lr": each.config.lr, "steps": each.trainer.step,
                  "minutes": each.seconds / 60, "fid": fid, "agreement": agree, "samples": args.samples,
                  "floor": real.fid, "images_per_second": rate}  # fmt: skip
        with open(args.out, "a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
