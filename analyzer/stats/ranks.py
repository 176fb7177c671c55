"""Traces more surprising than all base draws of their problem: exact under reach k, whatever the score and the law.

With n base draws of a problem, U = P(a further base draw scores above them all) is at most Beta(1, n) distributed, and
for Q <= k P a trace of the source does so with chance at most min(1, k U), on average `chance` <= k / (n + 1). A share
of the source can be bounded only where n + 1 > k; that some problem departs can be seen with fewer draws, if nearly all
traces are beyond them. Ties count against the trace.
Axis letters: `_N` traces of the source, `_M` base draws, `_G` problems.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from analyzer.stats.bootstrap import ALPHA
from analyzer.stats.bounds import LEAST, STEPS, lower

NODES = 400  # of the quadrature at most: exact for polynomials of twice the degree


def beyond(
    score_N: np.ndarray, problem_N: np.ndarray, base_M: np.ndarray, base_problem_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each trace scores above all base draws of its problem, 0 / 1 [N], NaN where that is not known (no draw,
    an unknown score), and how many draws its problem has, int [N]. A problem with an unknown draw counts as without."""
    names_P, at_M = np.unique(np.asarray(base_problem_M), return_inverse=True)
    top_P = np.full(len(names_P), -np.inf)
    with np.errstate(invalid="ignore"):
        np.maximum.at(top_P, at_M, np.asarray(base_M, float))  # an unknown draw stays unknown
    count_P = np.where(np.isnan(top_P), 0, np.bincount(at_M, minlength=len(names_P)))
    problem_N = np.asarray(problem_N)
    where_N = np.minimum(np.searchsorted(names_P, problem_N), max(len(names_P) - 1, 0))
    known_N = np.isin(problem_N, names_P)
    top_N, count_N = np.full(len(problem_N), np.nan), np.zeros(len(problem_N), int)
    top_N[known_N], count_N[known_N] = top_P[where_N[known_N]], count_P[where_N[known_N]]
    score_N = np.asarray(score_N, float)
    return np.where(np.isnan(score_N) | np.isnan(top_N), np.nan, score_N > top_N), count_N


def p_value(hit_N: np.ndarray, problem_N: np.ndarray, draws_N: np.ndarray, k: float) -> float:
    """P(at least as many hits) where Q <= k P on every problem, exactly: given U the hits of a problem are binomial
    with chance min(1, k U) at most, and problems are independent. It certifies a departure somewhere, and no share."""
    hit_N = np.asarray(hit_N, float)
    known = ~np.isnan(hit_N)
    total, hits = int(known.sum()), int(np.nansum(hit_N))
    if not hits:
        return 1.0
    _, first, size_P = np.unique(np.asarray(problem_N)[known], return_index=True, return_counts=True)
    kinds = Counter(zip(size_P.tolist(), np.asarray(draws_N)[known][first].tolist(), strict=True))
    length = total + 2 - total % 2  # even, more than the hits that there can be
    transform = np.ones(length // 2 + 1, complex)
    for (m, n), times in kinds.items():
        transform *= np.fft.rfft(_hits(m, n, k), length) ** times
    pmf = np.fft.irfft(transform, length)
    return float(np.clip(pmf[hits : total + 1].sum(), LEAST, 1.0))


def chance(n: int, k: float) -> float:
    """E min(1, k U), U ~ Beta(1, n): at most this share of a source within reach k lies beyond n base draws."""
    return k / (n + 1) * (1 - (1 - 1 / k) ** (n + 1))


def _hits(m: int, n: int, k: float) -> np.ndarray:
    """Distribution [m + 1] of the hits of m traces beyond n draws, each with chance min(1, k U), U ~ Beta(1, n): with
    v = k U the integral over v < 1 is of a polynomial."""
    node, weight = np.polynomial.legendre.leggauss(min(NODES, (m + n) // 2 + 1))
    v, weight = (node + 1) / 2, weight / 2
    density = n / k * (1 - v / k) ** (n - 1)
    out = binom.pmf(np.arange(m + 1)[:, None], m, v) @ (weight * density)
    out[m] += (1 - 1 / k) ** n
    return out


def least_share(hit_N: np.ndarray, problem_N: np.ndarray, draws_N: np.ndarray, k: float, alpha: float = ALPHA) -> float:
    """Lower bound of the share of the source that no selection from k base draws can make, mean of sum (Q - k P)+ over
    the given traces' problems; traces without a comparison count as within.

    As Q(A) <= k P(A) + sum (Q - k P)+ for any A, that share is at least the chance of a hit (lower bound at alpha / 2)
    less k times the mean of U (upper bound at alpha / 2, by Chernoff from U <= Exp(1) / n).
    """
    hit_N, draws_N = np.nan_to_num(np.asarray(hit_N, float)), np.asarray(draws_N)
    _, first, m_G = np.unique(np.asarray(problem_N), return_index=True, return_counts=True)
    n_G = draws_N[first]
    rate_G = (m_G / len(hit_N) / np.maximum(n_G, 1))[n_G > 0]
    if not hit_N.any() or not len(rate_G):
        return 0.0

    def bound(share: float) -> float:
        theta = share / rate_G.max()
        return (math.log(2 / alpha) - np.log1p(-theta * rate_G).sum()) / theta

    most = minimize_scalar(bound, bounds=(1e-6, 1 - 1e-6), method="bounded").fun
    return max(0.0, lower(hit_N, alpha=alpha / 2) - k * float(most))


def p_above(hit_N: np.ndarray, problem_N: np.ndarray, draws_N: np.ndarray, k: float, threshold: float) -> float:
    """p-value of "that share is at most `threshold`": the smallest alpha at which `least_share` lies above it."""

    def above(alpha: float) -> bool:
        return least_share(hit_N, problem_N, draws_N, k, alpha) > threshold

    if not above(1.0):
        return 1.0
    if above(LEAST):
        return LEAST
    low, high = math.log(LEAST), 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if above(math.exp(middle)) else (middle, high)
    return math.exp(high)
