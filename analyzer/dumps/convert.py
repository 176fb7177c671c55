"""Any dump as the package's own rows: JSON lines or Parquet that reads back to the same traces."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any

import jsonlines
import orjson
import zstandard

from analyzer.dumps.dialects.small import AS_JSON
from analyzer.dumps.numbers import Laws, mask_of
from analyzer.dumps.read import Ledger, batches
from analyzer.errors import UsageError
from analyzer.records import Trace
from analyzer.records.steps import signed, taken
from analyzer.runs.disk import PACKED, refuse_dangling, replacing, sole_writer

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
OWN = ("gold", "seed", "max_tokens")  # kept in meta by a Trace, fields of their own in a row
BATCH = 4096  # rows of a Parquet row group

Progress = Callable[[str, int, int, int], None]


@signed("convert")
def convert(
    specs: Sequence[str],
    out: str | Path,
    *,
    progress: Progress = lambda what, done, total, tokens: None,
    **options: Any,
) -> Ledger:
    """Read dumps (options as of `dumps.read.read_dumps`) and write all their traces to one file; its ending says how.

    What is not kept: the place of a trace in its file (origin, meta.row), which is its place in the new file then.
    Raises DumpError, UsageError (ending, or a file that is there already), ResourceError (disk).
    """
    [read] = taken("convert", options)
    target = Path(out)
    if not target.name.endswith(ENDINGS):
        raise UsageError(f"{out}: the ending says how to write; expected one of {', '.join(ENDINGS)}")
    refuse_dangling(target)
    if target.exists():
        raise UsageError(f"{out} is there already and is not written over; remove it, or choose another name")
    ledger = Ledger()
    with sole_writer(target.parent, target.name):
        write(chain.from_iterable(_counted(batches(specs, ledger, read=read), progress)), target)
    return ledger


def _counted(read: Iterable[list[Trace]], progress: Progress) -> Iterator[list[Trace]]:
    done = 0
    progress("reading traces", done, 0, 0)
    for batch in read:
        yield batch
        progress("reading traces", (done := done + len(batch)), 0, 0)


def write(traces: Iterable[Trace], target: Path) -> None:
    """Write traces as canonical rows; the file appears under its name only when it is whole."""
    if target.suffix == ".parquet":
        with replacing(target) as temporary:
            _write_parquet(traces, temporary)
    else:
        with packed(target) as stream:
            jsonlines.Writer(stream, dumps=orjson.dumps).write_all(map(row, traces))


def row(trace: Trace) -> dict[str, Any]:
    """The canonical row of a trace, as docs/formats.md shows it; what is not known is left out."""
    own = {k: trace.meta[k] for k in OWN if k in trace.meta}
    if (mask := mask_of(trace)) is not None:
        own["response_mask"] = mask
    meta = {k: v for k, v in trace.meta.items() if k not in own and k not in ("row", "finish_raw", "valid_votes")}
    values = {
        "source": trace.source,
        "problem": trace.problem,
        "sample": trace.sample,
        "step": trace.step,
        "question": trace.question,
        "prompt": trace.prompt,
        "response": trace.response,
        "prompt_ids": trace.prompt_ids,
        "response_ids": trace.response_ids,
        "response_logprobs": trace.response_logprobs and _numbers(trace.response_logprobs, None),
        "logprobs_temperature": trace.logprobs_temperature,
        "base_logprobs": trace.base_logprobs and _laws(trace.base_logprobs),
        "policy_logprobs": trace.policy_logprobs and {s: _laws(laws) for s, laws in trace.policy_logprobs.items()},
        "sampler": asdict(trace.sampler) if trace.sampler else None,
        "finish": trace.finish or trace.meta.get("finish_raw"),
        "correct": trace.correct,
        "valid": trace.meta.get("valid_votes"),
        "score": trace.score,
        "answer": trace.answer,
        "group": trace.group,
        **own,
        "meta": meta or None,
    }
    return {k: v for k, v in values.items() if v is not None}


def _laws(laws: Laws) -> dict[str, Sequence[float | str | None]]:
    return {repr(t): _numbers(values, "-inf") for t, values in laws.items()}


def _numbers(values: tuple[float, ...], impossible: str | None) -> Sequence[float | str | None]:
    """Log-probs as JSON can hold them: null where unknown."""
    if math.isfinite(sum(values)):
        return values
    return [None if v != v else impossible if v == -math.inf else v for v in values]


@contextmanager
def packed(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to, compressed as its ending says (equal content gives equal bytes), which appears under its name
    only when it is whole. Raises ResourceError when the disk refuses."""
    with replacing(target) as temporary, temporary.open("wb") as raw:
        if target.suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
                yield stream
        elif target.suffix == ".zst":
            with zstandard.ZstdCompressor(write_checksum=True).stream_writer(raw, closefd=False) as stream:
                yield stream
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


def _write_parquet(traces: Iterable[Trace], path: Path) -> None:
    """One column per field; chat messages, the sampler, log-probs under the base, the reference answer and meta as JSON
    text, since their shape may change from row to row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, integer, real = pa.string(), pa.int64(), pa.float64()
    schema = pa.schema(
        {name: text for name in ("source", "problem", "question", "prompt", "response", "finish", "answer", "group")}
        | {name: integer for name in ("sample", "step", "seed", "max_tokens")}
        | {name: real for name in ("score", "logprobs_temperature")}
        | {"correct": pa.bool_(), "valid": pa.list_(pa.bool_())}
        | {"prompt_ids": pa.list_(pa.int32()), "response_ids": pa.list_(pa.int32())}
        | {"response_logprobs": pa.list_(real), "response_mask": pa.list_(pa.int8())}
        | {f"{name}_json": text for name in AS_JSON}
    )
    with pq.ParquetWriter(path, schema, **PACKED) as writer:
        batch: list[dict[str, Any]] = []
        for trace in traces:
            values = row(trace)
            if isinstance(values.get("prompt"), list):
                values["messages"] = values.pop("prompt")
            for name in AS_JSON:
                if name in values:
                    values[f"{name}_json"] = orjson.dumps(values.pop(name)).decode()
            batch.append(values)
            if len(batch) == BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
