"""The exact worlds of V13: a base law of real entropies, a source made from it, and where something was planted.

Lengths, entropies and changes are those that people have: the base against itself under one sampler, other samplers and
temperatures, forks, planted steps, diffuse changes, rates of novelty, other lengths, tilts. What is true of each is
computed from it (`lengths.exact`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from analyzer.records import Sampler
from validation import bigram
from validation.bigram import PLAIN, Component, Made

PROBLEMS, VOCABULARY = 30, 60
SHARED = Sampler(0.6, 0.95)  # of both sides: what most people sample with


class World(NamedTuple):
    """base_VV: its law. make: traces per problem -> the source. sampler: the reference's. problems, longest. place:
    where something was planted (first position, behind the last), or None."""

    base_VV: np.ndarray
    make: Callable[[int], Made]
    sampler: Sampler = PLAIN
    problems: int = PROBLEMS
    longest: int = 300
    place: tuple[int, int] | None = None


def _source(
    rng: np.random.Generator, components: list[Component], problems: int, longest: int, **more: Any
) -> Callable[[int], Made]:
    return lambda n: Made(bigram.draw(rng, components, problems, n, longest), **more)


def same(rng: np.random.Generator, sampler: Sampler, longest: int, nats: float, problems: int = PROBLEMS) -> World:
    """The base against itself, both with one sampler; the source's model is another checkpoint with equal weights."""
    base = bigram.law(rng, VOCABULARY, nats)
    cut = bigram.sampled(base, sampler)
    make = _source(rng, [Component(1, cut)], problems, longest, sampler=sampler, law_VV=base)
    return World(base, make, sampler, problems, longest)


def cooled(
    rng: np.random.Generator, temperature: float, longest: int, nats: float, *, own: bool, problems: int = PROBLEMS
) -> World:
    """own: the base's weights with a sampler; else a policy whose law at T = 1 is the cooled base."""
    base = bigram.law(rng, VOCABULARY, nats)
    sampler = Sampler(temperature)
    cut = bigram.sampled(base, sampler)
    more = {"sampler": sampler, "same": True, "law_VV": base} if own else {"law_VV": cut}
    return World(base, _source(rng, [Component(1, cut)], problems, longest, **more), PLAIN, problems, longest)


def truncated(rng: np.random.Generator, longest: int) -> World:
    """The base's own weights at top-p .95, the reference at top-p .9."""
    base, wide = bigram.law(rng, VOCABULARY, 1.5), Sampler(1.0, 0.95)
    cut = bigram.sampled(base, wide)
    make = _source(rng, [Component(1, cut)], PROBLEMS, longest, sampler=wide, same=True, law_VV=base)
    return World(base, make, Sampler(1.0, 0.9), longest=longest)


def mixed(rng: np.random.Generator, longest: int) -> World:
    """Half of the traces at T = .5, half at T = 1, from one policy."""
    base = bigram.law(rng, VOCABULARY, 1.5)
    parts = [Component(0.5, base), Component(0.5, bigram.sampled(base, Sampler(0.5)))]
    return World(base, _source(rng, parts, PROBLEMS, longest), longest=longest)


def forks(rng: np.random.Generator, chance: float, longest: int) -> World:
    """Some twenty forks whose one side the base takes with this chance and the source always; the rest is alike."""
    fork, taken, left = VOCABULARY - 2, VOCABULARY - 3, VOCABULARY - 4
    base = bigram.law(rng, VOCABULARY, 1.5)
    base[:, [fork, taken, left]] = -np.inf
    rate = 20 / longest
    base = np.where(np.arange(VOCABULARY) == fork, math.log(rate), bigram.normalised(base) + math.log1p(-rate))
    base[fork] = -np.inf
    base[fork, taken], base[fork, left] = math.log(chance), math.log1p(-chance)
    q = base.copy()
    q[fork], q[fork, taken] = -np.inf, 0.0
    return World(base, _source(rng, [Component(1, q)], PROBLEMS, longest, law_VV=q), longest=longest)


