"""The report: no number in it is typed, all that it shows is generated, and its sentences hold in the runs' JSON."""

import re
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[1] / "Report"
TEX = re.sub(r"(?<!\\)%.*", "", (REPORT / "report.tex").read_text())
BODY = TEX[TEX.index(r"\begin{document}") :]

# Where a digit is no measurement: names of things, and lengths of the layout.
NAMES = r"\\(?:cite[tp]?|citealp|ref|label|input|includegraphics|bibliography)(?:\[[^]]*\])*\{[^}]*\}"
LENGTHS = r"\\(?:setlength|renewcommand)\{[^}]*\}\{[^}]*\}|\d+(?:\.\d+)?\\(?:text|line)width"
COUNTED = r"(?:Algorithms?|[Pp]art)[~ ]\d\b|sha256|UNet2DModel"
MATHS = r"\$[^$]*\$|\\\[.*?\\\]|\\begin\{(equation|align)\}.*?\\end\{\1\}"


def typed_numbers(tex):
    """Numbers that somebody typed. In a formula a lone digit is mathematics (1 - t); in prose it is a result."""
    tex = re.sub(f"{NAMES}|{LENGTHS}|{COUNTED}", "", tex)
    formulas = " ".join(match.group() for match in re.finditer(MATHS, tex, re.DOTALL))
    return re.findall(r"\d", re.sub(MATHS, "", tex, flags=re.DOTALL)) + re.findall(r"\d[\d.,]+\d|\d\s*\\%", formulas)


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(REPORT)
    import figures

    return figures


def test_no_number_is_typed():
    assert typed_numbers(BODY) == []


@pytest.mark.parametrize(
    "tex", ["an FID of 4.46", "in 28 calls", "half, 50\\,\\%, of", "FID $1.71$", "$N=2000$", "3 seeds", "$4\\%$ of"]
)
def test_a_typed_number_is_found(tex):
    assert typed_numbers(tex)


def test_all_that_is_shown_is_generated(report, tmp_path, capsys):
    tables = re.findall(r"\\input\{generated/(\w+)\}", TEX)
    pictures = re.findall(r"\\includegraphics(?:\[[^]]*\])?\{(\w+\.pdf)\}", TEX)
    assert {f"{name}.tex" for name in tables} | set(pictures) == set(report.outputs())
    report.main(["--tables", "--out", str(tmp_path)])
    sampled = {f"{name}.pdf" for name in report.SAMPLES}
    assert {path.name for path in tmp_path.iterdir()} == set(report.outputs()) - sampled
    for path in tmp_path.glob("*.tex"):
        text = path.read_text()
        assert text.count("{") == text.count("}") and not re.search(r"\b(nan|None|inf)\b", text), path.name
        rows = [line for line in text.splitlines() if " & " in line and "multicolumn" not in line]
        assert path.stem == "numbers" or len(rows) >= 2, f"{path.name} has a header and no rows"


def test_the_tables_of_the_results_page_are_generated(report):
    import page

    text = page.PAGE.read_text()
    marked = {name for _, name, _ in page.MARKED.findall(text)}
    assert marked >= {"guided", "guidance", "samplers", "five_minutes", "weights", "hot_cold", "cold_brief"}
    assert page.filled(text) == text, "PYTHONPATH=src python Report/page.py writes it anew"
    assert "\\" not in text and "$" not in text, "LaTeX is left over"


def test_a_table_of_latex_becomes_markdown(report):
    import page

    rows = [r"U-Net 48--96, $t<T$ only", [r"\texttt{a\_b}", r"$1.50\pm0.25$", r"99.1\,\%"], ["", "--", r"2\,000"]]
    header, under = ["name", r"$\times$ floor", "$N$"], r"mean $\pm$ sd, Alg.~1"
    tex = report.tables.table("lrr", header, rows, under, above="x & y \\\\\n")
    head, rule, heading, one, two, empty, note = page.markdown(tex).splitlines()
    assert (head, rule) == ("| name | × floor | N |", "|---|---|---|")
    assert heading == "| *U-Net 48–96, t<T only* |  |  |"
    assert one == "| `a_b` | 1.50 ± 0.25 | 99.1 % |" and two == "|  | – | 2,000 |"
    assert note == "mean ± sd, Alg. 1"


def test_means_and_spreads(report):
    over, over_percent = report.tables.over, report.tables.over_percent
    assert over([0.5, 0.7, 0.6]) == r"$0.600\pm0.100$" and over([12.345]) == "12.35" and over([None]) == "--"
    assert over_percent([0.5, 0.7, 0.6]) == r"$60.0\pm10.0$\,\%" and over_percent([0.985]) == r"98.5\,\%"
    assert over_percent([]) == "--"


