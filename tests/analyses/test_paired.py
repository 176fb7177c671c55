"""Differences of two sources by problem: by hand, against loops, and what a report says of many pairs."""

from __future__ import annotations

import json
from itertools import combinations

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analyses import paired, paired_figures
from analyzer.errors import UsageError
from analyzer.records import Result
from analyzer.report import methods


@pytest.fixture(scope="module")
def world(make_tables, make_world):
    """Three sources of known surprisal; `loud` surprises more and is right on even samples, the others on fewer."""
    rows = make_world(3, sources={"base": 1.0, "quiet": 1.0, "loud": 1.6}, problems=12, samples=20)
    for row in rows:
        row["correct"] = row["sample"] % (2 if row["source"] == "loud" else 4) == 0
    return make_tables(rows)


@pytest.fixture(scope="module")
def found(world):
    return paired.run(world, draws=400)


def row(result: Result, a: str, b: str, measure: str) -> pd.Series:
    table = result.tables["differences"]
    return table[(table["a"] == a) & (table["b"] == b) & (table["measure"] == measure)].iloc[0]


def test_every_pair_stands_in_the_report_the_reference_first(found):
    pairs = list(dict.fromkeys(zip(found.tables["problems"]["a"], found.tables["problems"]["b"])))
    assert pairs == [("quiet", "base"), ("loud", "base"), ("quiet", "loud")] and found.name == "paired"
    assert set(found.estimates) == {f"{a}-{b}.{m}" for a, b in pairs for m in paired.MEASURES}
    assert len(found.tables["problems"]) == 3 * 12 and found.params["pairs"] == 3


def test_differences_are_means_over_problems_of_a_minus_b(world, found):
    base = world.scores[world.scores["model"] == "base"]
    median = base.groupby(["source", "problem"])["nll_mean"].median().unstack("source")
    want = (median["loud"] - median["base"]).mean()
    got = row(found, "loud", "base", "nll_mean")
    assert got["difference"] == pytest.approx(want) and got["low"] <= want <= got["high"]
    assert got["higher"] + got["lower"] + got["equal"] == got["problems"] == 12
    assert row(found, "loud", "base", "pass_rate")["difference"] == pytest.approx(0.25)
    assert found.estimates["loud-base.pass_rate"].n == 12
    assert found.estimates["loud-base.nll_mean"].low > 0 > found.estimates["loud-base.typical"].high


def test_one_pair_is_the_same_numbers_and_turning_it_round_the_opposite(world, found):
    one, other = (paired.run(world, a=a, b=b, draws=400) for a, b in (("loud", "base"), ("base", "loud")))
    assert one.name == "loud against base" and len(one.tables["problems"]) == 12
    for measure in paired.MEASURES:
        e = one.estimates[f"loud-base.{measure}"]
        assert e == found.estimates[f"loud-base.{measure}"]
        assert e.value == pytest.approx(-other.estimates[f"base-loud.{measure}"].value)


def test_the_band_is_the_rank_among_the_other_traces_of_the_reference(make_tables, make_columns):
    """By hand: reference surprisals 1 ... 20 on one problem; the band holds ranks of .05 to .95 of the others."""
    rows = [("base", s) for s in range(1, 21)] + [("s", s) for s in (0.5, 1.5, 10.0, 19.5, 25.0)]
    tables = make_tables(
        {"source": source, "problem": f"p{p}", "sample": i, "models": {"base": make_columns([s] * 3)}}
        for p in range(2)
        for i, (source, s) in enumerate(rows)
    )
    got = row(paired.run(tables, draws=50), "s", "base", "typical")
    # of 19 others the smallest has rank 0, the next 1/19 = .053; 1.5 has rank 1/20 = .05, 19.5 has 19/20 = .95
    assert got["mean_b"] == pytest.approx(18 / 20) and got["mean_a"] == pytest.approx(3 / 5)
    few = make_tables(r for r in _few(make_columns, paired.LEAST - 1))
    assert np.isnan(row(paired.run(few, draws=50), "s", "base", "typical")["difference"])


def _few(make_columns, n):
    for source, count in (("base", n), ("s", 3)):
        for i in range(count):
            yield {"source": source, "problem": "p", "sample": i, "models": {"base": make_columns([1.0 + i])}}


@pytest.mark.parametrize(
    ("counts", "want"),
    [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090)), ((10, 10, 0, 10), (0.6075, 1.0))],
)
def test_newcombe_as_published(counts, want):
    """Table II of Newcombe (1998), method 10."""
    assert np.array(paired.newcombe(*(np.array([x], float) for x in counts))).ravel() == pytest.approx(want, abs=6e-5)


def test_the_interval_within_a_problem_covers():
    """95 % nominal; the mean coverage over these shares is above .92 (4,000 draws: sd .003, false alarm < 1e-6)."""
    rng = np.random.default_rng(0)
    p, q = rng.random((2, 4000))
    a, b = rng.binomial(16, p), rng.binomial(64, q)
    low, high = paired.newcombe(a.astype(float), np.full(4000, 16.0), b.astype(float), np.full(4000, 64.0))
    assert 0.92 < np.mean((low <= p - q) & (p - q <= high)) < 0.985


def test_what_differs_is_said_in_words_and_nothing_is_corrected(found):
    said = found.tables["pairs"].set_index(["a", "b"])["says"]
    assert said["quiet", "loud"].startswith("quiet against loud (12 problems): is right less often (-0.250 [")
    assert "surprises the base less (-" in said["quiet", "loud"] and "no difference shown in " in said["quiet", "base"]
    assert found.notes[0] == said["quiet", "loud"]  # the one pair without the reference
    assert any("no Holm, no false discovery rate" in n and n.endswith("and there are 12.") for n in found.notes)


