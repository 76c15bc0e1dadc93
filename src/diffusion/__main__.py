"""`cold-dif-model MODE …`, `python -m diffusion`, `python src`: reads a mode's command line, then imports the mode."""

from diffusion.laboratory.stopping import importing

with importing():
    import ast
    import importlib
    import sys
    from pathlib import Path

    from diffusion.errors import unknown
    from diffusion.laboratory.options import program, run_command

HERE = Path(__file__).parent / "cli"


def modes() -> dict[str, str]:
    """Name of each mode and the first line of its file's docstring, without importing any."""
    paths = {path.stem.replace("_", "-"): path for path in sorted(HERE.glob("[!_]*.py"))}
    docstring = lambda path: ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return {name: docstring(path).partition("\n")[0] for name, path in paths.items()}


def main(argv: list[str] | None = None) -> int | None:
    argv = sys.argv[1:] if argv is None else argv
    available = modes()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {program()} MODE [options]      ({program()} MODE --help explains a mode)\n")
        print("\n".join(f"  {name:22s}{line}" for name, line in available.items()))
        return 0 if argv else 2
    if argv[0] not in available:
        raise unknown("mode", argv[0], available)
    name = argv[0].replace("-", "_")
    with importing():
        args = importlib.import_module(f"diffusion.cli.{name}").read(argv[1:])  # help and mistakes end here
        mode = importlib.import_module(f"diffusion.commands.{name}")  # torch, after them
    return mode.main(args)


def command() -> None:
    run_command(main)


if __name__ == "__main__":
    command()
