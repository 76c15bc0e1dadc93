"""What makes cold diffusion draw digits: recipes trained for equally many steps, restored and drawn from in one run.

python benchmarks/cold.py --steps 1500                       remedies for samples that all look alike
python benchmarks/cold.py --group default_28 --steps 5616    the coursework's network: its recipe, ours
python benchmarks/cold.py --group default_7 --only original --steps 37440 \\
    --weights custom_mnist_80_row_default_7                                 its recipe, and a file of ours beside it

States are kept in runs/benchmark_cold/: the same command goes on where a killed one stopped.
"""

import argparse
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion import figures, files
from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import COLD, DDPM
from diffusion.experiment.samplers import FEWEST, SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.laboratory.device import open_device
from diffusion.method.averaging import Averaging
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import likeness
from diffusion.metrics.scores import Reference, floor, score
from diffusion.precision import computes_bf16
from diffusion.training.trainer import Trainer

WEIGHTS = Path(__file__).parents[1] / "weights"


ALL = [SamplingOptions(name) for name in ("direct", "alg2", "alg1", "pinned")]
LATE = [replace(options, begin=1) for options in ALL[1:]]


def once(config):
    """Pinned averages in as many steps as there are groups, if that is not what is usual."""
    return [SamplingOptions("pinned", config.timesteps)] if config.timesteps < FEWEST else []


def coursework(preset):
    """The original's recipe and ours for one of the coursework's presets."""
    ours = COLD[preset]
    plain = ours.replace(noise=0.0, sampler="alg2")
    return {
        "original: t < T only": (plain, [*ALL, *LATE]),
        "t = T trained": (plain, ALL),
        "noise 0.15 (of 2)": (ours, [*ALL, *once(ours)]),
    }


UNET = COLD["cold_unet"]
GROUPS = {  # name -> config, samplers
    "unet": {
        "no noise": (UNET.replace(noise=0.0), ALL),
        "noise 0.15": (UNET, ALL),
        "noise 0.05": (UNET.replace(noise=0.05), ALL[2:]),
        "noise 0.3": (UNET.replace(noise=0.3), ALL[2:]),
        "0.15, inside-out": (UNET.replace(order="inside-out"), ALL[2:]),
        "0.15, outside-in": (UNET.replace(order="outside-in"), ALL[2:]),
        "0.15, 7 groups": (UNET.replace(timesteps=7), ALL[2:]),
        "DDPM, same network": (DDPM["ddpm_unet"], [SamplingOptions("ddpm")]),
    },
    "default_28": coursework("default_28"),
    "default_7": coursework("default_7"),
}


class Original(Averaging):
    """The original never trained t = T."""

    def draw_time(self, noise):
        return (noise.uniform() * (self.timesteps - 1)).ceil() / self.timesteps


def slug(name):
    return re.sub(r"\W+", "_", name).strip("_")


