"""Characters of responses by place: texts stay on disk, so places are collected first and read in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from analyzer.records import Tables


class Place(NamedTuple):
    """Characters [begin, end) of the response of a trace."""

    key: str
    begin: int
    end: int


def place(key: str, characters: int | None, offset_T: Any, position: int, length: int) -> Place | None:
    """Where `length` tokens from `position` stand in a response of so many characters; None where that is unknown."""
    if characters is None or offset_T is None or position >= len(offset_T) or offset_T[position] < 0:
        return None
    end = offset_T[position + length] if position + length < len(offset_T) else characters
    return Place(key, int(offset_T[position]), int(end))


def cut(tables: Tables, places: Sequence[Place | None]) -> list[str]:
    """The text at each place, "" for None: one pass over the responses."""
    at = defaultdict(list)
    for i, p in enumerate(places):
        if p is not None and 0 <= p.begin < p.end:
            at[p.key].append(i)
    out = [""] * len(places)
    for part in tables.texts(["response"]) if at else ():
        part = part[[key in at for key in part["key"].tolist()]]  # before a text becomes an object
        for key, response in zip(part["key"].tolist(), part["response"].tolist(), strict=True):
            for i in at[key] if isinstance(response, str) else ():
                out[i] = response[places[i].begin : places[i].end]
    return out


def shortened(text: str, most: int) -> str:
    """The text on one line, with an ellipsis where more than `most` characters were cut off at the end."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 2].rstrip() + " …"
