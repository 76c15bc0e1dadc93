"""Scores of a weight file, or an examination of a text model."""

import statistics
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion import figures, files
from diffusion.api.generation import generate, guidance_scale
from diffusion.api.model import load as load_model
from diffusion.cli.evaluate import PROMPTS, SEEDS
from diffusion.data.datasets import Dataset, load
from diffusion.data.scenes import RULES
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import sampler_name
from diffusion.experiment.weights import save_weights
from diffusion.laboratory.checks import check_sampling
from diffusion.laboratory.device import open_device
from diffusion.laboratory.exam import describe, record, summary, table
from diffusion.laboratory.flags import RunOptions, options_of
from diffusion.laboratory.judge import open_reference
from diffusion.laboratory.progress import progress_bar
from diffusion.laboratory.run import EXAMPLES
from diffusion.laboratory.show import row, spread
from diffusion.laboratory.subjects import EXAMS, DigitsExam
from diffusion.metrics.classifiers import check_features
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, score

SHEET = 48  # samples on the --sheet, a dozen in a row
OF_SCORES, OF_EXAMS = ("seeds", "sheet", "features", "inception_weights"), ("ship",)  # options
LINE = "{fid:.4f} {inception_score:.2f} {kid:.4f} {agreed} {precision:.3f} {recall:.3f} {shares}"


def main(args: Namespace) -> None:
    # --- Setup ---
    device = open_device(args.device)
    experiment = load_model(args.weights, device, preset=args.preset).experiment
    options = options_of(SamplingOptions, args)
    check_options(args, experiment)
    if experiment.config.reads:
        return examine(args, experiment, options)
    args.count, seeds = args.count or 10_000, args.seeds or SEEDS
    if args.sheet and args.count < SHEET:
        raise UserError(f"--sheet shows {SHEET} samples: --count must be at least that, not {args.count}")
    sampler, conditional = check_sampling(experiment, options), experiment.config.classes > 0
    scale = guidance_scale(experiment, options)
    check_features(args.features, experiment.config.dataset)
    data, test = (load(experiment.config.dataset, split, args.data_root, device) for split in ("train", "test"))
    test = test.stratified(min(args.count, len(test))) if conditional else test.shuffled()
    reference = open_reference(RunOptions.of(args), data)
    extractor = reference.extractor
    print(
        f"{experiment.origin}: {sampler.nfe} network calls a sample, guidance scale {scale:g};\n"
        f"{args.count:,} samples a seed against {reference.n:,} training images;\n"
        f"{extractor.name}, sha256 {extractor.sha256[:16]}\n"
    )
    print(row("", "FID", "IS", "KID", "agreement", "precision", "recall", "labels"))
    if args.count > len(test):
        print(f"(there are only {len(test):,} test images: the floor is theirs)")
    floor = measure("real test images", test.images[: args.count], test.labels[: args.count], reference, data.name)

    # --- Sample, Measure ---
    rows, index = [], torch.arange(args.count, device=device)
    for seed in range(args.seed, args.seed + seeds):
        labels = data.stratified(args.count, seed).labels if conditional else None
        with progress_bar(args.count * (sampler.steps + 1), f"seed {seed}") as bar:
            given = {"seed": seed, "labels": labels, "batch_size": args.batch_size}
            images = generate(experiment, index, options, **given, tick=bar.update)
        rows.append({"seed": seed} | measure(f"seed {seed}", images, labels, reference, data.name))

    # --- Report ---
    facts = {"weights": args.weights, "sampler": sampler_name(experiment, options), "calls": sampler.nfe}
    facts |= {"guidance_scale": scale, "interval": options.interval, "samples": args.count}
    facts |= {"floor": floor["fid"], "floor_is": floor["inception_score"], "rows": rows}
    report(args, facts, images, data, test)


def check_options(args: Namespace, experiment: Experiment) -> None:
    """UserError for an option of which these weights make nothing."""
    idle, what = (OF_SCORES, "a text model") if experiment.config.reads else (OF_EXAMS, "no text model")
    for name in idle:
        if getattr(args, name) not in (None, "auto"):
            raise UserError(f"--{name.replace('_', '-')} does nothing here: {args.weights} is {what}")


