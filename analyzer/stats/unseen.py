"""How much of a source's answers has its sample not shown yet? Good-Turing, per problem."""

from __future__ import annotations

import numpy as np


def missing_mass(count_M: np.ndarray, problem_M: np.ndarray) -> np.ndarray:
    """N1 / n per problem, sorted: the share of draws whose answer occurs once, float [P] (Good, 1953).

    One entry per distinct answer and problem. E[N1 / n] = sum p (1 - p)^(n - 1), the expected chance that one more draw
    after n - 1 brings an answer not seen in them. A problem's own value is coarse (a distribution-free bound is useless
    below about 1000 draws): average over problems and resample those.
    """
    count_M = np.asarray(count_M)
    index = np.unique(np.asarray(problem_M), return_inverse=True)[1]
    return np.bincount(index, weights=count_M == 1) / np.bincount(index, weights=count_M)
