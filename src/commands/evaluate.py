"""Score a weight file on many samples: FID, IS, KID, label agreement, precision, recall, and whether it remembers."""

import json
import statistics
from pathlib import Path

import torch
from tqdm import tqdm

from commands.options import Parser, number, one_of
from commands.processes import open_device
from diffusion import checkpoint, figures
from diffusion.data import load
from diffusion.errors import UserError
from diffusion.experiment import answering, find_weights, load_weights, sampling, trajectory
from diffusion.extractor import CLASSIFIERS, extractor, extractor_for
from diffusion.metrics import Reference, agreement, coverage, floor, neighbours, score
from diffusion.sampler import last

WEIGHTS = Path(__file__).parents[2] / "weights"
EXAMPLES = """examples:
  python src evaluate --weights unet                                  10,000 samples, 3 seeds: about half an hour of CPU
  python src evaluate --weights unet --sampler dpm --steps 10 --samples 2000 --guidance-scale 2 --interval 0.1 0.8
"""


def parser() -> Parser:
    p = Parser(prog="python src evaluate", description=__doc__, epilog=EXAMPLES)
    p.add_argument("--weights", required=True, help="a weight file, or the name of one in weights/ or runs/*/")
    p.add_argument("--samples", type=number(int, 16), default=10_000, help="of each seed")
    p.add_argument("--seeds", type=number(int, 1), default=3, help="how often all is repeated, for the spread")
    p.add_argument("--seed", type=number(int, 0), default=0, help="the first seed")
    p.add_argument("--sampler", help="see python src generate --help (default: as saved)")
    p.add_argument("--steps", type=number(int, 1), help="of the sampler (default: its usual number)")
    p.add_argument("--guidance-scale", type=number(float, -100, 100), default=1.0, help="1 follows the label")
    p.add_argument("--interval", type=number(float, 0, 1), nargs=2, default=(0.0, 1.0), metavar=("LOW", "HIGH"),
                   help="times that are guided (default: 0 1, all)")  # fmt: skip
    p.add_argument("--features", type=one_of("features", ["auto", *CLASSIFIERS, "inception"]), default="auto",
                   help="what is looked through; auto is the classifier of the data set")  # fmt: skip
    p.add_argument("--batch-size", type=number(int, 1), default=250, help="samples drawn at a time")
    p.add_argument("--data-root", type=Path, default=Path("data"), help="where data sets are kept")
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    p.add_argument("--out", type=Path, help="append the numbers to this file, one JSON object a line")
    p.add_argument("--sheet", type=Path, help="X.png: samples, each above the training image nearest to it")
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    if args.sheet and args.sheet.suffix != ".png":
        raise UserError(f"--sheet {args.sheet}: the name must end in .png")
    device = open_device(args.device)
    experiment = load_weights(find_weights(args.weights, [Path("weights"), *sorted(Path("runs").glob("*"))])).to(device)
    config = experiment.config
    how = {"sampler": args.sampler, "steps": args.steps}
    told = {"guidance_scale": args.guidance_scale, "interval": tuple(args.interval)}
    way = sampling(experiment, **how)
    answering(experiment, **told)
    data, test = (load(config.dataset, split, args.data_root, device) for split in ("train", "test"))
    named = args.features != "auto"
    eyes = extractor(args.features, WEIGHTS, None, device) if named else extractor_for(config.dataset, WEIGHTS, device)
    reference = Reference.of(eyes, data.images, args.data_root / "cache", lambda parts: tqdm(parts, leave=False))
    shuffled = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: args.samples]
    real = floor(test.images[shuffled], reference)
    line = "{:<22}{:>10}{:>8}{:>9}{:>11}{:>11}{:>8}{:>14}".format
    print(f"{args.weights}: {way.calls} network calls a sample, guidance scale {args.guidance_scale:g}; "
          f"{args.samples:,} samples a seed against {reference.n:,} training images;\n"
          f"{eyes.name}, sha256 {eyes.sha256[:16]}\n")  # fmt: skip
    print(line("", "FID", "IS", "KID", "agreement", "precision", "recall", "labels"))
    print(line("real test images", f"{real.fid:.4f}", f"{real.inception_score:.2f}", f"{real.kid:.4f}",
               *("–" if eyes.dataset == "ImageNet" else f"{agreement(eyes, test.images, test.labels):.2%}",),
               *(f"{each:.3f}" for each in coverage(test.images[shuffled], reference)), ""))  # fmt: skip

    # --- Sample, Measure ---
    rows = []
    for seed in range(args.seed, args.seed + args.seeds):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).to(device)
        labels = data.labels[order].repeat(-(-args.samples // len(data)))[: args.samples] if config.classes else None
        parts = []
        with tqdm(total=args.samples, unit="image", desc=f"seed {seed}", leave=False) as bar:
            for index in torch.arange(args.samples, device=device).split(args.batch_size):
                cond = None if labels is None else labels[index]
                parts.append(last(trajectory(experiment, index, seed, labels=cond, **told, **how)))
                bar.update(len(index))
        images = torch.cat(parts)
        row = score(images, reference)._asdict() | coverage(images, reference)._asdict()
        if eyes.dataset != "ImageNet":
            seen = torch.bincount(eyes(images)[1].argmax(1), minlength=len(data.classes)) / len(images)
            row |= {"labels": [round(each, 4) for each in seen.tolist()]}
            row |= {"agreement": agreement(eyes, images, labels)} if labels is not None else {}
        rows.append(row | {"seed": seed})
        print(line(f"seed {seed}", *told_in(row)), flush=True)

    # --- Report ---
    mean = lambda key: statistics.mean(row[key] for row in rows)
    spread = f" ± {statistics.stdev(row['fid'] for row in rows):.4f} over {len(rows)} seeds" if len(rows) > 1 else ""
    multiple = f"{mean('fid') / real.fid:.2f} times the floor"
    print(f"\nFID {mean('fid'):.4f}{spread}, {multiple}")
    nearest, index = neighbours(images[:1000], data.images)
    usual, _ = neighbours(test.images[shuffled][:1000], data.images)
    print(f"RMSE to the nearest training image: {nearest.mean():.4f} on average, at least {nearest.min():.4f}; "
          f"of real test images {usual.mean():.4f}, {usual.min():.4f}")  # fmt: skip
    if args.sheet:
        pairs = torch.stack([images[:48].cpu(), data.images[index[:48]].cpu() / 255])  # (2, 48, C, H, W)
        rows_of = pairs.reshape(2, 4, 12, *config.shape).transpose(0, 1).flatten(0, 2)
        print(f"wrote {figures.grid(rows_of, args.sheet, columns=12)}: each row of samples above their neighbours")
    if args.out:
        facts = {"weights": args.weights, "sampler": args.sampler or config.sampler, "calls": way.calls, **told}
        facts |= {"samples": args.samples, "floor": real.fid, "floor_is": real.inception_score, "rows": rows}
        facts |= {"nearest": nearest.mean().item(), "nearest_of_real": usual.mean().item()}
        old = args.out.read_bytes() if args.out.exists() else b""
        checkpoint.write_atomically(args.out, lambda file: file.write(old + json.dumps(facts).encode() + b"\n"))
        print(f"appended to {args.out}")


def told_in(row: dict) -> list[str]:
    """The cells of a table's line."""
    labels = row.get("labels")
    return [f"{row['fid']:.4f}", f"{row['inception_score']:.2f}", f"{row['kid']:.4f}",
            f"{row['agreement']:.2%}" if "agreement" in row else "–", f"{row['precision']:.3f}", f"{row['recall']:.3f}",
            f"{min(labels):.1%}–{max(labels):.1%}" if labels else "–"]  # fmt: skip
