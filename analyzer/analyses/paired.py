"""Two sources, problem by problem: what `analyzer compare` prints. Not part of the report's fixed list.

Differences are a minus b within each problem, averaged over the problems that both have; bootstrap over problems.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.errors import UsageError, nearest
from analyzer.records import Estimate, Result, Tables
from analyzer.stats import bootstrap

QUESTION = "How do two sources differ on the same problems?"


def run(tables: Tables, *, a: str, b: str, seed: int = 0) -> Result:
    """Paired differences in pass rate, length and surprisal per token under the base (nats).

    Estimates `a-b.pass_rate`, `a-b.nll_mean`, `a-b.n_tokens`; table "problems" has one row per joined problem. Raises
    UsageError for unknown labels or sources without a common problem.
    """
    for label in (a, b):
        if label not in tables.sources:
            raise UsageError(f"no source {label!r} in this run{nearest(label, tables.sources)}")
    measures = {"pass_rate": _by_problem(tables.traces, "correct", np.mean)}
    if tables.base:
        scores = tables.scores[tables.scores["model"] == tables.base]
        measures |= {name: _by_problem(scores, name, np.median) for name in ("nll_mean", "n_tokens")}
    joined = sorted(
        set(tables.traces.loc[tables.traces["source"] == a, "problem"])
        & set(tables.traces.loc[tables.traces["source"] == b, "problem"])
    )
    if not joined:
        raise UsageError(f"{a} and {b} have no problem in common")
    table = pd.DataFrame({"problem": joined})
    estimates = {}
    for name, values in measures.items():
        for label in (a, b):
            table[f"{label}.{name}"] = [values.get((label, p), np.nan) for p in joined]
        difference = (table[f"{a}.{name}"] - table[f"{b}.{name}"]).dropna().to_numpy(float)
        found = bootstrap.mean(difference, np.arange(len(difference)), seed=seed)
        note = "" if len(difference) else f"{name} is not known for both"
        estimates[f"{a}-{b}.{name}"] = Estimate(found.value, found.low, found.high, found.n, found.method, note)
    return Result(
        f"{a} against {b}",
        QUESTION,
        estimates,
        {"problems": table},
        params={"a": a, "b": b, "draws": bootstrap.DRAWS},
        seed=seed,
    )


def _by_problem(frame: pd.DataFrame, column: str, how) -> dict[tuple[str, str], float]:
    known = frame.dropna(subset=[column])
    return known.assign(value=known[column].astype(float)).groupby(["source", "problem"])["value"].agg(how).to_dict()
