"""What compiling gains a server: a network's calls, eager and compiled, in turn.

  python benchmarks/compiling.py --models unet unet_few text_digits
  OMP_NUM_THREADS=1 python benchmarks/compiling.py         one thread, by the time that it ran

The networks, in the precision in which `python src serve` holds them, are compiled by another process, as --compile
bf16 has it, unless the cache that TORCHINDUCTOR_CACHE_DIR names has their libraries already (an empty folder there
compiles anew). A call is timed beside one of the other form; the gain is the median over these pairs. Then each form
draws as many images of the same noise and labels as the largest batch holds, with the model's own sampler.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import limits
import torch

from diffusion.api.generation import guided_denoiser, trajectory
from diffusion.serving.catalogue import load_catalogue
from diffusion.serving.compiling import compile_when_it_pays
from diffusion.serving.library import Compilation, Library, library_path

MODELS = ["unet", "unet_few", "text_digits", "latent", "cold_unet row", "default_28 row"]


def call(one, model, size):
    """Random arguments of a network call for so many images."""
    cond = None if one.null is None else one.null.repeat(size, *[1] * (one.null.dim() - 1))
    return torch.randn(size, *model.experiment.codec.shape), torch.rand(size), cond


def compiled(one, model):
    """The library and the seconds of a core that compiling took, None if it was there."""
    inputs = tuple(each for each in call(one, model, 1) if each is not None)
    path = library_path(one.denoiser.network, inputs, one.bf16)
    if path.exists():
        return Library(path), None
    before, compilation = spent(), Compilation(path, one.denoiser.network, inputs, one.bf16)
    while compilation.running:
        time.sleep(0.1)
    if compilation.failure:
        raise SystemExit(compilation.failure)
    return Library(path), spent() - before


def spent():
    """Seconds of a core, of other processes that this one started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def images(model, predict, size):
    """Images (size, C, H, W) in [0, 1], whose network calls `predict` answers."""
    experiment = model.experiment
    experiment.denoiser.predict = predict
    *_, last = trajectory(experiment, torch.arange(size), labels=labels(experiment), make_denoiser=guided_denoiser)
    return last


def labels(experiment):
    return next(iter(experiment.about.get("examples", ())), None)  # a text model's prompt; others take 0, 1, 2, …


def milliseconds(form, given):
    return 1000 * limits.seconds(lambda: form(*given), torch.device("cpu"))


@torch.no_grad()
def measure(served, one, args):
    """The records of one model, one for each size of a batch."""
    eager, model = one.denoiser.predict, served.model
    one.library, seconds = compiled(one, model)
    for size in args.sizes:
        given = call(one, model, size)
        pairs = [[milliseconds(form, given) for form in (eager, one)] for _ in range(args.rounds + 1)]
        slow, fast = zip(*pairs[1:])  # the first call of a shape pays for those after it
        yield {"batch_size": size, "eager_ms": statistics.median(slow), "compiled_ms": statistics.median(fast),
               "gain": statistics.median(a / b for a, b in zip(slow, fast)), "compiling_s": seconds}  # fmt: skip
    moved = 255 * (images(model, eager, max(args.sizes)) - images(model, one, max(args.sizes))).abs()
    yield {"mean": moved.mean().item(), "most": moved.max().item(), "beyond_1": (moved > 1).float().mean().item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="names of weights, or files")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 64], help="images a call")
    parser.add_argument("--rounds", type=int, default=15, help="medians over so many pairs (default: 15)")
    parser.add_argument("--machine", default="", help="what the records call it")
    parser.add_argument("--out", type=Path, help="a file of JSON lines to which the rows are added")
    args = parser.parse_args()
    catalogue = load_catalogue(args.models, torch.device("cpu"))
    found = compile_when_it_pays(catalogue, "bf16")
    if not found:
        raise SystemExit("there is no compiler of C++: install g++, or name one in CXX")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; ms a call, medians of {args.rounds} pairs; "
          f"of {max(args.sizes)} images: by how many 255ths pixels move\n")  # fmt: skip
    print(f"{'model':<18}{'precision':<11}{'compiling':>10}  " + "".join(f"{f'batch {n}':>24}" for n in args.sizes)
          + f"{'mean':>9}{'most':>8}{'> 1':>8}", flush=True)  # fmt: skip
    for served in catalogue:
        one = found[id(served.model.experiment)]
        *calls, moved = measure(served, one, args)
        precision = "bf16" if one.bf16 else "fp32"
        cells = (f"{r['eager_ms']:.3g} → {r['compiled_ms']:.3g} ({r['gain']:.2f})" for r in calls)
        price = "cached" if calls[0]["compiling_s"] is None else f"{calls[0]['compiling_s']:.0f} s"
        print(f"{served.name:<18}{precision:<11}{price:>10}  "
              + "".join(f"{cell:>24}" for cell in cells)
              + f"{moved['mean']:>9.3f}{moved['most']:>8.2f}{moved['beyond_1']:>8.2%}", flush=True)  # fmt: skip
        if args.out:
            about = {"model": served.name, "precision": precision, "rounds": args.rounds, "machine": args.machine}
            about |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
            with open(args.out, "a") as file:
                file.writelines(json.dumps(about | each | moved) + "\n" for each in calls)


if __name__ == "__main__":
    main()
