"""Clusters: a planted kind of trace is found, chance is not, and no label can touch the clustering."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.clusters import grouping
from analyzer.analysis.clusters import map as cluster_map
from analyzer.analysis.clusters import run as clusters
from analyzer.records import Result

PLANTED = "let us factor by induction over graphs whose vertices commute"


def text_of(rng, kind: str) -> str:
    """Traces of four usual kinds, or of the planted one, each worded with random numbers."""
    a, b, c = rng.integers(1, 40, 3)
    usual = [
        f"add {a} and {b} gives {a + b} so the answer is {c}",
        f"try {a} times {b} hmm then subtract {c} again",
        f"start {a} . minus {b} . left {c}",
        f"maybe divide {a} by {b} and keep {c}",
    ]
    return f"{PLANTED} {a} {b}" if kind == "planted" else usual[rng.integers(4)]


def rows_of(rng, source, kinds, problems=10, samples=20):
    return [
        {
            "source": source,
            "problem": f"p{p}",
            "sample": i,
            "response": text_of(rng, kinds(i)),
            "correct": None if i == 7 else i % 2 == 0,
        }
        for p in range(problems)
        for i in range(samples)
    ]


def usual(_):
    return "usual"


def half(i):
    return "planted" if i % 2 else "usual"


def planted(seed=0, problems=10, samples=20):
    rng = np.random.default_rng(seed)
    return [
        *rows_of(rng, "base", usual, problems, samples),
        *rows_of(rng, "again", usual, problems, samples),
        *rows_of(rng, "distill", half, problems, samples),
    ]


@pytest.fixture(scope="module")
def result(make_tables):
    return clusters.run(make_tables(planted(), base=None), draws=300)


def test_planted_novelty_is_found_and_a_second_draw_is_not(result):
    """The planted half shares no word with the rest. Over 100 seeds mass - chance of `again` had sd .011 and the mass
    of `distill` mean .501, sd .008: the bounds are 13 standard deviations away, false-alarm rate far below 1e-5."""
    e = result.estimates
    assert e["distill.novel_cluster_mass"].value > 0.4 and e["distill.novel_cluster_mass"].low > 0.2
    mass = result.tables["novel_mass"].set_index("source")
    assert abs(mass.loc["again", "mass"] - mass.loc["again", "chance"]) < 0.15
    assert mass.loc["distill", "mass"] > mass.loc["distill", "aa_mass"] + 0.2
    assert (
        "leave-one-out of base" in e["distill.novel_cluster_mass"].note and "A/A" in e["base.novel_cluster_mass"].note
    )


def test_exemplars_show_what_is_new(result):
    novel = result.tables["novel"]
    best = novel[(novel["source"] == "distill")].iloc[0]
    assert best["text"].startswith(PLANTED) and best["exemplar"].startswith("distill/") and best["share"] == 0.5
    assert best["n_source"] == 10 and best["n_reference"] == 20 and best["reference_below"] == pytest.approx(3 / 20)
    assert best["correct"] == 0.0  # the planted ones are the odd samples
    assert (novel["n_source"] >= 3).all() and novel["text"].str.len().max() <= 200


def test_a_source_with_the_same_texts_has_no_novel_mass(make_tables):
    rows = rows_of(np.random.default_rng(1), "base", usual)
    rows += [r | {"source": "copy"} for r in rows]
    result = clusters.run(make_tables(rows, base=None), draws=100)
    assert (
        result.estimates["copy.novel_cluster_mass"].value == 0
        and result.estimates["copy.novel_cluster_mass"].high < 0.03
    )
    both = result.tables["sources"].set_index("source")
    assert both.loc["copy", "effective"] == both.loc["base", "effective"]


def test_labels_rows_and_names_of_problems_cannot_touch_the_clusters(make_tables):
    rows = planted(2, problems=4)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [rows[i] for i in sorted(order, key=lambda i: ["base", "again", "distill"].index(rows[i]["source"]))]
    one, two = (clusters.run(make_tables(r, base=None), draws=50) for r in (rows, shuffled))
    for name in one.tables:
        pd.testing.assert_frame_equal(one.tables[name], two.tables[name])
    renamed = clusters.run(make_tables([r | {"problem": "z" + r["problem"]} for r in rows], base=None), draws=50)
    assert {k: e.value for k, e in one.estimates.items()} == {k: e.value for k, e in renamed.estimates.items()}
    swapped = [r | {"source": {"base": "distill", "distill": "base"}.get(r["source"], r["source"])} for r in rows]
    a, b = (grouping.cluster_all(grouping.chosen(make_tables(r, base=None))[0], None, 0) for r in (rows, swapped))
    for p, q in zip(a, b):
        by_text = dict(zip(p.frame["response"], p.cluster))
        assert by_text == dict(zip(q.frame["response"], q.cluster))


def test_repeated_traces_do_not_make_clusters(make_tables):
    rng = np.random.default_rng(3)
    rows = rows_of(rng, "base", usual, problems=1, samples=30)
    looped = rows + [rows[0] | {"sample": 100 + i} for i in range(30)]
    once, many = (
        grouping.cluster_all(grouping.chosen(make_tables(r, base=None))[0], None, 0)[0] for r in (rows, looped)
    )
    assert dict(zip(once.frame["response"], once.cluster)) == dict(zip(many.frame["response"], many.cluster))
    assert len(many.cluster) == 60  # they do count in the occupancy
    same = [r | {"response": "the same"} for r in rows]
    assert grouping.cluster_all(grouping.chosen(make_tables(same, base=None))[0], None, 0)[0].cluster.max() == 0


def test_number_of_clusters():
    assert [grouping.number_of_clusters(m) for m in (0, 1, 2, 8, 32, 384, 10_000)] == [1, 1, 1, 2, 4, 14, 16]


def test_halves_in_closed_form():
    assert clusters._half_mass(np.zeros(10, int), 0) == 0
    assert clusters._half_mass(np.arange(10), 0) == 1
    # one pair among singletons: 4 of 5 or 3 of 5 are away from the other half, 5 of 5 when the pair stays together
    assert 0.8 <= clusters._half_mass(np.array([0, 0, *range(1, 9)]), 0) <= 1


def test_chance_is_the_share_of_traces_alone_in_their_cluster(result):
    table = result.tables["clusters"]
    per_problem = table.assign(alone=table["n.base"] == 1).groupby("problem")["alone"].sum() / 20
    assert result.tables["novel_mass"]["chance"].iloc[0] == pytest.approx(per_problem.mean())
    wholly = (
        table[table["n.base"] == 0]
        .groupby("problem")["n.distill"]
        .sum()
        .reindex(table["problem"].unique(), fill_value=0)
    )
    assert result.estimates["distill.novel_cluster_mass"].value == pytest.approx(wholly.mean() / 20)
    assert (table[["n.base", "n.again", "n.distill"]].sum(axis=1) == table["n"]).all()


def test_effective_number_by_hand(result):
    counts = result.tables["clusters"].set_index("problem").loc["p0", "n.base"].to_numpy() / 20
    counts = counts[counts > 0]
    row = result.tables["occupancy"].set_index(["problem", "source"]).loc[("p0", "base")]
    assert row["effective"] == pytest.approx(math.exp(-(counts * np.log(counts)).sum())) and row["touched"] == len(
        counts
    )


def test_hidden_states_lead_where_they_are_and_tfidf_stands_beside(make_tables, make_columns):
    """The texts are all of one kind; only the hidden states of half of distill's traces lie elsewhere."""
    rng = np.random.default_rng(5)
    rows = []
    for source in ("base", "distill"):
        for r in rows_of(rng, source, usual, problems=6):
            vector = rng.normal(size=12)
            if source == "distill" and r["sample"] % 2:
                vector[:6] += 12
            rows.append(r | {"models": {"base": make_columns([1.0])}, "embedding": vector.astype(np.float16)})
    result = clusters.run(make_tables(rows), draws=100)
    assert result.params["representation"] == "hidden states"
    assert result.estimates["distill.novel_cluster_mass"].value >= 0.5
    mass = result.tables["novel_mass"].set_index(["representation", "source"])
    assert mass.loc[("TF-IDF", "distill"), "mass"] < 0.25
    assert result.estimates["distill.novel_cluster_mass"].note.startswith("from hidden states")
    x = result.tables["map"].set_index("key")["x"].astype(float)
    odd = x.index.str.startswith("distill") & (x.index.str.extract(r"/(\d+)$")[0].astype(int) % 2 == 1).to_numpy()
    assert (x[odd] > 0).all() != (x[odd] < 0).all() and (np.sign(x[odd]).iloc[0] != np.sign(x[~odd]).median())


