"""The analysis of reliability: what it reads, what it says, and the curves that it foretells."""

from __future__ import annotations

import dataclasses
import math

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.data.tables import in_memory
from analyzer.analysis.reliability import run as reliability
from analyzer.records import Tables, trace_key


def tables(**sources: list[tuple[int, int]]) -> Tables:
    """source -> (draws, correct) of each problem; the first source is the reference."""
    rows = [
        {"key": trace_key(s, f"p{i:03}", j, None), "source": s, "problem": f"p{i:03}", "sample": j, "correct": j < c}
        for s, counts in sources.items()
        for i, (n, c) in enumerate(counts)
        for j in range(n)
    ]
    frame = pd.DataFrame(rows).assign(finish="stop", group=None, score=np.nan, answer=None, response=None)
    frame["step"] = pd.array([None] * len(frame), dtype="Int64")
    frame["correct"] = frame["correct"].astype("boolean")
    scores = pd.DataFrame(columns=["model", "key", "source", "problem", "step", "sample"])
    return Tables(scores=scores, tokens=lambda m, c: iter(()), reference=next(iter(sources)), **in_memory(frame))


@pytest.fixture(scope="module")
def result():
    base = [(16, c) for c in (0, 0, 1, 2, 4, 8) * 6]
    rl = [(16, c) for c in (0, 0, 0, 12, 15, 16) * 6]
    return reliability.run(tables(base=base, rl=rl))


def test_reliability_is_that_of_the_draws(result):
    table = result.tables["reliability"].set_index(["source", "quantity", "k"])["value"]
    assert table["rl", "pass^k", 1] == pytest.approx(43 / 96) and table["rl", "pass^k", 16] == pytest.approx(1 / 6)
    assert table["rl", "gpass50@k", 16] == pytest.approx(1 / 2) and table["base", "gpass50@k", 16] == pytest.approx(
        1 / 6
    )
    e = result.estimates["rl.pass^16"]
    assert e.value == pytest.approx(1 / 6) and e.low < 1 / 6 < e.high and e.n == 36
    assert {"rl.gpass50@16", "rl.gpass75@16", "rl.mgpass@16", "rl.forecast@64"} < set(result.estimates)


def test_the_forecast_begins_with_what_was_seen_and_widens(result):
    single = result.tables["reliability"].query("quantity == 'pass^k' and k == 1").set_index("source")["value"]
    for source, part in result.tables["forecast"].groupby("source"):
        at = part.set_index("k")
        assert at.loc[1, "pass"] == pytest.approx(single[source], abs=0.03)
        assert (at["low"] <= at["high"]).all() and (np.diff(at["pass"]) >= 0).all() and at.index.max() == 1024
    base = result.tables["forecast"].query("source == 'base'").set_index("k")
    assert base.loc[1024, "low"] < 0.8 and base.loc[1024, "high"] > 0.95


def moved(found: Tables, source: str, by: int) -> Tables:
    """The same with other problems for one source: p000 is p00{by}."""
    frame = found.traces.copy()
    mine = frame["source"] == source
    frame.loc[mine, "problem"] = [f"p{int(p[1:]) + by:03}" for p in frame.loc[mine, "problem"]]
    frame["key"] = [trace_key(r.source, r.problem, r.sample, None) for r in frame.itertuples()]
    return dataclasses.replace(found, traces=frame, texts=lambda columns: iter(()))


@pytest.mark.parametrize("by", [20, 40])
def test_a_crossing_is_of_problems_that_both_have(by):
    """A source of easy problems never crossed a reference that had hard ones beside them, or none of them at all."""
    base = [(16, c) for c in (0, 0, 1, 0, 1, 0) * 4 + (14, 15, 16, 15) * 4]
    rl = [(16, c) for c in (12, 13, 12, 11) * 4]
    found = reliability.run(moved(tables(base=base, rl=rl, other=base[:24]), "rl", by + 4))
    assert set(found.tables["crossing"]["source"]) == ({"rl", "other"} if by == 20 else {"other"})
    crossed, named = found.estimates["rl.no_crossing_k"], reliability.caption(found)
    if by == 40:
        assert math.isnan(crossed.value) and crossed.note == "no problem in common with base"
        assert "over its own 16 problems: none is shared with base" in found.estimates["rl.pass^16"].note
        assert "rl on its own problems" in named
    else:  # behind the reference where both are, ahead of it over all that the reference is compared on
        assert math.isnan(crossed.value) and crossed.note == "does not lead base at k = 1" and crossed.n == 16
        assert "rl on those shared with base" in named and "base on those shared with any" in named


def test_a_value_lies_in_its_interval():
    found = reliability.run(tables(base=[(4, 3)] * 10, rl=[(4, 4)] * 9 + [(4, 1)]))
    table = found.tables["forecast"]
    assert ((table["low"] <= table["pass"]) & (table["pass"] <= table["high"])).all()
    assert all(e.low <= e.value <= e.high for name, e in found.estimates.items() if "forecast" in name)


def test_who_sharpens_is_crossed_and_who_solves_more_is_not(result):
    crossed = result.estimates["rl.no_crossing_k"]
    assert crossed.value <= 16 and "base is not ahead" in crossed.note
    base = [(16, c) for c in (0, 0, 1, 2, 4, 8) * 6]
    better = reliability.run(tables(base=base, more=[(16, 16)] * 36, less=[(16, 0)] * 36)).estimates
    assert better["more.no_crossing_k"].value == 1024
    assert math.isnan(better["less.no_crossing_k"].value) and "does not lead" in better["less.no_crossing_k"].note


def test_two_problems_or_no_labels_are_too_few():
    few = reliability.run(tables(base=[(8, 1)] * 2, rl=[(8, 2)] * 2))
    assert math.isnan(few.estimates["rl.forecast@1024"].value) and few.tables["forecast"].empty
    assert "3 problems" in few.estimates["rl.forecast@1024"].note
    for name, figure in reliability.FIGURES.items():
        ax = matplotlib.figure.Figure().subplots()
        figure.draw(few, ax)
        assert ax.texts, name


def test_the_figure_draws_what_was_drawn_solid_and_the_forecast_dashed(result):
    ax = matplotlib.figure.Figure().subplots()
    reliability.draw(result, ax)
    styles = [line.get_linestyle() for line in ax.lines]
    assert styles == ["-", "--"] * 2
    assert ax.lines[0].get_xdata().max() == 16 == ax.lines[1].get_xdata().min()
    assert "from 16 draws (n = 36 problems)" in reliability.caption(result)
