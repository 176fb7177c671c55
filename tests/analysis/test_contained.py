"""contained@k on texts whose classes are known: exact values, what is unknown, order and names that must not matter."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.contained import run as contained
from analyzer.records import LEVELS
from analyzer.stats.contained import missed

METHODS = {"sum": "Add them: {a} + {b} = {c}.", "product": "Multiply: {a} * {b} = {d}.", "prose": "It is obvious."}


def rows(source, methods, *, problems=4, wording="", answer=None, **more):
    """One row per problem and entry of methods (names of METHODS)."""
    out = []
    for p in range(problems):
        a, b = p + 2, p + 5
        for i, name in enumerate(methods):
            text = wording + METHODS[name].format(a=a, b=b, c=a + b, d=a * b)
            right = name != "prose"
            said = {"answer": answer or name, "correct": right, "finish": "stop"}
            out.append({"source": source, "problem": f"p{p}", "sample": i, "response": text} | said | more)
    return out


@pytest.fixture(scope="module")
def result(make_tables):
    base = rows("base", ["sum"] * 9 + ["product"] * 3 + ["prose"])
    known = rows("known", ["sum", "product"], wording="Okay, let us see. ")
    novel = rows("novel", ["sum", "sum", "novel"][:2]) + [
        row | {"sample": 2, "response": f"Take {p} / 3 = 1.", "answer": "new"}
        for p, row in enumerate(rows("novel", ["sum"]))
    ]
    return contained.run(make_tables([*base, *known, *novel], base=None), budget=64)


def at_level(result, source, level):
    table = result.tables["levels"]
    return table[(table["source"] == source) & (table["level"] == level)].iloc[0]


@pytest.mark.parametrize("level", ["skeleton", "steps", "kinds", "answer"])
def test_exact_values_at_the_largest_budget_that_all_allow(result, level):
    n = 13  # draws of the base: k = 8
    sums, products, prose = 1 - missed([9, 3, 1], n, 8)
    own = 1 - missed([8, 2, 0], n - 1, 8)
    assert at_level(result, "known", level)["contained"] == pytest.approx((sums + products) / 2)
    assert at_level(result, "novel", level)["contained"] == pytest.approx(2 * sums / 3)
    least = {"answer": [9, 3, 1]}.get(level, [9, 3])  # a text without a formula has no method
    assert at_level(result, "base", level)["contained"] == pytest.approx(np.average(own[: len(least)], weights=least))
    gap = result.estimates[f"novel.contained_gap@8.{level}"]
    assert gap.value == pytest.approx(
        at_level(result, "novel", level)["contained"] - at_level(result, "base", level)["contained"]
    )
    assert result.estimates[f"known.contained@8.{level}"].n == 8 and "k = 8 and not 64" in gap.note
    assert set(result.tables["levels"]["k"]) == {8}


def test_correct_is_the_coarsest_level(result):
    assert at_level(result, "known", "correct")["contained"] == pytest.approx(1 - missed(12, 13, 8))


def test_exemplars_show_what_only_one_side_has(result):
    table = result.tables["exemplars"]
    alone = table[(table["source"] == "novel") & (table["level"] == "steps") & (table["only"] == "novel")]
    assert set(alone["class"]) == {"/"} and alone["text"].str.startswith("Take").all() and (alone["of"] == 3).all()
    lost = table[(table["source"] == "novel") & (table["level"] == "kinds") & (table["only"] == "base")]
    assert set(lost["class"]) == {"*"} and (lost["traces"] == 3).all()
    assert not len(table[(table["source"] == "known") & (table["only"] == "known")])


def test_a_text_without_a_formula_is_unknown_and_counts_against_the_bound(make_tables):
    base, mute = rows("base", ["sum"] * 40, problems=60), rows("mute", ["sum"] * 9 + ["prose"], problems=60)
    found = contained.run(make_tables([*base, *mute], base=None), budget=8)
    row = at_level(found, "mute", "steps")
    assert row["contained"] == 1 and row["unknown"] == pytest.approx(0.1) and row["miss_high"] > 0.1 > row["best"]
    assert row["p_inside"] == 1 and "10.00% of the traces are left out" in row["note"]
    sure = at_level(
        contained.run(make_tables([*base, *rows("same", ["sum"], problems=60)], base=None), budget=8), "same", "steps"
    )
    assert sure["miss_high"] <= 0.05 and sure["unknown"] == 0
    none = contained.run(make_tables([*rows("base", ["prose"] * 4), *rows("s", ["prose"])], base=None), budget=8)
    assert math.isnan(none.estimates["s.contained@8.steps"].value) and at_level(none, "s", "answer")["contained"] == 1
    assert "no operator, function or code" in none.estimates["s.contained@8.steps"].note


def test_what_is_not_there_is_said(make_tables):
    one = contained.run(make_tables([*rows("base", ["sum"]), *rows("s", ["sum"])], base=None))
    assert "a single draw of a problem" in one.estimates["s.contained@64.steps"].note
    bare = [r | {"answer": None, "correct": None} for r in [*rows("base", ["sum"] * 5), *rows("s", ["sum"])]]
    found = contained.run(make_tables(bare, base=None))
    assert "no answer in the dump" in found.estimates["s.contained@64.answer"].note
    assert "does not say which rows are correct" in found.estimates["s.contained@64.correct"].note
    apart = [*rows("base", ["sum"] * 5), *[r | {"problem": "x" + r["problem"]} for r in rows("s", ["sum"])]]
    assert "no problem in common" in contained.run(make_tables(apart, base=None)).estimates["s.contained@64.steps"].note
    alone = contained.run(make_tables(rows("base", ["sum"] * 5), base=None))
    assert at_level(alone, "base", "steps")["contained"] == 1 and set(alone.estimates) == {
        f"base.contained@4.{level}" for level in LEVELS[1:]
    }


def test_order_and_names_do_not_matter_and_fewer_draws_say_so(make_tables):
    data = [*rows("base", ["sum"] * 9 + ["product"] * 3), *rows("s", ["product", "sum"])]
    first = contained.run(make_tables(data, base=None)).tables["levels"]
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = make_tables([data[i] for i in order], base=None)
    again = contained.run(shuffled).tables["levels"].sort_values(["source", "level"], ignore_index=True)
    pd.testing.assert_frame_equal(first.sort_values(["source", "level"], ignore_index=True), again)
    few = contained.run(make_tables(data, base=None))
    assert any("inside cannot be certified with the draws at hand" in note for note in few.notes)
    assert "k = 8" in contained.FIGURES["contained"].caption(few)


def test_the_miniature_in_texts_alone(make_tables):
    """A second draw of one mixture of methods is contained as the base's own traces are; a new method is not."""
    rng = np.random.default_rng(0)

    def drawn(source, shares, n):
        made = []
        for p in range(30):
            methods = rng.choice(list(METHODS), n, p=shares)
            made += [r | {"sample": i} for i, m in enumerate(methods) for r in rows(source, [m], problems=p + 1)[-1:]]
        return made

    found = contained.run(
        make_tables(
            [*drawn("base", [0.9, 0.1, 0], 33), *drawn("again", [0.9, 0.1, 0], 16), *drawn("new", [0.1, 0.9, 0], 16)],
            base=None,
        ),
        budget=16,
    )
    gap = found.estimates["again.contained_gap@16.steps"]
    assert gap.low <= 0 <= gap.high and found.estimates["new.contained_gap@16.steps"].high < 0


