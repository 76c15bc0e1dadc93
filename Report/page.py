"""The tables of docs/results.md, from the same records as the report's: PYTHONPATH=src python Report/page.py

Each stands between two marks, <!-- its name --> and <!-- end -->; what is around them is written by hand.
"""

import re
from functools import partial

from tables import ROOT, TABLES, cold

PAGE = ROOT / "docs" / "results.md"
MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WORDS = {  # what there is of LaTeX in our tables, in this order
    r"\\multicolumn\{\d+\}\{@\{\}l\}\{(.*)\}": r"\1",
    r"\\emph\{(.*?)\}": r"*\1*",
    r"\\texttt\{(.*?)\}": r"`\1`",
    r"\\text\{(.*?)\}": r"\1",
    r"\\,\\%": " %",
    r"\\,": ",",
    r"\\_": "_",
    r"\s*\\pm\s*": " ± ",
    r"\\times": "×",
    r"\\varepsilon": "ε",
    r"--": "–",
    r"\$(.*?)\$": r"\1",
    r"[~\s]+": " ",
}


def words(tex: str) -> str:
    """A cell or a note without its LaTeX."""
    for pattern, instead in WORDS.items():
        tex = re.sub(pattern, instead, tex)
    return tex.strip()


def markdown(tex: str) -> str:
    """The tables of `tables.table`, with their notes under them."""
    parts = []
    for one in tex.split(r"\begin{tabular}")[1:]:
        body, _, under = one.partition(r"\end{tabular}")
        above, *below = body.split(r"\midrule")
        header = re.sub(r"\\\\", "", above.strip().splitlines()[-1]).split(" & ")
        lines = [header]
        for row in re.findall(r"^(.*) \\\\$", "".join(below), re.MULTILINE):
            lines.append(row.split(" & ") if " & " in row else [row, *[""] * (len(header) - 1)])
        notes = [words(note) for note in re.findall(r"\\scriptsize (.*)\}$", under, re.MULTILINE)]
        head, *rows = [f"| {' | '.join(map(words, line))} |" for line in lines]
        parts += ["\n".join([head, "|" + "---|" * len(header), *rows]), *notes]
    return "\n\n".join(parts) + "\n"


def filled(page: str) -> str:
    """The page with every marked table written anew."""
    known = TABLES | {"cold_brief": partial(cold, "cold_long", brief=True)}
    return MARKED.sub(lambda mark: f"{mark[1]}\n{markdown(known[mark[2]]())}\n{mark[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
    print(f"wrote {PAGE}: {len(MARKED.findall(PAGE.read_text()))} tables")
