"""FID against network calls: every sampler on the same weights, noise and labels, in one run.

PYTHONPATH=src python benchmarks/samplers.py --weights unet --samples 2000
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from commands.processes import open_device
from diffusion.data import load
from diffusion.experiment import find_weights, load_weights
from diffusion.extractor import extractor_for
from diffusion.generation import SAMPLERS, samples, sampling
from diffusion.metrics import Reference, agreement, floor, score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="unet")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS["gaussian"]))
    parser.add_argument("--calls", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_samplers.jsonl"))
    args = parser.parse_args()
    device, root = open_device(args.device), Path(__file__).parents[1]
    experiment = load_weights(find_weights(args.weights, [root / "weights"])).to(device)
    data, test = (load(experiment.config.dataset, split, args.data_root, device) for split in ("train", "test"))
    eyes = extractor_for(experiment.config.dataset, root / "weights", device)
    reference = Reference.of(eyes, data.images, Path(args.data_root) / "cache")
    told = experiment.config.classes
    real = floor((test.stratified(args.samples) if told else test.shuffled()).images, reference, args.samples)
    labels = data.stratified(args.samples, args.seed).labels if told else None
    print(f"{args.weights}, guidance scale {args.guidance_scale:g}, N = {args.samples}, seed {args.seed}, "
          f"{eyes.name} {eyes.sha256[:16]}; floor {real.fid:.3f}\nFID (label agreement)\n")  # fmt: skip
    print(f"{'calls':<8}" + "".join(f"{calls:>18}" for calls in args.calls), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.samplers:
        cells = []
        for calls in args.calls:
            steps = (calls + 1) // 2 if name == "heun" else calls  # 2 steps - 1 calls: 5, 9, 19, 49
            way, began = sampling(experiment, name, steps), time.perf_counter()
            how = {"sampler": name, "steps": steps, "guidance_scale": args.guidance_scale, "labels": labels}
            index = torch.arange(args.samples, device=device)
            with tqdm(total=args.samples * len(way.times), leave=False) as bar:
                images = samples(experiment, index, args.seed, tick=bar.update, **how)
            seconds = time.perf_counter() - began
            fid = score(images, reference).fid
            agree = None if labels is None else agreement(eyes, images, labels)
            cells.append(f"{fid:.3f}" + ("" if agree is None else f" ({agree:.1%})"))
            record = {"weights": args.weights, "sampler": name, "calls": way.calls, "fid": fid, "agreement": agree,
                      "samples": args.samples, "floor": real.fid, "guidance_scale": args.guidance_scale,
                      "images_per_second": args.samples / seconds}  # fmt: skip
            with open(args.out, "a") as file:
                file.write(json.dumps(record) + "\n")
        print(f"{name:<8}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
