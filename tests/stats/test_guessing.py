"""Luck within k draws and Cover@tau, with the identity that ties Cover@tau to pass@k."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from analyzer.stats import guessing


def test_the_published_chance_baseline():
    """AIME, a uniform guess among 1000 integers: 64.1 % at k = 1024, 22.6 % at k = 256."""
    lucky = guessing.lucky(np.array([0.001]), np.array([1, 256, 1024]))[0]
    assert lucky == pytest.approx([0.001, 0.226, 0.641], abs=5e-4)


def test_the_guess_rate_is_the_favourite_wrong_answer():
    names, g = guessing.rate([3, 5, 2], [20, 20, 10], ["b", "b", "a"])
    assert names.tolist() == ["a", "b"] and g == pytest.approx([0.2, 0.25])


def test_permuted_gold_is_the_mean_over_all_other_gold_answers():
    rng = np.random.default_rng(0)
    problems, draws = list("abcdefg"), rng.integers(0, 4, (7, 50)).astype(str)
    gold = dict(zip(problems, rng.integers(0, 4, 6).astype(str)))  # the last problem's is not known
    rows = [(p, *row) for p, d in zip(problems, draws) for row in zip(*np.unique(d, return_counts=True))]
    problem, answer, count = zip(*rows, strict=True)
    names, g = guessing.permuted(np.array(count), np.array(answer), np.array(problem), gold)
    brute = [np.mean([(d == gold[o]).mean() for o in gold if o != p]) for p, d in zip(problems, draws)]
    assert names.tolist() == problems and g == pytest.approx(brute, abs=1e-12)


def test_permuted_gold_needs_another_problem_and_sees_constant_answers():
    assert np.isnan(guessing.permuted([5], ["x"], ["a"], {"a": "x"})[1]).all()
    names, g = guessing.permuted([9, 1, 10], ["1", "7", "7"], ["a", "a", "b"], {"a": "7", "b": "1", "c": "1"})
    assert names.tolist() == ["a", "b"] and g == pytest.approx([0.9, 0.5])  # b: 7 is a's gold, not c's


def test_cover_counts_at_the_threshold():
    n, c = np.array([30, 30, 30, 10]), np.array([3, 2, 30, 0])
    assert guessing.cover(n, c, np.array([0.1, 0.5, 1.0])).mean(0).tolist() == [0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="0 < tau <= 1"):
        guessing.cover(n, c, np.array([0.0]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=6), st.sampled_from([1, 2, 8, 64]))
def test_pass_at_k_is_an_integral_of_cover(problems, k):
    """pass@k = int_0^1 k (1 - t)^(k - 1) Cover@t dt, with p = c / n (Dragoi et al.)."""
    n = np.array([n for n, _ in problems])
    c = np.array([int(n * share) for n, share in problems])

    def integrand(t: float) -> float:
        return k * (1 - t) ** (k - 1) * guessing.cover(n, c, np.array([t])).mean()

    edges = np.unique([0.0, *(c / n), 1.0])
    whole = sum(quad(integrand, a + 1e-9, b - 1e-9)[0] for a, b in zip(edges, edges[1:], strict=False))
    assert whole == pytest.approx((1 - (1 - c / n) ** k).mean(), abs=1e-6)
