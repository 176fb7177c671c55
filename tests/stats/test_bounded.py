"""Gaffke's bounds: Clopper-Pearson for 0/1 values, honest for the others, monotone along a curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from analyzer.stats import bootstrap, bounded, passk


@pytest.mark.parametrize(("hits", "n"), [(0, 3), (7, 30), (30, 30), (1, 64)])
def test_zeros_and_ones_have_clopper_pearsons_interval(hits, n):
    low, high, *_ = bounded.bounds((np.arange(n) < hits)[:, None].astype(float))
    exact = beta.ppf(0.025, hits, n - hits + 1) if hits else 0, beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1
    assert (low[0], high[0]) == pytest.approx(exact, abs=0.015)  # quantiles of 10,000 draws
    assert (hits == 0) == (low[0] == 0) and (hits == n) == (high[0] == 1)


def test_many_problems_have_the_normal_interval():
    values = np.random.default_rng(0).beta(2, 3, (800, 1))
    low, high, *_ = bounded.bounds(values)
    half = 1.96 * values.std() / np.sqrt(800)
    assert (low[0], high[0]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


def test_bounds_rise_along_a_curve_also_where_problems_run_out_of_draws():
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = rng.integers(1, 33, 24)
        curve = passk.pass_at_k(n, rng.binomial(n, rng.random(24)), np.array([1, 2, 4, 8, 16]))
        for ends in bounded.bounds(curve):
            known = ends[~np.isnan(ends)]
            assert len(known) >= 3 and (np.diff(known) >= 0).all() and known.min() >= 0 and known.max() <= 1


def test_the_band_holds_the_intervals_and_two_problems_have_none():
    values = np.random.default_rng(2).random((12, 6)).cumsum(axis=1) / 6
    low, high, band_low, band_high = bounded.bounds(values)
    assert (band_low <= low).all() and (high <= band_high).all() and (band_high - band_low < 0.9).all()
    assert all(np.isnan(ends).all() for ends in bounded.bounds(values[:2]))


def test_rare_hard_problems_are_covered_where_resampling_misses_them():
    """12 problems of which one in ten is never solved, 8 draws, pass@4: 400 runs. Coverage at least .95 (a true .95
    gives less than .905 with chance 1e-4); the percentile bootstrap, which sees no hard problem in .28 of the runs,
    below .85."""
    rng, hits, truth = np.random.default_rng(3), np.zeros(2), 0.9 * (1 - 0.1**4)
    w_BP = bootstrap.weights(12, draws=300, seed=1)
    for _ in range(400):
        rate = np.where(rng.random(12) < 0.1, 0.0, 0.9)
        values = passk.pass_at_k(np.full(12, 8), rng.binomial(8, rate), np.array([4]))
        low, high, *_ = bounded.bounds(values)
        hits[0] += low[0] <= truth <= high[0]
        ends = bootstrap.quantiles(bootstrap.column_means(values, w_BP)[:, 0], 12)
        hits[1] += ends[0] <= truth <= ends[1]
    assert hits[0] / 400 >= 0.905 and hits[1] / 400 < 0.85
