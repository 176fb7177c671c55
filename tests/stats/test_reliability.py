"""pass^k, G-Pass@k, mG-Pass@k against counts over all subsets, and values of scorio 0.2.3 (PyPI, MIT)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analyzer.stats import passk, reliability

SCORIO = [0.4606643356643357, 0.2893356643356643, 0.2923951048951049, 0.2501748251748252]


def subsets(rows: np.ndarray, k: int, tau: float) -> float:
    """Share of the k-subsets of each problem's draws with at least max(1, ceil(tau k)) correct, over problems."""
    least = max(1, math.ceil(round(tau * k, 9)))
    return float(np.mean([np.mean([sum(s) >= least for s in itertools.combinations(r, k)]) for r in rows.tolist()]))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_they_are_shares_of_subsets(k):
    rows = (np.random.default_rng(0).random((6, 7)) < np.linspace(0, 1, 6)[:, None]).astype(int)
    n_P, c_P, k_K = np.full(6, 7), rows.sum(1), np.array([k])
    for tau in (0.2, 0.5, 2 / 3, 0.75, 1.0):
        assert reliability.g_pass_at_k(n_P, c_P, k_K, tau).mean() == pytest.approx(subsets(rows, k, tau))
    want = 2 / k * sum(subsets(rows, k, i / k) for i in range(-(-k // 2) + 1, k + 1))
    assert reliability.mg_pass_at_k(n_P, c_P, k_K).mean() == pytest.approx(want)
    assert reliability.pass_hat_k(n_P, c_P, k_K).mean() == pytest.approx(subsets(rows, k, 1.0))
    least = passk.pass_at_k(n_P, c_P, k_K)
    assert reliability.g_pass_at_k(n_P, c_P, k_K, 1e-9) == pytest.approx(least)  # at least one


def test_too_few_draws_are_no_number():
    found = reliability.g_pass_at_k(np.array([2, 4]), np.array([2, 4]), np.array([1, 4]), 0.5)
    assert np.isnan(found[0, 1]) and found[1, 1] == found[0, 0] == 1
    assert np.isnan(reliability.mg_pass_at_k(np.array([2]), np.array([1]), np.array([4]))).all()


def test_values_of_another_library():
    """g_pass_at_k_tau, mg_pass_at_k and pass_hat_k of 16 draws a problem with 3, 9, 16 and 0 correct, at k = 8."""
    n_P, c_P, k_K = np.full(4, 16), np.array([3, 9, 16, 0]), np.array([8])
    got = [reliability.g_pass_at_k(n_P, c_P, k_K, t).mean() for t in (0.5, 0.75)]
    got += [f(n_P, c_P, k_K).mean() for f in (reliability.mg_pass_at_k, reliability.pass_hat_k)]
    assert got == pytest.approx(SCORIO, rel=1e-9)
