"""Lower bounds of E_k from e-values: closed forms, and the level in worlds where E_k is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analyzer.stats import beyond, bounds
from analyzer.stats.bootstrap import ALPHA


def test_closed_forms():
    part = np.zeros(400, int)
    all_large = beyond.least(np.full(400, 50.0), part, 64, 0.01)
    cost = min(beyond.CAPS)
    assert all_large.value == pytest.approx(1 - cost)
    assert all_large.low == pytest.approx(bounds.lower(np.ones(400), alpha=ALPHA / 2) - cost) and all_large.p < 1e-9
    none = beyond.least(np.full(400, math.nan), part, 64, 0.01)
    assert none.value == none.low == 0 and none.p == 1
    assert math.isnan(beyond.least(np.empty(0), np.empty(0), 64, 0.01).low)
    infinite = beyond.least(np.full(400, math.inf), part, 64, 0.01)
    assert infinite.low == pytest.approx(all_large.low)


def test_p_is_where_the_bound_crosses_the_threshold():
    rng = np.random.default_rng(0)
    log_e, part = np.where(rng.random(300) < 0.1, 20.0, -1.0), rng.integers(0, 2, 300)
    found = beyond.least(log_e, part, 64, 0.03)
    at = beyond.least(log_e, part, 64, found.low)
    assert at.p == pytest.approx(ALPHA, rel=0.01) and found.p < ALPHA < beyond.least(log_e, part, 64, 0.08).p


def test_many_that_are_large_together_say_what_none_says_alone():
    log_e = np.full(400, math.log(1000.0))  # at budget 64 no trace by itself: 1000 < 64 / .05
    found = beyond.least(log_e, np.zeros(400, int), 64, 0.01)
    assert found.low > 0.2 and found.p < 1e-6


@pytest.mark.parametrize(("k", "tau"), [(4, 0.0), (4, 0.1), (64, 0.02)])
def test_the_bound_is_below_the_mass_in_95_of_100_worlds(k, tau):
    """Q puts tau where P has nothing (e infinite there) and is on the rest k times P where e is largest: the worst case
    that the proof allows, E_Q[min(e, c)] = k E_P[e] + c tau. 400 worlds: more than 41 misses have chance 1e-5."""
    rng, misses = np.random.default_rng(7), 0
    for _ in range(400):
        half = rng.integers(0, 2, 200)
        # e = 1 / u on the set of P-mass u0 that Q / k lives on: E_P[e; there] <= 1
        top = (1 - tau) / k
        e = np.where(rng.random(200) < tau, np.inf, 1 / top)
        misses += beyond.least(np.log(e), half, k, 0.01).low > tau
    assert misses <= 41
