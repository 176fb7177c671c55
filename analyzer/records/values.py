"""How the value of an option is read: of the text that a command line gives, or of what Python and TOML give.

A reader takes the flag, for its message, and the value; it returns the value as the records hold it, or raises
UsageError: what is allowed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from datetime import date
from operator import index
from typing import Any

from analyzer.errors import UsageError, nearest
from analyzer.records import Sampler

MOST = 2**31 - 1
Reader = Callable[[str, Any], Any]


def text(flag: str, value: Any) -> str:
    """Text or a path; an empty one is refused, since it is what a variable of the shell leaves that was never set."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise UsageError(f"{flag} {value!r}: expected text")
    if not found.strip():
        raise UsageError(f"{flag} {value!r} is empty; leave it out, or give it a value")
    return found


def switch(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{flag} {value!r}: expected true or false")
    return value


def whole(least: int) -> Reader:
    def read(flag: str, value: Any) -> int:
        try:
            found = int(value) if isinstance(value, str) else index(value)
        except (TypeError, ValueError):
            found = least - 1
        if isinstance(value, bool) or found < least:
            raise UsageError(f"{flag} {value!r} is not a whole number of at least {least}")
        if found > MOST:
            raise UsageError(f"{flag} {value!r} is above {MOST:,}, the largest that is taken")
        return found

    return read


def number(fits: Callable[[float], bool], expected: str) -> Reader:
    """A number for which `fits` holds; it is not asked about NaN and infinities, which no option takes."""

    def read(flag: str, value: Any) -> float:
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if isinstance(value, bool) or not (math.isfinite(found) and fits(found)):
            raise UsageError(f"{flag} {value!r} {expected}")
        return found

    return read


def one_of(*known: str) -> Reader:
    def read(flag: str, value: Any) -> str:
        if value not in known:
            close = nearest(str(value), known)
            allowed = "" if "allowed" in close else f"; allowed: {', '.join(known)}"
            raise UsageError(f"{flag} {value!r} is unknown{close}{allowed}")
        return value

    return read


def day(flag: str, value: Any) -> str:
    value = value.isoformat() if isinstance(value, date) else value  # TOML has dates
    try:
        if date.fromisoformat(value).isoformat() == value:
            return value
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{flag} {value!r}: expected a day as YYYY-MM-DD")


def sampler(flag: str, value: Any) -> Sampler:
    if isinstance(value, Mapping):
        for name in value.keys() - set(Sampler.__dataclass_fields__):
            raise UsageError(f"{flag}: a sampler has no {name!r}{nearest(str(name), Sampler.__dataclass_fields__)}")
        return Sampler(**value)
    return value if isinstance(value, Sampler) else Sampler.parse(str(value))


def grader(flag: str, value: Any) -> Any:
    """A function, or FILE.py:FUNCTION as text."""
    if callable(value):
        return value
    path, _, name = text(flag, value).rpartition(":")
    if not (path.endswith(".py") and os.path.isfile(path) and name.isidentifier()):
        raise UsageError(f"{flag} {value!r}: expected FILE.py:FUNCTION, of a file that is there")
    return value


def share(flag: str, value: Any) -> tuple[int, int]:
    """(i, n) of "i/n", 0 <= i < n."""
    given = "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    i, _, n = given.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise UsageError(f"{flag} {value!r} is not I/N, counted from 0: 0/8, 1/8 ... 7/8")
    return int(i), int(n)


def named(read: Reader, bare: Callable[[str], bool] = lambda value: False) -> Reader:
    """name -> value, of a mapping or of texts NAME=VALUE; what is `bare` has no name and is for all: "*"."""

    def read_all(flag: str, value: Any) -> dict[str, Any]:
        if isinstance(value, Mapping):
            return {text(f"{flag}, the name", name): read(flag, of) for name, of in value.items()}
        found: dict[str, Any] = {}
        for one in value if isinstance(value, (list, tuple)) else [value]:
            one = text(flag, one)
            name, equals, of = ("*", "=", one) if bare(one) else one.partition("=")
            if not (equals and name and of):
                raise UsageError(f"{flag} {one!r}: expected NAME=VALUE")
            if name in found:
                which = "for all, twice; name the others by LABEL=" if name == "*" else f"{name}=... was given twice"
                raise UsageError(f"{flag} {which}: {found[name]!r} and {of!r}")
            found[name] = of
        return {name: read(flag, of) for name, of in found.items()}

    return read_all


def for_all_sources(template: str) -> bool:
    return "=" not in template or os.path.isfile(template)


def is_address(server: str) -> bool:
    if "=" not in server and not server.startswith(("http://", "https://")):
        raise UsageError(f"--server {server!r}: an address begins with http:// or https://, as in http://HOST:8000")
    return server.startswith(("http://", "https://"))
