"""What came of a sweep: a record of each trial, their table, the pictures."""

import json
import statistics
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from diffusion import figures
from diffusion.files import write_atomically
from diffusion.laboratory.trials import GRACE, Sweep

SCORES = {"fid": ".2f", "inception_score": ".2f", "loss": ".4f", "minutes": ".1f"}  # columns, and how they are written


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """A record of each trial, best first."""
    found = []
    for cell, trial in sweep.latest().items():
        attrs, state = trial.user_attrs, trial.state.name.lower()
        if trial.state == TrialState.FAIL:
            state = "failed" if "error" in attrs else "interrupted"
        settings = {key: attrs[key] for key in ("preset", "seed") if key in attrs} | trial.params
        record = {"trial": cell, "number": trial.number, "state": state, "settings": settings}
        record |= {key: attrs[key] for key in ("host", "error") if key in attrs} | attrs.get("scores", {})
        record |= {"fids": trial.intermediate_values, "ended": str(trial.datetime_complete or "")}
        found.append(record)
    return sorted(found, key=lambda each: (each["state"] != "complete", each.get("fid", 0), each["number"]))


def table(found: list[dict[str, Any]], grid: bool) -> str:
    """A line a trial with its settings and scores, and for a grid a line a preset with its mean over seeds."""
    names = [] if grid else list(max((each["settings"] for each in found), key=len, default={}))
    width = max([12, *(len(each["trial"]) for each in found)])
    row = lambda name, *cells: f"{name:<{width}}" + "".join(f"{cell:>13}" for cell in cells)
    show = lambda value, form: f"{value:{form}}" if isinstance(value, float) else "–" if value is None else str(value)
    lines = [row("trial", *names, "FID", "IS", "loss", "minutes", "state")]
    fids: dict[str, list[float]] = {}
    for each in found:
        cells = [show(each["settings"].get(name), ".3g") for name in names]
        cells += [show(each.get(key), form) for key, form in SCORES.items()]
        why = f": {each['error']}" if "error" in each else ""
        lines.append(row(each["trial"], *cells, each["state"]) + why)
        if grid and each["state"] == "complete":
            fids.setdefault(each["settings"]["preset"], []).append(each["fid"])
    for preset, values in sorted(fids.items(), key=lambda item: statistics.mean(item[1])):
        spread = f" ± {statistics.stdev(values):.2f} over {len(values)} seeds" if len(values) > 1 else " of one seed"
        lines.append(f"{preset}: FID {statistics.mean(values):.2f}{spread}")
    return "\n".join(lines)


def completed(sweep: Sweep) -> optuna.Study:
    """The complete trials alone, in the order in which they ended, with preset and seed among their settings."""
    done = [each for each in sweep.latest().values() if each.state == TrialState.COMPLETE]
    attrs = [key for key in ("preset", "seed") if key in done[0].user_attrs]
    choices = {key: CategoricalDistribution({each.user_attrs[key]: None for each in done}) for key in attrs}
    study = optuna.create_study(study_name=sweep.args.name)
    for each in sorted(done, key=lambda trial: trial.datetime_complete):
        params = each.params | {key: each.user_attrs[key] for key in attrs}
        study.add_trial(create_trial(value=each.value, params=params, distributions=each.distributions | choices))
    return study


def report(sweep: Sweep) -> None:
    """Print the table; write the records and the pictures."""
    args, found = sweep.args, records(sweep)
    print(f"\n{table(found, bool(args.presets))}")
    text = "".join(json.dumps(each) + "\n" for each in found)
    written = [write_atomically(sweep.folder / "trials.jsonl", lambda file: file.write(text.encode()))]
    done = [each for each in found if each["state"] == "complete"]
    if done:
        best = done[0]
        print(f"FID of N = {best['n']:,} images against {best['n_reference']:,} training images; ", end="")
        print(f"real test images: {best['floor']:.2f}\nfeatures: {best['extractor']}, sha256 {best['sha256'][:16]}")
        written += figures.trials(completed(sweep), args.out / f"Plots/sweep_{args.name}")
    left = sum(each["state"] in ("waiting", "running", "interrupted") for each in found)
    print(f"{len(done)} complete, {left} to do or under way; wrote {', '.join(map(str, written))}")
    if any(each["state"] == "running" for each in found):
        print(f"If a worker was killed, the same command takes up its trial {GRACE} s after its last sign of life.")
