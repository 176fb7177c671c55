"""Which problems two sources solve within k draws: the four cells and SRR, NDR, SDS, NSCR, with intervals by problem.

Two identical models already differ in solved sets (regression to the mean: both lose the mean of a (1 - a) of the
problems, a the chance to solve one within k), so a split of one model's own draws belongs beside every such table.
"""

from __future__ import annotations

import numpy as np

from analyzer.stats import bootstrap, passk
from analyzer.stats.bootstrap import FEW, Interval

CELLS = ("both", "reference_only", "source_only", "neither")


def coverage(reference_P: np.ndarray, source_P: np.ndarray, *, draws: int, seed: int) -> dict[str, Interval]:
    """Shares of CELLS and the four Leash rates from each problem's chance (or 0/1) of being solved within k.

    Problems with a NaN are left out. Where fewer than FEW problems are lost (or gained), the end of SRR (or NDR) that
    resampling leaves too near is moved to the one-sided 95 % Clopper-Pearson bound.
    """
    cells_PC = passk.cells(reference_P, source_P)
    cells_PC = cells_PC[~np.isnan(cells_PC[:, 0])]
    n, problem_P = len(cells_PC), np.arange(len(cells_PC))
    out = {name: bootstrap.rate(cells_PC[:, j], problem_P) for j, name in enumerate(CELLS)}
    both, lost, gained, _ = cells_PC.sum(axis=0)
    drawn_BC = bootstrap.weights(n, draws=draws, seed=seed) @ cells_PC
    point = passk.leash(both, gained, lost)
    drawn = passk.leash(drawn_BC[:, 0], drawn_BC[:, 2], drawn_BC[:, 1])
    for name in passk.Leash._fields:
        low, high = bootstrap.quantiles(getattr(drawn, name), n)
        method = f"paired bootstrap over problems, {draws} draws"
        if name == "srr" and lost < FEW and both + lost > 0:
            low = min(low, float(1 - bootstrap.share_upper(lost, both + lost)))
            method = f"{method}; lower end Clopper-Pearson"
        if name == "ndr" and gained < FEW and both + gained > 0:
            high = max(high, float(bootstrap.share_upper(gained, both + gained)))
            method = f"{method}; upper end Clopper-Pearson"
        out[name] = Interval(getattr(point, name), low, high, n, n, method)
    return out


def halves(n_P: np.ndarray, c_P: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Chances of being solved within k by one half and by the other half of each problem's draws, split at random.

    Float [P], [P] and k, the largest budget that 90 % of the halves reach (0 if no problem has two draws).
    """
    n, c = np.asarray(n_P)[np.asarray(n_P) >= 2], np.asarray(c_P)[np.asarray(n_P) >= 2]
    half = n // 2
    first = np.random.default_rng(seed).hypergeometric(c, n - c, half)
    k_K = passk.budgets(half)[-1:]
    if len(k_K) == 0:
        return np.zeros(0), np.zeros(0), 0
    return passk.pass_at_k(half, first, k_K)[:, 0], passk.pass_at_k(n - half, c - first, k_K)[:, 0], int(k_K[0])
