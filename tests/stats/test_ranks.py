"""Ranks among the base's draws of a problem: exact by enumeration of ranks, by closed forms and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from analyzer.stats import ranks


def test_one_trace_a_problem_has_the_chance_k_over_n_plus_one_or_less():
    for n, k in itertools.product((1, 3, 16, 64), (1, 2, 4, 64)):
        chance = ranks._hits(1, n, k)[1]
        assert chance == pytest.approx(ranks.chance(n, k), rel=1e-9) and chance <= k / (n + 1) + 1e-12
        p = ranks.p_value(np.r_[np.ones(3), np.zeros(7)], np.arange(10), np.full(10, n), k)
        assert p == pytest.approx(binom.sf(2, 10, chance), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 3), (3, 2), (4, 4)])
def test_at_k_one_the_hits_are_the_ranks_of_exchangeable_draws(m, n):
    """All orders of m + n equal draws: how many of the m lie above all of the n."""
    count = np.zeros(m + 1)
    for mine in itertools.combinations(range(m + n), m):
        count[sum(i > max(set(range(m + n)) - set(mine)) for i in mine)] += 1
    assert ranks._hits(m, n, 1) == pytest.approx(count / count.sum(), rel=1e-9)


def test_hits_are_a_distribution_whatever_the_sizes():
    for m, n, k in itertools.product((1, 16, 100), (1, 64, 1000), (1, 4, 64)):
        out = ranks._hits(m, n, k)
        assert out.sum() == pytest.approx(1, abs=1e-9) and (out > -1e-12).all()


def test_level_and_bound_where_the_most_surprising_of_k_is_the_source():
    """Q = the largest of k base draws (Q <= k P on every problem): P(p <= .05) is at most .05; over 400 worlds 41 or
    more would come with a chance below 1e-4, and no share is ever bounded away from 0 in more than 5 %."""
    rng, problems, m, n = np.random.default_rng(0), 20, 4, 32
    problem = np.repeat(np.arange(problems), m)
    for k in (1, 4):
        low = bounded = 0
        for _ in range(400):
            base = rng.normal(size=(problems, n))
            source = rng.normal(size=(problems, m, k)).max(-1)
            hit, draws = ranks.beyond(source.ravel(), problem, base.ravel(), np.repeat(np.arange(problems), n))
            assert (draws == n).all()
            low += ranks.p_value(hit, problem, draws, k) <= 0.05
            bounded += ranks.least_share(hit, problem, draws, k) > 0
        assert low <= 40 and bounded <= 40


def test_a_fifth_of_foreign_traces_is_certified_where_there_are_draws_enough():
    problem, draws = np.repeat(np.arange(30), 16), np.full(480, 64)
    hit = (np.arange(480) % 5 == 0).astype(float)
    assert ranks.p_value(hit, problem, draws, 4) < 1e-6 and 0.02 < ranks.least_share(hit, problem, draws, 4) < 0.2
    assert ranks.p_above(hit, problem, draws, 4, 0.01) < 0.01
    assert ranks.p_value(hit, problem, np.full(480, 3), 4) > 0.9  # n + 1 = k bounds no share
    assert ranks.least_share(np.ones(480), problem, np.full(480, 3), 4) == 0
    assert ranks.p_above(np.zeros(480), problem, draws, 4, 0.01) == 1


def test_a_bound_and_its_p_value_agree():
    problem, draws = np.repeat(np.arange(10), 8), np.full(80, 128)
    hit = (np.arange(80) % 4 == 0).astype(float)
    p = ranks.p_above(hit, problem, draws, 1, 0.05)
    assert ranks.least_share(hit, problem, draws, 1, 1.01 * p) > 0.05 > ranks.least_share(hit, problem, draws, 1, p / 2)


def test_what_is_unknown_is_no_hit():
    hit, draws = ranks.beyond(
        np.array([3.0, np.nan, 1.0, 5.0, 5.0]), np.array(list("aabcd")), np.array([2.0, 1.0, 1.0, np.nan, 9.0]),
        np.array(list("aabcc")),
    )  # fmt: skip
    assert hit[0] == 1 and math.isnan(hit[1]) and hit[2] == 0 and np.isnan(hit[3:]).all()
    assert draws.tolist() == [2, 2, 1, 0, 0]
    assert ranks.p_value(np.full(2, np.nan), np.arange(2), np.zeros(2, int), 1) == 1
