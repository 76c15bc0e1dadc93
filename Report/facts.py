"""The numbers in the prose: what \\val{NAME} in report.tex stands for, as plain text."""

import records
import torch
from records import read
from tables import GROUPS, LAYOUTS, cell, show

from diffusion.experiment.build import build
from diffusion.experiment.presets import DDPM, GUIDED, PRESETS
from diffusion.networks.classifier import FEATURES


def facts() -> dict[str, str]:
    """Name -> text."""
    return of_presets() | of_tables() | of_benchmarks()


def of_presets() -> dict[str, str]:
    """The numbers in a preset: "default timesteps"."""
    values = {f"{name} {field}": value for name, c in PRESETS.items() for field, value in vars(c).items()}
    return {name: f"{value:g}" for name, value in values.items() if isinstance(value, int | float)}


def of_tables() -> dict[str, str]:
    """The cells of tables by row and column, "guidance 5 recall" or, of cold diffusion, the key of the record "FID"."""
    found = {}
    for name, columns in ((name, layout["columns"]) for name, layout in LAYOUTS.items() if "columns" in layout):
        for group in GROUPS[name]():
            row = group[0].get("key") or f"{name} {cell(group, next(iter(columns.values()))).replace('`', '')}"
            cells = {f"{row} {key}": show(group[0][key], "d") for key in ("steps", "n") if key in group[0]}
            cells |= {f"{row} {heading}": cell(group, column) for heading, column in columns.items()}
            found |= {
                key: text for key, text in cells.items() if key not in found
            }  # of rows that begin alike, the first
    return found


def of_benchmarks() -> dict[str, str]:
    classifier, unet, history = records.classifier(), read("evaluate")[0], read("train_unet")
    marks = [r for r in history if r["loss"] and r["n"] == history[0]["n"]]  # later ones were scored on fewer images
    mixture = records.model("row cold_unet").process.state_dict()["averages.weights"]
    return {
        "sha256": f"`{classifier['sha256'][:16]}`",
        "accuracy": show(classifier["accuracy"], ".2%"),
        "test images": show(classifier["n_test"], "d"),
        "training images": show(unet["rows"][0]["n_reference"], "d"),
        "features": str(FEATURES),
        "floor": show(records.floor(2000)["fid"], ".3f"),
        "first floor": show(records.floor(2000, "first")["fid"], ".3f"),
        "arrived": str(min(r["calls"] for r in read("convergence") if r["sampler"] == "dpm" and r["rmse"] < 0.005)),
        "last alpha": f"{build(DDPM['default']).process.schedule(torch.ones(()))[0]:.4f}",
        "prior parts": str(int((mixture > 0).sum())),
        "unet parameters": show(records.preset(GUIDED["unet"])["parameters"], "d"),
        "unet minutes": show(history[-1]["seconds"] / 60, "d"),
        "nearest": show(unet["nearest"], ".3f"),
        "nearest of real": show(unet["nearest_of_real"], ".3f"),
        "history loss": show(1 - marks[-1]["loss"] / marks[0]["loss"], ".0%"),
        "history FID": show(1 - marks[-1]["fid"] / marks[0]["fid"], ".0%"),
    }
