"""pass@k anchors and the papers' printed numbers, to the last digit."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.stats import passk


def exact(n: int, c: int, k: int) -> float:
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def one(n: int, c: int, k: int) -> float:
    return float(passk.pass_at_k(np.array([n]), np.array([c]), np.array([k]))[0, 0])


def test_pass_at_k_equals_the_binomial_form():
    for n, c, k in ((1, 0, 1), (1, 1, 1), (5, 2, 3), (64, 1, 64), (128, 3, 17), (256, 200, 4), (1024, 2, 512)):
        assert one(n, c, k) == pytest.approx(exact(n, c, k), abs=1e-13)


def test_pass_at_k_anchors():
    n = np.array([7, 64, 1000])
    assert passk.pass_at_k(n, np.ones(3, int), np.array([5]))[:, 0] == pytest.approx(
        5 / n, abs=1e-12
    )  # c = 1 gives k / n
    assert passk.pass_at_k(n, n // 2, np.array([1]))[:, 0] == pytest.approx(n // 2 / n, abs=1e-12)  # k = 1 gives c / n
    assert one(10, 8, 3) == 1.0  # n - c < k
    assert one(10, 0, 10) == 0.0
    assert math.isnan(one(5, 0, 10)) and math.isnan(one(5, 5, 6))  # never a number beyond n


def test_pass_at_k_is_not_the_plug_in_form():
    assert one(16, 2, 8) - (1 - (1 - 2 / 16) ** 8) > 0.1


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match=r"0 <= c <= n and k >= 1; got c up to 6, n from 5, k from 1"):
        one(5, 6, 1)
    assert passk.pass_at_k(np.zeros(0, int), np.zeros(0, int), np.array([1, 2])).shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.data())
def test_pass_at_k_rises_with_k_and_with_c(n, data):
    c = data.draw(st.integers(0, n))
    k = np.arange(1, n + 1)
    row = passk.pass_at_k(np.array([n]), np.array([c]), k)[0]
    assert (np.diff(row) >= -1e-12).all() and ((row >= 0) & (row <= 1)).all()
    if c < n:
        assert (passk.pass_at_k(np.array([n]), np.array([c + 1]), k)[0] >= row - 1e-12).all()


def test_budgets_end_where_nine_in_ten_problems_end():
    assert passk.budgets(np.full(5, 100)).tolist() == [1, 2, 4, 8, 16, 32, 64, 100]
    assert passk.budgets(np.array([3] * 19 + [6])).tolist() == [1, 2, 3]  # one doubled question does not move n
    assert passk.budgets(np.array([3] * 19 + [1])).tolist() == [1, 2, 3]  # nor does one lost row
    assert passk.budgets(np.array([1])).tolist() == [1]
    assert passk.budgets(np.zeros(0, int)).tolist() == []


def accuracies(counts: list[int]) -> np.ndarray:
    """Correct counts of n = 128 that fall into the bins with the given numbers of problems."""
    inside = [0, 6, 19, 32, 45, 58, 70, 83, 96, 109, 122, 128]
    return np.repeat(inside, counts)


@pytest.mark.parametrize(
    "counts",
    [[93, 52, 17, 23, 16, 19, 13, 7, 10, 11, 8, 3], [113, 33, 12, 9, 7, 4, 5, 6, 6, 9, 21, 47]],
    ids=["base", "rl"],
)
def test_figure_5_of_yue(counts):
    c = accuracies(counts)
    assert passk.histogram(np.full(len(c), 128), c).tolist() == counts and sum(counts) == 272
    assert passk.pass_at_k(np.full(272, 128), c, np.array([128])).mean() == pytest.approx(
        {93: 0.658, 113: 0.585}[counts[0]], abs=5e-4
    )


def test_histogram_edges_belong_to_the_bin_below():
    c = np.array([0, 1, 2, 9, 10, 27, 28, 29, 30])  # of 30; 3 of 30 is exactly .1, 27 of 30 exactly .9
    assert passk.histogram(np.full(9, 30), c).tolist() == [1, 2, 0, 1, 1, 0, 0, 0, 0, 1, 2, 1]
    assert passk.histogram(np.array([10] * 11), np.arange(11)).tolist() == [1] * 10 + [0, 1]
    assert len(passk.BINS) == 12 and passk.BINS[1] == "(0, 0.1]" and passk.BINS[10] == "(0.9, 1)"


def flags(solved: set[int], size: int) -> np.ndarray:
    return np.isin(np.arange(size), list(solved)).astype(float)


AIME_BASE = {0, 1, 4, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 19, *range(22, 30)}
LCB_BASE = {
    400,
    402,
    403,
    407,
    409,
    412,
    413,
    417,
    418,
    419,
    422,
    423,
    427,
    432,
    433,
    436,
    438,
    439,
    440,
    444,
    445,
    448,
    449,
}


@pytest.mark.parametrize(
    ("base", "trained", "size", "cells", "rates"),
    [
        (AIME_BASE, AIME_BASE - {4, 11, 17, 19}, 30, [19, 4, 0, 7], (0.826, 0.0, 0.0, -0.174)),
        (
            {i - 400 for i in LCB_BASE},
            {i - 400 for i in LCB_BASE - {409, 432, 436, 448} | {430}},
            50,
            [19, 4, 1, 26],
            (0.826, 0.05, 0.094, -0.125),
        ),
    ],
    ids=["aime24", "lcb"],
)
def test_coverage_index_sets_of_yue(base, trained, size, cells, rates):
    got = passk.cells(flags(base, size), flags(trained, size)).sum(axis=0)
    assert got.tolist() == cells
    leash = passk.leash(got[0], got[2], got[1])
    assert tuple(round(x, 3) for x in leash) == rates


def test_coverage_shares_as_printed():
    assert [round(100 * x / 30, 1) for x in (19, 4, 0, 7)] == [63.3, 13.3, 0.0, 23.3]
    math500 = passk.cells(np.repeat([1, 1, 0, 0], [462, 18, 5, 15]), np.repeat([1, 0, 1, 0], [462, 18, 5, 15])).mean(
        axis=0
    )
    assert [round(100 * x, 1) for x in math500] == [92.4, 3.6, 1.0, 3.0]


@pytest.mark.parametrize(
    ("name", "p", "e", "s", "out", "printed"),
    [
        ("ProRL-1.5B-v1", 2400, 36, 163, 805, (".94", ".02", ".03", "-.05")),
        ("ProRL-1.5B-v2", 2388, 48, 175, 793, (".93", ".02", ".04", "-.05")),
        ("Nemotron-7B", 2715, 28, 56, 605, (".98", ".01", ".02", "-.01")),
        ("Skywork-OR1-7B", 2685, 26, 86, 607, (".97", ".01", ".02", "-.02")),
        ("Nemotron-14B", 2418, 8, 23, 501, (".99", ".00", ".01", "-.01")),
        ("Phi4-Reason-Plus", 2474, 16, 23, 437, (".99", ".01", ".01", "-.00")),
        ("OLMo-2-1B", 761, 83, 104, 599, (".88", ".10", ".18", "-.02")),
        ("OVR-7B", 781, 3, 4, 516, ("1.00", ".00", ".01", "-.00")),
    ],
)
def test_leash_rows(name, p, e, s, out, printed):
    # the paper rounds twice: 36 / 2436 = .01478 -> .015 -> .02 and 781 / 785 = .9949 -> .995 -> 1.00
    got = tuple(str(twice(x)).replace("0.", ".", 1) for x in passk.leash(p, e, s))
    assert got == printed


def twice(x: float) -> Decimal:
    return Decimal(x).quantize(Decimal("0.001"), ROUND_HALF_UP).quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_leash_minerva_row_and_undefined():
    row = passk.leash(173, 0, 22)
    assert (round(row.srr, 3), row.ndr, round(row.nscr, 3)) == (0.887, 0, -0.113)
    assert round(passk.leash(10, 2, 2).sds, 3) == 0.278 and round(passk.leash(462, 5, 18).sds, 3) == 0.021
    assert all(math.isnan(x) for x in passk.leash(0, 0, 0))
    assert math.isnan(passk.leash(0, 0, 3).ndr) and passk.leash(0, 0, 3).srr == 0


def test_sds_is_the_harmonic_mean():
    row = passk.leash(np.array([30.0, 5.0]), np.array([3.0, 9.0]), np.array([7.0, 1.0]))
    assert row.sds == pytest.approx(2 * row.srr * row.ndr / (row.srr + row.ndr))


@pytest.mark.parametrize(
    ("k", "printed"),
    [
        (128, "2.34e-02"),
        (256, "1.17e-02"),
        (1024, "2.93e-03"),
        (2048, "1.46e-03"),
        (4096, "7.31e-04"),
        (8192, "3.66e-04"),
        (16384, "1.83e-04"),
    ],
)
def test_epsilon(k, printed):
    assert f"{passk.epsilon(k):.2e}" == printed


DELTA_SE = {  # train, test, MATH500: pass@1 of the algorithm, then the gap to base pass@256 = 67.2, 69.1, 96.2
    "grpo": ((26.1, 25.1, 74.4), (41.1, 44.0, 21.8)),
    "ppo": ((27.2, 26.8, 75.2), (40.0, 42.3, 21.0)),
    "remax": ((24.4, 23.8, 73.5), (42.8, 45.3, 22.7)),
    "rloo": ((28.6, 28.1, 75.0), (38.6, 41.0, 21.2)),
    "reinforce++": ((28.2, 28.0, 75.4), (39.0, 41.1, 20.8)),
    "dapo": ((31.4, 26.5, 75.6), (35.8, 42.6, 20.6)),
    "grpo-300": ((33.6, 27.1, 75.4), (33.6, 42.0, 20.8)),
    "grpo-450": ((42.5, 28.3, 76.3), (24.7, 40.8, 19.9)),
}


@pytest.mark.parametrize("name", DELTA_SE)
def test_delta_se_table(name):
    at_1, gap = DELTA_SE[name]
    assert tuple(round(passk.delta_se(b, a), 1) for a, b in zip(at_1, (67.2, 69.1, 96.2), strict=True)) == gap


def test_crossover_interpolates_in_log_k():
    k = np.array([1, 2, 4, 8])
    assert passk.crossover(k, np.array([0.3, 0.1, -0.1, -0.2]))[0] == pytest.approx(2 * math.sqrt(2))
    assert passk.crossover(k, np.array([0.3, 0.1, 0.0, -0.2]))[0] == pytest.approx(4)
    got = passk.crossover(k, np.array([[0.3, 0.2, 0.2, 0.1], [-0.1, 0.2, 0.1, -0.1], [0.1, -0.1, 0.1, 0.1]]))
    assert np.isposinf(got[0]) and math.isnan(got[1]) and got[2] == pytest.approx(math.sqrt(2))
    assert np.isposinf(passk.crossover(np.array([1]), np.array([0.2]))[0]) and math.isnan(
        passk.crossover(np.array([1]), np.array([-0.2]))[0]
    )


def test_published_reproduction_curves_cross_between_16_and_64():
    k = 2 ** np.arange(8)
    base = np.array([61.39, 73.41, 81.44, 86.82, 90.43, 92.93, 94.74, 96.20])
    rl = np.array([77.93, 82.36, 85.68, 88.30, 90.22, 91.51, 92.35, 93.00])
    assert passk.crossover(k, rl - base)[0] == pytest.approx(14.68, abs=0.01)  # the paper's own figure reads 14.5


def test_a_tie_is_not_behind():
    k = np.array([1, 2, 3, 4])
    d = np.array([[0.3, 0.1, 0.0, 0.0], [0.3, 0.0, 0.1, -0.1], [0.0, 0.0, 0.0, -0.1], [0.2, -1e-14, 0.1, 0.1]])
    at = passk.crossover(k, d)
    assert np.isposinf(at[[0, 3]]).all() and 3 < at[1] < 4 and math.isnan(at[2])
    assert passk.crossover(k, np.array([0.3, 0.0, 0.0, -0.1]))[0] == pytest.approx(3)


def test_every_k_at_once_is_the_product_form():
    n, c = np.array([64, 64, 64, 70]), np.array([0, 3, 64, 12])
    assert passk.every(n, c, 64) == pytest.approx(passk.pass_at_k(n, c, np.arange(1, 65)), abs=1e-13)
