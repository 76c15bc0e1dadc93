"""FID against network calls (NFE): every sampler on the same weights, noise and labels, in one run.

python benchmarks/samplers.py --weights unet --samples 2000

With 1,000 calls that is hours of a CPU: what is drawn is kept beside --out, and a run that was killed goes on from it.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion import files
from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SAMPLERS, SamplingOptions, build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.laboratory.device import open_device
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

PART = 125  # images: ten minutes of a core, at worst, with 1,000 calls


def drawn(
    folder: Path,
    experiment: Experiment,
    index: Tensor,
    options: SamplingOptions,
    seed: int,
    labels: Tensor | None,
    bar: tqdm,
) -> Tensor:
    """The images of `index` (N,), a part at a time; a part that lies in `folder` is not drawn again."""
    parts = []
    for number, part in enumerate(index.split(PART)):
        path = folder / f"{number:04}.pt"
        if not path.exists():
            cond = None if labels is None else labels[part]
            images = generate(experiment, part, options, seed=seed, labels=cond, tick=bar.update)
            files.save(path, images.cpu())
        parts.append(files.load(path))
        bar.update(sum(map(len, parts)) * bar.total // len(index) - bar.n)
    return torch.cat(parts).to(index.device)


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
    weights = find_weights(args.weights, [root / "weights"])
    experiment = load_weights(weights).to(device)
    about = f"{files.sha256(weights)[:12]}-{args.samples}-{args.seed}-{args.guidance_scale:g}"
    data, test = (load(experiment.config.dataset, split, args.data_root, device) for split in ("train", "test"))
    eyes = extractor_for(experiment.config.dataset, root / "weights", device)
    reference = Reference.of(eyes, data.images, Path(args.data_root) / "cache")
    classes = experiment.config.classes
    real = floor((test.stratified(args.samples) if classes else test.shuffled()).images, reference, args.samples)
    labels = data.stratified(args.samples, args.seed).labels if classes else None
    print(f"{args.weights}, guidance scale {args.guidance_scale:g}, N = {args.samples}, seed {args.seed}, "
          f"{eyes.name} {eyes.sha256[:16]}; floor {real.fid:.3f}\nFID (label agreement)\n")  # fmt: skip
    print(f"{'calls':<8}" + "".join(f"{calls:>18}" for calls in args.calls), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.samplers:
        cells = []
        for calls in args.calls:
            steps = (calls + 1) // 2 if name == "heun" else calls  # 2 steps - 1 calls: 5, 9, 19, 49
            options = SamplingOptions(name, steps, args.guidance_scale)
            nfe = build_sampler(experiment, options).nfe
            folder = args.out.with_suffix("") / f"{about}-{name}-{nfe}"
            with tqdm(total=args.samples * (steps + 1), leave=False) as bar:
                index = torch.arange(args.samples, device=device)
                images = drawn(folder, experiment, index, options, args.seed, labels, bar)
            fid = score(images, reference).fid
            agree = None if labels is None else agreement(eyes, images, labels)
            cells.append(f"{fid:.3f}" + ("" if agree is None else f" ({agree:.1%})"))
            record = {"weights": args.weights, "sampler": name, "calls": nfe, "fid": fid, "agreement": agree,
                      "samples": args.samples, "floor": real.fid,
                      "guidance_scale": args.guidance_scale}  # fmt: skip
            with open(args.out, "a") as file:
                file.write(json.dumps(record) + "\n")
        print(f"{name:<8}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
