"""Novelty without log q at the lengths and entropies of real text (part of V6): a dozen foreign tokens in a long trace
are found, the base and what it makes by selection or another sampler are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.records import NOVEL_POWERS, Sampler
from analyzer.stats import conformal, evalue, ranks
from validation import bigram
from validation.bigram import PLAIN, Draws, Made
from validation.checks import Gate, GateResult, share

VOCABULARY, TOKENS, SHARE = 1001, 12, 0.2  # the last token of the vocabulary ends a trace
Q, LOOSE = 0.1, 0.2  # of p <= .05 there are too few for a mutant to show


def walk(
    rng: np.random.Generator, law_VV: np.ndarray, start_N: np.ndarray, longest: int, foreign_N: np.ndarray | None = None
) -> np.ndarray:
    """Tokens [N, longest] of the law after the start tokens; where foreign_N is a position >= 0, TOKENS tokens from
    there are uniformly random ones, whatever stood before."""
    vocabulary = len(law_VV) - 1
    cdf_VV = np.exp(law_VV[:, :vocabulary]).cumsum(1)
    out, last = np.empty((len(start_N), longest), int), start_N
    for t in range(longest):
        u = rng.random(len(last)) * cdf_VV[last, -1]
        drawn = np.minimum((cdf_VV[last] <= u[:, None]).sum(1), vocabulary - 1)
        if foreign_N is not None:
            here = (foreign_N >= 0) & (foreign_N <= t) & (t < foreign_N + TOKENS)
            drawn = np.where(here, rng.integers(0, vocabulary, len(last)), drawn)
        out[:, t] = last = drawn
    return out


def places(rng: np.random.Generator, count: int, longest: int) -> np.ndarray:
    """Where the foreign tokens begin [N], -1 for the traces without: a share SHARE has them."""
    return np.where(np.arange(count) < SHARE * count, rng.integers(0, longest - TOKENS + 1, count), -1)


def log_e(law_VV: np.ndarray, start_N: np.ndarray, tokens: np.ndarray, *, whole: bool = False) -> np.ndarray:
    """log e of traces [N, T] of one length; whole: exp((1/2) sum(s - h)), the test that this one took the place of."""
    before = np.concatenate([start_N[:, None], tokens[:, :-1]], 1)
    p_VV = np.exp(law_VV)
    table = {"renyi_half": 2 * np.log(np.sqrt(p_VV).sum(1))}
    table |= {f"power_{a:g}": np.log((p_VV**a).sum(1)) for a in NOVEL_POWERS}
    columns = {name: values_V[before].ravel() for name, values_V in table.items()}
    columns["logprob"] = law_VV[before, tokens].ravel()
    if whole:
        return 0.5 * (-columns["logprob"] - columns["renyi_half"]).reshape(tokens.shape).sum(1)
    return evalue.log_e_many(columns, np.full(len(tokens), tokens.shape[1]))


def gate_foreign(
    rng: np.random.Generator,
    runs: int,
    nats: tuple[float, ...] = (0.3, 1.0, 2.0),
    lengths: tuple[int, ...] = (300, 1000, 5000),
    traces: int = 200,
) -> Gate:
    """Power and size, selections of k draws, ranks, and the words of whole worlds."""
    checks, curves = [], []
    for entropy in nats:
        law_VV = bigram.law(rng, VOCABULARY, entropy)
        for longest in lengths:
            checks += _found(rng, law_VV, entropy, longest, traces, curves)
    checks += _selected(rng, 10 * runs) + _ranks(rng, 40 * runs) + _words(rng, runs)
    return Gate(checks, {"foreign tokens": curves})


def _found(
    rng: np.random.Generator,
    law_VV: np.ndarray,
    entropy: float,
    longest: int,
    traces: int,
    curves: list[dict[str, Any]],
) -> list[GateResult]:
    start = rng.integers(0, VOCABULARY - 1, traces)
    at = places(rng, traces, longest)
    source, base = (walk(rng, law_VV, start, longest, place) for place in (at, None))
    e, e_whole = log_e(law_VV, start, source), log_e(law_VV, start, source, whole=True)
    e_base = log_e(law_VV, start, base)
    novel, out = at >= 0, []
    where = f"{entropy:g} nats, {longest:,} tokens"
    for k in (1, 4, 64):
        flags, whole, wrong = (
            conformal.discoveries(evalue.p_value(x, k), q=Q) for x in (e, e_whole, e_base)
        )  # fmt: skip
        row = {"nats": entropy, "tokens": longest, "k": k, "flagged": float(flags[novel].mean())}
        curves.append(row | {"others": float(flags[~novel].mean()), "whole": float(whole[novel].mean())})
        what = f"{TOKENS} foreign tokens in a fifth of the traces, {where}: flagged at k = {k}"
        mutant = (
            ("the whole trace alone, lambda = 1/2", int(whole[novel].sum()))
            if entropy >= 1 and longest >= 1000
            else None
        )
        out.append(share("V6", what, int(flags[novel].sum()), int(novel.sum()), at_least=0.8, mutant=mutant))
        out.append(
            share("V6", f"the base itself, {where}: flagged at k = {k}", int(wrong.sum()), traces, at_most=Q / 10)
        )
    for a in (0.05, 0.01):
        what = f"the base itself, {where}: P(p <= {a:g})"
        out.append(share("V6", what, int((evalue.p_value(e_base) <= a).sum()), traces, at_most=a))
    return out


def _selected(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """The most novel of k base draws (dQ/dP <= k exactly) must not be flagged at budget k."""
    checks, n, longest = [], 100, 64
    law_VV = bigram.law(rng, 61, 1.0)
    for k in (4, 64):
        quiet = hits = naive = 0
        for _ in range(runs):
            start = np.repeat(rng.integers(0, 60, n), k)
            best = log_e(law_VV, start, walk(rng, law_VV, start, longest)).reshape(n, k).max(1)
            quiet += not conformal.discoveries(evalue.p_value(best, k), q=Q).any()
            hits += int((evalue.p_value(best, k) <= LOOSE).sum())
            naive += int((evalue.p_value(best, 1) <= LOOSE).sum())
        what = f"the most novel of {k} base draws: no trace flagged at budget {k}"
        checks.append(share("V6", what, quiet, runs, at_least=1 - Q))
        mutant = ("k = 1 in the place of k", naive) if k == 64 else None
        what = f"the most novel of {k} base draws: P(p <= {LOOSE:g}) at budget {k}"
        checks.append(share("V6", what, hits, n * runs, at_most=LOOSE, mutant=mutant))
    return checks


def _ranks(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """The same among the base's draws: 20 problems, 4 traces and 32 draws each."""
    checks, problems, m, n = [], 20, 4, 32
    unit, base_unit = np.repeat(np.arange(problems), m), np.repeat(np.arange(problems), n)
    for k in (1, 4):
        found = naive = bounded = 0
        for _ in range(runs):
            score = rng.normal(size=(problems * m, k)).max(1)
            hit, draws = ranks.beyond(score, unit, rng.normal(size=problems * n), base_unit)
            found += ranks.p_value(hit, unit, draws, k) <= 0.05
            naive += ranks.p_value(hit, unit, draws, 1) <= 0.05
            bounded += ranks.least_share(hit, unit, draws, k) > 0
        mutant = ("k = 1 in the place of k", naive) if k == 4 else None
        what = f"the most surprising of {k} base draws, ranks: P(p <= .05)"
        checks.append(share("V6", what, found, runs, at_most=0.05, mutant=mutant))
        what = f"the most surprising of {k} base draws, ranks: a share beyond {k} draws is claimed"
        checks.append(share("V6", what, bounded, runs, at_most=0.05))
    return checks


