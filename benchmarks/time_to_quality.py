"""How good are the digits after equally many minutes of training: our recipe against those of diffusers, in one run.

  pip install -r requirements.txt -r benchmarks/requirements.txt
  python benchmarks/time_to_quality.py --minutes 1 2 5 15 --seeds 0 1 2 --threads 2 --rows ours tutorial

Each number of minutes is a training of its own, whose learning rate falls to the end of its own time. All rows train in
turn, slice by slice, so that they see the same noise of the machine, until each has had its minutes. Then each draws as
many images of the same labels with as many network calls, by DDPM (eta = 1), DDIM or DPM-Solver++(2M), and the
classifier in weights/ scores them. What is in the file of --out already is not trained again, so a run that was stopped
goes on; processes side by side need a file each. The rows:

  ours       the preset unet_fast through the library, as `python src train --preset unet_fast --minutes 5` trains it
  ours unet  the preset unet
  tutorial   diffusers' "Train a diffusion model" on the network of its course for MNIST: linear betas, AdamW at 1e-4
             with warm-up and cosine, batches of 64, float32
  course     diffusers' course, class-conditioned MNIST: squared cosine betas, Adam at 1e-3, batches of 128, float32
  best       what ours has and diffusers offers: our learning rate, beta2, warm-up and batch, averaged weights
             (EMAModel), squared cosine betas; bfloat16 on CUDA, float32 on a CPU, where autocast gained this network
             nothing; --best-… changes any of it

The tutorial's warm-up of 500 steps is cut to a tenth of the time, of which it would take all on a slow machine; its
cosine falls with the time that has passed. All are class-conditional (num_class_embeds; the course makes the label
channels of the input), and labels follow the training-set proportions. Scores are
appended to runs/time_to_quality.jsonl, and our weights kept beside it. With --draw-device cuda the training is timed
where --device says, and a GPU only draws and scores: of the minutes that takes none. Where others share the machine,
--threads 1 --clock cpu counts the time that the training had a core.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import peers
import torch
from diffusers.training_utils import EMAModel
from torch.nn import functional as F

from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.weights import save_weights
from diffusion.laboratory.device import open_device
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score
from diffusion.precision import computes_bf16
from diffusion.training.trainer import Trainer

SLICE = 5.0  # seconds of one training before the next has its turn
AT_ONCE = 250  # images that are drawn together
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
UNITS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # of a processor, the quickest first


@dataclass(frozen=True)
class Recipe:
    """How diffusers' network is trained."""

    widths: tuple[int, int, int] = peers.TUTORIAL
    schedule: str = "linear"
    lr: float = 1e-4
    beta2: float = 0.999
    weight_decay: float = 1e-2
    warmup: int = 500  # steps, but never more than a tenth of the time
    cosine: bool = True  # lr falls to 0
    clip: float = 1.0
    batch_size: int = 64
    precision: str = "fp32"  # or bf16, in autocast
    ema_decay: float = 0.0  # 0: no averaged weights


TUTORIAL = Recipe()
COURSE = Recipe(schedule="squaredcos_cap_v2", lr=1e-3, weight_decay=0.0, warmup=0, cosine=False, clip=math.inf,
                batch_size=128)  # fmt: skip
OURS = GUIDED["unet_fast"]
BEST = Recipe(schedule="squaredcos_cap_v2", lr=OURS.lr, beta2=OURS.beta2, weight_decay=0.0, warmup=OURS.warmup,
              batch_size=OURS.batch_size, ema_decay=OURS.ema_decay)  # fmt: skip


class Contender:
    """A training that can be interrupted. `train` yields after each step, and ends when `seconds` are used up."""

    def __init__(self, name, seed, minutes, args, device):
        self.name, self.seed, self.minutes, self.args, self.device = name, seed, minutes, args, device
        self.budget, self.seconds, self.steps = 60 * minutes, 0.0, 0
        self.now = CLOCKS[args.clock]
        self.loop = self.train()

    def turn(self):
        """Train for a SLICE; whether there is more to do."""
        began, before = self.now(), self.seconds
        for _ in self.loop:
            self.steps += 1
            self.seconds = before + self.now() - began
            if self.seconds - before >= SLICE:
                break
        else:
            return False
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.seconds = before + self.now() - began
        return True


