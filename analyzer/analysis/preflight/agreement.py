"""Do the numbers agree that rows bring beside each other? No model is needed to see that some of them can't be true.

The reference's rows hold one law twice: their own log-probs, and those of the base at the temperature that they were
drawn at. And the base's log-probs at two temperatures are of one law: log p_T = a log p_1 - log sum_v p_v^a, a = 1 / T.
Where tokens were drawn from q, the product of p_T / q has mean 1 for every T, so that it is hardly ever large.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.support import brought, laws
from analyzer.records import Sampler, Tables

BIAS = 0.01  # nats a token by which two engines' log-probs of one law may differ on average
GAP = 0.1  # the same without regard to the sign: bfloat16 moves a token by .004, two engines by about .03
Z_MOST = 2.81  # of the bias over traces, as for declarations (engine.declared)
LEAST = -1e4  # stands for minus infinity in a mean
SLACK, FLOOR = 0.01, 0.05  # of a log-prob, and nats: rounding at one temperature as seen at another
EQUAL = 5e-3  # of a log-prob: closer to log p_1 / T it was not normalised
PLAIN = (-3.0, -0.5)  # log p_1 of tokens for which a normalised log-prob can't be that close
IMPOSSIBLE = 0.01  # share of tokens beyond which the lists are not of one law
REFUSED = math.log(200)  # nats: an e-value of 200 has a chance of at most 1 in 200, as a declaration's z has
DRIFT = 0.001  # nats a token within one engine; T = .8 said to be 1 makes .003 at .1 nats of entropy


class Twice(NamedTuple):
    """How the reference's own log-probs differ from the base's at the same temperature: mean difference in nats a
    token, Student's t of it over traces, mean absolute difference, traces, tokens."""

    bias: float
    t: float
    gap: float
    traces: int
    tokens: int

    @property
    def wrong(self) -> bool:
        """Whether they are not of one law."""
        return self.gap > GAP or self.biased

    @property
    def biased(self) -> bool:
        """Whether one is above the other on average, by more than chance and rounding make."""
        return abs(self.bias) > BIAS and abs(self.t) > Z_MOST


class Redrawn(NamedTuple):
    """What speaks for the source's draws being from the base at another temperature than log q says: log of the mean
    over temperatures of prod p_T / q over all traces (an e-value), the temperature with the largest, its mean of
    log p_T / q in nats a token, and what two engines may differ by there."""

    evidence: float
    temperature: float
    drift: float
    slack: float

    @property
    def wrong(self) -> bool:
        """Whether log q is not of the law that drew (beyond chance, and beyond what two engines differ by)."""
        return self.evidence > REFUSED and self.drift > self.slack


def rows(tables: Tables) -> Iterator[tuple[str, float, np.ndarray, dict[float, np.ndarray], str]]:
    """source, logprobs_temperature, log q and laws of the tokens that the policy wrote, key: rows of the last step."""
    keys: set[str] = set()
    for frame in tables.numbers():
        keys = keys or set(last_steps(tables.traces)["key"])
        frame = frame[among(frame["key"], keys)]
        columns = (frame[c] for c in ("source", "logprobs_temperature", "logprob_q", "laws", "written", "key"))
        for source, t, q, held, own, key in zip(*columns, strict=True):
            if own is not None:
                q, held = q[own], {at: values[own] for at, values in held.items()}
            yield source, t, q, held, key


def twice(tables: Tables) -> Twice | None:
    """The reference's two numbers of one law; None where its rows do not hold them, or were drawn with a truncation."""
    sampler = tables.samplers.get(tables.reference)
    cut = sampler is not None and (sampler.top_p < 1 or sampler.top_k > 0 or sampler.min_p > 0)
    drawn = math.nan if sampler is None or cut else sampler.temperature
    sums, sizes, gap = [], 0, 0.0
    for source, t, q, held, _ in rows(tables):
        if source != tables.reference or math.isnan(at := drawn if math.isnan(t) else t):
            continue
        if (same := brought.near(at, held)) is None:
            continue
        difference = np.maximum(q, LEAST).astype(float) - np.maximum(held[same], LEAST)
        difference = difference[~np.isnan(difference)]
        sums.append(float(difference.sum()))
        sizes, gap = sizes + len(difference), gap + float(np.abs(difference).sum())
    if len(sums) < 2 or not sizes:
        return None
    total, spread = sum(sums), float(np.std(sums, ddof=1)) * math.sqrt(len(sums))
    t = total / spread if spread > 0 else math.copysign(math.inf, total) if total else 0.0
    return Twice(total / sizes, t, gap / sizes, len(sums), sizes)


