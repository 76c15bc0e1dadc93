"""`cold-dif-model MODE …`, `python -m diffusion` or `python src`: finds the file of a mode and imports only that."""

from diffusion.laboratory.stopping import importing

with importing():
    import ast
    import importlib
    import sys
    from pathlib import Path

    from diffusion.errors import unknown
    from diffusion.laboratory.options import program, run_command

HERE = Path(__file__).parent / "commands"


def modes() -> dict[str, str]:
    """Name of each mode and the first line of its file's docstring, without importing any."""
    trees = {path.stem.replace("_", "-"): ast.parse(path.read_bytes()) for path in sorted(HERE.glob("*.py"))}
    is_mode = lambda tree: any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    return {name: (ast.get_docstring(tree) or name).splitlines()[0] for name, tree in trees.items() if is_mode(tree)}


def main(argv: list[str] | None = None) -> int | None:
    argv = sys.argv[1:] if argv is None else argv
    available = modes()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {program()} MODE [options]      ({program()} MODE --help explains a mode)\n")
        print("\n".join(f"  {name:22s}{line}" for name, line in available.items()))
        return 0 if argv else 2
    if argv[0] not in available:
        raise unknown("mode", argv[0], available)
    with importing():
        mode = importlib.import_module(f"diffusion.commands.{argv[0].replace('-', '_')}")
    return mode.main(argv[1:])


def command() -> None:
    run_command(main)


if __name__ == "__main__":
    command()
