"""Training speed of each preset of part 1 against a plain textbook loop, block by block in one run.

  python benchmarks/training.py --presets default testing --seconds 60

The textbook: torchvision's MNIST behind a DataLoader, ToTensor for every image, float32, Adam as it comes, `.item()`
after every step. Same network, same first weights, same batch size; each has its own order and noise. Limit: the share
of a step that its convolutions and their gradients take alone, in the better memory format (limits.py).
"""

import argparse
import copy
import statistics
import time
from itertools import islice

import limits
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from diffusion.data.batches import batches
from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import DDPM
from diffusion.laboratory.device import open_device
from diffusion.networks.cnn import SELU
from diffusion.precision import computes_bf16
from diffusion.training.trainer import Trainer

BLOCK = 5  # steps of one loop before the other has its turn: both see the same noise of the machine


def textbook(network, config, root, device):
    """Yield the loss of each step."""
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: x - 0.5)])
    data = datasets.MNIST(root, train=True, transform=to_tensor)
    loader = DataLoader(data, batch_size=config.batch_size, shuffle=True, drop_last=True)
    beta = torch.linspace(config.beta_min, config.beta_max, config.timesteps + 1, device=device)
    alpha_bar = torch.cumprod(1 - beta, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    while True:
        for x, _ in loader:
            x = x.to(device)
            i = torch.randint(1, config.timesteps + 1, (len(x),), device=device)
            a, eps = alpha_bar[i, None, None, None], torch.randn_like(x)
            loss = F.mse_loss(network(a.sqrt() * x + (1 - a).sqrt() * eps, i / config.timesteps), eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


def as_torch_has_it(network):
    """The network with torch's own SELU in the place of ours."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SELU):
                setattr(parent, name, torch.nn.SELU())
    return network


def timed(steps, count, device):
    """Seconds a step over `count` steps, and their losses."""
    losses: list[float] = []
    taken = limits.seconds(lambda: losses.extend(islice(steps, count)), device)
    return taken / len(losses), losses


def fetching(trainer, count=200):
    """Seconds a batch takes to be drawn and encoded."""
    stream = batches(trainer.data, trainer.config.batch_size, 0)
    work = lambda: [trainer.codec.encode(batch.images) for batch in islice(stream, count)]
    return limits.seconds(work, trainer.experiment.device) / count


def convolving(trainer, dtype):
    """Seconds that the convolutions of a step take, and their gradients."""
    size, device = trainer.config.batch_size, trainer.experiment.device
    x, t = torch.zeros(size, *trainer.config.shape, device=device), torch.zeros(size, device=device)
    return limits.convolutions(trainer.experiment.denoiser.network, dtype, x, t, training=True).seconds


def compare(name, args, device):
    """One line of the table."""
    config = DDPM[name].replace(precision="bf16" if computes_bf16(device) else "fp32")
    data, e = load("MNIST", "train", args.data_root, device), build(config).to(device)
    plain = textbook(as_torch_has_it(copy.deepcopy(e.denoiser.network).train()), config, args.data_root, device)
    trainer = Trainer(e, data)
    ours = (step.loss for step in trainer.train(10**9))
    for loop in (ours, plain):
        timed(loop, args.warmup, device)  # compilation, caches, the first allocation
    pairs, losses, until = [], ([], []), time.perf_counter() + args.seconds
    while time.perf_counter() < until or len(pairs) < 3:
        (a, la), (b, lb) = timed(ours, BLOCK, device), timed(plain, BLOCK, device)
        pairs.append((a, b))
        losses[0].extend(la)
        losses[1].extend(lb)
    ratios = sorted(b / a for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs))
    tail = max(10, len(losses[0]) // 3)
    means = [statistics.mean(each[-tail:]) for each in losses]
    error = sum(statistics.variance(each[-tail:]) / tail for each in losses) ** 0.5
    share = 100 * fetching(trainer) / a
    limit = convolving(trainer, next(iter(limits.precisions(device).values()))) / a
    print(f"{name:<14}{config.precision:<7}{1 / a:>9.2f}{1 / b:>11.2f}{statistics.median(ratios):>8.2f}"
          f"{f'{ratios[0]:.2f}–{ratios[-1]:.2f}':>13}{share:>8.2f} %{trainer.step:>7}"
          f"{means[0]:>9.4f}{means[1]:>9.4f}{error:>9.4f}{limit:>8.1%}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=DDPM, default=list(DDPM), help="lines of the table")
    parser.add_argument("--seconds", type=float, default=60, help="of both loops together, a preset")
    parser.add_argument("--warmup", type=int, default=3, help="steps of each before the clock starts")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    device = open_device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; steps/s are medians over blocks of {BLOCK} steps in turn\n")
    print(f"{'preset':<14}{'ours':<7}{'steps/s':>9}{'textbook':>11}{'ratio':>8}{'least–most':>13}{'reading':>10}{'steps':>7}"
          f"{'loss':>9}{'textbook':>9}{'± (se)':>9}{'limit':>8}")  # fmt: skip
    for name in args.presets:
        compare(name, args, device)


if __name__ == "__main__":
    main()
