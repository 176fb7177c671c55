"""What handovers left in a run: RUN/handover/SOURCE.jsonl, a line of settings, then a line per prefix of a trace.

A killed call leaves whole lines and perhaps a torn one, which the next call cuts off. Every line has a sum of its own;
how many rows a finished call left is in run.json. `docs/contracts.md` has the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonlines

from analyzer.errors import DumpError, UsageError
from analyzer.runs import lines
from analyzer.runs.disk import replacing, unwritable

FOLDER = "handover"
LONGEST = 200  # bytes of a file's name, of which systems take 255
AGAIN = "remove the file, or this line and all below it, and hand over again"
SETTINGS = {"base", "cuts"}  # that a reader needs
ROW = {"by", "source", "problem", "key", "cuts", "step", "of", "tokens", "next", "n", "correct", "unread", "cut_off"}


def file(run: Path, source: str) -> Path:
    name = quote(source, safe="")
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return run / FOLDER / f"{name}.jsonl"


def files(run: Path) -> list[Path]:
    """All that are there."""
    return sorted((run / FOLDER).glob("*.jsonl"))


def read(path: Path, most: int | None = None) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """(settings, rows without the texts that were drawn, bytes of whole lines) of the first `most` lines, or of all; a
    torn last line is left out. Raises DumpError for other content, and where a prefix stands twice."""
    found: list[dict[str, Any]] = []
    end = 0
    for row, size in _lines(path, most):
        row.pop("responses", None)  # a run's worth of text
        found.append(row)
        end += size
    return (found[0] if found else {}), found[1:], end


def _lines(path: Path, most: int | None = None) -> Iterator[tuple[dict[str, Any], int]]:
    """What the first whole lines hold, and their bytes."""
    known: set[tuple[Any, ...]] = set()
    with path.open("rb") as stream:
        for number, line in enumerate(islice(stream, most), 1):
            if not line.endswith(b"\n"):
                break
            row = lines.parsed(line)
            if row is None or not (ROW if number > 1 else SETTINGS) <= row.keys():
                raise DumpError(f"{path}:{number}: no line of a handover; {AGAIN}")
            prefix = tuple(row.get(name) for name in ("by", "key", "step"))
            if prefix in known:
                raise DumpError(f"{path}:{number}: this prefix was there before; {AGAIN}")
            known.add(prefix)
            yield row, len(line)


def counts(run: Path) -> dict[str, int]:
    """How many rows are in each file."""
    return {path.name: len(read(path)[1]) for path in files(run)}


def rows(run: Path, base: str, finished: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """All rows that are there, once for each `cut` that falls on them, of `cuts` (how many there are). base: the
    fingerprint of the run's base model; finished: the `counts` of the last call that ended. Raises DumpError where
    another base drew, and where rows are gone."""
    here = counts(run)
    for name, n in finished.items():
        if here.get(name, 0) < n:
            raise DumpError(f"{run / FOLDER / name}: of {n:,} rows {here.get(name, 0):,} are left; hand over again")
    for path in files(run):
        begun, found, _ = read(path)
        if begun and begun["base"] != base:
            raise DumpError(f"{path} was drawn from another base model than the run's; remove it and hand over again")
        yield from (row | {"cut": cut, "cuts": begun["cuts"]} for row in found for cut in row["cuts"])


def settings(run: Path) -> dict[Path, dict[str, Any]]:
    """Of each file that is there, by its first line; files that were torn there have none. Raises DumpError."""
    found = {path: read(path, 1)[0] for path in files(run)}
    return {path: begun for path, begun in found.items() if begun}


def rewrite(path: Path, head: Mapping[str, Any], changed: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Put `head` and each row as `changed` gives it (None: without it) in the place of the file, at once."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        writer = jsonlines.Writer(stream, dumps=lines.line)
        writer.write(head)
        found = (changed(row) for row, _ in islice(_lines(path), 1, None))
        writer.write_all(row for row in found if row is not None)
        stream.flush()
        os.fsync(stream.fileno())


def refuse_other(run: Path, wanted: dict[str, Any]) -> None:
    """Raise UsageError where any file was begun with other settings: all sources are compared with one control."""
    for path, begun in settings(run).items():
        for name in wanted:
            if begun.get(name) != wanted[name]:
                raise UsageError(
                    f"{path} was begun with {name} {begun.get(name)!r}, now {wanted[name]!r}; use the same settings, "
                    f"or remove {path.parent}"
                )


@contextlib.contextmanager
def adding(path: Path, head: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], jsonlines.Writer]]:
    """(rows that are there, a writer of more); head: the settings, which `refuse_other` let pass."""
    begun, there, end = read(path) if path.exists() else ({}, [], 0)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("r+b" if path.exists() else "w+b") as stream:
            stream.truncate(end)
            stream.seek(end)
            writer = jsonlines.Writer(stream, dumps=lines.line, flush=True)
            if not begun:
                writer.write(head)
            yield there, writer
    except OSError as error:
        raise unwritable(path, error) from error