def test_traces_without_text_are_told_apart_by_their_states(make_tables, make_columns):
    rng = np.random.default_rng(6)
    rows = [
        {
            "source": s,
            "problem": "p",
            "sample": i,
            "models": {"base": make_columns([1.0])},
            "embedding": rng.normal(size=4).astype(np.float16),
        }
        for s in ("base", "x")
        for i in range(8)
    ]
    result = clusters.run(make_tables(rows), draws=50)
    assert len(result.tables["clusters"]) == 3 and set(result.tables["novel_mass"]["representation"]) == {
        "hidden states"
    }


def test_the_limit_takes_the_lowest_samples_and_is_reported(make_tables):
    rows = rows_of(np.random.default_rng(7), "base", usual, problems=2, samples=70)
    result = clusters.run(make_tables(rows[::-1], base=None), draws=50)
    assert result.tables["occupancy"]["n"].tolist() == [64, 64]
    assert "At most 64 traces per source and problem are clustered: 12 of 140 are left out." in result.notes
    kept = grouping.chosen(make_tables(rows, base=None))[0]
    assert kept["sample"].max() == 63


def test_no_common_problem_no_text_no_reference(make_tables):
    rows = rows_of(np.random.default_rng(8), "base", usual, problems=2)
    rows += [r | {"source": "far", "problem": "other"} for r in rows[:5]]
    e = clusters.run(make_tables(rows, base=None), draws=50).estimates["far.novel_cluster_mass"]
    assert math.isnan(e.value) and e.note == "far and base have no problem in common that could be clustered"
    silent = clusters.run(make_tables([r | {"response": ""} for r in rows], base=None), draws=50)
    assert math.isnan(silent.estimates["base.novel_cluster_mass"].value)
    assert silent.notes == ("No trace has a text or a hidden state: nothing to cluster.",)
    orphan = clusters.run(replace(make_tables(rows, base=None), reference="nobody"), draws=50)
    assert all(math.isnan(e.value) for e in orphan.estimates.values()) and orphan.tables["novel"].empty


