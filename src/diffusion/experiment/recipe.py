"""Recipes: a Config and a plan of its training, from a YAML file and dotted overrides; and written back as YAML."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config, checked
from diffusion.experiment.presets import PRESETS, preset

CLOSED = ConfigDict(extra="forbid")
MOST = 10**9  # of every budget
Scale = Annotated[float, Field(ge=-100, le=100)]


@dataclass(frozen=True)
class Plan:
    """How long is trained, and when its samples are looked at. The budget that is used up first ends the training."""

    __pydantic_config__ = CLOSED

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None  # of training, without the looking
    look_at: tuple[int, ...] = (1000, 9000)  # steps after which samples are drawn, always of the same noise and labels
    look_every: int = 2000  # and whenever so many steps are done

    def mark_after(self, step: int) -> int:
        """The next step to look at."""
        regular = (max(step, 0) // self.look_every + 1) * self.look_every
        return min([at for at in self.look_at if at > step] + [regular]) if step >= 0 else 0


@dataclass(frozen=True)
class SampleSheet:
    """How samples are drawn while and after training."""

    __pydantic_config__ = CLOSED

    count: Annotated[int, Field(le=10_000)] = 100  # samples on a sheet
    guidance_scale: Scale = 1.0  # 0 ignores the label, 1 follows it, more exaggerates it


@dataclass(frozen=True)
class Recipe:
    """What a YAML file says. `name` is the run's, `told` the settings of its Config that were given."""

    name: str
    config: Config
    plan: Plan
    looks: SampleSheet
    told: tuple[str, ...] = ()

    def text(self) -> str:
        """As YAML, every setting told: the same recipe when read again."""
        values = {**asdict(self.config), **asdict(self.plan)}
        sections = {part: {key: values[key] for key in keys} for part, keys in SECTIONS.items()}
        config = {key: getattr(self.config, name) for key, name in SAMPLING.items()}
        sections["sample"] = {**config, **asdict(self.looks)}
        plain = lambda value: list(value) if isinstance(value, tuple) else value
        sections = {part: {key: plain(value) for key, value in keys.items()} for part, keys in sections.items()}
        return yaml.safe_dump({"preset": self.config.preset, **sections}, sort_keys=False)


