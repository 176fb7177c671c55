"""The e-value of a trace: valid evidence against "drawn from the base", without log q and without base samples.

For 0 < lambda < a the factor exp(lambda s - log sum_v p_v^(a - lambda) + log sum_v p_v^a) of a token, s its surprisal
at T = 1 (nats), has mean 1 under the base at temperature 1 / a given the past, and at most 1 under every cooler or cut
sampler: their ratio to that law never rises with s, so that they put less weight on what is surprising. One e-value is
made of such factors, fixed beforehand (no weight depends on the trace or its length):

    3/4  the mean over lambda of the product over the whole trace: novelty that is spread thin
    1/4  the mean over GRIDS and STAKES of prod_j (1 - stake + stake W_j), W_j the mean over lambda of the product over
         the j-th window of the grid: a few tokens anywhere in a long trace, in one place or in several

Each is a nonnegative (super)martingale from 1, and so is their mean: E[e] <= 1 at any stopping time that the scored
tokens decide (the end token must be among them; without it the last factor is missing), and P(e >= 1/a) <= a (Ville).
For reach at budget k: if Q <= k P then P_Q(e >= c) <= k / c, so min(1, k / e) is a valid p-value. The mean of the W_j
would be no e-value: their number is random. A stake x costs x nats a window and log 1/x for the first one that wins;
start times weighted by 1/(j(j+1)) would cost 2 log j and let only one place count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

EXPONENTS = (0.95, 0.9, 0.8, 0.7, 0.5)  # of log sum p^b; that of 1/2 is half of renyi_half
SHARES = {0.95: 0.1, 0.9: 0.15, 0.8: 0.2, 0.7: 0.2, 0.5: 0.35}  # weights of the bets on them, of those there are
GRIDS = ((16, 0), (16, 8), (64, 0), (64, 32))  # windows: length in tokens, and length of the first one (0: a whole one)
ATOM = 8  # tokens, divides all of them
STAKES = (0.1, 0.01, 0.001)
WHOLE = 0.75  # weight of the whole trace
LARGE = 600.0  # nats of a window: beyond, 1 - stake is nothing beside stake W
SLACK = 1e-9


@np.errstate(invalid="ignore", over="ignore")
def log_e(columns: Mapping[str, np.ndarray], hottest: float = 1.0, grids: tuple[tuple[int, int], ...] = GRIDS) -> float:
    """log e of one trace (nats) from its columns [T]: logprob, renyi_half and, where known, power_b of EXPONENTS.

    hottest: the largest temperature at which the trace may have been drawn; e is valid up to 1 / `null_exponent`. NaN
    where a number is not known. grids: other windows, for proofs on short traces. This is the definition; `log_e_many`
    does many traces at once.
    """
    for exponents in (EXPONENTS, EXPONENTS[-1:]):
        share_B, d_BT = _factors(columns, hottest, exponents)
        if not len(share_B):
            continue
        parts = []
        for width, first in grids:
            edges = [0, *range(first or width, d_BT.shape[1], width), d_BT.shape[1]]
            w_W = [_mean_exp(d_BT[:, a:b].sum(1), share_B) for a, b in zip(edges[:-1], edges[1:], strict=True)]
            parts += [sum(np.logaddexp(math.log1p(-x), math.log(x) + w) for w in w_W) for x in STAKES]
        whole, local = _mean_exp(d_BT.sum(1), share_B), _mean_exp(np.array(parts))
        found = np.logaddexp(math.log(WHOLE) + whole, math.log1p(-WHOLE) + local)
        if not math.isnan(found):
            return float(found)
    return math.nan


@np.errstate(invalid="ignore", over="ignore")
def log_e_many(
    columns: Mapping[str, np.ndarray], lengths_N: np.ndarray, hottest: float | np.ndarray = 1.0
) -> np.ndarray:
    """`log_e` of traces that lie end to end in the columns [T], float64 [N]; NaN for one without tokens. hottest: of
    all or of each trace [N]. Columns are read once, what is made of them has a number per ATOM tokens."""
    lengths_N = np.asarray(lengths_N, np.int64)
    out, full = np.full(len(lengths_N), np.nan), np.flatnonzero(lengths_N)
    if not len(full) or not {"logprob", "renyi_half"} <= columns.keys():
        return out
    n = lengths_N[full]
    starts, atoms_N = n.cumsum() - n, -(-n // ATOM)
    owner_A = np.repeat(np.arange(len(n)), atoms_N)
    number_A = np.arange(len(owner_A)) - np.repeat(atoms_N.cumsum() - atoms_N, atoms_N)
    names = ["logprob", "renyi_half", *(f"power_{b:g}" for b in EXPONENTS[:-1])]
    at_A = starts[owner_A] + ATOM * number_A
    sums = {c: np.add.reduceat(columns[c], at_A, dtype=np.float64) for c in names if c in columns}
    hot_N = np.broadcast_to(np.asarray(hottest, float), lengths_N.shape)[full]
    for heat in np.unique(hot_N):
        mine_A = (hot_N == heat)[owner_A]
        some = sums if mine_A.all() else {c: x[mine_A] for c, x in sums.items()}
        out[full[hot_N == heat]] = _of_atoms(some, number_A[mine_A], float(heat))
    return out


def _of_atoms(sums: Mapping[str, np.ndarray], number_A: np.ndarray, hottest: float) -> np.ndarray:
    """log e of traces [N] from the columns' sums over atoms [A] and the atoms' numbers within their trace."""
    out_N = np.full(int((number_A == 0).sum()), np.nan)
    for exponents in (EXPONENTS, EXPONENTS[-1:]):  # where some columns are unknown the last one is left
        if np.isnan(out_N).any():
            share_B, d_BA = _factors(sums, hottest, exponents)
            if len(share_B):
                out_N = np.where(np.isnan(out_N), _mixed(d_BA, share_B, number_A), out_N)
    return out_N


def _mixed(d_BA: np.ndarray, share_B: np.ndarray, number_A: np.ndarray) -> np.ndarray:
    """log e of traces [N] from the log factors of each bet, summed over atoms."""
    whole_N = _mean_exp(np.add.reduceat(d_BA, np.flatnonzero(number_A == 0), axis=1), share_B)
    parts = []
    for width, first in GRIDS:
        begin_W = np.flatnonzero((number_A == 0) | ((number_A - first // ATOM) % (width // ATOM) == 0))
        window_W = _mean_exp(np.add.reduceat(d_BA, begin_W, axis=1), share_B)
        trace_N = np.flatnonzero(number_A[begin_W] == 0)
        held_W = np.minimum(window_W, LARGE)
        gain_W, rest_W = np.expm1(held_W), window_W - held_W  # log(1 + x (W - 1)), a third of logaddexp's time
        parts += [np.add.reduceat(np.log1p(x * gain_W) + rest_W, trace_N) for x in STAKES]
    return np.logaddexp(math.log(WHOLE) + whole_N, math.log1p(-WHOLE) + _mean_exp(np.stack(parts)))


def _factors(
    columns: Mapping[str, np.ndarray], hottest: float, exponents: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [B] and log factors [B, T] of the bets on the exponents below the null's, of tokens or of sums of tokens;
    B = 0 where a column is missing, or where no null reaches so high a temperature."""
    a = null_exponent(hottest)
    below = [b for b in exponents if b < a]
    if any(_column(b) not in columns for b in (*below, a) if b < 1) or "logprob" not in columns or math.isnan(a):
        return np.empty(0), np.empty((0, 0))
    s, null = -np.asarray(columns["logprob"], float), 0.0 if a == 1 else _log_sum(columns, a)
    d_BT = np.empty((len(below), len(s)))
    for d_T, b in zip(d_BT, below, strict=True):
        d_T[:] = (a - b) * s - (_log_sum(columns, b) - null)
    share_B = np.array([SHARES[b] for b in below])
    return share_B / share_B.sum(), d_BT


