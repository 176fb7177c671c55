"""Closed forms of reach on enumerable worlds (V0), exact to 1e-10, and its order relations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.stats import reach

KS = (1, 2, 4, 7.5, 16, 64, 1000)


def three_token_world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of all 3-token sequences over 4 tokens under a random Markov chain, and which are correct."""
    rng = np.random.default_rng(seed)
    first, move = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), size=4)
    words = list(itertools.product(range(4), repeat=3))
    p = np.array([first[a] * move[a, b] * move[b, c] for a, b, c in words])
    return p, np.array([sum(w) % 5 == 0 for w in words])


def enumerate_reach(q: np.ndarray, p: np.ndarray, k: float) -> float:
    """E_Q[(1 - k e^-l)+] over all sequences with q > 0, by the function under test."""
    with np.errstate(divide="ignore"):
        return float((q[q > 0] * reach.excess(np.log(q[q > 0]) - np.log(p[q > 0]), k)).sum())


def sup_form(q: np.ndarray, p: np.ndarray, k: float) -> float:
    return float(np.maximum(q - k * p, 0).sum())


@pytest.mark.parametrize("b", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("k", KS)
def test_tilt(b, k):
    p, r = three_token_world(1)
    q = p * np.exp(r / b)
    q /= q.sum()
    pi = p[r].sum()
    z = 1 - pi + pi * np.exp(1 / b)
    rho1, rho0 = np.exp(1 / b) / z, 1 / z
    closed = pi * rho1 * max(0, 1 - k / rho1) + (1 - pi * rho1) * max(0, 1 - k / rho0)
    assert enumerate_reach(q, p, k) == pytest.approx(closed, abs=1e-10)
    assert sup_form(q, p, k) == pytest.approx(closed, abs=1e-10)
    if k >= 1 / pi:
        assert closed == 0


@pytest.mark.parametrize("lam", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("k", KS)
def test_orthogonal_teacher_keeps_its_share_at_every_budget(lam, k):
    p, _ = three_token_world(2)
    base, q = np.append(p, 0.0), np.append((1 - lam) * p, lam)
    assert enumerate_reach(q, base, k) == pytest.approx(lam, abs=1e-10)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_best_of_n_is_within_reach_of_n(n):
    p, _ = three_token_world(3)
    reward = np.random.default_rng(0).permutation(len(p))  # no ties
    order = np.argsort(reward)
    cumulative = np.cumsum(p[order])
    q = np.empty_like(p)
    q[order] = cumulative**n - np.append(0.0, cumulative[:-1]) ** n
    assert q.sum() == pytest.approx(1, abs=1e-12)
    assert enumerate_reach(q, p, n) == pytest.approx(0, abs=1e-10)
    assert enumerate_reach(q, p, 1.2) > 0.01


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KS))
def test_coarsening_only_lowers_and_more_budget_only_lowers(seed, k):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(24, 0.3)), rng.dirichlet(np.full(24, 0.3))
    label = rng.integers(0, 5, size=24)
    fine = enumerate_reach(q, p, k)
    coarse = enumerate_reach(np.bincount(label, q, 5), np.bincount(label, p, 5), k)
    assert coarse <= fine + 1e-10
    assert enumerate_reach(q, p, 2 * k) <= fine + 1e-12
    assert fine == pytest.approx(sup_form(q, p, k), abs=1e-10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.sampled_from(KS))
def test_coverage_brackets_reach(values, k):
    l_N = np.array(values)
    assert reach.coverage(l_N, k) >= reach.excess(l_N, k).mean() - 1e-12
    assert reach.excess(l_N, k).mean() >= (1 - k / (4 * k)) * reach.coverage(l_N, 4 * k) - 1e-9


def test_infinite_and_missing_log_ratios():
    terms = reach.excess(np.array([np.inf, -np.inf, np.nan, np.log(4.0), 800.0]), 2)
    assert terms[0] == 1 and terms[1] == 0 and np.isnan(terms[2]) and terms[3] == pytest.approx(0.5) and terms[4] == 1
    assert np.isnan(reach.excess(np.array([np.nan]), 2)).all() and np.isnan(reach.coverage(np.array([np.nan]), 2))


def test_curve_of_nothing_has_no_value():
    point = reach.curve(np.full(3, np.nan), np.array(["a", "b", "c"]))[64]
    assert np.isnan(point.value) and point.n == 0


def test_identical_models_get_the_exact_bound():
    problem = np.repeat(np.arange(64), 64)
    point = reach.curve(np.random.default_rng(0).normal(0, 1e-5, 4096), problem)[64]
    assert point.value == 0 and point.low == 0
    assert point.high == pytest.approx(1 - 0.05 ** (1 / 4096), rel=1e-6)  # 3 / (m n)


def test_a_bounded_ratio_has_the_exact_bound_above_it_however_its_excess_clusters_below():
    problem = np.repeat(np.arange(64), 64)
    l_N = np.where(problem % 4 == 0, np.log(8.0), 0.0)  # whole problems within reach of 8, none beyond 64
    found = reach.curve(l_N, problem)
    assert found[64].value == 0 and found[64].high == pytest.approx(1 - 0.05 ** (1 / 4096))
    assert found[4].low < 0.125 < found[4].high and found[4].low < 0.1  # E_4 = .5 in a quarter of the problems


def test_tiny_excess_counts_by_its_size():
    problem = np.repeat(np.arange(30), 16)
    l_N = np.zeros(480)
    l_N[::54] = np.log(16 * 1.01)  # nine traces, each barely beyond 16
    assert reach.curve(l_N, problem)[16].high < 0.01
    l_N[::54] = np.inf
    assert reach.curve(l_N, problem)[16].high > 0.03
