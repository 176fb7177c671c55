"""How reliably a problem is solved, from n draws of which c are correct: all of k, a share of k, and their mean.

`_P` problems, `_K` budgets. Unbiased for draws without replacement; NaN where n < k.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom


def pass_hat_k(n_P: np.ndarray, c_P: np.ndarray, k_K: np.ndarray) -> np.ndarray:
    """pass^k = C(c, k) / C(n, k), float [P, K]: k draws of k are correct (Yao et al., tau-bench, 2406.12045)."""
    return g_pass_at_k(n_P, c_P, k_K, 1.0)


def g_pass_at_k(n_P: np.ndarray, c_P: np.ndarray, k_K: np.ndarray, tau: float) -> np.ndarray:
    """G-Pass@k_tau, float [P, K]: at least max(1, ceil(tau k)) of k draws are correct (Liu et al., 2412.13147)."""
    n_P1, c_P1, k_1K = (np.asarray(x)[s] for x, s in ((n_P, np.s_[:, None]), (c_P, np.s_[:, None]), (k_K, np.s_[None])))
    least_1K = np.maximum(np.ceil(np.round(tau * k_1K, 9)), 1)
    values = hypergeom.sf(least_1K - 1, n_P1, c_P1, np.minimum(k_1K, n_P1))
    return np.where(n_P1 < k_1K, np.nan, values)


def mg_pass_at_k(n_P: np.ndarray, c_P: np.ndarray, k_K: np.ndarray) -> np.ndarray:
    """mG-Pass@k = (2 / k) sum_{i = ceil(k / 2) + 1}^{k} G-Pass@k_{i / k}, float [P, K]: the mean over tau above 1/2."""
    out = np.zeros((len(np.asarray(n_P)), len(k_K)))
    for j, k in enumerate(np.asarray(k_K).tolist()):
        for i in range(-(-k // 2) + 1, k + 1):
            out[:, j] += g_pass_at_k(n_P, c_P, np.array([k]), i / k)[:, 0]
        out[:, j] = np.where(np.asarray(n_P) < k, np.nan, out[:, j] * 2 / k)
    return out
