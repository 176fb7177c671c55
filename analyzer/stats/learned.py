"""The second e-value of a trace: bets on the words that its source used elsewhere; no log q and no base samples.

Surprisal alone can't tell another language, another style or noise from a rare draw of the base: each token is a little
too likely to be remarkable. Yet a source repeats itself from problem to problem and the base doesn't repeat the source.
From traces of other problems a share c(v | the token before) of each next token is learned, with sum_v c <= 1, and a
stake x for each token before and place in the trace: the base takes up what it reads, so that what surprises it at the
beginning (noise, another language) is expected later, and what was won there would be lost again. The e-value of a
trace is the product of the factors

    1 - x + x c(v) / B(v),     B(v) the largest probability of v under any law of the null

Under each of these laws P' the factor has mean at most 1 - x + x sum_v c(v) P'(v) / B(v) <= 1, whatever was learned,
so that E[e] <= 1 and P(e >= 1/a) <= a (Ville; a likelihood ratio against the largest law of the null, as in universal
inference, Wasserman, Ramdas & Balakrishnan 2020). What is learned must not depend on the trace: it comes from draws of
other problems, and of another number among their problem's draws, since one seed may serve all problems.

The null: the base at temperatures up to 1 / a, with any cut that keeps the likelier tokens (top-k, top-p, min-p, in any
order with the temperature). Such a law gives v the probability p_v^b / sum_{u in K} p_u^b, b >= a, where K holds U, the
tokens at least as likely as v. Since p_u / p_v >= 1 there, that is at most B(v) = p_v^a / sum_{u in U} p_u^a. At a = 1
the sum is known, mass_above + p_v; else bounds of it from below are taken, see `log_bound`.

Not covered: laws that aren't of this kind (penalties for repetition, typical sampling), and bets that were learned on
draws that the trace depends on (one seed for both): the caller keeps them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

STAKES = np.array([0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97])
PLACES = (16, 64, 256)  # tokens: where the second, third and fourth set of stakes begin
PRIOR = 5  # tokens: how much the mean gain of all contexts weighs in the choice of one's stake
WIDTH = 1 << 32  # a pair is WIDTH * (context) + token
LEAST = 1e-6  # of differences between stored numbers, whose digits end there
LARGEST = 600.0  # nats of one factor


class Bets(NamedTuple):
    """What was learned. Contexts: the token before plus 1, 0 at the start.

    pair_K, share_K: WIDTH * context + token, sorted, and how often the token came next there, as a share. spread_C: by
    context, the weight of the shares of tokens anywhere; word_V: these. stake_SC: by place (PLACES) and context;
    contexts beyond have the stake elsewhere_S and the weight 1.
    """

    pair_K: np.ndarray
    share_K: np.ndarray
    spread_C: np.ndarray
    word_V: np.ndarray
    stake_SC: np.ndarray
    elsewhere_S: np.ndarray


def needed(a: float) -> list[str]:
    """The columns that `log_bound` reads, and the tokens."""
    return ["token", "logprob", "rank", "mass_above", *(["renyi_half", f"power_{a:g}"] if a < 1 else [])]


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def log_bound(columns: Mapping[str, np.ndarray], a: float) -> np.ndarray:
    """log B (nats), float64 [T]: the most that any law of the null gives each token. NaN where a number is unknown.

    columns: logprob, mass_above and rank [T]; below a = 1 also renyi_half and power_<a> = log sum_v p_v^a. a: from 1/2
    to 1. Of the sum over U, of `rank` tokens each at least as likely as v, two lower bounds: given its mass it is least
    where all but one of them are as likely as v; and it is the whole sum less what lies below, which by Hoelder's
    inequality is at most (sum_below p^(1/2))^(2 - 2a) (sum_below p)^(2a - 1).
    """
    logp = np.asarray(columns["logprob"], float)
    p = np.exp(logp)
    mass = np.minimum(1.0, np.asarray(columns["mass_above"], float) + p)
    if a == 1:
        return logp - np.log(mass)
    others = np.asarray(columns["rank"], float) - 1

    def least(b: float) -> np.ndarray:
        return others * p**b + np.maximum(mass - others * p, p) ** b

    roots = np.exp(np.asarray(columns["renyi_half"], float) / 2)
    below = np.maximum(roots - least(0.5), LEAST) ** (2 - 2 * a) * np.maximum(1 - mass, LEAST) ** (2 * a - 1)
    whole = np.exp(np.asarray(columns[f"power_{a:g}"], float))
    return a * logp - np.log(np.maximum(least(a), whole - below))


def contexts(token_T: np.ndarray, lengths_N: np.ndarray) -> np.ndarray:
    """The token before each one plus 1, 0 at the start of a trace: int64 [T]; traces of >= 1 token lie end to end."""
    out = np.zeros(len(token_T), np.int64)
    out[1:] = np.asarray(token_T[:-1], np.int64) + 1
    out[np.cumsum(lengths_N) - lengths_N] = 0
    return out


def places(lengths_N: np.ndarray) -> np.ndarray:
    """Which set of stakes each token has, int [T]; traces lie end to end."""
    lengths_N = np.asarray(lengths_N, np.int64)
    starts = np.cumsum(lengths_N) - lengths_N
    return np.searchsorted(PLACES, np.arange(lengths_N.sum()) - np.repeat(starts, lengths_N), side="right")


def learn(token_T: np.ndarray, lengths_N: np.ndarray, log_bound_T: np.ndarray) -> Bets:
    """Shares and stakes from traces of >= 1 token that lie end to end; tokens without a bound (NaN) gain nothing.

    The share of a token after a context is its frequency there and its frequency anywhere, mixed as Witten & Bell
    (1991) do: the more different tokens a context had, the less it knows. The stake of a context at a place is the one
    of STAKES with the largest log gain on these traces, each token left out of the shares that judge it (Kelly 1956).
    """
    token_T = np.asarray(token_T, np.int64)
    context_T = contexts(token_T, lengths_N)
    pair_K, at_T, count_K = np.unique(context_T * WIDTH + token_T, return_inverse=True, return_counts=True)
    count_C, count_V = np.bincount(context_T), np.bincount(token_T)
    kinds_C = np.bincount(pair_K // WIDTH, minlength=len(count_C))
    known_C = count_C / np.maximum(1, count_C + kinds_C)  # the weight of what came next in this context
    bets = Bets(
        pair_K, known_C[pair_K // WIDTH] * count_K / count_C[pair_K // WIDTH], 1 - known_C, count_V / len(token_T),
        np.zeros((0, 0)), np.zeros(0),
    )  # fmt: skip
    left_T = count_C[context_T] - 1
    known_T = left_T / (left_T + kinds_C[context_T])
    share_T = known_T * (count_K[at_T] - 1) / np.maximum(1, left_T)
    share_T += (1 - known_T) * (count_V[token_T] - 1) / max(1, len(token_T) - 1)
    cells = len(PLACES) + 1, len(count_C)
    cell_T = places(lengths_N) * len(count_C) + context_T
    later_S = np.bincount(cell_T, minlength=math.prod(cells)).reshape(cells)[:, 1:].sum(1)
    gain_XSC = np.empty((len(STAKES), *cells))
    for gain_SC, x in zip(gain_XSC, STAKES, strict=True):
        gain_T = np.nan_to_num(_log_factor(share_T, log_bound_T, x))
        gain_SC[:] = np.bincount(cell_T, gain_T, math.prod(cells)).reshape(cells)
    later_XS = gain_XSC[:, :, 1:].sum(2)
    prior_XSC = PRIOR * (later_XS / np.maximum(1, later_S))[:, :, None] * (np.arange(cells[1]) > 0)
    return bets._replace(stake_SC=STAKES[(gain_XSC + prior_XSC).argmax(0)], elsewhere_S=STAKES[later_XS.argmax(0)])


def log_factors(bets: Bets, token_T: np.ndarray, lengths_N: np.ndarray, log_bound_T: np.ndarray) -> np.ndarray:
    """Log factors (nats), float64 [T], of traces of >= 1 token that lie end to end; log e of a trace is their sum. NaN
    where the bound is unknown."""
    token_T = np.asarray(token_T, np.int64)
    context_T = contexts(token_T, lengths_N)
    place_T, known_T = places(lengths_N), context_T < bets.stake_SC.shape[1]
    stake_T = bets.elsewhere_S[place_T]
    stake_T[known_T] = bets.stake_SC[place_T[known_T], context_T[known_T]]
    out_T = np.where(np.isnan(log_bound_T), math.nan, 0.0)
    some = np.flatnonzero(stake_T > 0)
    share = shares(bets, context_T[some], token_T[some])
    out_T[some] = _log_factor(share, log_bound_T[some], stake_T[some])
    return out_T


def shares(bets: Bets, context_T: np.ndarray, token_T: np.ndarray) -> np.ndarray:
    """c of each token after its context, float64 [T]; over all tokens it sums to at most 1."""
    pair_T = context_T * WIDTH + token_T
    at_T = np.minimum(np.searchsorted(bets.pair_K, pair_T), len(bets.pair_K) - 1)
    inside_T, seen_T = token_T < len(bets.word_V), context_T < len(bets.spread_C)
    word_T = np.where(inside_T, bets.word_V[np.where(inside_T, token_T, 0)], 0.0)
    spread_T = np.where(seen_T, bets.spread_C[np.where(seen_T, context_T, 0)], 1.0)
    return np.where(bets.pair_K[at_T] == pair_T, bets.share_K[at_T], 0.0) + spread_T * word_T


@np.errstate(divide="ignore")
def _log_factor(share_T: np.ndarray, log_bound_T: np.ndarray, stake: np.ndarray | float) -> np.ndarray:
    """log(1 - x + x c / B); a bound of 0 (a token that no law of the null draws) is read as one that lets c / B be
    e^LARGEST at most, which is 0 where c is."""
    ratio_T = np.exp(np.minimum(np.log(share_T) - np.maximum(log_bound_T, -LARGEST), LARGEST))
    return np.log1p(stake * (ratio_T - 1))
