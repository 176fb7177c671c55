"""Where along a trace does the base become able to go on alone? Rises of its success over growing prefixes, and a test.

`_N` traces, `_F` cuts: the first at 0 (the prompt alone), the last at 1 (the whole trace, which is correct). A value is
the share of the continuations from that cut that end correct.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PERMUTATIONS = 999


class Cliff(NamedTuple):
    """The stretch between cuts `at` and `at + 1` in which the base's success rises most beyond the control's: by
    `rise`; p of the largest such rise over all stretches."""

    at: int
    rise: float
    p: float


def paired(own_NF: np.ndarray, control_NF: np.ndarray, *, seed: int = 0, permutations: int = PERMUTATIONS) -> Cliff:
    """Base and control (the policy itself) continue the same traces: exact where both are one law, since each trace's
    two rows of draws can then be exchanged."""
    gain_NF = np.diff(own_NF, axis=1) - np.diff(control_NF, axis=1)
    sign_BN = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, len(gain_NF)))
    return _cliff(gain_NF.mean(0), sign_BN @ gain_NF / len(gain_NF))


def unpaired(
    own_NF: np.ndarray,
    own_N: np.ndarray,
    control_NF: np.ndarray,
    control_N: np.ndarray,
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Cliff | None:
    """Base on the source's traces against the base on traces of its own; own_N, control_N: the problem of each. Labels
    are permuted within problems: exact where both are draws of one law. None where no problem has both."""
    rng = np.random.default_rng(seed)
    gains, total, permuted = [], 0.0, np.zeros((permutations, own_NF.shape[1] - 1))
    for problem in np.intersect1d(own_N, control_N):
        arms = own_NF[own_N == problem], control_NF[control_N == problem]
        rise_MF, n = np.diff(np.concatenate(arms), axis=1), len(arms[0])
        weight_M = np.r_[np.full(n, 1 / n), np.full(len(arms[1]), -1 / len(arms[1]))]
        gains.append(n * (weight_M @ rise_MF))
        order_BM = rng.permuted(np.tile(weight_M, (permutations, 1)), axis=1)
        permuted += n * (order_BM @ rise_MF)
        total += n
    return _cliff(np.sum(gains, axis=0) / total, permuted / total) if gains else None


def at_shares(share_NF: np.ndarray, value_NF: np.ndarray, stretches: int) -> np.ndarray:
    """The curve of each trace at 0, 1/stretches ... 1, between its cuts on straight lines [N, stretches + 1]. share_NF:
    the shares at which it was cut, never falling, 0 first and 1 last."""
    at = np.arange(stretches + 1) / stretches
    last_NF = np.diff(share_NF, axis=1, append=np.inf) > 0  # cuts that fall on one step are one
    return np.array([np.interp(at, s[last], v[last]) for s, v, last in zip(share_NF, value_NF, last_NF, strict=True)])


def _cliff(gain_F: np.ndarray, permuted_BF: np.ndarray) -> Cliff:
    at = int(gain_F.argmax())
    as_large = int((permuted_BF.max(1) >= gain_F[at] - 1e-12).sum())
    return Cliff(at, float(gain_F[at]), (1 + as_large) / (1 + len(permuted_BF)))


def first_at_least(cut_F: np.ndarray, value_F: np.ndarray, wanted_F: np.ndarray) -> float:
    """The first cut at which a curve is at least what is wanted there; NaN where it never is."""
    found = np.flatnonzero(value_F >= wanted_F - 1e-12)
    return float(cut_F[found[0]]) if len(found) else float("nan")
