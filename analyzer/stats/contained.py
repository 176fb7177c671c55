"""Is what a source does among k draws of the reference? From the classes of both sides' draws alone, no log-probs.

For a trace whose class has m of the n reference draws of its problem, 1 - C(n - m, k) / C(n, k) is the chance that k of
them hold its class: the unbiased estimate of 1 - (1 - p)^k, as pass@k is (Chen et al. 2021, arXiv 2107.03374). Its mean
over traces and problems is contained@k. Since q - k p <= q (1 - k p) <= q (1 - p)^k, the mean excess
sum_c (q_c - k p_c)+ is at most 1 - contained@k: an upper bound of the latter certifies "inside".

The bound. With N traces and n reference draws a problem, write z for C(n - m, k) / C(n, k) of a trace and w for the
mean over P problems of the mean z of a problem's traces. For any lambda >= 0
  E exp(-lambda w P) <= prod over problems of exp(sum_c q_c K_n(p_c)),
  K_n(p) = log E exp(-N (1 - exp(-lambda z(m) / N))), m ~ Bin(n, p):
given the reference draws the N traces are independent and log(1 - x) <= -x; over the reference draws the counts m_c of
the classes are negatively associated (Joag-Dev and Proschan 1983) and every factor grows with its own count, so that
the expectation of the product is at most the product of expectations; and K is convex in q_c with K = 0 at 0. Hence for
any mu, if the mean of (1 - p)^k over the source's classes and problems is at least theta,
  P(w <= observed) <= exp(P (lambda w - mu theta) + sum over problems of max_p (K_n(p) + mu (1 - p)^k)).
Nothing is assumed about the classes, how many there are, or how problems differ; it holds for the given problems.
Copies: where texts come c_1, c_2, ... times among the traces, w weighs independent traces by a = c / sum c. With
(1 - exp(-lambda a z)) / a convex in a, Jensen gives sum (1 - exp(-lambda a z)) >= N' (1 - exp(-lambda z / N')) for
N' = 1 / sum a^2, so that all of this holds with N' = (sum c)^2 / sum c^2 traces.
Counting fewer draws or traces than there are can only loosen it (z of fewer draws has the same mean given more draws,
and exp(-N (1 - exp(-lambda z / N))) is convex in z and falls with N), so that like counts share one K.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from analyzer.stats.bootstrap import ALPHA

SHARE = 0.9  # of the problems that must have more than k draws of the reference
MOST = 1024  # draws of a problem that the bound counts: fewer only loosen it
CHANCES = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 500)])  # of a class among the reference's draws
SLOPES = np.concatenate([np.geomspace(0.01, 0.3, 16), np.linspace(0.34, 1.0, 34)])  # mu, by the exponent of a sure miss
LAMBDAS = np.geomspace(0.1, 20.0, 40)  # smallest, and largest times the most traces of a problem


def missed(m: np.ndarray, n: np.ndarray | int, k: int) -> np.ndarray:
    """C(n - m, k) / C(n, k): the chance that k of n draws, m of them in a class, miss it. float, NaN where n < k."""
    m, n = np.broadcast_arrays(np.asarray(m, float), np.asarray(n, float))
    left = np.maximum(n - m - k, 0.0)
    with np.errstate(invalid="ignore"):
        log = gammaln(n - m + 1) - gammaln(left + 1) - gammaln(n + 1) + gammaln(np.maximum(n - k, 0.0) + 1)
    return np.where(n < k, np.nan, np.where(n - m >= k, np.exp(np.minimum(log, 0.0)), 0.0))  # rounding above 1


def budget(n_P: np.ndarray, k: int, *, share: float = SHARE) -> int:
    """The largest power of two that is at most k and below the draws of `share` of the problems (the reference's own
    traces are held against the others); 0 where a problem has a single draw or there is none. From n alone."""
    if not len(n_P):
        return 0
    most = min(k, int(np.sort(n_P)[::-1][int(np.ceil(share * len(n_P))) - 1]) - 1)
    return 1 << (most.bit_length() - 1) if most > 0 else 0


def upper(w: float, n_P: np.ndarray, traces_P: np.ndarray, k: int, *, alpha: float = ALPHA) -> float:
    """One-sided 1 - alpha upper bound of 1 - contained@k for the given problems, from w, the observed mean.

    n_P: reference draws of each problem (>= k), traces_P: traces of the source. 1 where there is no problem.
    """
    if not len(n_P):
        return 1.0
    lambda_L, mu_LM, exponent_LM = _exponents(n_P, traces_P, k)
    theta_LM = (lambda_L[:, None] * w + (exponent_LM - np.log(alpha)) / len(n_P)) / mu_LM
    return float(np.clip(theta_LM.min(), w, 1.0))


def p_value(w: float, n_P: np.ndarray, traces_P: np.ndarray, k: int, theta: float) -> float:
    """p-value of "1 - contained@k of the source is at least theta" on the given problems; see `upper`."""
    if not len(n_P) or w >= theta:
        return 1.0
    lambda_L, mu_LM, exponent_LM = _exponents(n_P, traces_P, k)
    return float(np.exp(min(0.0, (len(n_P) * (lambda_L[:, None] * w - mu_LM * theta) + exponent_LM).min())))


def _exponents(n_P: np.ndarray, traces_P: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lambda [L], mu [L, M], and the sum over problems of max_p (K(p) + mu (1 - p)^k) [L, M]."""
    n_P = np.maximum(_rounded(np.minimum(n_P, MOST)), k)
    traces_P = _rounded(traces_P)
    groups, times = np.unique(np.stack([n_P, traces_P]), axis=1, return_counts=True)
    most = int(traces_P.max())
    sizes = zip(groups.T.tolist(), times, strict=True)
    return *_tilts(most), sum(count * _worst(n, traces, k, most) for (n, traces), count in sizes)


