"""The e-value of a trace: valid evidence against "drawn from the base at T=1", without base samples.

e = exp((1/2) sum_t (s_t - h_t)), s_t the surprisal of the token under the base and h_t = 2 log sum_v sqrt(p_v) the
Renyi entropy of order 1/2 of its distribution (both nats). Each factor has mean 1 under the base, so e is a
nonnegative martingale from 1: E[e] = 1 at any stopping time that the scored tokens decide (the end token must be
among them; without it the last factor is missing and the mean is only about 1), and P(e >= 1/a) <= a (Ville).
For reach at budget k: if Q <= k P then P_Q(e >= c) <= k / c, so min(1, k / e) is a valid p-value.
The price is drift: log e falls by (h_t - H_t) / 2 per ordinary token, so a few odd steps vanish in a long trace.
"""

from __future__ import annotations

import numpy as np


def log_e(surprisal_T: np.ndarray, renyi_half_T: np.ndarray) -> float:
    """log e of one trace from its token columns (nats)."""
    return float(0.5 * np.sum(np.asarray(surprisal_T, dtype=float) - np.asarray(renyi_half_T, dtype=float)))


def p_value(log_e_N: np.ndarray, k: float = 1) -> np.ndarray:
    """min(1, k / e): float [N]; NaN stays NaN."""
    return np.exp(np.minimum(0.0, np.log(k) - np.asarray(log_e_N, dtype=float)))
