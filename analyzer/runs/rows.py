"""The rows of a run's Parquet parts: their columns (a contract); records to rows and back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analyzer.records import (
    CORE_COLUMNS,
    NOVEL_COLUMNS,
    POWER_COLUMNS,
    ROUNDING,
    SAMPLER_COLUMNS,
    SOURCE_COLUMNS,
    Sampler,
    Scored,
    Trace,
)
from analyzer.runs.disk import PACKED

BATCH, BATCH_TEXT = 4096, 1 << 26  # traces that make a row group, and characters that they may have
IDENTITY = ["source", "problem", "sample", "step"]
TRACES = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("problem", pa.string()),
        ("step", pa.int64()),
        ("sample", pa.int64()),
        ("prompt", pa.string()),
        ("messages", pa.string()),
        ("question", pa.string()),
        ("response", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("response_logprobs", pa.list_(pa.float32())),
        ("logprobs_temperature", pa.float64()),
        ("base_temperatures", pa.list_(pa.float64())),
        ("base_logprobs", pa.list_(pa.list_(pa.float32()))),  # one list per temperature
        ("policy_sources", pa.list_(pa.string())),
        ("policy_temperatures", pa.list_(pa.float64())),
        ("policy_logprobs", pa.list_(pa.list_(pa.float32()))),  # one list per source and temperature
        ("correct", pa.bool_()),
        ("score", pa.float64()),
        ("finish", pa.string()),
        ("answer", pa.string()),
        ("group", pa.string()),
        ("sampler", pa.string()),
        ("meta", pa.string()),
        ("origin", pa.string()),
    ]
)
POLICY = ("policy_sources", "policy_temperatures", "policy_logprobs")
ADDED = ("base_temperatures", "base_logprobs", *POLICY)  # columns that parts of older versions lack: they read as null
TABLE = (
    "key", "source", "problem", "step", "sample", "correct", "score", "finish", "answer", "group",
)  # fmt: skip
COLUMNS = CORE_COLUMNS | SAMPLER_COLUMNS | POWER_COLUMNS | SOURCE_COLUMNS | NOVEL_COLUMNS
ADDED_SCORES = (*POWER_COLUMNS, *SOURCE_COLUMNS, *NOVEL_COLUMNS)  # columns of scores that parts of older versions lack
LOGPROBS = ("logprob", "logprob_s", "logprob_source")
LISTS = {
    **{name: pa.list_(pa.from_numpy_dtype(kind)) for name, kind in COLUMNS.items()},
    "offset": pa.list_(pa.int32()),
}
SCORES = pa.schema(
    [
        ("source", pa.string()),
        ("problem", pa.string()),
        ("sample", pa.int64()),
        ("step", pa.int64()),
        ("prompt", pa.string()),
        ("status", pa.string()),
        *LISTS.items(),
        ("embedding", pa.list_(pa.float16())),
        ("top_position", pa.list_(pa.int32())),
        ("top_token", pa.list_(pa.list_(pa.int32()))),
        ("top_logprob", pa.list_(pa.list_(pa.float32()))),
    ]
)
PROMPTS = pa.schema([("prompt", pa.string()), ("prompt_ids", pa.list_(pa.int32()))])
# Floats whose bytes vary slowly compress best split by byte; ids and ranks by dictionary.
SPLIT = [f"{name}.list.element" for name, kind in COLUMNS.items() if kind == "float32"]


def _column(values: list, kind: pa.DataType) -> pa.Array:
    """One column; numpy arrays become lists without a Python object per number."""
    if not isinstance(next((v for v in values if v is not None), None), np.ndarray):
        return pa.array(values, type=kind)
    missing = np.array([v is None for v in values])
    arrays = [np.zeros(0) if v is None else v for v in values]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    flat = np.concatenate(arrays).astype(kind.value_type.to_pandas_dtype(), copy=False)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat, type=kind.value_type), type=kind, mask=pa.array(missing)
    )


def score_table(rows: Sequence[tuple[Trace, tuple[int, ...], Scored | str]]) -> tuple[pa.Table, pa.Table]:
    """(scores, prompts) of (trace, prompt ids, its Scored record or the reason why there is none)."""
    hashes = {ids: prompt_hash(ids) for ids in {ids for _, ids, _ in rows} if ids}
    known = sorted((h, list(ids)) for ids, h in hashes.items())
    prompts = pa.Table.from_pydict({"prompt": [h for h, _ in known], "prompt_ids": [i for _, i in known]}, PROMPTS)
    # by column, not by row: building rows took as long as compressing them
    results = [result if isinstance(result, Scored) else None for _, _, result in rows]
    columns: dict[str, list] = {name: [getattr(trace, name) for trace, _, _ in rows] for name in IDENTITY}
    columns["prompt"] = [hashes.get(ids) for _, ids, _ in rows]
    columns["status"] = [result if s is None else "ok" for s, (_, _, result) in zip(results, rows, strict=True)]
    columns |= {name: [None if s is None else s.columns.get(name) for s in results] for name in LISTS}
    columns["embedding"] = [None if s is None else s.embedding for s in results]
    for name, number in (("top_position", 0), ("top_token", 1), ("top_logprob", 2)):
        columns[name] = [None if s is None else [row[number] for row in s.top] for s in results]
    return pa.Table.from_arrays([_column(columns[f.name], f.type) for f in SCORES], schema=SCORES), prompts


def fault(scores: pa.Table | pa.RecordBatch) -> str | None:
    """What makes the log-probs of scored rows unusable, in words: a model gives every token a finite one, and none is
    above 0 by more than rounding (a sampler that never draws a token gives it minus infinity)."""
    for name in LOGPROBS:
        if name in scores.schema.names:
            flat = pc.list_flatten(scores[name])
            worst = pc.max(flat).as_py()
            if worst is not None and worst > ROUNDING:
                return f"a {name} of {worst:.6g}, and no log-probability is above 0"
            if name == "logprob" and not (finite := pc.all(pc.is_finite(flat)).as_py()) and finite is not None:
                return "log-probabilities that are not finite"
    return None


def prompt_hash(ids: Sequence[int]) -> str:
    """16 hex digits of the prompt's ids."""
    return hashlib.sha256(np.asarray(ids, np.int32).tobytes()).hexdigest()[:16]


