"""Serve models over HTTP: OpenAI's images API, EIR's, and a page where diffusion is understood."""

from argparse import Namespace

from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, path
from diffusion.serving.settings import Settings, read_settings

EXAMPLES = """examples:
  python src serve                                              all shipped models, for this machine alone
  python src serve --weights unet runs/unet_fast/unet_fast.pth  these two; the first is the default
  python src serve --host 0.0.0.0 --token a-long-secret         for others, who have to send the token
  python src serve --config configs/serve.yaml --max-queue 20000
"""
USUAL = Settings()
CHOICES = {
    "auto": "(default) on a CPU, compile a network in the background once its calls have taken as long as that would",
    "bf16": "also compile networks that compute in bfloat16; their images then change slightly",
    "no": "never compile",
}
LIMITS = {
    "max-count": (int, "images a request"),
    "max-steps": (int, "of a sampler"),
    "max-rows": (int, "images a network call, each twice with guidance"),
    "max-queue": (int, "image-calls (images × network calls) that are accepted to be done; beyond: 429"),
    "deadline": (float, "seconds that a request may take; beyond: 504"),
    "max-body": (int, "bytes of a request; beyond: 413"),
    "body-seconds": (float, "seconds in which they must have arrived; beyond: 408"),
    "drain-seconds": (float, "seconds to finish what was accepted, once the server is told to stop"),
}


def parser() -> Parser:
    p = Parser(__doc__, EXAMPLES, "serve")
    p.add_argument("--config", type=path, help="a YAML file of these settings, as configs/serve.yaml")
    weights = "weight files, or names of such (default: all that are shipped)"
    p.add_argument("--weights", nargs="+", metavar="NAME", help=weights)
    p.add_argument("--host", help=f"0.0.0.0 lets other machines in (default: {USUAL.host})")
    p.add_argument("--port", type=number(int, 0, 65_535), help=f"0 is any that is free (default: {USUAL.port})")
    p.add_argument("--token", help="what clients have to send: Authorization: Bearer TOKEN (default: nothing)")
    p.add_argument("--allow-hosts", nargs="+", metavar="NAME", help="names that the server goes by, beside localhost")
    p.add_argument("--allow-origins", nargs="+", metavar="URL", help="other servers whose pages may call this one")
    p.add_argument("--compile", type=one_of("choice", CHOICES), help="; ".join(map(": ".join, CHOICES.items())))
    replicas = "of the whole server, behind Ray Serve (pip install -r requirements-cluster.txt)"
    p.add_argument("--replicas", type=number(int, 1, 1000), default=1, help=replicas)
    group = p.add_argument_group("limits")
    for name, (kind, text) in LIMITS.items():
        usual, least = getattr(USUAL, name.replace("-", "_")), 1 if kind is int else 1e-3
        group.add_argument(f"--{name}", type=number(kind, least), help=f"{text} (default: {usual:,.0f})")
    add_flags(
        p, "device", device={"default": None, "help": "auto, cpu or cuda (default: auto, the GPU if there is one)"}
    )
    return p


def read(argv: list[str] | None = None) -> Namespace:
    """`replicas`, and the `settings` of the file and the options; UserError for those that leave a door open."""
    given = {name: value for name, value in vars(parser().parse_args(argv)).items() if value is not None}
    return Namespace(replicas=given.pop("replicas"), settings=read_settings(given.pop("config", None), given))
