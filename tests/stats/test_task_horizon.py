"""The difficulty at which half is solved: close to the truth whatever differs between tasks of one difficulty."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import passk, task_horizon

A, B = 4.0, -0.8  # pass@1 = expit(A + B x + effect), x in doublings


def success(x: np.ndarray, effect: np.ndarray, k: int) -> np.ndarray:
    return 1 - (1 - 1 / (1 + np.exp(-(A + B * x + effect)))) ** k


def truth(sd: float, k: int) -> float:
    z = np.random.default_rng(1).normal(size=20_000) * sd
    x_G = np.linspace(0, 12, 1201)
    return float(x_G[np.argmax([success(x, z, k).mean() < 0.5 for x in x_G])])


@pytest.mark.parametrize("sd", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("k", [1, 8])
def test_it_is_within_five_percent_of_the_truth(sd, k):
    """6,000 tasks with 64 draws, seeded: the standard error is at most 1.5 %, the bar is 5 %."""
    rng = np.random.default_rng(7)
    x_P = rng.uniform(0, 12, 6000)
    c_P = rng.binomial(64, success(x_P, sd * rng.normal(size=6000), 1))
    success_P = passk.pass_at_k(np.full(6000, 64), c_P, np.array([k]))[:, 0]
    beta = task_horizon.fit(x_P, success_P, np.ones((1, 6000)))
    assert 2 ** (task_horizon.crossing(beta, x_P)[0] - truth(sd, k)) == pytest.approx(1, abs=0.05)


def test_whole_weights_are_repeated_problems():
    rng = np.random.default_rng(0)
    x_P, success_P = rng.uniform(0, 6, 40), rng.uniform(size=40)
    weight = rng.multinomial(40, np.full(40, 1 / 40))
    rest = np.r_[0, 0, 0]  # the knots are of the problems, not of the weights: keep them by three problems of weight 0
    one = task_horizon.fit(x_P, success_P, weight[None].astype(float))
    knots = task_horizon.knots(x_P)
    basis = task_horizon.spline(np.repeat(x_P, weight), knots)
    residual = np.repeat(success_P, weight) - 1 / (1 + np.exp(-basis @ one[0]))
    assert basis.T @ residual == pytest.approx(task_horizon.RIDGE * one[0] + rest, abs=1e-6)


def test_what_is_not_crossed_has_no_horizon():
    x_P = np.arange(20.0)
    easy, hard = np.full(20, 0.9), np.full(20, 0.1)
    for success_P, want in ((easy, np.inf), (hard, -np.inf)):
        assert task_horizon.crossing(task_horizon.fit(x_P, success_P, np.ones((1, 20))), x_P)[0] == want


def test_grades_of_difficulty_may_repeat_and_two_are_too_few():
    assert len(set(task_horizon.knots(np.repeat([1.0, 2.0, 3.0], [100, 1, 1])))) == 3
    with pytest.raises(ValueError, match="3 different difficulties, got 2"):
        task_horizon.knots(np.array([1.0, 2.0, 2.0]))
    at = np.array([-5.0, 0.0, 1.0, 2.0, 9.0])
    basis = task_horizon.spline(at, np.array([0.0, 1.0, 2.0]))
    assert basis[0, 2] == 0 and np.isfinite(basis).all()
