"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

from argparse import Namespace

from diffusion.errors import UserError
from diffusion.experiment.samplers import MOST_DIFFUSION, VARIANCES
from diffusion.laboratory import versions
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, output_file

EXAMPLES = """examples:
  python src generate --weights unet --label 7 --count 64 --guidance-scale 2 --steps 10 --out grid.png
  python src generate --weights unet --count 10000 --out x.npy --labels y.npy
  python src generate --weights 'cold_unet row' --from test --originals y.npy --labels z.npy --out x.npy
  python src generate --weights text_digits --prompt 'a large blue three left of a small green eight' --count 4
  python src generate --weights default@20 --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --steps 1000 --out x.npy
  python src generate --dataset FashionMNIST --model flow --label 9 --height 4 --width 10 --diffusion 1
"""
GRID = {"height": 8, "width": 8, "scale": 0.8, "guidance_scale": 3.0, "diffusion": 0.5}  # defaults of --model


def parser() -> Parser:
    p, array, start = Parser(__doc__, EXAMPLES, "generate"), output_file(".npy"), one_of("start", ["prior", "test"])
    labels = "write the labels here, X.npy: those drawn, or with --from test those of the test images"
    count = {"default": None, "help": "how many samples (default: 16, or height times width)"}
    add_flags(p, "weights", "preset", "count", "seed", count=count)
    condition = p.add_mutually_exclusive_group()
    condition.add_argument("--label", type=number(int, 0), help="draw only this one (default: 0, 1, 2, … in turn)")
    condition.add_argument("--prompt", help="of text weights: what to draw; a word that they do not know is refused")
    p.add_argument("--negative-prompt", help="… and what not: guidance leads away from it")
    add_flags(p, "guidance-scale", "guidance-interval", "sampler", "steps")
    noise = "of a flow on straight lines: noise drawn on the way, 0 to 2.8 (default: as sampled; of --model 0.5)"
    p.add_argument("--diffusion", type=number(float, 0, MOST_DIFFUSION), help=noise)
    p.add_argument(
        "--variance", type=one_of("variance", VARIANCES), help="beta or posterior, of ddpm's noise (default: as saved)"
    )
    p.add_argument("--no-clip", dest="clip", action="store_false", help="let estimates of x_0 leave the images' range")
    p.add_argument("--from", dest="start", type=start, default="prior", help="prior: new; test: restore test images")
    p.add_argument("--originals", type=array, help="with --from test: write those test images here, X.npy")
    p.add_argument("--labels", type=array, help=labels)
    what = "X.png, a grid, or X.npy, float32 (N, C, H, W)"
    out = {"type": output_file(".png", ".npy"), "default": "samples.png", "help": what}
    p.add_argument("--height", type=number(int, 1, 1000), help="rows of the grid (of --model: 8)")
    p.add_argument("--width", type=number(int, 1, 1000), help="images in a row (of --model: 8)")
    p.add_argument(
        "--scale", type=number(float, 0.1, 10), help="size of an image, in inches of 100 pixels (of --model: 0.8)"
    )
    p.add_argument("--show", action="store_true", help="open the picture, too")
    add_flags(p, "dataset", "batch-size", "data-root", "device", "out", out=out, dataset={"default": None})
    group = versions.add_model_flags(p, "flow")
    version = {"type": one_of("version", versions.VERSIONS), "help": "refuse a flow that was not trained on this codec"}
    group.add_argument("--autoencoder-version", **version)
    return p


def read(argv: list[str] | None = None) -> Namespace:
    """The options with what was not said: --model is the weights of a data set's flow, and a grid of its samples.

    UserError for those that do not go together.
    """
    args = parser().parse_args(argv)
    args.weights = versions.open_version(args, "flow")
    if args.dataset and not args.model:
        raise UserError("--dataset goes with --model: weights know theirs")
    idle = {"height", "width"} if args.count else set()
    idle |= set() if args.sampler in (None, "sde", "ddpm") else {"diffusion"}  # it goes by no other
    for name, usual in GRID.items() if args.model else ():
        if getattr(args, name) is None and name not in idle:
            setattr(args, name, usual)
    if args.height or args.width:
        args.height, args.width = args.height or args.width, args.width or args.height
        if args.count:
            raise UserError(f"--count {args.count}: height times width is how many there are; say one or the other")
        args.count = args.height * args.width
    args.count = args.count or 16
    if args.originals and args.start != "test":
        raise UserError("--originals goes with --from test: samples of the prior have none")
    paths = [path.resolve() for path in (args.out, args.originals, args.labels) if path]
    if len(set(paths)) < len(paths):
        raise UserError("--out, --originals and --labels: two of them are the same file")
    return args