def trained(name, config, args, data, device):
    """The experiment after args.steps steps, from its kept state if there is one."""
    e = build(config).to(device)
    if name.startswith("original"):
        e.process.__class__ = Original
    trainer = Trainer(e, data)
    path = args.out / f"{slug(name)}_{config.preset}_{config.axis}.pt"
    if path.exists():
        state = files.load(path)
        trainer.load_state(state["trainer"])
        e.process.load_state_dict(state["process"])
    saved = time.monotonic()
    keep = lambda: files.save(path, {"trainer": trainer.state(), "process": e.process.state_dict()})
    with tqdm(total=args.steps, initial=trainer.step, desc=name, unit="step", leave=False) as bar:
        for step in trainer.train(args.steps):
            bar.update()
            if time.monotonic() - saved > 60 or step.number == args.steps:
                keep()
                saved = time.monotonic()
    return e


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=GROUPS, default="unet", help="which table (default: unet)")
    parser.add_argument("--only", help="recipes whose name contains this")
    parser.add_argument("--weights", metavar="NAME", help="trained weights of the same images, scored as they are")
    parser.add_argument("--axis", choices=["row", "col"], default="row", help="what is averaged (default: row)")
    parser.add_argument("--steps", type=int, default=1500, help="of training, each variant")
    parser.add_argument("--samples", type=int, default=2000, help="to score, a row (default: 2000)")
    parser.add_argument("--seeds", type=int, default=1, help="of the sampling; the table shows means")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_cold"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    device, n = open_device(args.device), args.samples
    data, test = (load("MNIST", split, args.data_root, device) for split in ("train", "test"))
    extractor = extractor_for("MNIST", WEIGHTS, device)
    reference = Reference.of(extractor, data.images, Path(args.data_root) / "cache")
    real = floor(test.images, reference, n)
    print(f"{args.axis}s, {args.steps} steps of 128, N = {n}, sampling seeds: {args.seeds}, {real.extractor} "
          f"{real.sha256[:16]}; floor {real.fid:.2f}, IS {real.inception_score:.2f}\n"
          "labels: how often the rarest and the commonest digit is drawn (real: 8.9–11.4 %)\n")  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    header = f"{'recipe':<31}{'sampler':<18}{'restored':>9}{'kept':>8}{'SSIM':>7}{'grey':>8}"
    header += f"{'new':>9}{'IS':>6}{'labels':>14}"
    print(header, flush=True)
    for name, e, samplers in experiments(args, data, device):
        for options in samplers:
            results = [result(e, options, seed, test, n, extractor, reference) for seed in range(args.seeds)]
            nfe = build_sampler(e, options).nfe
            for seed, each in enumerate(results):
                what = {"recipe": name, "preset": e.config.preset, "axis": args.axis}
                how = {"steps": e.about.get("step", args.steps), "way": options.sampler, "begin": options.begin, "n": n}
                how |= {"calls": nfe, "seed": seed}
                record = what | how | each
                if "pictures" in record:
                    path = args.out / f"{slug(name)}_{e.config.preset}_{options.sampler}_{nfe}_{args.axis}_{seed}.png"
                    figures.grid(record.pop("pictures"), path, columns=8, scale=2)
                with open(args.out / "results.jsonl", "a") as file:
                    file.write(json.dumps(record) + "\n")
            begin, steps = options.begin, options.steps
            late = f" from T − {begin}" if begin else f", {steps} steps" if steps else ""
            print(f"{name:<31}{options.sampler + late:<18}" + cells(results), flush=True)
    print(f"\nmean grey of the originals {test.images[:n].float().mean() / 255:.4f}")


def experiments(args, data, device):
    """What is compared: its name, the trained experiment, the samplers."""
    precision = "bf16" if computes_bf16(device) else "fp32"
    for name, (config, samplers) in GROUPS[args.group].items():
        if not args.only or args.only in name:
            yield name, trained(name, config.replace(axis=args.axis, precision=precision), args, data, device), samplers
    if args.weights:
        e = load_weights(find_weights(args.weights, [WEIGHTS])).to(device)
        yield args.weights, e, [*ALL, SamplingOptions("pinned", begin=1), *once(e.config)]


def result(e, options, seed, test, n, extractor, reference):
    """The scores of one sampler: of restored test digits, and of new ones where it begins at the end."""
    found, index = {}, torch.arange(n, device=test.images.device)
    if e.config.process == "averaging":
        x = generate(e, index, options, seed=seed, originals=test.images[:n])
        like = likeness(extractor, x, test.images[:n], test.labels[:n])
        found |= {"restored": score(x, reference).fid, **like._asdict()}
    if not options.begin:
        x = generate(e, index, options, seed=seed)
        s, (_, logits) = score(x, reference), extractor(x)
        share = torch.bincount(logits.argmax(1), minlength=10) / n
        found |= {"new": s.fid, "inception_score": s.inception_score, "labels": share.tolist(), "pictures": x[:64]}
    return found


def cells(results):
    """The means over the seeds, as the table shows them."""
    mean = lambda key: sum(each[key] for each in results) / len(results)
    text = " " * 32
    if "restored" in results[0]:
        text = f"{mean('restored'):>9.2f}{mean('agreement'):>8.1%}{mean('ssim'):>7.3f}{mean('mean'):>8.4f}"
    if "new" in results[0]:
        share = torch.tensor([each["labels"] for each in results]).mean(0)
        text += f"{mean('new'):>9.2f}{mean('inception_score'):>6.2f}{share.min():>7.1%}–{share.max():.1%}"
    return text


if __name__ == "__main__":
    main()