def write_traces(path: Path, traces: Iterable[Trace]) -> int:
    """Write a part in groups of at most BATCH rows and flush it to disk; no file where there are none. Returns how many
    there are."""
    count, rest = 0, iter(traces)
    if (first := next(rest, None)) is None:
        return 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, TRACES, use_dictionary=True, **PACKED) as writer:
            rows, text = [], 0
            for t in chain((first,), rest):
                rows.append(trace_row(t))
                text += len(t.response) + len(t.question or "")
                if len(rows) == BATCH or text >= BATCH_TEXT:
                    writer.write_table(_trace_rows(rows))
                    count, rows, text = count + len(rows), [], 0
            writer.write_table(_trace_rows(rows))
        file.flush()
        os.fsync(file.fileno())
    return count + len(rows)


def _trace_rows(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_arrays([pa.array([row[f.name] for row in rows], f.type) for f in TRACES], schema=TRACES)


def trace_row(t: Trace) -> dict[str, Any]:
    row = {name: getattr(t, name, None) for name in TRACES.names}
    is_messages = isinstance(t.prompt, list)
    row["prompt"], row["messages"] = (None, json.dumps(t.prompt)) if is_messages else (t.prompt, None)
    row["sampler"] = None if t.sampler is None else json.dumps(asdict(t.sampler))
    row["meta"] = orjson.dumps(t.meta, default=str).decode()
    if t.base_logprobs is not None:
        row["base_temperatures"], row["base_logprobs"] = list(t.base_logprobs), list(t.base_logprobs.values())
    if t.policy_logprobs:
        laws = [(source, at, values) for source, held in t.policy_logprobs.items() for at, values in held.items()]
        row |= dict(zip(POLICY, map(list, zip(*laws, strict=True)), strict=True))
    return row


def trace_of(row: dict[str, Any]) -> Trace:
    row = {k: v for k, v in row.items() if k != "key"}
    messages = row.pop("messages")
    row["prompt"] = json.loads(messages) if messages else row["prompt"]
    row["sampler"] = Sampler(**json.loads(row["sampler"])) if row["sampler"] else None
    row["meta"] = json.loads(row["meta"])
    for name in ("prompt_ids", "response_ids", "response_logprobs"):
        row[name] = None if row[name] is None else tuple(row[name])
    temperatures, laws = row.pop("base_temperatures"), row["base_logprobs"]
    row["base_logprobs"] = None if laws is None else dict(zip(temperatures, map(tuple, laws), strict=True))
    sources, temperatures, laws = (row.pop(name) for name in POLICY)
    row["policy_logprobs"] = None if laws is None else {source: {} for source in sources}
    for source, at, values in zip(sources or (), temperatures or (), laws or (), strict=True):
        row["policy_logprobs"][source][at] = tuple(values)
    return Trace(**row)
