"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from commands.options import Parser, number, one_of
from commands.processes import open_device
from diffusion import checkpoint, figures
from diffusion.errors import UserError
from diffusion.experiment import SAMPLERS, find_weights, load_weights, sampling, trajectory
from diffusion.sampler import last

FOLDERS = [Path("weights"), *sorted(Path("runs").glob("*"))]
EXAMPLES = """examples:
  python src generate --weights ddpm_mnist_1_default --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --sampler ddpm --out x.npy
"""


def parser() -> Parser:
    p = Parser(prog="python src generate", description=__doc__, epilog=EXAMPLES)
    p.add_argument("--weights", required=True, help="a weight file, or the name of one in weights/ or runs/*/")
    p.add_argument("--count", type=number(int, 1), default=16, help="how many samples")
    p.add_argument("--seed", type=number(int, 0), default=0, help="sample i of a seed is always the same image")
    p.add_argument("--sampler", type=one_of("sampler", SAMPLERS), default="ddim", help="ddpm adds noise at every step")
    p.add_argument("--steps", type=number(int, 1), help="network calls (default: 50 for ddim, all T for ddpm)")
    p.add_argument(
        "--variance", type=one_of("variance", ["beta", "posterior"]), help="of ddpm's noise (default: as trained)"
    )
    p.add_argument("--batch-size", type=number(int, 1), default=256, help="images at a time; does not change them")
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    p.add_argument(
        "--out", type=Path, default=Path("samples.png"), help="X.png, a grid, or X.npy, float32 (N, C, H, W)"
    )
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    if args.out.suffix not in (".png", ".npy"):
        raise UserError(f"--out {args.out}: the name must end in .png (a grid) or .npy (an array)")
    device = open_device(args.device)
    experiment = load_weights(find_weights(args.weights, FOLDERS)).to(device)
    how = {"sampler": args.sampler, "steps": args.steps, "variance": args.variance}
    _, times = sampling(experiment, **how)

    # --- Sample ---
    parts, index = [], torch.arange(args.count, device=device)
    with tqdm(total=args.count * (len(times) - 1), unit="call", desc="sampling", leave=False) as bar:
        for part in index.split(args.batch_size):
            states = trajectory(experiment, part, args.seed, **how)
            parts.append(last(counted(states, bar, len(part))).cpu())
    images = torch.cat(parts)

    # --- Write ---
    if args.out.suffix == ".npy":
        checkpoint.write_atomically(args.out, lambda file: np.save(file, images.numpy()))
    else:
        figures.grid(images, args.out, columns=round(args.count**0.5 + 0.49))
    holds, epoch = (experiment.about.get(key, "?") for key in ("holds", "epoch"))
    print(f"{args.count} samples of {args.weights} ({holds} weights, epoch {epoch}), "
          f"{args.sampler}, {len(times) - 1} steps, seed {args.seed}: {args.out}")  # fmt: skip


def counted(states, bar: tqdm, images: int):
    """Pass the states on, moving the bar by one network call an image each; the first state costs none."""
    for i, x in enumerate(states):
        bar.update(images if i else 0)
        yield x
