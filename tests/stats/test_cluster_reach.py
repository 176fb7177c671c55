"""Cluster reach: the held-out half, the conditional binomial at its edge, unequal problems, zero-hit power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from analyzer.stats import cluster_reach


def ones(*values: int) -> np.ndarray:
    return np.array([values])


def test_half_of_every_group_is_held_out():
    group = np.array(["a"] * 7 + ["b"] * 4 + ["c"])
    held = cluster_reach.held_out(group, seed=3)
    assert [int(held[group == g].sum()) for g in "abc"] == [4, 2, 1]
    order = np.concatenate([np.flatnonzero(group == g) for g in "cab"])
    assert np.array_equal(cluster_reach.held_out(group[order], seed=3), held[order])
    renamed = np.array([{"a": "z", "b": "y", "c": "x"}[g] for g in group])
    assert np.array_equal(cluster_reach.held_out(renamed, seed=3), held)
    shares = [cluster_reach.held_out(np.array(["a"] * 8), seed=s) for s in range(400)]
    # each trace is held out in half of the splits: 400 fair coins, 5 standard deviations
    assert (np.abs(np.mean(shares, axis=0) - 0.5) < 5 * 0.5 / 20).all()


def test_balanced_problems_give_the_conditional_binomial():
    b, a = ones(3, 0, 9, 2), ones(1, 0, 0, 1)
    n_q, n_p = np.full(4, 32), np.full(4, 64)
    for k in (1, 4, 64):
        expected = binom.sf(13, 16, k * 32 / (k * 32 + 64))
        assert cluster_reach.p_values(b, n_q, a, n_p, k)[0] == pytest.approx(expected, rel=1e-12)
    assert cluster_reach.p_values(0 * b, n_q, a, n_p, 4)[0] == 1.0
    assert cluster_reach.p_values(b, n_q, a, np.zeros(4), 4)[0] == 1.0  # nothing to compare with
    left_out = cluster_reach.p_values(
        ones(3, 0, 9, 2, 50), np.array([32] * 4 + [99]), ones(1, 0, 0, 1, 0), [64] * 4 + [0], 4
    )
    assert left_out[0] == pytest.approx(cluster_reach.p_values(b, n_q, a, n_p, 4)[0])


@pytest.mark.parametrize(
    ("n_p", "n_q", "k", "alpha", "least"),
    [(64, 64, 1, 0.05, 5), (64, 64, 1, 0.05 / 240, 13), (64, 64, 4, 0.05, 14), (256, 64, 4, 0.05, 5)]
    + [(1024, 64, 16, 0.05 / 240, 13), (1024, 64, 64, 0.05, 14), (256, 64, 16, 0.05 / 240, 38)],
)
def test_hits_needed_at_zero_base_hits(n_p, n_q, k, alpha, least):
    """The planning table of the method: b >= ln(alpha) / ln(k n_q / (k n_q + n_p))."""
    p = [cluster_reach.p_values(ones(b), [n_q], ones(0), [n_p], k)[0] for b in (least - 1, least)]
    assert p[0] > alpha >= p[1]
    assert least == math.ceil(math.log(alpha) / math.log(k * n_q / (k * n_q + n_p)))


def test_zero_hit_power_is_that_of_the_exact_binomial():
    """A clean cluster of share .3, n_P = 256, n_Q = 64, k = 4: 2,000 draws, 5 standard errors of the exact power."""
    rng = np.random.default_rng(0)
    for share, k in ((0.1, 4), (0.3, 16), (0.25, 16)):
        edge = math.log(0.05) / math.log(k * 64 / (k * 64 + 256))
        exact = binom.sf(math.ceil(edge) - 1, 64, share)
        b = rng.binomial(64, share, 2000)
        found = np.mean(cluster_reach.p_values(b[:, None], [64], 0 * b[:, None], [256], k) <= 0.05)
        assert abs(found - exact) < 5 * math.sqrt(exact * (1 - exact) / 2000) + 1e-9


def test_size_at_the_edge_with_unequal_problems_and_the_pooled_mutant():
    """Q = k P in every problem, counts very unequal: at most .05 of 2,000 runs, P(Binomial(2000, .05) >= 140) = 6e-5.

    The mutant pools n over problems: where the source has most traces of the very problems in which the group is
    common, it rejects a true null.
    """
    rng = np.random.default_rng(1)
    n_p, n_q, k = np.array([400, 40, 100, 100]), np.array([40, 400, 100, 90]), 4
    p_x = np.array([0.01, 0.2, 0.05, 0.1])
    b = rng.binomial(n_q, k * p_x, (2000, 4))
    a = rng.binomial(n_p, p_x, (2000, 4))
    assert np.sum(cluster_reach.p_values(b, n_q, a, n_p, k) <= 0.05) < 140
    pooled = k * n_q.sum() / (k * n_q.sum() + n_p.sum())
    assert np.mean(binom.sf(b.sum(1) - 1, (a + b).sum(1), pooled) <= 0.05) > 0.2


def test_unequal_problems_are_never_worse_than_the_worst_ratio():
    rng = np.random.default_rng(2)
    n_q, n_p = rng.integers(5, 60, 30), rng.integers(5, 60, 30)
    b, a = rng.binomial(n_q, 0.3, (20, 30)), rng.binomial(n_p, 0.1, (20, 30))
    found = cluster_reach.p_values(b, n_q, a, n_p, 2)
    highest = (2 * n_q / (2 * n_q + n_p)).max()
    worst = binom.sf(b.sum(1) - 1, (a + b).sum(1), highest)
    assert (found <= worst + 1e-15).all() and (found < worst / 2).any()
    # by Monte Carlo from the edge of H0, given the totals: not below the true tail (5 standard errors)
    draws = rng.binomial((a + b)[0], 2 * n_q / (2 * n_q + n_p), (20_000, 30)).sum(1)
    tail = np.mean(draws >= b[0].sum())
    assert found[0] >= tail - 5 * math.sqrt(max(tail, 1e-3) / 20_000)


def test_factor():
    assert cluster_reach.factor(10, 64, 0, 64, 4) > 1.3  # 14 hits are needed
    assert cluster_reach.factor(14, 64, 0, 64, 4) == 1.0
    assert cluster_reach.factor(14, 64, 0, 64, 4, units=100) > 2
    assert math.isnan(cluster_reach.factor(4, 64, 1, 64, 4)) and math.isnan(cluster_reach.factor(0, 64, 0, 64, 4))
