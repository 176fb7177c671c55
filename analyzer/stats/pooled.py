"""Numbers pooled over traces whose interval resamples problems: a median, and a ratio of sums."""

from __future__ import annotations

import numpy as np

from analyzer.stats.bootstrap import DRAWS, Interval, quantiles, weights

BLOCK = 4_000_000  # numbers in memory at once while medians are resampled
NOTHING = Interval(np.nan, np.nan, np.nan, 0, 0, "no value")


def median(values_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Median over traces (NaN left out); in each resample all traces of a drawn problem enter as often as it is drawn.

    The median of an even number is the mean of the two in the middle. One problem: no interval.
    """
    values, index = _known(problem_N, values_N)
    if len(values) == 0:
        return NOTHING
    value, problems = float(np.median(values)), int(index.max()) + 1
    if problems == 1:
        return Interval(value, np.nan, np.nan, len(values), 1, "median over traces; one problem: no interval")
    order = np.argsort(values, kind="stable")
    values, index = values[order], index[order]
    w_BP = weights(problems, draws=draws, seed=seed)
    found, step = [], max(1, BLOCK // len(values))
    for at in range(0, draws, step):
        total_BN = w_BP[at : at + step, index].cumsum(1)
        size_B1 = total_BN[:, -1:]
        # a member of the resample, by its rank: the first trace whose cumulative count exceeds that rank
        low, high = ((total_BN <= rank).sum(1) for rank in ((size_B1 - 1) // 2, size_B1 // 2))
        found.append((values[low] + values[high]) / 2)
    low, high = quantiles(np.concatenate(found))
    method = f"median over traces; bootstrap over problems, {draws} draws"
    return Interval(value, low, high, len(values), problems, method)


def ratio(
    top_N: np.ndarray, bottom_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """sum(top) / sum(bottom) over traces, a trace with a NaN in either left out; n counts traces. One problem: no
    interval; nothing to divide by: NaN."""
    top, bottom, index = _known(problem_N, top_N, bottom_N)
    top_P, bottom_P = np.bincount(index, weights=top), np.bincount(index, weights=bottom)
    if bottom_P.sum() == 0:
        return NOTHING
    value = float(top_P.sum() / bottom_P.sum())
    if len(top_P) == 1:
        return Interval(value, np.nan, np.nan, len(top), 1, "ratio of sums; one problem: no interval")
    w_BP = weights(len(top_P), draws=draws, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = quantiles((w_BP @ top_P) / (w_BP @ bottom_P))
    return Interval(value, low, high, len(top), len(top_P), f"ratio of sums; bootstrap over problems, {draws} draws")


def _known(problem_N: np.ndarray, *values_N: np.ndarray) -> list[np.ndarray]:
    """The values where none is NaN (float), and the index of their problems."""
    values = [np.asarray(v, dtype=float) for v in values_N]
    keep = ~np.isnan(values).any(0)
    index = np.unique(np.asarray(problem_N)[keep], return_inverse=True)[1]
    return [*(v[keep] for v in values), index]
