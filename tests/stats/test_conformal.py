"""Conformal p-values: exact uniformity, the leave-one-out formula, false discoveries, the naive mutant."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import conformal


def test_p_values_are_uniform_on_the_grid():
    """With n = 9 exchangeable scores and one more, each rank is equally likely: p on {1..10} / 10."""
    scores = np.arange(10.0)
    got = [conformal.p_values(np.delete(scores, i), scores[i : i + 1])[0] for i in range(10)]
    assert sorted(got) == pytest.approx(np.arange(1, 11) / 10)


def test_ties_count_against_the_trace():
    assert conformal.p_values(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 4.0, np.nan]))[:2] == pytest.approx(
        [4 / 5, 1 / 5]
    )
    assert np.isnan(conformal.p_values(np.array([1.0]), np.array([np.nan]))[0])


def test_leave_one_out_equals_the_slow_way():
    rng = np.random.default_rng(0)
    x, problem = rng.normal(3, 2, 60), rng.integers(0, 6, 60)
    z, test = conformal.standardise(x, problem, np.array([5.0]), np.array([2]))
    for i in range(60):
        rest = x[(problem == problem[i]) & (np.arange(60) != i)]
        assert z[i] == pytest.approx((x[i] - rest.mean()) / rest.std(ddof=1))
    assert test[0] == pytest.approx((5 - x[problem == 2].mean()) / x[problem == 2].std(ddof=1))


def test_too_few_constant_or_missing_base_traces_give_no_score():
    x = np.array([1.0, 2, 3, 5, 5, 5, 5, 5, np.nan, 4, 2, 7, 1])
    problem = np.array(["few"] * 3 + ["same"] * 5 + ["nan"] * 5)
    z, test = conformal.standardise(x, problem, np.array([9.0, 9.0, 9.0, 9.0]), np.array(["few", "same", "nan", "new"]))
    assert np.isnan(z[:9]).all() and np.isfinite(z[9:]).all()
    assert np.isnan(test[[0, 1, 3]]).all() and np.isfinite(test[2])


def test_standardising_ignores_location_scale_and_labels_of_problems():
    rng = np.random.default_rng(1)
    x, problem, y = rng.normal(size=80), np.repeat(np.arange(8), 10), rng.normal(size=8)
    shift, scale = rng.normal(size=8) * 10, rng.random(8) + 0.5
    a = conformal.standardise(x, problem, y, np.arange(8))
    b = conformal.standardise(x * scale[problem] + shift[problem], 7 - problem, y * scale + shift, 7 - np.arange(8))
    for left, right in zip(a, b, strict=True):
        assert left == pytest.approx(right)


def test_worst_component():
    z = conformal.worst(np.array([[1.0, np.nan], [np.nan, np.nan], [-3.0, -1.0]]))
    assert z[0] == 1 and np.isnan(z[1]) and z[2] == -1


def test_inflation_and_discoveries():
    assert conformal.inflate(np.array([0.01, 0.5]), 4).tolist() == [0.04, 1.0]
    assert conformal.discoveries(np.array([0.001, 0.002, 0.9, np.nan]), q=0.1).tolist() == [True, True, False, False]
    assert (
        conformal.discoveries(np.array([0.04, np.nan, np.nan]), q=0.1).tolist() == [False] * 3
    )  # NaN is a test that found nothing
    assert conformal.discoveries(np.zeros(0)).tolist() == []


def false_share(seed: int, naive: bool) -> float:
    """False discovery proportion at q = .1: 30 problems x 16 base, 16 test traces of which 10 % are shifted by 6."""
    rng = np.random.default_rng(seed)
    problem = np.repeat(np.arange(30), 16)
    loc, scale = rng.normal(0, 3, 30)[problem], rng.uniform(0.5, 2, 30)[problem]
    novel = rng.random(480) < 0.1
    base, test = loc + scale * rng.normal(size=480), loc + scale * (rng.normal(size=480) + 6 * novel)
    z, t = conformal.standardise(base, problem, test, problem)
    if naive:  # standardise the base by moments that hold the trace itself
        z = np.concatenate(
            [(base[problem == i] - base[problem == i].mean()) / base[problem == i].std(ddof=1) for i in range(30)]
        )
    hit = conformal.discoveries(conformal.p_values(z, t), q=0.1)
    return (hit & ~novel).sum() / max(hit.sum(), 1)


def test_false_discovery_rate_and_the_naive_mutant():
    # mean of 80 runs, each in [0, 1] with sd about .05: a true rate of .1 exceeds .13 with probability < 1e-4
    assert np.mean([false_share(s, naive=False) for s in range(80)]) <= 0.13
    assert np.mean([false_share(s, naive=True) for s in range(80)]) > 0.15
