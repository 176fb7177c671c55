"""The exceptions that the library raises on purpose; `cli.py` alone turns them into a line and an exit code.

Each message answers: what is wrong, where (file:line), the value, what is allowed, what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """Return "; did you mean 'x'?" for the closest allowed word, or the list of what is allowed."""
    allowed = sorted(map(str, allowed))
    close = difflib.get_close_matches(word, allowed, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(allowed)}" if allowed else ""
