"""CoT-Pass@k without a judge's errors: against its definition, and against what it has to be on average."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from analyzer.stats import chains, passk

SE, SP = 0.8, 0.7


def one(n, c, yes, k, se=SE, sp=SP) -> float:
    return float(chains.corrected(np.array([n]), np.array([c]), np.array([yes]), np.array([k]), se, sp)[0, 0])


def defined(votes: list[int | None], k: int) -> float:
    """1 less the mean over subsets of the product of 1 - x; votes: None for a wrong draw."""
    x = [0.0 if v is None else (v + SP - 1) / (SE + SP - 1) for v in votes]
    return 1 - np.mean([np.prod([1 - x[i] for i in some]) for some in combinations(range(len(x)), k)])


@pytest.mark.parametrize(("n", "c", "yes"), [(6, 4, 3), (6, 0, 0), (5, 5, 5), (7, 3, 0), (3, 1, 1)])
def test_it_is_the_mean_over_subsets(n, c, yes):
    votes = [1] * yes + [0] * (c - yes) + [None] * (n - c)
    for k in range(1, n + 1):
        assert one(n, c, yes, k) == pytest.approx(defined(votes, k), abs=1e-12)
    assert np.isnan(one(n, c, yes, n + 1))


def test_it_is_right_on_average_whatever_the_judge_says():
    """Over all verdicts of the judge on 4 correct draws of 6, two of them valid: exactly CoT-Pass@k."""
    valid = [1, 1, 0, 0]
    for k in range(1, 7):
        mean = 0.0
        for votes in product((0, 1), repeat=4):
            chance = np.prod([(SE if v else 1 - SE) if t else (1 - SP if v else SP) for t, v in zip(valid, votes)])
            mean += chance * one(6, 4, sum(votes), k)
        assert mean == pytest.approx(1 - comb(4, k) / comb(6, k), abs=1e-12)


def test_a_judge_without_errors_changes_nothing():
    n, c, yes = np.array([64, 64, 200]), np.array([30, 64, 200]), np.array([7, 64, 90])
    k = np.array([1, 2, 16, 64])
    assert chains.corrected(n, c, yes, k, 1.0, 1.0) == pytest.approx(passk.pass_at_k(n, yes, k), abs=1e-9)


def test_the_interval_holds_the_truth_where_the_naive_one_does_not():
    """60 problems x 16, P(valid | correct) about .15, se .8, sp .7, 100 chains read by a person. An interval of 95 %
    misses at all of 12 seeds' k = 1 more than 5 times with probability below 2e-4; the naive value is .25 above."""
    missed, low = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        right, valid = rng.beta(2, 1, 60), rng.beta(0.5, 3, 60)
        c = rng.binomial(16, right)
        d = rng.binomial(c, valid)
        yes = rng.binomial(d, SE) + rng.binomial(c - d, 1 - SP)
        good = rng.hypergeometric(d.sum(), (c - d).sum(), 100)
        judged = (int(rng.binomial(good, SE)), int(good), int(rng.binomial(100 - good, SP)), int(100 - good))
        (found,) = chains.interval(np.full(60, 16), c, yes, np.array([1]), judged, seed=seed, draws=200)
        truth = float((right * valid).mean())
        missed += not found.low <= truth <= found.high
        low += yes.sum() / 960 > truth + 0.1
        assert 0 <= found.low <= found.high <= c.sum() / 960 + 1e-12
    assert missed <= 5 and low == 12


def test_a_judge_who_tells_nothing_leaves_everything_open():
    n, c = np.full(20, 8), np.full(20, 4)
    (found,) = chains.interval(n, c, np.full(20, 2), np.array([1]), (20, 40, 20, 40), draws=200)
    assert np.isnan(found.value) and found.low == 0 and found.high == pytest.approx(0.5)
