"""What handovers left in a run: RUN/handover/SOURCE.jsonl, a line of settings, then a line per prefix of a trace.

A killed call leaves whole lines and perhaps a torn one, which the next call cuts off. `docs/contracts.md` has the rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonlines
import orjson

from analyzer.errors import DumpError, UsageError
from analyzer.runs.disk import unwritable

FOLDER = "handover"


def file(run: Path, source: str) -> Path:
    return run / FOLDER / f"{source}.jsonl"


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """(settings, rows, bytes of whole lines); a torn last line is left out. Raises DumpError for other content."""
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise DumpError(f"{path}:{number}: no line of a handover ({error}); remove the file") from None
        if not isinstance(found[-1], dict) or ("by" in found[-1]) == (number == 1):
            raise DumpError(f"{path}:{number}: no line of a handover; remove the file and hand over again")
    return (found[0] if found else {}), found[1:], sum(map(len, whole))


def rows(run: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """(source, settings, rows) of all that is there."""
    for path in sorted((run / FOLDER).glob("*.jsonl")):
        settings, found, _ = read(path)
        yield path.stem, settings, found


@contextlib.contextmanager
def adding(path: Path, settings: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], jsonlines.Writer]]:
    """(rows that are there, a writer of more). Raises UsageError where the file was begun with other settings."""
    before, there, end = read(path) if path.exists() else ({}, [], 0)
    for name in settings if before else ():
        if before.get(name) != settings[name]:
            raise UsageError(
                f"{path} was begun with {name} {before.get(name)!r}, now {settings[name]!r}; use the same settings, or "
                "remove that file"
            )
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("r+b" if path.exists() else "w+b") as stream:
            stream.truncate(end)
            stream.seek(end)
            writer = jsonlines.Writer(stream, dumps=orjson.dumps, flush=True)
            if not before:
                writer.write(settings)
            yield there, writer
    except OSError as error:
        raise unwritable(path, error) from error