def examine(args: Namespace, experiment: Experiment, options: SamplingOptions) -> None:
    """The obedience of a text model: what its pictures show of what was asked for, before real pictures and chance."""
    if (dataset := experiment.config.dataset) not in EXAMS:
        raise UserError(f"there are no checkers for pictures of {dataset}, only for {', '.join(EXAMS)}")
    sampler, count = check_sampling(experiment, options), PROMPTS if args.count is None else args.count
    scale = guidance_scale(experiment, options)
    if args.ship:
        for parameter in experiment.denoiser.parameters():
            parameter.data.copy_(parameter.half())
    print(f"{experiment.origin}: {sampler.nfe} steps, guidance scale {scale:g}; {count} prompts of each kind\n")

    def sample(prompts: Sequence[str]) -> Tensor:
        index = torch.arange(len(prompts), device=experiment.device)
        with progress_bar(len(prompts) * (sampler.steps + 1), "prompts") as bar:
            given = {"seed": args.seed, "labels": prompts, "batch_size": args.batch_size}
            return generate(experiment, index, options, **given, tick=bar.update)

    exam = EXAMS[dataset](args.data_root, experiment.device, count, args.seed)
    papers = [exam.questions(split) for split in ("seen", "unseen")]
    marks = [each for paper in papers for each in exam.mark(paper, sample([each.caption for each in paper]))]
    print(table(marks, exam.attributes))
    facts = {"weights": args.weights, "seed": args.seed, "calls": sampler.nfe, "guidance_scale": scale}
    facts |= {"prompts": count, "obedience": record(marks)} | (compare(exam, sample) if dataset in RULES else {})
    if args.out:
        print(f"appended to {files.append_line(args.out, facts)}")
    if args.ship:
        known = ("prompts", "guidance_scale", "calls", "seed", "twins")
        experiment.about["scores"] = {key: facts[key] for key in known if key in facts} | summary(marks)
        some = papers[0][:: max(1, len(papers[0]) // EXAMPLES)][:EXAMPLES]  # of every kind
        experiment.about.setdefault("examples", [each.caption for each in some])  # how one may ask, for the page
        print(f"wrote {save_weights(args.ship, experiment, half=True)}")


def compare(exam: DigitsExam, sample: Callable[[Sequence[str]], Tensor]) -> dict[str, Any]:
    """Twin prompts and the diversity within a prompt, of a model and of real pictures."""
    (model, real), (varied, varied_real) = exam.twins(sample), exam.diversity(sample)
    print(f"\ntwins, both right: {describe(model)}; of real pictures {real.value:.1%}")
    print(f"pictures of one prompt differ by {varied:.4f}, real ones by {varied_real:.4f}: {varied / varied_real:.2f}")
    facts = {"twins": [*model], "twins_real": [*real], "reader": exam.reader.sha256}
    return facts | {"diversity": varied, "diversity_real": varied_real}


def measure(name: str, images: Tensor, labels: Tensor | None, reference: Reference, dataset: str) -> dict[str, Any]:
    """All scores, printed as a line of the table; those of labels if the classifier knows the labels of `dataset`."""
    extractor, agreed, shares = reference.extractor, "–", "–"
    scores = score(images, reference)._asdict() | coverage(images, reference)._asdict()
    if extractor.dataset == dataset:
        logits = extractor(images)[1]
        counts = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
        scores["labels"] = [round(each, 4) for each in (counts / len(images)).tolist()]
        shares = f"{min(scores['labels']):.1%}–{max(scores['labels']):.1%}"
        if labels is not None:
            scores["agreement"] = agreement(extractor, images, labels)
            agreed = f"{scores['agreement']:.2%}"
    print(row(name, *LINE.format(**scores, agreed=agreed, shares=shares).split()), flush=True)
    return scores


def report(args: Namespace, facts: dict[str, Any], images: Tensor, data: Dataset, test: Dataset) -> None:
    """The mean over the seeds, the nearest training images of the last of them, and what is written."""
    fids = [each["fid"] for each in facts["rows"]]
    times = statistics.mean(fids) / facts["floor"]
    print(f"\nFID {spread(fids, '.4f')} over {len(fids)} seed{'s' * (len(fids) > 1)}, {times:.2f} times the floor")
    nearest, index = neighbours(images[:1000], data.images)
    nearest_real, _ = neighbours(test.images[: min(1000, args.count)], data.images)
    of_ours, of_real = (f"{each.mean():.4f} on average, at least {each.min():.4f}" for each in (nearest, nearest_real))
    print(f"RMSE to the nearest training image: {of_ours}; of real test images {of_real}")
    if args.out:
        facts |= {"nearest": nearest.mean().item(), "nearest_of_real": nearest_real.mean().item()}
        print(f"appended to {files.append_line(args.out, facts)}")
    if args.sheet:
        pairs = zip(images[:SHEET].cpu().split(12), (data.images[index[:SHEET]].cpu() / 255).split(12))
        figures.grid(torch.cat([part for pair in pairs for part in pair]), args.sheet, columns=12)
        print(f"wrote {args.sheet}: each row of samples above their neighbours")
