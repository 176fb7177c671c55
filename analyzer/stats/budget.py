"""Is an event too frequent in the source to come from k reference draws? Conditional binomial, Holm, what would decide.

H0 at budget k: the event's rate in the source is at most k times its rate in the reference. Given c_q + c_p events, c_q
is then stochastically at most Binomial(c_q + c_p, k n_q / (k n_q + n_p)) (exact for Poisson counts, conservative for
binomial ones: size .01-.02 at the boundary). McNemar on solved sets ignores the budget and rejects a best-of-16 against
its own base every time.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from analyzer.stats.bootstrap import ALPHA

SURE, MOST = 0.8, 100  # of `factor`


def p_value(c_q: np.ndarray, n_q: np.ndarray, c_p: np.ndarray, n_p: np.ndarray, k: float) -> np.ndarray:
    """P(c_q or more of the c_q + c_p events are the source's) at the edge of H0; 1 where c_q = 0. Arrays or numbers."""
    c_q, n_q, c_p, n_p = (np.asarray(x, dtype=float) for x in (c_q, n_q, c_p, n_p))
    return np.where(c_q > 0, binom.sf(c_q - 1, c_q + c_p, k * n_q / (k * n_q + n_p)), 1.0)


def holm(p_N: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, float [N]: reject at alpha where <= alpha, with family-wise error alpha."""
    p_N = np.asarray(p_N, dtype=float)
    order = np.argsort(p_N)
    adjusted = np.maximum.accumulate(p_N[order] * (len(p_N) - np.arange(len(p_N))))
    out = np.empty(len(p_N))
    out[order] = np.minimum(1.0, adjusted)
    return out


def factor(c_q: int, n_q: int, c_p: int, n_p: int, k: float, *, alpha: float = ALPHA) -> float:
    """By how much both arms must grow for the test to reach alpha in a share SURE of cases; NaN where MOST times would
    not do, or where the observed rates satisfy H0.

    The rates are as uncertain as their counts say: Gamma(c_q) / n_q and Gamma(c_p + 1/2) / n_p, and Poisson counts of
    so many more draws. Rates that stay as they were found would promise a word to a chance event: 1 against 0.
    """
    if c_q == 0 or c_q * n_p <= k * c_p * n_q:
        return np.nan
    if binom.sf(c_q - 1, c_q + c_p, k * n_q / (k * n_q + n_p)) <= alpha:
        return 1.0
    rng, tried = np.random.default_rng(0), np.geomspace(1.0, MOST, 60)[:, None]
    more_q, more_p = (rng.poisson(tried * rng.gamma(shape, size=500)) for shape in (c_q, c_p + 0.5))
    found = p_value(more_q, tried * n_q, more_p, tried * n_p, k) <= alpha
    enough = np.flatnonzero(found.mean(1) >= SURE)
    return float(tried[enough[0], 0]) if len(enough) else np.nan
