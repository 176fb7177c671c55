"""The conditional binomial at a budget: planning numbers of the method note, size, Holm, what would decide."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import budget


@pytest.mark.parametrize(
    ("n_p", "n_q", "k", "least"),
    [(64, 64, 1, 5), (64, 64, 4, 14), (256, 64, 4, 5), (256, 64, 16, 14), (1024, 64, 64, 14), (4096, 64, 64, 5)],
)
def test_events_needed_at_zero_reference_hits(n_p, n_q, k, least):
    assert budget.p_value(least, n_q, 0, n_p, k) <= 0.05 < budget.p_value(least - 1, n_q, 0, n_p, k)


def test_no_event_and_equal_rates_are_no_evidence():
    assert budget.p_value(0, 64, 0, 64, 1) == 1
    assert budget.p_value(30, 64, 30, 64, 1) > 0.4 and budget.p_value(30, 64, 30, 64, 64) > 0.99


def test_budget_makes_it_milder():
    p = budget.p_value(40, 64, 1, 64, np.array([1, 4, 16, 64]))
    assert (np.diff(p) > 0).all() and p[0] < 1e-10


def test_best_of_16_against_its_own_base():
    """Solved-set McNemar always rejects it; at budget 16 this may not: 400 runs, size <= .05, > 40 has p < 1e-4."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        p = rng.beta(0.3, 6, 40)
        c_p, c_q = rng.binomial(64, p), rng.binomial(64, 1 - (1 - p) ** 16)
        hits += budget.p_value(c_q.sum(), 64 * 40, c_p.sum(), 64 * 40, 16) <= 0.05
    assert hits <= 40


def test_holm():
    assert budget.holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert budget.holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert budget.holm(np.zeros(0)).tolist() == []


def test_factor_says_when_the_test_would_reject():
    assert np.isnan(budget.factor(0, 64, 0, 64, 4)) and np.isnan(budget.factor(10, 64, 9, 64, 4))
    assert budget.factor(500, 3072, 0, 3072, 64) == 1
    f = budget.factor(172, 3072, 0, 3072, 64)  # the miniature's foreign kind: 172 against 0 is not yet enough at 64
    n = int(3072 * f)
    assert budget.p_value(int(172 * f), n, 0, n, 64) <= 0.05 < budget.p_value(172, 3072, 0, 3072, 64)
    assert f > 2  # with 1 of the reference among so many more it is not enough yet either


def test_no_number_of_draws_is_named_for_a_chance_event():
    """1 against 0 satisfies no H0, and would pass at 600 times the draws if the rates stayed."""
    for c_q in (1, 3, 10):
        assert np.isnan(budget.factor(c_q, 1000, 0, 1000, 64))
    assert np.isfinite(budget.factor(10, 64, 0, 64, 4))


@pytest.mark.parametrize("k", [1, 4, 64])
def test_who_follows_the_factor_is_decided_in_four_of_five_cases(k):
    """Rates spread evenly on a log scale, around k times the reference's: 200 undecided samples of each budget."""
    rng, decided, asked = np.random.default_rng(k), 0, 0
    while asked < 200:
        p = 10 ** rng.uniform(-4, -1)
        q = min(0.9, p * k * 10 ** rng.uniform(-1, 1.5))
        c_q, c_p = rng.binomial(500, q), rng.binomial(500, p)
        f = budget.factor(c_q, 500, c_p, 500, k)
        if budget.p_value(c_q, 500, c_p, 500, k) <= 0.05 or not np.isfinite(f):
            continue
        n = int(500 * max(f, 1.1))
        decided += budget.p_value(rng.binomial(n, q), n, rng.binomial(n, p), n, k) <= 0.05
        asked += 1
    assert decided >= 0.685 * asked  # .8, and 4 standard errors
