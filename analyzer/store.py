"""A run on disk: Parquet parts and a manifest, written so that a killed run loses at most the part in progress.

Layout and column names are a contract (DESIGN section 5). A part is written under a temporary name, flushed to disk
and renamed; what is on disk under its final name is complete. This module knows nothing of models or analyses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analyzer.errors import DumpError, ResourceError, UsageError, nearest
from analyzer.records import CORE_COLUMNS, SAMPLER_COLUMNS, Sampler, Scored, Trace

SCHEMA = 1
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
LISTS = {
    **{name: pa.list_(pa.from_numpy_dtype(kind)) for name, kind in (CORE_COLUMNS | SAMPLER_COLUMNS).items()},
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
SPLIT = [f"{name}.list.element" for name, kind in (CORE_COLUMNS | SAMPLER_COLUMNS).items() if kind == "float32"]


class Run:
    """A run directory. Nothing is kept in memory but the path and the manifest."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run. Raises DumpError when `path` is not one."""
        path = Path(path)
        file = path / "run.json"
        if not file.is_file():
            raise DumpError(
                f"{path} is not a run: it has no run.json; make one with: analyzer score DUMP... --base MODEL -o {path}"
            )
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DumpError(f"{file}: not valid JSON ({error})") from None
        if manifest.get("schema") != SCHEMA:
            raise DumpError(f"{file}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}")
        return cls(path, manifest)

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Open the run at `path`, or start an empty one. Raises ResourceError when the folder can't be written."""
        path = Path(path)
        if (path / "run.json").exists():
            return cls.open(path)
        try:
            (path / "traces").mkdir(parents=True, exist_ok=True)
            run = cls(path, {"schema": SCHEMA, "inputs": [], "scorers": {}})
            run.save()
        except OSError as error:
            raise ResourceError(f"run folder {path} can't be written: {error}") from error
        return run

    def save(self) -> None:
        """Write run.json atomically."""
        write_atomically(self.path / "run.json", orjson.dumps(self.manifest, option=orjson.OPT_INDENT_2))

    def refuse_changes(self, **settings: Any) -> None:
        """Raise UsageError when a setting differs from the one that the run was made with."""
        recorded = self.manifest.get("settings", {})
        for name, value in settings.items():
            if recorded.get(name, value) != value:
                raise UsageError(
                    f"run {self.path} was made with {name}={json.dumps(recorded[name])}, "
                    f"now {name}={json.dumps(value)}; use the same setting or another -o folder"
                )

    def settle(self, **settings: Any) -> None:
        """Record settings that must not change within a run. Raises UsageError when one differs from the recorded."""
        self.refuse_changes(**settings)
        self.manifest.setdefault("settings", {}).update(settings)
        self.save()

    def append_traces(self, traces: Sequence[Trace]) -> int:
        """Add traces that are not in the run yet; returns how many. A known key with other content raises DumpError."""
        known = {}
        for part in self._parts("traces"):
            table = pq.read_table(part, columns=["key", "response", "correct"])
            known |= dict(
                zip(table["key"].to_pylist(), zip(table["response"].to_pylist(), table["correct"].to_pylist()))
            )
        fresh = []
        for t in traces:
            if t.key not in known:
                fresh.append(t)
            elif known[t.key] != (t.response, t.correct):
                raise DumpError(
                    f"{t.origin}: trace {t.key} is already in run {self.path} with other content; "
                    "give the new dump another label (LABEL=PATH) or use another -o folder"
                )
        if fresh:
            rows = [_trace_row(t) for t in fresh]
            self._write_part("traces", "part", pa.Table.from_pylist(rows, schema=TRACES), use_dictionary=True)
        return len(fresh)

    def traces(self) -> Iterator[Trace]:
        """All traces, in the order they were added."""
        for part in self._parts("traces"):
            for row in pq.read_table(part).to_pylist():
                yield _trace_of(row)

    def trace_table(self) -> pd.DataFrame:
        """One row per trace, as records.Tables wants it (ids and log-probs are left on disk)."""
        columns = [
            "key",
            "source",
            "problem",
            "step",
            "sample",
            "correct",
            "score",
            "finish",
            "answer",
            "group",
            "response",
            "prompt",
            "origin",
        ]
        parts = [pq.read_table(p, columns=columns) for p in self._parts("traces")]
        if not parts:
            return pd.DataFrame(columns=columns)
        frame = pa.concat_tables(parts).to_pandas()
        return frame.astype({"step": "Int64", "correct": "boolean"})

    def done(self, scorer: str) -> dict[str, str]:
        """Trace key -> status ("ok" or the reason for not scoring) of everything recorded under a scorer."""
        from analyzer.records import trace_key

        out = {}
        for part in self._parts(f"scores/{scorer}"):
            rows = pq.read_table(part, columns=["source", "problem", "sample", "step", "status"]).to_pylist()
            out |= {trace_key(r["source"], r["problem"], r["sample"], r["step"]): r["status"] for r in rows}
        return out

    def append_scores(
        self, scorer: str, rows: Sequence[tuple[Trace, tuple[int, ...], Scored | str]], *, part: str | None = None
    ) -> None:
        """Write one part: (trace, prompt ids, its Scored record or the reason why there is none).

        part: what follows "part-"; a part of that name is written over. By default the next free number.
        """
        if not rows:
            return
        prompts = {prompt_hash(ids): list(ids) for _, ids, _ in rows if ids}
        prompts = {h: ids for h, ids in prompts.items() if h not in self._known_prompts(scorer)}
        if prompts:
            table = pa.Table.from_pydict(
                {"prompt": list(prompts), "prompt_ids": list(prompts.values())}, schema=PROMPTS
            )
            self._write_part(f"scores/{scorer}", "prompts", table, use_dictionary=True)
        columns: dict[str, list] = {name: [] for name in SCORES.names}
        for trace, prompt_ids, result in rows:
            scored = result if isinstance(result, Scored) else None
            values = {
                "source": trace.source,
                "problem": trace.problem,
                "sample": trace.sample,
                "step": trace.step,
                "prompt": prompt_hash(prompt_ids) if prompt_ids else None,
                "status": "ok" if scored else result,
            }
            if scored is not None:
                values |= scored.columns
                values["embedding"] = scored.embedding
                values["top_position"] = [p for p, _, _ in scored.top]
                values["top_token"] = [list(ids) for _, ids, _ in scored.top]
                values["top_logprob"] = [list(lp) for _, _, lp in scored.top]
            for name in columns:
                columns[name].append(values.get(name))
        table = pa.Table.from_arrays([_column(columns[f.name], f.type) for f in SCORES], schema=SCORES)
        self._write_part(
            f"scores/{scorer}",
            "part",
            table,
            use_dictionary=["source", "problem", "prompt", "status", "token.list.element", "rank.list.element"],
            column_encoding=dict.fromkeys(SPLIT, "BYTE_STREAM_SPLIT"),
            name=part,
        )

    def scorers(self) -> list[str]:
        """Labels of the models that something was scored under."""
        folder = self.path / "scores"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def tokens(self, scorer: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Scored traces part by part: key, source, problem, sample, step, prompt and the named list columns as arrays.

        Raises UsageError for an unknown column or scorer.
        """
        from analyzer.records import trace_key

        if scorer not in self.scorers():
            if not self.scorers():
                raise UsageError(f"nothing in run {self.path} is scored; score it with --base MODEL")
            raise UsageError(f"run {self.path} has no scores under {scorer!r}{nearest(scorer, self.scorers())}")
        for name in columns:
            if name not in SCORES.names:
                raise UsageError(f"scores have no column {name!r}{nearest(name, SCORES.names)}")
        identity = ["source", "problem", "sample", "step", "prompt"]
        for part in self._parts(f"scores/{scorer}"):
            frame = pq.read_table(part, columns=[*identity, *columns], filters=[("status", "=", "ok")]).to_pandas()
            if frame.empty:
                continue
            frame["step"] = frame["step"].astype("Int64")
            steps = [None if pd.isna(s) else int(s) for s in frame["step"]]
            frame.insert(0, "key", list(map(trace_key, frame["source"], frame["problem"], frame["sample"], steps)))
            yield frame

    def prompts(self, scorer: str) -> dict[str, np.ndarray]:
        """Prompt hash -> prompt ids int32, of one scorer."""
        out = {}
        for part in self._parts(f"scores/{scorer}", "prompts"):
            table = pq.read_table(part)
            out |= dict(
                zip(table["prompt"].to_pylist(), (np.array(i, np.int32) for i in table["prompt_ids"].to_pylist()))
            )
        return out

    def reject(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rejected rows to rejected.jsonl: file, line, reason, row; a row already there is not repeated."""
        file = self.path / "rejected.jsonl"
        have = set(file.read_bytes().splitlines()) if file.exists() else set()
        lines = [orjson.dumps(r, default=str) for r in rows]
        fresh = [line for line in lines if line not in have]
        if fresh:
            with file.open("ab") as f:
                f.write(b"\n".join(fresh) + b"\n")

    def _known_prompts(self, scorer: str) -> set[str]:
        return {
            h
            for part in self._parts(f"scores/{scorer}", "prompts")
            for h in pq.read_table(part, columns=["prompt"])["prompt"].to_pylist()
        }

    def _parts(self, folder: str, stem: str = "part") -> list[Path]:
        return sorted((self.path / folder).glob(f"{stem}-*.parquet"))

    def _write_part(self, folder: str, stem: str, table: pa.Table, *, name: str | None = None, **options: Any) -> None:
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        if name is None:
            number = 1 + max((int(p.stem.split("-")[1]) for p in self._parts(folder, stem)), default=-1)
            name = f"{number:05d}"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", **options)
        write_atomically(self.path / folder / f"{stem}-{name}.parquet", sink.getvalue())


def _column(values: list, kind: pa.DataType) -> pa.Array:
    """One column; numpy arrays become lists without a Python object per number."""
    if not pa.types.is_list(kind) or not any(isinstance(v, np.ndarray) for v in values):
        return pa.array(values, type=kind)
    missing = np.array([v is None for v in values])
    arrays = [np.zeros(0) if v is None else v for v in values]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    flat = np.concatenate(arrays).astype(kind.value_type.to_pandas_dtype(), copy=False)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat, type=kind.value_type), type=kind, mask=pa.array(missing)
    )


