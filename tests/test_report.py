"""The report: no number in it is typed, all that it shows is generated, and its sentences hold in the runs' JSON."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

REPORT = Path(__file__).parents[1] / "Report"
TEX = re.sub(r"(?<!\\)%.*", "", (REPORT / "report.tex").read_text())
BODY = TEX[TEX.index(r"\begin{document}") :]
SHOWN = set(re.findall(r"\\input\{generated/(\w+)\}", BODY))

# Where a digit is no measurement: names of things, and lengths of the layout.
NAMES = r"\\(?:val|cite[tp]?|citealp|ref|label|input|includegraphics|bibliography)(?:\[[^]]*\])*\{[^}]*\}"
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
    """The modules in Report/."""
    monkeypatch.syspath_prepend(REPORT)
    names = ("facts", "figures", "records", "tables", "write")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def test_no_number_is_typed():
    assert typed_numbers(BODY) == []


@pytest.mark.parametrize(
    "tex", ["an FID of 4.46", "in 28 calls", "50\\,\\%, of", "FID $1.71$", "$N=2000$", "$4\\%$ of"]
)
def test_a_typed_number_is_found(tex):
    assert typed_numbers(tex)


def test_all_that_is_shown_is_generated(report, tmp_path):
    curves, samples = report.figures.CURVES, report.figures.SAMPLES
    assert set(re.findall(r"\\includegraphics\{(\w+)\.pdf\}", TEX)) == {*curves, *samples}
    report.write.write(tmp_path, curves)
    assert {path.stem for path in tmp_path.iterdir()} == {"numbers", *report.tables.GROUPS, *curves}
    for path in tmp_path.glob("*.tex"):
        text = re.sub(r"csname.*endcsname", "", path.read_text())
        assert text.count("{") == text.count("}") and not re.search(r"\b(nan|None|inf)\b|[`*]", text), path.name


def test_every_table_is_shown_and_says_how_it_was_measured(report):
    on_the_page = {name for _, name, _ in report.write.MARKED.findall(report.write.PAGE.read_text())}
    assert SHOWN | on_the_page == set(report.tables.LAYOUTS) == set(report.tables.GROUPS)
    for name in SHOWN | on_the_page:
        header, rows, note, _ = report.tables.table(name)
        assert len(rows) >= 2 and all(len(row) in (1, len(header)) for row in rows), name
        no_fid = ("presets", "weights_epochs", "convergence", "obedience", "bayes", "start", "speed", "compiling")
        if not name.startswith(no_fid):
            assert all(word in note for word in ("N ", "seed", "sha256", "floor", "training images")), name


def test_the_tables_of_the_results_page_are_generated(report):
    text = report.write.PAGE.read_text()
    assert report.write.filled(text) == text, "python Report/write.py --tables writes it anew"
    assert "\\" not in text and "$" not in text, "LaTeX is left over"


def test_one_text_is_written_as_latex_and_as_markdown(report):
    rows = [["*U-Net, t < T*"], ["`a_b`", "1.50 ± 0.25", "99.1 %"], ["", "–", "2,000"]]
    made = report.tables.Table(["name", "× floor", "*N*"], rows, "mean ± sd, `c_d`, 5 %", left=1)
    tex = re.sub(" +", " ", report.write.latex(made))
    assert r"\begin{tabular}{@{}lrr@{}}" in tex and r" & × floor & \emph{N} \\" in tex
    assert r"\multicolumn{3}{l}{\emph{U-Net, t \ensuremath{<} T}} \\" in tex
    assert r"\texttt{a\_b} & 1.50 ± 0.25 & 99.1\,\% \\" in tex and r"mean ± sd, \texttt{c\_d}, 5\,\%" in tex
    head, rule, heading, one, two = re.sub(" +", " ", report.write.grid(made, "pipe")).splitlines()
    assert head == "| name | × floor | *N* |" and rule.startswith("|:--") and rule.endswith("--:|")
    assert heading == "| *U-Net, t < T* | | |" and two == "| | – | 2,000 |"
    assert one == "| `a_b` | 1.50 ± 0.25 | 99.1 % |"


def test_a_cell_is_the_mean_and_the_spread_over_seeds(report):
    cell = lambda column, *values: report.tables.cell([{"x": value} for value in values], column)
    assert cell("x", 0.5, 0.7, 0.6) == "0.600 ± 0.100" and cell("x", 12.345) == "12.35" and cell("x", None) == "–"
    assert cell("x .1%", 0.5, 0.7, 0.6) == "60.0 ± 10.0 %" and cell("x ~.1%", 0.5, 0.7) == "60.0 %"
    assert cell("x d", 2000, 2000) == "2,000" and cell("x `", "a_b") == "`a_b`"
    assert cell("x", [0.1, 0.3], [0.2, 0.4]) == "15.0–35.0 %"


def test_every_number_of_the_prose_is_known(report):
    known, used = report.facts.facts(), set(re.findall(r"\\val\{([^}]*)\}", BODY.replace("\n", " ")))
    assert used <= set(known), used - set(known)
    assert not [name for name in used if report.tables.DASH in (known[name], "")], "not in the JSON"
    for name in used:
        table, *_ = name.split()
        assert table not in report.tables.GROUPS or known[name] in str(report.tables.table(table)), name


def test_all_scores_are_of_one_classifier(report):
    sha256 = report.records.classifier()["sha256"]
    assert all(sha256.startswith(record["sha256"]) for record in report.records.shipped())
    for name in ("floors", "evaluate", "guidance", "time_to_quality", "weight_files"):
        seen = [row["sha256"] for record in report.records.read(name) for row in record.get("rows", [record])]
        assert set(seen) == {sha256}, name


def test_every_citation_is_in_the_bibliography():
    cited = {key.strip() for keys in re.findall(r"\\cite\w*(?:\[[^]]*\])*\{([^}]*)\}", TEX) for key in keys.split(",")}
    assert cited == set(re.findall(r"@\w+\{(\w+),", (REPORT / "refs.bib").read_text()))


# The sentences that compare: when a new run breaks one, the report has to be written anew, not only rebuilt.


@pytest.fixture
def cold(report):
    """The records of cold diffusion by their keys, means over seeds."""
    groups = report.records.cold("cold") + report.records.cold("cold_long")
    return {group[0]["key"]: report.records.means(group) for group in groups}


def test_what_it_says_of_recipes_holds(cold):
    of = lambda key: cold[f"cold default_28 row {key}"]
    assert of("original alg2 28")["restored"] > 1.5 * of("original alg2 27")["restored"]
    assert of("original alg2 28")["restored"] > 1.2 * of("trained alg2 28")["restored"]
    assert of("original direct 1")["mean"] < 0.95 * of("original direct 1")["mean_original"]
    assert of("noise alg1 28")["new"] < 0.8 * of("trained alg1 28")["new"]
    for preset in ("cold_long default_28 row", "cold_long default_28 col", "cold_long default_7 row"):
        few = 7 if "default_7" in preset else 28
        at = lambda key, preset=preset: cold[f"{preset} {key}"]
        theirs, ours, once = at(f"original alg2 {few}"), at("noise pinned 28"), at("noise direct 1")
        assert ours["steps"] == theirs["steps"] and ours["restored"] < theirs["restored"] / 3, preset
        assert ours["agreement"] > 1.15 * max(theirs["agreement"], once["agreement"]), preset
        assert at("noise pinned 27")["restored"] < 0.6 * at(f"original alg2 {few - 1}")["restored"], preset
    few = cold["cold_long default_7 row noise pinned 7"]
    assert cold["cold_long default_7 row noise pinned 28"]["restored"] < 0.7 * few["restored"]


def test_what_it_says_of_cold_samplers_holds(cold):
    for recipe in ("default_28 row trained", "default_28 row noise", "cold_unet row clean", "cold_unet row noise"):
        naive, pinned = (cold[f"cold {recipe} {way} 28"] for way in ("alg1", "pinned"))
        assert pinned["new"] < 0.7 * naive["new"] and pinned["agreement"] > naive["agreement"], recipe
        assert abs(pinned["mean"] / pinned["mean_original"] - 1) < 0.05, recipe
    clean = {way: cold[f"cold cold_unet row clean {way}"]["new"] for way in ("direct 1", "alg2 28", "alg1 28")}
    assert clean["alg1 28"] < clean["alg2 28"] < clean["direct 1"]
    two, one = (cold[f"cold cold_unet row noise {way} 28"]["new"] for way in ("alg2", "alg1"))
    assert one < min(clean.values()) and two > 3 * one


def test_what_is_said_of_the_originals_cold_files_holds(report):
    """And the default of such files with it: experiment/coursework.py says pinned."""
    some = (row for (row,) in report.records.cold_files() if row["of"] == "original")
    families = report.records.grouped(some, "family")
    assert len(families) == 4 and all(len(rows) == 5 for rows in families)
    for rows in families:
        by = {r["sampler"]: r for r in rows}
        pinned, alg2, own = by["pinned"], by["alg2"], by["coursework"]
        assert pinned["their_fid"] == min(r["their_fid"] for r in rows), rows[0]["head"]
        assert pinned["their_agreement"] == max(r["their_agreement"] for r in rows), rows[0]["head"]
        assert own["their_fid"] < alg2["their_fid"], rows[0]["head"]


def test_what_it_says_of_hot_and_cold_holds(report):
    best, *_ = rows = [report.records.means(group) for group in report.records.hot_cold()]
    assert (best["recipe"], best["way"]) == ("noise", "pinned")
    spread = {r["key"]: max(r["labels"]) - min(r["labels"]) for r in rows}
    hot = spread.pop(next(r["key"] for r in rows if r["recipe"] == "hot"))
    assert all(2 * hot < each for each in spread.values())


def test_what_it_says_of_samplers_and_guidance_holds(report):
    fid = {(r["sampler"], r["budget"]): r["fid"] for group in report.records.samplers() for r in group}
    assert min((fid[name, 5], name) for name in ("ddpm", "ddim", "heun", "dpm", "sde"))[1] == "dpm"
    for nfe in (10, 20, 50):
        deterministic = min(fid[name, nfe] for name in ("ddim", "heun", "dpm"))
        assert fid["sde", nfe] < deterministic, nfe
    assert abs(fid["ddpm", 1000] - fid["sde", 1000]) < 0.002 and fid["sde", 10] < fid["sde", 1000]
    scales = {r["guidance_scale"]: r for (r,) in report.tables.GROUPS["guidance"]()}
    strong, plain = scales[5], scales[1]
    assert max(scales) == 5 and min(scales, key=lambda scale: scales[scale]["fid"]) == 1
    assert strong["recall"] < 0.8 * plain["recall"] and strong["precision"] < plain["precision"]
    assert strong["agreement"] > plain["agreement"] and strong["inception_score"] > plain["inception_score"]
    arrived = [r for group in report.records.samplers("convergence") for r in group if r["budget"] == 50]
    rmse = {r["sampler"]: r["rmse"] for r in arrived if not r["other_label"]}
    assert max(rmse["heun"], rmse["dpm"]) < 0.005
