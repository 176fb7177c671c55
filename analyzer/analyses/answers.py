"""Answers, for `boundary`: the test at a budget that the verdict's answer level reads, and how varied they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.stats import bootstrap, budget, diversity, passk

ALPHA = 0.05
GROUP = "all"  # name of the group of problems that have none


def budget_test(both: pd.DataFrame, k: int) -> list[dict[str, Any]]:
    """One row per predeclared group: more correct draws than k reference draws allow? Holm over the groups.

    `both`: one row per joined problem, columns n, c (source), n_ref, c_ref, group_ref. Draws of a group are pooled.
    Problems whose ratio of draws n / n_ref is over twice the median are left out (chosen by n alone), and the largest
    remaining ratio enters the test, so that unequal counts can only make it milder.
    """
    ratio = both["n"] / both["n_ref"]
    both = both.assign(ratio=ratio)[ratio <= 2 * ratio.median()]
    groups = both["group_ref"].nunique()
    out = []
    for group, part in both.groupby("group_ref"):
        counts = int(part["c"].sum()), int(part["n"].sum()), int(part["c_ref"].sum()), int(part["n_ref"].sum())
        in_test = (*counts[:3], counts[1] / part["ratio"].max())
        row = {"group": group, "k": k, "problems": len(part)}
        row |= dict(zip(("c_source", "n_source", "c_reference", "n_reference"), counts, strict=True))
        row["source_only"] = int(((part["c"] > 0) & (part["c_ref"] == 0)).sum())
        row["reference_only"] = int(((part["c"] == 0) & (part["c_ref"] > 0)).sum())
        row["p"] = float(budget.p_value(*in_test, k))
        row["factor"] = budget.factor(*in_test, k, alpha=ALPHA / groups)
        out.append(row)
    for row, p in zip(out, budget.holm(np.array([r["p"] for r in out])), strict=True):
        row["p_holm"] = float(p)
    return out


def variety(traces: pd.DataFrame, *, draws: int, seed: int) -> dict[str, Any]:
    """Distinct responses and answers at a common number of draws, share of repeats, entropy of the answers (nats)."""
    n_P = traces.groupby("problem").size()
    m = int(passk.budgets(n_P.to_numpy())[-1])
    texts = traces.groupby(["problem", "response"]).size()
    out = {"problems": len(n_P), "n": len(traces), "draws": m, "distinct_responses": _distinct(texts, m)}
    out["repeats"] = 1 - len(texts) / len(traces)
    numbers = ("distinct_answers", "answer_entropy", "low", "high")
    if traces["answer"].isna().all():
        return out | dict.fromkeys(numbers, math.nan) | {"note": "no answer in the dump"}
    # no answer is an answer of its own; the NUL keeps it apart from a text "NA"
    answers = traces["answer"].astype(object).where(traces["answer"].notna(), "\0NA").astype(str)
    kinds = traces.assign(answer=answers).groupby(["problem", "answer"]).size()
    entropy_P = diversity.entropy(kinds.to_numpy(), kinds.index.get_level_values(0).to_numpy())
    mean = bootstrap.mean(entropy_P, np.arange(len(entropy_P)), draws=draws, seed=seed)
    found = (_distinct(kinds, m), mean.value, mean.low, mean.high)
    return out | dict(zip(numbers, found, strict=True)) | {"note": ""}


def _distinct(counts: pd.Series, m: int) -> float:
    """Mean over problems of the expected number of distinct items in m draws."""
    return float(np.nanmean(diversity.distinct(counts.to_numpy(), counts.index.get_level_values(0).to_numpy(), m)))
