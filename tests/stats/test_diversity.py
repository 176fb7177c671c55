"""Entropy of answers and rarefied counts of distinct items."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import diversity


def test_entropy_per_problem():
    got = diversity.entropy(np.array([8, 8, 16, 5]), np.array(["a", "a", "a", "b"]))
    assert got == pytest.approx([0.5 * np.log(4) + 0.5 * np.log(2), 0])


def test_distinct_at_the_full_size_counts_and_at_one_is_one():
    count, problem = np.array([3, 2, 1, 4]), np.array([0, 0, 0, 1])
    assert diversity.distinct(count, problem, 6)[0] == pytest.approx(3) and np.isnan(
        diversity.distinct(count, problem, 6)[1]
    )
    assert diversity.distinct(count, problem, 1) == pytest.approx([1, 1])


def test_distinct_is_the_mean_over_subsamples():
    items = np.array([0, 0, 0, 1, 1, 2])
    rng = np.random.default_rng(0)
    drawn = np.mean([len(set(rng.choice(items, 3, replace=False))) for _ in range(4000)])
    # sd of a draw < .7: the mean of 4000 is within .06 but for probability < 1e-4
    assert diversity.distinct(np.array([3, 2, 1]), np.zeros(3, int), 3)[0] == pytest.approx(drawn, abs=0.06)
