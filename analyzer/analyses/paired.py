"""Two sources, problem by problem: what `analyzer compare` prints. Not part of the report's fixed list.

Differences are a minus b within each problem, averaged over the problems that both have; bootstrap over problems.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.errors import UsageError, nearest
from analyzer.records import Estimate, Result, Tables

QUESTION = "How do two sources differ on the same problems?"
DRAWS = 2000


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
    rng = np.random.default_rng(seed)
    for name, values in measures.items():
        for label in (a, b):
            table[f"{label}.{name}"] = [values.get((label, p), np.nan) for p in joined]
        difference = (table[f"{a}.{name}"] - table[f"{b}.{name}"]).dropna().to_numpy(float)
        estimates[f"{a}-{b}.{name}"] = _mean(
            difference, rng, "" if len(difference) else f"{name} is not known for both"
        )
    return Result(
        f"{a} against {b}", QUESTION, estimates, {"problems": table}, params={"a": a, "b": b, "draws": DRAWS}, seed=seed
    )


def _by_problem(frame: pd.DataFrame, column: str, how) -> dict[tuple[str, str], float]:
    known = frame.dropna(subset=[column])
    return known.assign(value=known[column].astype(float)).groupby(["source", "problem"])["value"].agg(how).to_dict()


def _mean(values: np.ndarray, rng: np.random.Generator, note: str) -> Estimate:
    if not len(values):
        return Estimate(np.nan, note=note)
    draws = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(
        float(values.mean()), float(low), float(high), len(values), "mean over problems, 95 % problem bootstrap"
    )
