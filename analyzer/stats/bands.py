"""Statements that hold together: bands over a whole curve, and the bootstrap's p-value of "above a threshold".

Max-t over the points of the curve, resampling problems (Montiel Olea and Plagborg-Moller, 2019, algorithm 2): the band
covers the whole true curve with the stated probability, where pointwise intervals would miss it somewhere more often.
"""

from __future__ import annotations

import numpy as np

from analyzer.stats.bootstrap import ALPHA, DRAWS, by_problem, column_means, weights


def simultaneous(values_PK: np.ndarray, w_BP: np.ndarray, *, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the band around the mean over problems of every column: float [K], [K].

    values_PK: one number per problem and point, NaN where unknown; w_BP: `bootstrap.weights`. mean +- c se, with se
    the bootstrap's and c the 1 - alpha quantile over resamples of the largest |mean* - mean| / se. Where no resample
    differs the band is the point itself; fewer than two problems: NaN.
    """
    values_PK = np.asarray(values_PK, dtype=float)
    known_K = (~np.isnan(values_PK)).sum(axis=0)
    means_BK = column_means(values_PK, w_BP)
    mean_K = np.array([np.nanmean(v) if n else np.nan for v, n in zip(values_PK.T, known_K, strict=True)])
    with np.errstate(invalid="ignore"):
        se_K = np.array([np.nanstd(m) if n > 1 else np.nan for m, n in zip(means_BK.T, known_K, strict=True)])
    moves = se_K > 1e-12
    if moves.any():
        largest_B = np.nanmax(np.abs(means_BK[:, moves] - mean_K[moves]) / se_K[moves], axis=1)
        half_K = np.quantile(largest_B, 1 - alpha) * se_K
    else:
        half_K = se_K
    return mean_K - half_K, mean_K + half_K


def p_above(
    values_N: np.ndarray, problem_N: np.ndarray, threshold: float, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """One-sided p-value of "the mean is at most `threshold`": (1 + resamples at or below it) / (draws + 1).

    Resamples problems; NaN values are left out. At least 1 / (draws + 1); fewer than two problems: 1. The companion of
    the percentile interval: p <= alpha where its lower 1 - alpha bound lies above the threshold.
    """
    sums_P, counts_P = by_problem(values_N, problem_N)
    if len(sums_P) < 2:
        return 1.0
    w_BP = weights(len(sums_P), draws=draws, seed=seed)
    means_B = (w_BP @ sums_P) / (w_BP @ counts_P)
    return float((1 + np.count_nonzero(means_B <= threshold)) / (draws + 1))
