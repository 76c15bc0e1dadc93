"""Weight files of digits through one loop, ours and other people's: what they draw and restore, scored alike.

python benchmarks/weight_files.py weights                       the shipped files
python benchmarks/weight_files.py FOLDER --of original          say, the files of the coursework that was rebuilt here

A cold model restores test digits from their averages: by each of its samplers the one that trained longest, by its own
and the coursework's those of earlier epochs. The others draw new digits, as their files say. Each line is kept in
--out: the same command goes on where a stopped one was.
"""

import argparse
import json
from pathlib import Path

import torch

from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.errors import Failure, UserError
from diffusion.experiment.samplers import SAMPLERS, SamplingOptions
from diffusion.experiment.sampling import build_sampler, sampler_name
from diffusion.experiment.weights import load_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.device import open_device
from diffusion.laboratory.options import number, output_file, path, run_command
from diffusion.laboratory.progress import progress_bar
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement, likeness
from diffusion.metrics.scores import Reference, floor, score

COLUMNS = {"fid": ".2f", "inception_score": ".2f", "agreement": ".1%", "ssim": ".3f", "mean": ".3f"}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("paths", nargs="+", type=path, help="weight files, and folders of them")
    p.add_argument("--of", default="ours", help="whose files they are, a word in each record (default: ours)")
    p.add_argument("--samples", type=number(int, 16, 10_000), default=512, help="digits a score is measured on")
    p.add_argument("--seed", type=number(int, 0), default=0, help="of all noise")
    p.add_argument("--data-root", type=path, default=Path("data"))
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    p.add_argument("--out", type=output_file(".jsonl"), default="runs/benchmark_weight_files.jsonl")
    return p


def experiments(paths, device):
    """The models of digits in these files and folders, the longest trained first; what cannot be read is named."""
    found = []
    for file in [file for each in paths for file in ([each] if each.is_file() else sorted(each.glob("*.pth")))]:
        if not file.stem.startswith("classifier_"):
            try:
                found.append(load_weights(file).to(device))
            except (UserError, Failure) as error:
                print(f"left out: {error}")
    usable = [e for e in found if e.config.dataset == "MNIST" and not e.config.is_codec]
    if not usable:
        raise UserError(f"there is no weight file of MNIST digits in {', '.join(map(str, paths))}")
    return sorted(usable, key=lambda e: (e.config.process != "averaging", -e.about.get("epoch", 0)))


def runs(experiments):
    """Each experiment with the samplers that are to be measured."""
    families = set()
    for e in experiments:
        family, own = (e.config.preset, e.config.axis), sampler_name(e, SamplingOptions())
        first = family not in families
        families.add(family)
        names = [own] if e.config.process != "averaging" else SAMPLERS["averaging"] if first else [own, "coursework"]
        yield from ((e, SamplingOptions(name)) for name in names)


def measured(experiment, options, args, data, test, reference):
    """The scores of restored test digits, or of new ones, whose labels follow the training set's proportions."""
    n, device = args.samples, test.images.device
    cold, classes = experiment.config.process == "averaging", experiment.config.classes
    given = {"labels": data.stratified(n, args.seed).labels} if classes else {}
    given |= {"originals": test.images[:n]} if cold else {}
    with progress_bar(n * (build_sampler(experiment, options).steps + 1), experiment.path.stem) as bar:
        index = torch.arange(n, device=device)
        images = generate(experiment, index, options, seed=args.seed, tick=bar.update, **given)
    scores = score(images, reference)
    found = {"fid": scores.fid, "inception_score": scores.inception_score}
    if cold:
        return found | likeness(reference.extractor, images, test.images[:n], test.labels[:n])._asdict()
    return found | ({"agreement": agreement(reference.extractor, images, given["labels"])} if classes else {})


def main(argv=None):
    args = parser().parse_args(argv)
    device = open_device(args.device)
    found = experiments(args.paths, device)
    data, test = (load("MNIST", split, args.data_root, device) for split in ("train", "test"))
    test = test.shuffled()
    reference = Reference.of(extractor_for("MNIST", shipped_weights(), device), data.images, args.data_root / "cache")
    real = floor(test.images[: args.samples], reference)
    same = {"of": args.of, "n": args.samples, "seed": args.seed, "sha256": real.sha256, "floor": real.fid}
    print(f"{len(found)} files, N = {args.samples}, {real.extractor} {real.sha256[:16]}; real digits {real.fid:.2f}\n")
    print(f"{'file':<38}{'sampler':<12}{'NFE':>5}{'FID':>9}{'IS':>7}{'label':>8}{'SSIM':>7}{'grey':>7}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for e, options in runs(found):
        key = {"of": args.of, "n": args.samples, "seed": args.seed, "file": e.path.stem, "sampler": options.sampler}
        record = next((each for each in known if key.items() <= each.items()), None)
        if record is None:
            about = {name: getattr(e.config, name) for name in ("process", "preset", "axis", "timesteps")}
            about |= {"epoch": e.about.get("epoch"), "calls": build_sampler(e, options).nfe}
            record = same | key | about
            record |= measured(e, options, args, data, test, reference)
            with open(args.out, "a") as file:
                file.write(json.dumps(record) + "\n")
        cells = (format(record[name], form) if name in record else "–" for name, form in COLUMNS.items())
        row = "{:>9}{:>7}{:>8}{:>7}{:>7}".format(*cells)
        print(f"{record['file']:<38}{record['sampler']:<12}{record['calls']:>5}{row}", flush=True)
    print(f"\nkept in {args.out}")


if __name__ == "__main__":
    run_command(main)
