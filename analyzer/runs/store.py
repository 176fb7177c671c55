"""A run on disk: Parquet parts and a manifest, written so that a killed run loses at most the part in progress.

Layout and column names are a contract. What is on disk under its final name is complete (`disk`).
This module knows nothing of models or analyses.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jsonlines
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError, nearest
from analyzer.records import Scored, Trace, display, trace_key
from analyzer.runs import manifests
from analyzer.runs.disk import (
    PACKED,
    ahead,
    damaged,
    part_batches,
    part_sum,
    read_part,
    refuse_dangling,
    refused,
    remedy,
    row_count,
    sole_writer,
    write_atomically,
)
from analyzer.runs.parts import Parts
from analyzer.runs.rows import (
    ADDED_SCORES,
    BATCH,
    IDENTITY,
    PROMPTS,
    SCORES,
    SPLIT,
    TABLE,
    TRACES,
    fault,
    prompt_hash,
    score_table,
    trace_of,
    write_traces,
)
from analyzer.runs.same import contents, is_new

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


class Run(Parts):
    """A run directory. Nothing is kept in memory but the path and the manifest."""

    made = False  # whether this object began it (`create`), and nobody else has written into it since
    written = b""  # run.json as this object last wrote it
    contents, is_new = contents, is_new

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return display.run(self.path, self.manifest)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run. Raises DumpError when `path` is not one."""
        return cls(Path(path), manifests.read(Path(path)))

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Open the run at `path`, or start an empty one. Raises ResourceError when the folder can't be written."""
        path = Path(path)
        refuse_dangling(path)
        if (path / "run.json").exists():
            return cls.open(path)
        if part := next((p for folder in ("traces", "scores/*") for p in path.glob(f"{folder}/part-*")), None):
            raise DumpError(f"{path} has parts ({part}) but no run.json; {manifests.REPAIR}")
        try:
            inside = [f for name in ("traces", "scores") for f in sorted((path / name).rglob("[!.]*")) if f.is_file()]
            for foreign in [path / "rejected.jsonl", *inside]:
                if foreign.is_file():
                    raise UsageError(
                        f"{foreign} is there, but no run is; a run would write over it: choose another folder"
                    )
            (path / "traces").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"run folder {path} can't be written: {error.strerror or error}") from error
        with sole_writer(path):
            if not (path / "run.json").exists():  # else another process was faster
                run = cls(path, {"schema": manifests.SCHEMA, "inputs": [], "scorers": {}})
                run.save()
                run.made = True
                return run
        return cls.open(path)

    def discard(self) -> bool:
        """Remove a run that this object made and that nobody else has written into since; returns whether it did. Only
        what belongs to the run goes: a folder that holds anything else stays."""
        with contextlib.suppress(OSError, ResourceError):
            with sole_writer(self.path):
                if not self._own() or any(self.path.glob("scores/*/part-*")):
                    return False
                prompts = self.path.glob("scores/*/prompts-*.parquet")
                for file in (*self._parts("traces"), *prompts, self.path / "rejected.jsonl", self.path / "run.json"):
                    file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # Windows removes what is held later, when it is let go
                    (self.path / ".lock").unlink()
            for folder in (*self.path.glob("scores/*"), self.path / "scores", self.path / "traces", self.path):
                with contextlib.suppress(OSError):  # what something else lies in stays
                    folder.rmdir()
            return True
        return False

    def _own(self) -> bool:
        """Whether this object began the run and nobody else has written its manifest since."""
        file = self.path / "run.json"
        return self.made and file.is_file() and file.read_bytes() == self.written

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes into this run (see `disk.sole_writer`), knowing what others wrote before."""
        with sole_writer(self.path):
            self.made = self._own()
            self.manifest = manifests.read(self.path)
            self._refuse_strangers()
            yield

    def save(self) -> None:
        """Write run.json atomically."""
        self.written = manifests.write(self.path, self.manifest)

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

    def append_traces(self, traces: Iterable[Trace]) -> int:
        """Add traces that are not in the run yet; returns how many. A known key with other content raises DumpError."""
        known = self.contents()
        with self.adding(t for t in traces if self.is_new(t, known)) as added:
            return added

    def origins(self) -> dict[str, str]:
        """Trace key -> where the trace was read (file:line)."""
        out: dict[str, str] = {}
        for batch in self.trace_batches(["key", "origin"]):
            out |= zip(batch["key"].to_pylist(), batch["origin"].to_pylist(), strict=True)
        return out

    @contextlib.contextmanager
    def adding(self, traces: Iterable[Trace]) -> Iterator[int]:
        """Write traces batch by batch; the block gets their number. When it ends, they and the manifest as it then is
        appear at once; where it (or `traces`) raises, nothing does. Raises ResourceError when the disk refuses."""
        lost = self._lost("traces")
        final = self.path / "traces" / (min(lost) if lost else f"part-{self._next('traces')}.parquet")
        temporary = final.with_name(f".{final.name}.tmp")
        try:
            final.parent.mkdir(exist_ok=True)  # lost with all that was in it
            added = write_traces(temporary, traces)
            if lost and added != sum(lost.values()):  # the same dumps again bring it back, nothing else does
                raise self._lost_part("traces", min(lost), "give all of its dumps again, or")
            yield added
            if added:
                kept = {n: wrote for n, wrote in self._recorded("traces").items() if n not in lost}
                kept[final.name] = {"rows": added, "crc32": part_sum(temporary)}
                self.manifest.setdefault("parts", {})["traces"] = dict(sorted(kept.items()))
                # from here on, `open` finishes what a kill cuts short
                said = manifests.read(self.path)
                said |= {"adding": {"part": final.name, "manifest": self.manifest}}
                self.written = manifests.write(self.path, said)
                temporary.replace(final)
            self.save()
        except OSError as error:
            raise refused(final, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def record(self, scorer: str) -> None:
        """Note in the manifest which parts of a scorer there are, once they are all there."""
        self.manifest.setdefault("parts", {})[f"scores/{scorer}"] = self._held(f"scores/{scorer}")

    def traces(self) -> Iterator[Trace]:
        """All traces, in the order they were added."""
        for batch in self.trace_batches():
            yield from map(trace_of, batch.to_pylist())

    def trace_batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the traces (all by default) in the order they were added, by batches. Raises DumpError for a part
        that is not there."""
        self._refuse_lost("traces")
        yield from self.held_traces(columns)

    def score_batches(self, scorer: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Identity, prompt hash and named columns of the scored traces (status ok), by batches."""
        names = [*IDENTITY, "prompt", "status", *columns]
        parts = (
            _scored(part, batch)
            for part in self._whole(f"scores/{scorer}")
            for batch in part_batches(part, SCORES, names, BATCH // 4, added=ADDED_SCORES)
        )
        yield from (scored for scored in ahead(parts) if len(scored))

    def trace_table(self, columns: Sequence[str] = TABLE) -> pd.DataFrame:
        """One row per trace; text, ids and log-probs are left on disk unless asked for."""
        if not self._whole("traces"):
            return pd.DataFrame(columns=list(columns))
        # pandas holds text as large strings: cast batch by batch, or all text would be in memory twice
        kinds = ((n, TRACES.field(n).type) for n in columns)
        schema = pa.schema([(n, pa.large_string() if k == pa.string() else k) for n, k in kinds])
        table = pa.Table.from_batches((b.cast(schema) for b in self.trace_batches(list(columns))), schema)
        frame = table.to_pandas()
        return frame.astype({n: k for n, k in (("step", "Int64"), ("correct", "boolean")) if n in columns})

    def trace_count(self) -> int:
        """How many traces there are."""
        return sum(map(row_count, self._parts("traces")))

    def done(self, scorer: str) -> dict[str, str]:
        """Trace key -> status ("ok" or the reason for not scoring) of everything recorded under a scorer."""
        out: dict[str, str] = {}
        for part in self._parts(f"scores/{scorer}"):
            table = read_part(part, SCORES, [*IDENTITY, "status"])
            out |= zip(map(trace_key, *(table[n].to_pylist() for n in IDENTITY)), table["status"].to_pylist())
        return out

    def append_scores(
        self, scorer: str, rows: Sequence[tuple[Trace, tuple[int, ...], Scored | str]], *, part: str | None = None
    ) -> None:
        """Write one part: (trace, prompt ids, its Scored record or the reason why there is none). Raises AnalyzerError
        where log-probs are above 0 or not finite.

        part: what follows "part-"; a part of that name is written over. By default the next free number.
        """
        if not rows:
            return
        part = part or self._next(f"scores/{scorer}")
        table, prompts = score_table(rows)
        if why := fault(table):
            raise AnalyzerError(f"scores under {scorer} would hold {why}; nothing was written")
        if len(prompts):  # a prompt may stand in several parts: what a part needs must not depend on what else is done
            self._write_part(f"scores/{scorer}", "prompts", prompts, use_dictionary=True, name=part)
        self._write_part(
            f"scores/{scorer}",
            "part",
            table,
            use_dictionary=["source", "problem", "prompt", "status", "token.list.element", "rank.list.element"],
            column_encoding=dict.fromkeys(SPLIT, "BYTE_STREAM_SPLIT"),
            name=part,
        )

    def tokens(self, scorer: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Scored traces part by part: key, source, problem, sample, step, prompt and the named list columns as arrays.

        Raises UsageError for an unknown column or scorer.
        """
        parts = self._whole(f"scores/{scorer}")
        if scorer not in self.scorers():
            if not self.scorers():
                raise UsageError(f"nothing in run {self.path} is scored; score it with --base MODEL")
            raise UsageError(f"run {self.path} has no scores under {scorer!r}{nearest(scorer, self.scorers())}")
        for name in columns:
            if name not in SCORES.names:
                raise UsageError(f"scores have no column {name!r}{nearest(name, SCORES.names)}")
        names = [*IDENTITY, "prompt", "status", *columns]
        tables = (_scored(part, read_part(part, SCORES, names, added=ADDED_SCORES)) for part in parts)
        for table in ahead(tables):
            frame = table.drop_columns(["status"]).to_pandas()
            if frame.empty:
                continue
            frame["step"] = frame["step"].astype("Int64")
            steps = [None if pd.isna(s) else int(s) for s in frame["step"]]
            frame.insert(0, "key", list(map(trace_key, frame["source"], frame["problem"], frame["sample"], steps)))
            yield frame

    def prompts(self, scorer: str) -> dict[str, np.ndarray]:
        """Prompt hash -> prompt ids int32, of one scorer."""
        out = {}
        for part in self._whole(f"scores/{scorer}", "prompts"):
            table = read_part(part, PROMPTS)
            for said, ids in zip(table["prompt"].to_pylist(), table["prompt_ids"].to_pylist(), strict=True):
                if said is None or prompt_hash(ids or ()) != said:
                    raise damaged(part, f"the ids of prompt {said} are not its own")
                out[said] = np.array(ids, np.int32)
        return out

    def reject(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rejected rows to rejected.jsonl: file, line, reason, row; a row already there is not repeated."""
        file = self.path / "rejected.jsonl"
        have = dict.fromkeys(file.read_bytes().splitlines()) if file.exists() else {}
        lines = io.BytesIO()
        jsonlines.Writer(lines, dumps=partial(orjson.dumps, default=str)).write_all(rows)
        fresh = [line for line in lines.getvalue().splitlines() if line not in have]
        if fresh:  # the whole file again: an appended line could be cut in two
            write_atomically(file, b"\n".join([*have, *fresh, b""]))

    def _write_part(self, folder: str, stem: str, table: pa.Table, *, name: str, **options: Any) -> None:
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **PACKED, **options)
        write_atomically(self.path / folder / f"{stem}-{name}.parquet", sink.getvalue())


def _scored(part: Path, rows: Rows) -> Rows:
    """Those with status "ok"; where all have it no copy is made. Raises DumpError where their log-probs can't be."""
    ok = pc.equal(rows["status"], "ok")
    rows = rows if pc.all(ok).as_py() else rows.filter(ok)
    if why := fault(rows):
        raise DumpError(f"{part} holds {why}; {remedy(part)}")
    return rows
