"""Show a trained model in four pictures: degrading, DDPM and DDIM samples, a trajectory; and time both samplers."""

import math
import time

import torch

from diffusion import figures
from diffusion.api.generation import trajectory
from diffusion.api.model import Model, load
from diffusion.data.datasets import load as load_data
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, directory, number
from diffusion.laboratory.progress import progress_bar

FORWARD = (0, 250, 500, 750, 999)  # of 1000 steps


def parser() -> Parser:
    p = Parser(prog="python src demo", description=__doc__)
    count = {"type": number(int, 1), "default": 8, "help": "samples of each sampler"}
    add_flags(p, "weights", "count", weights={"default": "unet"}, count=count)
    p.add_argument("--ddpm-steps", type=number(int, 2), default=1000, help="of the slow sampler")
    p.add_argument("--ddim-steps", type=number(int, 2), default=50, help="of the fast one")
    p.add_argument("--snapshots", type=number(int, 2), default=6, help="states of a trajectory that are shown")
    out = {"type": directory, "default": "contents", "help": "the folder of the four pictures"}
    add_flags(p, "guidance-scale", "seed", "data-root", "device", "out", out=out)
    return p


def sample(model: Model, options: SamplingOptions, count: int, seed: int) -> tuple[list[torch.Tensor], float]:
    """All states (N, C, H, W), and the seconds they took."""
    states, index = [], torch.arange(count, device=model.device)
    with progress_bar(build_sampler(model.experiment, options).steps + 1, str(options.sampler)) as bar:
        began = time.perf_counter()
        for images in trajectory(model.experiment, index, options, seed=seed):
            states.append(images)
            bar.update(1)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return states, time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    model = load(args.weights, open_device(args.device))
    if model.config.process != "gaussian":
        raise UserError(f"{args.weights} is a cold model, which DDPM and DDIM cannot sample: see python src generate")
    steps = {"ddpm": args.ddpm_steps, "ddim": args.ddim_steps}
    options = {name: SamplingOptions(name, steps[name], args.guidance_scale) for name in steps}
    for each in options.values():
        build_sampler(model.experiment, each)  # impossible steps are refused now
    stem, columns = f"diffusion_{model.config.dataset.lower()}", math.ceil(args.count / 2)
    photographs = load_data(model.config.dataset, "test", args.data_root).images[: args.count]

    # --- Degrade ---
    states = [model.decode(model.forward_diffusion(photographs, t / 1000, args.seed)[0]) for t in FORWARD]
    written = [figures.grid(torch.cat(states).cpu(), args.out / f"{stem}_forward.png", columns=args.count)]

    # --- Sample ---
    sample(model, SamplingOptions("ddim", 2), args.count, args.seed)  # the first calls also pay for caches
    seconds = {}
    for name, each in options.items():
        states, seconds[name] = sample(model, each, args.count, args.seed)
        written.append(figures.grid(states[-1].cpu(), args.out / f"{stem}_{name}_samples.png", columns=columns))
    at = torch.linspace(0, len(states) - 1, min(args.snapshots, len(states))).round().long()
    shown = torch.cat([states[i].cpu() for i in at])
    written.append(figures.grid(shown, args.out / f"{stem}_trajectory.png", columns=args.count))

    # --- Report ---
    what = f"{args.weights}: {args.count} samples, guidance scale {args.guidance_scale:g}, seed {args.seed}"
    print(f"{what}, {model.device}, {torch.get_num_threads()} threads")
    for name, taken in seconds.items():
        print(f"  {name.upper()} {steps[name]:>5} steps {taken:8.2f} s")
    times, fewer = seconds["ddpm"] / seconds["ddim"], args.ddpm_steps / args.ddim_steps
    print(f"  DDIM took {times:.1f} times less here, by {fewer:g} times fewer steps")
    rows = f"the rows of {written[0].name} are steps {', '.join(map(str, FORWARD))} of 1000"
    print(f"{rows}, those of {written[-1].name}\nrun from noise to the sample; wrote {', '.join(map(str, written))}")
