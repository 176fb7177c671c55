"""Log-probs of whole traces at temperatures between those that are stored, and how far they may be off.

T log sum_v p_v^(1/T) is smooth in T, 0 at T = 1 with the entropy as its slope and the variance of the surprisal as its
curvature there, and known at the temperatures of the laws.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from analyzer.analysis.support import laws

COOL = 0.45  # without a law at this temperature or below, cooling can explain more than is seen
STEP = 0.97  # ratio of the temperatures that are tried
GRID, APART = (0.8, 0.6, 0.4, 0.2), 0.2  # temperatures to know, and how far apart they may lie for those between
SPLINE, UNSURE = 0.0005, 0.016  # nats a token by which `cooled` may be off: entropies known; not, between APART ones


def dense(temperatures: list[float]) -> bool:
    """Whether the temperatures (from 1 down) tell of those between them, down to COOL: none is further than APART from
    the next. Where they are not, what lies between could explain the half that none of them does."""
    if not temperatures or temperatures[0] < 1 or temperatures[-1] > COOL:
        return False
    gaps = [a - b for a, b in pairwise(temperatures) if a > COOL]
    return max(gaps) <= APART + 1e-3


def cooled(
    rows: pd.DataFrame, every: list[str], part: str, at_one_2N: np.ndarray, wanted_G: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures from 1 down to the lowest known one (or those wanted) [G], and each trace's log-prob at them [G, N].
    at_one_2N: entropy and variance of the surprisal of whole traces at T = 1, NaN where unknown.

    T log sum_v p_v^(1/T) is smooth in T, 0 at T = 1 and known at the laws' temperatures: where those are `dense`, a
    cubic spline gives what lies between; else they stand alone. Its slope at T = 1 is the entropy and its curvature
    there the variance: where both are known, a quartic takes the spline's place next to T = 1, within SPLINE nats a
    token of peaked laws with flat tails (whose tail freezes out just below T = 1, unseen at .8); where they are not,
    the spline is within `unsure`.
    """
    known = {1 / laws.exponent(name): name for name in every if laws.exponent(name) >= 1}
    knots = np.array(sorted(known))
    plain = rows[f"{part}:{laws.PLAIN}"].to_numpy(float)
    free_KN = np.stack([plain - t * rows[f"{part}:{known[t]}"].to_numpy(float) for t in knots])
    grid = knots[::-1]
    if dense(grid.tolist()):
        between = STEP ** np.arange(1 + math.floor(math.log(knots[0]) / math.log(STEP)))
        grid = np.array(sorted({*between, *knots}, reverse=True)) if wanted_G is None else wanted_G
        entropy_N, variance_N = at_one_2N
        ends = "not-a-knot" if np.isnan(entropy_N).any() else ("not-a-knot", (1, entropy_N))
        spline = CubicSpline(knots, free_KN, bc_type=ends)
        free_GN = spline(grid)
        if not np.isnan(at_one_2N).any():
            near = grid > knots[-2]
            free_GN[near] = _next_to_one(
                grid[near], knots[-2], free_KN[-2], spline(knots[-2], 1), entropy_N, variance_N
            )
    elif wanted_G is None:
        free_GN = free_KN[::-1]
    else:
        grid, free_GN = wanted_G, free_KN[np.searchsorted(knots, wanted_G)]
    return grid, (plain - free_GN) / grid[:, None]


def unsure(temperature_G: np.ndarray, every: list[str], at_one_2N: np.ndarray) -> np.ndarray:
    """Nats a token by which the log-probs of `cooled` may be off where entropies are not known, either way [G]: UNSURE
    between two laws APART from each other, less where they are nearer (measured on peaked laws with flat tails, of up
    to 1.5 nats of entropy), nothing at a law itself."""
    knots = np.array(sorted(1 / laws.exponent(name) for name in every if laws.exponent(name) >= 1))
    if not np.isnan(at_one_2N[0]).any():
        return np.zeros(len(temperature_G))
    above = np.clip(np.searchsorted(knots, temperature_G - 1e-9), 1, len(knots) - 1)
    between = (knots[above] - temperature_G > 1e-9) & (temperature_G - knots[above - 1] > 1e-9)
    return np.where(between, UNSURE * ((knots[above] - knots[above - 1]) / APART) ** 2.5, 0.0)


def _next_to_one(
    grid_G: np.ndarray,
    knot: float,
    value_N: np.ndarray,
    slope_N: np.ndarray,
    entropy_N: np.ndarray,
    variance_N: np.ndarray,
) -> np.ndarray:
    """The quartic in T that is 0 at T = 1 with this slope (entropy) and curvature (variance), and meets value and slope
    at `knot` [G, N]."""
    width = 1 - knot
    first_N, second_N = -width * entropy_N, width**2 * variance_N / 2  # in u = (1 - T) / width, from 0 at T = 1 to 1
    rest_N, turn_N = value_N - first_N - second_N, -width * slope_N - first_N - 2 * second_N
    u = ((1 - grid_G) / width)[:, None]
    return u * (first_N + u * (second_N + u * (4 * rest_N - turn_N + u * (turn_N - 3 * rest_N))))
