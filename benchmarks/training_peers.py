"""Training speed of our class-conditional U-Nets against diffusers and denoising-diffusion-pytorch, in one run.

  pip install -r requirements.txt -r benchmarks/requirements.txt
  OMP_NUM_THREADS=2 python benchmarks/training_peers.py --rounds 20

Ours is diffusion.training.Trainer with all it does: labels, averaged weights, the guard against NaN. The peers run the
loops of their own documentation, on torchvision's MNIST behind a DataLoader: diffusers' DDPMScheduler.add_noise, mean
squared error, gradients clipped at 1, AdamW, its cosine schedule; denoising-diffusion-pytorch's loss, gradients clipped
at 1, Adam, without the averaged weights of its Trainer. Networks have as many parameters as ours, within 2 %, batches
as many images. float32 is how they come; bfloat16 autocast, and channels_last beside it (nhwc), are a line each.
"""

import argparse
import statistics
from itertools import islice

import peers
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from peers import DIMS, WIDTHS, Race
from torch.nn import functional as F

from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import GUIDED
from diffusion.laboratory.device import open_device
from diffusion.precision import computes_bf16
from diffusion.training.trainer import Trainer


def diffusers_loop(model, variant, batch_size, args, device):
    """Yield after each step of the tutorial."""
    model, degrade = peers.varied(model, variant, device).train(), peers.noised()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    lr = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=500, num_training_steps=50_000)
    loader = peers.loader(args.data_root, batch_size)
    while True:
        for x, labels in loader:
            x_t, t, noise = degrade(x.to(device))
            with peers.autocast(variant, device):
                loss = F.mse_loss(model(x_t, t, labels.to(device)).sample.float(), noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr.step()
            optimizer.zero_grad()
            yield loss.item()


def gaussian_loop(model, variant, batch_size, args, device):
    model = peers.varied(model, variant, device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-5, betas=(0.9, 0.99))
    loader = peers.loader(args.data_root, batch_size)
    while True:
        for x, _ in loader:
            with peers.autocast(variant, device):
                loss = model(x.to(device) / 2 + 0.5)  # it takes [0, 1]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()


def our_loop(config, data, device):
    e = build(config).to(device)
    return e.denoiser.network, Trainer(e, data).train(10**9)


def contest(preset, args, device):
    """The Race of one of our presets, our row's key and the number of parameters of every row's."""
    config, runs, counts = GUIDED[preset], {}, {}
    data = load("MNIST", "train", args.data_root, device)
    batch_size = args.batch_size or config.batch_size

    def add(name, variant, network, loop, block):
        counts[name, variant] = peers.parameters(network)
        steps = lambda: list(islice(loop, block))
        runs[name, variant] = lambda: peers.seconds(steps, device) / (block * batch_size)

    chosen = "bf16" if computes_bf16(device) else "fp32"
    for precision in dict.fromkeys([chosen, "fp32"]):
        network, loop = our_loop(config.replace(precision=precision, batch_size=batch_size), data, device)
        add(f"ours {preset}", precision, network, loop, args.block)
    model = peers.unet2d(WIDTHS[preset])
    for variant in peers.variants(device, nhwc=False, compiled=args.compile):
        loop = diffusers_loop(model, variant, batch_size, args, device)
        add(f"diffusers, like {preset}", variant, model, loop, args.block)
    model = peers.gaussian_diffusion(*DIMS[preset])
    for variant in peers.variants(device, nhwc=True, compiled=args.compile):
        loop = gaussian_loop(model, variant, batch_size, args, device)
        add(f"denoising-diffusion, like {preset}", variant, model, loop, args.block)
    own = f"ours {preset}", chosen
    others = {key: run for key, run in runs.items() if key != own and args.only in " ".join(key)}
    return Race(runs[own], others), own, counts, batch_size


def line(key, count, batch_size, taken, ratios=()):
    cells = f"{key[0]:<38}{key[1]:<14}{count:>10,}{batch_size:>7}{1 / statistics.median(taken):>10.1f}"
    if ratios:
        cells += f"{statistics.median(ratios):>7.2f}{f'{min(ratios):.2f}–{max(ratios):.2f}':>13}"
    print(cells, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=WIDTHS, default=list(WIDTHS), help="ours")
    parser.add_argument("--only", default="", help="peers whose name and precision contain this")
    parser.add_argument("--compile", action="store_true", help="also torch.compile the peers on a CPU: minutes each")
    parser.add_argument("--batch-size", type=int, help="of all (default: that of our preset)")
    parser.add_argument("--block", type=int, default=2, help="steps of one loop before the next has its turn")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of every peer")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    device = open_device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{where}, torch {torch.__version__}; {args.rounds} rounds of {args.block} steps in turn\n"
        "images/s: median; ratio: how many times faster ours is, median and least–most over pairs of neighbours\n"
    )
    print(f"{'':<38}{'precision':<14}{'parameters':>10}{'batch':>7}{'images/s':>10}{'ratio':>7}{'least–most':>13}",
          flush=True)  # fmt: skip
    for preset in args.presets:
        race, own, counts, batch_size = contest(preset, args, device)
        race.warm_up()
        for _ in range(args.rounds):
            race.round()
        line(own, counts[own], batch_size, race.own)
        for key, taken in race.taken.items():
            line(key, counts[key], batch_size, taken, race.ratios[key])


if __name__ == "__main__":
    main()
