"""Right answers with valid reasoning: CoT-Pass@k from the verdicts of a judge who errs.

`_P` problems, `_K` budgets, `_B` resamples. Of n draws c are correct, and the judge calls `yes` of these valid.
CoT-Pass@k is pass@k of draws that are correct and valid (Wen et al., 2506.14245). Of the judge two rates are known, se:
of valid chains that it calls valid, sp: of invalid ones that it calls invalid.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from analyzer.stats import passk
from analyzer.stats.bootstrap import ALPHA, DRAWS, Interval

LEAST = 30  # chains that a person has judged too, below which nothing is corrected
TELLS = 0.05  # se + sp - 1, below which a judge tells nothing
METHOD = "Rogan-Gladen; problems and the judge's error rates resampled"
MOST = 64  # largest k that is corrected: beyond, the interval is as wide as it can be


def corrected(n_P: np.ndarray, c_P: np.ndarray, yes_P: np.ndarray, k_K: np.ndarray, se: float, sp: float) -> np.ndarray:
    """CoT-Pass@k without the judge's errors, float [P, K]; NaN where n < k. Single values may lie outside [0, 1].

    With x = (v + sp - 1) / (se + sp - 1) for a correct draw that the judge calls valid (v = 1) or not (0), and x = 0
    for a wrong one, E x is 1 for a valid chain and else 0 (Rogan and Gladen 1978). Where errors are independent given
    the truth, so is the product of 1 - x over k draws of that of 1 - truth: 1 less its mean over all subsets of k draws
    is unbiased. The mean: J of the k draws are correct (hypergeometric), Y of those J called valid (likewise).
    """
    subsets, of_P = _subsets(n_P, c_P, yes_P, np.asarray(k_K))
    return _corrected(subsets, se, sp)[of_P]


def _subsets(
    n_P: np.ndarray, c_P: np.ndarray, yes_P: np.ndarray, k_K: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Of each distinct (n, c, yes): chances [K, J] of J correct draws among k (NaN where n < k), and [J, Y] of Y called
    valid among these; and which of them each problem is, int [P]."""
    rows, of_P = np.unique(np.stack([n_P, c_P, yes_P], 1).astype(np.int64), axis=0, return_inverse=True)
    out = []
    for n, c, yes in rows.tolist():
        j_J, y_Y = np.arange(min(c, int(k_K.max())) + 1), np.arange(yes + 1)
        correct_KJ = hypergeom.pmf(j_J[None], n, c, np.minimum(k_K, n)[:, None])
        called_JY = hypergeom.pmf(y_Y[None], max(c, 1), yes, j_J[:, None])
        out.append((np.where(k_K[:, None] > n, np.nan, correct_KJ), called_JY))
    return out, of_P.ravel()


def _corrected(subsets: list[tuple[np.ndarray, np.ndarray]], se: float, sp: float) -> np.ndarray:
    """Values [distinct problems, K]."""
    valid, invalid = 1 - sp / (se + sp - 1), 1 + (1 - sp) / (se + sp - 1)  # 1 - x where called so
    out = []
    for correct_KJ, called_JY in subsets:
        j_J, y_Y = np.arange(called_JY.shape[0]), np.arange(called_JY.shape[1])
        product_JY = valid ** y_Y[None] * invalid ** np.maximum(j_J[:, None] - y_Y[None], 0)
        out.append(1 - correct_KJ @ (called_JY * product_JY).sum(1))
    return np.array(out)


def interval(
    n_P: np.ndarray,
    c_P: np.ndarray,
    yes_P: np.ndarray,
    k_K: np.ndarray,
    judged: tuple[int, int, int, int],
    *,
    seed: int = 0,
    draws: int = DRAWS // 4,
) -> list[Interval]:
    """The mean over problems of `corrected` for each k, with its interval for problems such as these.

    judged: of chains that a person judged too, valid ones called valid, valid ones, invalid ones called invalid,
    invalid ones. Problems are drawn with replacement, se and sp from Jeffreys' posterior of these counts; a draw in
    which the judge tells nothing (TELLS) counts as 0 and as 1. Cut to what the labels allow: [0, pass@k].
    """
    true_yes, valid, true_no, invalid = judged
    rng, problems = np.random.default_rng(seed), len(n_P)
    subsets, of_P = _subsets(n_P, c_P, yes_P, k_K)
    low_BK, high_BK = np.zeros((draws, len(k_K))), np.ones((draws, len(k_K)))
    for b in range(draws):
        se = rng.beta(true_yes + 0.5, valid - true_yes + 0.5)
        sp = rng.beta(true_no + 0.5, invalid - true_no + 0.5)
        weight_R = np.bincount(of_P[rng.integers(0, problems, problems)], minlength=len(subsets))
        if se + sp - 1 > TELLS:
            low_BK[b] = high_BK[b] = _mean(_corrected(subsets, se, sp), weight_R)
    weight_R = np.bincount(of_P, minlength=len(subsets))
    value_K = np.full(len(k_K), np.nan)
    if valid and invalid and (se := true_yes / valid) + (sp := true_no / invalid) - 1 > TELLS:
        value_K = _mean(_corrected(subsets, se, sp), weight_R)
    tops_K = np.nanmean(passk.pass_at_k(n_P, c_P, k_K), 0)
    lows_K, highs_K = np.quantile(low_BK, ALPHA / 2, axis=0), np.quantile(high_BK, 1 - ALPHA / 2, axis=0)
    value_K, lows_K, highs_K = np.clip([value_K, lows_K, highs_K], 0, tops_K)
    sizes_K = (np.asarray(n_P)[:, None] >= k_K).sum(0)
    columns = (x.tolist() for x in (value_K, lows_K, highs_K, sizes_K))
    return [Interval(value, low, high, n, n, METHOD) for value, low, high, n in zip(*columns, strict=True)]


def _mean(value_RK: np.ndarray, weight_R: np.ndarray) -> np.ndarray:
    """Over the problems that have k draws, [K]."""
    weight_RK = weight_R[:, None] * ~np.isnan(value_RK)
    return (np.nan_to_num(value_RK) * weight_RK).sum(0) / np.maximum(weight_RK.sum(0), 1)
