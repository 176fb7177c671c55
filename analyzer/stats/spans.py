"""Where along a trace does a source leave a set of laws? Spans of one, four and 32 tokens, beginnings, whole traces.

l of a span = log q - max over the laws of log p, each a sum over the span's tokens from the source's own prefix. Its
excess at budget k, (1 - k e^-l)+, has the mean sum (q - k p)+ over the spans where tokens are drawn from q: the mass
that no selection from k draws of the likeliest law could make there. Taking the largest law can only lower it.

`_N` traces, `_T` tokens of all of them end to end, `_L` laws, `_K` budgets, `_W` places of a prefix curve, `_C` curves,
`_S` tokens with gaps of zeros between traces, so that a span reaches over an edge into nothing. Nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SPAN = 4  # tokens of the longer span
STRETCH = 32  # tokens of a stretch to look at
GAP = SPAN - 1
FINE, RATIO = 64, 1.05  # places of the prefix curve: every one up to FINE, from there on in steps of 5 %
IMPOSSIBLE = -1e4  # stands for -inf in sums: differences of running sums must not meet inf - inf


class Measured(NamedTuple):
    """What `measure` finds of each trace.

    q_N, p_LN: log q and each law's log p of the whole trace; body_q_N, body_p_LN: without the end token. end_N: l of
    the end token, NaN without one. unknown_N: tokens without a number. hurdles_2NK: summed excess of the spans of 1,
    and of SPAN tokens (mean over its four offsets). share_2NK: chance of at least one, 1 - prod(1 - excess).
    stretch_N: largest l of STRETCH tokens in a row (of the whole trace where it is shorter), stretch_at_N where it
    begins. prefix_CWN: l over the first w tokens, of each curve (the end token apart; over all where there are fewer).
    spot_trace, spot_at, spot_l, spot_width: every span beyond the smallest budget: its trace, the token in it with the
    largest l of its own (position in the trace), l, and 1 or SPAN.
    """

    q_N: np.ndarray
    p_LN: np.ndarray
    body_q_N: np.ndarray
    body_p_LN: np.ndarray
    end_N: np.ndarray
    unknown_N: np.ndarray
    hurdles_2NK: np.ndarray
    share_2NK: np.ndarray
    stretch_N: np.ndarray
    stretch_at_N: np.ndarray
    prefix_CWN: np.ndarray
    spot_trace: np.ndarray
    spot_at: np.ndarray
    spot_l: np.ndarray
    spot_width: np.ndarray


def places(longest: int) -> np.ndarray:
    """Places w of the prefix curve, int [W], up to the longest trace."""
    out = list(range(1, min(FINE, longest) + 1))
    while out and out[-1] < longest:
        out.append(min(longest, int(np.ceil(out[-1] * RATIO))))
    return np.array(out, dtype=np.int64)


def measure(
    q_T: np.ndarray,
    laws_LT: Sequence[np.ndarray],
    lengths_N: np.ndarray,
    ended_N: np.ndarray,
    budgets_K: Sequence[float],
    place_W: np.ndarray,
    curves: Sequence[Sequence[int]],
) -> Measured:
    """Everything that is asked of the tokens, in one pass over them.

    q_T, laws_LT: log-probs of the tokens, float32. A token with a NaN in any of them counts as given to both sides (l =
    0) and is counted. -inf in a law: impossible under it. lengths_N: at least 1 each. ended_N: whether the last token
    is an end token, which is left out of spans and stretches. budgets_K: ascending, above 1. curves: the laws (by
    number) of each prefix curve.
    """
    n, count = np.asarray(lengths_N, np.int64), len(lengths_N)
    start = GAP + (n + GAP).cumsum() - (n + GAP)
    size, last = int(start[-1] + n[-1]) + GAP, start + n - 1
    whose = np.zeros(size, np.int32)
    whose[start[1:]] = 1
    whose = whose.cumsum(dtype=np.int32)  # the gap behind a trace is its own
    to = np.repeat(start - (n.cumsum() - n), n) + np.arange(int(n.sum()))
    unknown_T = np.isnan(q_T)
    for p_T in laws_LT:
        unknown_T |= np.isnan(p_T)

    def spread(values_T: np.ndarray) -> np.ndarray:
        out = np.zeros(size, np.float32)
        out[to] = np.maximum(np.where(unknown_T, 0.0, values_T) if unknown_T.any() else values_T, IMPOSSIBLE)
        return out

    q, laws = spread(q_T), [spread(p_T) for p_T in laws_LT]
    end_q, end_p = q[last].astype(float), np.stack([p[last] for p in laws]).astype(float)
    run_q, run_L = _running(q), [_running(p) for p in laws]
    q_N = run_q[last + 1] - run_q[start]
    p_LN = np.stack([run[last + 1] - run[start] for run in run_L])
    body_n = n - ended_N  # where it stops is no step of the way there
    upto_WN = start + np.minimum(place_W[:, None], body_n)
    part_LWN = [run[upto_WN] - run[start] for run in run_L]
    prefix_q = run_q[upto_WN] - run_q[start]
    prefix_CWN = np.stack([prefix_q - np.maximum.reduce([part_LWN[i] for i in c]) for c in curves])
    del part_LWN
    stretch_N, stretch_at_N = _stretches(run_q, run_L, start, body_n)
    del run_q, run_L
    for values in (q, *laws):
        values[last[ended_N]] = 0.0
    l1, l4 = np.full(size, -np.inf, np.float32), _slid(q) - _largest([_slid(p) for p in laws])
    l1[to] = (q - _largest(laws))[to]
    l1[last[ended_N]] = -np.inf  # neither an end token nor a gap is a place
    least, k_K = np.log(budgets_K[0]), np.asarray(budgets_K, float)
    hurdles, shares, spots = [], [], []
    for l_S, width in ((l1, 1), (l4, SPAN)):
        at = np.flatnonzero(l_S > least)
        # a span that begins in the gap before a trace belongs to that trace: its last token tells
        trace, nats = whose[at + width - 1], l_S[at].astype(float)
        h_NK, a_NK = _hurdles(nats, trace, (at - start[trace]) % width, width, count, k_K)
        hurdles.append(h_NK)
        shares.append(a_NK)
        if width > 1:
            inside = np.stack([np.where(whose[at + i] == trace, l1[at + i], -np.inf) for i in range(width)])
            at = at + inside.argmax(0)
        spots.append((trace, at - start[trace], nats, np.full(len(at), width)))
    spot_trace, spot_at, spot_l, spot_width = (np.concatenate(x) for x in zip(*spots, strict=True))
    return Measured(
        q_N, p_LN, q_N - np.where(ended_N, end_q, 0.0), p_LN - np.where(ended_N, end_p, 0.0),
        np.where(ended_N, end_q - end_p.max(0), np.nan),
        np.add.reduceat(unknown_T, n.cumsum() - n, dtype=np.int64),
        np.stack(hurdles), np.stack(shares), stretch_N, stretch_at_N, prefix_CWN,
        spot_trace, spot_at, spot_l, spot_width,
    )  # fmt: skip


def _running(values_S: np.ndarray) -> np.ndarray:
    """Sums of the first i values, float64 [S + 1]."""
    out = np.zeros(len(values_S) + 1)
    np.cumsum(values_S, dtype=np.float64, out=out[1:])
    return out


def _slid(values_S: np.ndarray) -> np.ndarray:
    """Sums of SPAN values in a row, by where they begin."""
    out = values_S[: len(values_S) - GAP].copy()
    for i in range(1, SPAN):
        out += values_S[i : len(values_S) - GAP + i]
    return out


def _largest(laws: list[np.ndarray]) -> np.ndarray:
    return laws[0] if len(laws) == 1 else np.maximum.reduce(laws)


def _hurdles(
    nats: np.ndarray, trace: np.ndarray, offset: np.ndarray, width: int, count: int, k_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Summed excess [N, K] and chance of at least one [N, K] from the spans beyond the smallest budget."""
    h_NK, a_NK, cell = np.zeros((count, len(k_K))), np.zeros((count, len(k_K))), trace * width + offset
    for i, k in enumerate(k_K):
        excess = np.maximum(0.0, -np.expm1(np.minimum(np.log(k) - nats, 0.0)))
        h_NK[:, i] = np.bincount(trace, excess, count) / width
        with np.errstate(divide="ignore"):
            none = np.bincount(cell, np.log1p(-excess), count * width)
        a_NK[:, i] = -np.expm1(none).reshape(count, width).mean(1)
    return h_NK, a_NK


def _stretches(
    run_q: np.ndarray, run_L: list[np.ndarray], start: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Largest l of STRETCH tokens in a row of each trace, and the position where it begins."""
    whole = run_q[start + n] - run_q[start] - np.max([run[start + n] - run[start] for run in run_L], axis=0)
    out, at = whole, np.zeros(len(n), np.int64)
    long = np.flatnonzero(n > STRETCH)
    if len(long):
        l_S = np.full(len(run_q) - STRETCH, np.inf)
        for run in run_L:
            np.minimum(l_S, (run_q[STRETCH:] - run_q[:-STRETCH]) - (run[STRETCH:] - run[:-STRETCH]), out=l_S)
        edges = np.stack([start[long], start[long] + n[long] - STRETCH + 1], 1).ravel()
        out[long] = np.maximum.reduceat(l_S, np.minimum(edges, len(l_S) - 1))[::2]
        for i in long[out[long] > 0].tolist():
            at[i] = int(l_S[start[i] : start[i] + n[i] - STRETCH + 1].argmax())
    return out, at
