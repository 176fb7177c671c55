"""Perplexity by hand on small tables, its invariances, and the paired comparison against a loop."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.perplexity import figures
from analyzer.analysis.perplexity import run as perplexity
from analyzer.errors import UsageError
from analyzer.records import Result, Sampler

KEYS = ("ppl.median", "nll_per_token", "share_below_reference_median", "excess_z.median")


def row(source, problem, sample, models, **more):
    return {"source": source, "problem": problem, "sample": sample, "models": models, **more}


@pytest.fixture
def small(make_tables, make_columns):
    """Two problems; base .5, 1, 1.5 and 2, 4 nats a token; rlvr below, in the middle and above, with its own model."""
    c = make_columns
    rows = [row("base", "a", i, {"base": c([s] * 4)}, response="x" * 8) for i, s in enumerate((0.5, 1.0, 1.5))]
    rows += [row("base", "b", i, {"base": c([s] * 2)}, response="x" * 4) for i, s in enumerate((2.0, 4.0))]
    for i, (problem, s) in enumerate([("a", 0.25), ("a", 1.0), ("b", 3.5), ("c", 9.0)]):
        models = {"base": c([s] * 4), "policy-rlvr": c([s / 2] * 4)}
        rows.append(row("rlvr", problem, i, models, correct=i < 1, response="x" * 8))
    return make_tables(rows, policies={"base": "base", "rlvr": "policy-rlvr"})


def same(a: Result, b: Result) -> None:
    assert a.as_json()["estimates"] == b.as_json()["estimates"]
    for name, table in a.tables.items():
        pd.testing.assert_frame_equal(table, b.tables[name])


def test_estimates_by_hand(small):
    e = perplexity.run(small, draws=200).estimates
    assert e["rlvr.ppl.median"].value == pytest.approx((math.exp(1.0) + math.exp(3.5)) / 2)
    assert e["base.ppl.median"].value == pytest.approx(math.exp(1.5))
    assert e["base.nll_per_token"].value == pytest.approx((4 * 3 + 2 * 6) / 16)
    assert e["rlvr.nll_per_token"].value == pytest.approx((0.25 + 1 + 3.5 + 9) / 4)
    # medians of the reference: 1 in a, 3 in b; a tie is not below; problem c has no reference
    assert e["rlvr.share_below_reference_median"].value == pytest.approx(1 / 3)
    assert e["rlvr.share_below_reference_median"].n == 3 and e["rlvr.ppl.median"].n == 4
    assert e["rlvr.excess_z.median"].value == pytest.approx(np.median([2 * (s - 1) for s in (0.25, 1, 3.5, 9)]))
    assert set(e) == {f"{s}.{k}" for s in ("base", "rlvr") for k in KEYS}


def test_boxes_hold_every_source_under_every_model(small):
    boxes = perplexity.run(small, draws=50).tables["boxes"].set_index("box")
    assert list(boxes.index) == ["PPL_base(Y_base)", "PPL_base(Y_rlvr)", "PPL_policy-rlvr(Y_rlvr)"]
    assert boxes.loc["PPL_policy-rlvr(Y_rlvr)", "median"] == pytest.approx((math.exp(0.5) + math.exp(1.75)) / 2)
    assert boxes["own_model"].tolist() == [True, False, True] and boxes["n"].tolist() == [5, 4, 4]


def test_characters_correctness_and_pairs(small):
    tables = perplexity.run(small, draws=50).tables
    sources = tables["sources"].set_index("source")
    assert sources.loc["rlvr", "nll_per_character"] == pytest.approx(4 * 13.75 / 32)
    # percentiles of rlvr: 0, 1/2 among .5, 1, 1.5 and 1/2 among 2, 4
    assert sources.loc["rlvr", "percentile_mean"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert sources.loc["rlvr", "inside_range"] == pytest.approx(2 / 3)
    right = tables["correct"].set_index(["source", "correct"])
    assert right.loc[("rlvr", "correct"), "n"] == 1 and right.loc[("rlvr", "wrong"), "n"] == 3
    assert right.loc[("base", "unknown"), "n"] == 5
    pairs = tables["problems"].set_index(["source", "problem"])
    assert pairs.loc[("rlvr", "a"), "percentile_median"] == 0.25 and math.isnan(pairs.loc[("rlvr", "c"), "share_below"])


def test_percentiles_are_captioned_with_the_traces_that_have_one(small):
    """Of the four traces of rlvr one is of a problem without a trace of the reference."""
    said = figures.caption_percentiles(perplexity.run(small, draws=50))
    assert "base 50 (n = 5 traces" in said and "rlvr 33 (n = 3 traces" in said and "Share of problems (2)" in said


def test_percentiles_equal_a_loop(make_tables, make_world):
    tables = make_tables(make_world(3, sources={"base": 1.0, "rlvr": 0.7}, problems=5, samples=6))
    table = perplexity.run(tables, draws=50).tables["problems"].set_index(["source", "problem"])
    nll = tables.scores.set_index(["source", "problem", "sample"])["nll_mean"]
    for source, problem in table.index:
        found = []
        for i, x in nll[source, problem].items():
            others = [y for j, y in nll["base", problem].items() if (source, i) != ("base", j)]
            found.append(np.mean([1.0 if y < x else 0.5 if y == x else 0.0 for y in others]))
        assert table.loc[(source, problem), "percentile_median"] == pytest.approx(np.median(found))
    base = tables.scores[tables.scores["source"] == "base"]
    each = perplexity._against(base, "base", "nll_mean", "").groupby(base["problem"])["percentile"]
    assert each.min().eq(0).all() and each.max().eq(1).all()  # a reference trace does not face itself
    own = perplexity.run(tables, draws=50).tables["sources"].set_index("source")
    assert own.loc["base", "percentile_mean"] == pytest.approx(0.5)


def test_another_draw_of_the_base_lies_in_its_middle(make_tables, make_world):
    """The same distribution twice: a trace is below the reference's median half of the time. The standard error of the
    difference is at most sqrt(.25/400 + .25/400 * pi/2) = .04; five of them, false-alarm rate below 1e-5."""
    tables = make_tables(make_world(1, sources={"base": 1.0, "again": 1.0, "cool": 0.6}, problems=20, samples=20))
    e = perplexity.run(tables, draws=300).estimates
    assert abs(e["again.share_below_reference_median"].value - 0.5) < 0.2
    assert e["cool.share_below_reference_median"].low > 0.6
    assert e["base.share_below_reference_median"].value == 0.5


def test_order_and_parts_change_nothing_and_names_of_problems_no_value(make_tables, make_world):
    rows = make_world(2, sources={"base": 1.0, "rlvr": 0.8})
    plain = perplexity.run(make_tables(rows), draws=100)
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = [rows[i] for i in sorted(order, key=lambda i: rows[i]["source"] != "base")]
    shuffled = perplexity.run(make_tables(mixed, part=3), draws=100)
    for key, e in plain.estimates.items():
        got = shuffled.estimates[key]
        assert (got.value, got.low, got.high) == pytest.approx((e.value, e.low, e.high), rel=1e-12)
    renamed = perplexity.run(make_tables([r | {"problem": "q" + r["problem"][::-1]} for r in rows]), draws=100)
    assert {k: e.value for k, e in renamed.estimates.items()} == pytest.approx(
        {k: e.value for k, e in plain.estimates.items()}
    )
    same(plain, perplexity.run(make_tables(rows), draws=100))


def test_every_trace_twice_changes_no_number_but_n(make_tables, make_world):
    rows = make_world(4, sources={"base": 1.0, "rlvr": 0.8}, problems=12, samples=6)
    twice = rows + [r | {"sample": r["sample"] + 100} for r in rows]
    one, two = (perplexity.run(make_tables(r), draws=100).estimates for r in (rows, twice))
    for key, e in one.items():
        assert two[key].value == pytest.approx(e.value) and two[key].n == 2 * e.n
        if "share" not in key:
            assert (two[key].low, two[key].high) == pytest.approx((e.low, e.high))
        else:  # a share is worth at most as many independent traces as there are; n enters the quantile of Student's t
            assert e.low - 0.005 <= two[key].low < e.value < two[key].high <= e.high + 0.005


def test_how_many_problems_an_interval_needs(make_tables, make_world):
    """Shares from three problems on, medians and ratios from five; the numbers themselves from one."""
    rows = make_world(8, sources={"base": 1.0, "rlvr": 0.8}, problems=5)
    for problems in range(1, 6):
        some = [r for r in rows if int(r["problem"][1:]) < problems]
        e = perplexity.run(make_tables(some), draws=100).estimates
        for key in KEYS:
            least = 3 if "share" in key else 5
            found = e[f"rlvr.{key}"]
            assert math.isnan(found.low) == math.isnan(found.high) == (problems < least), key
            assert math.isfinite(found.value) and (problems >= least or f"{least} are needed" in found.method)


def test_one_huge_perplexity_moves_nothing_much(make_tables, make_world, make_columns):
    rows = make_world(5, sources={"base": 1.0, "rlvr": 0.8}, samples=20)
    wild = [*rows[:-1], rows[-1] | {"models": {"base": make_columns([9.9] * 5)}}]  # perplexity 2e4
    calm, shaken = (perplexity.run(make_tables(r), draws=100).estimates["rlvr.ppl.median"].value for r in (rows, wild))
    assert abs(shaken / calm - 1) < 0.02


def test_training_steps_follow_yue_c4_and_the_last_one_counts(make_tables, make_columns):
    rows = [row("base", p, i, {"base": make_columns([1.0 + i])}) for p in "ab" for i in range(3)]
    for step, s in ((100, 0.8), (200, 0.4)):
        rows += [row("grpo", "a", i, {"base": make_columns([s * (i + 1)])}, step=step) for i in range(3)]
        rows += [row("grpo", "b", i, {"base": make_columns([s])}, step=step) for i in range(3)]
    rows += [row("grpo", "z", 0, {"base": make_columns([7.0])}, step=100)]  # not in every step: left out
    result = perplexity.run(make_tables(rows), draws=100)
    steps = result.tables["steps"].set_index("step")
    assert steps.loc[100, "ppl"] == pytest.approx((math.exp(1.6) + math.exp(0.8)) / 2)
    assert (
        steps.loc[200, "ppl"] == pytest.approx((math.exp(0.8) + math.exp(0.4)) / 2) and steps.loc[200, "problems"] == 2
    )
    assert result.estimates["grpo.ppl.median"].n == 6
    assert result.estimates["grpo.nll_per_token"].value == pytest.approx((0.4 + 0.8 + 1.2 + 3 * 0.4) / 6)
    assert any("last training step" in n for n in result.notes)


def test_copying_is_seen_beside_the_plain_number(make_tables, make_columns):
    loop = make_columns([2.0] * 8 + [0.0] * 24, token=list(range(8)) * 4)
    rows = [row("base", "a", i, {"base": make_columns([1.0 + 0.1 * i] * 32)}) for i in range(4)]
    rows += [row("loops", "a", i, {"base": loop}) for i in range(4)]
    result = perplexity.run(make_tables(rows), draws=50)
    table = result.tables["masked"].set_index("source")
    assert table.loc["loops", "copied_share"] == 0.75 and table.loc["base", "copied_share"] == 0
    assert table.loc["loops", "ppl_median"] == pytest.approx(math.exp(0.5))
    assert table.loc["loops", "ppl_masked_median"] == pytest.approx(math.exp(2.0))
    assert table.loc["loops", "share_below"] == 1 and table.loc["loops", "share_below_masked"] == 0
    assert any(n.startswith("loops copies 75.0% of its tokens") for n in result.notes)


def test_histogram_counts_every_token_once(make_tables, make_columns):
    rows = [row("base", "a", 0, {"base": make_columns([0.0, 0.5, 1.0, 1.0, 200.0, 0.00005])})]
    table = perplexity.run(make_tables(rows), draws=50).tables["token_surprisal"]
    assert table["count"].sum() == 6 and table["share"].sum() == pytest.approx(1)
    at_one = table[np.isclose(table["low"], 1.0)].iloc[0]
    assert at_one["at_least"] == pytest.approx(3 / 6) and table["at_least"].iloc[0] == 1


def test_without_scores_it_refuses_and_without_a_source_it_says_so(small):
    with pytest.raises(UsageError, match="perplexity needs scores under a base model: --base MODEL"):
        perplexity.run(replace(small, base=None))
    part = replace(small, scores=small.scores[small.scores["source"] == "base"])
    e = perplexity.run(part, draws=50).estimates["rlvr.ppl.median"]
    assert math.isnan(e.value) and e.note == "no trace was scored under the base model"


def test_an_impossible_token_and_unknown_columns_break_nothing(make_tables, make_columns):
    bare = {"token": np.arange(3), "logprob": -np.ones(3)}
    rows = [row(s, "a", 0, {"base": make_columns([1.0, np.inf])}) for s in ("base", "rlvr")]
    rows += [row(s, "b", 0, {"base": bare}) for s in ("base", "rlvr")]
    rows += [row(s, "c", 0, {"base": {"token": np.arange(2), "logprob": np.full(2, np.nan)}}) for s in ("base", "rlvr")]
    result = perplexity.run(make_tables(rows), draws=50)
    assert result.estimates["rlvr.ppl.median"].n == 2 and result.estimates["rlvr.excess_z.median"].n == 1
    assert any(n.startswith("2 scored rows have no surprisal") for n in result.notes)
    assert json.dumps(result.as_json(), allow_nan=False)


def test_another_sampler_is_pointed_out(make_tables, make_world):
    rows = make_world(6, sources={"base": 1.0, "cool": 0.8}, problems=2, samples=3)
    notes = perplexity.run(make_tables(rows, samplers={"base": Sampler(), "cool": Sampler(0.6)}), draws=50).notes
    assert any("another sampler than base: cool" in n for n in notes)
    notes = perplexity.run(make_tables(rows, samplers={"base": Sampler(), "cool": Sampler()}), draws=50).notes
    assert not any("another sampler" in n for n in notes)


def test_drawings_work_from_the_stored_result(make_tables, make_world):
    rows = make_world(7, sources={"base": 1.0, "grpo": 0.8}, problems=4, samples=4)
    rows += [r | {"step": 10, "source": "late"} for r in rows if r["source"] == "grpo"]
    result = perplexity.run(make_tables(rows), draws=50)
    stored = Result.from_json("perplexity", json.loads(json.dumps(result.as_json())))
    from matplotlib.figure import Figure as Canvas

    for name, spec in perplexity.FIGURES.items():
        for found in (result, stored):
            ax = Canvas().add_subplot()
            assert spec.draw(found, ax) is ax and ax.get_xlabel() + ax.get_ylabel(), name
        caption = spec.caption(stored)
        assert caption == spec.caption(result) and ("n = " in caption or "problems)" in caption), name