class Ours(Contender):
    def __init__(self, preset, *rest):
        self.preset = preset
        super().__init__(*rest)

    def train(self):
        """As Run.marks does for a plan of minutes."""
        precision = "bf16" if computes_bf16(self.device) else "fp32"
        config = GUIDED[self.preset].replace(precision=precision, seed=self.seed)
        self.experiment = e = build(config).to(self.device)
        self.batch_size, self.lr, self.precision = config.batch_size, config.lr, precision
        self.parameters = peers.parameters(e.denoiser.network)
        data = load("MNIST", "train", self.args.data_root, self.device)
        trainer = Trainer(e, data)
        for step in trainer.train(10**9):
            yield
            if not trainer.end and self.seconds >= self.budget * (1 - config.decay):
                trainer.end = max(step.number, round(step.number / (1 - config.decay)))
            if trainer.end and step.number >= trainer.end:
                return

    def draw(self, labels, sampler):
        """Images (N, 1, 28, 28) in [0, 1] of the labels (N,), on their device."""
        experiment = self.experiment.to(labels.device)
        options, index = SamplingOptions(sampler, self.args.calls), torch.arange(len(labels), device=labels.device)
        return generate(experiment, index, options, seed=self.seed, labels=labels, batch_size=AT_ONCE)


class Peer(Contender):
    def __init__(self, recipe, *rest):
        self.recipe, self.batch_size, self.lr, self.precision = recipe, recipe.batch_size, recipe.lr, recipe.precision
        super().__init__(*rest)

    def rate(self):
        """The learning rate of the next step."""
        r, passed = self.recipe, self.seconds / self.budget
        rise = max((self.steps + 1) / r.warmup, passed / 0.1) if r.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(passed, 1.0))) if r.cosine else 1.0
        return r.lr * min(rise, 1.0) * fall

    def train(self):
        torch.manual_seed(self.seed)
        r = self.recipe
        self.model = model = peers.unet2d(r.widths, groups=32 if r.widths == peers.TUTORIAL else 8).to(self.device)
        self.parameters = peers.parameters(model)
        if self.device.type == "cuda":
            model.compile()  # as ours
        optimizer = torch.optim.AdamW(model.parameters(), lr=r.lr, betas=(0.9, r.beta2), weight_decay=r.weight_decay)
        ema = EMAModel(model.parameters(), decay=r.ema_decay) if r.ema_decay else None
        loader, degrade = peers.loader(self.args.data_root, r.batch_size), peers.noised(r.schedule)
        while True:
            for x, labels in loader:
                x_t, t, noise = degrade(x.to(self.device))
                with peers.autocast(r.precision, self.device):
                    loss = F.mse_loss(model(x_t, t, labels.to(self.device)).sample.float(), noise)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), r.clip)
                optimizer.param_groups[0]["lr"] = self.rate()
                optimizer.step()
                optimizer.zero_grad()
                if ema:
                    ema.step(model.parameters())
                yield
                if self.seconds >= self.budget:
                    if ema:
                        ema.copy_to(model.parameters())
                    return

    def draw(self, labels, sampler):
        self.model.eval().to(labels.device)
        steps = peers.scheduler(sampler, self.args.calls, self.recipe.schedule)
        generator = torch.Generator().manual_seed(self.seed)
        with peers.autocast(self.recipe.precision, labels.device):
            return torch.cat([peers.draw(self.model, steps, part, generator) for part in labels.split(AT_ONCE)])


