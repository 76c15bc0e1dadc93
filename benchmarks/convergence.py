"""How far from its limit each sampler ends: the same noise taken down the ODE with few network calls and with many.

python benchmarks/convergence.py --weights unet --samples 64

DDIM, Heun and DPM-Solver++(2M) solve one equation, so with more and more network calls they draw the same images. A row
is a sampler with so many calls; its numbers are the distance (RMSE of a pixel in [0, 1]) to the images that Heun draws
with 1,000 calls, mean and median over the samples, and how often the classifier sees another label in them.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion.api.generation import generate
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.laboratory.device import open_device
from diffusion.metrics.features import extractor_for

SAMPLERS = ("ddim", "heun", "dpm")
LIMIT = 1000  # calls, of the images that stand for the equation's own


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="unet", help="a name in weights/, or a file (default: unet)")
    parser.add_argument("--calls", type=int, nargs="+", default=[5, 10, 20, 50, LIMIT], help="of the network, a sample")
    parser.add_argument("--samples", type=int, default=64, help="of each sampler (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_convergence.jsonl"))
    args = parser.parse_args()
    device, root = open_device(args.device), Path(__file__).parents[1]
    experiment = load_weights(find_weights(args.weights, [root / "weights"])).to(device)
    eyes = extractor_for(experiment.config.dataset, root / "weights", device)
    seen = lambda images: eyes(images)[1].argmax(1)
    index = torch.arange(args.samples, device=device)

    def asked(sampler: str, calls: int) -> SamplingOptions:
        return SamplingOptions(sampler, (calls + 1) // 2 if sampler == "heun" else calls)  # 2 steps - 1 calls

    def draw(options: SamplingOptions) -> Tensor:
        with tqdm(total=args.samples * (options.steps + 1), desc=options.sampler, leave=False) as bar:
            return generate(experiment, index, options, seed=args.seed, tick=bar.update)

    limit = draw(asked("heun", LIMIT))
    print(f"{args.weights}, {args.samples} samples of seed {args.seed}, RMSE to heun's with {LIMIT:,} calls\n\n"
          f"{'':<8}{'calls':>6}{'mean':>9}{'median':>9}{'other label':>13}", flush=True)  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for sampler in SAMPLERS:
        for calls in args.calls:
            if (sampler, calls) == ("heun", LIMIT):
                continue
            options = asked(sampler, calls)
            images, nfe = draw(options), build_sampler(experiment, options).nfe
            rmse = (images - limit).square().mean((1, 2, 3)).sqrt()
            record = {"weights": args.weights, "sampler": sampler, "calls": nfe, "samples": args.samples,
                      "seed": args.seed, "rmse": rmse.mean().item(), "median": rmse.median().item(),
                      "other_label": (seen(images) != seen(limit)).float().mean().item()}  # fmt: skip
            with open(args.out, "a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{sampler:<8}{nfe:>6}{record['rmse']:>9.4f}{record['median']:>9.4f}"
                  f"{record['other_label']:>13.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