@pytest.mark.parametrize(("planted_traces", "listed"), [(2, False), (3, True)])
def test_a_novel_cluster_needs_three_traces(make_tables, make_columns, planted_traces, listed):
    """Four tight kinds of both sources in 40 distinct texts, a fifth of x alone: sqrt(42 / 2) makes five clusters."""
    rng = np.random.default_rng(10)
    rows = []
    kinds = [("base", i % 4) for i in range(20)] + [("x", i % 4) for i in range(20)] + [("x", 4)] * planted_traces
    for i, (source, kind) in enumerate(kinds):
        vector = (5 * np.eye(5)[kind] + 0.01 * rng.normal(size=5)).astype(np.float16)
        models = {"base": make_columns([1.0])}
        rows.append(
            {"source": source, "problem": "p", "sample": i, "response": f"t {i}", "models": models, "embedding": vector}
        )
    result = clusters.run(make_tables(rows), draws=50)
    table, novel = result.tables["clusters"], result.tables["novel"]
    assert ((table["n.base"] == 0) & (table["n.x"] == planted_traces)).any()
    hidden = novel[novel["representation"] == "hidden states"] if len(novel) else novel
    assert (len(hidden) == 1) == listed


def test_the_map_is_around_each_problems_mean(make_tables, make_columns):
    rng = np.random.default_rng(11)
    rows = [
        {
            "source": "base",
            "problem": f"p{p}",
            "sample": i,
            "response": f"{p} {i}",
            "models": {"base": make_columns([1.0])},
            "embedding": (20 * p + rng.normal(size=5)).astype(np.float16),
        }
        for p in range(4)
        for i in range(12)
    ]
    table = clusters.run(make_tables(rows), draws=50).tables["map"]
    assert np.allclose(table.groupby("problem")[["x", "y"]].mean(), 0, atol=1e-3) and table["x"].std() > 0.01