def _column(b: float) -> str:
    return "renyi_half" if b == 0.5 else f"power_{b:g}"


def _log_sum(columns: Mapping[str, np.ndarray], b: float) -> np.ndarray:
    """log sum_v p_v^b (nats)."""
    values = np.asarray(columns[_column(b)], float)
    return values / 2 if b == 0.5 else values


def _mean_exp(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """log mean exp over the first axis, with these weights of sum 1 (None: equal ones); infinity is an answer."""
    weights = np.full(len(x), 1 / len(x)) if weights is None else weights
    top = x.max(0)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(np.isfinite(top), np.log(weights @ np.exp(x - safe)) + safe, top)


def null_exponent(hottest: float) -> float:
    """The a of the null that covers draws at temperatures up to `hottest`: 1 up to T = 1, else the largest of EXPONENTS
    above 1/2 that is at most 1 / T; NaN beyond (T > 1.43)."""
    if hottest <= 1 + SLACK:
        return 1.0
    return max((a for a in EXPONENTS[:-1] if a <= 1 / hottest + SLACK), default=math.nan)


def p_value(log_e_N: np.ndarray, k: float = 1) -> np.ndarray:
    """min(1, k / e): float [N]; NaN stays NaN."""
    return np.exp(np.minimum(0.0, np.log(k) - np.asarray(log_e_N, dtype=float)))
