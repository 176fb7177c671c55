"""How much of a source no selection from k reference draws could make (coverage: arXiv 2510.15020).

l = log q - log p (nats) of a trace y drawn from Q. E_k(Q||P) = sup_A [Q(A) - k P(A)] = E_Q[(1 - k e^-l)+] is the
least total-variation distance from Q to any R <= k P, and rejection sampling makes every R <= k P from k expected
draws. Cov_k = Q(l >= log k); Cov_k >= E_k >= (1 - k / k') Cov_k' for k' > k. Any coarsening can only lower E_k.
"""

from __future__ import annotations

import numpy as np

from analyzer.stats.bootstrap import Interval, rate

BUDGETS = (1, 4, 16, 64, 256, 1024, 4096)


def excess(log_ratio_N: np.ndarray, k: float) -> np.ndarray:
    """(1 - k e^-l)+ per trace, float [N] in [0, 1]: 1 at l = +inf, 0 at l = -inf, NaN stays NaN."""
    log_ratio_N = np.asarray(log_ratio_N, dtype=float)
    # expm1 keeps the digits near l = log k; the clip keeps exp from overflowing far below it
    return np.maximum(0.0, -np.expm1(np.minimum(np.log(k) - log_ratio_N, 1.0)))


def coverage(log_ratio_N: np.ndarray, k: float) -> float:
    """Cov_k: share of traces with l >= log k; NaN without any."""
    log_ratio_N = np.asarray(log_ratio_N, dtype=float)
    known = ~np.isnan(log_ratio_N)
    return float((log_ratio_N[known] >= np.log(k)).mean()) if known.any() else np.nan


def curve(log_ratio_N: np.ndarray, problem_N: np.ndarray, budgets: tuple[int, ...] = BUDGETS) -> dict[int, Interval]:
    """E_k with its interval (`bootstrap.rate`) for every budget."""
    return {k: rate(excess(log_ratio_N, k), problem_N) for k in sorted(budgets)}
