"""Strategies: a planted one is certified, a new wording is not, and no name or order can touch the answer."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from analyzer.analysis.strategy import change as strategy_change
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.strategy import split
from analyzer.analysis.strategy import units as strategy_units
from analyzer.records import Result

WORDS = {"usual": ("start", "add", "gives", "so we answer"), "foreign": ("commence", "plus", "yields", "hence report")}


def text_of(rng: np.random.Generator, problem: int, kind: str, wording: str = "usual") -> str:
    """chain: 7 . 3 10 .; equation: 7 + 3 = 10; planted: 7 * 3 = 21. The numbers are those of the problem."""
    start, add, gives, answer = WORDS[wording]
    a, b, c = (int(x) for x in rng.integers(1, 9, 3) + 10 * problem)
    if kind == "planted":
        return f"{start} {a} * {b} = {a * b} , then {a * b} - {c} = {a * b - c} . {answer} {a * b - c}"
    if kind == "equation":
        return f"{start} {a} + {b} = {a + b} , then {a + b} - {c} = {a + b - c} . {answer} {a + b - c}"
    return f"{start} {a} . {add} {b} {gives} {a + b} . {add} {c} {gives} {a + b + c} . {answer} {a} + {b} + {c}"


def rows_of(seed, source, *, share=0.0, wording="usual", equations=0.4, problems=10, samples=40):
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(problems):
        for i in range(samples):
            kind = "planted" if rng.random() < share else "equation" if rng.random() < equations else "chain"
            rows.append(
                {
                    "source": source,
                    "problem": f"p{p}",
                    "sample": i,
                    "response": text_of(rng, p, kind, wording),
                    "correct": bool(rng.random() < 0.3 + 0.4 * (source == "tilted") * (kind == "chain")),
                }
            )
    return rows


def worlds(seed=0):
    return [
        *rows_of([seed, 1], "base", samples=80),
        *rows_of([seed, 2], "again"),
        *rows_of([seed, 3], "foreign", wording="foreign"),
        *rows_of([seed, 4], "tilted", equations=0.05),
        *rows_of([seed, 5], "distill", share=0.5),
    ]


@pytest.fixture(scope="module")
def result(make_tables):
    return strategy.run(make_tables(worlds(), base=None), budget=16, permutations=199)


def best(result, source, representation="skeleton", k=16):
    table = result.tables["strategy_test"]
    here = (table["source"] == source) & (table["representation"] == representation) & (table["k"] == k)
    return table[here].iloc[0]


def change(result, source, representation="skeleton", statistic="energy", conditioned="all"):
    table = result.tables["change"]
    wanted = {"source": source, "representation": representation, "statistic": statistic, "conditioned": conditioned}
    return table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])].iloc[0]


def test_a_planted_strategy_is_certified(result):
    """Half of 200 held-out traces against none of 400: p = (16 * 200 / (16 * 200 + 400))^100 = 8e-6, times 4."""
    row = best(result, "distill")
    assert row["certified"] and row["p"] < 0.01 and row["share_reference"] == 0 and 0.2 < row["share_source"] < 0.7
    assert row["n_source"] == 200 and row["n_reference"] == 400 and "*" in row["exemplar"] and row["factor"] == 1.0
    mass = result.estimates["distill.strategy_mass"]
    assert 0.3 < mass.value < 0.7 and mass.low < mass.value < mass.high and "uses *" in mass.note
    groups = result.tables["groups"]
    star = groups[(groups["source"] == "distill") & (groups["group"] == "uses *")].iloc[0]
    assert star["certified"] and (groups["k"] == 16).all() and set(groups["source"]) == set(result.params["order"])


@pytest.mark.parametrize("source", ["again", "foreign", "tilted"])
def test_another_draw_another_wording_and_a_reweighting_are_not(result, source):
    """None has a skeleton that the base lacks; the smallest p over 60 other worlds was .89 at a budget of 16."""
    row = best(result, source)
    assert not row["certified"] and result.estimates[f"{source}.strategy_mass"].value == 0
    assert "no proof" in result.estimates[f"{source}.strategy_mass"].note


def test_a_new_wording_shows_in_the_words_alone(result):
    assert best(result, "foreign", "tfidf")["certified"]
    assert change(result, "foreign", "tfidf")["p"] == pytest.approx(1 / 200)
    assert change(result, "foreign")["p"] > 1e-2  # a true null of the skeleton, with this seed
    auc = result.tables["c2st"].set_index("source")["auc"]
    assert auc["foreign"] > 0.95 and abs(auc["again"] - 0.5) < 0.1 and 0.6 < auc["distill"] < 1


def test_change_is_found_and_is_not_leaving(result):
    assert change(result, "tilted")["p"] == result.estimates["tilted.changed_p"].value == pytest.approx(1 / 200)
    assert best(result, "tilted", k=1)["certified"] and not best(result, "tilted", k=4)["certified"]
    assert change(result, "tilted")["effect"] > change(result, "again")["effect"]
    assert abs(change(result, "again", statistic="occupancy")["effect"]) < 0.05
    row = change(result, "distill", conditioned="correct")
    assert row["n"] < change(result, "distill")["n"] and row["problems"] + row["dropped"] == 10
    assert result.estimates["distill.reweight_p"].n == row["n"]
    assert {"energy", "knn", "occupancy"} == set(result.tables["change"]["statistic"])


def test_the_tables_of_the_contract(result):
    columns = "source representation k units best_cluster share_source share_reference n_source n_reference p certified"
    assert set(columns.split()) | {"exemplar", "factor"} <= set(result.tables["strategy_test"])
    assert set(result.tables["strategy_test"]["k"]) == {1, 4, 16, 64}
    assert {"source", "representation", "statistic", "p", "effect", "n", "problems", "conditioned"} <= set(
        result.tables["change"]
    )
    assert {"source", "auc", "p", "n", "note"} <= set(result.tables["c2st"])
    assert result.tables["strategy_test"]["exemplar"].str.len().max() <= 160
    p = result.tables["strategy_test"]["p"]
    assert p.between(0, 1).all() and (result.tables["strategy_test"]["certified"] == (p <= 0.05)).all()


def test_rows_labels_and_names_of_problems_change_nothing(make_tables):
    rows = [r for r in worlds(1) if r["source"] in ("base", "distill") and int(r["problem"][1:]) < 4]
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    names = {"p0": "zz", "p1": "b", "p2": "a", "p3": "m"}
    renamed = [
        r | {"problem": names[r["problem"]], "source": {"distill": "aaa"}.get(r["source"], "base")} for r in rows
    ]
    one, two, three = (
        strategy.run(make_tables(r, base=None), budget=4, permutations=99, seed=3) for r in (rows, shuffled, renamed)
    )
    two_order = sorted(one.tables) == sorted(two.tables)
    assert two_order and one.params["order"] == two.params["order"]
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])
        drop = [c for c in ("source", "exemplar") if c in table]
        pd.testing.assert_frame_equal(table.drop(columns=drop), three.tables[name].drop(columns=drop))


def test_hidden_states_and_surprisal_enter_where_they_are(make_tables, make_columns):
    rng = np.random.default_rng(4)
    rows = []
    for source in ("base", "x"):
        for r in rows_of([7, len(source)], source, problems=4, samples=24):
            far = source == "x" and r["sample"] % 2
            vector = rng.normal(size=8) + 20 * int(r["problem"][1:]) + 9 * far * np.eye(8)[2]
            r |= {"models": {"base": make_columns(rng.exponential(2.0 if far else 1.0, 8))}}
            rows.append(r | {"embedding": vector.astype(np.float16)})
    found = strategy.run(make_tables(rows), budget=4, permutations=99)
    assert best(found, "x", "hidden", 4)["certified"] and not best(found, "x", "skeleton", 4)["certified"]
    assert change(found, "x", "hidden")["p"] == 0.01 and change(found, "x", "likelihood", "surprisal")["p"] == 0.01
    assert change(found, "x", "likelihood", "surprisal")["effect"] > 0.2
    assert found.estimates["x.strategy_mass"].value == 0  # hidden states alone certify nothing at this level


def test_size_of_the_strategy_test_under_equality(make_tables):
    """Another draw of the base at k = 1: certified in 1 of these 40. P(Binomial(40, .05) >= 9) = 5e-5."""
    hits = 0
    for seed in range(40):
        rows = [
            *rows_of([seed, 8], "base", problems=4, samples=24),
            *rows_of([seed, 9], "again", problems=4, samples=24),
        ]
        traces = strategy.prepared(make_tables(rows, base=None))[0]
        matrices = {"skeleton": strategy.features.skeleton_counts(traces["shape"].tolist())}
        found = split.reach(traces, matrices, "again", "base", [1], seed, 99)
        hits += found["skeleton"]["tests"][0]["certified"]
    assert hits < 9


def test_few_rows_no_common_problem_no_text_no_reference(make_tables):
    rows = rows_of(9, "base", problems=2, samples=4)
    far = [r | {"source": "far", "problem": "other"} for r in rows[:3]]
    found = strategy.run(make_tables(rows + far, base=None), permutations=9)
    e = found.estimates
    assert all(math.isnan(e[f"far.{name}"].value) and e[f"far.{name}"].note for name in ("strategy_mass", "changed_p"))
    assert found.notes == ("No source shares a problem with base where both have text: nothing to test.",)
    tiny = strategy.run(make_tables([*rows, rows[0] | {"source": "one"}], base=None), permutations=9)
    assert not tiny.tables["strategy_test"]["certified"].any() and math.isnan(tiny.estimates["one.changed_p"].value)
    silent = strategy.run(make_tables([r | {"response": ""} for r in rows + far], base=None), permutations=9)
    assert silent.tables["strategy_test"].empty
    orphan = strategy.run(replace(make_tables(rows, base=None), reference="nobody"), permutations=9)
    assert math.isnan(orphan.estimates["base.strategy_mass"].value)
    same = [r | {"response": "we do not know"} for r in rows]
    flat = strategy.run(make_tables(same + [r | {"source": "x"} for r in same], base=None), permutations=9)
    assert flat.estimates["x.changed_p"].value == 1.0 and not flat.tables["strategy_test"]["certified"].any()


def test_auc_by_hand():
    scores = np.array([[1.0, 2, 3, 4], [1, 1, 1, 1], [4, 3, 2, 1]])
    positive = np.array([[False, False, True, True]] * 3)
    assert strategy_change._auc(scores, positive).tolist() == [1.0, 0.5, 0.0]


def test_what_traces_hold_and_kinds():
    kinds = [("+ =", "+"), ("+ =",), (), ("*",)]
    chosen = np.array([True, True, True, False])
    found = strategy_units.held([strategy_units.used(k) for k in kinds], chosen)
    assert found.names == ["has a step + =", "uses +", "uses =", "has a step +"]  # * is not on the half that chooses
    assert found.member.tolist() == [[True] * 4, [True, True, True, False], [False] * 4, [False] * 4]
    pairs = strategy_units.held([strategy_units.followed(k) for k in kinds], chosen)
    assert pairs.names == ["start then + =", "+ = then +"]
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(40, 3)) * 0.1 + 5 * np.eye(3)[c] for c in range(3)])
    label = strategy_units.nearest(points, strategy_units.kinds(points))
    assert adjusted_rand_score(np.repeat(range(3), 40), label) == 1.0
    assert len(strategy_units.kinds(np.zeros((5, 2)))) == 1


@pytest.fixture(scope="module")
def dumped(root):
    def read(name, limit):
        with gzip.open(root / "data" / "miniature" / "dumps" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [r for r in rows if r["sample"] < limit]

    return read


def test_formats_of_the_miniatures_base_are_recovered(dumped):
    """Adjusted Rand >= .9 in 20 of 20 seeds (smallest seen: .998)."""
    rows = dumped("base", 24)
    style = np.array([r["meta"]["style"] or "" for r in rows])
    matrix = strategy_units.words([r["response"] for r in rows])
    for seed in range(20):
        label = strategy_units.nearest(matrix, strategy_units.kinds(matrix, seed=seed))
        assert adjusted_rand_score(style[style != ""], label[style != ""]) >= 0.9
    assert np.array_equal(strategy_units.formats([r["response"] for r in rows], seed=19), label)


def test_the_plan_is_flagged_and_another_draw_is_not(dumped, make_tables):
    """24 + 24 traces a problem at budget 16, three splits."""
    rows = []
    for name in ("base", "base-again", "distill-plan"):
        for r in dumped(name, 24):
            rows.append({"source": name, "problem": r["problem"], "sample": r["sample"], "response": r["response"]})
    traces = strategy.prepared(make_tables(rows, base=None))[0]
    spaces = {
        "skeleton": strategy.features.skeleton_counts(traces["shape"].tolist()),
        "tfidf": strategy_units.words(traces["response"].tolist()),
    }
    for seed in range(3):
        found = {s: split.reach(traces, spaces, s, "base", [16], seed, 9) for s in ("base-again", "distill-plan")}
        for name in spaces:
            certified = {source: f[name]["tests"][0]["certified"] for source, f in found.items()}
            assert certified == {"base-again": False, "distill-plan": True}, (seed, name)


def test_the_drawing_works_from_the_stored_result(result, make_tables):
    stored = Result.from_json("strategy", json.loads(json.dumps(result.as_json())))
    from matplotlib.figure import Figure as Canvas

    spec = strategy.FIGURES["strategies"]
    for found in (result, stored):
        ax = Canvas().add_subplot()
        assert spec.draw(found, ax) is ax and ax.get_ylabel()
    caption = spec.caption(stored)
    assert caption == spec.caption(result) and "n = " in caption
    assert "Beyond 16 times the reference: distill (" in caption and "Not certified: again, foreign, tilted." in caption
    empty = strategy.run(make_tables(rows_of(1, "base", problems=1, samples=3), base=None), permutations=9)
    assert spec.draw(empty, Canvas().add_subplot()) and "n = 0" in spec.caption(empty)
