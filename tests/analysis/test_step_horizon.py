"""The horizon in steps, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analyzer.analysis.support import step_horizon
from analyzer.records import Estimate


@pytest.fixture
def tables(make_tables, make_columns):
    """Two traces of five words a step; a word is a token."""
    text = "we add one to two\nthen we take one away\nso that two is left"
    starts = np.cumsum([0, *(len(w) + 1 for w in text.split()[:-1])])
    rows = [
        {"source": s, "problem": f"p{p}", "sample": 0, "response": text}
        | {"models": {"base": make_columns(np.ones(len(starts)), offset=starts)}}
        for s in ("base", "s")
        for p in range(2)
    ]
    return make_tables(rows)


@pytest.mark.parametrize(("tokens", "begun"), [(1, 1), (4.2, 1), (5, 1), (5.5, 2), (10, 2), (11, 3), (15, 3), (99, 3)])
def test_steps_begun_within_the_horizon(tables, tokens, begun):
    got = step_horizon.in_steps(tables, {"s": Estimate(tokens, tokens, math.nan, 2)})["s"]
    assert got.value == got.low == begun and math.isnan(got.high) and got.n == 2


def test_without_a_horizon_or_a_text_the_note_says_why(tables):
    from dataclasses import replace

    none = step_horizon.in_steps(tables, {"s": Estimate(math.nan, note="beyond the traces")})["s"]
    assert math.isnan(none.value) and none.note == "beyond the traces"
    mute = step_horizon.in_steps(replace(tables, texts=lambda columns: iter(())), {"s": Estimate(5.0)})["s"]
    assert math.isnan(mute.value) and "no text" in mute.note
