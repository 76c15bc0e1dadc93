"""Run notebooks/load_and_play.ipynb and keep what it shows: docs/load_and_play.md and its pictures.

python docs/render.py       (a minute or two of a CPU core; from the repository's root)
"""

import base64
import io
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent
STEM = "load_and_play"
NOTE = f"*What [the notebook](../notebooks/{STEM}.ipynb) of this name shows, run from top to bottom.*"


def shown(cell: nbformat.NotebookNode, pictures: dict[str, bytes]) -> list[str]:
    """Markdown of a cell, and of what it put out; pictures are added under the name that its code gives them."""
    if cell.cell_type == "markdown":
        return [cell.source]
    parts = [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            parts.append("".join(f"    {line}" for line in io.StringIO(output.text.rstrip())))
        elif "image/png" in output.get("data", {}):
            (name,) = re.findall(r'/ "(\w+)\.png"', cell.source)
            pictures[f"{STEM}_{name}.png"] = base64.b64decode(output.data["image/png"])
            parts.append(f"![{name}]({STEM}_{name}.png)")
    return parts


def main() -> None:
    root = DOCS.parent
    notebook = nbformat.read(root / "notebooks" / f"{STEM}.ipynb", as_version=4)
    where = {"metadata": {"path": root}}
    NotebookClient(notebook, timeout=1800, resources=where, coalesce_streams=True).execute()  # what is printed, in one
    pictures: dict[str, bytes] = {}
    title, *cells = [part for cell in notebook.cells for part in shown(cell, pictures)]
    title, _, rest = title.partition("\n")
    lines = "\n\n".join([title, NOTE, rest.strip(), *cells]).splitlines()
    for old in DOCS.glob(f"{STEM}_*.png"):
        old.unlink()
    for name, content in pictures.items():
        (DOCS / name).write_bytes(content)
    page = DOCS / f"{STEM}.md"
    page.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    print(f"wrote {page} and {len(pictures)} pictures beside it")


if __name__ == "__main__":
    main()
