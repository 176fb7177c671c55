"""Intervals whose unit is the problem: percentile bootstrap over problems, and an exact bound where events are rare.

All traces of a problem move together, and two arms are paired because they share the draws of one seed. The target is
the population of problems, except where `rate` falls back to the rare-event bound (see there).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

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


def share_upper(events: float | np.ndarray, n: float, *, alpha: float = ALPHA) -> np.ndarray:
    """One-sided Clopper-Pearson upper bound of a share, shaped like events; none of n: 1 - alpha^(1/n), about 3 / n."""
    events = np.asarray(events, dtype=float)
    return np.where(events >= n, 1.0, betaincinv(events + 1, np.maximum(n - events, 1e-9), 1 - alpha))[()]


def rare_upper(values_N: np.ndarray, *, effect: float = 1.0, alpha: float = ALPHA) -> float:
    """One-sided upper bound of the mean of values in [0, 1] of which hardly any is above 0: Stringer's, of auditing.

    b_0 + sum_j (b_j - b_{j-1}) z_j with z_1 >= z_2 >= ... the values above 0 and b_j Clopper-Pearson of j events. It is
    Clopper-Pearson where every value is 0 or 1 and below it where they are small, at no cost in level. For 0/1 values
    with chances that differ it is conservative (Hoeffding, 1956). For others that is proven asymptotically (Pap and van
    Zuijlen, 1996), not for every finite sample; `analyzer.validate` sums the chance to miss over all laws on two values
    (V0: never above .05) and simulates others (V4). effect: design effect, divides the counts.
    """
    values_N = np.asarray(values_N, dtype=float)
    z = np.sort(values_N[values_N > 0])[::-1]
    bound = share_upper(np.arange(len(z) + 1) / effect, max(len(values_N) / effect, 1.0), alpha=alpha)
    return float(bound[0] + np.diff(bound) @ z)


def rate(values_N: np.ndarray, problem_N: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of values in [0, 1] with an interval that stays honest when hardly any value is off 0 (or off 1).

    Percentile bootstrap over problems. Where fewer than FEW problems, and not all, hold a value above 0, the upper end
    is raised to the one-sided 95 % bound of `rare_upper`, counts divided by the design effect of the values; likewise
    the lower end for values below 1.

    Without any event the bound speaks of this set of problems, for which it holds whatever their rates e_i:
    P(no event) = prod (1 - e_i)^(n_i) <= exp(-n mean e). Zeros tell nothing about new problems beyond
    `share_upper(0, P)`, since one in thirty could depart wholly; `method` says so and gives that number.
    """
    values_N, problem_N = np.asarray(values_N, dtype=float), np.asarray(problem_N)
    out = mean(values_N, problem_N, draws=draws, seed=seed)
    if out.n == 0:
        return out
    keep = ~np.isnan(values_N)
    values, problem = values_N[keep], problem_N[keep]
    low, high, method = out.low, out.high, out.method
    few = min(FEW, out.problems)  # events in every problem are not rare, however few the problems
    if len(np.unique(problem[values > 0])) < few:
        bound, how = _rare_end(values, problem, out.problems)
        low, high = np.fmin(np.nan_to_num(low), out.value), np.fmax(high, bound)
        method = f"{method}; upper end {how}"
    if len(np.unique(problem[values < 1])) < few:
        bound, how = _rare_end(1 - values, problem, out.problems)
        low, high = np.fmin(low, 1 - bound), np.fmax(1.0 if np.isnan(high) else high, out.value)
        method = f"{method}; lower end {how}"
    return Interval(out.value, float(low), float(high), out.n, out.problems, method)


def _rare_end(values: np.ndarray, problem: np.ndarray, problems: int) -> tuple[float, str]:
    """Upper bound of the mean of values hardly ever above 0, and how it was made."""
    if (values > 0).any():
        effect = design_effect(values, problem)
        return rare_upper(values, effect=effect), f"Clopper-Pearson (Stringer), design effect {effect:.1f}"
    if len(values) == problems:
        return rare_upper(values), "Clopper-Pearson"
    new = share_upper(0, problems)
    return rare_upper(values), f"Clopper-Pearson for these {problems} problems (new ones: off by at most {new:.2g})"
