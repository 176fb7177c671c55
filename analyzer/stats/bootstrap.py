"""Intervals whose unit is the problem: percentile bootstrap over problems, and an exact bound where events are rare.

All traces of a problem move together, and two arms are paired because they share the draws of one seed. The target is
the population of problems, except where `rate` falls back to the rare-event bound (see there).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

DRAWS = 2000
ALPHA = 0.05
FEW = 10  # problems with an event; below it a percentile interval is too narrow (coverage .83 at 16 traces a problem)


class Interval(NamedTuple):
    """A mean with its interval: `n` traces (or problems, where each is one number) from `problems` problems."""

    value: float
    low: float
    high: float
    n: int
    problems: int
    method: str


@lru_cache(maxsize=4)  # every statistic of an analysis shares the draws
def weights(problems: int, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each problem occurs in each resample: whole numbers as float64 [B, P] (read-only), rows sum to P."""
    counts = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), size=draws)
    out = counts.astype(float)  # float times float goes through BLAS
    out.flags.writeable = False
    return out


def quantiles(draws_B: np.ndarray, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Two-sided percentile interval of the finite or infinite draws; (NaN, NaN) if none is left.

    Order statistics without interpolation, so that a draw of +inf ("never") stays +inf instead of becoming NaN.
    """
    draws_B = draws_B[~np.isnan(draws_B)]
    if len(draws_B) == 0:
        return np.nan, np.nan
    low, high = np.quantile(draws_B, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    return float(low), float(high)


def by_problem(values_N: np.ndarray, problem_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the non-NaN values per problem (problems without any are left out): float [P], int [P]."""
    values_N = np.asarray(values_N, dtype=float)
    keep = ~np.isnan(values_N)
    index = np.unique(np.asarray(problem_N)[keep], return_inverse=True)[1]
    return np.bincount(index, weights=values_N[keep]), np.bincount(index)


def mean(
    values_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0, alpha: float = ALPHA
) -> Interval:
    """Mean over traces, interval by resampling problems (a ratio of sums, so unequal trace counts are allowed).

    NaN values are left out. With one problem there is no interval: low and high are NaN.
    """
    sums_P, counts_P = by_problem(values_N, problem_N)
    if len(sums_P) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, "no value")
    value, n = float(sums_P.sum() / counts_P.sum()), int(counts_P.sum())
    if len(sums_P) == 1:
        return Interval(value, np.nan, np.nan, n, 1, "one problem: no interval")
    w_BP = weights(len(sums_P), draws=draws, seed=seed)
    low, high = quantiles((w_BP @ sums_P) / (w_BP @ counts_P), alpha=alpha)
    return Interval(value, low, high, n, len(sums_P), f"bootstrap over problems, {draws} draws")


def column_means(values_PK: np.ndarray, w_BP: np.ndarray) -> np.ndarray:
    """Weighted mean over problems of every column in every resample, NaN entries left out: float [B, K]."""
    present_PK = ~np.isnan(values_PK)
    total = w_BP @ present_PK
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (w_BP @ np.where(present_PK, values_PK, 0.0)) / total, np.nan)


def design_effect(values_N: np.ndarray, problem_N: np.ndarray) -> float:
    """1 + (n0 - 1) rho, with rho the one-way ANOVA intra-class correlation by problem, never below 1.

    n0 is the usual average of unequal counts. Constant values, one problem or one trace a problem give 1.
    """
    values_N = np.asarray(values_N, dtype=float)
    keep = np.isfinite(values_N)
    sums_P, n_P = by_problem(values_N[keep], np.asarray(problem_N)[keep])
    total, m = n_P.sum(), len(n_P)
    if m < 2 or total <= m:
        return 1.0
    grand = sums_P.sum() / total
    between = float((n_P * (sums_P / n_P - grand) ** 2).sum())
    within = float(((values_N[keep] - grand) ** 2).sum()) - between
    n0 = (total - (n_P**2).sum() / total) / (m - 1)
    ms_between, ms_within = between / (m - 1), max(within, 0.0) / (total - m)
    scale = ms_between + (n0 - 1) * ms_within
    return 1.0 if scale <= 1e-18 else max(1.0, 1 + (n0 - 1) * (ms_between - ms_within) / scale)


def share_upper(events: float, n: float, *, alpha: float = ALPHA) -> float:
    """One-sided Clopper-Pearson upper bound of a share; events = 0 gives 1 - alpha^(1/n), about 3 / n."""
    return 1.0 if events >= n else float(beta.ppf(1 - alpha, events + 1, n - events))


def rate(
    values_N: np.ndarray, problem_N: np.ndarray, *, like: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean of values in [0, 1] with an interval that stays honest when hardly any value is off 0 (or off 1).

    Percentile bootstrap over problems. Where fewer than FEW problems, and not all, hold a value above 0, the upper end
    is raised to the one-sided 95 % Clopper-Pearson bound of the share of values above 0 (it bounds the mean), with the
    number of traces divided by the design effect; likewise the lower end for values below 1. For this set
    of problems the bound without the design effect is exact: P(no event) = prod (1 - e_i)^(n_i) <= exp(-n mean e).
    The design effect widens it because traces of a problem are alike; it is measured on the values and, as zeros tell
    nothing about clustering, on `like` (same shape: a less rare event of the same kind). For new problems that could
    depart wholly nothing better than 1 - .05^(1/P) holds (`share_upper(0, P)`).
    """
    values_N, problem_N = np.asarray(values_N, dtype=float), np.asarray(problem_N)
    out = mean(values_N, problem_N, draws=draws, seed=seed)
    if out.n == 0:
        return out
    keep = ~np.isnan(values_N)
    values, problem = values_N[keep], problem_N[keep]
    effect = max(
        [design_effect(values, problem)] + ([] if like is None else [design_effect(np.asarray(like)[keep], problem)])
    )
    n = max(out.n / effect, 1.0)
    low, high, method = out.low, out.high, out.method
    few = min(FEW, out.problems)  # events in every problem are not rare, however few the problems
    if len(np.unique(problem[values > 0])) < few:
        bound = share_upper((values > 0).sum() / effect, n)
        low, high = np.fmin(np.nan_to_num(low), out.value), np.fmax(high, bound)
        method = f"{method}; upper end Clopper-Pearson, design effect {effect:.1f}"
    if len(np.unique(problem[values < 1])) < few:
        bound = 1 - share_upper((values < 1).sum() / effect, n)
        low, high = np.fmin(low, bound), np.fmax(1.0 if np.isnan(high) else high, out.value)
        method = f"{method}; lower end Clopper-Pearson, design effect {effect:.1f}"
    return Interval(out.value, float(low), float(high), out.n, out.problems, method)
