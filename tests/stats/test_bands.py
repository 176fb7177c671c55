"""Bands that hold for the whole curve, and the bootstrap's one-sided p-value."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import bands, bootstrap


def curves(rng: np.random.Generator, problems: int, points: int = 8) -> np.ndarray:
    """Curves whose points hang together weakly, mean 0."""
    return rng.normal(size=(problems, points)) + 0.5 * rng.normal(size=(problems, 1))


def test_the_band_covers_the_whole_curve_and_pointwise_intervals_do_not():
    """300 runs, 60 problems: whole-curve coverage of a 95 % band in [.88, .99] (beyond 5 sd of the binomial, as the
    percentile of 60 problems undercovers a little); the mutant with pointwise intervals stays below .85."""
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    w_BP = bootstrap.weights(60, draws=300, seed=1)
    for _ in range(300):
        values = curves(rng, 60)
        low, high = bands.simultaneous(values, w_BP)
        hits[0] += bool(((low <= 0) & (high >= 0)).all())
        ends = np.array([bootstrap.quantiles(m) for m in bootstrap.column_means(values, w_BP).T])
        hits[1] += bool(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).all())
    assert 0.88 <= hits[0] / 300 <= 0.99 and hits[1] / 300 < 0.85


def test_the_band_is_wider_than_the_intervals_and_centred():
    values = curves(np.random.default_rng(2), 100)
    w_BP = bootstrap.weights(100, draws=1000, seed=0)
    low, high = bands.simultaneous(values, w_BP)
    assert (low + high) / 2 == pytest.approx(values.mean(0))
    ends = np.array([bootstrap.quantiles(m) for m in bootstrap.column_means(values, w_BP).T])
    assert ((high - low) > 1.15 * (ends[:, 1] - ends[:, 0])).all()


def test_constants_missing_values_and_one_problem():
    values = np.array([[1.0, 0.0, np.nan], [1.0, 1.0, np.nan], [1.0, 0.5, 0.3]])
    low, high = bands.simultaneous(values, bootstrap.weights(3, draws=200, seed=0))
    assert low[0] == high[0] == 1 and low[1] < 0.5 < high[1] and np.isnan([low[2], high[2]]).all()
    alone = bands.simultaneous(values[:1], bootstrap.weights(1, draws=200, seed=0))
    assert np.isnan(alone).all()
    flat = bands.simultaneous(np.ones((4, 2)), bootstrap.weights(4, draws=50, seed=0))
    assert (np.array(flat) == 1).all()


def test_p_above_agrees_with_the_percentile_bound():
    rng = np.random.default_rng(3)
    values, problem = rng.random(300) < 0.1, np.arange(300) % 30
    sums, counts = bootstrap.by_problem(values, problem)
    means = bootstrap.weights(30, seed=5) @ sums / (bootstrap.weights(30, seed=5) @ counts)
    for level in (0.01, 0.05, 0.5):
        bound = np.quantile(means, level, method="inverted_cdf")
        assert bands.p_above(values, problem, bound - 1e-9, seed=5) <= level + 1 / 2001
        assert bands.p_above(values, problem, bound, seed=5) > level
    assert bands.p_above(values, problem, 0.9, seed=5) == 1
    assert bands.p_above(values, problem, -1, seed=5) == 1 / 2001
    assert bands.p_above(values[:10], np.zeros(10), 0.0) == 1  # one problem says nothing


def test_p_above_holds_its_level_at_the_threshold():
    """400 null runs at the edge, 40 problems: P(p <= .05) in [.02, .12]: the false-alarm rate of the upper end is below
    1e-4 for a true size of .06, which the percentile bootstrap of skewed means may have."""
    rng = np.random.default_rng(4)
    hits = sum(bands.p_above(rng.normal(0.3, 1, 40), np.arange(40), 0.3, draws=300, seed=6) <= 0.05 for _ in range(400))
    assert 0.02 <= hits / 400 <= 0.12