def _tilts(most: int) -> tuple[np.ndarray, np.ndarray]:
    """lambda [L], mu [L, M] where the most traces of a problem are `most`."""
    lambda_L = np.geomspace(LAMBDAS[0], LAMBDAS[-1] * most, len(LAMBDAS))
    return lambda_L, most * -np.expm1(-lambda_L / most)[:, None] * SLOPES


@lru_cache(maxsize=1024)  # levels, sources and variations have the same few numbers of draws; 16 kB each
def _worst(n: int, traces: int, k: int, most: int) -> np.ndarray:
    """max_p (K(p) + mu (1 - p)^k) [L, M] of a problem with n draws of the reference and so many traces."""
    lambda_L, mu_LM = _tilts(most)
    decay_ML = np.exp(-traces * -np.expm1(-np.multiply.outer(missed(np.arange(n + 1), n, k), lambda_L) / traces))
    k_CL = np.log(np.maximum(_chances(n) @ decay_ML, 1e-300))
    return (k_CL.T[:, None, :] + mu_LM[:, :, None] * (1 - CHANCES) ** k).max(-1)


@lru_cache(maxsize=24)  # at most 4 MB each
def _chances(n: int) -> np.ndarray:
    """Bin(m; n, p) of all of CHANCES [C, n + 1]."""
    return binom.pmf(np.arange(n + 1), n, CHANCES[:, None])


def _rounded(count_P: np.ndarray) -> np.ndarray:
    """Counts rounded down, so that a group is at most an eighth below its members: int [P]."""
    count_P = np.maximum(np.asarray(count_P, int), 1)
    step_P = 1 << np.maximum(np.int64(0), np.floor(np.log2(count_P)).astype(int) - 3)
    return count_P // step_P * step_P


def draws_needed(
    n_P: np.ndarray, traces_P: np.ndarray, most: int, theta: float, *, least: int = 0, alpha: float = ALPHA
) -> float:
    """Draws of the reference a problem (at least the present ones, and `least`) with which `upper` of no miss is at
    most theta, at the k that so many draws allow (`budget`, at most `most`); NaN where MOST are too few."""
    n = start = max(int(np.min(n_P)), least)
    while n <= MOST:
        own_P = np.maximum(n_P, n)
        if upper(0.0, own_P, traces_P, max(1, budget(own_P, most)), alpha=alpha) <= theta:
            return float(n)
        n = n + max(1, start // 4, n // 8)
    return np.nan