def _words(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """Whole worlds without log q, 20 problems of 8 traces of 300 tokens at 1 nat: the base again, the base hotter and
    cut as declared, foreign tokens; mutant: the hot source held against T = 1 alone."""
    outside = dict.fromkeys(("again", "hot", "foreign"), 0)
    flagged = 0
    hot = Sampler(1.25, 0.98)
    for _ in range(runs):
        law_VV = bigram.law(rng, 101, 1.0)
        start = np.repeat(np.arange(20), 8)
        drawn = {name: walk(rng, law_VV, start, 300) for name in ("base", "again")}
        drawn["hot"] = walk(rng, bigram.sampled(law_VV, hot), start, 300)
        drawn["foreign"] = walk(rng, law_VV, start, 300, rng.permutation(places(rng, len(start), 300)))
        flagged += conformal.discoveries(evalue.p_value(log_e(law_VV, start, drawn["hot"]), 4), q=Q).mean() > 0.05
        made = {name: Made(_draws(start, x), hot if name == "hot" else PLAIN) for name, x in drawn.items()}
        tables = bigram.tables(law_VV, made, unknown=("again", "hot", "foreign"))
        found = decide({"support": support.run(tables, draws=100)}, sources=list(outside), reference="base")
        for v in found:
            if v.level == "sequence":
                outside[v.source] += v.word == "outside"
    what = "foreign tokens in a fifth of the traces, log q not known: called outside"
    checks = [share("V6", what, outside["foreign"], runs, at_least=0.8)]
    what = "the base again, log q not known: called outside"
    checks.append(share("V6", what, outside["again"], runs, at_most=0.05))
    mutant = ("held against T = 1 alone: more than 5 % flagged", flagged)
    what = "the base at T = 1.25, top-p .98, as declared, log q not known: called outside"
    checks.append(share("V6", what, outside["hot"], runs, at_most=0.05, mutant=mutant))
    return checks


def _draws(start_N: np.ndarray, tokens: np.ndarray) -> Draws:
    """Traces of one length that a limit cut off, of a law that is not known."""
    n, longest = tokens.shape
    nothing = np.zeros(n, bool)
    return Draws(tokens, np.full(n, longest), start_N, start_N, np.zeros((n, longest)), nothing.astype(int), nothing)