def impossible(tables: Tables) -> dict[str, tuple[float, int]]:
    """Source -> share of its tokens whose log-probs at two temperatures can't be of one law, and how many were looked
    at. log p_T is at least (T' / T) log p_T' for T < T', since no sum of powers exceeds 1; and where log p_T is nothing
    but log p_1 / T at most tokens, it was not normalised (all of those count)."""
    found: dict[str, list[int]] = {}
    for source, _, _, held, _ in rows(tables):
        counts = found.setdefault(source, [0, 0, 0, 0])  # tokens, below the bound, comparable, equal
        for hot, cool in pairwise(sorted(held, reverse=True)):
            bound = held[hot].astype(float) * (hot / cool)
            known = np.isfinite(bound) & ~np.isnan(held[cool])
            bound, value, plain = bound[known], held[cool][known].astype(float), held[hot][known]
            counts[0] += len(bound)
            counts[1] += int((value < bound - SLACK * np.abs(bound) - FLOOR).sum())
            if hot <= 1 and hot / cool >= 1.2:
                some = (plain > PLAIN[0]) & (plain < PLAIN[1])
                counts[2] += int(some.sum())
                counts[3] += int((np.abs(value - bound) <= EQUAL * np.abs(bound))[some].sum())
    out = {}
    for source, (tokens, below, comparable, equal) in found.items():
        if tokens:
            share = below / tokens
            out[source] = (max(share, equal / comparable) if 2 * equal > comparable else share, tokens)
    return out


def redrawn(tables: Tables) -> dict[str, Redrawn]:
    """Source -> whether the base at another temperature drew its traces, of the sources whose rows hold log q.

    Under a true log q each trace's product of p_T / q has mean 1 for every T, and so has the product over independent
    traces: P(product >= c) <= 1 / c (Ville 1939). The temperature of log q itself is left out, and so are copies, which
    are no draws. Of the reference the base's log-probs at that temperature are q, which `twice` compares with its own:
    they are of the engine that p_T is of. Of others log q is of another engine, with a bias of BIAS at most. A source
    with an unknown number is not looked at: which numbers are unknown may hang on the token.
    """
    samplers, told, sizes = laws.samplers(tables), brought.said(tables), Counter[str]()
    known = {s for s, k in laws.known(tables).items() if k.brought and not k.reason}
    drawn = {s: brought.near(samplers[s].temperature, laws.of_rows(tables, s).values()) for s in known}
    sums = {s: {t: 0.0 for t in laws.of_rows(tables, s).values() if t != drawn[s]} for s in known}
    there = samplers.get(tables.reference)
    uncut = there is not None and there == Sampler(there.temperature)
    within = {tables.reference} if uncut and drawn.get(tables.reference) is not None else set()
    for source, _, q, held, key in rows(tables):
        if source in known and key not in told[source].copies and len(q):
            q = held[drawn[source]] if source in within else q
            sizes[source] += len(q)
            for t in sums[source]:
                sums[source][t] += float((np.maximum(held[t], LEAST) - np.maximum(q, LEAST)).sum(dtype=float))
    out = {}
    for source, total in sums.items():
        if sizes[source] and total and not any(map(math.isnan, total.values())):
            best = max(total, key=total.__getitem__)
            evidence = float(np.logaddexp.reduce(list(total.values()))) - math.log(len(total))
            slack = DRIFT if source in within else BIAS
            out[source] = Redrawn(evidence, best, total[best] / sizes[source], slack)
    return out
