"""The mean over problems of values in [0, 1], and of a whole curve of them: Gaffke's bounds, one method at every point.

The values and one more at the end of the range (0 for the lower bound, 1 for the upper) get weights that are uniform on
the simplex; a bound is a quantile of that weighted mean (Gaffke, 2005; Learned-Miller and Thomas, arXiv 1905.06208). It
is the Bayesian bootstrap with the worst problem that was not seen added. For 0/1 values it is Clopper-Pearson's
interval, and so it does not collapse where all values are equal, nor jump where the curve becomes 0/1 (pass@n). All
points share the weights: where no problem's value falls along the curve, neither does a bound. `validation`
measures the coverage (V9).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from analyzer.stats.bootstrap import ALPHA, DRAWS, LEAST

METHOD = "Gaffke's bounds over problems"
MOST, ROOM = 10_000, 20_000_000  # draws, so that a tail of .025 has an error of .0016; numbers held for many problems


@lru_cache(maxsize=4)
def weights(problems: int, *, seed: int = 0) -> np.ndarray:
    """Exponential weights of the problems and of the one that was not seen: float64 [B, P + 1], read-only."""
    draws = min(MOST, max(DRAWS, ROOM // (problems + 1)))
    out = np.random.default_rng(seed).standard_exponential((draws, problems + 1))
    out.flags.writeable = False
    return out


def bounds(
    values_PK: np.ndarray, *, seed: int = 0, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """low [K], high [K] of the mean of each column, and low, high of a band that holds for all columns at once.

    values_PK: in [0, 1], NaN where a problem has none; two-sided at alpha. NaN below LEAST problems. The band widens
    the tail until `alpha` of the draws leave it anywhere. Columns are taken to be means that do not fall (pass@k):
    where other problems are behind them, an end is moved outwards until it does not fall either.
    """
    values_PK = np.asarray(values_PK, dtype=float)
    present_PK = ~np.isnan(values_PK)
    e_BP = weights(len(values_PK), seed=seed)
    draws = len(e_BP)
    total_BK = e_BP[:, :-1] @ present_PK + e_BP[:, -1:]
    # sums may pass the ends of the range by rounding
    seen_BK = np.clip((e_BP[:, :-1] @ np.where(present_PK, values_PK, 0.0)) / total_BK, 0, 1)
    most_BK = np.minimum(seen_BK + e_BP[:, -1:] / total_BK, 1)
    low_BK, high_BK = np.sort(seen_BK, axis=0), np.sort(most_BK, axis=0)
    joint = _joint(seen_BK, low_BK, alpha / 2), _joint(-most_BK, -high_BK[::-1], alpha / 2)
    out = []
    for low_tail, high_tail in ((alpha / 2, alpha / 2), joint):
        low_K, high_K = low_BK[_rank(low_tail, draws)].copy(), high_BK[draws - 1 - _rank(high_tail, draws)].copy()
        known_K = present_PK.sum(axis=0) >= LEAST
        low_K = np.minimum.accumulate(np.where(known_K, low_K, np.inf)[::-1])[::-1]
        high_K = np.maximum.accumulate(np.where(known_K, high_K, -np.inf))
        out += [np.where(known_K, low_K, np.nan), np.where(known_K, high_K, np.nan)]
    return out[0], out[1], out[2], out[3]


def _rank(tail: float, draws: int) -> int:
    """The order statistic that leaves at most `tail` of the draws beyond it."""
    return max(0, int(np.floor(tail * draws + 1e-9)) - 1)


def _joint(drawn_BK: np.ndarray, sorted_BK: np.ndarray, tail: float) -> float:
    """The tail of each column below which no more than `tail` of the draws fall in any column; equal draws (all at the
    end of the range) do not fall below one another."""
    upto_BK = [np.searchsorted(s, d, side="right") for s, d in zip(sorted_BK.T, drawn_BK.T, strict=True)]
    return float(np.quantile(np.min(upto_BK, axis=0) / len(drawn_BK), tail, method="inverted_cdf"))