# The sections of the file and their settings, in the order in which they are written.
SECTIONS = {
    "data": ("dataset", "shape", "pixel_range"),
    "process": ("process", "schedule", "timesteps", "beta_min", "beta_max", "target", "variance", "draw_time",
                "axis", "order", "noise"),
    "network": ("network", "hidden", "activation", "classes", "drop_prob"),
    "train": ("lr", "beta2", "warmup", "decay", "batch_size", "ema_decay", "loss", "precision", "seed",
              *(field.name for field in fields(Plan))),
}  # fmt: skip
SAMPLING = {"sampler": "sampler", "steps": "sampler_steps"}  # settings of the section "sample" -> those of the Config
NAMED = {  # of a Config's setting -> as the file calls it
    **{key: f"{part}.{key}" for part, keys in SECTIONS.items() for key in keys},
    **{name: f"sample.{key}" for key, name in SAMPLING.items()},
}
SAMPLE = (*SAMPLING, *(field.name for field in fields(SampleSheet)))
SETTABLE = set(Config.__dataclass_fields__)
SETTINGS = [f"{part}.{key}" for part, keys in {**SECTIONS, "sample": SAMPLE}.items() for key in keys]


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class Strict(yaml.SafeLoader):
    """YAML in which a key stands once, and numbers are what they look like: 010 is ten, 1e3 a number, 1:30 a word."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag not in (INT, FLOAT)]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{key!r} stands twice, the second time after line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


INTEGER = r"[-+]?\d+(_\d+)*"
NUMBER = rf"({INTEGER}(\.\d*)?|[-+]?\.\d+)(e[-+]?\d+)?|[-+]?\.inf|\.nan"
Strict.add_implicit_resolver(INT, re.compile(f"({INTEGER})$"), "-+0123456789")
Strict.add_implicit_resolver(FLOAT, re.compile(f"({NUMBER})$", re.IGNORECASE), "-+0123456789.")
Strict.add_constructor(INT, lambda loader, node: int(node.value))


def read(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file, changed by `section.key=value` overrides; it takes its name from the file."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{str(path)!r} is not YAML") from None
    if not re.fullmatch(r"[\w .+-]+", Path(path).stem):
        raise UserError(f"a run is called as its file: letters, digits and '_-+.' only, not {Path(path).stem!r}")
    try:
        content = yaml.load(text, Strict)
    except UserError:
        raise
    except Exception as error:  # PyYAML's constructors raise whatever they stumble over
        mark = getattr(error, "problem_mark", None)
        where = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{str(path)!r} is not YAML{where}") from None
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} has no sections: {', '.join([*SECTIONS, 'sample'])}")
    return recipe(Path(path).stem, content, overrides)


def recipe(name: str, content: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a file's content: `preset` names the line it starts from, the sections change it."""
    base = preset(PRESETS, str(content.get("preset", "unet")))
    given: dict[str, Any] = {}
    for part, keys in content.items():
        if part == "preset":
            continue
        if part not in (*SECTIONS, "sample"):
            raise unknown("section", part, ["preset", *SECTIONS, "sample"])
        if not isinstance(keys, dict):
            raise UserError(f"section {part!r} must hold settings such as {next(s for s in SETTINGS if part in s)}")
        given |= {f"{part}.{key}": value for key, value in keys.items()}
    for word in overrides:
        try:
            key, value = word.removeprefix("--").split("=", 1)
            given[key] = yaml.load(value, Strict)
        except Exception:
            example = "write --section.key=value, such as --train.lr=1e-3"
            raise UserError(f"{word!r} is not an override: {example}") from None
    for key, value in given.items():
        if key not in SETTINGS:
            raise _unknown(key)
        if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(each, bool) for each in value)):
            raise UserError(f"setting {key!r} cannot be {value}: none is yes or no")
    values, told = {"config": asdict(base), "plan": {}, "looks": {}}, []
    for key, value in given.items():
        part, key = key.split(".")
        if part == "sample":
            kind, key = ("config", SAMPLING[key]) if key in SAMPLING else ("looks", key)
        else:
            kind = "config" if key in SETTABLE else "plan"
        values[kind][key] = value
        told += [key] if kind == "config" else []
    plan, looks = _made(Plan, values["plan"], "train"), _made(SampleSheet, values["looks"], "sample")
    return Recipe(name, _config(values["config"]), plan, looks, tuple(told))


def _unknown(key: str) -> UserError:
    """The error for a setting that there is not; the hint is the nearest, or one of its name in another section."""
    last = str(key).split(".")[-1].lower()
    namesakes = [setting for setting in SETTINGS if setting.split(".")[1] == last]
    return unknown("setting", key, SETTINGS, namesakes[0] if namesakes else None)


def _config(values: dict[str, Any]) -> Config:
    try:
        return checked(values)
    except UserError as error:  # it knows a setting by its own name; here it has a section
        words = str(error).split("'")
        raise UserError("'".join([words[0], NAMED.get(words[1], words[1]), *words[2:]])) from None


def _made(kind: type, values: dict[str, Any], section: str) -> Any:
    try:
        made = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{section}.{'.'.join(map(str, first['loc']))}"
        raise UserError(f"setting {key!r} cannot be {first['input']!r}: {first['msg'].lower()}") from None
    for key, value in asdict(made).items():
        numbers = value if isinstance(value, tuple) else [value]
        fine = (number is None or 0 < number <= MOST for number in numbers)
        if key != "guidance_scale" and not all(fine):
            raise UserError(f"setting {f'{section}.{key}'!r} cannot be {value!r}: it must be above 0, and finite")
    return made
