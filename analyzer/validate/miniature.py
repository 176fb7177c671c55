"""V11: the verdicts on resamplings of the committed miniature, whose truths are known by construction.

Each resampling keeps three quarters of the problems and three quarters of every source's traces on them, so that no
trace is counted twice and every interval is wider than on the whole. Truths: data/miniature/truths.json.
"""

from __future__ import annotations

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

from analyzer import tables as tables_module
from analyzer.errors import AnalyzerError, UsageError
from analyzer.records import Tables
from analyzer.store import Run
from analyzer.validate.checks import Gate, share
from analyzer.validate.verdicts import READ, words

KEEP = 0.75
SCORED = 64  # samples per source and problem
# source -> folder of the model that wrote it; rewritten sources and the teacher have none
POLICIES = {name: "base" for name in ("base-again", "cool", "cold")}
POLICIES |= {name: name for name in ("rlvr", "rlvr-unfaithful", "distill", "distill-plan")}
POLICIES |= {"rlvr-early": "rlvr-step100"}


def truths(folder: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """Source -> level -> allowed words, from truths.json; the reference has no verdict and is left out."""
    file = folder / "truths.json"
    if not file.is_file():
        raise UsageError(f"{file.name} is not in the miniature's folder; rebuild it: python -m analyzer.lab build")
    found = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return {s: {k: tuple(v) for k, v in row["truth"].items()} for s, row in found.items() if s != "base"}


def scored(folder: Path, directory: Path) -> Path:
    """Score the miniature's dumps into a run at `directory`, by the command line; a run that is there is continued."""
    dumps = sorted((folder / "dumps").glob("*.jsonl.gz"))
    sources = {p.name.removesuffix(".jsonl.gz"): p for p in dumps}
    command = [sys.executable, "-m", "analyzer", "score", *(f"{s}={p}" for s, p in sources.items())]
    command += ["--base", str(folder / "models" / "base"), "--reference", "base", "-o", str(directory)]
    for source in sorted(set(POLICIES) & set(sources)):
        command += ["--policy", f"{source}={folder / 'models' / POLICIES[source]}"]
    done = subprocess.run([*command, "--score-at-most", str(SCORED)], capture_output=True, text=True)
    if done.returncode:
        raise AnalyzerError(f"scoring the miniature ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return directory


def resampled(tables: Tables, rng: np.random.Generator, *, keep: float = KEEP) -> Tables:
    """Tables of `keep` of the problems and, drawn apart for every source and problem, `keep` of the scored traces."""
    names = np.sort(tables.traces["problem"].unique())
    chosen = set(rng.choice(names, math.ceil(keep * len(names)), replace=False))
    traces = tables.traces[tables.traces["problem"].isin(chosen)]
    order = pd.Series(rng.random(len(traces)), index=traces.index)
    groups = [traces["source"], traces["problem"], traces["step"].astype("float").fillna(-1)]
    traces = traces[order.groupby(groups).rank(pct=True) <= keep].reset_index(drop=True)
    keys = set(traces["key"])
    scores = tables.scores[tables.scores["key"].isin(keys)].reset_index(drop=True)

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        for part in tables.tokens(model, columns):
            yield part[part["key"].isin(keys)]

    return replace(tables, traces=traces, scores=scores, tokens=tokens)


def gate_miniature(rng: np.random.Generator, runs: int, *, run: Path, folder: Path, strategies: int = 4) -> Gate:
    """The words of every source over resamplings against the truths; the mutant reads the perplexity.

    The strategy level is run on the first `strategies` resamplings only (it takes most of the time); before the others
    it can only follow from the other levels and is not counted.
    """
    tables = tables_module.build(Run.open(run))
    known = {s: levels for s, levels in truths(folder).items() if s in tables.sources}
    if not known:
        raise UsageError("the run holds none of the miniature's sources; give --run a run of data/miniature/dumps")
    hits = {(s, level): [0, 0] for s, levels in known.items() for level in levels}
    counts: dict[tuple[str, str, str], int] = {}
    perplexity = dict.fromkeys(known, 0)
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
    checks = []
    for (source, level), (n, of) in hits.items():
        what = f"miniature, {source}, {level}: {' or '.join(known[source][level])}"
        wrong = ("perplexity read as in most papers: below the base's is inside, else outside", perplexity[source])
        mutant = wrong if level == "sequence" and known[source][level] == ("sharpened",) else None
        checks.append(share("V11", what, n, of, at_least=0.9, mutant=mutant))
    rows: list[dict[str, Any]] = [
        {"source": s, "level": level, "word": word, "count": n, "runs": hits[s, level][1]}
        for (s, level, word), n in counts.items()
    ]
    return Gate(checks, {"miniature": rows})
