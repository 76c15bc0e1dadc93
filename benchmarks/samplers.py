"""FID against network calls (NFE): every sampler on the same weights, noise and labels, in one run.

python benchmarks/samplers.py --weights unet --samples 2000
python benchmarks/samplers.py --weights unet_few --samplers consistency --calls 1 2 3 4 --samples 10000

With 1,000 calls that is hours of a CPU: what is drawn is kept beside --out, and a run that was killed goes on from it.
What is in the file of --out is not drawn again. On a GPU the network is compiled.
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
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.laboratory.device import open_device
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

PART = {"cpu": 125, "cuda": 1000}  # images: ten minutes of a core, at worst, with 1,000 calls
WHICH = ("weights", "sha256", "sampler", "calls", "samples", "seed", "guidance_scale")  # equal in all: measured already


def drawn(
    folder: Path, experiment: Experiment, index: Tensor, options: SamplingOptions, seed: int, labels: Tensor | None
) -> Tensor:
    """The images of `index` (N,), a part at a time; a part that lies in `folder` is not drawn again."""
    parts, states = [], build_sampler(experiment, options).steps + 1
    with tqdm(total=len(index) * states, leave=False) as bar:
        for number, part in enumerate(index.split(PART[index.device.type])):
            path = folder / f"{number:04}.pt"
            if not path.exists():
                cond = None if labels is None else labels[part]
                images = generate(experiment, part, options, seed=seed, labels=cond, tick=bar.update)
                files.save(path, images.cpu())
            parts.append(files.load(path))
            bar.update(sum(map(len, parts)) * states - bar.n)
    return torch.cat(parts).to(index.device)


def known(out: Path) -> dict[tuple, dict]:
    """The records in the file, by what they are of."""
    records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {tuple(record.get(key) for key in WHICH): record for record in records}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="unet", help="a name in weights/, or a file (default: unet)")
    parser.add_argument("--samplers", nargs="+", default=["ddpm", "ddim", "heun", "dpm", "sde"], help="rows")
    parser.add_argument("--calls", type=int, nargs="+", default=[5, 10, 20, 50], help="of the network, a sample")
    parser.add_argument("--samples", type=int, default=2000, help="to score, a cell (default: 2000)")
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_samplers.jsonl"))
    return parser.parse_args()


def main():
    args = parse()
    device, root = open_device(args.device), Path(__file__).parents[1]
    weights = find_weights(args.weights, [root / "weights"])
    experiment = load_weights(weights).to(device)
    if device.type == "cuda":
        experiment.denoiser.network.compile()
    sha256 = files.sha256(weights)
    about = f"{sha256[:12]}-{args.samples}-{args.seed}-{args.guidance_scale:g}"
    data, test = (load(experiment.config.dataset, split, args.data_root, device) for split in ("train", "test"))
    eyes = extractor_for(experiment.config.dataset, root / "weights", device)
    reference = Reference.of(eyes, data.images, Path(args.data_root) / "cache")
    classes = experiment.config.classes
    real = floor((test.stratified(args.samples) if classes else test.shuffled()).images, reference, args.samples)
    labels = data.stratified(args.samples, args.seed).labels if classes else None
    print(f"{weights.stem}, guidance scale {args.guidance_scale:g}, N = {args.samples}, seed {args.seed}, "
          f"{eyes.name} {eyes.sha256[:16]}; floor {real.fid:.3f}\nFID (label agreement)\n")  # fmt: skip
    print(f"{'calls':<12}" + "".join(f"{calls:>18}" for calls in args.calls), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.samplers:
        cells = []
        for calls in args.calls:
            steps = (calls + 1) // 2 if name == "heun" else calls  # 2 steps - 1 calls: 5, 9, 19, 49
            options = SamplingOptions(name, steps, args.guidance_scale)
            nfe = build_sampler(experiment, options).nfe
            which = (weights.stem, sha256, name, nfe, args.samples, args.seed, args.guidance_scale)
            if not (record := known(args.out).get(which)):
                index = torch.arange(args.samples, device=device)
                folder = args.out.with_suffix("") / f"{about}-{name}-{nfe}"
                images = drawn(folder, experiment, index, options, args.seed, labels)
                agree = None if labels is None else agreement(eyes, images, labels)
                record = dict(zip(WHICH, which)) | {"fid": score(images, reference).fid, "agreement": agree}
                record |= {"floor": real.fid, "device": device.type}
                with open(args.out, "a") as file:
                    file.write(json.dumps(record) + "\n")
            label = "" if record["agreement"] is None else f" ({record['agreement']:.1%})"
            cells.append(f"{record['fid']:.3f}{label}")
        print(f"{name:<12}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
