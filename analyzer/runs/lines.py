"""JSON lines of a run that a flipped bit can't change in silence: each holds a sum of itself."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping
from typing import Any

import orjson


def line(row: Mapping[str, Any]) -> bytes:
    """The line of a row, without its end."""
    return orjson.dumps({**row, "check": _check(row)})


def parsed(line: bytes) -> dict[str, Any] | None:
    """The row of a line, without its sum; None where it is none, or not as it was written. By hand there may be no
    sum."""
    with contextlib.suppress(orjson.JSONDecodeError):
        row = orjson.loads(line)
        if isinstance(row, dict) and row.pop("check", None) in (None, _check(row)):
            return row
    return None


def _check(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(orjson.dumps(row)):08x}"
