"""Differences of two sources by problem: by hand, against loops, and what a report says of many pairs."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.pairs import figures as paired_figures
from analyzer.analysis.pairs import run as paired
from analyzer.analysis.support import local
from analyzer.errors import UsageError
from analyzer.pages import methods
from analyzer.records import Result
from analyzer.stats.passk import pass_at_k
from validation import bigram


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
    named = [m.replace("@k", "@16") for m in paired.MEASURES]  # of 20 draws
    assert set(found.estimates) == {f"{a}-{b}.{m}" for a, b in pairs for m in named}
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
    for measure in ("pass_rate", "pass@16", "n_tokens", "nll_mean", "typical"):
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
    assert any("no Holm, no false discovery rate" in n and n.endswith("and there are 15.") for n in found.notes)


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
    assert all(np.isnan(e.value) and "is not known for both" in e.note for e in bare.estimates.values())
    assert bare.estimates["a-b.hurdles"].note.endswith("the model that produced a is not known; give --policy a=MODEL")
    said = "(0 problems): not known: share correct, share solved within k draws, tokens per trace"
    assert all(said in s for s in bare.tables["pairs"]["says"])
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


@pytest.mark.parametrize(("budget", "k"), [(64, 8), (7, 4), (2, 2)])
def test_pass_at_k_is_at_the_largest_power_of_two_that_both_sides_have(make_tables, budget, k):
    """Ten problems, one with three draws on one side: k is what nine in ten allow, and that problem is left out."""
    rng, rows = np.random.default_rng(0), []
    for source, n in (("base", 20), ("a", 11)):
        for p in range(10):
            for i in range(3 if (source, p) == ("a", 4) else n):
                rows.append({"source": source, "problem": p, "sample": i, "correct": bool(rng.random() < 0.1 * p)})
    tables = make_tables([r | {"problem": f"p{r['problem']}"} for r in rows], base=None)
    result = paired.run(tables, budget=budget, draws=50)
    got, traces = row(result, "a", "base", "pass@k"), tables.traces
    count = traces.assign(c=traces["correct"].astype(int)).groupby(["source", "problem"])["c"].agg(["size", "sum"])
    value = {s: pass_at_k(count.loc[s]["size"], count.loc[s]["sum"], [k])[:, 0] for s in ("a", "base")}
    assert got["k"] == k and got["difference"] == pytest.approx(np.nanmean(value["a"] - value["base"]))
    fewer = int(np.isnan(value["a"]).sum())
    assert fewer == (k > 3) and got["problems"] == 10 - fewer
    assert got["note"] == f"k = {k}" + ("; 1 problems with fewer draws left out" if fewer else "")
    assert result.estimates[f"a-base.pass@{k}"].value == got["difference"]
    assert f"solves fewer within {k} draws" in paired.says([got.to_dict() | {"low": -1.0, "high": -0.1}])


def test_one_draw_a_problem_is_no_pass_at_k(make_tables):
    rows = [{"source": s, "problem": p, "sample": 0, "correct": True} for s in ("base", "a") for p in "xyz"]
    e = paired.run(make_tables(rows, base=None), draws=50).estimates
    assert "pass@1 is pass_rate" in e["a-base.pass@64"].note and e["a-base.pass_rate"].value == 0
    e = paired.run(make_tables(rows, base=None), budget=1, draws=50).estimates
    assert np.isnan(e["a-base.pass@1"].value) and e["a-base.pass@1"].note.endswith("see pass_rate")


RATES, TOKENS = {"teacher": 0.06, "rl": 0.03}, 60


def exact(seed: int, problems: int, n: int = 8):
    """A base that all but never writes one token, and sources that write it with a chance of RATES at every step."""
    rng = np.random.default_rng(seed)
    base_VV = bigram.law(rng, 10, 1.2)
    base_VV[:, 8] = np.log(1e-20)
    base_VV = bigram.normalised(base_VV)
    made = {"base": base_VV}
    for source, r in RATES.items():
        made[source] = base_VV + np.log1p(-r)
        made[source][:, 8] = np.log(r)
    drawn = {s: bigram.draw(rng, [bigram.Component(1.0, q_VV)], problems, n, TOKENS) for s, q_VV in made.items()}
    return bigram.tables(base_VV, {s: bigram.Made(d, law_VV=made[s]) for s, d in drawn.items()})


def truths() -> dict[str, float]:
    """Differences teacher - rl in closed form: spans of four over TOKENS tokens, those over the edges among them."""
    found = []
    for r in RATES.values():
        size = np.minimum(4, np.minimum(np.arange(1, TOKENS + 4), np.arange(TOKENS + 3, 0, -1)))
        place = np.arange(1, TOKENS + 1)
        at = local.crossing(place, 1 - (1 - r) ** place)
        found.append(((1 - (1 - r) ** size).sum() / 4, 1 - (1 - r) ** TOKENS, at))
    return dict(zip(("hurdles", "hurdle_share", "horizon"), np.subtract(*np.array(found))))


def test_intervals_of_hurdles_and_horizon_cover_the_true_difference():
    """30 exact worlds: at a chance of .9 fewer than 18 hits have probability 2e-6 (coverage .93 to .94 in 150 worlds;
    in one of 40 a trace looks foreign to its model, and nothing is said). The mean of all lies within five of its
    standard errors (3e-5)."""
    want, hits, values = truths(), {m: 0 for m in truths()}, {m: [] for m in truths()}
    for seed in range(30):
        e = paired.run(exact(seed, 12), a="teacher", b="rl", draws=300).estimates
        for m, true in want.items():
            found = e[f"teacher-rl.{m}"]
            hits[m] += found.low <= true <= found.high
            values[m].append(found.value)
    assert min(hits.values()) >= 18, hits
    for m in ("hurdles", "hurdle_share"):  # a crossing is no mean, and is biased at few traces
        known = np.array(values[m])[np.isfinite(values[m])]
        assert abs(known.mean() - want[m]) < 5 * known.std(ddof=1) / np.sqrt(len(known)), m


@pytest.fixture(scope="module")
def written():
    return exact(1, 12)


def test_hurdles_are_means_by_problem_of_the_frame_of_support_at_four_tokens(written):
    result = paired.run(written, budget=32, draws=100)
    frame = local.measured(written, 32).frame
    mean = frame.groupby(["problem", "source"])[["hurdles4@32", "share4@32"]].mean().unstack("source")
    for measure, column in (("hurdles", "hurdles4@32"), ("hurdle_share", "share4@32")):
        got = row(result, "teacher", "rl", measure)
        d = mean[column]["teacher"] - mean[column]["rl"]
        assert got["k"] == 32 and got["problems"] == 12 and got["higher"] == (d > 0).sum()
        assert got["difference"] == pytest.approx(d.mean()) and got["difference"] > 0
    said = result.tables["pairs"].set_index(["a", "b"])["says"]["teacher", "rl"]
    assert "has more hurdles a trace (+" in said and "is half beyond the budget earlier (-" in said
    assert any("4 tokens in a row on both sides" in n for n in result.notes)


def test_turned_round_the_new_measures_are_the_opposite(written):
    one = paired.run(written, a="teacher", b="rl", draws=100).estimates
    other = paired.run(written, a="rl", b="teacher", draws=100).estimates
    for measure in paired.OWN_LAW:
        assert one[f"teacher-rl.{measure}"].value == pytest.approx(-other[f"rl-teacher.{measure}"].value)


def test_a_source_that_never_leaves_has_no_horizon(written):
    result = paired.run(written, draws=100)
    got = row(result, "rl", "base", "horizon")
    assert np.isnan(got["difference"]) and got["note"] == "beyond the traces of base: the excess ends at 0.000"
    assert got["mean_a"] > 1 and np.isnan(got["mean_b"]) and got["problems"] == 12
    said = result.tables["pairs"].set_index(["a", "b"])["says"]["rl", "base"]
    assert "not known: share correct" in said and "(beyond the traces of base: the excess ends at 0.000)" in said
    json.dumps(result.as_json(), allow_nan=False)


def test_both_horizons_are_of_the_joined_problems_each_of_which_counts_once(written):
    """The teacher lacks four problems, and has an eighth of the traces of another."""
    held = written.traces
    gone = (held["source"] == "teacher") & (held["problem"].isin(["p0000", "p0001", "p0002", "p0003"]))
    gone |= (held["source"] == "teacher") & (held["problem"] == "p0004") & (held["sample"] > 0)
    left = set(held["key"][~gone])
    tables = dataclasses.replace(
        written, traces=held[~gone], scores=written.scores[written.scores["key"].isin(left)], memo={}
    )
    got = row(paired.run(tables, draws=100), "teacher", "rl", "horizon")
    curves = local.measured(tables, 64).curves
    for side, source in (("a", "teacher"), ("b", "rl")):
        c = curves[source]
        at = [i for i, p in enumerate(c.problems) if p >= "p0004"]
        curve = np.mean([c.sum_CPW[-1][i] / c.n_P[i] for i in at], axis=0)
        assert got[f"mean_{side}"] == pytest.approx(local.crossing(c.place_W, curve))
    assert got["problems"] == 8 and got["low"] < got["difference"] < got["high"]


def test_a_source_without_a_policy_has_no_hurdles_and_says_why(written):
    tables = dataclasses.replace(written, policies={"base": "base", "teacher": "policy-teacher"})  # shares the memo
    result = paired.run(tables, draws=100)
    for measure in paired.OWN_LAW:
        for pair in ("rl-base", "teacher-rl"):
            e = result.estimates[f"{pair}.{measure}"]
            want = f"{measure} is not known for both: the model that produced rl is not known; give --policy rl=MODEL"
            assert np.isnan(e.value) and np.isnan(e.low) and e.note == want
    assert result.estimates["teacher-base.hurdles"].low > 0
    said = result.tables["pairs"].set_index(["a", "b"])["says"]["teacher", "rl"]
    assert "not known: share correct" in said and "hurdles per trace" in said.split("not known: ")[1]


def test_numbers_that_the_rows_bring_are_enough(written):
    """The same log-probs in the rows, at T = 1 alone, and no model: the hurdles are those of that one law."""
    q = pd.concat(f for s in RATES for f in written.tokens(f"policy-{s}", ["logprob_s"])).set_index("key")["logprob_s"]
    p = pd.concat(written.tokens("base", ["token", "logprob"])).query("source != 'base'")
    frame = p.drop(columns="logprob").assign(
        finish="length", logprob_q=q.reindex(p["key"]).tolist(), logprobs_temperature=1.0, written=None
    )
    frame["laws"] = [{1.0: x} for x in p["logprob"]]
    tables = dataclasses.replace(
        written, base=None, policies={}, scores=written.scores[:0], numbers=lambda: iter([frame]), memo={}
    )
    result, scored = (paired.run(t, a="teacher", b="rl", draws=100).estimates for t in (tables, written))
    for measure in paired.OWN_LAW:
        one, other = (e[f"teacher-rl.{measure}"] for e in (result, scored))
        assert one.low < 0 if measure == "horizon" else one.low > 0
        assert one.value == pytest.approx(other.value, rel=1e-4) and one.n == 12, measure


def test_what_support_would_not_use_is_not_paired(written):
    """Scores under a model that did not write the traces: log q is refused."""
    scores = written.scores.copy()
    scores.loc[scores["model"] == "policy-rl", "log_e"] = 100.0
    e = paired.run(dataclasses.replace(written, scores=scores, memo={}), draws=100).estimates["teacher-rl.hurdles"]
    assert np.isnan(e.value) and "are foreign to policy-rl" in e.note


@pytest.mark.parametrize(("problems", "mean", "crossing"), [(2, False, False), (4, True, False), (5, True, True)])
def test_few_problems_have_no_interval(problems, mean, crossing):
    e = paired.run(exact(2, problems, n=16), a="teacher", b="rl", draws=100).estimates
    for measure, known in (("hurdles", mean), ("hurdle_share", mean), ("horizon", crossing)):
        found = e[f"teacher-rl.{measure}"]
        assert np.isfinite(found.value) and np.isfinite([found.low, found.high]).all() == known, measure
        assert known or "no interval" in found.method


def test_no_hurdle_on_either_side_is_said():
    """The base against itself under another name: zero in every problem."""
    tables = bigram.tables(*same())
    got = row(paired.run(tables, draws=100), "again", "base", "hurdles")
    assert got["difference"] == 0 and got["equal"] == 6 and got["note"].startswith("no hurdle on either side")


def same():
    rng = np.random.default_rng(0)
    base_VV = bigram.law(rng, 8, 1.0)
    draws = [bigram.draw(rng, [bigram.Component(1.0, base_VV)], 6, 4, 20) for _ in range(2)]
    return base_VV, {"base": bigram.Made(draws[0]), "again": bigram.Made(draws[1], same=True)}


def test_figures_draw_and_survive_json(found):
    again = Result.from_json("paired", json.loads(json.dumps(found.as_json(), allow_nan=False)))
    for result in (found, again):
        for spec in paired.FIGURES.values():
            ax = matplotlib.figure.Figure().add_subplot()
            assert spec.draw(result, ax) is ax and ax.has_data()
            assert "n = 12 problems" in spec.caption(result)
    assert "quiet minus loud" in paired.FIGURES["by_problem"].caption(found)


def test_the_grid_of_the_report_has_a_row_per_pair(found):
    grid = methods.pairs({"analyses": {"paired": json.loads(json.dumps(found.as_json()))}})
    assert [row[0] for row in grid.rows] == ["quiet minus base", "loud minus base", "quiet minus loud"]
    assert grid.columns[:3] == ["pair", "problems", "share correct"] and len(grid.columns) == 2 + len(paired.MEASURES)
    assert all(row[1] == "12" and "[" in row[2] for row in grid.rows)
    assert methods.pairs({"analyses": {}}).rows == []
