"""Sampling speed of our class-conditional U-Nets against diffusers and denoising-diffusion-pytorch, in one run.

  pip install -r requirements.txt -r benchmarks/requirements.txt
  OMP_NUM_THREADS=2 python benchmarks/sampling.py --rounds 5

Every row draws batches of the same size with the same number of network calls. The weights are random: speed does not
depend on them. Ours runs in the precision that it chooses by itself, and in float32; the peers in float32 as they
come, in bfloat16 autocast, and with channels_last beside that (nhwc) where it helps. On CUDA ours is compiled, as the
product does; so is one more row of every peer, and on a CPU, with --compile, one more row of all.
denoising-diffusion-pytorch has no labels, which spares it a little; its only fast sampler is DDIM.

First it prints what the machine can do at most, in each precision and the better memory format (limits.py). The limit
in a row is the share of the rate of our network's own convolutions that the row reaches in all. With one CPU thread,
time is that in which the thread ran: other programs on the machine do not count, whatever they take from its caches.
"""

import argparse
import json
import statistics
from collections import deque
from pathlib import Path

import limits
import peers
import torch
from peers import DIMS, WIDTHS, Race

from diffusion.api.generation import guided_denoiser, sampling_denoiser, trajectory
from diffusion.experiment.build import build
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.device import open_device


def our_draw(e, variant, sampler, args, device):
    """A function that draws a batch as the product does, or in float32, or compiled."""
    index = torch.arange(args.batch_size, device=device)
    options = SamplingOptions(sampler, args.calls)
    if "compiled" in variant:
        e.denoiser = e.denoiser.for_sampling()
        e.denoiser.network.compile()
        return lambda: deque(trajectory(e, index, options, make_denoiser=guided_denoiser), maxlen=0)
    denoiser = sampling_denoiser(e, options)
    return lambda: deque(trajectory(e, index, options, make_denoiser=lambda *_: denoiser), maxlen=0)


def diffusers_draw(model, variant, sampler, args, device):
    model, steps = peers.varied(model, variant, device).eval(), peers.scheduler(sampler, args.calls)
    labels = torch.arange(args.batch_size, device=device) % 10

    def draw():
        with peers.autocast(variant, device):
            return peers.draw(model, steps, labels)

    return draw


def gaussian_draw(model, variant, args, device):
    model = peers.varied(model, variant, device).eval()

    def draw():
        with peers.autocast(variant, device):
            return model.sample(args.batch_size)

    return draw


def contest(preset, sampler, args, device):
    """The Race of one of our presets by one sampler, our row's key and every row's (parameters, operations).

    A row's key is (name, variant); the operations are those of a call for one image.
    """
    runs, facts = {}, {}
    x, t = torch.zeros(1, 1, 28, 28, device=device), torch.zeros(1, device=device).long()

    def add(name, variant, network, inputs, draw):
        facts[name, variant] = peers.parameters(network), peers.flops(network, *inputs)
        runs[name, variant] = lambda: peers.seconds(draw, device) / args.batch_size

    precisions = list(limits.precisions(device))
    compiled = [f"{precisions[0]} compiled"] if args.compile or device.type == "cuda" else []
    for variant in (*compiled, *precisions) if device.type == "cuda" else (*precisions, *compiled):
        e = build(GUIDED[preset].replace(precision=variant.split()[0])).to(device)
        draw = our_draw(e, variant, sampler, args, device)
        add(f"ours {preset}", variant, build(GUIDED[preset]).to(device).denoiser.network, (x, t.float(), t), draw)
    models = {f"diffusers, like {preset}": peers.unet2d(WIDTHS[preset])}
    if preset == "unet":
        models["diffusers, MNIST course"] = peers.tutorial()
    for name, model in models.items():
        for variant in peers.variants(device, nhwc=False, compiled=args.compile):
            draw = diffusers_draw(model, variant, sampler, args, device)
            add(name, variant, model.to(device), (x, t, t), draw)
    if sampler == "ddim":
        model = peers.gaussian_diffusion(*DIMS[preset], args.calls).to(device)
        for variant in peers.variants(device, nhwc=True, compiled=args.compile):
            draw = gaussian_draw(model, variant, args, device)
            add(f"denoising-diffusion, like {preset}", variant, model.model, (x, t), draw)
    own = next(iter(runs))
    others = {key: run for key, run in runs.items() if key != own and args.only in " ".join(key)}
    return Race(runs[own], others), own, facts


