"""V11: the verdicts on resamplings of the two committed worlds, whose truths are known.

Where log q is known the truth at the sequence level is computed from all draws (`lengths.allowed`), and truths.json has
to say the same; the others follow from how a source was made. No threshold was set on the second world (data/second).
Each resampling keeps three quarters of the problems and three quarters of every source's first SAMPLES traces on them,
so that no trace is counted twice and every interval is wider than on the whole.
"""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, homogeneity_score

from analyzer.analysis.clusters import grouping
from analyzer.analysis.clusters import run as clusters
from analyzer.analysis.data import features
from analyzer.analysis.data import tables as tables_module
from analyzer.analysis.data.summaries import among
from analyzer.analysis.questions import ANALYSES
from analyzer.errors import AnalyzerError, UsageError
from analyzer.records import LEVELS, Tables
from analyzer.runs.store import Run
from validation import lengths
from validation.checks import Gate, GateResult, number, share
from validation.verdicts import BUDGET, READ, read, words

KEEP = 0.75
SAMPLES = 64  # per source and problem, of a resampling
# source -> folder of the model that wrote it; rewritten sources and the teacher have none
POLICIES = {name: "base" for name in ("base-again", "cool", "cold")}
POLICIES |= {name: name for name in ("rlvr", "rlvr-unfaithful", "distill", "distill-plan")}
POLICIES |= {"rlvr-early": "rlvr-step100"}


