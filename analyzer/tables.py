"""A run's Parquet parts -> the `Tables` that analyses read: per-trace summaries now, token arrays on demand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

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
    traces = run.trace_table().merge(_generated(run), on="key", how="left", validate="one_to_one")
    settings = run.manifest.get("settings", {})
    labels = run.scorers()
    frames = [_summaries(run, label) for label in labels]
    frames = [f for f in frames if not f.empty]
    columns = ["model", *IDENTITY, "prompt_hash", *SUMMARY_COLUMNS]
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
        engines={label: dict(run.manifest["scorers"].get(label, {})) for label in labels},
    )


def _generated(run: Run) -> pd.DataFrame:
    """key, logprob_generated (nats), n_generated: what the dump says that its engine gave the tokens, summed.

    Only log-probs that are declared to be at temperature 1 can be compared with scores; else NaN and 0 tokens.
    """
    frames = []
    for part in sorted((run.path / "traces").glob("part-*.parquet")):
        table = pq.read_table(part, columns=["key", "response_logprobs", "logprobs_temperature"])
        lists = table["response_logprobs"].combine_chunks()
        length = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = lists.flatten().to_numpy(zero_copy_only=False).astype(float)
        total, known = np.full(len(length), np.nan), (table["logprobs_temperature"].to_numpy() == 1) & (length > 0)
        if len(values):  # by segment: one infinite value must not reach the other traces
            total[length > 0] = np.add.reduceat(values, (length.cumsum() - length)[length > 0])
        frames.append(
            pd.DataFrame(
                {
                    "key": table["key"].to_pylist(),
                    "logprob_generated": np.where(known, total, np.nan),
                    "n_generated": np.where(known, length, 0),
                }
            )
        )
    columns = {"key": object, "logprob_generated": float, "n_generated": int}
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns)).astype(columns)


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
        head = part[[*IDENTITY, "prompt"]].reset_index(drop=True).rename(columns={"prompt": "prompt_hash"})
        frames.append(pd.concat([head, pd.DataFrame(rows)], axis=1))
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "model", label)
    # parts are written in the scorer's order; the identity's order makes results independent of it
    return frame.sort_values(["source", "problem", "step", "sample"], kind="stable", ignore_index=True)
