"""Bounds for the given problems: closed forms, and that they hold. False-alarm rate of each simulation <= 1e-4."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from analyzer.stats import bounds
from analyzer.stats.bootstrap import rare_upper, share_upper


def test_zero_events_need_149_183_and_203_traces():
    for laws, least in ((1, 149), (2, 183), (3, 203)):
        high = [bounds.upper(np.zeros(n), alpha=0.05 / laws) for n in (least, least - 1)]
        assert high[0] <= 0.02 < high[1]


def test_both_ends_mirror_each_other_and_are_clopper_pearson_for_events():
    x = np.r_[np.ones(7), np.zeros(53)]
    assert bounds.upper(x) == pytest.approx(share_upper(7, 60)) and bounds.lower(x) == 1 - bounds.upper(1 - x)
    assert bounds.upper([]) == 1 and bounds.lower([]) == 0
    assert binom.sf(6, 60, bounds.lower(x)) == pytest.approx(0.05, rel=1e-6)


def test_many_values_are_taken_by_stretches_that_never_lower_the_bound():
    x = np.random.default_rng(0).random(9000)
    small = x[:3900]
    assert rare_upper(small) > small.mean() and rare_upper(x) - x.mean() < 0.02
    from analyzer.stats import bootstrap

    before, bootstrap.STRETCHES = bootstrap.STRETCHES, 100
    try:
        assert rare_upper(small) >= bounds.upper(small) - 1e-12
        coarse = rare_upper(small)
    finally:
        bootstrap.STRETCHES = before
    assert coarse >= rare_upper(small)


def test_p_value_is_where_the_lower_bound_meets_the_threshold():
    x = np.r_[np.ones(9), np.full(5, 0.4), np.zeros(66)]
    p = bounds.p_above(x, 0.05)
    assert bounds.lower(x, alpha=p * 1.01) > 0.05 > bounds.lower(x, alpha=p / 1.01)
    assert bounds.p_above(np.zeros(10), 0.05) == 1 and bounds.p_above(np.ones(500), 0.05) == bounds.LEAST
    assert bounds.p_above([], 0.1) == 1


@pytest.mark.parametrize("problems", [2, 3, 10])
def test_upper_bound_holds_for_the_given_problems_and_dust_does_not_switch_it_off(problems):
    """Truth .021 by many tiny values: the bound lies below .02 in at most 5 % (400 runs: 40 or fewer at 1e-4)."""
    rng = np.random.default_rng(problems)
    edge = rng.dirichlet(np.ones(problems)) * problems * 0.021
    missed = 0
    for _ in range(400):
        x = np.concatenate([rng.random(16) * np.minimum(2 * e, 1) for e in edge])
        missed += bounds.upper(x) < edge.mean() - 1e-9
    assert missed <= 40


@pytest.mark.parametrize(("problems", "n"), [(2, 16), (3, 8), (30, 4)])
def test_mean_of_the_given_problems_covers_without_assuming_how_they_differ(problems, n):
    """95 % two-sided; 600 runs: between 542 and 591 with probability 1 - 1e-4 at .93 to .96."""
    rng = np.random.default_rng(1)
    centre, hits = rng.normal(0, 30, problems), 0
    problem = np.repeat(np.arange(problems), n)
    for _ in range(600):
        x = centre[problem] + rng.normal(0, 2, len(problem))
        found = bounds.mean(x, problem)
        hits += found.low(0.025) <= centre.mean() <= found.high(0.025)
    assert 540 <= hits <= 592


def test_one_trace_a_problem_takes_the_spread_between_them():
    x, problem = np.array([1.0, 2.0, 4.0]), np.arange(3)
    found = bounds.mean(x, problem)
    assert found == bounds.between(x, problem) and found.freedom == 2
    assert found.error == pytest.approx(x.std(ddof=1) / math.sqrt(3))
    assert math.isnan(bounds.mean([1.0], [0]).low()) and math.isnan(bounds.mean([], []).value)
    assert bounds.mean(np.ones(6), np.repeat([0, 1], 3)).high() == 1.0
