"""What follows an answer and where a limit cut a trace are no methods: neither side is outside for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.contained import classes as trace_classes
from analyzer.analysis.data import steps
from analyzer.analysis.strategy import ends as strategy_ends
from analyzer.analysis.strategy import run as strategy

PROBLEMS, DRAWS = 24, 48
METHODS = (
    "{a} + {b} = {s}. Then {s} - 3 = {t}",
    "{a} * {b} = {p}. Then {p} / 2 = {h}",
    "{a}^2 = {q}. Then {q} + {b} = {r}",
)
NEW = "{a} mod {b} = {m}. Then {m} * {a} = {n}"
ON = " Question: what is 4 apples and 7? Answer: 4 + 7 = 11. Question: 9 / 3 = 3."


def rows_of(source, seed, *, new=0.0, after="", cut=None):
    """Texts of one law over methods; after: what follows the answer; cut: characters of a limit."""
    rng, out = np.random.default_rng([9, seed]), []
    for problem in range(PROBLEMS):
        a, b = 20 + 7 * problem, 3 + problem
        for sample in range(DRAWS):
            method = NEW if rng.random() < new else METHODS[rng.choice(3, p=(0.5, 0.3, 0.2))]
            known = {"s": a + b, "t": a + b - 3, "p": a * b, "h": a * b / 2, "q": a * a, "r": a * a + b, "m": a % b}
            filler = "We look at it with care. " * int(rng.integers(1, 12))
            text = filler + "So " + method.format(a=a, b=b, n=a % b * a, **known) + f". The answer is {a}." + after
            finish = "length" if cut and len(text) > cut else "stop"
            row = {"source": source, "problem": f"p{problem:02d}", "sample": sample, "response": text[:cut]}
            out.append(row | {"correct": True, "finish": finish})
    return out


def certified(make_tables, base, source):
    """(representation, k) of the certified tests of the method."""
    found = strategy.run(make_tables([*base, *source], base=None), permutations=999, at_most=0, seed=3)
    table = found.tables["strategy_test"]
    table = table[table["representation"].isin(strategy.METHOD) & table["certified"]]
    return set(zip(table["representation"], table["k"], strict=True)), found


def test_a_reference_that_goes_on_after_its_answer(make_tables, monkeypatch):
    base, source = rows_of("base", 1, after=ON), rows_of("again", 2)
    assert certified(make_tables, base, source)[0] == set()
    assert certified(make_tables, rows_of("base", 1), rows_of("again", 2, after=ON))[0] == set()
    monkeypatch.setattr(steps, "answered", lambda text: None)
    assert certified(make_tables, rows_of("base", 1), rows_of("again", 2, after=ON))[0]  # the check can fail


@pytest.mark.parametrize("which", ["reference", "source"])
def test_a_side_that_a_limit_cuts(make_tables, which):
    limits = {"reference": (190, None), "source": (None, 190)}[which]  # below `copies.LONG`: cut texts repeat
    base, source = rows_of("base", 1, cut=limits[0]), rows_of("again", 2, cut=limits[1])
    sure, found = certified(make_tables, base, source)
    assert sure == set()
    assert any("cut before an answer was read" in note and "190 characters" in note for note in found.notes)
    unknown = [[row | {"finish": "stop"} for row in rows] for rows in (base, source)]
    if which == "reference":
        assert certified(make_tables, *unknown)[0]  # the check can fail


def test_a_new_method_is_seen_where_the_reference_is_cut(make_tables):
    sure, _ = certified(make_tables, rows_of("base", 1, cut=260), rows_of("novel", 2, new=0.6))
    assert {(level, 4) for level in strategy.METHOD} <= sure


def test_which_traces_a_group_may_hold():
    finish = pd.Series(["stop", "length", "length", None, "stop"])
    response = pd.Series(["abc", "abcdef", "The answer is 5. And on", "abcdefg", "abcdef"])
    cut, length = strategy_ends.ends(finish, response)
    assert cut.tolist() == [False, True, False, False, False] and length.tolist() == [3, 6, 16, 7, 6]
    assert strategy_ends.whole(cut, length).tolist() == [True, False, False, False, True]
    assert strategy_ends.whole(np.zeros(3, bool), np.array([1.0, 5, 9])).all()
    assert strategy_ends.ends(pd.Series(dtype=object), pd.Series(dtype=object))[0].shape == (0,)


def test_only_a_draw_cut_before_its_answer_says_nothing_of_solving(make_tables):
    """A base that goes on after its answer is cut as well, and its answers count; without one there is no outcome."""
    rng = np.random.default_rng(4)
    base, source = rows_of("base", 1), rows_of("again", 2)
    for row in base:
        cut = row["sample"] < 16
        row |= {"finish": "length" if cut else "stop", "correct": bool(rng.random() < 0.5)}
        row["answer"] = "7" if row["correct"] else "8"
        row["response"] = row["response"][:60] if row["sample"] < 8 else row["response"] + ON
    for row in source:
        row |= {"answer": "7"}
    tables = make_tables([*base, *source], base=None)
    frame = tables.traces
    blank = ((frame["source"] == "base") & (frame["sample"] < 8)).to_numpy()
    assert (strategy_ends.unfinished(tables, frame) == blank).all()
    known = trace_classes.classes(tables).frame.set_index("key").loc[frame["key"]]
    assert ((known["answer"] < 0).to_numpy() == blank).all() and ((known["correct"] < 0).to_numpy() == blank).all()
    wrong = blank & ~frame["correct"].fillna(False).to_numpy(bool)
    test = boundary.run(tables, draws=20).tables["answer_test"]
    assert test["unread_reference"].iloc[0] == pytest.approx(wrong.sum() / (frame["source"] == "base").sum())