def test_the_drawn_pair_is_the_most_mixed_one():
    rows = [("a", "b", 1.0, 0.0), ("a", "b", 0.9, 0.1), ("a", "c", 1.0, 0.0), ("a", "c", 0.0, 1.0), ("a", "r", 0, 1)]
    table = pd.DataFrame(rows, columns=["a", "b", "pass_rate_a", "pass_rate_b"])
    d = table["pass_rate_a"] - table["pass_rate_b"]
    table = table.assign(pass_rate_low=d - 0.2, pass_rate_high=d + 0.2)
    assert paired_figures.mixed(table, "r") == ("a", "c")
    assert paired_figures.mixed(table[:2], "r") == ("a", "b") and paired_figures.mixed(table[4:], "r") == ("a", "r")


def test_what_is_not_known_is_said(make_tables):
    rows = [{"source": s, "problem": p, "sample": i} for s in ("base", "a", "b") for p in "xy" for i in range(3)]
    bare = paired.run(make_tables(rows, base=None), draws=50)
    assert all(np.isnan(e.value) and e.note.endswith("is not known for both") for e in bare.estimates.values())
    assert all("(0 problems): not known: share correct, tokens per trace" in s for s in bare.tables["pairs"]["says"])
    for spec in paired.FIGURES.values():
        assert spec.draw(bare, matplotlib.figure.Figure().add_subplot()).texts and "n = 0" in spec.caption(bare)


def test_an_infinite_surprisal_is_left_out_and_counted(make_tables, make_columns):
    rows = [
        {
            "source": s,
            "problem": p,
            "sample": i,
            "models": {"base": make_columns([1.0, np.inf if p == "x" and s == "a" else 1.0])},
        }
        for s in ("base", "a")
        for p in "xyz"
        for i in range(3)
    ]
    got = row(paired.run(make_tables(rows), draws=50), "a", "base", "nll_mean")
    assert (
        got["difference"] == 0 and got["problems"] == 2 and got["note"] == "1 problems with an infinite median left out"
    )


def test_only_the_last_step_enters(make_tables):
    rows = [{"source": "base", "problem": p, "sample": i, "correct": False} for p in "xy" for i in range(4)]
    rows += [
        {"source": "rl", "problem": p, "sample": i, "step": step, "correct": step == 9}
        for step in (1, 9)
        for p in "xy"
        for i in range(4)
    ]
    table = paired.run(make_tables(rows, base=None), draws=50).tables["problems"]
    assert (table["n_a"] == 4).all() and (table["pass_rate_a"] == 1).all()


def test_many_sources_are_cut_and_the_rest_is_named(make_tables):
    labels = ["base", *"abcdef"]
    rows = [{"source": s, "problem": p, "sample": 0, "correct": True} for s in labels for p in "xy"]
    rows += [{"source": "far", "problem": "z", "sample": 0, "correct": True}]
    result = paired.run(make_tables(rows, base=None), draws=50)
    left = len(list(combinations([*"abcdef", "far"], 2))) - paired.PAIRS
    assert f"{left} further pairs are not shown; any two: analyzer compare RUN A B." in result.notes
    assert any(n.startswith("No problem in common: far and base; a and far") for n in result.notes)


def test_labels_that_make_the_same_key_lose_nothing(make_tables):
    rows = [{"source": s, "problem": p, "sample": 0, "correct": True} for s in ("c", "a", "a-b", "b-c") for p in "xy"]
    tables = make_tables(rows, base=None)
    result = paired.run(tables.__class__(**{**tables.__dict__, "reference": "c"}), draws=50)
    assert len(result.estimates) == 6 * len(paired.MEASURES)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [("loud", "bass", "did you mean 'base'"), ("loud", None, "a pair needs two"), (None, "base", "a pair needs two")],
)
def test_unknown_labels_are_refused(world, a, b, message):
    with pytest.raises(UsageError, match=message):
        paired.run(world, a=a, b=b)


def test_one_source_or_no_common_problem_is_refused(make_tables):
    rows = [{"source": "base", "problem": "x", "sample": 0}, {"source": "a", "problem": "y", "sample": 0}]
    with pytest.raises(UsageError, match="a and base have no problem in common"):
        paired.run(make_tables(rows, base=None))
    with pytest.raises(UsageError, match="there is one source"):
        paired.run(make_tables(rows[:1], base=None))


def test_figures_draw_and_survive_json(found):
    again = Result.from_json("paired", json.loads(json.dumps(found.as_json(), allow_nan=False)))
    for result in (found, again):
        for spec in paired.FIGURES.values():
            ax = matplotlib.figure.Figure().add_subplot()
            assert spec.draw(result, ax) is ax and not ax.texts
            assert "n = 12 problems" in spec.caption(result)
    assert "quiet minus loud" in paired.FIGURES["by_problem"].caption(found)


def test_the_grid_of_the_report_has_a_row_per_pair(found):
    grid = methods.pairs({"analyses": {"paired": json.loads(json.dumps(found.as_json()))}})
    assert [row[0] for row in grid.rows] == ["quiet minus base", "loud minus base", "quiet minus loud"]
    assert grid.columns == ["pair", "problems", "share correct", "tokens", "nats per token", "inside band"]
    assert all(row[1] == "12" and "[" in row[2] for row in grid.rows)
    assert methods.pairs({"analyses": {}}).rows == []
