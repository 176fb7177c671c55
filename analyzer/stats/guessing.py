"""What luck alone would solve within k draws, and how reliably problems are solved: answers to "pass@k is guessing"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy.stats import binom


def rate(count_M: np.ndarray, n_M: np.ndarray, problem_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Guess rate g per problem: (problems sorted [P], share of draws with the most frequent wrong answer, float [P]).

    count_M: draws of each wrong answer, n_M: all draws of its problem, problem_M: its name. The reading: a draw that
    does not reason lands on one particular answer at most about as often as wrong draws land on their favourite.
    """
    names, index = np.unique(np.asarray(problem_M), return_inverse=True)
    out = np.zeros(len(names))
    np.maximum.at(out, index, np.asarray(count_M, dtype=float) / np.asarray(n_M, dtype=float))
    return names, out


def permuted(
    count_M: np.ndarray, answer_M: np.ndarray, problem_M: np.ndarray, gold: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Guess rate by permuted gold: (problems sorted [P], chance that a draw hits the gold of another problem, [P]).

    One entry per distinct answer and problem: its draws (right ones too), text and problem; gold: right answer by
    problem, where it is known. The draws of a problem are scored against the gold of every other problem, each as
    likely: the mean over all permutations that leave none in its place, without drawing any. It is the answer-frequency
    null: what answering without the question would solve. NaN where no other problem has a gold.
    """
    names, index = np.unique(np.asarray(problem_M), return_inverse=True)
    count_M = np.asarray(count_M, dtype=float)
    times = Counter(gold.values())
    own = [gold.get(str(name)) for name in names]
    others_P = np.array([len(gold) - (g is not None) for g in own], dtype=float)
    same_M = [times[str(a)] - (str(a) == own[i]) for a, i in zip(answer_M, index, strict=True)]
    hits_P = np.bincount(index, weights=count_M * same_M, minlength=len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        return names, hits_P / (np.bincount(index, weights=count_M, minlength=len(names)) * others_P)


def p_value(c: int, n: int, chance: float) -> float:
    """P(c or more of n draws hit) where each hits with `chance` on average: Binomial at the mean, which is conservative
    above it (Hoeffding 1956). 1 where the count is not above the mean."""
    return float(binom.sf(c - 1, n, min(1.0, chance))) if c > 1 + n * chance else 1.0


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
