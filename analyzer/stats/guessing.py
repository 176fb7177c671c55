"""What luck alone would solve within k draws, and how reliably problems are solved: answers to "pass@k is guessing"."""

from __future__ import annotations

import numpy as np


def rate(count_M: np.ndarray, n_M: np.ndarray, problem_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Guess rate g per problem: (problems sorted [P], share of draws with the most frequent wrong answer, float [P]).

    count_M: draws of each wrong answer, n_M: all draws of its problem, problem_M: its name. The reading: a draw that
    does not reason lands on one particular answer at most about as often as wrong draws land on their favourite.
    """
    names, index = np.unique(np.asarray(problem_M), return_inverse=True)
    out = np.zeros(len(names))
    np.maximum.at(out, index, np.asarray(count_M, dtype=float) / np.asarray(n_M, dtype=float))
    return names, out


def lucky(g_P: np.ndarray, k_K: np.ndarray) -> np.ndarray:
    """1 - (1 - g)^k, the chance that one of k independent guesses hits: float [P, K]; g = 1/1000, k = 1024: .641."""
    g, k = np.asarray(g_P, dtype=float)[:, None], np.asarray(k_K, dtype=float)[None, :]
    return 1 - (1 - g) ** k


def cover(n_P: np.ndarray, c_P: np.ndarray, tau_T: np.ndarray) -> np.ndarray:
    """Whether a problem's share of correct draws is at least tau, per problem and tau: float 0/1 [P, T].

    Its mean over problems is Cover@tau (Dragoi et al., arXiv 2510.08325), by the plug-in c / n: noisy where tau is
    below about 3 / n. With p = c / n exact, mean 1 - (1 - p)^k = integral of k (1 - t)^(k - 1) Cover@t dt.
    Raises ValueError for tau outside (0, 1].
    """
    tau = np.asarray(tau_T, dtype=float)
    if ((tau <= 0) | (tau > 1)).any():
        raise ValueError(f"Cover@tau needs 0 < tau <= 1; got {tau.tolist()}")
    # c >= tau n with a tolerance for products such as .1 * 30
    return (np.asarray(c_P, float)[:, None] >= tau[None, :] * np.asarray(n_P, float)[:, None] - 1e-9).astype(float)
