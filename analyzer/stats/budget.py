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


def factor(c_q: int, n_q: int, c_p: int, n_p: int, k: float, *, alpha: float = ALPHA, most: float = 1000) -> float:
    """By how much both arms must grow, rates unchanged, for the test to reach alpha; NaN if that is more than `most`.

    NaN also where the observed rates satisfy H0, so that no number of draws would reject it.
    """
    if c_q == 0 or c_q * n_p <= k * c_p * n_q:
        return np.nan
    grid = np.geomspace(1.0, most, 400)
    p = p_value(np.floor(c_q * grid), n_q * grid, np.ceil(c_p * grid), n_p * grid, k)
    below = np.flatnonzero(p <= alpha)
    return float(grid[below[0]]) if len(below) else np.nan
