"""pass@k and the numbers built on it: histogram, coverage cells, SRR and kin, sampling gap, crossing point.

Sources: Yue et al., arXiv 2504.13837 (Eq. 2, Fig. 5, Table 2, Delta_SE) and Wu et al., arXiv 2507.14843 (SRR, NDR, SDS,
NSCR, eps). A number that k samples cannot give is NaN: pass@k for k > n never becomes a number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analyzer.stats.bootstrap import ALPHA

TIE = 1e-11  # a difference of two curves that is rounding
BINS = ("0", *(f"({j / 10:g}, {(j + 1) / 10:g}]" for j in range(9)), "(0.9, 1)", "1")


def pass_at_k(n_P: np.ndarray, c_P: np.ndarray, k_K: np.ndarray) -> np.ndarray:
    """Unbiased pass@k = 1 - C(n - c, k) / C(n, k) of every problem and budget: float [P, K]; NaN where n < k.

    n_P draws and c_P correct ones, integers; k_K integers >= 1. Not 1 - (1 - c/n)^k, which underestimates (it is
    concave in c). Chen's product form, error below 1e-13 at n = 1024. Raises ValueError for impossible counts.
    """
    n, c, k_K = (
        np.asarray(n_P, dtype=np.int64),
        np.asarray(c_P, dtype=np.int64),
        np.atleast_1d(np.asarray(k_K, dtype=np.int64)),
    )
    if n.size and ((c > n).any() or (c < 0).any() or (k_K < 1).any()):
        raise ValueError(
            f"pass@k needs 0 <= c <= n and k >= 1; got c up to {c.max()}, n from {n.min()}, k from {k_K.min()}"
        )
    out = np.empty((len(n), len(k_K)))
    i = np.arange(1, (n.max() if n.size else 0) + 1)
    for j, k in enumerate(k_K):
        # log of prod_{i=1..N} (1 - k/i), factors with i <= k left out: they occur only where n - c < k
        log_miss = np.concatenate([[0.0], np.cumsum(np.log1p(-k / np.maximum(i, k + 1)) * (i > k))])
        out[:, j] = np.where(n < k, np.nan, np.where(n - c < k, 1.0, -np.expm1(log_miss[n] - log_miss[n - c])))
    return np.maximum(out, 0.0)


def budgets(n_P: np.ndarray, *, share: float = 0.9) -> np.ndarray:
    """1, 2, 4, ... and n, the largest k that `share` of the problems have draws for; int [K], empty without any."""
    n_P = np.sort(np.asarray(n_P))[::-1]
    if len(n_P) == 0 or n_P[0] < 1:
        return np.zeros(0, dtype=int)
    last = int(n_P[int(np.ceil(share * len(n_P))) - 1])
    return (
        np.unique([*(2 ** np.arange(int(np.log2(last)) + 1)), last]).astype(int)
        if last >= 1
        else np.zeros(0, dtype=int)
    )


def doublings(n_P: np.ndarray) -> np.ndarray:
    """The powers of two among `budgets`, int [K]."""
    k_K = budgets(n_P)
    return k_K[(k_K & (k_K - 1)) == 0]


def histogram(n_P: np.ndarray, c_P: np.ndarray) -> np.ndarray:
    """Problems per accuracy bin BINS (0; (0, .1] ... (.8, .9]; (.9, 1); 1), int [12]; edges in integer arithmetic."""
    n, c = np.asarray(n_P, dtype=np.int64), np.asarray(c_P, dtype=np.int64)
    index = np.where(c == n, 11, -(-10 * c // n))
    return np.bincount(np.where(c == 0, 0, index), minlength=12)


def cells(reference_P: np.ndarray, source_P: np.ndarray) -> np.ndarray:
    """Both, reference only, source only, neither: float [P, 4]; 0/1 for solved flags.

    For chances of being solved within k (pass@k of a problem, the arms drawn independently) the products are unbiased
    for the chances of the four cells. NaN where either is NaN.
    """
    a, b = np.asarray(reference_P, dtype=float), np.asarray(source_P, dtype=float)
    return np.column_stack([a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)])


class Leash(NamedTuple):
    """Retention, discovery, their harmonic mean, net change of the supported problems."""

    srr: np.ndarray | float
    ndr: np.ndarray | float
    sds: np.ndarray | float
    nscr: np.ndarray | float


def leash(both: np.ndarray | float, source_only: np.ndarray | float, reference_only: np.ndarray | float) -> Leash:
    """SRR = P/(P+S), NDR = E/(P+E), SDS = 2 P E / (P^2 + 2 P E + E S), NSCR = (E-S)/(P+E+S); NaN where undefined.

    P preserved (both), E expanded (source only), S shrunk (reference only). Arrays or numbers.
    """
    p, e, s = (np.asarray(x, dtype=float) for x in (both, source_only, reference_only))
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = (p / (p + s), e / (p + e), 2 * p * e / (p**2 + 2 * p * e + e * s), (e - s) / (p + e + s))
    return Leash(*(float(x) if x.ndim == 0 else x for x in parts))


def epsilon(k: float, *, zeta: float = ALPHA) -> float:
    """-ln(zeta) / k: with confidence 1 - zeta, an answer not seen in k draws has at most this probability."""
    return float(-np.log(zeta) / k)


def delta_se(reference_at_k: float, source_at_1: float) -> float:
    """Sampling efficiency gap: reference pass@k - source pass@1 (k = 256 in the paper); lower is better."""
    return reference_at_k - source_at_1


def every(n_P: np.ndarray, c_P: np.ndarray, last: int) -> np.ndarray:
    """pass@k at every k from 1 to `last` (n >= last everywhere): float [P, last], by the product over the draws."""
    n, c, i = np.asarray(n_P, dtype=float)[:, None], np.asarray(c_P, dtype=float)[:, None], np.arange(last)
    return 1 - np.cumprod(np.maximum(n - c - i, 0) / (n - i), axis=1)


def first_behind(k_K: np.ndarray, difference_BK: np.ndarray) -> np.ndarray:
    """Where a curve that is not behind at the first k falls behind (below 0 by more than TIE), linear in log k from the
    point before: float [B]; +inf where it never is. A tie is not behind."""
    d = np.atleast_2d(np.asarray(difference_BK, dtype=float))
    if d.shape[1] < 2:
        return np.full(len(d), np.inf)
    log_k = np.log(np.asarray(k_K, dtype=float))
    behind = d < -TIE
    j, rows = np.maximum(behind.argmax(axis=1), 1), np.arange(len(d))
    left, right = np.maximum(d[rows, j - 1], 0.0), d[rows, j]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # rows without a crossing, replaced below
        at = np.exp(log_k[j - 1] + left / (left - right) * (log_k[j] - log_k[j - 1]))
    return np.where(behind.any(axis=1), at, np.inf)


def crossover(k_K: np.ndarray, difference_BK: np.ndarray) -> np.ndarray:
    """Budget at which a curve that leads at k = 1 falls behind, float [B]; difference = source - reference along k_K.

    +inf where the source is nowhere behind, a tie included ("not within n"); NaN where it has no lead at k = 1, so that
    nothing can cross.
    """
    d = np.atleast_2d(np.asarray(difference_BK, dtype=float))
    return np.where(d[:, 0] > TIE, first_behind(k_K, d), np.nan)
