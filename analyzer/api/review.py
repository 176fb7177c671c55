"""A person reads correct traces: pick some, write a sheet, read the answers back into the run.

The sheet is blind: a row has the hash of a trace's key, so that nobody sees whose it is, in an order drawn by the seed.
Yue et al. (2504.13837) read the correct traces of the problems that a model hardly ever solves: were they lucky?
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.dumps.paths import Fault
from analyzer.dumps.values import truth
from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records.options import ReviewOptions
from analyzer.runs import review
from analyzer.runs.disk import refuse_dangling, write_atomically
from analyzer.runs.store import Run

COLUMNS = ("id", "picked", "question", "response", "valid", "note")
ENDINGS = (".csv", ".jsonl")
EVERY = "all"  # `picked` of a draw from all correct traces of a source
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so


def write_sheet(run: Run, sheet: Path, sources: Sequence[str], how: ReviewOptions) -> dict[str, Any]:
    """Write a sheet of correct traces that nobody has answered for yet: `how.traces` of each source (all but the
    reference, unless named), drawn at random; of problems that the source solves in at most `how.accuracy` of its
    draws.

    Returns sheet, traces by source. Raises UsageError for a sheet that is there already, an unknown source, and where
    nothing is left to read.
    """
    _refuse_ending(sheet)
    if sheet.exists():
        raise UsageError(f"{sheet} is there already and may hold answers; read it (--read) or give another name")
    refuse_dangling(sheet)
    frame = run.trace_table(["key", "source", "problem", "step", "sample", "correct"])
    labels = list(frame["source"].unique())
    for source in sources:
        if source not in labels:
            raise UsageError(f"the run has no source {source!r}{nearest(source, labels)}; it has {', '.join(labels)}")
    reference = run.manifest.get("settings", {}).get("reference")
    wanted = list(sources) or [label for label in labels if label != reference] or labels
    frame = last_steps(frame[frame["source"].isin(wanted) & frame["correct"].notna()])
    rate = frame.groupby(["source", "problem"])["correct"].transform("mean").astype(float)
    answered = {row["key"] for row in review.answers(run.path)}
    frame = frame[frame["correct"].astype(bool) & (rate <= how.accuracy) & ~among(frame["key"], answered)]
    mixed = frame.iloc[np.random.default_rng(how.seed).permutation(len(frame))]
    some = mixed[mixed.groupby("source").cumcount() < how.traces]
    if some.empty:
        raise UsageError(
            f"no correct trace of {', '.join(wanted)} is left to read on problems solved in at most {how.accuracy:g} "
            f"of the draws ({len(answered):,} have been read)"
        )
    picked = EVERY if how.accuracy >= 1 else f"accuracy <= {how.accuracy:g}"
    rows = [row | {"picked": picked, "valid": "", "note": ""} for row in _texts(run, some["key"].tolist())]
    write_atomically(sheet, _csv(rows) if sheet.suffix == ".csv" else b"".join(orjson.dumps(r) + b"\n" for r in rows))
    return {"sheet": str(sheet), "sources": some["source"].value_counts()[wanted].astype(int).to_dict()}


def read_sheet(run: Run, sheet: Path) -> dict[str, Any]:
    """Keep the answers of a sheet in the run. Returns answers, new, valid (of the answers), open (rows without one).

    Raises DumpError for a row that is none of the run's and a value that is no answer (with its line), UsageError where
    a trace was answered otherwise before; nothing is kept then.
    """
    _refuse_ending(sheet)
    keys = {_hidden(key): key for batch in run.trace_batches(["key"]) for key in batch["key"].to_pylist()}
    found: dict[str, dict[str, Any]] = {}
    left = 0
    for place, row in _rows(sheet):
        key, given = keys.get(str(row.get("id"))), row.get("valid")
        if key is None:
            raise DumpError(f"{place}: id {row.get('id')!r} is no trace of {run.path}; is the sheet of another run?")
        try:
            valid = truth(None if given == "" else given, "valid")
        except Fault as fault:
            raise DumpError(f"{place}: {fault.detail}; leave it empty where you can't tell") from None
        if valid is None:
            left += 1
            continue
        answer = {"key": key, "valid": valid, "picked": str(row.get("picked", ""))}
        if found.setdefault(key, answer) != answer:
            raise DumpError(f"{place}: {row['id']} stands in the sheet twice, with two answers")
    new = review.add(run.path, found.values())
    return {"answers": len(found), "new": new, "open": left, "valid": sum(r["valid"] for r in found.values())}


def _hidden(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


def _refuse_ending(sheet: Path) -> None:
    if sheet.suffix not in ENDINGS:
        raise UsageError(f"{sheet}: expected a name that ends in {' or '.join(ENDINGS)}")


def _texts(run: Run, keys: list[str]) -> list[dict[str, Any]]:
    """id, question (or what was asked) and response of traces, in this order."""
    wanted, found = set(keys), {}
    for batch in run.trace_batches(["key", "question", "prompt", "messages", "response"]):
        for row in batch.to_pylist() if not wanted.isdisjoint(batch["key"].to_pylist()) else ():
            if row["key"] in wanted:
                asked = row["question"] or row["prompt"] or row["messages"] or ""
                found[row["key"]] = {"id": _hidden(row["key"]), "question": asked, "response": row["response"]}
    return [found[key] for key in keys]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    """A table that spreadsheets open as text: a cell that they would run begins with an apostrophe."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows({k: f"'{v}" if v.startswith(FORMULA) else v for k, v in row.items()} for row in rows)
    return stream.getvalue().encode("utf-8-sig")


def _rows(sheet: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of a sheet."""
    try:
        text = sheet.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DumpError(
            f"{sheet} can't be read ({error}); expected the sheet that this command wrote, as UTF-8"
        ) from None
    if sheet.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            if missing := {"id", "valid"} - {*(reader.fieldnames or ())}:
                raise DumpError(f"{sheet}: has no column {' or '.join(sorted(missing))}; expected {', '.join(COLUMNS)}")
            for row in reader:
                yield f"{sheet}:{reader.line_num}", row
        except csv.Error as error:
            raise DumpError(f"{sheet}:{reader.line_num}: {error}; save it as CSV with commas") from None
    else:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise DumpError(f"{sheet}:{number}: no JSON object on the line")
            yield f"{sheet}:{number}", row
