"""Learned bets: no law of the null can be beaten on average, by enumeration of tokens, samplers and traces."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from analyzer.stats import learned

V = 6
EXPONENTS = (1.0, 0.95, 0.9, 0.8, 0.7)


def law(rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.full(V, rng.choice([0.1, 0.5, 3.0])))


def columns_of(p_V: np.ndarray, tokens: list[int]) -> dict[str, np.ndarray]:
    """What a scorer tells of these next tokens, all under the law p."""
    above = [p_V > p_V[v] for v in tokens]
    out = {"logprob": np.log(p_V[tokens]), "rank": np.array([1 + a.sum() for a in above])}
    out |= {"mass_above": np.array([p_V[a].sum() for a in above])}
    out |= {"renyi_half": np.full(len(tokens), 2 * np.log(np.sqrt(p_V).sum()))}
    return out | {f"power_{a:g}": np.full(len(tokens), np.log((p_V**a).sum())) for a in EXPONENTS}


def samplers(p_V: np.ndarray, a: float):
    """Laws of the null: temperatures up to 1 / a, all cuts to the likeliest tokens (ties in both orders)."""
    for b in {a, (a + 1) / 2, 1.0, 1.7, 6.0}:
        for order in (np.argsort(-p_V, kind="stable"), np.argsort(-p_V[::-1], kind="stable")[::1]):
            order = order if np.all(np.diff(p_V[order]) <= 0) else np.argsort(-p_V, kind="stable")
            for kept in range(1, V + 1):
                q_V = np.zeros(V)
                q_V[order[:kept]] = p_V[order[:kept]] ** b
                yield q_V / q_V.sum()


@pytest.mark.parametrize("a", EXPONENTS)
def test_no_law_of_the_null_is_above_the_bound(a):
    rng = np.random.default_rng(0)
    for trial in range(300):
        p_V = np.full(V, 1 / V) if trial == 0 else np.maximum(law(rng), 1e-12)
        p_V /= p_V.sum()
        bound_V = np.exp(learned.log_bound(columns_of(p_V, list(range(V))), a))
        for q_V in samplers(p_V, a):
            assert (q_V <= bound_V * (1 + 1e-9)).all(), (p_V, q_V, bound_V)


def test_at_temperatures_up_to_one_the_bound_is_reached():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p_V = np.maximum(law(rng), 1e-12)
        bound_V = np.exp(learned.log_bound(columns_of(p_V, list(range(V))), 1.0))
        most_V = np.max([*samplers(p_V, 1.0)], axis=0)
        assert bound_V == pytest.approx(most_V)


def traces(rng: np.random.Generator, count: int) -> list[list[int]]:
    return [rng.choice(V, rng.integers(1, 9), p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]).tolist() for _ in range(count)]


def flat(some: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(some), np.array([len(t) for t in some])


def slow(some: list[list[int]], context: int, token: int, leave: bool = False) -> float:
    """c by its definition: Witten-Bell of what came next and what came anywhere."""
    after, anywhere = defaultdict(Counter), Counter(itertools.chain(*some))
    for trace in some:
        for before, v in zip([-1, *trace[:-1]], trace, strict=True):
            after[before + 1][v] += 1
    kinds = len(after[context])
    if leave:
        after[context][token] -= 1
        anywhere[token] -= 1
    n, whole = sum(after[context].values()), sum(anywhere.values())
    known = n / (n + kinds) if n else 0.0
    return known * after[context][token] / max(1, n) + (1 - known) * anywhere[token] / max(1, whole)


def test_shares_and_stakes_are_those_of_the_definition():
    rng = np.random.default_rng(2)
    some = traces(rng, 12)
    token_T, lengths_N = flat(some)
    bound_T = np.log(rng.uniform(0.01, 1, len(token_T)))
    bets = learned.learn(token_T, lengths_N, bound_T)
    context_T = learned.contexts(token_T, lengths_N)
    for context in range(V + 3):
        cells = np.full(V + 2, context), np.arange(V + 2)
        share_V = learned.shares(bets, *cells)
        assert share_V == pytest.approx([slow(some, context, v) for v in range(V + 2)])
        assert share_V.sum() <= 1 + 1e-12
    gains = {}
    for context in sorted(set(context_T.tolist())):
        own = context_T == context
        c = np.array([slow(some, context, v, leave=True) for v in token_T[own]])
        gains[context] = [np.log1p(x * (c / np.exp(bound_T[own]) - 1)).sum() for x in learned.STAKES]
    later = np.sum([g for c, g in gains.items() if c], axis=0)
    mean = later / (context_T > 0).sum()
    for context, gain in gains.items():
        best = np.argmax(gain + learned.PRIOR * mean if context else gain)
        assert bets.stake_SC[0, context] == learned.STAKES[best]
    assert bets.elsewhere_S[0] == learned.STAKES[later.argmax()]


def test_one_trace_at_a_time_gives_the_same_as_all_at_once():
    rng = np.random.default_rng(3)
    bets = learned.learn(
        *flat(traces(rng, 30)), np.log(np.full(sum(map(len, traces(np.random.default_rng(3), 30))), 0.1))
    )
    some = traces(rng, 7)
    some[2][0] = V + 5  # never seen
    token_T, lengths_N = flat(some)
    bound_T = np.log(rng.uniform(0.01, 1, len(token_T)))
    whole_T = learned.log_factors(bets, token_T, lengths_N, bound_T)
    ends = lengths_N.cumsum()
    for trace, begin, end in zip(some, ends - lengths_N, ends, strict=True):
        one_T = learned.log_factors(bets, np.array(trace), np.array([len(trace)]), bound_T[begin:end])
        assert whole_T[begin:end] == pytest.approx(one_T)
    bound_T[3] = np.nan
    assert np.isnan(learned.log_factors(bets, token_T, lengths_N, bound_T)[3])


def test_stakes_are_learned_by_place():
    """A source that surprises at its beginning and is expected from token 16 on: what it wins there is kept, however
    long it goes on."""
    rng = np.random.default_rng(5)
    lengths_N = np.array([20, 40, 80, 160, 320] * 4)
    token_T = rng.integers(0, 40, lengths_N.sum())
    early_T = learned.places(lengths_N) == 0
    assert early_T.sum() == 16 * len(lengths_N) and learned.places(np.array([300])).tolist().count(2) == 256 - 64
    bound_T = np.log(np.where(early_T, 0.005, 0.04))
    bets = learned.learn(token_T, lengths_N, bound_T)
    assert bets.elsewhere_S[0] > 0.5 and (bets.elsewhere_S[1:] == 0).all()
    gain_T = learned.log_factors(bets, token_T, lengths_N, bound_T)
    gain_N = np.add.reduceat(gain_T, lengths_N.cumsum() - lengths_N)
    assert gain_N.min() > 10 and abs(gain_N[4::5].mean() - gain_N[::5].mean()) < 3


def test_what_no_law_draws_is_no_missing_number():
    bets = learned.learn(*flat([[1, 2, 3], [1, 2, 3], [1, 2, 3]]), np.full(9, np.log(0.5)))
    bound_T = np.array([0.0, -np.inf, -np.inf])
    known, new = (learned.log_factors(bets, np.array(t), np.array([3]), bound_T) for t in ([1, 2, 3], [1, 2, 9]))
    assert known[1:].min() > 500 and np.isfinite(new).all() and new[2] < 0  # 9: neither learned nor drawn
    nothing = learned.log_factors(bets, np.array([1, 2, 3]), np.array([3]), np.array([0.0, np.inf, 0.0]))
    assert nothing[1] < 0  # an infinite bound: nothing is won


def means(a: float, b: float, kept: int, bounds) -> list[float]:
    """E[e] of all traces of four tokens of a bigram law that is drawn at temperature 1 / b from the `kept` likeliest
    tokens, for bets learned from such traces and from random ones; bounds: law [V + 1, V] -> log B."""
    rng = np.random.default_rng(4)
    p_VV = np.maximum(np.stack([law(rng) for _ in range(V + 1)]), 1e-9)  # by the token before plus 1
    p_VV /= p_VV.sum(1, keepdims=True)
    q_VV = p_VV**b * (np.argsort(np.argsort(-p_VV, axis=1), axis=1) < kept)
    q_VV /= q_VV.sum(1, keepdims=True)
    bound_VV, out = bounds(p_VV, a), []
    for lesson in range(6):
        some = []
        for _ in range(20):
            trace: list[int] = []
            for _ in range(4):
                context = trace[-1] + 1 if trace else 0
                trace.append(int(rng.choice(V, p=q_VV[context] if lesson < 4 else None)))
            some.append(trace)
        token_T, lengths_N = flat(some)
        bets = learned.learn(token_T, lengths_N, bound_VV[learned.contexts(token_T, lengths_N), token_T])
        if lesson % 2:  # stakes that were not earned
            bets = bets._replace(stake_SC=np.full((4, V + 1), 0.9))
        out.append(0.0)
        for trace in itertools.product(range(V), repeat=4):
            context_T = np.array([0, *trace[:-1]]) + np.array([0, 1, 1, 1])
            if q := float(np.prod(q_VV[context_T, trace])):
                log_T = learned.log_factors(bets, np.array(trace), np.array([4]), bound_VV[context_T, trace])
                out[-1] += q * math.exp(log_T.sum())
    return out


def known(p_VV: np.ndarray, a: float) -> np.ndarray:
    return np.stack([learned.log_bound(columns_of(p_V, list(range(V))), a) for p_V in p_VV])


@pytest.mark.parametrize(
    ("a", "b", "kept"), [(1, 1, V), (1, 1, 2), (1, 2.5, V), (1, 4, 3), (0.7, 0.7, V), (0.7, 0.8, 3)]
)
def test_the_mean_of_e_is_at_most_one_whatever_was_learned(a, b, kept):
    assert max(means(a, b, kept, known)) <= 1 + 1e-9


@pytest.mark.parametrize(("b", "kept"), [(1, 2), (4, V), (0.7, V)])
def test_held_against_the_law_at_one_without_a_cut_the_mean_would_be_above_one(b, kept):
    assert max(means(1, b, kept, lambda p_VV, a: np.log(p_VV))) > 1.05
