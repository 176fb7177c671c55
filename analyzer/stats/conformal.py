"""Conformal p-values of traces against the base's own, pooled over problems by leave-one-out standardising.

A problem alone gives a p-value floor of 1 / (n + 1), too coarse for many tests, so scores are standardised by problem
and pooled; each base trace is standardised by the others of its problem, which keeps the false discovery rate where
naive standardising triples it. Exact when problems differ in location and scale of the score only.
Bates et al., arXiv 2104.08279: sharing the calibration set keeps Benjamini-Hochberg valid.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control

LEAST = 4  # base traces per problem


def _moments(reference_N: np.ndarray, index_N: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """count, mean and sum of squared deviations per problem, float [P]; NaN values are left out."""
    keep = np.isfinite(reference_N)
    n_P = np.bincount(index_N[keep], minlength=m).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_P = np.bincount(index_N[keep], weights=reference_N[keep], minlength=m) / n_P
    deviation_N = (reference_N - mean_P[index_N])[keep]
    return n_P, mean_P, np.bincount(index_N[keep], weights=deviation_N**2, minlength=m)


def standardise(
    reference_N: np.ndarray, problem_N: np.ndarray, test_M: np.ndarray, test_problem_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores in units of the problem's own base spread: leave-one-out for the base, plain for the test traces.

    Returns float [N] and [M]. NaN where the problem has fewer than LEAST base values or where they do not vary.
    """
    names, index_N = np.unique(np.asarray(problem_N), return_inverse=True)
    reference_N, test_M = np.asarray(reference_N, dtype=float), np.asarray(test_M, dtype=float)
    n_P, mean_P, ss_P = _moments(reference_N, index_N, len(names))
    n, d = n_P[index_N], reference_N - mean_P[index_N]
    with np.errstate(invalid="ignore", divide="ignore"):
        # removing x_i: mean moves by -d / (n - 1), the sum of squares falls by d^2 n / (n - 1)
        spread = np.maximum(ss_P[index_N] - d**2 * n / (n - 1), 0.0) / (n - 2)
        floor = 1e-12 * (1 + mean_P[index_N] ** 2)
        z_N = np.where((n >= LEAST) & (spread > floor), d * n / (n - 1) / np.sqrt(spread), np.nan)
        where = np.searchsorted(names, np.asarray(test_problem_M))
        known = np.isin(np.asarray(test_problem_M), names)
        where = np.where(known, np.minimum(where, len(names) - 1), 0)
        sd = np.sqrt(ss_P[where] / (n_P[where] - 1))
        usable = known & (n_P[where] >= LEAST) & (sd**2 > 1e-12 * (1 + mean_P[where] ** 2))
        return z_N, np.where(usable, (test_M - mean_P[where]) / sd, np.nan)


def worst(z_NC: np.ndarray) -> np.ndarray:
    """Largest of several standardised scores per trace, NaN ones ignored: float [N]."""
    z_NC = np.asarray(z_NC, dtype=float)
    best = np.where(np.isnan(z_NC), -np.inf, z_NC).max(axis=1)
    return np.where(np.isnan(z_NC).all(axis=1), np.nan, best)


def p_values(calibration_N: np.ndarray, test_M: np.ndarray) -> np.ndarray:
    """(1 + #{calibration >= score}) / (N + 1), ties against the test trace: float [M]; NaN where the score is NaN."""
    calibration = np.sort(np.asarray(calibration_N, dtype=float)[~np.isnan(calibration_N)])
    test_M = np.asarray(test_M, dtype=float)
    above = len(calibration) - np.searchsorted(calibration, test_M, side="left")
    return np.where(np.isnan(test_M), np.nan, (1 + above) / (len(calibration) + 1))


def inflate(p_N: np.ndarray, k: float) -> np.ndarray:
    """min(1, k p): valid for "Q <= k P", as Q(p <= t) <= k P(p <= t) <= k t."""
    return np.minimum(1.0, k * np.asarray(p_N, dtype=float))


def discoveries(p_N: np.ndarray, *, q: float = 0.1) -> np.ndarray:
    """Benjamini-Hochberg at level q: bool [N]. A NaN p-value counts as 1: it is tested and never flagged."""
    p_N = np.where(np.isnan(p_N), 1.0, np.asarray(p_N, dtype=float))
    return false_discovery_control(p_N) <= q if len(p_N) else np.zeros(0, dtype=bool)
