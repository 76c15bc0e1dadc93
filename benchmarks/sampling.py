"""Sampling speed of our class-conditional U-Nets against diffusers and denoising-diffusion-pytorch, in one run.

  pip install -r requirements.txt -r benchmarks/requirements.txt
  OMP_NUM_THREADS=2 python benchmarks/sampling.py --rounds 5

Every row draws batches of the same size with the same number of network calls. The weights are random: speed does not
depend on them. Ours runs in the precision that it chooses by itself, and in float32; the peers in float32 as they
come, in bfloat16 autocast, and with channels_last beside that (nhwc) where it helps. On CUDA ours is compiled, as the
product does; so is one more row of every peer, on a CPU only with --compile. denoising-diffusion-pytorch has no
labels, which spares it a little; its only fast sampler is DDIM.
"""

import argparse
import statistics
from collections import deque

import peers
import torch
from peers import DIMS, WIDTHS, Race

from diffusion.api.generation import trajectory
from diffusion.experiment.build import build
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.device import open_device
from diffusion.precision import computes_bf16


def our_draw(e, sampler, args, device):
    """A function that draws a batch as the product does."""
    index = torch.arange(args.batch_size, device=device)
    options = SamplingOptions(sampler, args.calls)
    return lambda: deque(trajectory(e, index, options), maxlen=0)


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

    chosen = "bf16" if computes_bf16(device) else "fp32"
    for precision in dict.fromkeys([chosen, "fp32"]):
        e = build(GUIDED[preset].replace(precision=precision)).to(device)
        add(f"ours {preset}", precision, e.denoiser.network, (x, t.float(), t), our_draw(e, sampler, args, device))
        if device.type == "cuda":
            e.denoiser.network.compile()
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
    own = f"ours {preset}", chosen
    others = {key: run for key, run in runs.items() if key != own and args.only in " ".join(key)}
    return Race(runs[own], others), own, facts


def line(key, sampler, facts, taken, ratios=()):
    (name, variant), (count, operations), rate = key, facts, 1 / statistics.median(taken)
    cells = f"{name:<38}{sampler:<6}{variant:<14}{count:>10,}{operations / 1e6:>7.0f}{rate:>10.2f}"
    if ratios:
        cells += f"{statistics.median(ratios):>7.2f}{f'{min(ratios):.2f}–{max(ratios):.2f}':>13}"
    print(cells, flush=True)


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
    args = parser.parse_args()
    device = open_device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; batches of {args.batch_size}, {args.calls} network calls, "
          f"{args.rounds} rounds, random weights\n"
          "images/s: median; ratio: how many times faster ours is, median and least–most over pairs of neighbours;\n"
          "MFLOP: of one call for one image\n")  # fmt: skip
    print(f"{'':<38}{'':<6}{'precision':<14}{'parameters':>10}{'MFLOP':>7}{'images/s':>10}{'ratio':>7}"
          f"{'least–most':>13}", flush=True)  # fmt: skip
    for preset in args.presets:
        for sampler in args.samplers:
            race, own, facts = contest(preset, sampler, args, device)
            race.warm_up()
            for _ in range(args.rounds):
                race.round()
            line(own, sampler, facts[own], race.own)
            for key, taken in race.taken.items():
                line(key, sampler, facts[key], taken, race.ratios[key])


if __name__ == "__main__":
    main()
