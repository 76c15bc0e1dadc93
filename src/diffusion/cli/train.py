"""Train a model from a preset or a YAML file, or by data set and kind; by steps, epochs or minutes."""

import sys
from argparse import Namespace
from pathlib import Path

from diffusion.data.registry import DATASETS
from diffusion.errors import UserError
from diffusion.experiment import recipe as recipes
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.recipe import MOST, SETTINGS, Recipe
from diffusion.laboratory import versions
from diffusion.laboratory.flags import SCORES, add_training_flags
from diffusion.laboratory.options import Parser, number, one_of, path

EXAMPLES = """examples:
  python src train --preset unet_fast --minutes 5                  the digits that five minutes can buy
  python src train --config configs/mnist_guided.yaml              as the file says
  python src train --config configs/text_digits.yaml --data.dataset=digits-simple --minutes 15      one digit by prompt
  python src train --config configs/mnist_guided.yaml --train.lr=1e-3 --network.hidden=[32,64] --steps 9000
  python src train --dataset FashionMNIST --model vae              ten epochs of an autoencoder, then of a flow on its
  python src train --dataset FashionMNIST --model flow             latents; --latent 20 and the like set the network
"""
BUDGETS = ("steps", "epochs", "minutes")
SHORT = {"alpha": "train.kl_weight", "milestones": "train.milestones", "gamma": "train.gamma", "codec": "data.codec"}
EPOCHS = 10  # of --model
OF_MODEL = {"--promote"}
NOT_OF_MODEL = {f"--{name}" for name in SCORES}  # its loss on held-out images is all that is measured


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "train")
    source = p.add_mutually_exclusive_group()
    source.add_argument("--preset", help=f"one of {', '.join(PRESETS)}")
    source.add_argument("--config", type=path, help="a YAML file, as in configs/")
    p.add_argument("--steps", type=number(int, 1, MOST), help="train so many steps; with --resume, more extend a run")
    p.add_argument(
        "--epochs", type=number(float, 1e-3, MOST), help="… or passes over the data (default of --model: 10)"
    )
    minutes = "… or minutes; what is used up first ends the training"
    p.add_argument("--minutes", type=number(float, 1e-3, MOST), help=minutes)
    stream = "take the data from ws://HOST:PORT, or from a folder of shards: see python src stream --help"
    p.add_argument("--stream", help=stream)
    add_training_flags(p, "runs", "Plots", "contents")
    group = versions.add_model_flags(p, *versions.MODELS, version=False)
    group.add_argument("--codec", help="of a flow: a weight file of an autoencoder (default: the data set's vae)")
    version = {"type": one_of("version", versions.VERSIONS), "default": "main"}
    group.add_argument("--autoencoder-version", help="… or dev or main of that", **version)
    group.add_argument("--alpha", type=number(float, 0), help="of a vae: weight of the KL divergence (default: 0.2)")
    group.add_argument("--milestones", type=number(int, 1), nargs="+", help="epochs after which lr is times gamma")
    group.add_argument("--gamma", type=number(float, 0, 1), help="(default: 0.2)")
    group.add_argument(
        "--num-workers", type=number(int, 0), default=0, help="understood, not needed: data is in memory"
    )
    how = "; ".join(f"{name}: {what}" for name, what in versions.PROMOTE.items())
    group.add_argument("--promote", type=one_of("choice", versions.PROMOTE), default="ask", help=how)
    p.set_defaults(dataset=None)  # the recipe's
    return p


def read(argv: list[str] | None = None) -> Namespace:
    """The options, and as `recipe` what they and the dotted overrides make."""
    given = {word.split("=")[0] for word in (sys.argv[1:] if argv is None else argv)}
    args, overrides = parser().parse_dotted(SETTINGS, argv, bare="network" if "--model" in given else "")
    if idle := given & (NOT_OF_MODEL if args.model else OF_MODEL):
        raise UserError(f"{min(idle)} goes {'without' if args.model else 'with'} --model")
    if "--autoencoder-version" in given and (args.model != "flow" or args.codec):
        raise UserError("--autoencoder-version goes with --model flow, whose codec it chooses, unless --codec does")
    args.dataset = versions.dataset_of(args) if args.dataset or args.model or args.split else None
    short = {setting: getattr(args, name) for name, setting in SHORT.items()}
    overrides = [f"--{setting}={value}" for setting, value in short.items() if value is not None] + overrides
    budgets = {key: getattr(args, key) for key in BUDGETS if getattr(args, key)}
    if args.model and not budgets:
        budgets = {"epochs": EPOCHS}
    if budgets:  # those on the command line take the place of the file's
        others = [key for key in BUDGETS if not any(word.startswith(f"--train.{key}=") for word in overrides)]
        overrides += [f"--train.{key}={value}" for key, value in (dict.fromkeys(others, "null") | budgets).items()]
    if args.config:
        args.recipe = recipes.read(args.config, overrides)
    elif args.model:
        args.recipe = model_recipe(args, overrides)
    else:
        name = "unet" if args.preset is None else args.preset
        args.recipe = recipes.recipe(name, {"preset": name}, overrides)
    if not any(getattr(args.recipe.plan, key) for key in BUDGETS):
        raise UserError("how long? Say --steps, --epochs or --minutes")
    return args


def model_recipe(args: Namespace, overrides: list[str]) -> Recipe:
    """What --model means for the data set: its shape and, of a flow, its classes and the codec of its latents."""
    if args.preset or args.config:
        raise UserError("--model is a preset of its own: leave --preset and --config out")
    about = DATASETS[args.dataset]
    content = {"preset": args.model, "data": {"dataset": args.dataset, "shape": about.shape}}
    if args.model == "flow":
        content["network"] = {"classes": len(about.classes)}
        if not args.codec:
            content["data"]["codec"] = str(default_codec(args))
    return recipes.recipe(f"{args.dataset}_{args.model}", content, overrides)


def default_codec(args: Namespace) -> Path:
    """The data set's vae or, if there is none, its autoencoder."""
    try:
        return versions.find_version(args.dataset, "vae", args.autoencoder_version, args.out)
    except UserError:
        plain = versions.path_of(args.out, f"{args.dataset}_autoencoder", args.autoencoder_version)
        if not plain.is_file():
            raise
        return plain
