"""Numbers pooled over traces whose interval resamples problems: a median, and a ratio of sums."""

from __future__ import annotations

import math

import numpy as np

from analyzer.stats.bootstrap import DRAWS, FEW, Interval, quantiles, too_few, weights

STRETCH = 128  # neighbouring values that are counted together while a median is resampled, at least
NOTHING = Interval(np.nan, np.nan, np.nan, 0, 0, "no value")


def median(values_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Median over traces (NaN left out); in each resample all traces of a drawn problem enter as often as it is drawn.

    The median of an even number is the mean of the two in the middle. Fewer than FEW problems: no interval.
    """
    values, index = _known(problem_N, values_N)
    if len(values) == 0:
        return NOTHING
    value, problems = float(np.median(values)), int(index.max()) + 1
    if problems < FEW:
        return Interval(value, np.nan, np.nan, len(values), problems, f"median over traces; {too_few(problems, FEW)}")
    order = np.argsort(values, kind="stable")
    values, index = values[order], index[order]
    w_BP = weights(problems, draws=draws, seed=seed)
    # copies of the traces of each stretch of the order in each resample: finds the stretch without touching every trace
    width = max(STRETCH, math.isqrt(len(values)))
    stretch = np.arange(len(values)) // width
    count_PS = np.bincount(index * (stretch[-1] + 1) + stretch, minlength=problems * (stretch[-1] + 1))
    upto_BS = (w_BP @ count_PS.reshape(problems, -1).astype(float)).cumsum(1)
    size_B = upto_BS[:, -1]
    below_B, above_B = (
        _at_rank(values, index, w_BP, upto_BS, rank_B, width) for rank_B in ((size_B - 1) // 2, size_B // 2)
    )
    low, high = quantiles((below_B + above_B) / 2, problems)
    method = f"median over traces; bootstrap over problems, {draws} draws"
    return Interval(value, low, high, len(values), problems, method)


def _at_rank(
    values_N: np.ndarray, index_N: np.ndarray, w_BP: np.ndarray, upto_BS: np.ndarray, rank_B: np.ndarray, width: int
) -> np.ndarray:
    """The value of a rank (from 0) in every resample: that of the first trace whose cumulative count exceeds the rank.

    values_N sorted; upto_BS: cumulative counts at the end of each stretch of `width` traces.
    """
    stretch_B = (upto_BS <= rank_B[:, None]).sum(1)
    every_B = np.arange(len(rank_B))
    before_B = np.where(stretch_B > 0, upto_BS[every_B, stretch_B - 1], 0.0)
    at_BT = np.minimum(stretch_B[:, None] * width + np.arange(width), len(values_N) - 1)
    total_BT = before_B[:, None] + w_BP[every_B[:, None], index_N[at_BT]].cumsum(1)
    return values_N[at_BT[every_B, (total_BT <= rank_B[:, None]).sum(1)]]


def ratio(
    top_N: np.ndarray, bottom_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """sum(top) / sum(bottom) over traces, a trace with a NaN in either left out; n counts traces. Fewer than FEW
    problems: no interval; nothing to divide by: NaN."""
    top, bottom, index = _known(problem_N, top_N, bottom_N)
    top_P, bottom_P = np.bincount(index, weights=top), np.bincount(index, weights=bottom)
    if bottom_P.sum() == 0:
        return NOTHING
    value = float(top_P.sum() / bottom_P.sum())
    if len(top_P) < FEW:
        return Interval(value, np.nan, np.nan, len(top), len(top_P), f"ratio of sums; {too_few(len(top_P), FEW)}")
    w_BP = weights(len(top_P), draws=draws, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = quantiles((w_BP @ top_P) / (w_BP @ bottom_P), len(top_P))
    return Interval(value, low, high, len(top), len(top_P), f"ratio of sums; bootstrap over problems, {draws} draws")


def _known(problem_N: np.ndarray, *values_N: np.ndarray) -> list[np.ndarray]:
    """The values where none is NaN (float), and the index of their problems."""
    values = [np.asarray(v, dtype=float) for v in values_N]
    keep = ~np.isnan(values).any(0)
    index = np.unique(np.asarray(problem_N)[keep], return_inverse=True)[1]
    return [*(v[keep] for v in values), index]
