"""Intervals whose unit is the problem: traces of a problem move together, and the target is problems such as these.

Shares have Korn and Graubard's interval (`rate`), other means Student's or percentiles of a bootstrap over problems;
two arms are paired because they share the draws of one seed. What holds for the given problems alone is in `bounds`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv
from scipy.stats import norm
from scipy.stats import t as student

DRAWS = 2000
ALPHA = 0.05  # error of every interval (of both ends together), every bound and every test
STRETCHES = 4000  # values above which the rare-event bound takes them by stretches
LEAST = 3  # problems below which no interval over problems is told,
FEW = 5  # no percentile interval (at 3 problems their range holds a median in three of four cases),
MANY = 10  # and a mean has Student's interval, which the percentiles reach from here on


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


def quantiles(draws_B: np.ndarray, problems: int, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Two-sided percentile interval of the finite or infinite draws; (NaN, NaN) if none is left.

    Order statistics without interpolation, so that a draw of +inf ("never") stays +inf instead of becoming NaN. The
    tails are those that make Student's interval of a mean from the percentile one ("expanded percentile", Hesterberg,
    The American Statistician 69, 2015, 371); fewer than FEW problems: (NaN, NaN), as no resample leaves their range.
    """
    draws_B = draws_B[~np.isnan(draws_B)]
    if len(draws_B) == 0 or problems < FEW:
        return np.nan, np.nan
    tail = expanded(alpha / 2, problems)
    low, high = np.quantile(draws_B, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def expanded(tail: float, problems: int) -> float:
    """The tail of a bootstrap over so many problems that stands for `tail`: the bootstrap's spread is too small by
    sqrt((P - 1) / P), and normal where Student's is meant."""
    return float(norm.sf(student.isf(tail, problems - 1) * np.sqrt(problems / (problems - 1))))


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

    NaN values are left out. From LEAST to FEW problems Student's t with problems as the unit; below, no interval.
    """
    sums_P, counts_P = by_problem(values_N, problem_N)
    m = len(sums_P)
    if m == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, "no value")
    value, n = float(sums_P.sum() / counts_P.sum()), int(counts_P.sum())
    if m < LEAST:
        return Interval(value, np.nan, np.nan, n, m, too_few(m))
    if m < MANY:
        residual_P = (sums_P - value * counts_P) / counts_P.mean()
        half = float(student.isf(alpha / 2, m - 1) * residual_P.std(ddof=1) / np.sqrt(m))
        return Interval(value, value - half, value + half, n, m, "Student's t over problems")
    w_BP = weights(m, draws=draws, seed=seed)
    low, high = quantiles((w_BP @ sums_P) / (w_BP @ counts_P), m, alpha=alpha)
    return Interval(value, low, high, n, m, f"bootstrap over problems, {draws} draws")


def column_means(values_PK: np.ndarray, w_BP: np.ndarray) -> np.ndarray:
    """Weighted mean over problems of every column in every resample, NaN entries left out: float [B, K]."""
    present_PK = ~np.isnan(values_PK)
    total = w_BP @ present_PK
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (w_BP @ np.where(present_PK, values_PK, 0.0)) / total, np.nan)


def share_upper(events: float | np.ndarray, n: float, *, alpha: float = ALPHA) -> np.ndarray:
    """One-sided Clopper-Pearson upper bound of a share, shaped like events; none of n: 1 - alpha^(1/n), about 3 / n."""
    events = np.asarray(events, dtype=float)
    return np.where(events >= n, 1.0, betaincinv(events + 1, np.maximum(n - events, 1e-9), 1 - alpha))[()]


def rare_upper(values_N: np.ndarray, *, alpha: float = ALPHA) -> float:
    """One-sided upper bound of the mean of values in [0, 1] of which hardly any is above 0: Stringer's, of auditing.

    b_0 + sum_j (b_j - b_{j-1}) z_j with z_1 >= z_2 >= ... the values above 0 and b_j Clopper-Pearson of j events. It is
    Clopper-Pearson where every value is 0 or 1 and below it where they are small, at no cost in level. For 0/1 values
    with chances that differ it is conservative (Hoeffding, 1956). For others that is proven asymptotically (Pap and van
    Zuijlen, 1996), not for every finite sample; `validation` sums the chance to miss over all laws on two values
    (V0: never above .05) and simulates others (V4).
    """
    values_N = np.asarray(values_N, dtype=float)
    z = np.sort(values_N[values_N > 0])[::-1]
    at, first, more = _event_bounds(len(z), len(values_N), alpha)
    return float(first + more @ z[at])


@lru_cache(maxsize=512)  # sources, laws and variations of one run ask for the same counts
def _event_bounds(events: int, n: int, alpha: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Places of the sorted values, the bound of none, and what each further event adds. Of many values, stretches in
    which each counts as its largest: never smaller, and a thousand bounds instead of n."""
    at = np.arange(events + 1)
    if events > STRETCHES:
        at = np.unique(np.geomspace(1, events + 1, STRETCHES).astype(int) - 1)
    bound = share_upper(at, n, alpha=alpha)
    return at[:-1], float(bound[0]), np.diff(bound)


def rate(values_N: np.ndarray, problem_N: np.ndarray, *, alpha: float = ALPHA) -> Interval:
    """Mean of values in [0, 1] with an interval that stays honest at few problems and where hardly any value is off 0.

    Korn and Graubard's (Survey Methodology 24, 1998, 193): the variance with problems as the unit gives the number of
    independent 0/1 values that would know as much, n* = m (1 - m) / se^2 (t_{n-1} / t_{P-1})^2, never more than there
    are traces; Clopper-Pearson of n* is the interval. Below three problems the spread between them is not known: NaN.

    Without any event (or any value below 1) nothing tells how problems differ, and the interval speaks of this set of
    problems, for which it holds whatever their rates e_i: P(no event) = prod (1 - e_i)^(n_i) <= exp(-n mean e). For new
    problems zeros tell no more than `share_upper(0, P)`, since one in thirty could depart wholly; `method` says so.
    """
    sums_P, counts_P = by_problem(values_N, problem_N)
    if len(sums_P) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, "no value")
    m, n = len(sums_P), int(counts_P.sum())
    value = float(sums_P.sum() / n)
    if value <= 0 or value >= 1:
        bound = float(share_upper(0, n, alpha=alpha))  # the other end is certain: all the error is at this one
        low, high = (0.0, bound) if value <= 0 else (1 - bound, 1.0)
        new = float(share_upper(0, m))
        method = "Clopper-Pearson" + ("" if n == m else f" for these {m} problems (new ones: off by at most {new:.2g})")
        return Interval(value, low, high, n, m, method)
    if m < LEAST:
        return Interval(value, np.nan, np.nan, n, m, too_few(m))
    if equal_problems(counts_P) < LEAST - 1e-9:
        return Interval(value, np.nan, np.nan, n, m, f"{counts_P.max()} of {n} traces are of one problem: no interval")
    low_K, high_K, size_K = share_ends(sums_P[:, None], counts_P, alpha=alpha)
    method = f"Korn-Graubard over problems, worth {size_K[0]:.0f} independent traces"
    return Interval(value, float(low_K[0]), float(high_K[0]), n, m, method)


