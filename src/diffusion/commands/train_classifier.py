"""Training of the classifier that metrics look through, to be stopped and resumed."""

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch

from diffusion import files
from diffusion.data.batches import batches, steps_per_epoch
from diffusion.data.datasets import load
from diffusion.errors import UserError
from diffusion.laboratory.device import open_device
from diffusion.laboratory.options import can_write
from diffusion.laboratory.progress import progress_bar
from diffusion.laboratory.stopping import Stopped, on_stop
from diffusion.networks import classifier
from diffusion.networks.classifier import Classifier
from diffusion.precision import computes_bf16
from diffusion.training.classifier import Training, accuracy

MIRRORED = ("FashionMNIST", "CIFAR10")  # of things, which may face either way; letters and digits may not
BATCH_SIZE = 256


def main(args: Namespace) -> None:
    # --- Setup ---
    out = args.out or Path(f"weights/classifier_{args.dataset}.pth")
    state = args.state or Path(f"runs/classifier_{args.dataset}/state.pt")
    for path in (out, state):
        if not can_write(path):
            raise UserError(f"{str(path)!r}: no file can be written there")
    device = open_device(args.device)
    data, test = (load(args.dataset, split, args.data_root, device) for split in ("train", "test"))
    torch.manual_seed(args.seed)
    network = Classifier(data.images.shape[1:], len(data.classes)).to(device)
    steps, flip = args.epochs * steps_per_epoch(data, BATCH_SIZE), args.dataset in MIRRORED
    training = Training(network, steps, args.seed, flip=flip, bf16=computes_bf16(device))
    settings = {"dataset": args.dataset, "epochs": args.epochs, "seed": args.seed}
    save = open_state(state, training, settings, args.resume)

    # --- Train ---
    signals: list[int] = []
    on_stop(signals.append)
    saved = time.monotonic()
    with progress_bar(steps, "training", initial=training.step) as bar:
        for loss in training.train(batches(data, BATCH_SIZE, args.seed, training.step)):
            bar.update(1)
            if training.step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
            if signals:
                break
            if time.monotonic() - saved >= args.save_every:
                save()
                saved = time.monotonic()
    save()
    if signals:
        raise Stopped(signals[0])

    # --- Report ---
    ema = training.ema
    ema.load_state_dict(classifier.half(ema))  # what is measured is what the file will hold
    right = accuracy(ema, test.images, test.labels)
    facts = {"dataset": args.dataset, "accuracy": right, "n_test": len(test), "seed": args.seed, "epochs": args.epochs}
    classifier.save(out, ema, facts)
    print(f"test accuracy {right:.2%} of {len(test):,} images after {args.epochs} epochs")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB, sha256 {files.sha256(out)})")


def open_state(path: Path, training: Training, settings: dict, resume: bool) -> Callable[[], object]:
    """What saves the state. It is taken up on `resume`: UserError if it is that of another training."""
    content = files.load(path) if resume and path.exists() else None
    if content is not None:
        begun = content.get("asked", {}) if isinstance(content, dict) else {}
        for key, value in settings.items():
            if begun.get(key) != value:
                was = f"the training in {str(path)!r} was begun with {key} {begun.get(key)}, not {value}"
                raise UserError(f"{was}: say the same, or start anew without --resume")
        try:
            training.load_state(content["training"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise UserError(f"{str(path)!r} is not of this version: start anew without --resume") from None
    elif path.exists():
        print(f"the state of an earlier training is kept in {files.put_aside(path)}")
    save = lambda: files.save(path, {"asked": settings, "training": training.state()})
    save()  # a bad disk shows at once
    return save
