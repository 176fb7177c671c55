"""pass@k beyond the draws at hand: the law of the problems' chances is learned from how often each was solved.

The chance p of a problem is 0 with a share z (never solved); else logit p comes from a mixture of two normal laws, on
the grid LOGITS. The correct draws c_i of n_i on each problem tell of the six numbers by a posterior (random-walk
Metropolis, seeded); a problem's own draws then tell of its own p. Below p = 1 / n nothing is seen: there a forecast
stands on this form. A Beta law with a share of zeros, as usual for such counts, missed laws with two humps or a long
tail (docs/decisions.md); what this one covers is measured by `validation/forecasts.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

LOGITS = np.linspace(-16, 12, 141)
START = np.array([0.0, 0.7, -4.0, 0.7, 0.0, -3.5])  # means and log sd of the two laws, logits of the mixture and of z
PRIOR = (np.array([0.7, 0.7, 0.0, -3.5]), np.array([0.6, 0.6, 1.5, 2.0]))  # normal; means flat between the ENDS
ENDS = (-12.0, 8.0)
STEP = np.array([0.8, 0.25, 0.8, 0.25, 0.7, 0.9])
BURN, STEPS, THIN = 2000, 6000, 10


class Laws(NamedTuple):
    """Drawn from the posterior: never [S], the share of problems without a chance; law [S, G] over LOGITS."""

    never_S: np.ndarray
    law_SG: np.ndarray


def laws(n_P: np.ndarray, c_P: np.ndarray, *, seed: int = 0) -> Laws:
    """From the draws and the correct ones of each problem, integers [P] with 0 <= c <= n."""
    (n_U, c_U), count_U = np.unique(np.stack([n_P, c_P]), axis=1, return_counts=True)
    like_UG, none_U = _likelihood(n_U, c_U)

    def log_posterior(at: np.ndarray) -> float:
        if not (ENDS[0] < at[0] < ENDS[1] and ENDS[0] < at[2] < ENDS[1]):
            return -np.inf
        never, law_G = _law(at)
        total_U = (1 - never) * (like_UG @ law_G) + never * none_U
        prior = (((at[[1, 3, 4, 5]] - PRIOR[0]) / PRIOR[1]) ** 2).sum() / 2
        return float(count_U @ np.log(np.maximum(total_U, 1e-300)) - prior)

    rng = np.random.default_rng((seed, 0))  # three streams: equal numbers in two of them would tie what is drawn
    at, scale, taken, found = START, 1.0, 0, []
    now = log_posterior(at)
    for i in range(STEPS):
        new = at + rng.normal(size=len(at)) * STEP * scale * (rng.random(len(at)) < 0.5)
        then = log_posterior(new)
        if np.log(rng.random()) < then - now:
            at, now, taken = new, then, taken + 1
        if i < BURN and i % 100 == 99:  # some 25 of 100 taken
            scale, taken = scale * (1.2 if taken > 30 else 0.8 if taken < 20 else 1.0), 0
        if i >= BURN and i % THIN == 0:
            found.append(_law(at))
    return Laws(np.array([never for never, _ in found]), np.stack([law_G for _, law_G in found]))


def chances(found: Laws, n_P: np.ndarray, c_P: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Chances to solve each of these problems, one drawn from each law and the problem's own draws: float [S, P]."""
    rng = np.random.default_rng((seed, 1))
    (n_U, c_U), at_P = np.unique(np.stack([n_P, c_P]), axis=1, return_inverse=True)
    like_UG, none_U = _likelihood(n_U, c_U)
    out = np.empty((len(found.never_S), len(at_P)))
    for p_P, never, law_G in zip(out, *found, strict=True):
        weight_UG = np.c_[never * none_U, (1 - never) * like_UG * law_G]
        cdf_UG = weight_UG.cumsum(1) / weight_UG.sum(1, keepdims=True)
        cell_P = (cdf_UG[at_P] < rng.random((len(at_P), 1))).sum(1)
        p_P[:] = np.where(cell_P == 0, 0.0, expit(LOGITS[np.maximum(cell_P - 1, 0)]))
    return out


def pass_at_k(chance_SP: np.ndarray, k_K: np.ndarray) -> np.ndarray:
    """Mean of 1 - (1 - p)^k over the problems: float [S, K]."""
    log_miss_SP = np.log1p(-chance_SP)
    return np.stack([1 - np.exp(k * log_miss_SP).mean(1) for k in np.asarray(k_K, float)], axis=1)


def solved(chance_SP: np.ndarray, k_K: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Share of the problems that k new draws each would solve, one experiment for each row: float [S, K]."""
    with np.errstate(divide="ignore"):
        first_SP = np.log(np.random.default_rng((seed, 2)).random(chance_SP.shape)) / np.log1p(-chance_SP)  # geometric
    return np.stack([(first_SP < k).mean(1) for k in k_K], axis=1)


def _likelihood(n_U: np.ndarray, c_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p^c (1 - p)^(n - c) over LOGITS [U, G] and at p = 0 [U], each row less a constant factor."""
    log_UG = c_U[:, None] * log_expit(LOGITS) + (n_U - c_U)[:, None] * log_expit(-LOGITS)
    top_U = log_UG.max(1)
    return np.exp(log_UG - top_U[:, None]), np.where(c_U == 0, np.exp(np.where(c_U == 0, -top_U, 0.0)), 0.0)


def _law(at: np.ndarray) -> tuple[float, np.ndarray]:
    """(z, the mixture over LOGITS, of sum 1) of one point."""
    one_G, other_G = (np.exp(-(((LOGITS - m) / np.exp(s)) ** 2) / 2) for m, s in (at[:2], at[2:4]))
    share = expit(at[4])
    return float(expit(at[5])), share * one_G / one_G.sum() + (1 - share) * other_G / other_G.sum()