def share_ends(
    sums_PK: np.ndarray, counts_P: np.ndarray, *, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Korn and Graubard's interval of K means of values in [0, 1], from their sums by problem: low, high, n*, each [K].

    Two-sided at alpha; at a mean of 0 or 1 the end that is certain is that value. NaN below LEAST problems of equal
    size (`equal_problems`).
    """
    n, value_K = counts_P.sum(), sums_PK.sum(0) / counts_P.sum()
    if equal_problems(counts_P) < LEAST - 1e-9:
        return np.full_like(value_K, np.nan), np.full_like(value_K, np.nan), np.full_like(value_K, n)
    size_K = effective(sums_PK, counts_P, alpha / 2)
    hits_K, rest_K = size_K * value_K, np.maximum(size_K * (1 - value_K), 1e-12)
    low_K = np.where(value_K > 0, betaincinv(np.maximum(hits_K, 1e-12), rest_K + 1, alpha / 2), 0.0)
    return low_K, np.where(value_K < 1, betaincinv(hits_K + 1, rest_K, 1 - alpha / 2), 1.0), size_K


def equal_problems(counts_P: np.ndarray) -> float:
    """Kish's (1965) number of problems of equal size that would know as much: (sum n)^2 / sum n^2, at most P."""
    counts_P = np.asarray(counts_P, float)
    return float(counts_P.sum() ** 2 / max(1e-300, (counts_P**2).sum()))


def effective(sums_PK: np.ndarray, counts_P: np.ndarray, tail: float) -> np.ndarray:
    """How many independent 0/1 values would know each mean as well: n* [K] of `rate`, at one tail's error.

    A problem with most of the traces draws the mean to itself and its residual to 0: each residual is divided by 1 less
    its share (the jackknife's), and Student's degrees of freedom are those of `equal_problems`.
    """
    m, n = len(counts_P), float(counts_P.sum())
    value_K = sums_PK.sum(0) / n
    residual_PK = (sums_PK - counts_P[:, None] * value_K) / counts_P.mean()
    residual_PK = residual_PK * (1 - 1 / m) / (1 - counts_P[:, None] / n)
    variance_K = ((residual_PK - residual_PK.mean(0)) ** 2).sum(0) / (m - 1) / m
    freedom = equal_problems(counts_P) - 1
    ratio = (student.isf(tail, n - 1) / student.isf(tail, freedom)) ** 2 if n > m else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        size_K = value_K * (1 - value_K) / variance_K * ratio
    return np.where(variance_K > 0, np.minimum(n, size_K), n)


def too_few(problems: int, least: int = LEAST) -> str:
    """Why there is no interval."""
    return f"{problems} problem{'s' * (problems > 1)}: no interval, {least} are needed"