def write_atomically(path: Path, data: bytes | pa.Buffer) -> None:
    """Write to a temporary name, flush to disk, rename. Raises ResourceError when the disk refuses."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ResourceError(f"{path} can't be written: {error}") from error


def prompt_hash(ids: Sequence[int]) -> str:
    """16 hex digits of the prompt's ids."""
    return hashlib.sha256(np.asarray(ids, np.int32).tobytes()).hexdigest()[:16]


def _trace_row(t: Trace) -> dict[str, Any]:
    row = {name: getattr(t, name, None) for name in TRACES.names}
    is_messages = isinstance(t.prompt, list)
    row["prompt"], row["messages"] = (None, json.dumps(t.prompt)) if is_messages else (t.prompt, None)
    row["sampler"] = None if t.sampler is None else json.dumps(asdict(t.sampler))
    row["meta"] = orjson.dumps(t.meta, default=str).decode()
    return row


def _trace_of(row: dict[str, Any]) -> Trace:
    row = {k: v for k, v in row.items() if k != "key"}
    messages = row.pop("messages")
    row["prompt"] = json.loads(messages) if messages else row["prompt"]
    row["sampler"] = Sampler(**json.loads(row["sampler"])) if row["sampler"] else None
    row["meta"] = json.loads(row["meta"])
    for name in ("prompt_ids", "response_ids", "response_logprobs"):
        row[name] = None if row[name] is None else tuple(row[name])
    return Trace(**row)
