"""figures: the same bytes every time, no trace left in global state, labels as text."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.analysis import drawing, figures
from analyzer.analysis.questions import ANALYSES
from analyzer.errors import AnalyzerError, UsageError
from analyzer.records import Figure, Result
from analyzer.records.display import visible

NASTY = 'a & b <i> $\\frac{1$ "q" \x07 基础'


def result(n: int = 50) -> Result:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.lognormal(0, 2, n), "y": rng.normal(size=n), "kind": [NASTY, "other"] * (n // 2)})
    return Result("made", "A question?", tables={"points": frame})


def scatter(found: Result, ax):
    for label, look in figures.styles([NASTY, "other"]).items():
        part = found.tables["points"].query("kind == @label")
        ax.scatter(part["x"], part["y"], label=label, color=look["color"], marker=look["marker"])
    ax.set(xscale="log", xlabel=NASTY, ylabel="y (nats)")
    ax.legend()
    return ax


def jitter(found: Result, ax):
    import seaborn as sns

    sns.stripplot(found.tables["points"], x="kind", y="y", ax=ax)
    sns.lineplot(found.tables["points"], x="kind", y="y", errorbar=None, ax=ax)
    return ax


SPEC = Figure(scatter, "points", lambda r: "n = 50")


def test_styles_differ_without_colour_and_follow_the_order():
    looks = figures.styles([f"s{i}" for i in range(360)])
    assert len({(repr(v["color"]), v["marker"], repr(v["linestyle"])) for v in looks.values()}) == 360
    first_nine = list(looks.values())[:9]
    assert len({v["marker"] for v in first_nine}) == 9
    assert figures.styles(["base", "rlvr"])["base"] == figures.styles(["base", "other", "rlvr"])["base"]
    assert list(figures.styles(["b", "a", "b"])) == ["b", "a"]


@pytest.mark.parametrize("drawing", [scatter, jitter])
def test_bytes_are_the_same_and_global_state_is_untouched(tmp_path, drawing):
    import matplotlib
    import matplotlib.pyplot as plt

    spec = SPEC._replace(draw=drawing)
    matplotlib.rcParams["font.size"] = 17.5  # the caller's own setting: neither used nor lost
    np.random.seed(5)
    state, parameters, backend = np.random.get_state()[1].copy(), dict(matplotlib.rcParams), matplotlib.get_backend()
    one = figures.save(spec, result(), "fig", tmp_path / "one")
    assert (np.random.get_state()[1] == state).all()
    assert dict(matplotlib.rcParams) == parameters and matplotlib.get_backend() == backend and plt.get_fignums() == []
    matplotlib.rcParams["font.size"] = 10.0
    np.random.seed(6)
    two = figures.save(spec, result(), "fig", tmp_path / "two")
    assert set(one) == {"svg", "pdf", "csv"}
    for kind, path in one.items():
        assert path.name == f"fig.{kind}" and path.read_bytes() == two[kind].read_bytes(), kind
    matplotlib.rcdefaults()


@pytest.mark.parametrize(
    ("style", "width", "points"), [("icml", 1, 234.0), ("icml", 2, 486.0), ("neurips", 2, 396.0), ("acl", 1, 218.16)]
)
def test_printed_width_is_the_venue_width(tmp_path, style, width, points):
    spec = SPEC._replace(width=width)
    root = ET.parse(figures.save(spec, result(), "fig", tmp_path, style=style)["svg"]).getroot()
    assert root.attrib["width"] == f"{points:g}pt"
    with pytest.raises(UsageError, match="figure style 'nips' is unknown.*allowed: icml, acl, neurips"):
        figures.save(spec, result(), "fig", tmp_path, style="nips")
    with pytest.raises(AnalyzerError, match="width 3 is not a number of columns; allowed: \\[1, 2\\]"):
        figures.save(SPEC._replace(width=3), result(), "fig", tmp_path)


def test_labels_stay_text_and_logarithmic_ticks_are_plain(tmp_path):
    paths = figures.save(SPEC, result(), "fig", tmp_path)
    texts = [e.text for e in ET.parse(paths["svg"]).iter("{http://www.w3.org/2000/svg}text")]
    assert NASTY.replace("\x07", "\ufffd") in texts  # neither math nor markup; a control character is no XML
    assert "0.1" in texts and not any("mathdefault" in t for t in texts)
    assert b"/Type3" not in paths["pdf"].read_bytes() and b"/CIDFontType2" in paths["pdf"].read_bytes()
    assert b"CreationDate" not in paths["pdf"].read_bytes() and b"<dc:date>" not in paths["svg"].read_bytes()


def test_only_clouds_are_rasterised(tmp_path):
    few, many = (figures.save(SPEC, result(n), f"n{n}", tmp_path)["svg"].read_text() for n in (200, 4200))
    assert "<image" not in few and "<image" in many and many.count("<use") < 200


def test_many_small_clouds_are_one_large_cloud(tmp_path):
    def parts(found, ax):
        for _, part in found.tables["points"].groupby(np.arange(4200) % 6):
            ax.scatter(part["x"], part["y"])
        return ax

    text = figures.save(SPEC._replace(draw=parts), result(4200), "fig", tmp_path)["svg"].read_text()
    assert "<image" in text and text.count("<use") < 200


def test_csv_is_the_table_of_the_figure(tmp_path):
    found = result()
    found.tables["points"].loc[0, "y"] = np.nan
    found.tables["points"]["ids"] = [[1, 2]] * 50
    with figures.save(SPEC, found, "fig", tmp_path)["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["x"]) for r in rows] == list(found.tables["points"]["x"])  # every digit
    assert rows[0]["y"] == "" and rows[0]["kind"] == visible(NASTY) and rows[0]["ids"] == "[1, 2]"


@pytest.mark.parametrize(
    "text, cell",
    {
        "=1+1": "'=1+1",
        "@SUM(A1)": "'@SUM(A1)",
        " \t=cmd|' /C calc'!A0": "' \t=cmd|' /C calc'!A0",
        "-2+3": "'-2+3",
        "＝1": "'＝1",
        "-0.5": "-0.5",
        "+1e3": "+1e3",
        "-inf": "-inf",
        "a = b\n-c": "a = b\n-c",
        "\x9b31m\u202eab\x00\r": "\\u009b31m\\u202eab\\x00\\x0d",
        "\r=1": "\\x0d=1",
    }.items(),
)
def test_text_of_a_dump_is_no_formula_of_a_spreadsheet_and_hides_nothing(tmp_path, text, cell):
    figures.write_csv([text, "n"], [[text, -1.5], [None, 2], [[text], -3]], tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        head, one, none, inside = csv.reader(file)
    assert head == [cell, "n"] and one == [cell, "-1.5"] and none == ["", "2"]
    assert json.loads(inside[0]) == [text] and inside[1] == "-3"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", (tmp_path / "t.csv").read_bytes().decode())


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(
        AnalyzerError, match="figure 'fig' shows the table 'lines', which 'made' does not have; its tables: points"
    ):
        figures.save(SPEC._replace(table="lines"), result(), "fig", tmp_path)


def test_ticks_of_powers():
    assert [figures._power(x) for x in (0.001, 1, 20, 1e5, 1e-4, 2e-10)] == [
        "0.001",
        "1",
        "20",
        "10⁵",
        "10⁻⁴",
        "2·10⁻¹⁰",
    ]


@settings(derandomize=True)
@given(st.text(max_size=200), st.text(max_size=200))
def test_file_names_are_safe_and_distinct(a, b):
    for name in (figures.safe_name(a), figures.safe_name(b)):
        assert re.fullmatch(r"[a-z0-9_-]?[a-z0-9_.-]*", name) and len(name) < 100 and not name.startswith(".")
    assert (figures.safe_name(a) == figures.safe_name(b)) == (a == b)


def test_plain_names_are_kept():
    assert figures.safe_name("boundary-pass_at_k") == "boundary-pass_at_k"
    assert re.fullmatch(r"a-b-c-[0-9a-f]{6}", figures.safe_name("a/b c"))


# what an axis without a bracketed unit may count in
UNITLESS = r"\b(share|pass@k|k|perplexity|problems|traces|tokens|clusters|step|tenth|z|p)\b"


@pytest.fixture(scope="module")
def miniature(root) -> dict[str, Result]:
    """The analyses of the committed report, with a training curve, which its sources do not have; support of the known
    world, which has something to show in every figure."""
    data = json.loads((root / "reports/miniature/results.json").read_bytes())["analyses"]
    found = {name: Result.from_json(name, analysis) for name, analysis in data.items()}
    steps = [
        {"source": "rlvr", "step": s, "ppl": 2.0, "low": 1.9, "high": 2.2, "problems": 64, "n": 256} for s in (1, 2)
    ]
    found["perplexity"].tables["steps"] = pd.DataFrame(steps)
    spec = importlib.util.spec_from_file_location("known_world", root / "tests/analysis/known_world.py")
    spec.loader.exec_module(known_world := importlib.util.module_from_spec(spec))
    found["support"] = ANALYSES["support"].run(known_world.make_world(), draws=50)
    return found


@pytest.mark.parametrize("name", ANALYSES)
def test_every_figure_has_units_on_its_axes_and_n_in_its_caption(miniature, name):
    if name not in miniature:
        pytest.skip("the committed report is older than this analysis")
    if name == "support":
        assert list(ANALYSES[name].FIGURES) == ["prefix", "kinds", "places", "reach", "lost", "plane"]
    for title, spec in ANALYSES[name].FIGURES.items():
        assert spec.table in miniature[name].tables and re.search(r"\bn = .{0,40}\d", spec.caption(miniature[name])), (
            title
        )
        drawn = figures.draw(spec, miniature[name])
        for ax in drawn.axes:
            for axis in (ax.xaxis, ax.yaxis):
                numbers = [t.get_text() for t in axis.get_ticklabels() if re.fullmatch(r"[\d.\u2212-]+", t.get_text())]
                label = axis.label.get_text()
                assert not numbers or re.search(rf"\(.+\)|{UNITLESS}", label), (title, label, numbers)


def test_the_committed_report_has_most_analyses(miniature):
    assert len(miniature) >= 7


def test_a_source_keeps_its_look_whichever_sources_a_figure_shows():
    whole = figures.styles(["base", "a", "b", "c"])
    assert figures.styles(["b"])["b"] != whole["b"]  # alone it is the first
    with figures.one_look_each(["base", "a", "b", "c"]):
        assert figures.styles(["b", "base"]) == {s: whole[s] for s in ("b", "base")}
        assert figures.styles(["new", "c"])["c"] == whole["c"]  # one that the report does not know comes last
    assert figures.styles(["b"])["b"] == whole["base"]


def test_an_empty_frame_is_not_saved(tmp_path):
    spec = Figure(lambda result, ax: drawing.nothing(ax, "no source has a sampler"), "t", lambda result: "")
    with pytest.raises(figures.NothingToDraw, match="no source has a sampler"):
        figures.save(spec, Result("x", "?", tables={"t": pd.DataFrame({"v": [1]})}), "x", tmp_path)
    assert not list(tmp_path.iterdir())


def test_ticks_stand_where_the_data_are(tmp_path):
    table = pd.DataFrame({"k": [1, 2, 3], "v": [1.0, 1.2, 1.5], "low": [0.9, 1.1, 1.4], "high": [1.1, 1.3, 1.6]})

    def draw(result, ax):
        drawing.band(ax, result.tables["t"], "v", figures.styles(["a"])["a"], "a")
        ax.set_yscale("log")
        return ax

    spec = Figure(draw, "t", lambda result: "")
    paths = figures.save(spec, Result("x", "?", tables={"t": table}), "x", tmp_path)
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", paths["svg"].read_text(encoding="utf-8"))
    assert {"1", "2", "3"} <= set(texts) and sum(0.85 < float(t) < 1.65 for t in texts if "." in t) >= 3