def answered(source, answers_by_problem):
    """Rows with these answers by problem; None is an answer that was not read, and wrong."""
    return [
        row | {"problem": p, "sample": i, "answer": a, "correct": a == "1"}
        for p, said in answers_by_problem.items()
        for i, (a, row) in enumerate(zip(said, rows(source, ["sum"] * len(said), problems=1), strict=True))
    ]


def test_the_references_own_rate_is_of_the_sources_problems(make_tables):
    """Easy problems have one answer, hard ones as many as draws: the two sources lie on different halves."""
    base = answered("base", {f"e{i}": ["1"] * 9 for i in range(5)} | {f"h{i}": list("abcdefghi") for i in range(5)})
    easy, hard = (answered(s, {f"{s[0]}{i}": ["1", "a"] for i in range(5)}) for s in ("easy", "hard"))
    found = contained.run(make_tables([*base, *easy, *hard], base=None), budget=8)
    assert at_level(found, "easy", "answer")["own"] == 1 and at_level(found, "hard", "answer")["own"] == 0
    assert at_level(found, "base", "answer")["own"] == 0.5
    gap = {s: found.estimates[f"{s}.contained_gap@8.answer"].value for s in ("easy", "hard")}
    for s in gap:
        row = at_level(found, s, "answer")
        assert gap[s] == pytest.approx(row["contained"] - row["own"])


