"""Pooled medians and ratios against explicit resampling of problems."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analyzer.stats import pooled
from analyzer.stats.bootstrap import quantiles, weights


def explicit(problem, statistic, *, draws, seed):
    """Repeat every trace as often as its problem is drawn, then compute the statistic: the definition."""
    labels = np.unique(problem)
    found = []
    for row in weights(len(labels), draws=draws, seed=seed):
        rows = np.concatenate([np.repeat(np.flatnonzero(problem == p), n) for p, n in zip(labels, row)])
        found.append(statistic(rows))
    return quantiles(np.array(found), len(labels))


@pytest.mark.parametrize("size", [8, 31])
@pytest.mark.parametrize("ties", [True, False])
def test_median_equals_explicit_resampling(size, ties):
    rng = np.random.default_rng(size)
    problem, values = rng.integers(0, 5, size), rng.normal(size=size)
    values = np.round(values) if ties else values
    got = pooled.median(values, problem, draws=200, seed=3)
    assert got.value == np.median(values) and got.n == size and got.problems == len(np.unique(problem))
    assert (got.low, got.high) == explicit(problem, lambda rows: np.median(values[rows]), draws=200, seed=3)


def test_ratio_equals_explicit_resampling():
    rng = np.random.default_rng(1)
    problem, top, bottom = rng.integers(0, 6, 25), rng.random(25), rng.integers(1, 9, 25)
    got = pooled.ratio(top, bottom, problem, draws=200, seed=4)
    assert got.value == pytest.approx(top.sum() / bottom.sum())
    want = explicit(problem, lambda rows: top[rows].sum() / bottom[rows].sum(), draws=200, seed=4)
    assert (got.low, got.high) == pytest.approx(want)


def test_the_stretches_that_are_counted_together_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    problem, values = rng.integers(0, 5, 70), np.round(rng.random(70), 1)
    ends = [explicit(problem, lambda rows: np.median(values[rows]), draws=100, seed=0)]
    for width in (1, 9, 10, 69, 70, 128):  # 8 is the least for 70 values
        monkeypatch.setattr(pooled, "STRETCH", width)
        found = pooled.median(values, problem, draws=100)
        ends.append((found.low, found.high))
    assert len(set(ends)) == 1


def test_what_is_not_known_is_left_out_and_nothing_is_nan():
    some = pooled.median(np.array([1.0, np.nan, 3.0]), np.array(["a", "b", "b"]), draws=50)
    assert some.value == 2 and some.n == 2 and some.problems == 2
    assert math.isnan(pooled.median(np.array([np.nan]), np.array(["a"])).value)
    one = pooled.ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array(["a", "a"]))
    assert one.value == 1 and math.isnan(one.low) and "1 problem: no interval, 5 are needed" in one.method
    assert math.isnan(pooled.ratio(np.array([1.0]), np.array([0.0]), np.array(["a"])).value)
    assert math.isnan(pooled.ratio(np.array([]), np.array([]), np.array([])).value)