def rates(preset, args, device):
    """The limits: operations a second of a matrix product and of the preset's convolutions, in each precision."""
    network = build(GUIDED[preset]).to(device).denoiser.network
    x, t = torch.zeros(args.batch_size, 1, 28, 28, device=device), torch.zeros(args.batch_size, device=device)
    found = {}
    for name, dtype in limits.precisions(device).items():
        found[name] = limits.convolutions(network, dtype, x, t).rate
        alone, product = found[name] / 1e12, limits.matrix_product(dtype, device) / 1e12
        print(f"{preset}, {name}: its convolutions {alone:.3g} TFLOP/s, a matrix product {product:.3g}", flush=True)
    return found


def line(key, sampler, facts, taken, ratios, limit, args):
    """Print a row, and keep it as a record."""
    (name, variant), (count, operations), rate = key, facts, 1 / statistics.median(taken)
    record = {"row": name, "sampler": sampler, "variant": variant, "parameters": count, "flop": operations}
    record |= {"images_per_second": rate, "limit": limit[variant.split()[0]]}
    record["share"] = operations * args.calls * rate / record["limit"]
    cells = f"{name:<38}{sampler:<6}{variant:<14}{count:>10,}{operations / 1e6:>7.0f}{rate:>10.2f}"
    cells += f"{record['share']:>8.1%}"
    if ratios:
        record |= {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        cells += f"{record['ratio']:>7.2f}{f'{min(ratios):.2f}–{max(ratios):.2f}':>13}"
    print(cells, flush=True)
    record |= {"batch_size": args.batch_size, "calls": args.calls, "rounds": args.rounds, "machine": args.machine}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with open(args.out, "a") as file:
            file.write(json.dumps(record | {"threads": torch.get_num_threads(), "torch": torch.__version__}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=WIDTHS, default=list(WIDTHS), help="ours")
    parser.add_argument("--samplers", nargs="+", choices=["ddim", "dpm"], default=["ddim", "dpm"])
    parser.add_argument("--only", default="", help="peers whose name and precision contain this")
    parser.add_argument("--compile", action="store_true", help="also torch.compile the peers on a CPU: a minute each")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--calls", type=int, default=20, help="of the network, a batch")
    parser.add_argument("--rounds", type=int, default=5, help="batches of every peer")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, help="a file of JSON lines to which the rows are added")
    parser.add_argument("--machine", default="", help="what the records call it")
    args = parser.parse_args()
    device = open_device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; batches of {args.batch_size}, {args.calls} network calls, "
          f"{args.rounds} rounds, random weights\n"
          "images/s: median; ratio: how many times faster ours is, median and least–most over pairs of neighbours;\n"
          "MFLOP: of one call for one image; limit: share of the rate of our convolutions alone\n")  # fmt: skip
    for preset in args.presets:
        limit = rates(preset, args, device)
        print(f"\n{'':<44}{'precision':<14}{'parameters':>10}{'MFLOP':>7}{'images/s':>10}{'limit':>8}{'ratio':>7}"
              f"{'least–most':>13}", flush=True)  # fmt: skip
        for sampler in args.samplers:
            race, own, facts = contest(preset, sampler, args, device)
            race.warm_up()
            for _ in range(args.rounds):
                race.round()
            line(own, sampler, facts[own], race.own, (), limit, args)
            for key, taken in race.taken.items():
                line(key, sampler, facts[key], taken, race.ratios[key], limit, args)


if __name__ == "__main__":
    main()
