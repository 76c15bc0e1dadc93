"""Show a trained model in four pictures: degrading, DDPM and DDIM samples, a trajectory; and time both samplers."""

import math
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion import figures
from diffusion.api.generation import trajectory
from diffusion.api.model import Model, load
from diffusion.data.datasets import load as load_data
from diffusion.errors import UserError
from diffusion.experiment.samplers import Way, build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.options import Parser, directory, number, one_of

FORWARD = (0, 250, 500, 750, 999)  # of 1000 steps


def parser() -> Parser:
    p = Parser(prog="python src demo", description=__doc__)
    p.add_argument("--weights", default="unet", help="a weight file, or the name of one in weights/ or runs/*/")
    p.add_argument("--count", type=number(int, 1), default=8, help="samples of each sampler")
    p.add_argument("--ddpm-steps", type=number(int, 2), default=1000, help="of the slow sampler")
    p.add_argument("--ddim-steps", type=number(int, 2), default=50, help="of the fast one")
    p.add_argument("--snapshots", type=number(int, 2), default=6, help="states of a trajectory that are shown")
    p.add_argument("--guidance-scale", type=number(float, -100, 100), default=1.0, help="1 follows the label")
    p.add_argument("--seed", type=number(int, 0), default=0, help="of all noise")
    p.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    p.add_argument("--out", type=directory, default=Path("contents"), help="the folder of the four pictures")
    return p


def drawn(model: Model, way: str, steps: int, args) -> tuple[torch.Tensor, list[torch.Tensor], float]:
    """The samples (N, C, H, W), all states, and the seconds they took."""
    index = torch.arange(args.count, device=model.device)
    how = {"sampler": way, "steps": steps, "guidance_scale": args.guidance_scale}
    states, began = [], time.perf_counter()
    for images in tqdm(trajectory(model.experiment, index, args.seed, **how), total=steps + 1, desc=way, leave=False):
        states.append(images)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return states[-1].cpu(), states, time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    model = load(args.weights, open_device(args.device))
    if model.config.process != "gaussian":
        raise UserError(f"{args.weights} is a cold model, which DDPM and DDIM cannot sample: see python src generate")
    ways: dict[str, Way] = {
        way: build_sampler(model.experiment, way, steps)
        for way, steps in (("ddpm", args.ddpm_steps), ("ddim", args.ddim_steps))
    }
    stem = f"diffusion_{model.config.dataset.lower()}"
    photographs = load_data(model.config.dataset, "test", args.data_root).images[: args.count]

    # --- Degrade ---
    states = [model.decode(model.forward_diffusion(photographs, t / 1000, args.seed)[0]) for t in FORWARD]
    written = [figures.grid(torch.cat(states).cpu(), args.out / f"{stem}_forward.png", columns=args.count)]

    # --- Sample ---
    drawn(model, "ddim", 2, args)  # the first calls also pay for caches
    seconds, columns = {}, math.ceil(args.count / 2)
    for way in ways:
        steps = len(ways[way].times) - 1
        images, states, seconds[way] = drawn(model, way, steps, args)
        written.append(figures.grid(images, args.out / f"{stem}_{way}_samples.png", columns=columns))
    at = torch.linspace(0, len(states) - 1, min(args.snapshots, len(states))).round().long()
    shown = torch.cat([states[i].cpu() for i in at])
    written.append(figures.grid(shown, args.out / f"{stem}_trajectory.png", columns=args.count))

    # --- Report ---
    print(f"{args.weights}: {args.count} samples, guidance scale {args.guidance_scale:g}, seed {args.seed}, "
          f"{model.device}, {torch.get_num_threads()} threads")  # fmt: skip
    for way, taken in seconds.items():
        print(f"  {way.upper()} {len(ways[way].times) - 1:>5} steps {taken:8.2f} s")
    print(f"  DDIM took {seconds['ddpm'] / seconds['ddim']:.1f} times less here, "
          f"by {args.ddpm_steps / args.ddim_steps:g} times fewer steps")  # fmt: skip
    print(f"the rows of {written[0].name} are steps {', '.join(map(str, FORWARD))} of 1000, those of "
          f"{written[-1].name}\nrun from noise to the sample; wrote {', '.join(map(str, written))}")  # fmt: skip
