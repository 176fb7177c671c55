"""Intervals: coverage where it is known, exact bounds, invariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from analyzer.stats import bootstrap


def test_weights_resample_whole_problems():
    w_BP = bootstrap.weights(7, draws=50, seed=3)
    assert w_BP.shape == (50, 7) and (w_BP.sum(axis=1) == 7).all()
    assert (w_BP == bootstrap.weights(7, draws=50, seed=3)).all() and (
        w_BP != bootstrap.weights(7, draws=50, seed=4)
    ).any()


def test_mean_is_over_traces_and_skips_nan():
    got = bootstrap.mean(np.array([1.0, 0.0, np.nan, 1.0]), np.array(["a", "a", "a", "b"]))
    assert got.value == pytest.approx(2 / 3) and got.n == 3 and got.problems == 2


def test_few_problems_have_no_interval_or_students():
    for m in (1, 2):
        got = bootstrap.mean(np.array([0.0, 1.0]), np.arange(2) % m)
        assert got.value == 0.5 and np.isnan(got.low) and got.method.endswith("no interval, 3 are needed")
        got = bootstrap.rate(np.array([0.0, 1.0]), np.arange(2) % m)
        assert got.value == 0.5 and np.isnan([got.low, got.high]).all() and "3 are needed" in got.method
    got = bootstrap.mean(np.array([1.0, 2.0, 6.0]), np.arange(3))
    half = student.isf(0.025, 2) * np.std([1, 2, 6], ddof=1) / np.sqrt(3)
    assert got.method == "Student's t over problems" and (got.low, got.high) == pytest.approx((3 - half, 3 + half))
    assert np.isnan(bootstrap.mean(np.array([np.nan]), np.array(["a"])).value)


def test_the_expanded_percentile_is_students_interval_of_a_mean():
    assert bootstrap.expanded(0.025, 10) == pytest.approx(norm.sf(student.isf(0.025, 9) * np.sqrt(10 / 9)))
    assert bootstrap.expanded(0.025, 10**6) == pytest.approx(0.025, rel=1e-4)
    x = np.random.default_rng(0).normal(size=12)
    got = bootstrap.mean(x, np.arange(12), draws=200_000)
    half = student.isf(0.025, 11) * x.std(ddof=1) / np.sqrt(12)
    assert (got.low, got.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.03)


def test_interval_does_not_depend_on_the_order_of_traces():
    rng = np.random.default_rng(0)
    x, problem = rng.random(300), rng.integers(0, 20, 300)
    order = rng.permutation(300)
    a, b = bootstrap.mean(x, problem), bootstrap.mean(x[order], problem[order])
    assert a[:3] == pytest.approx(b[:3], abs=1e-12)


def simulate(seed: int, unit: str) -> bool:
    """Does the interval cover .5? 40 problems with their own rates, 25 traces each; `unit` is what is resampled."""
    rng = np.random.default_rng(seed)
    rate_P = rng.beta(1, 1, 40)
    x = (rng.random((40, 25)) < rate_P[:, None]).astype(float).ravel()
    group = np.repeat(np.arange(40), 25) if unit == "problem" else np.arange(1000)
    got = bootstrap.mean(x, group, draws=300, seed=seed)
    return got.low <= 0.5 <= got.high


def test_coverage_by_problem_and_the_trace_level_mutant():
    # nominal .95; with 200 runs coverage below .86 has probability < 1e-4 even if the true coverage is .93
    assert np.mean([simulate(s, "problem") for s in range(200)]) >= 0.86
    assert np.mean([simulate(s, "trace") for s in range(200)]) <= 0.70


def test_share_upper_is_clopper_pearson():
    for events, n in ((0, 64), (3, 100), (17, 40)):
        exact = binomtest(events, n, alternative="less").proportion_ci(0.95).high
        assert bootstrap.share_upper(events, n) == pytest.approx(exact, abs=1e-9)
    assert bootstrap.share_upper(0, 150) == pytest.approx(3 / 150, rel=0.02) and bootstrap.share_upper(5, 5) == 1


def test_rate_of_no_event_has_an_upper_bound_above_zero():
    got = bootstrap.rate(np.zeros(300), np.repeat(np.arange(30), 10))
    assert got.value == got.low == 0 and got.high == pytest.approx(1 - 0.05 ** (1 / 300))
    assert got.method.endswith("Clopper-Pearson for these 30 problems (new ones: off by at most 0.095)")
    assert bootstrap.share_upper(0, 30) == pytest.approx(0.095, abs=5e-4)


def test_rate_of_all_events_has_a_lower_bound_below_one():
    got = bootstrap.rate(np.ones(300), np.repeat(np.arange(30), 10))
    assert got.value == got.high == 1 and got.low == pytest.approx(0.05 ** (1 / 300))


def test_zeros_in_traces_and_zeros_by_problem_have_one_bound():
    """No event: how the traces fall on problems does not matter, as P(no event) = prod (1 - e_i)^(n_i)."""
    uneven = np.repeat(np.arange(30), np.arange(30) % 7 + 7)
    got = bootstrap.rate(np.zeros(len(uneven)), uneven)
    assert got.high == pytest.approx(1 - 0.05 ** (1 / len(uneven)))
    each = bootstrap.rate(np.zeros(40), np.arange(40))
    assert each.high == pytest.approx(1 - 0.05 ** (1 / 40)) and "new ones" not in each.method


def test_rare_upper_is_clopper_pearson_of_events_and_smaller_for_small_values():
    for events in (0, 1, 7):
        values = np.zeros(200)
        values[:events] = 1
        assert bootstrap.rare_upper(values) == pytest.approx(bootstrap.share_upper(events, 200))
        assert bootstrap.rare_upper(values / 100) <= bootstrap.share_upper(0, 200) + events / 100 * 0.02
    rng = np.random.default_rng(0)
    values = np.where(rng.random(200) < 0.1, rng.random(200), 0)
    found = bootstrap.rare_upper(values)
    assert values.mean() < found < bootstrap.share_upper((values > 0).sum(), 200)
    more = values.copy()
    more[0] += 0.5
    assert bootstrap.rare_upper(np.minimum(1, more)) > found


def test_events_in_one_problem_are_one_problem_s_worth():
    """Departure concentrated in a problem has about the interval of one event among the problems."""
    problem = np.repeat(np.arange(30), 16)
    together, apart = (problem == 3).astype(float), (np.arange(480) % 54 == 0).astype(float)
    one = binomtest(1, 30).proportion_ci(0.95)
    got = bootstrap.rate(together, problem)
    assert got.low == pytest.approx(one.low, abs=1e-3) and got.high == pytest.approx(one.high, abs=0.02)
    assert "worth 480 independent traces" in bootstrap.rate(apart, problem).method
    assert bootstrap.rate(apart, problem).high < got.high / 4


LAWS = {
    "alike": (lambda rng, m: np.full(m, 0.3), 0.3),
    "rare": (lambda rng, m: np.full(m, 0.02), 0.02),
    "uneven": (lambda rng, m: rng.beta(0.5, 2, m), 0.2),
    "very uneven": (lambda rng, m: rng.beta(0.2, 0.8, m), 0.2),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("problems", [3, 5, 10, 30])
def test_rate_covers_new_problems(problems, law):
    """Coverage of the population's rate at least .90: fewer than 333 of 400 runs have a probability below 1e-4.

    Where no event is seen the interval speaks of the given problems only, and those runs are left out."""
    rng = np.random.default_rng([problems, len(law)])
    problem, (drawn, truth) = np.repeat(np.arange(problems), 16), LAWS[law]
    hits = runs = 0
    while runs < 400:
        x = (rng.random(len(problem)) < drawn(rng, problems)[problem]).astype(float)
        if not 0 < x.sum() < len(x):
            continue
        got = bootstrap.rate(x, problem)
        hits, runs = hits + (got.low <= truth <= got.high), runs + 1
    assert hits >= 333


def test_quantiles_keep_infinity_and_drop_nan():
    low, high = bootstrap.quantiles(np.array([1.0] * 50 + [np.inf] * 50 + [np.nan] * 10), 20)
    assert low == 1 and np.isposinf(high)
    assert all(np.isnan(bootstrap.quantiles(np.array([np.nan]), 20)))
    assert all(np.isnan(bootstrap.quantiles(np.arange(100.0), 4)))  # no resample leaves the range of four problems


@pytest.mark.parametrize("problems", [3, 5, 9, 10])
def test_few_problems_with_events_in_all_of_them_keep_their_lower_bound(problems):
    """Reach has continuous terms below 1 everywhere: that is not an event at the edge."""
    values = 0.95 + 0.04 * np.random.default_rng(0).random(problems * 64)
    found = bootstrap.rate(values, np.repeat(np.arange(problems), 64))
    assert 0.9 < found.low <= found.value <= found.high < 1
