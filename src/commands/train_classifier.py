"""Train the small classifier that the metrics look through."""

from pathlib import Path

import torch
from tqdm import tqdm

from commands.options import Parser, number, one_of
from commands.processes import computes_bf16, open_device
from diffusion import checkpoint, classifier
from diffusion.classifier import Classifier
from diffusion.data import DATASETS, batches, load, steps_per_epoch

MIRRORED = ("FashionMNIST", "CIFAR10")  # things look the same from both sides; letters and digits do not
BATCH_SIZE = 256


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python src train-classifier", description=__doc__)
    parser.add_argument("--dataset", type=one_of("dataset", DATASETS), default="MNIST", help="what it learns")
    parser.add_argument("--epochs", type=number(int, 1), default=24, help="passes over the training split")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of weights, order and augmentation")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where data sets are kept")
    parser.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto",
                        help="auto is the GPU if there is one")  # fmt: skip
    parser.add_argument("--out", type=Path, help="the file to write (default: weights/classifier_{dataset}.pth)")
    args = parser.parse_args(argv)
    out = args.out or Path(f"weights/classifier_{args.dataset}.pth")
    device = open_device(args.device)
    data, test = (load(args.dataset, split, args.data_root, device) for split in ("train", "test"))

    torch.manual_seed(args.seed)
    network = Classifier(data.images.shape[1:], len(data.classes)).to(device)
    steps = args.epochs * steps_per_epoch(data, BATCH_SIZE)
    seen = batches(data, BATCH_SIZE, args.seed)
    bar = tqdm(total=steps, unit="step")
    for step in classifier.train(network, seen, steps, flip=args.dataset in MIRRORED, bf16=computes_bf16(device)):
        bar.update()
        if bar.n % 50 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}")
    bar.close()

    step.ema.load_state_dict(classifier.half(step.ema))  # what is measured is what the file will hold
    right = classifier.accuracy(step.ema, test.images, test.labels)
    facts = {"dataset": args.dataset, "accuracy": right, "n_test": len(test), "seed": args.seed, "epochs": args.epochs}
    classifier.save(out, step.ema, **facts)
    print(f"test accuracy {right:.2%} of {len(test):,} images after {args.epochs} epochs")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB, sha256 {checkpoint.sha256(out)})")
