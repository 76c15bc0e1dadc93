"""Recipes: what is written is what is read, and every mistake is answered with its key, its value and what is right."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from diffusion.errors import UserError
from diffusion.experiment.config import Config
from diffusion.experiment.presets import COLD, DDPM, PRESETS
from diffusion.experiment.recipe import SETTINGS, Plan, Recipe, SampleSheet, read, recipe


def written(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def refusal(call, *args):
    """The one sentence with which it is refused."""
    with pytest.raises(UserError) as refused:
        call(*args)
    said = str(refused.value)
    assert "\n" not in said
    return said


def same(a: Recipe, b: Recipe) -> bool:
    """Whether two recipes train and draw the same; one may have been told more of it than the other."""
    return (a.config, a.plan, a.sheet) == (b.config, b.plan, b.sheet)


# --- There and back ---


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_read_as_it_was_written(tmp_path, name):
    ours = recipe(name, {"preset": name})
    assert ours.config == PRESETS[name] and ours.plan == Plan() and ours.sheet == SampleSheet()
    again = read(written(tmp_path, ours.text()))
    assert same(again, ours) and again.name == "mine"
    assert again.text() == ours.text()


def test_every_preset_of_the_coursework_can_be_trained():
    trained = PRESETS.values()
    assert all(config in trained for config in (*DDPM.values(), *COLD.values()))


UNUSUAL = Config(
    "unet",
    dataset="CIFAR10",
    shape=(3, 32, 32),
    pixel_range=(-1e-5, 2.5),
    codec="latent_vae",
    held_out=11,
    process="averaging",
    schedule="cosine",
    timesteps=8,
    beta_min=1e-7,
    beta_max=1 / 3,
    target="v",
    variance="beta",
    axis="col",
    order="inside-out",
    noise=1e-3,
    loss="l1",
    draw_time="logit-normal",
    sampler="alg1",
    sampler_steps=3,
    guidance_scale=-2.5,
    network="unet",
    samples=11,
    hidden=(24, 40),
    activation="relu",
    classes=7,
    text_encoder="minilm",
    pooled=False,
    words=("", "a"),
    caption_length=5,
    drop_prob=0.25,
    encoder=(5, 6, 7),
    latent=9,
    contrast=1.5,
    milestones=(2, 5),
    gamma=0.5,
    teacher="unet",
    teacher_steps=16,
    distillation="matching",
    start="unet_few",
    teacher_scale=1.25,
    critic_pace=3.0,
    kl_weight=0.125,
    lr=1e-30,
    beta1=0.75,
    beta2=0.95,
    warmup=17,
    decay=0.125,
    batch_size=3,
    ema_decay=0.5,
    precision="bf16",
    seed=2**40,
)


def test_a_recipe_unusual_in_every_setting_is_read_as_it_was_written(tmp_path):
    plan, sheet = Plan(12, 0.1, 1e-3, (1, 2, 30), 7), SampleSheet(9)
    for made in (UNUSUAL, plan, sheet):  # or a setting could be lost unnoticed
        plain = type(made)()
        assert all(getattr(made, f.name) != getattr(plain, f.name) for f in fields(made))
    ours = Recipe("mine", UNUSUAL, plan, sheet)
    assert same(read(written(tmp_path, ours.text())), ours)


def test_every_setting_of_a_config_a_plan_and_its_sheet_has_its_place_in_one_section():
    everything = [f.name for part in (Config, Plan, SampleSheet) for f in fields(part) if f.name != "preset"]
    assert sorted(SETTINGS.values()) == sorted(everything)
    same = lambda field: "steps" if field == "sampler_steps" else field
    assert all(setting.split(".")[1] == same(field) for setting, field in SETTINGS.items())


def test_a_file_changes_what_it_names_and_the_preset_says_the_rest(tmp_path):
    text = "preset: unet_fast\ntrain: {lr: 1e-3, steps: 30, sheet_steps: [5, 6]}\nnetwork:\n  hidden: [8, 16]\n"
    ours = read(written(tmp_path, text, "tiny.yaml"))
    assert ours.config == PRESETS["unet_fast"].replace(lr=1e-3, hidden=(8, 16))
    assert ours.plan == Plan(steps=30, sheet_steps=(5, 6)) and ours.sheet == SampleSheet()
    assert ours.name == "tiny" and set(ours.explicit) == {"lr", "hidden"}


def test_without_a_preset_it_is_the_unet(tmp_path):
    assert read(written(tmp_path, "train: {steps: 1}")).config == PRESETS["unet"]


def test_the_shipped_recipes_can_be_read():
    shipped = set((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    shipped = sorted(path for path in shipped if path.stem != "serve")  # the server's settings, in a form of their own
    for path in shipped:
        plan = read(path).plan
        assert plan.steps or plan.epochs or plan.minutes
    assert shipped


# --- Overrides ---


@pytest.mark.parametrize(
    "word, setting, value",
    [
        ("--train.lr=1e-3", "lr", 0.001),  # a string to YAML 1.1, which wants 1.0e-3
        ("train.lr=5E-4", "lr", 0.0005),
        ("--train.lr=.5", "lr", 0.5),
        ("--network.hidden=[32,64]", "hidden", (32, 64)),
        ("--network.hidden=[32, 64]", "hidden", (32, 64)),
        ("--data.pixel_range=[-1, 1]", "pixel_range", (-1.0, 1.0)),
        ("--data.dataset=FashionMNIST", "dataset", "FashionMNIST"),
        ("--process.target=x_0", "target", "x_0"),
        ("--sample.sampler=heun", "sampler", "heun"),
        ("--sample.sampler=null", "sampler", None),
        ("--train.seed=12345678901", "seed", 12345678901),
    ],
)
def test_an_override_sets_one_setting_and_no_other(word, setting, value):
    plain, ours = recipe("unet", {}), recipe("unet", {}, [word])
    assert getattr(ours.config, setting) == value
    assert ours.config == replace(plain.config, **{setting: value})
    assert (ours.plan, ours.sheet) == (plain.plan, plain.sheet) and ours.explicit == (setting,)


def test_overrides_reach_the_plan_and_the_sheet():
    words = [
        "--train.minutes=1e-2",
        "--train.sheet_steps=[3]",
        "--train.sheet_every=50",
        "--sample.guidance_scale=-1.5",
        "--sample.count=25",
    ]
    ours = recipe("unet", {}, words)
    assert ours.plan == Plan(minutes=0.01, sheet_steps=(3,), sheet_every=50)
    assert ours.sheet == SampleSheet(count=25) and ours.explicit == ("guidance_scale",)
    assert ours.config.guidance_scale == -1.5


def test_the_former_spellings_go_on_working(tmp_path):
    ours = read(written(tmp_path, "train: {look_at: [5, 6], steps: 9}"), ["--train.look_every=50"])
    assert ours.plan == Plan(steps=9, sheet_steps=(5, 6), sheet_every=50) and "look" not in ours.text()


def test_an_override_beats_the_file_and_the_last_one_the_others(tmp_path):
    path = written(tmp_path, "preset: unet\ntrain: {lr: 0.1, steps: 5}")
    ours = read(path, ["--train.lr=0.2", "--train.lr=0.3", "--train.steps=null", "--train.epochs=2"])
    assert ours.config.lr == 0.3 and ours.plan == Plan(epochs=2)


# --- Mistakes ---


@pytest.mark.parametrize(
    "content, says",
    [
        ({"preset": "unet_fats"}, "unknown preset 'unet_fats' — did you mean 'unet_fast'?"),
        ({"trian": {"lr": 1}}, "unknown section 'trian' — did you mean 'train'?"),
        ({"lr": 1}, "unknown section 'lr'"),
        ({1: {"lr": 1}}, "unknown section '1'"),
        ({"train": {"learning_rate": 1}}, "unknown setting 'train.learning_rate'"),
        ({"train": {"stpes": 1}}, "unknown setting 'train.stpes' — did you mean 'train.steps'?"),
        ({"train": {"hidden": [8, 16]}}, "unknown setting 'train.hidden'"),  # it is network.hidden
        ({"train": {"lr.x": 1}}, "unknown setting 'train.lr.x'"),
        ({"network": {"preset": "unet"}}, "unknown setting 'network.preset'"),
        ({"train": None}, "section 'train' must hold settings such as train.lr"),
        ({"sample": [1, 2]}, "section 'sample' must hold settings such as sample.sampler"),
        ({"process": "averaging"}, "section 'process' must hold settings such as process.process"),
        ({"train": {"lr": "fast"}}, "setting 'train.lr' cannot be 'fast': input should be a valid number"),
        ({"train": {"lr": None}}, "setting 'train.lr' cannot be None: input should be a valid number"),
        ({"train": {"lr": "it's"}}, "setting 'train.lr' cannot be \"it's\": input should be a valid number"),
        ({"train": {"batch_size": 1.5}}, "setting 'train.batch_size' cannot be 1.5: input should be a valid integer"),
        ({"network": {"network": "vit"}}, "setting 'network.network' cannot be 'vit': input should be 'cnn', 'unet'"),
        (
            {"process": {"target": "noise"}},
            "setting 'process.target' cannot be 'noise': input should be 'eps', 'x_0', ",
        ),
        ({"network": {"hidden": 64}}, "setting 'network.hidden' cannot be 64: input should be a valid tuple"),
        ({"sample": {"sampler": "dpmm"}}, "setting 'sample.sampler' cannot be 'dpmm': input should be 'ddpm', "),
        ({"sample": {"count": "many"}}, "setting 'sample.count' cannot be 'many': input should be a valid integer"),
        ({"sample": {"guidance_scale": "high"}}, "setting 'sample.guidance_scale' cannot be 'high': input should be"),
        ({"train": {"steps": 0.5}}, "setting 'train.steps' cannot be 0.5: input should be a valid integer"),
        ({"train": {"sheet_steps": 5}}, "setting 'train.sheet_steps' cannot be 5: input should be a valid tuple"),
        (
            {"train": {"sheet_steps": [1, "two"]}},
            "setting 'train.sheet_steps' cannot be 'two': input should be a valid integer",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_key_its_value_and_what_is_allowed(content, says):
    assert refusal(recipe, "mine", content).startswith(says)


@pytest.mark.parametrize("key", ["steps", "epochs", "minutes", "sheet_every"])
@pytest.mark.parametrize("value", [0, -1, "nan", "inf"])
def test_budgets_are_above_0_and_finite(key, value):
    said = refusal(recipe, "mine", {"train": {key: float(value) if key in ("epochs", "minutes") else value}})
    assert said.startswith(f"setting 'train.{key}' cannot be ")
    if not isinstance(value, str):
        assert "input should be greater than 0" in said


@pytest.mark.parametrize("content", [{"train": {"sheet_steps": [5, 0]}}, {"sample": {"count": 0}}])
def test_there_is_nothing_to_draw_before_the_first_step_and_no_sheet_of_nothing(content):
    assert "input should be greater than 0" in refusal(recipe, "mine", content)


@pytest.mark.parametrize("scale", [0, -3, 0.5])
def test_a_guidance_scale_may_be_0_and_below(scale):
    assert recipe("mine", {"sample": {"guidance_scale": scale}}).config.guidance_scale == scale


@pytest.mark.parametrize("word", ["--train.lr", "train.lr", "--network.hidden=[8,", "--train.lr={", "--train.lr='"])
def test_an_override_that_is_none_is_answered_with_how_to_write_one(word):
    said = refusal(recipe, "mine", {}, [word])
    assert said.startswith(f"{word!r} is not an override") or said.startswith(f'"{word}" is not an override')
    assert "--train.lr=1e-3" in said


def test_a_misspelt_override_is_answered_with_the_nearest():
    assert "did you mean 'train.warmup'?" in refusal(recipe, "mine", {}, ["--train.wramup=3"])
    assert "unknown setting 'lr' — did you mean 'train.lr'?" in refusal(recipe, "mine", {}, ["lr=3"])
    assert "did you mean 'network.hidden'?" in refusal(recipe, "mine", {}, ["--train.hidden=[8,16]"])


@pytest.mark.parametrize("word", ["train.lr=yes", "train.steps=true", "network.hidden=[true,16]", "train.seed=off"])
def test_yes_and_no_are_no_numbers(word):
    said = refusal(recipe, "mine", {}, [word])
    assert said.startswith(f"setting {word.split('=')[0]!r} cannot be '") and "input should be a valid" in said


@pytest.mark.parametrize("text", ["train: {lr: 1.0}\ntrain: {steps: 5}", "train:\n  lr: 1.0\n  lr: 2.0"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    assert "stands twice" in refusal(read, written(tmp_path, text))


def test_numbers_are_what_they_look_like(tmp_path):
    mine = read(
        written(tmp_path, "train: {steps: 1e3, lr: 1E-3, warmup: 010, sheet_every: 1_000}"), ["--train.beta2=.5"]
    )
    assert (mine.plan.steps, mine.config.lr, mine.config.warmup) == (1000, 1e-3, 10)
    assert (mine.plan.sheet_every, mine.config.beta2) == (1000, 0.5)
    said = refusal(recipe, "mine", {}, ["train.minutes=1:30"])  # which YAML 1.1 takes for 90
    assert "setting 'train.minutes' cannot be '1:30'" in said


@pytest.mark.parametrize(
    "word",
    [
        "data.pixel_range=[0,1e39]",
        "data.pixel_range=[.nan,1]",
        "sample.guidance_scale=1e39",
        "process.beta_max=0",
        "sample.count=10000000000000",
        "sample.steps=100000000",
        "train.seed=100000000000000000000",
        "train.lr=1e300",
        "train.epochs=1e308",
        f"train.steps=1{400 * '0'}",
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(word):
    assert f"setting {word.split('=')[0]!r} cannot be" in refusal(recipe, "mine", {}, [word])


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none.yaml"
    assert refusal(read, path) == f"{str(path)!r} cannot be read: No such file or directory"
    assert refusal(read, tmp_path) == f"{str(tmp_path)!r} cannot be read: Is a directory"
    assert "a run is called as its file" in refusal(
        read, written(tmp_path, "preset: unet").rename(tmp_path / "a{b}.yaml")
    )


@pytest.mark.parametrize(
    "text, where",
    [
        ("train:\n  lr: [1, 2\nnetwork: {}\n", ": line 3, column 8"),
        ("train:\n  lr: 1\n lr: 2\n", ": line 3, column 2"),
        ("a: b: c", ": line 1, column 5"),
        ("train:\n\tlr: 1", ": line 2, column 1"),
        ("run: !!python/object/apply:os.system ['false']", ": line 1, column 6"),
        ("born: 2024-99-99", ""),
        ("\x01", ""),
    ],
)
def test_what_is_not_yaml_is_answered_with_where(tmp_path, text, where):
    path = written(tmp_path, text)
    assert refusal(read, path) == f"{str(path)!r} is not YAML{where}"


def test_bytes_that_are_no_text_are_no_yaml(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert refusal(read, path) == f"{str(path)!r} is not YAML"


@pytest.mark.parametrize("text", ["", "# only a remark\n", "- a\n- b\n", "unet", "3", "---\n"])
def test_a_file_without_sections_is_told_which_there_are(tmp_path, text):
    path = written(tmp_path, text)
    said = refusal(read, path)
    assert said == f"{str(path)!r} has no sections: data, process, network, train, sample"


# --- When a sheet is drawn ---


def test_marks_are_the_steps_asked_for_and_every_so_many():
    plan = Plan(sheet_steps=(1000, 9000), sheet_every=2000)
    marks, step = [], -1
    while step < 10_000:
        step = plan.next_mark(step)
        marks.append(step)
    assert marks == [0, 1000, 2000, 4000, 6000, 8000, 9000, 10_000]


@pytest.mark.parametrize(
    "plan", [Plan(), Plan(sheet_steps=(), sheet_every=3), Plan(sheet_steps=(7, 3, 3), sheet_every=4)]
)
def test_the_next_mark_of_any_step_is_the_least_of_all_that_lie_ahead(plan):
    marks = {0, *plan.sheet_steps, *range(0, 30_000, plan.sheet_every)}
    for step in (-1, 0, 1, 2, 3, 4, 6, 7, 8, 999, 1000, 1001, 8999, 9000):
        assert plan.next_mark(step) == min(mark for mark in marks if mark > step)
