"""Tables of rows and lists of Traces as files: written as JSON lines, so that the one reader reads them, by its rules
and into its ledger. What is missing in a frame is null; what JSON can't hold is refused, never turned into text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from analyzer.dumps.convert import row
from analyzer.dumps.read import Ledger, batches
from analyzer.dumps.specs import LABEL
from analyzer.errors import ResourceError, UsageError
from analyzer.records import Trace
from analyzer.records.options import ReadOptions

UNNAMED = "unnamed-rows"  # file name of rows without a label; no source may be called so


def specs(data: Any, folder: Path) -> list[str]:
    """What `dumps.read.read_dumps` takes (see `notebook.load` for `data`); rows go to files in `folder`.

    Raises UsageError for what is no dump, ResourceError when the folder can't be written.
    """
    if isinstance(data, Mapping):
        return [spec for label, part in data.items() for spec in _part(part, folder, label)]
    return _part(data, folder, None)


def refuse_unnamed(specs: Sequence[str], read: ReadOptions) -> None:
    """Raise UsageError where rows without a label do not say themselves which source they come from.

    specs: of `specs`.
    """
    for spec in specs:
        path = Path(spec)
        if path.name != f"{UNNAMED}.jsonl":
            continue
        ledger = Ledger()
        for _ in batches([spec], ledger, read=replace(read, sampler={})):
            pass
        if {UNNAMED, path.parent.name} & {s for account in ledger.files for s in account["sources"]}:
            raise UsageError(
                "these rows do not name their source; say it: {'base': rows}, or in a field `source` of every row"
            )


def _part(data: Any, folder: Path, label: Any) -> list[str]:
    if label is not None and not (isinstance(label, str) and LABEL.match(label)):
        raise UsageError(f"label {label!r}: expected letters, digits and . + - _ (it names the source)")
    lead = "" if label is None else f"{label}="
    if isinstance(data, (str, os.PathLike)):
        return [lead + os.fspath(data)]
    if isinstance(data, (list, tuple)) and data and all(isinstance(x, (str, os.PathLike)) for x in data):
        return [lead + os.fspath(x) for x in data]
    return [lead + str(_write(_rows(data), folder, label or UNNAMED))]


def _rows(data: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table, or of Traces, as dicts. Raises UsageError for anything else."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        if any(n is not None for n in data.index.names):
            data = data.reset_index()
        if not data.columns.is_unique or not all(isinstance(c, str) for c in data.columns):
            raise UsageError(
                f"the columns of a table need names of their own that are text, got {list(data.columns)[:8]}"
            )
        data = data.astype(object).where(data.notna(), None).to_dict("records")
    elif hasattr(data, "__arrow_c_stream__"):
        import pyarrow as pa

        data = pa.table(data).to_pylist()
    if isinstance(data, (bytes, Mapping)) or not isinstance(data, Iterable):
        raise UsageError(
            f"{type(data).__name__} is no dump; expected a path, a table, a list of dicts or Traces, or label -> these"
        )
    for i, item in enumerate(data):
        if isinstance(item, Trace):
            item = row(item)
        if not isinstance(item, Mapping) or not all(isinstance(k, str) for k in item):
            raise UsageError(
                f"row {i} is {type(item).__name__}: {str(item)[:60]!r}; expected a dict by field, or a Trace"
            )
        yield dict(item)


def _write(rows: Iterable[dict[str, Any]], folder: Path, name: str) -> Path:
    """Write rows as JSON lines to folder/HASH/name.jsonl, the hash of the content: the same rows are the same file."""
    digest, count = hashlib.sha256(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.part"
        try:
            with part.open("wb") as file:
                for count, item in enumerate(rows, 1):
                    line = _line(item, count - 1)
                    digest.update(line)
                    file.write(line)
            if not count:
                raise UsageError(f"no rows in the data for {name!r}")
            target = folder / digest.hexdigest()[:12] / f"{name}.jsonl"
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} can't be written: {error}") from error
    return target


def _line(item: dict[str, Any], number: int) -> bytes:
    try:
        return (json.dumps(item, default=_plain) + "\n").encode()
    except (TypeError, ValueError, RecursionError):
        for name, value in item.items():
            try:
                json.dumps(value, default=_plain)
            except (TypeError, ValueError, RecursionError) as error:
                raise UsageError(f"row {number}, {name}: can't be written as JSON ({error})") from None
        raise


def _plain(value: Any) -> Any:
    """NumPy values as Python's, dates as ISO text, missing values as null."""
    import pandas as pd

    if hasattr(value, "tolist"):
        return value.tolist()
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is none of its types")