def planted(
    rng: np.random.Generator,
    share_: float,
    longest: int,
    temperature: float,
    step: float,
    size: int,
    problems: int = PROBLEMS,
) -> World:
    """A run of `size` tokens, each of base chance `step` after the one before, at one place of a share of the traces;
    the rest at a temperature."""
    base, at = bigram.law(rng, VOCABULARY, 1.5), int(rng.integers(20, longest - 50))
    tokens = rng.permutation(VOCABULARY - 2)[:size].tolist()
    for last, token in zip([None, *tokens], tokens, strict=False):
        rows = slice(None) if last is None else last
        base[rows, token] = -np.inf
        base[rows] = bigram.normalised(np.atleast_2d(base[rows])) + math.log1p(-step)
        base[rows, token] = math.log(step)
    law = base if temperature == 1 else bigram.sampled(base, Sampler(temperature))
    script = {at + i: token for i, token in enumerate(tokens)}
    parts = [Component(1 - share_, law)] if share_ < 1 else []
    make = _source(rng, [*parts, Component(share_, law, script)], problems, longest)
    return World(base, make, PLAIN, problems, longest, (at, at + size))


def perturbed(
    rng: np.random.Generator, sd: float, temperature: float, longest: int, problems: int = PROBLEMS, nats: float = 1.5
) -> World:
    """Random changes of every logit, then a temperature."""
    base = bigram.law(rng, VOCABULARY, nats)
    q = bigram.normalised(base + np.where(np.isfinite(base), sd * rng.normal(size=base.shape), 0.0))
    q = q if temperature == 1 else bigram.sampled(q, Sampler(temperature))
    return World(base, _source(rng, [Component(1, q)], problems, longest, law_VV=q), PLAIN, problems, longest)


def rated(rng: np.random.Generator, rate: float, longest: int) -> World:
    """A token that the base almost never writes, at one rate per token."""
    base, foreign = bigram.law(rng, VOCABULARY, 1.5), VOCABULARY - 3
    base[:, foreign] = math.log(1e-7)
    base = bigram.normalised(base)
    own = np.where(np.arange(VOCABULARY) == foreign, math.log(rate), -np.inf)
    q = np.logaddexp(base + math.log1p(-rate), own)
    return World(base, _source(rng, [Component(1, q)], PROBLEMS, longest, law_VV=q), longest=longest)


def stopping(rng: np.random.Generator, factor: float) -> World:
    """The base stops with chance .01 a token, the source with `factor` times that; 0: never, it is cut at 1,000; 100:
    at once, without a text."""
    base, longest = bigram.law(rng, VOCABULARY, 1.5, stop=0.01), 1000
    q = base.copy()
    with np.errstate(divide="ignore"):
        q[:, :-1] += np.log((1 - 0.01 * factor) / 0.99)
        q[:, -1] = np.log(0.01 * factor)
    return World(base, _source(rng, [Component(1, q)], PROBLEMS, longest, law_VV=q), longest=longest)


def tilted(rng: np.random.Generator, rate: float, longest: int) -> World:
    """Always right, where the base is with this chance: the first token says which; the ratio is 1 / rate."""
    base, right = bigram.law(rng, VOCABULARY, 1.5), VOCABULARY - 3
    base[:, right] = math.log(rate)
    base = bigram.normalised(base)
    make = _source(rng, [Component(1, base, {0: right})], PROBLEMS, longest)
    return World(base, make, longest=longest)


class Case(NamedTuple):
    """A world by name. power: whether its word must also be found in nine of ten samples of `traces` a problem."""

    name: str
    make: Callable[[np.random.Generator], World]
    power: bool = True
    traces: int = 16


