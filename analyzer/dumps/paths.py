"""The little path language of field maps.

`a.b` reaches into objects (a key that itself holds dots is found first), `a.0` takes an element of a list, `a[]` or
`a[].b` takes every element (one per sample), `*.b` takes every model of a wide row, `@0.a`, `@1.a` reach the objects
around a nested record (0 = the document), `@id` is the key of a dict-by-id record.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MISSING: Any = object()


class Fault(Exception):
    """One row can't be used: `reason` is a short word for counting, `detail` names the value and what is allowed."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def show(value: Any, limit: int = 60) -> str:
    """A value as it may stand in a message: short, on one line."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


@lru_cache(maxsize=4096)
def steps(path: str) -> tuple[str, ...]:
    """`a.b` -> ("a", "b"); an empty path -> ()."""
    return tuple(path.split(".")) if path else ()


def get(record: Any, path: str) -> Any:
    """The value at a path without `[]`, or MISSING."""
    if isinstance(record, dict) and path in record:
        return record[path]
    for step in steps(path):
        if isinstance(record, dict) and step in record:
            record = record[step]
        elif isinstance(record, list) and step.isdecimal() and int(step) < len(record):
            record = record[int(step)]
        else:
            return MISSING
    return record


@lru_cache(maxsize=4096)
def split_each(path: str) -> tuple[str, str] | None:
    """`completions[].score` -> ("completions", "score"), `code[]` -> ("code", ""); None for a path without `[]`."""
    head, mark, tail = path.partition("[]")
    return (head, tail.lstrip(".")) if mark else None


def has(record: Any, path: str) -> bool:
    """True where the record holds the path; `[]` asks for a list (and, when it is not empty, the tail in some element),
    `*` for some model of a wide row."""
    if path.startswith("*."):
        return isinstance(record, dict) and any(
            has(v, path[2:]) for k, v in record.items() if isinstance(v, dict) and k[:1] != "@"
        )
    parts = split_each(path)
    if parts is None:
        return get(record, path) is not MISSING
    head, tail = parts
    values = get(record, head)
    return isinstance(values, list) and (not values or not tail or any(has(v, tail) for v in values))


def known_paths(record: Any, prefix: str = "", depth: int = 3) -> list[str]:
    """All paths of a record that a field map could name, for error messages."""
    out: list[str] = []
    if not isinstance(record, dict) or depth == 0:
        return out
    for key, value in record.items():
        if key.startswith("@"):
            continue
        path = f"{prefix}{key}"
        out.append(path)
        if isinstance(value, dict):
            out += known_paths(value, path + ".", depth - 1)
        elif isinstance(value, list):
            out.append(path + "[]")
            if value and isinstance(value[0], dict):
                out += known_paths(value[0], path + "[].", depth - 1)
    return out
