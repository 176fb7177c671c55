"""The permutation engine: closed forms, exactness with unequal counts, and the mutant that permutes across problems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import chi2_contingency, energy_distance, kstest

from analyzer.stats import kernels, permutation
from analyzer.stats.permutation import Block


def labelled(a: int, b: int) -> np.ndarray:
    return np.arange(a + b) >= a


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_energy_is_scipys_in_one_dimension(a, b, seed):
    x = np.random.default_rng(seed).normal(size=a + b)
    s = permutation.signs(labelled(a, b), 0, 0)
    distance = np.abs(x[:, None] - x[None])
    found = permutation.quadratic(s, kernels.energy(distance))[0] * (a + b) / (a * b)
    assert found == pytest.approx(energy_distance(x[:a], x[a:]) ** 2, abs=1e-10)
    gram = np.multiply.outer(x, x)
    assert np.allclose(kernels.distances(gram), distance, atol=1e-6)


def test_occupancy_is_chi_square_over_n():
    rng = np.random.default_rng(0)
    cluster, source = rng.integers(0, 4, 50), labelled(20, 30)
    table = np.array([[np.sum(source[cluster == c] == arm) for c in range(4)] for arm in (False, True)])
    s = permutation.signs(source, 7, 0)
    found = permutation.quadratic(s, kernels.occupancy(cluster))
    assert found[0] == pytest.approx(chi2_contingency(table, correction=False).statistic / 50, abs=1e-12)
    assert np.allclose(permutation.factored(s, kernels.occupancy_factor(cluster)), found)
    assert np.allclose(kernels.occupancy(cluster).sum(1), 1)


@pytest.mark.parametrize(("a", "b"), [(12, 12), (5, 19)])
def test_null_means_of_neighbours_and_tree(a, b):
    """Mean over permutations of the share of neighbours of the same arm, and of the tree's edges between arms.

    20,000 permutations: the bounds are 5 standard errors of the very draws, false-alarm rate 1e-6.
    """
    n = a + b
    distance = cdist(*[np.random.default_rng(1).normal(size=(n, 3))] * 2)
    one = permutation.signs(labelled(a, b), 20_000, 3)[1:] > 0
    near, tree = kernels.nearest(distance), kernels.tree(distance)
    assert near.sum() == pytest.approx(n * kernels.NEIGHBOURS) and tree.sum() == 2 * (n - 1)
    same = ((one @ near * one).sum(1) + (~one @ near * ~one).sum(1)) / near.sum()
    expected = (a * (a - 1) + b * (b - 1)) / (n * (n - 1))
    assert abs(same.mean() - expected) < 5 * same.std() / np.sqrt(len(same))
    between = (one @ tree * ~one).sum(1)
    assert abs(between.mean() - 2 * a * b / n) < 5 * between.std() / np.sqrt(len(between))


def test_ties_between_neighbours_are_shared_whatever_the_order_of_rows():
    x = np.array([0.0, 0, 0, 0, 1, 1, 5])
    order = np.random.default_rng(0).permutation(7)
    distance = np.abs(x[:, None] - x[None])
    near = kernels.nearest(distance, 2)
    assert np.allclose(kernels.nearest(distance[np.ix_(order, order)], 2), near[np.ix_(order, order)])
    assert near[0, 1] == pytest.approx(2 / 3) and near[4, 5] == pytest.approx(1)
    assert kernels.nearest(np.zeros((1, 1))).tolist() == [[0.0]]
    assert kernels.nearest(np.zeros((3, 3)), 5).sum() == pytest.approx(6)  # no more neighbours than there are


def test_signs_are_balanced_and_do_not_see_who_wrote_what():
    source = np.array([True, False, False, True, False])
    s = permutation.signs(source, 50, 4, 9)
    assert s.shape == (51, 5) and np.allclose(s.sum(1), 0) and ((s[1:] > 0).sum(1) == 2).all()
    assert np.array_equal(s[1:], permutation.signs(source[::-1], 50, 4, 9)[1:])
    assert not np.array_equal(s[1:], permutation.signs(source, 50, 4, 10)[1:])
    assert (s**2).sum(1) == pytest.approx(1.0)  # sqrt(ab / n) makes every problem's weights of length 1
    assert not permutation.signs(np.ones(3, bool), 5, 0).any()


def test_p_value_by_hand():
    assert permutation.p_value(np.array([3.0, 1, 2, 3, 4])) == pytest.approx(3 / 5)
    assert permutation.p_value(np.array([9.0, 1, 2, 3, 4])) == pytest.approx(1 / 5)  # never 0
    assert permutation.p_value(np.array([0.3, 0.1 + 0.2])) == 1.0  # rounding is a tie
    assert permutation.p_value(np.zeros(4)) == 1.0


def test_all_permutations_make_the_p_value_exact():
    """Every relabelling of one small problem as the observed one: P(p <= t) <= t over all of them."""
    from itertools import combinations

    x = np.random.default_rng(2).normal(size=8)
    kernel = -np.abs(x[:, None] - x[None])
    p = []
    for chosen in combinations(range(8), 3):
        source = np.isin(np.arange(8), chosen)
        found = permutation.test([Block(source, {"e": kernel}, {})], permutations=199, seed=5)
        p.append(found["e"].p)
    # one set of draws for all 56: the p-values are ranks in the same 199 draws, off by their Monte Carlo error alone
    for t in (0.1, 0.25, 0.5):
        assert np.mean(np.array(p) <= t) <= t + 5 * np.sqrt(t * (1 - t) / 199)


def world(rng: np.random.Generator, *, problems: int = 12, shift: float = 0.0) -> list[Block]:
    """Correct traces alone: problems lie apart, one arm solves the first half often, the other arm the second half."""
    blocks = []
    for p in range(problems):
        a, b = (10, 3) if p < problems // 2 else (3, 10)
        x = rng.normal(size=(a + b, 2)) + 3 * (p >= problems // 2)
        x[a:, 0] += shift
        blocks.append(Block(labelled(a, b), {"energy": kernels.energy(cdist(x, x))}, {"score": x[:, 0]}, p))
    return blocks


def globally(blocks: list[Block], rng: np.random.Generator, permutations: int = 99) -> float:
    """The mutant: one kernel over the traces of all problems, labels permuted across them."""
    source = np.concatenate([b.source_N for b in blocks])
    score = np.concatenate([b.numbers["score"] for b in blocks])
    kernel = -np.abs(score[:, None] - score[None])
    s = permutation.signs(source, 0, 0)[0]
    draws = np.stack([s, *(rng.permutation(s) for _ in range(permutations))])
    return permutation.p_value(permutation.quadratic(draws, kernel))


def test_size_with_unequal_counts_and_the_global_mutant():
    """400 true nulls at .05: 20 expected. P(Binomial(400, .05) >= 38) = 9e-5, P(<= 5) = 4e-5; the mutant must break."""
    rng = np.random.default_rng(11)
    rejected, mutant, ps = {"energy": 0, "score": 0}, 0, []
    for run in range(400):
        blocks = world(rng)
        found = permutation.test(blocks, permutations=99, seed=run)
        for name in rejected:
            rejected[name] += found[name].p <= 0.05
        ps.append(found["energy"].p)
        mutant += globally(blocks, rng) <= 0.05 if run < 100 else 0
    assert all(5 < count < 38 for count in rejected.values()), rejected
    assert kstest(np.array(ps) - rng.random(400) / 100, "uniform").pvalue > 1e-4
    assert mutant > 20  # of 100


def test_power_against_a_shift():
    """A shift of 2.5 sd is seen in every one of 20 runs: over 500 other runs the largest p was .005."""
    rng = np.random.default_rng(12)
    for run in range(20):
        found = permutation.test(world(rng, shift=2.5), permutations=199, seed=run)
        assert found["energy"].p <= 0.05 and found["score"].p <= 0.05
        assert found["energy"].statistic > found["energy"].null and found["score"].statistic > 0


def test_blocks_are_summed_and_one_armed_ones_left_out():
    rng = np.random.default_rng(3)
    blocks = world(rng, problems=4)
    alone = Block(np.ones(4, bool), {"energy": -np.ones((4, 4))}, {"score": np.ones(4)})
    one, two = (permutation.test(iter(b), permutations=50, seed=1) for b in (blocks, [*blocks, alone]))
    assert one == two and one["energy"].problems == 4 and one["energy"].n == 52
    turned = permutation.test(blocks[::-1], permutations=50, seed=1)  # the mark, not the place, seeds a problem
    assert all(turned[name] == pytest.approx(one[name]) for name in ("energy", "score"))
    by_hand = sum(permutation.quadratic(permutation.signs(b.source_N, 0, 0), b.kernels["energy"])[0] for b in blocks)
    assert one["energy"].statistic == pytest.approx(by_hand)
    assert permutation.test([alone]) == {}


def test_the_mark_ignores_the_order_of_texts():
    assert permutation.mark(["a", "b"]) == permutation.mark(["b", "a"]) != permutation.mark(["a", "c"])


def units(rng: np.random.Generator, planted: bool) -> list[tuple[np.ndarray, np.ndarray, int]]:
    out = []
    for p in range(10):
        source = labelled(16, 12)
        member = rng.random((28, 6)) < 0.2
        member[:, 4] = False
        if planted:
            member[source, 2] |= rng.random(12) < 0.4
        out.append((source, member, p))
    return out


def test_max_t_finds_the_planted_unit_and_holds_its_size():
    """300 true nulls at .05: P(Binomial(300, .05) >= 31) = 8e-5."""
    rng = np.random.default_rng(13)
    found = permutation.max_t(units(rng, True), permutations=199, seed=0)
    assert found.argmin() == 2 and found[2] == pytest.approx(1 / 200) and found[4] == 1.0
    hits = sum(permutation.max_t(units(rng, False), permutations=99, seed=s).min() <= 0.05 for s in range(300))
    assert hits < 31
    assert permutation.max_t([]).tolist() == []


def test_families_of_units_are_compared_apart_with_the_same_permutations():
    rng = np.random.default_rng(5)
    blocks = [(np.arange(24) < 10, rng.random((24, 5)) < 0.4, p) for p in range(6)]
    family = np.array([0, 1, 0, 1, 1])
    found = permutation.max_t(blocks, permutations=99, family_C=family)
    for f in (0, 1):
        alone = permutation.max_t([(s, m[:, family == f], p) for s, m, p in blocks], permutations=99)
        assert np.array_equal(found[family == f], alone)
    assert (found <= permutation.max_t(blocks, permutations=99)).all()  # fewer to be compared with
