"""Bands that hold for the whole curve, and the one-sided p-value of a share."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import bands, bootstrap


def curves(rng: np.random.Generator, problems: int, points: int = 8) -> np.ndarray:
    """Curves whose points hang together weakly, mean 0."""
    return rng.normal(size=(problems, points)) + 0.5 * rng.normal(size=(problems, 1))


def test_the_band_covers_the_whole_curve_and_pointwise_intervals_do_not():
    """300 runs, 60 problems: whole-curve coverage of a 95 % band in [.88, .99] (beyond 5 sd of the binomial, as the
    bootstrap of 60 problems undercovers a little); the mutant with pointwise intervals stays below .85."""
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    w_BP = bootstrap.weights(60, draws=300, seed=1)
    for _ in range(300):
        values = curves(rng, 60)
        low, high = bands.simultaneous(values, w_BP)
        hits[0] += bool(((low <= 0) & (high >= 0)).all())
        ends = np.array([bootstrap.quantiles(m, 60) for m in bootstrap.column_means(values, w_BP).T])
        hits[1] += bool(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).all())
    assert 0.88 <= hits[0] / 300 <= 0.99 and hits[1] / 300 < 0.85


def test_the_band_is_wider_than_the_intervals_and_centred():
    values = curves(np.random.default_rng(2), 100)
    w_BP = bootstrap.weights(100, draws=1000, seed=0)
    low, high = bands.simultaneous(values, w_BP)
    assert (low + high) / 2 == pytest.approx(values.mean(0))
    ends = np.array([bootstrap.quantiles(m, 100) for m in bootstrap.column_means(values, w_BP).T])
    assert ((high - low) > 1.15 * (ends[:, 1] - ends[:, 0])).all()


def test_constants_missing_values_and_one_problem():
    values = np.array([[1.0, 0.0, np.nan], [1.0, 1.0, np.nan], [1.0, 0.5, 0.3], [1.0, 0.2, 0.3], [1.0, 0.7, 0.3]])
    low, high = bands.simultaneous(values, bootstrap.weights(5, draws=200, seed=0))
    assert low[0] == high[0] == 1 and low[1] < 0.5 < high[1] and np.isnan([low[2], high[2]]).all()
    few = bands.simultaneous(values[:4, :2], bootstrap.weights(4, draws=200, seed=0))
    assert np.isnan(few).all()
    flat = bands.simultaneous(np.ones((5, 2)), bootstrap.weights(5, draws=50, seed=0))
    assert (np.array(flat) == 1).all()


def test_p_above_is_the_companion_of_rate():
    rng = np.random.default_rng(3)
    values, problem = (rng.random(300) < 0.1).astype(float), np.arange(300) % 30
    low = bootstrap.rate(values, problem).low
    assert bands.p_above(values, problem, low) == pytest.approx(0.025, rel=0.1)  # the two take Student's t at two tails
    assert bands.p_above(values, problem, low / 2) < bands.p_above(values, problem, low) < 0.5
    assert bands.p_above(values, problem, 0.9) == 1
    assert bands.p_above(np.ones(60), np.repeat(np.arange(6), 10), 0.3) == pytest.approx(0.3**6)
    for problems in (1, 2):  # say nothing about others
        assert bands.p_above(np.ones(10), np.arange(10) % problems, 0.0) == 1


@pytest.mark.parametrize(("problems", "shape"), [(3, 0.5), (5, 0.5), (10, 0.3), (40, 0.3)])
def test_p_above_holds_its_level_at_the_threshold(problems, shape):
    """400 null runs at the edge, problems with their own rates (beta, mean .2): P(p <= .05) <= .05, so that more than
    38 of 400 have a probability below 1e-4."""
    rng = np.random.default_rng(4)
    problem, hits = np.repeat(np.arange(problems), 16), 0
    for _ in range(400):
        rate = rng.beta(shape, 4 * shape, problems)
        hits += bands.p_above((rng.random(len(problem)) < rate[problem]).astype(float), problem, 0.2) <= 0.05
    assert hits <= 38