def test_the_map_is_bounded_and_shared_evenly(make_tables, monkeypatch):
    monkeypatch.setattr(clusters, "POINTS", 90)
    result = clusters.run(make_tables(planted(9, problems=3), base=None), draws=50)
    assert result.tables["map"]["source"].value_counts().to_dict() == {"base": 30, "again": 30, "distill": 30}
    assert result.params["map_points"] == 90


def test_what_the_figure_leaves_out_lies_on_its_axes(make_tables, make_columns, monkeypatch):
    """Members beyond the points of the figure are projected: near the place that a fit on all of them gives."""
    rng = np.random.default_rng(12)
    rows = [
        {
            "source": source,
            "problem": f"p{p}",
            "sample": i,
            "response": f"{source} {p} {i}",
            "models": {"base": make_columns([1.0])},
            "embedding": (5 * p + rng.normal(size=6) * [6, 3, 1, 1, 1, 1]).astype(np.float16),
        }
        for source, n in (("base", 40), ("x", 10))
        for p in range(2)
        for i in range(n)
    ]
    whole = clusters.run(make_tables(rows), draws=50).tables
    assert whole["map"]["key"].tolist() == whole["members"]["key"].tolist() and len(whole["members"]) == 100
    monkeypatch.setattr(clusters, "POINTS", 60)
    monkeypatch.setattr(clusters, "MEMBERS", 90)
    part = clusters.run(make_tables(rows), draws=50).tables
    members = part["members"].set_index("key")
    assert part["map"]["source"].value_counts().to_dict() == {"base": 30, "x": 20}
    assert members.index.str.startswith("x").sum() == 20 and len(members) == 90  # 70 of base, all of x
    for axis in ("x", "y"):
        assert (members.loc[part["map"]["key"], axis].to_numpy() == part["map"][axis].to_numpy()).all()
        both = whole["members"].set_index("key").loc[members.index, axis]
        assert abs(np.corrcoef(members[axis], both)[0, 1]) > 0.9
    assert (members["cluster"] == whole["members"].set_index("key").loc[members.index, "cluster"]).all()


def test_a_problem_that_the_figure_lacks_is_around_its_own_mean(make_tables, make_columns, monkeypatch):
    monkeypatch.setattr(clusters, "POINTS", 6)
    rng = np.random.default_rng(13)
    rows = [
        {
            "source": "base",
            "problem": f"p{p}",
            "sample": i,
            "response": f"{p} {i}",
            "models": {"base": make_columns([1.0])},
            "embedding": (20 * p + rng.normal(size=5)).astype(np.float16),
        }
        for p in range(9)
        for i in range(6)
    ]
    found = clusters.run(make_tables(rows), draws=50).tables
    members = found["members"].assign(problem=[key.split("/")[1] for key in found["members"]["key"]])
    lost = members[~members["problem"].isin(found["map"]["problem"])]
    assert len(members) == 54 and lost["problem"].nunique() >= 3
    assert np.allclose(lost.groupby("problem")[["x", "y"]].mean(), 0, atol=1e-3)
    assert (lost.groupby("problem")["x"].std() > 0.01).all()


@pytest.mark.parametrize(
    ("number", "at_most", "quota"), [([5, 5], 20, 5), ([10, 2], 8, 6), ([4, 4], 3, 1), ([9], 4, 4)]
)
def test_quota(number, at_most, quota):
    assert cluster_map.quota(np.array(number), at_most) == quota


def test_drawings_work_from_the_stored_result(result):
    stored = Result.from_json("clusters", json.loads(json.dumps(result.as_json())))
    from matplotlib.figure import Figure as Canvas

    for name, spec in clusters.FIGURES.items():
        for found in (result, stored):
            ax = Canvas().add_subplot()
            assert spec.draw(found, ax) is ax and ax.get_ylabel(), name
        assert spec.caption(stored) == spec.caption(result) and "n = " in spec.caption(result)
