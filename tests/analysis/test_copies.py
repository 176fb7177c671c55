"""Copies of a trace are no draws, wherever the law that drew it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analyzer.analysis import variations
from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import copies
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.records import Tables
from validation import bigram as B

V, PROBLEMS, TIMES = 30, 10, 16


def repeated(d: B.Draws) -> B.Draws:
    """The first draw of each problem, TIMES times."""
    at = np.repeat(np.arange(PROBLEMS) * (len(d.length) // PROBLEMS), TIMES)
    return d._replace(**{name: getattr(d, name)[at] for name in d._fields})


def world(seed: int, longest: int, *, law=None) -> Tables:
    rng, base = np.random.default_rng(seed), B.law(np.random.default_rng(0), V, 1.5)
    parts = [B.Component(1, base)]
    x = repeated(B.draw(rng, parts, PROBLEMS, 2, longest))
    made = B.Made(x) if law is None else B.Made(x, law_VV=base)
    return B.tables(base, {"base": B.Made(B.draw(rng, parts, PROBLEMS, 8, longest)), "x": made})


def test_ten_draws_sixteen_times_each_are_ten_draws():
    """Inside would take 149 traces without one beyond: ten are undetermined, as 160 they were inside."""
    tables = world(1, 300)
    once, counts = copies.without(tables)
    assert counts == {"x": PROBLEMS * (TIMES - 1)} and (once.traces["source"] == "x").sum() == PROBLEMS
    assert set(once.scores["key"]) == set(once.traces["key"])
    result = support.run(tables, budget=64, draws=50)
    row = result.tables["evidence"].set_index("source").loc["x"]
    assert row["n"] == PROBLEMS and row["copies"] == PROBLEMS * (TIMES - 1)
    verdicts = decide({"support": result}, sources=tables.sources, reference="base", budget=64)
    (got,) = (v for v in verdicts if v.level == "sequence")
    assert got.word == "undetermined" and "149 traces" in got.needs
    assert any("repeat another token by token" in w for w in got.why)
    assert result.estimates["x.beyond@64"].n == PROBLEMS


def test_a_prompt_under_other_names_brings_no_new_draws():
    """Ten draws that a dump holds under sixteen names of their problem each, as a data set with duplicates and a fixed
    seed makes them: in exact worlds with a tenth beyond, 11 of 40 were inside as 160."""
    rng, base = np.random.default_rng(1), B.law(np.random.default_rng(0), V, 1.5)
    parts = [B.Component(1, base)]
    x = repeated(B.draw(rng, parts, PROBLEMS, 2, 300))
    x = x._replace(problem=np.arange(PROBLEMS * TIMES))
    tables = B.tables(base, {"base": B.Made(B.draw(rng, parts, PROBLEMS, 8, 300)), "x": B.Made(x)})
    assert copies.without(tables)[1] == {"x": PROBLEMS * (TIMES - 1)}


def test_a_true_declaration_is_not_refused_for_copies():
    """z of 160 copies of ten draws is beyond the limit in about a third of the worlds. Of ten draws it is in .005: more
    than one of 6 worlds would be at 4e-4, and the seeds are fixed."""
    failed = 0
    for seed in range(6):
        checks = preflight.run(world(seed, 100, law="own"), budget=64, draws=20).tables["checks"]
        failed += int(checks[(checks["check"] == "declared") & (checks["source"] == "x")]["passed"].eq(False).sum())
    assert failed <= 1


def test_what_a_law_repeats_is_a_draw():
    """Traces of three tokens are likelier than e^-14 and are drawn again and again."""
    assert not copies.of(world(1, 3))


def test_without_a_law_nothing_is_known_of_repeats():
    """A policy may have collapsed onto one answer, however improbable that is under the base."""
    tables = world(1, 100)
    assert not copies.of(replace(tables, policies={"base": "base"}, memo={}))


def test_equal_sums_of_other_tokens_are_no_copies():
    tables = world(1, 100)
    scores = tables.scores.assign(logprob=-50.0, logprob_s=-50.0)
    found = copies.of(replace(tables, scores=scores, memo={}))
    assert len(found) == PROBLEMS * (TIMES - 1) and all(key.startswith("x/") for key in found)


def test_variations_without_a_token_stream_have_the_same_copies():
    """What is decided again under a variation reads no tokens: it must not take copies for draws."""
    tables = world(1, 300)
    found = copies.of(tables)
    silent = variations.last(tables)
    assert copies.of(silent) == found and len(found) == PROBLEMS * (TIMES - 1)
    half = variations.kept(silent, (silent.traces["problem"] < "p0005").to_numpy())
    assert copies.of(half) == found & set(half.traces["key"])


@pytest.mark.parametrize("copied", [False, True])
def test_copied_draws_of_the_reference_make_no_outside(make_tables, copied):
    """One draw of each of 12 problems, 64 times over, against 16 draws of the same law: where copies count as draws a
    method that the draw happened not to use is beyond it; the same methods drawn 64 times are not."""
    rng, rows = np.random.default_rng(8), []
    methods = ("{a} + {b} = 1", "{a} * {b} = 1", "{a} / {b} = 1", "{a} ^ {b} = 1")
    for problem in range(12):
        first = int(rng.integers(4))
        for source, n in (("base", 64), ("again", 16)):
            for sample in range(n):
                method = first if source == "base" and copied else int(rng.integers(4))
                text = "We look at it. " * 20 + "So " + methods[method].format(a=20 + problem, b=3 + problem)
                text += "" if source == "base" and copied else " and so on" * int(rng.integers(1, 999))
                rows.append({"source": source, "problem": f"p{problem}", "sample": sample, "response": text})
    found = {}
    for name, function in (("copies", copies.later), ("draws", lambda frame: np.zeros(len(frame), bool))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copies, "later", function)
            table = strategy.run(make_tables(rows, base=None), permutations=199, at_most=0).tables["strategy_test"]
        found[name] = table[table["representation"].isin(strategy.METHOD) & (table["k"] == 1)]["certified"].any()
    assert found == {"copies": False, "draws": copied}
