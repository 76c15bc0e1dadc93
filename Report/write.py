"""Report/generated/ and the tables of docs/results.md, from the runs' records and the shipped weights.

python Report/write.py             the report's tables, numbers, curves and samples of fixed seeds; then the page
python Report/write.py --tables    without the samples
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import facts
import figures
import matplotlib.pyplot as plt
from records import ROOT
from tables import GROUPS, Table, table
from tabulate import LATEX_ESCAPE_RULES, tabulate

PAGE = ROOT / "docs" / "results.md"
MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)  # a table's name, the table, the end
MARKUP = {r"`(.*?)`": r"\\texttt{\1}", r"\*(.+?)\*": r"\\emph{\1}", r" \\%": r"\\,\\%"}


def as_latex(text: str, rules: dict[str, str] = LATEX_ESCAPE_RULES) -> str:
    """Text with its special characters by these rules, and with LaTeX for Markdown's `code` and *emphasis*."""
    text = "".join(rules.get(character, character) for character in text)
    for markdown, latex in MARKUP.items():
        text = re.sub(markdown, latex, text)
    return text


def grid(table: Table, form: str) -> str:
    """The table without its note, in one of tabulate's formats."""
    aligned = ["left"] * table.left + ["right"] * (len(table.header) - table.left)
    return tabulate(table.rows, table.header, form, disable_numparse=True, colalign=aligned)


def latex(table: Table) -> str:
    rows = as_latex(grid(table, "latex_booktabs"), rules={})  # which tabulate has applied
    across = rf"\\addlinespace\\multicolumn{{{len(table.header)}}}{{l}}{{\1}} \\\\"
    rows = re.sub(r"^ (\\emph\{.*\})[ &]*\\\\$", across, rows, flags=re.MULTILINE)  # a row of one cell
    rows = re.sub(r"\\begin\{tabular\}\{(\w+)\}", r"\\begin{tabular}{@{}\1@{}}", rows)
    return rows + rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {as_latex(table.note)}}}"


def filled(page: str) -> str:
    """The page of Markdown with every marked table written anew."""
    text = lambda made: f"{grid(made, 'pipe')}\n\n{made.note}"
    return MARKED.sub(lambda mark: f"{mark[1]}\n{text(table(mark[2]))}\n\n{mark[3]}", page)


def write(out: Path, pictures: dict[str, Callable[[], plt.Figure]]) -> None:
    """Tables, numbers and these pictures, into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    known = {name.replace("%", "percent"): as_latex(text) for name, text in facts.facts().items()}  # % begins a comment
    macros = [rf"\expandafter\def\csname {name}\endcsname{{{text}}}" for name, text in known.items()]
    (out / "numbers.tex").write_text("\n".join(macros))
    for name in GROUPS:
        (out / f"{name}.tex").write_text(latex(table(name)))
    with plt.style.context(ROOT / "Report" / "report.mplstyle"):
        for name, make in pictures.items():
            print(f"drawing {name}", flush=True)
            figure = make()
            figure.savefig(out / f"{name}.pdf", metadata={"CreationDate": None})  # the same inputs, the same bytes
            plt.close(figure)


def draw(page: Path) -> None:
    """The curves that the page of Markdown shows, beside it."""
    with plt.style.context(ROOT / "Report" / "report.mplstyle"):
        for name in figures.CURVES.keys() & set(re.findall(r"\]\((\w+)\.png\)", page.read_text())):
            figure = figures.CURVES[name]()
            figure.savefig(page.with_name(f"{name}.png"), dpi=200)
            plt.close(figure)


if __name__ == "__main__":
    write(ROOT / "Report" / "generated", figures.CURVES if "--tables" in sys.argv else figures.CURVES | figures.SAMPLES)
    PAGE.write_text(filled(PAGE.read_text()))
    draw(PAGE)