def truths(folder: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """Source -> level -> allowed words, from truths.json; the reference has no verdict and is left out."""
    file = folder / "truths.json"
    if not file.is_file():
        raise UsageError(f"{file.name} is not in {folder.name}'s folder; rebuild it: python -m miniature build")
    found = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return {s: {k: tuple(v) for k, v in row["truth"].items()} for s, row in found.items() if s != "base"}


def scored(folder: Path, directory: Path) -> Path:
    """Score a world's dumps into a run at `directory`, by the command line; a run that is there is continued."""
    dumps = sorted((folder / "dumps").glob("*.jsonl.gz"))
    sources = {p.name.removesuffix(".jsonl.gz"): p for p in dumps}
    command = [sys.executable, "-m", "analyzer", "score", *(f"{s}={p}" for s, p in sources.items())]
    command += ["--base", str(folder / "models" / "base"), "--reference", "base", "-o", str(directory)]
    for source in sorted(set(POLICIES) & set(sources)):
        command += ["--policy", f"{source}={folder / 'models' / POLICIES[source]}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AnalyzerError(f"scoring {folder.name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return directory


def resampled(tables: Tables, rng: np.random.Generator, *, keep: float = KEEP) -> Tables:
    """Tables of `keep` of the problems and, drawn apart for every source and problem, `keep` of the scored traces."""
    names = np.sort(tables.traces["problem"].unique())
    chosen = set(rng.choice(names, math.ceil(keep * len(names)), replace=False))
    traces = tables.traces[tables.traces["problem"].isin(chosen) & (tables.traces["sample"] < SAMPLES)]
    order = pd.Series(rng.random(len(traces)), index=traces.index)
    groups = [traces["source"], traces["problem"], traces["step"].astype("float").fillna(-1)]
    traces = traces[order.groupby(groups).rank(pct=True) <= keep].reset_index(drop=True)
    keys = set(traces["key"])
    scores = tables.scores[tables.scores["key"].isin(keys)].reset_index(drop=True)

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        for part in tables.tokens(model, columns):
            yield part[among(part["key"], keys)]

    return replace(tables, traces=traces, scores=scores, tokens=tokens)


def gate_world(rng: np.random.Generator, runs: int, *, run: Path, folder: Path, strategies: int = 4) -> Gate:
    """The words of every source, on the whole pools and over resamplings, against the truths; the mutant reads the
    perplexity.

    The levels are run on the first `strategies` resamplings only (they take most of the time); in the others they can
    only follow from the sequence and are not counted.
    """
    world, tables = folder.name, tables_module.build(Run.open(run))
    known = {s: levels for s, levels in truths(folder).items() if s in tables.sources}
    if not known:
        raise UsageError(f"the run holds none of the sources of {world}; give a run of data/{world}/dumps")
    hits = {(s, level): [0, 0] for s, levels in known.items() for level in levels}
    counts: dict[tuple[str, str, str], int] = {}
    perplexity = dict.fromkeys(known, 0)
    results = {name: ANALYSES[name].run(tables, budget=BUDGET, seed=0) for name in READ}
    whole = read(results, tables)
    file = {source: set(levels["sequence"]) for source, levels in known.items()}
    computed = {
        row["source"]: lengths.allowed(row)
        for row in results["support"].tables["evidence"].to_dict("records")
        if math.isfinite(row.get("inside_high", math.nan)) and row["source"] in known
    }
    for source, allowed in computed.items():
        at_edge = {"undetermined"} if len(allowed) > 1 else set()
        known[source] = known[source] | {"sequence": tuple(sorted(allowed | at_edge))}
    for i in range(runs):
        part = resampled(tables, rng)
        full = i < strategies
        found = words(part, seed=i, names=READ if full else ("support", "boundary"))
        base = part.scores[part.scores["model"] == part.base]
        median = base.groupby(["source", "problem"])["ppl"].median().unstack("source")
        for source, levels in known.items():
            low = (median[source] <= median[part.reference]).mean() >= 0.5
            perplexity[source] += ("inside" if low else "outside") in levels["sequence"]
            for level, word in found[source].items():
                if level == "sequence" or full:
                    counts[source, level, word] = counts.get((source, level, word), 0) + 1
                    hits[source, level][0] += word in levels[level]
                    hits[source, level][1] += 1
    right = sum(whole[s][level] in allowed for s, levels in known.items() for level, allowed in levels.items())
    what = f"{world}, all traces at once: words (source x level) that agree with the truths"
    checks = [share("V11", what, right, len(hits), at_least=1.0)]
    what = f"{world}: sources whose computed truth is that of truths.json"
    agree = sum(file[source] <= allowed for source, allowed in computed.items())
    checks.append(share("V11", what, agree, len(computed), at_least=1.0))
    for source, levels in known.items():
        what = f"{world}, {source}, sequence: {' or '.join(levels['sequence'])}"
        wrong = ("perplexity read as in most papers: below the base's is inside, else outside", perplexity[source])
        mutant = wrong if source == "rlvr" else None
        checks.append(share("V11", what, *hits[source, "sequence"], at_least=0.9, mutant=mutant))
    checks += [level_check(world, level, [hits[s, level] for s in known]) for level in LEVELS[1:]]
    rows: list[dict[str, Any]] = [
        {"source": s, "level": level, "truth": " or ".join(known[s][level]), "whole": whole[s][level], "word": word}
        | {"count": n, "runs": hits[s, level][1]}
        for (s, level, word), n in counts.items()
    ]
    return Gate(checks, {world: rows})


def level_check(world: str, level: str, hits: list[list[int]]) -> GateResult:
    """One check for all sources: [words that agree, resamplings] of each; few resamplings of one prove nothing."""
    n, of = (int(sum(column)) for column in zip(*hits, strict=True))
    what = f"{world}, {level} level, {len(hits)} sources: words that agree with the truths"
    return share("V11", what, n, of, at_least=0.9)


def gate_formats(rng: np.random.Generator, runs: int, *, run: Path, folder: Path) -> Gate:
    """Do clusters, without labels, find the formats that the base knows, and tell a new one from a second draw?

    The formats of the base's traces stand in its dump (meta.style). Three clusters of all traces at once, features
    centred by problem, against the formats; the finer clusters by problem of the analysis, by how far one holds one
    format; and the analysis on base, base-again and distill-plan: mass in clusters without the base, called new where
    its lower end is above what chance leaves (the upper end of leave-one-out).
    """
    tables = tables_module.build(Run.open(run))
    style = _styles(folder / "dumps" / "base.jsonl.gz")
    traces = tables.traces[tables.traces["source"].isin(("base", "base-again", "distill-plan"))]
    tables = replace(tables, traces=traces[traces["sample"] < SAMPLES])
    found: dict[str, list[float]] = {"rand": [], "length": [], "pure": []}
    new = dict.fromkeys(("base-again", "distill-plan"), 0)
    any_mass = 0
    for i in range(runs):
        part = resampled(tables, rng)
        own = part.traces[part.traces["source"] == "base"].set_index("key")
        keys, vectors = features.pooled(part, part.base, keys=set(own.index))
        own = features.with_text(part, own.loc[keys].reset_index())
        true = np.array([style[row] for row in zip(own["problem"], own["sample"], strict=True)])
        x = features.components(np.asarray(vectors, float), standardise=True, seed=i)
        label = _three(_centred(x, own["problem"].to_numpy()), i)
        found["rand"].append(adjusted_rand_score(true, label))
        length = part.scores[part.scores["model"] == part.base].set_index("key").loc[keys, "n_tokens"]
        found["length"].append(adjusted_rand_score(true, _three(length.to_numpy(float)[:, None], i)))
        pure, style_of = [], dict(zip(own["key"], true, strict=True))
        for p in grouping.cluster_all(own, np.asarray(vectors), i):
            mine = [style_of[key] for key in p.frame["key"]]
            pure.append(homogeneity_score(mine, p.cluster))
        found["pure"].append(float(np.mean(pure)))
        mass = clusters.run(part, seed=i, draws=500).tables["novel_mass"]
        mass = mass[mass["representation"] == clusters.HIDDEN].set_index("source")
        for source in new:
            new[source] += mass.loc[source, "low"] > mass.loc[source, "chance_high"]
        any_mass += mass.loc["base-again", "mass"] > 0
    least = {name: min(values) for name, values in found.items()}
    what = "three clusters of the base's hidden states against its three formats, adjusted Rand: lowest"
    mutant = ("three clusters of the lengths", max(found["length"]))
    checks = [number("V11", what, least["rand"], 0.9, 1.0, runs, mutant=mutant)]
    what = "clusters by problem as the analysis makes them: share of the formats' entropy that they settle, lowest"
    checks.append(number("V11", what, least["pure"], 0.9, 1.0, runs))
    what = "distill-plan: mass in clusters new to the base, above chance"
    checks.append(share("V11", what, new["distill-plan"], runs, at_least=0.95))
    what = "base-again: the same"
    mutant = ("any mass in such clusters called new", any_mass)
    checks.append(share("V11", what, new["base-again"], runs, at_most=0.05, mutant=mutant))
    rows = [{"seed": i, "rand": r, "homogeneity": h} for i, (r, h) in enumerate(zip(found["rand"], found["pure"]))]
    return Gate(checks, {"formats": rows})


def _styles(file: Path) -> dict[tuple[str, int], str]:
    """(problem, sample) -> format of the base's traces; "none" where there is none."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {(r["problem"], r["sample"]): str(r["meta"]["style"]).lower() for r in rows}


def _centred(x_NC: np.ndarray, problem_N: np.ndarray) -> np.ndarray:
    """The rows less the mean of their problem, so that clusters are not topics."""
    index = np.unique(problem_N, return_inverse=True)[1]
    mean = np.stack([np.bincount(index, weights=column) for column in x_NC.T], 1) / np.bincount(index)[:, None]
    return x_NC - mean[index]


def _three(x: np.ndarray, seed: int) -> np.ndarray:
    return KMeans(3, n_init=5, random_state=seed).fit_predict(x)
