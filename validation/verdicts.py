"""V8 and V10: the words that come out of the real analyses and the real rules, on worlds whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.contained import run as contained
from analyzer.analysis.questions import ANALYSES
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.verdict.decide import decide
from analyzer.records import WORDS, Result, Tables, Verdict
from validation import worlds
from validation.checks import Gate, number, share

PROBLEMS, TRACES, BUDGET = 30, 64, 64
READ = ("preflight", "support", "contained", "strategy", "boundary")  # what the verdict reads of the analyses
QUICK = ("support", "contained", "boundary")  # without the slow ones: see `strategies`
TEACHERS = {"teacher .05": 0.05, "teacher .2": 0.2, "teacher .5": 0.5}
SOURCES = ("base again", "tilt 1", "tilt .2", "best of 16", "longer", "temp .5", *TEACHERS)
INSIDE = SOURCES[:5]  # E_64 = 0 in all of these


def words(tables: Tables, *, seed: int = 0, names: tuple[str, ...] = QUICK) -> dict[str, dict[str, str]]:
    """Source -> level -> word, by the analyses in `names` and `decide`."""
    return read(results(tables, names, seed), tables)


def results(
    tables: Tables, names: tuple[str, ...], seed: int, budgets: tuple[int, ...] = (BUDGET,)
) -> dict[str, Result]:
    """The analyses in `names` at BUDGET, of those of the levels what the verdict reads; `strategy` at `budgets`."""
    read = {
        "contained": lambda: contained.bounds(tables, contained.classes(tables), BUDGET),
        "strategy": lambda: strategy.certifying(tables, strategy.skeletons(tables), budgets, seed),
        "boundary": lambda: boundary.certifying(tables, BUDGET),
    }
    whole = {n: partial(ANALYSES[n].run, tables, budget=BUDGET, seed=seed) for n in names if n not in read}
    return {name: (read | whole)[name]() for name in names}


def read(results: dict[str, Result], tables: Tables) -> dict[str, dict[str, str]]:
    """Source -> level -> word, from the results of the analyses."""
    verdicts: list[Verdict] = decide(results, sources=tables.sources, reference=tables.reference, budget=BUDGET)
    out: dict[str, dict[str, str]] = {}
    for v in verdicts:
        out.setdefault(v.source, {})[v.level] = v.word
    return out


def sources(world: worlds.World, rng: np.random.Generator, n: int = TRACES) -> dict[str, worlds.Draws]:
    """The reference and one draw of every source of the confusion matrix, n traces per problem."""
    out = {"base": worlds.draw(world, rng, TRACES), "base again": worlds.draw(world, rng, n)}
    out["tilt 1"] = worlds.draw(world, rng, n, weights=worlds.tilt(world, 1))
    out["tilt .2"] = worlds.draw(world, rng, n, weights=worlds.tilt(world, 0.2))
    out["best of 16"] = worlds.draw(world, rng, n, weights=worlds.best_of(world, 16))
    out["longer"] = worlds.draw(world, rng, n, stop=worlds.longer(world))
    out["temp .5"] = worlds.draw(world, rng, n, temperature=0.5)
    for name, share_ in TEACHERS.items():
        out[name] = worlds.draw(world, rng, n, weights=worlds.teacher(world, share_))
    return out


def gate_half_against_half(rng: np.random.Generator, runs: int) -> Gate:
    """V8: halves of one sample of the base, one relabelled, with and without its policy: outside at no level."""
    outside = {"policy known": 0, "no policy": 0}
    inside = 0
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        drawn = worlds.draw(world, rng, TRACES)
        one = np.arange(len(drawn.problem)) % 2 == 0
        halves = {"base": worlds.take(drawn, one), "half": worlds.take(drawn, ~one)}
        for name, unknown in (("policy known", ()), ("no policy", ("half",))):
            found = words(worlds.tables(halves, unknown=unknown), seed=run)["half"]
            outside[name] += "outside" in found.values()
            inside += name == "policy known" and found["sequence"] == "inside"
    checks = [
        share(
            "V8", f"half of the base's traces against the other, {name}: outside at any level", hits, runs, at_most=0.05
        )
        for name, hits in outside.items()
    ]
    checks.append(share("V8", "the same, policy known: inside at the sequence level", inside, runs, at_least=0.9))
    return Gate(checks, {})


def gate_confusion(rng: np.random.Generator, runs: int) -> Gate:
    """V10: the word of every source over fresh worlds, and what three common readings would have said."""
    counts: dict[str, dict[str, int]] = {name: {} for name in SOURCES}
    anywhere = dict.fromkeys(SOURCES, 0)
    small = forgotten = mcnemar = 0
    perplexity = dict.fromkeys(SOURCES, 0)
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        drawn = sources(world, rng)
        tables = worlds.tables(drawn, samplers={"temp .5": 0.5})
        for name, found in words(tables, seed=run).items():
            counts[name][found["sequence"]] = counts[name].get(found["sequence"], 0) + 1
            anywhere[name] += "outside" in found.values()
        cooled = drawn["temp .5"]
        said = cooled.columns | {"log_q": cooled.columns["logprob"]}
        plain = worlds.tables({"base": drawn["base"], "temp .5": cooled._replace(log_q=cooled.log_p, columns=said)})
        forgotten += words(plain, seed=run, names=("support",))["temp .5"]["sequence"] == "sharpened"
        solved = {s: np.bincount(drawn[s].problem, weights=drawn[s].correct) > 0 for s in ("base", "best of 16")}
        gained, lost = ((solved[a] & ~solved[b]).sum() for a, b in (("best of 16", "base"), ("base", "best of 16")))
        mcnemar += gained + lost > 0 and gained > lost and binomtest(int(gained), int(gained + lost)).pvalue <= 0.05
        edge = np.quantile(worlds.summaries(drawn["base"])["nll_mean"], 0.95)
        for name in SOURCES:
            perplexity[name] += np.median(worlds.summaries(drawn[name])["nll_mean"]) > edge
        few = {"base": drawn["base"], "base again": worlds.draw(world, rng, 4)}
        small += words(worlds.tables(few), seed=run)["base again"]["sequence"] == "undetermined"
    checks = [share("V10", f"{name}: inside", counts[name].get("inside", 0), runs, at_least=0.9) for name in INSIDE]
    hits = sum(anywhere[name] for name in INSIDE)
    what = "sources within reach (E_64 = 0): outside at any level"
    checks.append(share("V10", what, hits, runs * len(INSIDE), at_most=0.05))
    mutant = ("log q at T=1 for the cooled source", forgotten)
    sharp = counts["temp .5"].get("sharpened", 0)
    checks.append(share("V10", "temp .5: sharpened", sharp, runs, at_least=0.8, mutant=mutant))
    checks.append(share("V10", "temp .5: outside at any level", anywhere["temp .5"], runs, at_most=0.0))
    for name in ("teacher .2", "teacher .5"):
        hits = counts[name].get("outside", 0)
        wrong = ("outside only if the median perplexity leaves the base's range", perplexity[name])
        mutant = wrong if name == "teacher .2" else None
        checks.append(share("V10", f"{name}: outside", hits, runs, at_least=0.9, mutant=mutant))
    hits = counts["teacher .05"].get("inside", 0) + counts["teacher .05"].get("sharpened", 0)
    checks.append(share("V10", "teacher .05: inside or sharpened", hits, runs, at_most=0.05))
    checks.append(share("V10", "base again with 4 traces a problem: undetermined", small, runs, at_least=0.5))
    rows = [
        {"source": name, "word": word, "count": counts[name].get(word, 0), "runs": runs}
        for name in SOURCES
        for word in WORDS
    ]
    return Gate(checks, {"confusion": rows})


def gate_invariance(rng: np.random.Generator, runs: int) -> Gate:
    """V10: problems renamed, rows shuffled, the source renamed: the words must not move."""
    moved: dict[str, int] = {"rows shuffled": 0, "problems renamed": 0, "source renamed": 0}
    wrong = 0
    compared = 0
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        drawn = sources(world, rng)
        keep = ("base", "base again", "temp .5", "teacher .2")
        tables = worlds.tables({s: drawn[s] for s in keep}, samplers={"temp .5": 0.5})
        first = words(tables, seed=run)
        compared += sum(map(len, first.values()))
        for name in moved:
            again = words(_changed(tables, name, rng), seed=run)
            again = {s.removesuffix("!"): v for s, v in again.items()}
            moved[name] += sum(first[s][level] != again[s][level] for s in first for level in first[s])
        # mutant: log q and log p of two tables paired by row after one of them was shuffled
        crossed = drawn["base again"]
        order = rng.permutation(len(crossed.log_q))
        mixed = crossed.columns | {"log_q": crossed.columns["log_q"][order]}
        crossed = crossed._replace(log_q=crossed.log_q[order], columns=mixed)
        other = words(worlds.tables({"base": drawn["base"], "base again": crossed}), seed=run, names=("support",))
        wrong += other["base again"]["sequence"] != first["base again"]["sequence"]
    checks = []
    for name, hits in moved.items():
        mutant = ("log q and log p paired by row, not by key", wrong) if name == "rows shuffled" else None
        what = f"{name}: words that changed, of {compared}"
        checks.append(number("V10", what, hits, 0, 0, runs, claim="= 0", mutant=mutant))
    return Gate(checks, {})


def _changed(tables: Tables, how: str, rng: np.random.Generator) -> Tables:
    frames: dict[str, Any] = {"traces": tables.traces.copy(), "scores": tables.scores.copy()}
    if how == "rows shuffled":
        first = tables.traces.groupby("source", sort=False).head(1)["key"]  # the sources keep their order
        for name, frame in frames.items():
            frames[name] = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
        traces = frames["traces"].set_index("key")
        rest = [k for k in traces.index if k not in set(first)]
        frames["traces"] = traces.loc[[*first, *rest]].reset_index()[tables.traces.columns]
        return replace(tables, **frames, memo={})
    if how == "problems renamed":
        names = tables.traces["problem"].unique()
        new = dict(zip(names, (f"q{i:04d}" for i in rng.permutation(len(names))), strict=True))
        for frame in frames.values():
            frame["problem"] = frame["problem"].map(new)
            frame["key"] = frame["source"] + "/" + frame["problem"] + "/" + frame["sample"].astype(str)
        return replace(tables, **frames, **_streams(tables, frames["traces"]), memo={})
    own = tables.reference
    for frame in frames.values():
        frame["source"] = frame["source"].where(frame["source"] == own, frame["source"] + "!")
        frame["key"] = frame["source"] + "/" + frame["problem"] + "/" + frame["sample"].astype(str)
    renamed = {s: s if s == own else f"{s}!" for s in tables.sources}
    return replace(
        tables,
        **frames,
        **_streams(tables, frames["traces"]),
        memo={},
        policies={renamed[s]: m for s, m in tables.policies.items()},
        samplers={renamed[s]: m for s, m in tables.samplers.items()},
    )


def _streams(tables: Tables, traces: pd.DataFrame) -> dict[str, Callable[..., Iterator[pd.DataFrame]]]:
    """Texts and tokens under the new names of `traces`, which stand in the order of the old ones."""
    names = {c: dict(zip(tables.traces["key"], traces[c], strict=True)) for c in ("source", "problem", "key")}

    def renamed(part: pd.DataFrame) -> pd.DataFrame:
        return part.assign(**{c: part["key"].map(new) for c, new in names.items() if c in part})

    return {
        "texts": lambda columns: map(renamed, tables.texts(columns)),
        "tokens": lambda model, columns: map(renamed, tables.tokens(model, columns)),
    }
