"""Statements that hold together: bands over a whole curve, and the bootstrap's p-value of "above a threshold".

Max-t over the points of the curve, resampling problems (Montiel Olea and Plagborg-Moller, 2019, algorithm 2): the band
covers the whole true curve with the stated probability, where pointwise intervals would miss it somewhere more often.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc

from analyzer.stats.bootstrap import ALPHA, FEW, LEAST, by_problem, column_means, effective, expanded


def simultaneous(values_PK: np.ndarray, w_BP: np.ndarray, *, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the band around the mean over problems of every column: float [K], [K].

    values_PK: one number per problem and point, NaN where unknown; w_BP: `bootstrap.weights`. mean +- c se, with se
    the bootstrap's and c the 1 - alpha quantile over resamples of the largest |mean* - mean| / se, with the tail of
    `bootstrap.expanded`. Where no resample differs the band is the point itself; fewer than FEW problems: NaN.
    """
    values_PK = np.asarray(values_PK, dtype=float)
    known_K = (~np.isnan(values_PK)).sum(axis=0)
    means_BK = column_means(values_PK, w_BP)
    mean_K = np.array([np.nanmean(v) if n else np.nan for v, n in zip(values_PK.T, known_K, strict=True)])
    with np.errstate(invalid="ignore"):
        se_K = np.array([np.nanstd(m) if n >= FEW else np.nan for m, n in zip(means_BK.T, known_K, strict=True)])
    moves = se_K > 1e-12
    if moves.any():
        largest_B = np.nanmax(np.abs(means_BK[:, moves] - mean_K[moves]) / se_K[moves], axis=1)
        half_K = np.quantile(largest_B, 1 - 2 * expanded(alpha / 2, len(values_PK))) * se_K
    else:
        half_K = se_K
    return mean_K - half_K, mean_K + half_K


def p_above(values_N: np.ndarray, problem_N: np.ndarray, threshold: float) -> float:
    """One-sided p-value of "the share is at most `threshold`", of values in [0, 1]; the companion of `bootstrap.rate`.

    Clopper-Pearson's with the number of independent traces that the problems are worth; fewer than three problems: 1.
    """
    sums_P, counts_P = by_problem(values_N, problem_N)
    if len(sums_P) < LEAST or not sums_P.sum() > threshold * counts_P.sum():
        return 1.0
    if sums_P.sum() >= counts_P.sum():
        return float(threshold ** len(sums_P))
    value, size = sums_P.sum() / counts_P.sum(), float(effective(sums_P[:, None], counts_P, ALPHA)[0])
    return float(betainc(size * value, size * (1 - value) + 1, threshold))