def test_every_table_of_scores_says_how_it_was_measured(report):
    for name, make in report.tables.TABLES.items():
        text = make()
        if name != "convergence" and not name.startswith("presets"):
            assert all(word in text for word in ("$N", "seed", "sha256", "floor", "training images")), name


def test_every_macro_is_defined(report):
    known = set(report.tables.numbers())
    used = set(re.findall(r"\\([A-Z][A-Za-z]+)\b", BODY)) - {"E", "Bigl", "Bigr"}
    assert used <= known, used - known
    assert not [name for name in used if report.tables.numbers()[name] == report.tables.DASH], "not in the JSON"


def test_every_citation_is_in_the_bibliography():
    cited = {key.strip() for keys in re.findall(r"\\cite\w*(?:\[[^]]*\])*\{([^}]*)\}", TEX) for key in keys.split(",")}
    assert cited == set(re.findall(r"@\w+\{(\w+),", (REPORT / "refs.bib").read_text()))


def test_what_it_says_holds_in_the_json(report):
    """The sentences that compare: when a new run breaks one, the report has to be written anew, not only rebuilt."""
    t, cold = report.tables, report.tables.cold_one
    original = lambda *way: cold("original: t < T only", *way)
    assert original("alg2")["restored"] > 1.5 * original("alg2", 1)["restored"]
    assert original("alg2")["restored"] > 1.2 * cold("t = T trained", "alg2")["restored"]
    assert original("direct")["mean"] < 0.95 * original("direct")["mean_original"]
    assert cold("noise 0.15 (of 2)", "alg1")["new"] < 0.8 * cold("t = T trained", "alg1")["new"]
    for of in (("default_28", "row"), ("default_28", "col"), ("default_7", "row")):
        theirs, ours = t.cold_long_one("original", "alg2", *of), t.cold_long_one("noise", "pinned", *of)
        assert ours["steps"] == theirs["steps"] and ours["restored"] < theirs["restored"] / 3, of
        assert ours["agreement"] > 1.15 * max(theirs["agreement"], t.cold_long_one("noise", "direct", *of)["agreement"])
        theirs, ours = (t.cold_long_one(*way, *of, begin=1) for way in (("original", "alg2"), ("noise", "pinned")))
        assert ours["restored"] < 0.6 * theirs["restored"], of
    many, once = (t.cold_long_one("noise", "pinned", *of, **calls) for calls in ({}, {"calls": 7}))
    assert many["restored"] < 0.7 * once["restored"] and many["calls"] == 28
    for recipe in ("t = T trained", "noise 0.15 (of 2)", "no noise", "noise 0.15"):
        naive, pinned = (cold(recipe, way) for way in ("alg1", "pinned"))
        assert pinned["new"] < 0.7 * naive["new"] and pinned["agreement"] > naive["agreement"], recipe
        assert abs(pinned["mean"] / pinned["mean_original"] - 1) < 0.05, recipe
    clean = {way: cold("no noise", way)["new"] for way in ("direct", "alg2", "alg1")}
    assert clean["alg1"] < clean["alg2"] < clean["direct"]
    noisy = {way: cold("noise 0.15", way)["new"] for way in ("alg2", "alg1")}
    assert noisy["alg1"] < min(clean.values()) and noisy["alg2"] > 3 * noisy["alg1"]
    hot, *colds = sorted(t.equal_budget(), key=lambda row: row[0]["way"] != "ddpm")
    spread = lambda row: max(t.labels_of(row[1])) - min(t.labels_of(row[1]))
    assert all(2 * spread(hot) < spread(row) for row in colds)
    first, *_ = sorted([hot, *colds], key=lambda row: row[1][0]["new"])
    assert (first[0]["recipe"], first[0]["way"]) == ("noise 0.15", "pinned")
    scales = {r["guidance_scale"]: r for r in t.guidance_rows()}
    strong, plain = scales[max(scales)], scales[1]
    assert strong["recall"] < 0.8 * plain["recall"] and strong["precision"] < plain["precision"]
    assert strong["agreement"] > plain["agreement"] and strong["inception_score"] > plain["inception_score"]
    arrived = [r for r in t.read("convergence") if r["calls"] in (49, 50) and r["sampler"] != "ddim"]
    assert {r["sampler"] for r in arrived} == {"heun", "dpm"} and not any(r["other_label"] for r in arrived)
    assert max(r["rmse"] for r in arrived) < 0.005
