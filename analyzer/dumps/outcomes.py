"""Labels without texts: right or wrong of every sample as a list, how many of how many, or a row for each sample:
enough for pass@k."""

from __future__ import annotations

from typing import Any

from analyzer.dumps import automatic
from analyzer.dumps.paths import Fault, get, show, split_each
from analyzer.dumps.values import truth

MANY = ("n", "n_samples", "num_samples", "total", "n_total", "num_total", "n_rollouts", "num_rollouts", "n_attempts")
RIGHT = ("c", "n_correct", "num_correct", "correct_count", "n_pass", "n_passed", "num_passed", "num_pass")
MOST = 1 << 20  # samples of a row
NOTE = (
    "labels without responses: pass@k and what rests on labels alone can be told, nothing of texts, tokens or support."
)
FIELDS = {"response": "@texts[]", "correct": "@labels[]", "meta.labels_only": "@alone"}


def found(rows: list[Any], mapped: str | None) -> tuple[str, str] | str | None:
    """Where rows keep their labels: the column of a list of labels, or the columns of n and c; None where they have
    neither. mapped: the path that --map correct= names, of a list or of the one label of a row (never found by itself:
    a grader's file beside the responses would count each of them twice)."""
    rows = [r for r in rows if isinstance(r, dict)]
    if not rows:
        return None
    if mapped is not None:
        parts = split_each(mapped)
        if parts is None:
            held = [v for r in rows if (v := get(r, mapped)) is not None]
            return mapped if held and all(map(_label, held)) else None
        return parts[0] if not parts[1] and all(_labels(get(r, parts[0])) for r in rows) else None
    lists = [k for k in rows[0] if automatic.LABEL.search(k.lower()) and all(_labels(r.get(k)) for r in rows)]
    if lists:
        return lists[0] if len(lists) == 1 else None
    many, right = (next((k for k in names if all(_count(r.get(k)) for r in rows)), None) for names in (MANY, RIGHT))
    return (many, right) if many and right else None


def prepared(record: dict[str, Any], where: tuple[str, str] | str) -> dict[str, Any]:
    """The record with "@labels", as many empty "@texts", and "@alone". Raises Fault."""
    held = get(record, where) if isinstance(where, str) else [record.get(k) for k in where]
    if isinstance(where, str):
        if not isinstance(held, list):
            if (label := truth(held)) is None:
                raise Fault("no label", f"{where} is null, and the row has no response")
            return {**record, "@labels": [label], "@texts": [""], "@alone": True}
        if not _labels(held):
            raise Fault("bad correct", f"{where} = {show(held)}; expected a list of true, false, 1 and 0")
        labels = list(map(bool, held))
    else:
        if not all(map(_count, held)) or not held[1] <= held[0] <= MOST:
            told = ", ".join(f"{k} = {show(v)}" for k, v in zip(where, held, strict=True))
            raise Fault("bad counts", f"{told}; expected 0 <= {where[1]} <= {where[0]} <= {MOST:,}")
        labels = [True] * held[1] + [False] * (held[0] - held[1])
    for names, n in ((MANY, len(labels)), (RIGHT, sum(labels))):
        other = next((k for k in names if _count(record.get(k)) and record[k] != n), None)
        if other:
            raise Fault("two counts", f"{other} = {record[other]}, but {where} has {n:,}")
    return {**record, "@labels": labels, "@texts": [""] * len(labels), "@alone": True}


def _labels(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, (bool, int)) and v in (0, 1) for v in value)


def _label(value: Any) -> bool:
    try:
        truth(value)
    except Fault:
        return False
    return True


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0
