"""What k draws contain: the estimate against exact sums, the bound against exact error rates and simulation."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from analyzer.stats import contained


def test_missed_is_the_share_of_subsets_without_the_class():
    n, k = 6, 3
    for m in range(n + 1):
        without = sum(all(i >= m for i in subset) for subset in combinations(range(n), k))
        assert contained.missed(m, n, k) == pytest.approx(without / comb(n, k))
    n = np.arange(2, 3000)
    assert (contained.missed(0, n, np.minimum(n, 64)) <= 1).all()  # no chance above 1 by rounding
    assert np.isnan(contained.missed(0, 2, 3)) and contained.missed(5000, 10_000, 64) == pytest.approx(0, abs=1e-18)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (16, 8), (100, 64), (256, 64)])
def test_its_mean_over_draws_is_the_chance_that_k_draws_miss(n, k):
    p = np.array([0.0, 1e-3, 0.02, 0.3, 1.0])
    m = np.arange(n + 1)
    assert (binom.pmf(m, n, p[:, None]) @ contained.missed(m, n, k)) == pytest.approx((1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize(
    ("draws", "k", "expected"),
    [
        ([1] + [40] * 19, 64, 32),
        ([1, 1, 1] + [40] * 19, 64, 0),
        ([256, 300], 64, 64),
        ([65], 64, 64),
        ([64], 64, 32),
        ([3, 9], 64, 2),
        ([1], 64, 0),
    ],
)
def test_the_budget_is_a_power_of_two_that_the_references_other_draws_allow(draws, k, expected):
    assert contained.budget(np.array(draws), k) == expected and contained.budget(np.array([]), k) == 0


@pytest.mark.parametrize(("n", "k"), [(9, 4), (12, 8), (5, 2)])
@pytest.mark.parametrize("traces", [1, 50])
def test_the_bound_misses_in_at_most_5_of_100(n, k, traces):
    """Exact: two problems, the source writes one class on each, of reference probability p and r."""
    m = np.arange(n + 1)
    z = contained.missed(m, n, k)
    bound = {w: contained.upper(w, np.full(2, n), np.full(2, traces), k) for w in {(a + b) / 2 for a in z for b in z}}
    for p, r in product((0.0, 0.02, 0.1, 0.2, 0.4), repeat=2):
        truth = ((1 - p) ** k + (1 - r) ** k) / 2
        chance = np.outer(binom.pmf(m, n, p), binom.pmf(m, n, r))
        wrong = np.array([[bound[(a + b) / 2] < truth - 1e-12 for b in z] for a in z])
        assert (chance * wrong).sum() <= 0.05


def test_the_bound_holds_for_few_traces_of_many_classes():
    """40 problems, 3 traces, 20 draws; a tenth of the source's mass is in classes that the reference lacks and the rest
    in ten of its own. 400 runs at level .05: P(more than 38 wrong) < 1e-4."""
    rng, k, n, wrong = np.random.default_rng(0), 8, 20, 0
    p = np.append(np.full(10, 0.1), 0.0)
    q = np.append(np.full(10, 0.09), 0.1)
    truth = float(q @ (1 - p) ** k)
    for _ in range(400):
        m = rng.multinomial(n, p, size=40)
        own = np.array([rng.choice(11, 3, p=q) for _ in range(40)])
        w = contained.missed(np.take_along_axis(m, own, 1), n, k).mean()
        wrong += contained.upper(w, np.full(40, n), np.full(40, 3), k) < truth
    assert wrong <= 38


def test_bound_and_p_value_are_two_sides_of_one():
    n, traces = np.full(64, 256), np.full(64, 24)
    high = contained.upper(0.004, n, traces, 64)
    assert contained.p_value(0.004, n, traces, 64, high) == pytest.approx(0.05, rel=0.05)
    assert (
        contained.p_value(0.004, n, traces, 64, 0.9 * high) > 0.05 > contained.p_value(0.004, n, traces, 64, 1.1 * high)
    )
    assert contained.p_value(0.03, n, traces, 64, 0.02) == 1 and contained.upper(0.4, n, traces, 64) >= 0.4
    assert contained.upper(0.0, n[:0], traces[:0], 64) == 1


def test_more_draws_traces_or_problems_never_widen_the_bound():
    def bound(problems, n, traces):
        return contained.upper(0.002, np.full(problems, n), np.full(problems, traces), 16)

    assert bound(30, 256, 64) <= bound(30, 64, 64) <= bound(30, 17, 64)
    assert bound(30, 256, 64) <= bound(30, 256, 8) <= bound(30, 256, 1)
    assert bound(100, 64, 8) < bound(30, 64, 8) < bound(5, 64, 8)


def test_draws_needed_are_enough_and_hardly_too_many():
    n, traces = np.full(30, 10), np.full(30, 64)
    wanted = 0.6 * contained.upper(0, n, traces, 8)
    needed = int(contained.draws_needed(n, traces, 8, wanted))
    assert 10 < needed < 25 and contained.upper(0, np.full(30, needed), traces, 8) <= wanted
    assert contained.draws_needed(n, traces, 8, 0.5) == 10
    assert np.isnan(contained.draws_needed(np.full(3, 65), np.full(3, 1), 64, 0.02))


@pytest.mark.parametrize(("problems", "n", "least"), [(24, 8, 0), (24, 8, 65), (64, 16, 65), (30, 6, 0), (300, 3, 65)])
def test_with_the_draws_needed_the_budget_that_they_allow_can_certify(problems, n, least):
    """k grows with the draws: so many that k = 4 could certify are too few for the k = 8 that they bring."""
    n_P, traces_P = np.full(problems, n), np.full(problems, 12)
    needed = np.full(problems, int(contained.draws_needed(n_P, traces_P, 64, 0.02, least=least)))
    assert needed[0] >= least and contained.upper(0.0, needed, traces_P, contained.budget(needed, 64)) <= 0.02


def test_the_bound_holds_for_copies_of_few_draws():
    """64 problems with 72 draws, k = 64; a source of which .022 is beyond every budget, the rest the base's one class,
    and of whose draws only every 2nd, 4th or 16th is new. 1,000 runs at level .05: P(more than 80) < 1e-4."""
    rng, theta = np.random.default_rng(0), 0.022
    n_P = np.full(64, 72)
    for apart in (1, 2, 4):
        cut = max(
            (w for w in np.arange(0, 60) / (64 * apart) if contained.upper(w, n_P, np.full(64, apart), 64) <= 0.02),
            default=-1,
        )
        shown = rng.binomial(64 * apart, theta, 1000) / (64 * apart)
        assert (shown <= cut + 1e-12).sum() <= 80
