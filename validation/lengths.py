"""V13: the words at the lengths and entropies of real text, on exact worlds (`long_worlds`).

The truth of a world is computed, not assumed: the numbers behind the words from a large sample, held against the
thresholds without any bound (`exact`). Small samples then go through the real analyses and rules; a word is wrong where
it is neither that one nor undetermined.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.support import evidence, laws, local
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.records import HURDLED, POWERS, TAU, Result, Sampler, Tables
from analyzer.stats import bootstrap, bounds, reach, spans
from validation import bigram, long_worlds
from validation.bigram import PLAIN, Component, Made
from validation.checks import Gate, GateResult, share
from validation.long_worlds import PROBLEMS, Case, World

BUDGET, TRACES = 64, 16
LARGE, TOKENS = 100, 6e6  # traces per problem of the sample behind the truth, with at most so many tokens in all
EDGE = 0.2  # a number within this part of its threshold is at the edge: the words on both of its sides are right
CLAIMS = ("inside", "sharpened", "reweighted", "outside")
TOLD = ("inside_value", "beyond_value", "every_value", "share1", "share4", "s", "drop")


class Truth(NamedTuple):
    """words: those that the exact numbers allow; numbers: `evidence.row` of a large sample; horizon: its h50."""

    words: set[str]
    numbers: dict[str, Any]
    horizon: float


def exact(world: World) -> Truth:
    """What is true of a world, from a large sample of it and the laws' tables alone."""
    made = world.make(math.ceil(min(max(LARGE, 3000 / world.problems), TOKENS / world.problems / world.longest)))
    d = made.draws
    there = d.tokens >= 0
    before, token = np.concatenate([d.start[:, None], np.maximum(d.tokens[:, :-1], 0)], 1)[there], d.tokens[there]
    samplers = {laws.PLAIN: PLAIN} | {laws.temperature(a): Sampler(1 / a) for a in POWERS}
    if world.sampler != PLAIN:
        samplers[laws.REFERENCE] = world.sampler
    if made.sampler not in (PLAIN, world.sampler):
        samplers[laws.SOURCE] = made.sampler
    held = {name: bigram.sampled(world.base_VV, s)[before, token].astype(np.float32) for name, s in samplers.items()}
    key, ks = np.arange(len(d.length)).astype(str).astype(object), local.budgets(BUDGET)
    q_T = d.log_q[there].astype(np.float32)
    part = laws.Part("x", key, d.problem.astype(str), d.length, d.ended, token, q_T, held)
    place_W, every = spans.places(world.longest), [list(range(len(held)))]
    found = spans.measure(q_T, list(held.values()), d.length, d.ended, ks, place_W, every)
    rows = local.row_table(part, found, list(held), ks, world.sampler).set_index("key", drop=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_VV = np.exp(world.base_VV)
        s_VV = np.where(p_VV > 0, -world.base_VV, 0.0)
        entropy_V = (p_VV * s_VV).sum(1)
        variance_V = (p_VV * (s_VV - entropy_V[:, None]) ** 2).sum(1)
    starts = d.length.cumsum() - d.length
    drop = np.add.reduceat(entropy_V[before] + held[laws.PLAIN], starts)
    variance = np.add.reduceat(variance_V[before], starts)
    one = Made(bigram.draw(np.random.default_rng(0), [Component(1, world.base_VV)], 1, 1, 2), world.sampler)
    said = {"base": one, "x": one._replace(sampler=made.sampler, same=made.same)}
    tables = bigram.tables(world.base_VV, said, reference_sampler=world.sampler)
    known = {"drop_N": pd.Series(drop, index=key), "variance_N": pd.Series(variance, index=key)}
    numbers = evidence.row(tables, rows, "x", budget=BUDGET, omitted=0.0, **known)
    curve_W = reach.excess(found.prefix_CWN[0], BUDGET).mean(1)
    return Truth(allowed(numbers), numbers, local.crossing(place_W, curve_W))


def allowed(n: dict[str, Any]) -> set[str]:
    """The words whose conditions the numbers meet, the thresholds moved by EDGE in favour of each."""
    lower, higher, out = 1 - EDGE, 1 + EDGE, set()
    if n["inside_value"] <= TAU * higher:
        out.add("inside")
    if n["beyond_value"] <= TAU * lower:
        return out
    if n["inside_body_value"] <= TAU * higher:  # it says the same and stops elsewhere
        out.add("undetermined")
    if n["inside_body_value"] <= TAU * lower:
        return out
    share_ = max(n["share1"], n["share4"])
    if share_ > HURDLED * lower and n["every_value"] > TAU * lower and not n["same_weights"]:
        out.add("outside")
    if share_ <= HURDLED * higher:
        there = n.get("s_reference", n["s"])  # of the divergence from the reference, where that is not T = 1
        if min(n["s"], there) > evidence.EXPLAINED * lower and n["drop"] >= evidence.DROP * lower:
            out.add("sharpened")
        ask = [there] if n["same_sampler"] and not math.isnan(there) else [n["s"], there]
        below = all(not s >= evidence.EXPLAINED * higher for s in ask)
        if below and n["every_value"] > TAU * lower and not n["same_weights"]:
            out.add("reweighted")
    return out or {"undetermined"}


def tried(rng: np.random.Generator, world: World, traces: int = TRACES) -> tuple[str, Result, Tables]:
    """The word of a small sample by the real analyses and rules."""
    law = bigram.sampled(world.base_VV, world.sampler)
    reference = bigram.draw(rng, [Component(1, law)], world.problems, traces, world.longest)
    sources = {"base": Made(reference, world.sampler), "x": world.make(traces)}
    tables = bigram.tables(world.base_VV, sources, reference_sampler=world.sampler)
    result = support.run(tables, budget=BUDGET, draws=200)
    verdicts = decide({"support": result}, sources=tables.sources, reference="base", budget=BUDGET)
    return next(v.word for v in verdicts if v.level == "sequence"), result, tables


def gate_grid(rng: np.random.Generator, runs: int) -> Gate:
    """`gate_words` on the worlds of lengths and numbers up to those of large studies: half an hour."""
    return gate_words(rng, runs, cases=long_worlds.GRID, name="V15")


def gate_words(
    rng: np.random.Generator, runs: int, *, every: int = 1, cases: list[Case] = long_worlds.CASES, name: str = "V13"
) -> Gate:
    """The words of all worlds (of every so-manieth) against their exact ones. The mutant reads the same samples as was
    done before: whole traces against T = 1, and `sharpened` where the surprisal is low and nothing is flagged."""
    checks: list[GateResult] = []
    rows: list[dict[str, Any]] = []
    wrong, before, total = 0, 0, 0
    for case in cases[::every]:
        world = case.make(rng)
        truth = exact(world)
        counts: Counter[str] = Counter()
        for _ in range(runs):
            word, result, _ = tried(rng, world, case.traces)
            counts[word] += 1
            old = _before(result)
            before += old in CLAIMS and old not in truth.words
        missed = sum(n for w, n in counts.items() if w in CLAIMS and w not in truth.words)
        wrong, total = wrong + missed, total + runs
        named = f"{case.name} ({' or '.join(sorted(truth.words))})"
        checks.append(share(name, f"{named}: another word", missed, runs, at_most=0.05))
        if case.power:
            right = sum(counts[w] for w in truth.words)
            checks.append(share(name, f"{named}: that word", right, runs, at_least=0.9))
        numbers = {k: truth.numbers[k] for k in TOLD}
        words = {w: counts[w] for w in (*CLAIMS, "undetermined")}
        rows.append({"world": case.name, "truth": " or ".join(sorted(truth.words)), **numbers, **words, "runs": runs})
    what = f"all {len(rows)} worlds: another word"
    mutant = ("whole traces at T = 1; sharpened where surprisal is low and nothing is flagged", before)
    checks.append(share(name, what, wrong, total, at_most=0.05, mutant=mutant))
    return Gate(checks, {"words": rows})


def _before(result: Result) -> str:
    """The word by whole traces against T = 1, the sign of the surprisal and the e-value alone."""
    row = result.tables["evidence"].set_index("source").loc["x"]
    high, low = (row.get(f"{end}[{laws.PLAIN}]", math.nan) for end in ("high", "low"))
    novel = result.estimates["x.novel@1"]
    if high <= TAU:
        return "inside"
    if low > TAU and novel.low > TAU / 2:
        return "outside"
    return "sharpened" if low > TAU and novel.high <= TAU and row["side"] in ("low", "neutral") else "undetermined"


def gate_places(rng: np.random.Generator, runs: int) -> Gate:
    """Planted steps are listed first; h50 of twenty forks is the exact one."""
    listed = first = surprising = near = plain = 0
    forks = 0
    for case in long_worlds.CASES:
        if not case.power or not case.name.startswith(("12 tokens", "one token", "twenty forks")):
            continue
        world = case.make(rng)
        truth = exact(world)
        for _ in range(runs):
            _, result, tables = tried(rng, world)
            if world.place is None:
                forks += 1
                near += abs(result.estimates[f"x.horizon@{BUDGET}"].value / truth.horizon - 1) <= 0.1
                prefix = result.tables["prefix"].query("source == 'x' and law == 'T=1'")
                plain += abs(float(prefix["tokens"].iloc[-1]) / truth.horizon - 1) <= 0.1
                continue
            places = result.tables["hurdles"].drop_duplicates("key").set_index("key")["position"]
            inside = (places >= world.place[0]) & (places < world.place[1])
            listed, first = listed + len(places), first + int(inside.sum())
            # mutant: the most surprising token of each flagged trace
            for part in tables.tokens("base", ["logprob"]):
                part = part[part["key"].isin(places.index)]
                at = np.array([int(np.argmin(x)) for x in part["logprob"]])
                surprising += int(((at >= world.place[0]) & (at < world.place[1])).sum())
    mutant = ("the most surprising token of the trace", surprising)
    what = "planted steps: the place is listed first, of the traces listed"
    checks = [share("V13", what, first, listed, at_least=0.95, mutant=mutant)]
    mutant = ("the length of the traces", plain)
    checks.append(
        share("V13", "twenty forks: h50 within 10 % of the exact one", near, forks, at_least=0.9, mutant=mutant)
    )
    return Gate(checks, {})


def gate_declared(rng: np.random.Generator, runs: int) -> Gate:
    """Declarations, 20 problems x 16 traces: wrong ones are refused on both sides, right ones are not; noise."""
    refused: Counter[str] = Counter()
    novel: Counter[str] = Counter()
    right = alarms = noisy = silent = 0
    for run in range(runs):
        base = bigram.law(rng, 60, 1.5)
        lies = {
            "T=.6 said to be 1": Sampler(0.6),
            "T=.8 said to be 1": Sampler(0.8),
            "top-k 5 said to be none": Sampler(1, 1, 5),
        }
        laws_ = {name: bigram.sampled(base, s) for name, s in lies.items()}
        for sd in (0.8, 0.3):
            q = bigram.normalised(base + np.where(np.isfinite(base), sd * rng.normal(size=base.shape), 0.0))
            laws_[f"trained (perturbed by {sd}) said to be the base"] = q
        sources = {"base": Made(bigram.draw(rng, [Component(1, base)], 20, TRACES, 200))}
        for name, law in laws_.items():
            d = bigram.draw(rng, [Component(1, law)], 20, TRACES, 200)
            before = np.concatenate([d.start[:, None], np.maximum(d.tokens[:, :-1], 0)], 1)
            said = {"logprob_s": base[before, np.maximum(d.tokens, 0)]}
            sources[name] = Made(d, PLAIN, False, said, base)
        checks_ = preflight.run(bigram.tables(base, sources), budget=BUDGET, draws=50).tables["checks"]
        failed = checks_[checks_["gates"].astype(bool) & checks_["passed"].eq(False)]
        for name in laws_:
            refused[name] += bool((failed["source"] == name).any())
            novel[name] += bool(((failed["source"] == name) & (failed["check"] == "policy")).any())
        right += bool(failed["source"].isin(["", "base"]).any())
        # two engines: noise on every token of log q
        sd, longest = (0.05, 2000) if run % 2 else (0.1, 1000)
        d = bigram.draw(rng, [Component(1, base)], 30, TRACES, longest)
        noise = {"logprob_s": np.where(d.tokens >= 0, d.log_q + sd * rng.normal(size=d.log_q.shape), 0.0)}
        world = World(base, lambda n, d=d, noise=noise, base=base: Made(d, PLAIN, False, noise, base), longest=longest)
        word, result, _ = tried(rng, world)
        noisy += word in ("sharpened", "reweighted", "outside")
        row = result.tables["evidence"].set_index("source").loc["x"]
        silent += row["beyond_low"] > TAU
        alarms += word == "inside"
    checks = []
    for name in lies:
        mutant = ("the one-sided test by the e-value", novel[name]) if name == "T=.6 said to be 1" else None
        checks.append(share("V13", f"{name}: refused", refused[name], runs, at_least=0.95, mutant=mutant))
    checks.append(share("V13", "a right declaration: refused", right, runs, at_most=0.01))
    name = "trained (perturbed by 0.8) said to be the base"
    checks.append(share("V13", f"{name}: refused", refused[name], runs, at_least=0.9))
    name = "trained (perturbed by 0.3) said to be the base"
    checks.append(share("V13", f"{name}: refused (may escape)", refused[name], runs))
    mutant = ("the lower bound of the excess alone", silent)
    what = "noise of .05 (2,000 tokens) or .1 nats (1,000) a token: outside, sharpened or reweighted"
    checks.append(share("V13", what, noisy, runs, at_most=0.05, mutant=mutant))
    return Gate(checks, {})


def gate_few(rng: np.random.Generator, runs: int) -> Gate:
    """Bounds and intervals at 2 to 200 problems: for the given ones, and for problems such as these."""
    checks: list[GateResult] = []
    rows: list[dict[str, Any]] = []
    for problems in (3, 5, 10, 30, 200):
        counts = dict.fromkeys(("given", "new", "size", "percentile", "both"), 0)
        for _ in range(runs):
            rate_P = rng.beta(0.5, 2.0, problems)  # of traces with an event, by problem; the mean is .2
            x = (rng.random((problems, TRACES)) < rate_P[:, None]).astype(float).ravel()
            unit = np.repeat(np.arange(problems), TRACES)
            low, high = bounds.lower(x, alpha=0.025), bounds.upper(x, alpha=0.025)
            counts["given"] += low <= rate_P.mean() <= high
            counts["size"] += bounds.p_above(x, rate_P.mean()) <= 0.05
            found = bootstrap.rate(x, unit)
            counts["new"] += found.low <= 0.2 <= found.high
            w_BP = bootstrap.weights(problems, draws=300, seed=1)
            ends = np.quantile(w_BP @ x.reshape(problems, -1).mean(1) / problems, [0.025, 0.975])
            counts["percentile"] += ends[0] <= 0.2 <= ends[1]
        mutant = ("percentiles of a bootstrap over problems", counts["percentile"]) if problems == 3 else None
        what = f"{problems} problems: coverage of a share's 95 % interval, problems such as these"
        checks.append(share("V13", what, counts["new"], runs, at_least=0.9, mutant=mutant))
        checks.append(
            share(
                "V13",
                f"{problems} problems: coverage of its bounds, the given problems",
                counts["given"],
                runs,
                at_least=0.9,
            )
        )
        checks.append(
            share(
                "V13",
                f"{problems} problems: size of p at the edge, the given problems",
                counts["size"],
                runs,
                at_most=0.05,
            )
        )
        rows.append({"problems": problems, **{k: v / runs for k, v in counts.items()}, "runs": runs})
    dust = 0
    for _ in range(runs):
        rate_P = rng.gamma(0.3, size=PROBLEMS)
        rate_P *= 0.042 / rate_P.mean()  # of traces with some excess, uniform on [0, 1]: E = .021 on these problems
        x = rng.random((PROBLEMS, TRACES)) * (rng.random((PROBLEMS, TRACES)) < rate_P[:, None])
        dust += bounds.upper(x.ravel()) <= TAU
    checks.append(share("V13", "excess of .021 in small pieces: upper bound <= .02", dust, runs, at_most=0.05))
    return Gate(checks, {"few": rows})
