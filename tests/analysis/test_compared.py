"""The key numbers over the problems that are compared: all of a row's numbers and counts over one set of traces."""

from __future__ import annotations

import math

import pytest

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.pairs import compared
from analyzer.analysis.perplexity import run as perplexity
from analyzer.errors import UsageError
from analyzer.pages import gaps


@pytest.fixture
def world(make_tables, make_columns):
    """problems: source -> name -> nats per token; two traces of four tokens on each, the first one correct."""

    def make(problems):
        rows = [
            {"source": s, "problem": p, "sample": i, "models": {"base": make_columns([nats] * 4)}, "correct": i < 1}
            for s, own in problems.items()
            for p, nats in own.items()
            for i in range(2)
        ]
        return make_tables(rows)

    return make


def run(tables):
    made = {"perplexity": perplexity.run(tables, draws=50), "boundary": boundary.run(tables, draws=50)}
    result = compared.run(tables, made, draws=50)
    return result, result.tables["rows"].set_index("row")


def test_all_numbers_of_a_row_are_over_the_problems_that_all_have(world):
    """b is more surprising than a on every problem; over its own problems it looks less so."""
    base = {str(i): 1.0 for i in range(8)}
    a = {"0": 0.5, "1": 0.5, "2": 0.5, "6": 9.0, "7": 9.0}
    b = {"0": 0.8, "1": 0.8, "2": 0.8, "4": 0.1, "5": 0.1}
    tables = world({"base": base, "a": a, "b": b})
    result, rows = run(tables)
    e = result.estimates
    assert [e[f"{s}.nll_per_token"].value for s in ("base", "a", "b")] == pytest.approx([1, 0.5, 0.8])
    assert [e[f"{s}.ppl.median"].n for s in ("base", "a", "b")] == [6, 6, 6]
    assert {e[f"{s}.pass@1"].n for s in ("base", "a", "b")} == {3}
    counts = rows[list(compared.COUNTS)].to_numpy().tolist()
    assert counts == [[3, 6, 3, 3, 6, 24]] * 3 and rows.index.tolist() == ["base", "a", "b"]
    own = perplexity.run(tables, draws=50).estimates
    assert own["a.nll_per_token"].value > own["b.nll_per_token"].value  # what would have stood side by side


def test_pairs_stand_with_the_reference_on_their_own_problems(world):
    base = {str(i): float(i) for i in range(1, 8)}
    tables = world({"base": base, "a": {"1": 0.5, "2": 0.5}, "c": {"6": 0.5, "7": 0.5, "9": 0.5}})
    result, rows = run(tables)
    on_a, on_c = "base (on the problems of a)", "base (on the problems of c)"
    assert rows.index.tolist() == [on_a, "a", on_c, "c"] and rows["problems"].tolist() == [2, 2, 2, 2]
    assert result.estimates[f"{on_a}.nll_per_token"].value == pytest.approx(1.5)
    assert result.estimates[f"{on_c}.nll_per_token"].value == pytest.approx(6.5)
    assert result.estimates["c.pass@1"].n == 2


def test_a_source_that_shares_nothing_keeps_its_own_numbers(world):
    base = {str(i): 1.0 for i in range(4)}
    result, rows = run(world({"base": base, "far": {"x": 3.0, "y": 3.0}}))
    assert rows["on"].tolist() == ["on its own problems"] * 2 and rows["problems"].tolist() == [4, 2]
    assert result.estimates["far (on its own problems).nll_per_token"].value == pytest.approx(3)
    assert result.estimates["far (on its own problems).pass@1"].value == pytest.approx(0.5)


def test_equal_problems_need_nothing(world):
    tables = world({s: {str(i): 1.0 for i in range(3)} for s in ("base", "rl")})
    with pytest.raises(UsageError, match="every source has the same problems"):
        compared.run(tables, {}, draws=50)


def test_sources_without_labels_or_scores_are_counted_by_what_was_read(make_tables):
    rows = [{"source": s, "problem": str(p), "sample": 0} for s, n in (("base", 4), ("rl", 3)) for p in range(n)]
    tables = make_tables(rows, base=None)
    result = compared.run(tables, {"boundary": boundary.run(tables, draws=50)}, draws=50)
    found = result.tables["rows"].set_index("row")
    assert found["problems"].tolist() == [3, 3] and found["correct"].isna().all()
    assert math.isnan(result.estimates["rl.pass@1"].value) and found["tokens"].isna().all()


def test_scored_numbers_are_over_the_problems_that_are_scored_in_all(make_tables, make_columns):
    """The same tokens in all; of one problem that is dear, a's traces are not scored: no source may look cheaper."""
    nats = {"0": 1.0, "1": 1.0, "2": 5.0}
    rows = [
        {"source": s, "problem": p, "sample": i, "correct": i < 1}
        | ({} if s == "a" and p == "2" else {"models": {"base": make_columns([x] * 4)}})
        for s in ("base", "a", "b")
        for p, x in nats.items()
        for i in range(2)
    ]
    result, found = run(make_tables(rows))
    assert [result.estimates[f"{s}.nll_per_token"].value for s in ("base", "a", "b")] == pytest.approx([1, 1, 1])
    assert found["problems_scored"].tolist() == [2, 2, 2] and found["problems"].tolist() == [3, 3, 3]
    assert {result.estimates[f"{s}.pass@1"].n for s in ("base", "a", "b")} == {3}
    told = gaps.found(found.reset_index().to_dict("records"))
    assert [gap.sentence for gap in told] == [
        "The scored numbers are over 2 of the 3 alone: those scored in every source that has any "
        "(scored: a 2 of 3 problems)."
    ]


def test_where_nothing_is_scored_in_all_each_row_says_its_own_number(make_tables, make_columns):
    rows = [
        {"source": s, "problem": str(p), "sample": 0}
        | ({"models": {"base": make_columns([1.0] * 4)}} if (p < 2) == (s == "base") else {})
        for s in ("base", "a")
        for p in range(5)
    ]
    _, found = run(make_tables(rows))
    assert found["problems_scored"].tolist() == [2, 3]
    told = gaps.found(found.reset_index().to_dict("records"))
    assert [gap.sentence for gap in told] == [
        "No problem is scored in all sources: the scored numbers are over different problems in each row "
        "(base 2 of 5, a 3 of 5; scored: base 2 of 5 problems, a 3 of 5 problems)."
    ]
    assert told[0].clause == "scored numbers on fewer"


def test_each_pair_is_over_what_both_of_it_have(make_tables, make_columns):
    own = {"base": range(1, 8), "a": (1, 2, 3), "c": (6, 7)}
    rows = [
        {"source": s, "problem": str(p), "sample": 0, "correct": None if (s, p) == ("a", 3) else True}
        | ({} if (s, p) == ("base", 1) else {"models": {"base": make_columns([1.0] * 4)}})
        for s, problems in own.items()
        for p in problems
    ]
    _, found = run(make_tables(rows))
    assert found["problems"].tolist() == found["problems_scored"].tolist() == [2, 2, 2, 2]
    solved, scored = gaps.found(found.reset_index().to_dict("records"))
    assert solved.sentence == (
        "pass@k is over the problems with labels in both sources of a pair (base (on the problems of a) 2 of 3, "
        "a 2 of 3, base (on the problems of c) 2 of 2, c 2 of 2; with labels: a 2 of 3 problems)."
    )
    assert scored.clause == "scored numbers on fewer" and scored.lacking == "scored: base 6 of 7 problems"
