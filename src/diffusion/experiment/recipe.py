"""Recipes: a Config and a plan of its training, from a YAML file and dotted overrides; and written back as YAML."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, TypeAdapter

from diffusion.errors import UserError, unknown
from diffusion.experiment import config, strict_yaml
from diffusion.experiment.config import Config
from diffusion.experiment.presets import PRESETS, preset
from diffusion.files import expand

MOST = 10**9  # of every budget
Whole = Annotated[int, Field(gt=0, le=MOST)]
Amount = Annotated[float, Field(gt=0, le=MOST)]


@dataclass(frozen=True)
class Plan:
    """How long is trained, and when a sample sheet is drawn. The budget that is used up first ends the training."""

    steps: Whole | None = None
    epochs: Amount | None = None
    minutes: Amount | None = None  # of training alone
    sheet_steps: tuple[Whole, ...] = (1000, 9000)  # steps after which a sheet is drawn, of the same noise and labels
    sheet_every: Whole = 2000  # and whenever so many steps are done

    def next_mark(self, step: int) -> int:
        """The next step after which a sheet is drawn; the first is 0."""
        regular = (max(step, 0) // self.sheet_every + 1) * self.sheet_every
        return min([mark for mark in self.sheet_steps if mark > step] + [regular]) if step >= 0 else 0


@dataclass(frozen=True)
class SampleSheet:
    """What is drawn on a sheet of samples, while and after training."""

    count: Annotated[int, Field(gt=0, le=10_000)] = 100


SECTIONS = {  # of the file, and whose fields they hold
    "data": (config.DataSettings,),
    "process": (config.ProcessSettings,),
    "network": (config.NetworkSettings,),
    "train": (config.TrainingSettings, Plan),
    "sample": (config.SamplingSettings, SampleSheet),
}
SETTINGS = {  # as the user calls it, "train.lr" or "sample.steps" -> field
    f"{section}.{field.removeprefix('sampler_')}": field
    for section, groups in SECTIONS.items()
    for group in groups
    for field in group.__annotations__
}
NAMES = {field: setting for setting, field in SETTINGS.items()}
OLD = {"train.look_at": "train.sheet_steps", "train.look_every": "train.sheet_every"}  # they go with the next release


@dataclass(frozen=True)
class Everything(SampleSheet, Plan, Config):
    """All that a file may set. pydantic knows each field by what the user calls it."""

    __pydantic_config__ = ConfigDict(extra="forbid", alias_generator=lambda field: NAMES.get(field, field))


EVERYTHING = TypeAdapter(Everything)


@dataclass(frozen=True)
class Recipe:
    """What a YAML file says. `name` is the run's; `explicit` are the fields of its Config that the file sets itself."""

    name: str
    config: Config
    plan: Plan
    sheet: SampleSheet
    explicit: tuple[str, ...] = ()

    def text(self) -> str:
        """As YAML with every setting: the same recipe when read again."""
        values = asdict(self.config) | asdict(self.plan) | asdict(self.sheet)
        content: dict[str, Any] = {"preset": self.config.preset} | {section: {} for section in SECTIONS}
        for setting, field in SETTINGS.items():
            section, key = setting.split(".")
            content[section][key] = values[field]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file, changed by `section.key=value` overrides; it takes its name from the file."""
    path = expand(path)
    content = strict_yaml.read(path)
    if not re.fullmatch(r"[\w .+-]+", path.stem):
        raise UserError(f"a run is called as its file: letters, digits and '_-+.' only, not {path.stem!r}")
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} has no sections: {', '.join(SECTIONS)}")
    return recipe(path.stem, content, overrides)


def recipe(name: str, content: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a file's content: `preset` names the preset it starts from, the sections change it."""
    base = preset(PRESETS, str(content.get("preset", "unet")))
    settings = _settings(content) | dict(map(_override, overrides))
    settings = {OLD.get(setting, setting): value for setting, value in settings.items()}
    everything, fields = config.validated(EVERYTHING, settings, SETTINGS), [SETTINGS[each] for each in settings]
    of = lambda kind: {each: getattr(everything, each) for each in fields if each in kind.__dataclass_fields__}
    changes = of(Config)
    return Recipe(name, base.replace(**changes), Plan(**of(Plan)), SampleSheet(**of(SampleSheet)), tuple(changes))


def _settings(content: dict[Any, Any]) -> dict[str, Any]:
    """The values of a file's sections, by setting."""
    content = {section: keys for section, keys in content.items() if section != "preset"}
    for section, keys in content.items():
        if section not in SECTIONS:
            raise unknown("section", section, ["preset", *SECTIONS])
        if not isinstance(keys, dict):
            example = next(setting for setting in SETTINGS if setting.startswith(section))
            raise UserError(f"section {section!r} must hold settings such as {example}")
    return {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}


def _override(word: str) -> tuple[str, Any]:
    """Setting and value of `--section.key=value`."""
    try:
        setting, value = word.removeprefix("--").split("=", 1)
        return setting, yaml.load(value, strict_yaml.Loader)
    except Exception:
        example = "write --section.key=value, such as --train.lr=1e-3"
        raise UserError(f"{word!r} is not an override: {example}") from None
