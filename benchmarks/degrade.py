"""The vectorised averaging of a training batch against the naive loop over images and lines, in one run.

python benchmarks/degrade.py
"""

import argparse
import statistics
import time

import torch

from diffusion.laboratory.device import open_device
from diffusion.method.averaging import Averaging, line_order


def naive(x_0, t, axis, order):
    """Image by image, line by line, as the original does it."""
    x = x_0.clone()
    for i in range(len(x)):
        for group in order[: int(round(t[i].item() * len(order)))]:
            lines = x_0[i, :, group] if axis == "row" else x_0[i, :, :, group]
            mean = lines.mean((1, 2))
            for line in group.tolist():
                if axis == "row":
                    x[i, :, line] = mean[:, None]
                else:
                    x[i, :, :, line] = mean[:, None]
    return x


def seconds(work, device, repeats):
    """Median seconds of a call."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="of both in turn; the median ratio is printed")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    device = open_device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, batch of {args.batch_size} images 28×28, medians over {args.rounds} rounds\n")
    print(f"{'axis':<6}{'groups':>7}{'vectorised':>14}{'naive':>12}{'ratio':>9}")
    for axis in ("row", "col"):
        for groups in (28, 7):
            order = line_order("random", 28).reshape(groups, -1)
            process = Averaging(axis, order).to(device)
            x_0 = torch.rand(args.batch_size, 1, 28, 28, device=device)
            t = torch.randint(1, groups + 1, (args.batch_size,), device=device) / groups
            torch.testing.assert_close(process.degrade(x_0, t), naive(x_0, t, axis, order))  # equal, or no race
            pairs = []
            for _ in range(args.rounds):
                fast = seconds(lambda p=process, x=x_0, t=t: p.degrade(x, t), device, 50)
                slow = seconds(lambda x=x_0, t=t, a=axis, o=order: naive(x, t, a, o), device, 1)
                pairs.append((fast, slow))
            a, b = (statistics.median(column) for column in zip(*pairs))
            ratio = statistics.median(slow / fast for fast, slow in pairs)
            print(f"{axis:<6}{groups:>7}{1e3 * a:>11.3f} ms{1e3 * b:>9.1f} ms{ratio:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
