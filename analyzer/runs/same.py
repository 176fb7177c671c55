"""Whether a trace of a dump is one that the run has: the same key has the same content, or the dump is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from analyzer.errors import DumpError
from analyzer.records import Trace
from analyzer.runs.parts import Parts
from analyzer.runs.rows import trace_row

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


def contents(parts: Parts) -> dict[str, int]:
    """Trace key -> hash (of this process) of what the trace is: COMPARED columns, log-probs and mask."""
    known: dict[str, int] = {}
    for batch in parts.held_traces([*COMPARED, *NUMBERS, "meta"]):
        rows = zip(*(batch[name].to_pylist() for name in COMPARED), strict=True)
        held = (dict(zip(HELD, cells, strict=True)) for cells in zip(*(_cells(batch[n]) for n in HELD), strict=True))
        known |= {row[0]: hash((repr(row), *_numbers(more))) for row, more in zip(rows, held, strict=True)}
    return known


def is_new(parts: Parts, t: Trace, known: Mapping[str, int]) -> bool:
    """Whether `known` (`contents`) lacks the trace. Raises DumpError where it has the key with other content."""
    if not known or t.key not in known:
        return True
    row = trace_row(t)
    row |= {n: list(row[n]) for n in ("prompt_ids", "response_ids") if row[n] is not None}
    numbers = _numbers(row)
    if known[t.key] != hash((repr(tuple(row[name] for name in COMPARED)), *numbers)):
        rows = (r for b in parts.held_traces([*COMPARED, *NUMBERS, "meta", "origin"]) for r in b.to_pylist())
        old = next(r for r in rows if r["key"] == t.key)
        names = [name for name in COMPARED if row[name] != old[name]]
        names += [
            n for n, a, b in zip((*NUMBERS, "response_mask", "valid"), numbers, _numbers(old), strict=True) if a != b
        ]
        different = ", ".join(names)
        if not different:  # 1 and 1.0
            return False
        same_file = re.sub(r"[:#]\d+$", "", t.origin) == re.sub(r"[:#]\d+$", "", old["origin"])
        changed = ": the file has changed since" if same_file else ""
        if same_file and names == ["response_mask"] and _numbers(old)[len(NUMBERS)] is None:
            changed += ", or the run is of an earlier version, which read no masks"
        hint = "restore the file" if same_file else "give the new dump another label (LABEL=PATH)"
        raise DumpError(
            f"{t.origin}: trace {t.key} is already in run {parts.path}, from {old['origin']}, with other content "
            f"({different}){changed}; {hint} or use another -o folder"
        )
    return False


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
    """Log-probs, mask and votes of a row with HELD, in a form that is equal where they are."""
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
    votes = orjson.loads(row["meta"]).get("valid_votes") if '"valid_votes"' in row["meta"] else None
    masks = isinstance(mask, list) and len(mask) == len(ids) and 0 in mask  # else it leaves no token out, or is none
    return *found, orjson.dumps(mask) if masks else None, None if votes is None else orjson.dumps(votes)
