"""Does the source put more into a cluster of traces than k reference draws could? Split data, counts over problems.

H0 of a cluster C at budget k: Q_x(C) <= k P_x(C) in every problem x. Clusters come from one half of the traces (of both
arms, within the problem), the counts from the other: b of the source's n_Q, a of the reference's n_P. Given t_x = a_x +
b_x, b_x is stochastically at most Binomial(t_x, pi_x), pi_x = k n_Qx / (k n_Qx + n_Px), and b at most their sum. One
split, not both ways: the p-value is exact as it is, the second half would cost a factor of two and its clusters are
others, with other names.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import binom

from analyzer.stats import budget
from analyzer.stats.bootstrap import ALPHA

LEVELS = 8  # different pi that are told apart; a problem's is raised to the largest of its level
LEAST = 1e-12  # what the convolution resolves


def held_out(group_N: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """True for the half of the traces that is tested: bool [N], n - floor(n / 2) of each group's n.

    group_N: source and problem of each trace; its traces in a canonical order (their sample numbers). Which ranks are
    held out depends on n and the seed alone, not on names: renaming sources or problems changes nothing.
    """
    _, index_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    order = np.argsort(index_N, kind="stable")
    out = np.empty(len(index_N), dtype=bool)
    chosen: dict[int, np.ndarray] = {}
    at = 0
    for n in count_G.tolist():
        if n not in chosen:
            chosen[n] = np.random.default_rng([seed, n]).permutation(n) >= n // 2
        out[order[at : at + n]] = chosen[n]
        at += n
    return out


def p_values(b_CP: np.ndarray, n_q_P: np.ndarray, a_CP: np.ndarray, n_p_P: np.ndarray, k: float) -> np.ndarray:
    """Upper tail of b given a + b at the edge of H0, per cluster: float [C]; 1 where b = 0.

    b_CP, a_CP: traces of source and reference by cluster and problem; n_q_P, n_p_P: all their held-out traces. With the
    same n_q : n_p in every problem this is binom.sf(b - 1, a + b, k n_Q / (k n_Q + n_P)). Otherwise the distribution
    is the convolution over at most LEVELS groups of problems with like ratios, each at its group's largest ratio.
    Problems where an arm has no trace are left out.
    """
    both = (np.asarray(n_q_P) > 0) & (np.asarray(n_p_P) > 0)
    b_CP, a_CP = (np.atleast_2d(x)[:, both].astype(int) for x in (b_CP, a_CP))
    n_q, n_p = np.asarray(n_q_P, float)[both], np.asarray(n_p_P, float)[both]
    b_C = b_CP.sum(1)
    if not both.any():
        return np.ones(len(b_C))
    share_P = k * n_q / (k * n_q + n_p)
    highest = share_P.max()
    p_C = np.where(b_C > 0, binom.sf(b_C - 1, (a_CP + b_CP).sum(1), highest), 1.0)
    if np.ptp(share_P) < 1e-12:
        return p_C
    order = np.argsort(share_P, kind="stable")
    groups = [g for g in np.array_split(order, min(LEVELS, len(order))) if len(g)]
    for c in np.flatnonzero((p_C > LEAST) & (p_C < 1.0)):
        total_P = a_CP[c] + b_CP[c]
        mass = np.ones(1)
        for group in groups:
            t = int(total_P[group].sum())
            if t:
                mass = fftconvolve(mass, binom.pmf(np.arange(t + 1), t, share_P[group].max()))
        p_C[c] = min(p_C[c], float(np.clip(mass[b_C[c] :].sum() + LEAST, LEAST, 1.0)))
    return p_C


def factor(b: int, n_q: int, a: int, n_p: int, k: float, *, units: int = 1, alpha: float = ALPHA) -> float:
    """By how much both arms must grow for a cluster to reach alpha / units, as `budget.factor`; NaN: never, or no
    number of draws is likely to."""
    return float(budget.factor(b, n_q, a, n_p, k, alpha=alpha / max(units, 1)))
