"""What persons said of a run's traces: RUN/review.jsonl, a row per trace. `docs/contracts.md` has the row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analyzer.errors import DumpError, UsageError
from analyzer.runs import lines
from analyzer.runs.disk import sole_writer, write_atomically

FILE = "review.jsonl"
ROW = {"key": str, "valid": bool, "picked": str}


def answers(run: Path) -> list[dict[str, Any]]:
    """All rows: key, valid, picked. Raises DumpError for anything else."""
    path = run / FILE
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        row = lines.parsed(line)
        if row is None or any(type(row.get(name)) is not kind for name, kind in ROW.items()):
            raise DumpError(f"{path}:{number}: no answer of a review; remove the line and read the sheet again")
        rows.append(row)
    return rows


def add(run: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Add answers; how many are new. Raises UsageError where a trace has another answer already."""
    with sole_writer(run):
        return _added(run, rows)


def _added(run: Path, rows: Iterable[dict[str, Any]]) -> int:
    known = {row["key"]: row for row in answers(run)}
    before = len(known)
    for row in rows:
        if known.setdefault(row["key"], row)["valid"] != row["valid"]:
            told = "valid" if known[row["key"]]["valid"] else "not valid"
            raise UsageError(
                f"{row['key']} was called {told} in an earlier sheet; to change that, remove its line from "
                f"{run / FILE} and read the sheet again"
            )
    if len(known) > before:
        write_atomically(run / FILE, b"".join(lines.line(row) + b"\n" for row in known.values()))
    return len(known) - before
