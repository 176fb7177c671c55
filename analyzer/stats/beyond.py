"""How much of a source lies beyond k draws of the base, at least, by the sizes of its e-values: log q is not needed.

Let E_k = sum (q - k p)+ be the mass of Q beyond k times a law P of the null, so that Q <= k P + R with R of mass E_k.
An e-value has E_P[e] <= 1, hence for any cap c, fixed beforehand,

    E_Q[min(e, c)] <= k E_P[e] + c E_k <= k + c E_k,    that is    E_k >= E_Q[min(e, c) / c] - k / c

and the mean of a number in [0, 1] has a lower bound for the given problems (`bounds.lower`). Many e-values that are
large together say what none says alone. The error is split over the caps and over the parts of the traces.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analyzer.stats import bounds
from analyzer.stats.bootstrap import ALPHA

CAPS = (0.02, 0.002)  # k / c: what a cap costs of the bound


class Beyond(NamedTuple):
    """value: the largest mean less its cost, at least 0. low: 1 - ALPHA lower bound of E_k. p: of E_k <= threshold."""

    value: float
    low: float
    p: float


def least(log_e_N: np.ndarray, part_N: np.ndarray, k: float, threshold: float) -> Beyond:
    """Bounds of E_k, averaged over the traces, for the given problems.

    log_e_N: log e (nats), NaN counts as 0. part_N: parts within which the e-values are independent.
    """
    if not len(log_e_N):
        return Beyond(math.nan, math.nan, math.nan)
    parts = np.unique(part_N)
    capped = [
        (cost, np.exp(np.nan_to_num(np.minimum(0.0, log_e_N - math.log(k / cost)), nan=-np.inf))) for cost in CAPS
    ]

    def low(alpha: float) -> float:
        each = alpha / len(CAPS) / len(parts)
        return max(
            sum(bounds.lower(v_N[part_N == part], alpha=each) * (part_N == part).mean() for part in parts) - cost
            for cost, v_N in capped
        )

    value = max(0.0, *(float(v_N.mean()) - cost for cost, v_N in capped))
    p = bounds.least_alpha(lambda alpha: low(alpha) > threshold) if value > threshold else 1.0
    return Beyond(value, max(0.0, low(ALPHA)), p)
