"""How small can it be? Size to draw, from 5 k to 300 k parameters, against FID, labels and speed.

python benchmarks/latent_size.py                     every size: an autoencoder and a flow each, in the same minutes
python benchmarks/latent_size.py --sizes 5k 15k      some of them; what is recorded is skipped, what was stopped goes on
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from diffusion import files
from diffusion.api.generation import generate
from diffusion.data.datasets import load
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.weights import load_weights
from diffusion.files import shipped_weights
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, output_file, run_command
from diffusion.laboratory.show import row
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

ROOT = Path(__file__).parents[1]
SIZES = {  # latents, widths of the decoder, widths of the flow
    "5k": (10, (2, 12, 6), (20, 24)),
    "8k": (12, (3, 16, 8), (28, 32)),
    "15k": (16, (4, 24, 12), (36, 56)),
    "30k": (20, (6, 32, 16), (64, 96)),
    "60k": (24, (8, 40, 20), (96, 128)),
    "150k": (36, (12, 48, 24), (128, 160, 160)),
    "300k": (40, (16, 64, 32), (192, 224, 224)),
}
SCALES = (1.0, 1.5)


def main(argv: list[str] | None = None) -> None:
    p = Parser(__doc__)
    p.add_argument("--sizes", nargs="+", type=one_of("size", SIZES), default=list(SIZES), help=", ".join(SIZES))
    p.add_argument("--minutes", type=number(float, 0.1), default=4, help="of training, of each of the two")
    p.add_argument("--count", type=number(int, 100), default=10_000, help="samples to score")
    p.add_argument(
        "--record", type=output_file(".jsonl"), default=ROOT / "Report/results/latent_size.jsonl", help="X.jsonl"
    )
    add_flags(p, "data-root", "device", "out")
    args = p.parse_args(argv)
    known = args.record.read_text().splitlines() if args.record.exists() else []
    done = {json.loads(line)["size"] for line in known}
    data, test = (load("MNIST", split, args.data_root) for split in ("train", "test"))
    reference = Reference.of(extractor_for("MNIST", shipped_weights()), data.images, args.data_root / "cache")
    real = floor(test.stratified(min(args.count, len(test))).images, reference)
    print(row("size to draw", "FID", "scale", "label seen", "digits/s", "rec. FID", "floor"))
    for name in args.sizes:
        if name in done:
            continue
        flow, codec = train(name, args)
        for record in measured(name, flow, codec, data, test, reference, args):
            known.append(json.dumps(record | {"floor": real.fid, "minutes": args.minutes}))
            cells = (
                f"{record['fid']:.3f}",
                f"{record['scale']:g}",
                f"{record['agreement']:.1%}",
                f"{record['rate']:,.0f}",
            )
            print(row(f"{record['to_draw']:,}", *cells, f"{record['codec_fid']:.3f}", f"{real.fid:.3f}"), flush=True)
        text = "".join(f"{line}\n" for line in known).encode()
        files.write_atomically(args.record, lambda file, text=text: file.write(text))
    print(f"recorded in {args.record}")


def train(name: str, args) -> tuple[Path, Path]:
    """The weight files of a flow and of its codec, trained by the ordinary command, in a folder of their own."""
    latent, decoder, flow = SIZES[name]
    out = args.out / f"latent_size_{name}"
    run = lambda preset: out / "runs" / preset / f"{preset}.pth"
    codec = run("latent_vae")
    for preset, words in (
        ("latent_vae", [f"--network.latent={latent}", f"--network.hidden={list(decoder)}", "--train.batch_size=128"]),
        ("latent", [f"--data.codec={codec}", f"--network.hidden={list(flow)}", "--train.batch_size=512"]),
    ):
        ordinary = [sys.executable, str(ROOT / "src"), "train", "--preset", preset, "--minutes", str(args.minutes)]
        ordinary += ["--out", str(out), "--data-root", str(args.data_root), "--device", args.device, "--resume"]
        ordinary += [
            "--eval-samples",
            "1000",
            "--eval-seeds",
            "1",
            "--train.sheet_steps=[]",
            "--train.sheet_every=1000000",
        ]
        subprocess.run(ordinary + [word.replace(" ", "") for word in words], check=True, stdout=subprocess.DEVNULL)
    return run("latent"), codec


def measured(name: str, flow: Path, codec: Path, data, test, reference, args) -> list[dict]:
    """A record for each guidance scale."""
    model, records = load_weights(flow), []
    size = lambda module: sum(each.numel() for each in module.parameters())
    decoder, encoder = model.codec.autoencoder.decoder, model.codec.autoencoder.encoder
    again = score(model.codec.decode(model.codec.encode(test.images)), reference).fid
    labels = data.stratified(args.count, 0).labels
    for scale in SCALES:
        began = time.perf_counter()
        images = generate(model, torch.arange(args.count), SamplingOptions("dpm", 10, scale), labels=labels)
        rate = args.count / (time.perf_counter() - began)
        records.append({"size": name, "to_draw": size(model.network) + size(decoder), "to_encode": size(encoder)})
        records[-1] |= {"scale": scale, "fid": score(images, reference).fid, "codec_fid": again, "rate": rate}
        records[-1] |= {"agreement": agreement(reference.extractor, images, labels), "n": args.count, "calls": 10}
        records[-1] |= {"threads": torch.get_num_threads()}
    return records


if __name__ == "__main__":
    run_command(main)
