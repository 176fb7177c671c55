"""Columns of a file that nothing reads: named once per file, with the rows that have them and an example."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from analyzer.dumps import settings
from analyzer.dumps.paths import show

SHOWN = 40  # characters of a name and of an example
MOST = 100  # columns that are told apart in a file: a row may have keys of its own making
FURTHER = "further columns"
NUMBERS = frozenset((bool, int, float))  # which 0 and false are, and say something
INSIDE = frozenset((*settings.SETTINGS, *settings.INERT))  # of an object of sampling settings
Parts = dict[str, frozenset[str] | None]  # column -> the parts of it that are read; None: the whole


def read_parts(paths: Iterable[str]) -> tuple[Parts, frozenset[str]]:
    """What these paths reach: the columns, and the parts of every object of a wide row."""
    parts: dict[str, set[str] | None] = {}
    every: set[str] = set()
    for path in paths:
        if path[:1] == "@":
            continue
        if path[:2] == "*.":
            every.add(path[2:].split(".")[0])
            continue
        parts[path] = None  # a key may hold dots itself
        head, dot, rest = path.replace("[]", "").partition(".")
        part = rest.split(".")[0]
        if not dot or part.isdecimal():
            parts[head] = None
        elif parts.setdefault(head, set()) is not None:
            parts[head].add(part)
    for name in settings.OBJECTS:
        if parts.get(name, ()) is not None:
            parts[name] = {*(parts.get(name) or ()), *INSIDE}
    return {k: None if v is None else frozenset(v) for k, v in parts.items()}, frozenset(every)


Take = Callable[[Any], tuple[Any, ...]]
Whole = tuple[list[str], list[str], Take, Take, tuple[None, ...], list[int]]
Within = list[tuple[str, frozenset[str]]]


def columns(record: dict[str, Any], parts: Parts, every: frozenset[str]) -> tuple[Whole | None, Within]:
    """Of a record's keys, those that nothing reads (None: there are none), and those that are read in part. Of the
    former: their names, those that are not null here, what takes the values of these and of the others, the nulls of
    these, and how many records that are alike wait to be counted (-1: none was seen)."""
    names = [k for k in record if k[:1] != "@" and k not in settings.SETTINGS]
    within = [(k, parts[k]) for k in names if parts.get(k) is not None]
    if every:
        within += [(k, every) for k in names if k not in parts and isinstance(record[k], dict)]
    known = {k for k, _ in within}
    alone = [k for k in names if k not in parts and k not in known]
    if not alone:
        return None, within
    quiet = [k for k in alone if record[k] is None]
    loud = [k for k in alone if record[k] is not None]
    take = _taker(quiet)
    return (alone, loud, _taker(loud), take, take(record), [-1]), within


def _taker(names: list[str]) -> Take:
    return itemgetter(*names, names[0]) if names else lambda _: ()  # of one name it would give no tuple


def count(found: dict[str, list[Any]], record: dict[str, Any], whole: Whole | None, within: Within) -> None:
    """Count a record's values that nothing reads into `found`: name -> [rows, an example]. null and what is empty say
    nothing. What `whole` holds back of that, `settle` adds."""
    if whole is not None:
        names, _, loud, quiet, nulls, waiting = whole
        alike = all(loud(record)) and quiet(record) == nulls  # as most are
        if alike and waiting[0] >= 0:
            waiting[0] += 1
        else:
            for key in names:
                if (value := record[key]) or type(value) in NUMBERS:
                    _add(found, key, value)
            waiting[0] = max(waiting[0], alike - 1)
    for key, read in within:
        held = record[key]
        if type(held) is not dict and type(held) is not list:
            if held is not None:  # no object in this row
                _add(found, key, held)
            continue
        seen: set[str] = set()
        for value in (held,) if type(held) is dict else held:
            if type(value) is dict and not value.keys() <= read:
                fresh = [k for k in value if k not in read and k not in seen and k[:1] != "@"]
                fresh = [k for k in fresh if value[k] or type(value[k]) in NUMBERS]
                seen.update(fresh)
                for part in fresh:
                    _add(found, f"{key}.{part}", value[part])


def _add(found: dict[str, list[Any]], name: str, value: Any) -> None:
    if (known := found.get(name)) is not None:
        known[0] += 1
        return
    if len(found) >= MOST and name != FURTHER:
        if FURTHER in found:
            found[FURTHER][0] += 1
            return
        name = FURTHER
    try:
        example = show(value, SHOWN)
    except (RecursionError, ValueError):  # nested too deeply; an integer of more digits than Python writes
        example = type(value).__name__
    found[name] = [1, example]


def settle(found: dict[str, list[Any]], wholes: Iterable[Whole | None]) -> None:
    """Add to `found` the records that are not counted yet."""
    for _, loud, _, _, _, waiting in (w for w in wholes if w is not None):
        if waiting[0] > 0:
            for name in loud:
                found[name if name in found else FURTHER][0] += waiting[0]


def account(found: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """What was found, as JSON-able values whose names can stand in a line of text."""
    out = {}
    for name, (rows, example) in found.items():
        plain = name.isprintable() and name.isascii() and name and len(name) <= SHOWN
        example = example.encode(errors="backslashreplace").decode()
        out[name if plain else show(name, SHOWN)] = {"rows": rows, "example": example}
    return out


def said(account: dict[str, dict[str, Any]]) -> str:
    """The columns in one line; "" where there are none."""
    return ", ".join(
        f"{name} ({c['rows']:,} row{'s' * (c['rows'] != 1)}, such as {c['example']})" for name, c in account.items()
    )
