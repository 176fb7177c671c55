"""Good-Turing against its expectation, and against what further draws bring."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats.unseen import missing_mass


def test_by_hand():
    # problem a: 3 draws, one answer twice and one once; b: one answer; c: four answers once each
    counts, problems = [2, 1, 5, 1, 1, 1, 1], list("aabcccc")
    assert missing_mass(counts, problems) == pytest.approx([1 / 3, 0, 1])


def test_expectation():
    """E[N1 / n] = sum p (1 - p)^(n - 1) on a Zipf law; 2,000 problems of 32 draws, 5 standard errors."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, 101)
    p /= p.sum()
    draws = rng.multinomial(32, p, size=2000)
    problem, answer = np.nonzero(draws)
    mass = missing_mass(draws[problem, answer], problem)
    want = (p * (1 - p) ** 31).sum()
    assert abs(mass.mean() - want) < 5 * mass.std() / np.sqrt(2000)
    # what one more draw would bring: the truth that it stands for
    unseen = ((draws == 0) * p).sum(1).mean()
    assert mass.mean() == pytest.approx(unseen, abs=0.02)
