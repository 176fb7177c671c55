"""How difficult a task may be that is solved half of the time: success against log2 of difficulty, and where it is 1/2.

`_P` problems, `_B` resamples, `_G` places. Success is pass@k as the draws themselves give it (k <= n), a number in
[0, 1]; its mean over tasks of one difficulty is a fractional logistic regression (Papke and Wooldridge 1996) on a
natural cubic spline of three knots (Harrell). pass@k is no logistic curve where pass@1 is one, and tasks of one
difficulty differ: a straight line is off by 7 to 14 % at k = 8 (docs/decisions.md), as a Beta law's form is.
"""

from __future__ import annotations

import numpy as np

KNOTS = (0.05, 0.5, 0.95)  # quantiles of the problems' difficulties
ROUNDS, RIDGE = 30, 1e-4
BEYOND = 1.0  # doublings outside of what was seen to which a curve is read
PLACES = 400


def knots(x_P: np.ndarray) -> np.ndarray:
    """Three different places, float [3]; raises ValueError for fewer than three different values of x_P (log2)."""
    found = np.unique(x_P)
    if len(found) < len(KNOTS):
        raise ValueError(f"a spline needs {len(KNOTS)} different difficulties, got {len(found)}")
    at = np.quantile(x_P, KNOTS)
    return at if len(np.unique(at)) == len(KNOTS) else np.quantile(found, KNOTS)


def spline(x_G: np.ndarray, knots_3: np.ndarray) -> np.ndarray:
    """1, x, and the one curved part of a natural cubic spline, float [G, 3]; straight beyond the outer knots."""
    low, mid, high = knots_3

    def part(knot: float) -> np.ndarray:
        return (np.maximum(x_G - knot, 0) ** 3 - np.maximum(x_G - high, 0) ** 3) / (high - knot)

    return np.stack([np.ones_like(x_G), x_G - mid, (part(low) - part(mid)) / (high - low)], 1)


def fit(x_P: np.ndarray, success_P: np.ndarray, weight_BP: np.ndarray) -> np.ndarray:
    """Coefficients by resample, float [B, 3]. weight_BP: how often each problem counts (bootstrap.weights)."""
    basis_PJ = spline(x_P, knots(x_P))
    beta_BJ = np.zeros((len(weight_BP), basis_PJ.shape[1]))
    for _ in range(ROUNDS):
        mean_BP = _expit(beta_BJ @ basis_PJ.T)
        slope_BJ = (weight_BP * (success_P - mean_BP)) @ basis_PJ - RIDGE * beta_BJ
        curve_BP = weight_BP * np.maximum(mean_BP * (1 - mean_BP), 1e-6)
        curve_BJJ = np.einsum("bp,pi,pj->bij", curve_BP, basis_PJ, basis_PJ, optimize=True)
        step_BJ = np.linalg.solve(curve_BJJ + RIDGE * np.eye(basis_PJ.shape[1]), slope_BJ[..., None])[..., 0]
        beta_BJ += np.clip(step_BJ, -4, 4)
    return beta_BJ


def curve(beta_BJ: np.ndarray, x_P: np.ndarray, x_G: np.ndarray) -> np.ndarray:
    """Success at places x_G, float [B, G]; x_P: the difficulties of the fit."""
    return _expit(beta_BJ @ spline(x_G, knots(x_P)).T)


def crossing(beta_BJ: np.ndarray, x_P: np.ndarray, *, level: float = 0.5) -> np.ndarray:
    """log2 of the least difficulty at which success falls below `level`, float [B]: -inf where it does from the
    beginning (BEYOND below the easiest problem), +inf where it does not (to BEYOND above the hardest)."""
    x_G = np.linspace(x_P.min() - BEYOND, x_P.max() + BEYOND, PLACES)
    below_BG = curve(beta_BJ, x_P, x_G) < level
    at_B = x_G[below_BG.argmax(1)]
    return np.where(below_BG[:, 0], -np.inf, np.where(below_BG.any(1), at_B, np.inf))


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