CASES: list[Case] = [
    *(
        Case(f"itself, {name}, {n} tokens", lambda rng, s=s, n=n, h=h: same(rng, s, n, h))
        for name, s, n, h in (
            ("T=.1", Sampler(0.1), 300, 2.0),
            ("T=.3", Sampler(0.3), 300, 2.0),
            ("T=.6, top-p .95", Sampler(0.6, 0.95), 17, 1.0),
            ("T=.6, top-p .95", Sampler(0.6, 0.95), 300, 1.5),
            ("T=.6, top-p .95", Sampler(0.6, 0.95), 2000, 1.5),
            ("T=.8", Sampler(0.8), 300, 0.5),
            ("T=1", PLAIN, 300, 2.0),
            ("T=1.3", Sampler(1.3), 300, 1.5),
        )
    ),
    *(
        Case(f"policy = base at T={t}, {n} tokens", lambda rng, t=t, n=n: cooled(rng, t, n, 1.5, own=False))
        for t, n in ((0.9, 300), (0.6, 30), (0.6, 300), (0.3, 300), (0.9, 2000))
    ),
    *(
        Case(f"base sampled at T={t}, {n} tokens", lambda rng, t=t, n=n: cooled(rng, t, n, 1.5, own=True))
        for t, n in ((0.6, 300), (0.3, 300), (1.3, 300), (1.5, 300))
    ),
    Case("top-p .95 against .9, 300 tokens", lambda rng: truncated(rng, 300)),
    Case("half at T=.5, 300 tokens", lambda rng: mixed(rng, 300), False),
    *(Case(f"twenty forks at {p}", lambda rng, p=p: forks(rng, p, 400)) for p in (0.3, 0.5, 0.7)),
    *(
        Case(
            f"12 tokens at .2 in {s:.0%}, {n} tokens, T={t}",
            lambda rng, s=s, n=n, t=t: planted(rng, s, n, t, 0.2, 12),
            s > 0.1,
        )
        for s, n, t in ((0.2, 300, 1), (1.0, 300, 0.6), (0.2, 2000, 1), (0.05, 300, 1))
    ),
    *(
        Case(
            f"one token of 1e-6 in {s:.1%}, {n} tokens, T={t}",
            lambda rng, s=s, n=n, t=t: planted(rng, s, n, t, 1e-6, 1),
            s > 0.1,
        )
        for s, n, t in (
            (1.0, 300, 1),
            (0.2, 300, 0.3),
            (0.2, 1500, 0.6),
            (0.05, 1500, 1),
            (0.02, 300, 1),
            (0.005, 300, 1),
        )
    ),
    *(
        Case(f"spread over 40 tokens at .36, T={t}", lambda rng, t=t: planted(rng, 1.0, 300, t, 0.36, 40), False)
        for t in (1, 0.6)
    ),
    *(
        Case(f"perturbed by {sd}, T={t}, {n} tokens", lambda rng, sd=sd, t=t, n=n: perturbed(rng, sd, t, n), False)
        for sd, t, n in ((0.1, 1, 1000), (0.3, 1, 300), (0.8, 1, 300), (0.3, 0.6, 300))
    ),
    *(
        Case(f"hurdles at {r:g} a token, {n} tokens", lambda rng, r=r, n=n: rated(rng, r, n), False)
        for r, n in ((5e-5, 300), (5e-5, 2000), (5e-4, 30), (5e-4, 1000))
    ),
    *(Case(f"stops {f} times as often", lambda rng, f=f: stopping(rng, f), False) for f in (0, 0.2, 5, 100)),
    *(Case(f"tilted, pass rate 1/{r}", lambda rng, r=r: tilted(rng, 1 / r, 300), r != 64) for r in (4, 64, 1000)),
]

COUNTS = ((2, 256), (3, 64), (10, 4), (64, 64), (500, 1), (500, 256))  # problems, traces of each
GRID: list[Case] = [  # lengths and numbers of traces up to those of large studies
    *(
        Case(f"itself at T=.6, top-p .95, {h:g} nats, {n:,} tokens", lambda rng, n=n, h=h: same(rng, SHARED, n, h))
        for n in (300, 5000)
        for h in (0.05, 0.5, 2.0)
    ),
    *(
        Case(
            f"{size} tokens at {step:g} in {s:.0%}, {n:,} tokens, T={t:g}",
            lambda rng, a=(s, n, t, step, size): planted(rng, *a),
            s > 0.1,
        )
        for step, size in ((0.2, 12), (1e-6, 1))
        for s in (0.05, 0.2, 1.0)
        for n in (300, 2000, 5000)
        for t in (1, 0.6, 0.3)
    ),
    *(
        Case(
            f"perturbed by {sd}, {h:g} nats, {n:,} tokens",
            lambda rng, a=(sd, 1, n, PROBLEMS, h): perturbed(rng, *a),
            False,
        )
        for sd in (0.1, 0.5)
        for n in (300, 5000)
        for h in (0.05, 0.5, 2.0)
    ),
    *(
        Case(f"hurdles at {r:g} a token, {n:,} tokens", lambda rng, r=r, n=n: rated(rng, r, n), False)
        for r in (5e-5, 5e-4)
        for n in (30, 300, 2000, 5000)
    ),
    *(
        Case(f"{name}, {p} x {m}, 30 tokens", lambda rng, make=make, p=p: make(rng, p), False, m)
        for p, m in COUNTS
        for name, make in (
            ("itself at T=.6, top-p .95", lambda rng, p: same(rng, SHARED, 30, 1.5, p)),
            ("policy = base at T=.6", lambda rng, p: cooled(rng, 0.6, 30, 1.5, own=False, problems=p)),
            ("perturbed by .5", lambda rng, p: perturbed(rng, 0.5, 1, 30, p)),
            ("one token of 1e-6 in 20%", lambda rng, p: planted(rng, 0.2, 90, 1, 1e-6, 1, p)),
        )
    ),
]