@pytest.mark.parametrize("few", [1, 2])
def test_a_few_thin_problems_are_left_out_and_said(make_tables, few):
    wide = {f"p{i}": ["1"] * 20 + ["2"] * 20 for i in range(19)}
    base, s = answered("base", wide | {"thin": ["1"] * few}), answered("s", {p: ["1"] for p in [*wide, "thin"]})
    row = at_level(contained.run(make_tables([*base, *s], base=None)), "s", "answer")
    assert (row["k"], row["problems"]) == (32, 19) and "left out: 1 problem has no more than 32 draws" in row["note"]


def test_an_answer_that_was_not_read_is_no_class(make_tables):
    """Half of the base's draws and all of the source's are unread: nothing is known of the source, at either level."""
    base = answered("base", {f"p{i}": ["1", None] * 40 for i in range(60)})
    mute = answered("mute", {f"p{i}": [None] * 8 for i in range(60)})
    some = answered("some", {f"p{i}": ["1"] * 9 + [None] for i in range(60)})
    found = contained.run(make_tables([*base, *mute, *some], base=None), budget=8)
    for level in ("answer", "correct"):
        assert math.isnan(at_level(found, "mute", level)["contained"])
        row = at_level(found, "some", level)
        assert row["contained"] > 0.99 and row["unknown"] == pytest.approx(0.1) and row["miss_high"] > 0.1
        assert at_level(found, "base", level)["unknown"] == 0.5


def test_copies_of_a_long_text_count_once_for_the_bound(make_tables):
    """Eight copies of one draw know as much as one; short texts may well come twice."""
    base = rows("base", ["sum"] * 40, problems=60)
    long = [r | {"response": r["response"] + " So" * 80} for r in rows("s", ["sum"] * 8, problems=60)]
    apart = [r | {"response": f"{r['response']} {chr(97 + r['sample'])}"} for r in long]
    bound = {}
    for name, own in (
        ("copies", long),
        ("apart", apart),
        ("one", long[::8]),
        ("short", rows("s", ["sum"] * 8, problems=60)),
    ):
        row = at_level(contained.run(make_tables([*base, *own], base=None), budget=8), "s", "kinds")
        bound[name], note = row["miss_high"], row["note"]
        assert ("copies" in note) == (name == "copies") and row["n"] == len(own)
    assert bound["copies"] == pytest.approx(bound["one"]) and bound["apart"] == bound["short"] < bound["one"]
    assert contained._apart(np.zeros(4, int), np.array([7, 7, 7, 8]), 2).tolist() == [1, 0]  # 16 / 10


def test_three_problems_have_an_interval_two_have_none(make_tables):
    for problems, known in ((2, False), (3, True)):
        data = [*rows("base", ["sum"] * 9, problems=problems), *rows("s", ["sum"], problems=problems)]
        e = contained.run(make_tables(data, base=None)).estimates["s.contained@8.steps"]
        assert (math.isfinite(e.low), e.value) == (known, 1) and (not known or e.low < 0.5 and e.high == 1)


def test_the_caption_says_n_where_few_traces_have_a_class_at_a_level(make_tables):
    """Nine of ten texts without a formula: the bars of the method stand on the tenth, those of the answer on all."""
    data = [*rows("base", ["sum"] * 9 + ["prose"]), *rows("s", ["sum"] + ["prose"] * 9)]
    found = contained.run(make_tables(data, base=None), budget=8)
    text = contained.FIGURES["contained"].caption(found)
    n = int(at_level(found, "s", "steps")["n"])
    assert f"order): base 1.00 (n = {9 * n}), s 1.00 (n = {n})" in text and f"s 1.00 (n = {10 * n})" not in text
    assert f"n = {10 * n} traces of a source at most" in text
