"""Four pictures of a trained model, and the time that both samplers take."""

import math
import time
from argparse import Namespace

import torch

from diffusion import figures
from diffusion.api.model import load
from diffusion.data.sources import load as load_data
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.checks import check_sampling
from diffusion.laboratory.device import open_device

TIMES = (0, 250, 500, 750, 999)  # of 1000 steps


def main(args: Namespace) -> None:
    # --- Setup ---
    model = load(args.weights, open_device(args.device), preset=args.preset)
    if model.config.process != "gaussian":
        raise UserError(f"{args.weights} is a cold model, which DDPM and DDIM cannot sample: see python src generate")
    steps, columns = {"ddpm": args.ddpm_steps, "ddim": args.ddim_steps}, math.ceil(args.count / 2)
    for sampler, count in steps.items():
        check_sampling(model.experiment, SamplingOptions(sampler, count, args.guidance_scale))
    name = lambda what: args.out / f"diffusion_{model.config.dataset.lower()}_{what}.png"
    photographs = load_data(model.config.dataset, "test", args.data_root).images[: args.count]
    options = {"seed": args.seed, "guidance_scale": args.guidance_scale}

    # --- Degrade ---
    states = [model.decode(model.forward_diffusion(photographs, t / 1000, args.seed)[0]) for t in TIMES]
    written = [figures.grid(torch.cat(states).cpu(), name("forward"), columns=args.count)]

    # --- Sample ---
    model.sample(args.count, sampler="ddim", steps=2, **options)  # the first calls also pay for caches
    seconds = {}
    for sampler, count in steps.items():
        print(f"drawing {args.count} samples by {sampler} in {count} steps", flush=True)
        snapshots, began = min(args.snapshots, count + 1), time.perf_counter()
        states = model.trajectory(args.count, sampler=sampler, steps=count, snapshots=snapshots, **options).cpu()
        seconds[sampler] = time.perf_counter() - began
        written.append(figures.grid(states[-1], name(f"{sampler}_samples"), columns=columns))
    written.append(figures.grid(states.flatten(0, 1), name("trajectory"), columns=args.count))

    # --- Report ---
    what = f"{model.experiment.origin}: {args.count} samples, guidance scale {args.guidance_scale:g}, seed {args.seed}"
    print(f"{what}, {model.device}, {torch.get_num_threads()} threads")
    for sampler, taken in seconds.items():
        print(f"  {sampler.upper()} {steps[sampler]:>5} steps {taken:8.2f} s")
    times, fewer = seconds["ddpm"] / seconds["ddim"], args.ddpm_steps / args.ddim_steps
    print(f"  DDIM was {times:.1f} times faster here, with {fewer:g} times fewer steps")
    rows = f"the rows of {written[0].name} are steps {', '.join(map(str, TIMES))} of 1000"
    print(f"{rows}, those of {written[-1].name}\nrun from noise to the sample; wrote {', '.join(map(str, written))}")
