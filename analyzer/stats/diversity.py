"""How many different things a source says: entropy of its answers, distinct items at a common number of draws."""

from __future__ import annotations

import numpy as np

from analyzer.stats.passk import pass_at_k


def entropy(count_M: np.ndarray, problem_M: np.ndarray) -> np.ndarray:
    """Entropy of the answers per problem, -sum (f / n) ln (f / n) nats (arXiv 2507.14843, 2.4): float [P], sorted.

    One entry per distinct answer and problem; "no answer" has to be counted by the caller as an answer of its own.
    Biased low by about (distinct - 1) / (2 n): compare only at equal n.
    """
    count_M = np.asarray(count_M, dtype=float)
    index = np.unique(np.asarray(problem_M), return_inverse=True)[1]
    share = count_M / np.bincount(index, weights=count_M)[index]
    return np.maximum(0.0, -np.bincount(index, weights=share * np.log(share)))


def distinct(count_M: np.ndarray, problem_M: np.ndarray, m: int) -> np.ndarray:
    """Expected number of distinct items in m of the draws (rarefaction: sum of 1 - C(n-f, m)/C(n, m)): float [P].

    NaN where a problem has fewer than m draws.
    """
    count_M = np.asarray(count_M)
    index = np.unique(np.asarray(problem_M), return_inverse=True)[1]
    n_M = np.bincount(index, weights=count_M)[index].astype(int)
    return np.bincount(index, weights=pass_at_k(n_M, count_M, np.array([m]))[:, 0])
