"""A run's Parquet parts -> the `Tables` that analyses read: per-trace summaries now, token arrays on demand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analyzer.records import Sampler, Tables
from analyzer.store import Run
from analyzer.summaries import SUMMARY_COLUMNS, summarise

IDENTITY = ["key", "source", "problem", "step", "sample"]
TOKEN_COLUMNS = [
    "token",
    "logprob",
    "rank",
    "mass_above",
    "entropy",
    "varentropy",
    "renyi_half",
    "mass_above_s",
    "logprob_s",
]


def build(run: Run) -> Tables:
    """Read a run into Tables; token arrays stream through once for the summaries and are not kept.

    Without scores, `scores` is an empty frame with the right columns and `base` is None.
    """
    traces = run.trace_table()
    settings = run.manifest.get("settings", {})
    labels = run.scorers()
    frames = [_summaries(run, label) for label in labels]
    frames = [f for f in frames if not f.empty]
    columns = ["model", *IDENTITY, *SUMMARY_COLUMNS]
    scores = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    scores = scores.merge(traces[["key", "correct", "finish", "group"]], on="key", how="left", validate="many_to_one")
    samplers = {label: Sampler(**values) for label, values in run.manifest.get("samplers", {}).items() if values}

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        return run.tokens(model, columns)

    return Tables(
        traces=traces.drop(columns="origin"),
        scores=scores,
        tokens=tokens,
        reference=settings["reference"],
        base="base" if "base" in labels else None,
        policies=dict(run.manifest.get("policies", {})),
        samplers=samplers,
    )


def _summaries(run: Run, label: str) -> pd.DataFrame:
    sampler = run.manifest["scorers"].get(label, {}).get("sampler")
    sampler = Sampler(**sampler) if sampler else None
    prompts = run.prompts(label)
    frames = []
    for part in run.tokens(label, TOKEN_COLUMNS):
        rows = []
        for record in part[["prompt", *TOKEN_COLUMNS]].to_dict("records"):
            columns = {name: record[name] for name in TOKEN_COLUMNS if record[name] is not None}
            rows.append(
                summarise(columns, prompt_ids=prompts.get(record["prompt"], np.empty(0, np.int32)), sampler=sampler)
            )
        frames.append(pd.concat([part[IDENTITY].reset_index(drop=True), pd.DataFrame(rows)], axis=1))
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "model", label)
    # parts are written in the scorer's order; the identity's order makes results independent of it
    return frame.sort_values(["source", "problem", "step", "sample"], kind="stable", ignore_index=True)