def contender(name, seed, minutes, args, device):
    rest = (name, seed, minutes, args, device)
    if name.startswith("ours"):
        return Ours("unet" if name == "ours unet" else "unet_fast", *rest)
    precision = args.best_precision or ("bf16" if device.type == "cuda" else "fp32")
    best = replace(BEST, lr=args.best_lr, batch_size=args.best_batch_size, widths=tuple(args.best_widths),
                   precision=precision)  # fmt: skip
    return Peer({"tutorial": TUTORIAL, "course": COURSE, "best": best}[name], *rest)


def machine(device):
    """What trains: the model, how many cores this process may use, the units that count for tensors."""
    if device.type == "cuda":
        return {"processor": torch.cuda.get_device_name(), "cores": 1, "units": "bf16"}
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:
        about = ""
    processor = next((line.partition(": ")[2] for line in about.splitlines() if line.startswith("model name")), "CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": cores, "units": next((unit for unit in UNITS if unit in about), "")}


def trained(names, seed, minutes, args, device):
    """The contenders of these names, trained in turn."""
    contenders = [contender(name, seed, minutes, args, device) for name in names]
    busy = contenders
    while busy:
        busy = [each for each in busy if each.turn()]
        done = ", ".join(f"{each.name} {each.steps:,} steps in {each.seconds:.0f} s" for each in contenders)
        print(f"\rseed {seed}, {minutes:g} minutes: {done} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr, end="\n" * bool(contenders))
    return contenders


def keep(ours, folder, images):
    """Save the weights for python src evaluate; `images` of a training set are an epoch."""
    epoch = ours.steps * ours.batch_size / images
    ours.experiment.about = {"holds": "ema", "epoch": epoch, "step": ours.steps}
    save_weights(folder / f"time_to_quality_{ours.preset}_{ours.minutes:g}_minutes_{ours.seed}.pth", ours.experiment)


def measured(trained, sampler, labels, reference, real):
    """The record of one row."""
    if labels.is_cuda:
        trained.draw(labels[:AT_ONCE], sampler)  # compilation
    began = time.perf_counter()
    images = trained.draw(labels, sampler)
    if images.is_cuda:
        torch.cuda.synchronize()
    rate = len(images) / (time.perf_counter() - began)
    scores = score(images, reference)
    return {"row": trained.name, "sampler": sampler, "seed": trained.seed, "parameters": trained.parameters,
             "batch_size": trained.batch_size, "lr": trained.lr, "precision": trained.precision,
             "steps": trained.steps, "seconds": trained.seconds, "minutes": trained.minutes,
             "clock": trained.args.clock, "threads": torch.get_num_threads(), "device": trained.device.type,
             **machine(trained.device), "torch": torch.__version__, "calls": trained.args.calls,
             "fid": scores.fid, "floors": scores.fid / real.fid, "inception_score": scores.inception_score,
             "agreement": agreement(reference.extractor, images, labels), "images_per_second": rate,
             "drawn_on": labels.device.type, "n": len(images), "floor": real.fid, "sha256": real.sha256}  # fmt: skip


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def matching(records, key):
    """Those that agree with it in all of its keys."""
    return [record for record in records if all(record.get(name) == value for name, value in key.items())]


def missing(known, args, seed, minutes, setup):
    """Row -> the samplers that the record lacks."""
    best = {"lr": args.best_lr, "batch_size": args.best_batch_size}
    own = lambda row: setup | {"row": row, "seed": seed, "minutes": minutes} | (best if row == "best" else {})
    key = lambda row, sampler: own(row) | {"sampler": sampler}
    due = {row: [each for each in args.samplers if not matching(known, key(row, each))] for row in args.rows}
    return {row: samplers for row, samplers in due.items() if samplers}


def summary(records):
    """Print mean ± sd over the seeds of each row."""
    groups = {}
    for record in records:
        groups.setdefault((record["minutes"], record["row"], record["sampler"]), {})[record["seed"]] = record
    measures = (("fid", ".3f"), ("floors", ".1f"), ("inception_score", ".2f"), ("agreement", ".2%"))
    heads = "".join(f"{head:>18}" for head in ("FID", "floors", "IS", "label"))
    print(f"\nmean ± sd over the seeds\n{'minutes':<9}{'row':<17}{'seeds':>6}{heads}")
    for (minutes, name, sampler), seeds in sorted(groups.items()):
        cells = ""
        for key, form in measures:
            values = [record[key] for record in seeds.values()]
            spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
            cells += f"{f'{statistics.mean(values):{form}}{spread}':>18}"
        print(f"{minutes:<9g}{name:<11}{sampler:<6}{len(seeds):>6}{cells}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = ["ours", "tutorial", "course", "best"]
    parser.add_argument("--minutes", type=float, nargs="+", default=[5], help="of training, each row anew for each")
    parser.add_argument("--rows", nargs="+", choices=[*rows, "ours unet"], default=rows)
    parser.add_argument("--samplers", nargs="+", choices=["ddpm", "ddim", "dpm"], default=["ddpm", "dpm"])
    parser.add_argument("--calls", type=int, default=20, help="of the network, a sample")
    parser.add_argument("--samples", type=int, default=10_000, help="to score, a row, sampler and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each trains all rows anew")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as torch has it)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the time of this process on a core")
    parser.add_argument("--best-lr", type=float, default=BEST.lr, help="of the row best")
    parser.add_argument("--best-batch-size", type=int, default=BEST.batch_size)
    parser.add_argument("--best-precision", choices=["fp32", "bf16"])
    parser.add_argument("--best-widths", type=int, nargs=3, default=BEST.widths)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_quality.jsonl"))
    devices = ["auto", "cpu", "cuda"]
    parser.add_argument("--device", choices=devices, default="auto", help="that trains, on the clock")
    parser.add_argument("--draw-device", choices=devices, help="that draws and scores (default: the same)")
    return parser.parse_args()


def main():
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, draws = open_device(args.device), open_device(args.draw_device or args.device)
    data, test = (load("MNIST", split, args.data_root, draws) for split in ("train", "test"))
    extractor = extractor_for("MNIST", Path(__file__).parents[1] / "weights", draws)
    reference = Reference.of(extractor, data.images, Path(args.data_root) / "cache")
    real = floor(test.stratified(args.samples).images, reference)
    where = "{processor}, {cores} cores, {units}".format(**machine(device))
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}; {args.calls} network calls, "
          f"N = {args.samples:,}, seeds {args.seeds}\n{real.extractor} {real.sha256[:16]}; floor: FID {real.fid:.3f}, "
          f"IS {real.inception_score:.2f}\n{real.warning}", flush=True)  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    setup = {"clock": args.clock, "threads": torch.get_num_threads(), "device": device.type}
    setup |= {"calls": args.calls, "n": args.samples}
    print(f"{'minutes':<9}{'seed':<6}{'row':<11}{'by':<6}{'parameters':>10}{'batch':>7}{'steps':>8}{'seconds':>9}"
          f"{'images/s':>10}{'FID':>9}{'floors':>8}{'IS':>7}{'label':>8}", flush=True)  # fmt: skip
    for seed, minutes in product(args.seeds, args.minutes):
        due = missing(read(args.out), args, seed, minutes, setup)
        labels = data.stratified(args.samples, seed).labels
        for each in trained(due, seed, minutes, args, device):
            if isinstance(each, Ours):
                keep(each, args.out.parent, len(data))
            for sampler in due[each.name]:
                record = measured(each, sampler, labels, reference, real)
                with open(args.out, "a") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{minutes:<9g}{seed:<6}{each.name:<11}{sampler:<6}{record['parameters']:>10,}"
                      f"{record['batch_size']:>7}{record['steps']:>8,}{record['seconds']:>9.0f}"
                      f"{record['images_per_second']:>10.1f}{record['fid']:>9.3f}{record['floors']:>8.1f}"
                      f"{record['inception_score']:>7.2f}{record['agreement']:>8.2%}", flush=True)  # fmt: skip
    summary(r for r in matching(read(args.out), setup) if r["row"] in args.rows and r["minutes"] in args.minutes)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
