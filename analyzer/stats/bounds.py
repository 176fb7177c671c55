"""Bounds of a mean for the given problems: what the traces at hand say of these problems, and of no others.

Traces are independent within their problem and each problem keeps its own law, so that nothing has to be assumed about
how problems differ, and two problems do as well as two hundred. What new problems would bring is another question
(`bootstrap`, whose unit is the problem).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from analyzer.stats.bootstrap import ALPHA, by_problem, equal_problems, rare_upper

LEAST = 1e-12  # no p-value is told below it
STEPS = 16  # of the bisection for a p-value, in log p: within a factor of 1.001


def upper(values_N: np.ndarray, *, alpha: float = ALPHA) -> float:
    """One-sided 1 - alpha upper bound of the mean of values in [0, 1]: Stringer's (`bootstrap.rare_upper`).

    For 0/1 values it is Clopper-Pearson's, conservative where chances differ between problems (Hoeffding 1956). There
    is no switch to another bound where values above 0 become many: that would be a cliff for many tiny values.
    """
    values_N = np.asarray(values_N, dtype=float)
    return min(1.0, rare_upper(values_N, alpha=alpha)) if len(values_N) else 1.0


def lower(values_N: np.ndarray, *, alpha: float = ALPHA) -> float:
    """One-sided 1 - alpha lower bound of the mean of values in [0, 1]: 1 less the upper bound of 1 less the values."""
    return 1.0 - upper(1.0 - np.asarray(values_N, dtype=float), alpha=alpha)


def p_above(values_N: np.ndarray, threshold: float) -> float:
    """p-value of "the mean is at most `threshold`": the smallest alpha at which `lower` lies above it; 1 for none."""
    values_N = np.asarray(values_N, dtype=float)
    if not len(values_N) or values_N.mean() <= threshold:
        return 1.0
    return least_alpha(lambda alpha: lower(values_N, alpha=alpha) > threshold)


def least_alpha(holds: Callable[[float], bool]) -> float:
    """The smallest alpha from LEAST to 1 at which a claim holds that is the easier the larger alpha; 1 for none."""
    low, high = math.log(LEAST), 0.0
    if holds(LEAST):
        return LEAST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def event_free(share: float, laws: int = 1) -> int:
    """The least number of traces without an event whose 95 % upper bound of the share of events is at most `share`, the
    error split over the laws."""
    return math.ceil(math.log(ALPHA / laws) / math.log1p(-share))


class Mean(NamedTuple):
    """A mean over traces with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: float

    def low(self, alpha: float = ALPHA) -> float:
        """One-sided lower bound; NaN without degrees of freedom."""
        return self.value - self.error * float(student.isf(alpha, self.freedom)) if self.freedom > 0 else math.nan

    def high(self, alpha: float = ALPHA) -> float:
        """One-sided upper bound; NaN without degrees of freedom."""
        return self.value + self.error * float(student.isf(alpha, self.freedom)) if self.freedom > 0 else math.nan


def mean(values_N: np.ndarray, problem_N: np.ndarray) -> Mean:
    """Mean over traces of numbers without bounds, for the given problems: Student's t from the spread within problems.

    The variance of a stratified mean, sum n_j s_j^2 / N^2, with Satterthwaite's (1946) degrees of freedom. A problem
    with one trace has no spread of its own: where there is one, the spread between problems is taken, which is larger.
    """
    values_N, index = np.asarray(values_N, float), np.unique(np.asarray(problem_N), return_inverse=True)[1]
    total = len(values_N)
    if total == 0:
        return Mean(math.nan, math.nan, 0.0)
    value, n_P = float(values_N.mean()), np.bincount(index)
    if n_P.min() < 2:
        return between(values_N, problem_N)
    mean_P = np.bincount(index, weights=values_N) / n_P
    part_P = np.bincount(index, weights=(values_N - mean_P[index]) ** 2) / (n_P - 1) * n_P
    if not part_P.sum() > 0:
        return Mean(value, 0.0, float(total - len(n_P)))
    freedom = part_P.sum() ** 2 / (part_P**2 / (n_P - 1)).sum()
    return Mean(value, math.sqrt(part_P.sum()) / total, float(freedom))


def between(values_N: np.ndarray, problem_N: np.ndarray) -> Mean:
    """Mean over traces with problems as the unit, for problems such as these: residuals of a ratio of sums, one degree
    of freedom less than there are problems of equal size."""
    sums_P, n_P = by_problem(values_N, problem_N)
    m, value = len(n_P), float(sums_P.sum() / max(1, n_P.sum()))
    if m < 2:
        return Mean(value, math.nan, 0.0)
    # as `bootstrap.effective`: a problem with most of the traces draws the mean to itself
    residual_P = (sums_P - value * n_P) / n_P.mean() * (1 - 1 / m) / (1 - n_P / n_P.sum())
    return Mean(value, float(residual_P.std(ddof=1)) / math.sqrt(m), equal_problems(n_P) - 1)
