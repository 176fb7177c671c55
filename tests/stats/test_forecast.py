"""The law of the problems' chances, and what it says of more draws. Coverage is in `validation` (V9)."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import forecast


def of(c_P: list[int], n: int, seed: int = 0) -> np.ndarray:
    c_P = np.array(c_P)
    n_P = np.full(len(c_P), n)
    return forecast.chances(forecast.laws(n_P, c_P, seed=seed), n_P, c_P, seed=seed)


def test_a_law_is_a_law_and_the_seed_decides():
    n_P, c_P = np.full(40, 16), np.arange(40) % 17
    found, again = (forecast.laws(n_P, c_P, seed=3) for _ in range(2))
    assert found.law_SG.sum(1) == pytest.approx(1) and (found.law_SG >= 0).all()
    assert ((found.never_S >= 0) & (found.never_S < 1)).all()
    assert (found.law_SG == again.law_SG).all()
    assert not (found.law_SG == forecast.laws(n_P, c_P, seed=4).law_SG).all()


def test_the_order_of_the_problems_plays_no_part():
    n_P, c_P = np.array([8, 16, 16, 8, 32] * 8), np.array([0, 3, 16, 1, 2] * 8)
    order = np.random.default_rng(0).permutation(40)
    one, other = forecast.laws(n_P, c_P), forecast.laws(n_P[order], c_P[order])
    assert one.law_SG == pytest.approx(other.law_SG)


def test_with_many_draws_the_chances_are_the_shares():
    c_P = [0, 500, 1000, 2500, 4000, 5000] * 5
    chance_P = of(c_P, 5000).mean(0)
    assert chance_P == pytest.approx(np.array(c_P) / 5000, abs=0.01)


def test_no_curve_falls_and_no_experiment_beats_its_problems():
    chance_SP = of([0] * 20 + [1, 2, 5, 16] * 5, 16)
    k_K = np.array([1, 4, 16, 64, 256, 1024])
    for curve in (forecast.pass_at_k(chance_SP, k_K), forecast.solved(chance_SP, k_K)):
        assert (np.diff(curve, axis=1) >= -1e-12).all() and (curve >= 0).all() and (curve <= 1).all()
    # k draws solve on average what the chances say: 400 experiments on 40 problems, 6 standard errors
    gap = forecast.solved(chance_SP, k_K).mean(0) - forecast.pass_at_k(chance_SP, k_K).mean(0)
    assert np.abs(gap).max() < 6 * 0.5 / np.sqrt(400 * 40)


def test_what_was_never_solved_may_stay_so_and_what_was_always_solved_does():
    never = forecast.pass_at_k(of([0] * 60, 64), np.array([1024]))[:, 0]
    assert np.quantile(never, 0.025) < 0.02 and np.quantile(never, 0.975) > 0.05  # nothing is known below 1 / 64
    always = forecast.pass_at_k(of([64] * 60, 64), np.array([1, 1024]))
    assert always.min() > 0.9


def test_rare_solutions_foretell_more():
    """Two sources with pass@64 = 1/2: one solves its half always, the other one draw in 64; the second has more to
    come."""
    sure, rare = (forecast.pass_at_k(of([c] * 30 + [0] * 30, 64), np.array([1024])).mean() for c in (64, 1))
    assert rare > sure + 0.2
