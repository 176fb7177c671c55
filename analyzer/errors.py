"""The exceptions that the library raises on purpose; `cli.py` alone turns them into a line and an exit code.

Each message answers: what is wrong, where (file:line), the value, what is allowed, what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMED, LONGEST = 3, 80  # suggestions in a message, and characters of one


class AnalyzerError(Exception):
    """Root of all deliberate errors; `exit_code` is the command line's answer."""

    exit_code = 1


class UsageError(AnalyzerError):
    """A flag, label, name or setting that does not exist or does not fit."""

    exit_code = 2


class DumpError(AnalyzerError):
    """An input file or row that can't be used as it is."""

    exit_code = 3


class ResourceError(AnalyzerError):
    """Memory, disk or a model that is not there."""

    exit_code = 4


class GateError(AnalyzerError):
    """A `--fail-on` gate fired."""

    exit_code = 5


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest allowed word, or the first of what is allowed."""
    allowed = sorted(map(str, allowed))
    close = difflib.get_close_matches(word, allowed, n=1)
    if close:
        return f"; did you mean {_short(close[0])!r}?"
    shown = NAMED if len(allowed) > NAMED + 1 else len(allowed)  # "and 1 more" is no shorter than the one
    more = f" and {len(allowed) - shown} more" if len(allowed) > shown else ""
    return f"; allowed: {', '.join(map(_short, allowed[:shown]))}{more}" if allowed else ""


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
