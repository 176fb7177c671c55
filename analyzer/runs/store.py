"""A run on disk: Parquet parts and a manifest, written so that a killed run loses at most the part in progress.

Layout and column names are a contract. What is on disk under its final name is complete (`disk`).
This module knows nothing of models or analyses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError, nearest
from analyzer.records import Scored, Trace, display, trace_key
from analyzer.runs.disk import (
    PACKED,
    ahead,
    damaged,
    part_batches,
    part_sum,
    read_part,
    refuse_dangling,
    remedy,
    row_count,
    sole_writer,
    unwritable,
    write_atomically,
)
from analyzer.runs.rows import (
    ADDED,
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
    trace_row,
    write_traces,
)

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
SCHEMA = 1
PART = re.compile(r"(part|prompts)-\d{5,}(-[0-9a-f]{8})?\.parquet")  # the names of parts
REPAIR = "restore run.json from a copy, or make the run again in another -o folder; the Parquet parts are untouched"
# what a trace is: a dump that says otherwise under the same key is another dump
COMPARED = [
    "key",
    "prompt",
    "messages",
    "question",
    "response",
    "prompt_ids",
    "response_ids",
    "base_temperatures",
    "policy_sources",
    "policy_temperatures",
    "correct",
    "score",
    "finish",
    "answer",
    "group",
]
# compared too, as float32; so is the mask, which meta holds
NUMBERS = ("response_logprobs", "base_logprobs", "policy_logprobs")
HELD = (*NUMBERS, "response_ids", "meta")


class Run:
    """A run directory. Nothing is kept in memory but the path and the manifest."""

    made = False  # whether this object began it (`create`), and nobody else has written into it since
    written = b""  # run.json as this object last wrote it

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return display.run(self.path, self.manifest)

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
            manifest = orjson.loads(file.read_bytes())
        except ValueError as error:
            raise DumpError(f"{file}: not valid JSON ({error}); {REPAIR}") from None
        if not isinstance(manifest, dict) or "schema" not in manifest:
            raise DumpError(f"{file}: not the manifest of a run; {REPAIR}")
        if manifest["schema"] != SCHEMA:
            raise DumpError(f"{file}: schema {manifest['schema']!r}, this version reads {SCHEMA}")
        for name, kind in {"inputs": list, "scorers": dict, "settings": dict, "samplers": dict}.items():
            if not isinstance(({"settings": {}, "samplers": {}} | manifest).get(name), kind):
                raise DumpError(f"{file}: {name!r} is missing or damaged; {REPAIR}")
        check = manifest.pop("check", None)  # earlier versions wrote none
        if check not in (None, _check(manifest)):
            raise DumpError(
                f"{file} is not as it was written: a disk or a hand has changed it; {REPAIR}. If it is to be as it is "
                'now, take the line with "check" out of it'
            )
        cut = manifest.pop("adding", None)  # killed in `adding`: with the part in place all is there, else nothing
        return cls(path, cut["manifest"] if cut and (path / "traces" / cut["part"]).exists() else manifest)

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Open the run at `path`, or start an empty one. Raises ResourceError when the folder can't be written."""
        path = Path(path)
        refuse_dangling(path)
        if (path / "run.json").exists():
            return cls.open(path)
        if part := next((p for folder in ("traces", "scores/*") for p in path.glob(f"{folder}/part-*")), None):
            raise DumpError(f"{path} has parts ({part}) but no run.json; {REPAIR}")
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
                run = cls(path, {"schema": SCHEMA, "inputs": [], "scorers": {}})
                run.save()
                run.made = True
                return run
        return cls.open(path)

    def discard(self) -> bool:
        """Remove a run that this object made and that nobody else has written into since; returns whether it did. Only
        what belongs to the run goes: a folder that holds anything else stays."""
        with contextlib.suppress(OSError, ResourceError), sole_writer(self.path):
            if not self._own() or any(self.path.glob("scores/*/part-*")):
                return False
            prompts = self.path.glob("scores/*/prompts-*.parquet")
            for file in (*self._parts("traces"), *prompts, self.path / "rejected.jsonl", self.path / "run.json"):
                file.unlink(missing_ok=True)
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
            self.manifest = Run.open(self.path).manifest
            self._refuse_strangers()
            yield

    def save(self) -> None:
        """Write run.json atomically."""
        self._write_manifest(self.manifest)

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        self.written = orjson.dumps(manifest | {"check": _check(manifest)}, option=orjson.OPT_INDENT_2)
        write_atomically(self.path / "run.json", self.written)

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

    def contents(self) -> dict[str, int]:
        """Trace key -> hash (of this process) of what the trace is: COMPARED columns, log-probs and mask."""
        known: dict[str, int] = {}
        for batch in self.trace_batches([*COMPARED, *NUMBERS, "meta"]):
            rows = zip(*(batch[name].to_pylist() for name in COMPARED), strict=True)
            held = (
                dict(zip(HELD, cells, strict=True)) for cells in zip(*(_cells(batch[n]) for n in HELD), strict=True)
            )
            known |= {row[0]: hash((repr(row), *_numbers(more))) for row, more in zip(rows, held, strict=True)}
        return known

    def is_new(self, t: Trace, known: Mapping[str, int]) -> bool:
        """Whether `known` (`contents`) lacks the trace. Raises DumpError where it has the key with other content."""
        if not known or t.key not in known:
            return True
        row = trace_row(t)
        row |= {n: list(row[n]) for n in ("prompt_ids", "response_ids") if row[n] is not None}
        numbers = _numbers(row)
        if known[t.key] != hash((repr(tuple(row[name] for name in COMPARED)), *numbers)):
            rows = (r for b in self.trace_batches([*COMPARED, *NUMBERS, "meta", "origin"]) for r in b.to_pylist())
            old = next(r for r in rows if r["key"] == t.key)
            names = [name for name in COMPARED if row[name] != old[name]]
            names += [n for n, a, b in zip((*NUMBERS, "response_mask"), numbers, _numbers(old), strict=True) if a != b]
            different = ", ".join(names)
            if not different:  # 1 and 1.0
                return False
            same_file = re.sub(r"[:#]\d+$", "", t.origin) == re.sub(r"[:#]\d+$", "", old["origin"])
            changed = ": the file has changed since" if same_file else ""
            if same_file and names == ["response_mask"] and _numbers(old)[-1] is None:
                changed += ", or the run is of an earlier version, which read no masks"
            hint = "restore the file" if same_file else "give the new dump another label (LABEL=PATH)"
            raise DumpError(
                f"{t.origin}: trace {t.key} is already in run {self.path}, from {old['origin']}, with other content "
                f"({different}){changed}; {hint} or use another -o folder"
            )
        return False

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
            added = write_traces(temporary, traces)
            if lost and added != sum(lost.values()):  # the same dumps again bring it back, nothing else does
                raise self._lost_part("traces", min(lost), "give all of its dumps again, or")
            yield added
            if added:
                kept = {n: wrote for n, wrote in self._recorded("traces").items() if n not in lost}
                kept[final.name] = {"rows": added, "crc32": part_sum(temporary)}
                self.manifest.setdefault("parts", {})["traces"] = dict(sorted(kept.items()))
            if added:  # from here on, `open` finishes what a kill cuts short
                said = Run.open(self.path).manifest
                self._write_manifest(said | {"adding": {"part": final.name, "manifest": self.manifest}})
                temporary.replace(final)
            self.save()
        except OSError as error:
            raise unwritable(final, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def record(self, scorer: str) -> None:
        """Note in the manifest which parts of a scorer there are, once they are all there."""
        self.manifest.setdefault("parts", {})[f"scores/{scorer}"] = self._held(f"scores/{scorer}")

    def verify(self, *, sums: bool = False) -> None:
        """Raise DumpError, naming the part, when one that was recorded is not there, has another number of rows or,
        with `sums` (which reads every byte), is not as it was written."""
        self._refuse_strangers()
        recorded = self.manifest.get("parts", {})
        again = "run the same line again, which does only those traces again, or"
        for folder, known in recorded.items():
            for name in self._lost(folder):
                raise self._lost_part(folder, name, again)
            for name, wrote in known.items():
                path = self.path / folder / name
                if (rows := row_count(path)) != wrote["rows"]:
                    raise damaged(path, f"{rows:,} rows, {wrote['rows']:,} were written")
                if sums and part_sum(path) != wrote["crc32"]:
                    raise damaged(path, "its bytes are not those that were written")
        for label, counts in self.manifest.get("finished", {}).items():  # of earlier versions no more is known
            if counts and f"scores/{label}" not in recorded and (n := self.status_counts(label).total()) < counts[1]:
                raise DumpError(
                    f"{self.path / 'scores' / label} holds {n:,} traces, {counts[1]:,} were scored: a part is not "
                    f"there; {again} restore it"
                )

    def _refuse_strangers(self) -> None:
        """Raise DumpError for a part that the run did not write, naming it."""
        if self._strangers(self.manifest) and (found := self._strangers(Run.open(self.path).manifest)):  # as it is now
            raise DumpError(
                f"{found[0]} is no part that run {self.path} wrote: run.json does not list it (a copy, or of another "
                "run?), and its rows would count twice or be of other traces; move it out of the run"
            )

    def _strangers(self, manifest: Mapping[str, Any]) -> list[Path]:
        """Parts of a name that the run gives none, or not recorded where all are: of a scorer once it has finished.
        Until then a killed call may have left parts, with which the next one goes on."""
        recorded, out = manifest.get("parts", {}), []
        for folder in ("traces", *(f"scores/{label}" for label in self.scorers())):
            whole = folder == "traces" or manifest.get("finished", {}).get(folder.removeprefix("scores/"))
            known = recorded.get(folder) if whole else None
            parts = (p for stem in ("part", "prompts") for p in self._parts(folder, stem))
            out += [p for p in parts if not PART.fullmatch(p.name) or (known is not None and p.name not in known)]
        return out

    def _held(self, folder: str) -> dict[str, dict[str, Any]]:
        """Part -> {"rows", "crc32"}, of what is there."""
        parts = (p for stem in ("part", "prompts") for p in self._parts(folder, stem))
        return {p.name: {"rows": row_count(p), "crc32": part_sum(p)} for p in parts}

    def _recorded(self, folder: str) -> dict[str, dict[str, Any]]:
        """The same of what was recorded; of an earlier version's run, what is there."""
        known = self.manifest.get("parts", {}).get(folder)
        return self._held(folder) if known is None else known

    def _lost(self, folder: str) -> dict[str, int]:
        """Part -> rows, of what was recorded and is not there."""
        known = self.manifest.get("parts", {}).get(folder, {})
        return {n: wrote["rows"] for n, wrote in known.items() if not (self.path / folder / n).is_file()}

    def _lost_part(self, folder: str, name: str, remedy: str) -> DumpError:
        rows = self.manifest["parts"][folder][name]["rows"]
        return DumpError(
            f"{self.path / folder / name} is not there, {rows:,} rows of the run were in it; {remedy} restore the file"
        )

    def traces(self) -> Iterator[Trace]:
        """All traces, in the order they were added."""
        for batch in self.trace_batches():
            yield from map(trace_of, batch.to_pylist())

    def trace_batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the traces (all by default) in the order they were added, by batches."""
        for part in self._parts("traces"):
            yield from part_batches(part, TRACES, columns, BATCH, added=ADDED)

    def score_batches(self, scorer: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Identity, prompt hash and named columns of the scored traces (status ok), by batches."""
        names = [*IDENTITY, "prompt", "status", *columns]
        parts = (
            _scored(part, batch)
            for part in self._parts(f"scores/{scorer}")
            for batch in part_batches(part, SCORES, names, BATCH // 4, added=ADDED_SCORES)
        )
        yield from (scored for scored in ahead(parts) if len(scored))

    def trace_table(self, columns: Sequence[str] = TABLE) -> pd.DataFrame:
        """One row per trace; text, ids and log-probs are left on disk unless asked for."""
        if not self._parts("traces"):
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

    def status_counts(self, scorer: str) -> Counter[str]:
        """Status ("ok" or the reason for not scoring) -> traces recorded under a scorer."""
        counts: Counter[str] = Counter()
        for part in self._parts(f"scores/{scorer}"):
            counts.update(read_part(part, SCORES, ["status"])["status"].to_pylist())
        return counts

    def done(self, scorer: str) -> dict[str, str]:
        """Trace key -> status ("ok" or the reason for not scoring) of everything recorded under a scorer."""
        out = {}
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

    def scorers(self) -> list[str]:
        """Labels of the models that something was scored under."""
        folder = self.path / "scores"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def tokens(self, scorer: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Scored traces part by part: key, source, problem, sample, step, prompt and the named list columns as arrays.

        Raises UsageError for an unknown column or scorer.
        """
        if scorer not in self.scorers():
            if not self.scorers():
                raise UsageError(f"nothing in run {self.path} is scored; score it with --base MODEL")
            raise UsageError(f"run {self.path} has no scores under {scorer!r}{nearest(scorer, self.scorers())}")
        for name in columns:
            if name not in SCORES.names:
                raise UsageError(f"scores have no column {name!r}{nearest(name, SCORES.names)}")
        names = [*IDENTITY, "prompt", "status", *columns]
        parts = self._parts(f"scores/{scorer}")
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
        for part in self._parts(f"scores/{scorer}", "prompts"):
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
        lines = [orjson.dumps(r, default=str) for r in rows]
        fresh = [line for line in lines if line not in have]
        if fresh:  # the whole file again: an appended line could be cut in two
            write_atomically(file, b"\n".join([*have, *fresh, b""]))

    def _parts(self, folder: str, stem: str = "part") -> list[Path]:
        return sorted((self.path / folder).glob(f"{stem}-*.parquet"))

    def _next(self, folder: str) -> str:
        """The number of a new part."""
        return f"{1 + max((int(p.stem.split('-')[1]) for p in self._parts(folder)), default=-1):05d}"

    def _write_part(self, folder: str, stem: str, table: pa.Table, *, name: str, **options: Any) -> None:
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **PACKED, **options)
        write_atomically(self.path / folder / f"{stem}-{name}.parquet", sink.getvalue())


def _check(manifest: Mapping[str, Any]) -> str:
    """16 hex digits of what a manifest says."""
    return hashlib.sha256(orjson.dumps(manifest)).hexdigest()[:16]


def _cells(column: pa.Array) -> list[Any]:
    """The values of a column; lists of numbers as arrays, as making an object of each takes long."""
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    inner = pa.types.is_list(column.type.value_type)
    return [
        None if (v := cell.values) is None else (v.flatten() if inner else v).to_numpy(zero_copy_only=False)
        for cell in column
    ]


def _numbers(row: Mapping[str, Any]) -> tuple[bytes | None, ...]:
    """Log-probs and mask of a row with HELD, in a form that is equal where they are."""
    found: list[bytes | None] = []
    for name in NUMBERS:
        values = row[name]
        if values is not None and len(values) and isinstance(values[0], list | tuple):
            values = [v for law in values for v in law]
        flat = None if values is None else np.asarray(values, np.float32) + np.float32(0)  # -0 is 0
        found.append(None if flat is None else np.where(np.isnan(flat), np.float32(np.nan), flat).tobytes())
    mask, ids = None, row["response_ids"]
    if '"response_mask"' in row["meta"] and ids is not None:
        mask = orjson.loads(row["meta"]).get("response_mask")
    masks = isinstance(mask, list) and len(mask) == len(ids) and 0 in mask  # else it leaves no token out, or is none
    return *found, orjson.dumps(mask) if masks else None


def _scored(part: Path, rows: Rows) -> Rows:
    """Those with status "ok"; where all have it no copy is made. Raises DumpError where their log-probs can't be."""
    ok = pc.equal(rows["status"], "ok")
    rows = rows if pc.all(ok).as_py() else rows.filter(ok)
    if why := fault(rows):
        raise DumpError(f"{part} holds {why}; {remedy(part)}")
    return rows
