"""How text and numbers are shown: numbers with their interval, times, sizes, what a terminal would obey written out;
results, verdicts and runs as small HTML for notebooks, every word escaped, no script, no network.

The functions read attributes only and know no type of the package, so that the types themselves can call them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

ROWS = 60  # of a table; what is left out is counted below it
# of the words, here and on the page: a word never stands on its colour alone
MARKS = {"inside": "●", "sharpened": "▲", "reweighted": "✚", "outside": "◆", "undetermined": "?"}
NONE = "–"
NEUTRAL = {"top_p": 1, "top_k": 0, "min_p": 0}  # of a sampler: what truncates nothing
_HIDDEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
COLOUR = r"\x1b\[[0-9;]*m"
HIDDEN, ONE_LINE = (re.compile(rf"{COLOUR}|[{_HIDDEN}{more}]") for more in ("", r"\t\n"))


def visible(text: str, *, line: bool = False, colour: bool = False) -> str:
    """Text with what a terminal obeys or hides written out: control characters as \\x1b, those that turn the direction
    of writing as \\u202e. All that is printed goes through here: ids, file names and texts are other people's.

    line: tabs and line breaks too. colour: the terminal's colours are ours and stay.
    """
    pattern = ONE_LINE if line else HIDDEN
    return pattern.sub(lambda m: m[0] if colour and len(m[0]) > 1 else _escape(m[0][0]) + m[0][1:], text)


def _escape(hidden: str) -> str:
    return f"\\x{ord(hidden):02x}" if hidden < " " else f"\\u{ord(hidden):04x}"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, at_most: int = ROWS) -> str:
    """An HTML table of text cells, the first column as row heads."""
    rows = list(rows)
    head = "".join(f"<th>{escape(str(c))}</th>" for c in columns)
    body = "".join(
        f"<tr><th>{escape(str(first))}</th>{''.join(f'<td>{escape(str(c))}</td>' for c in rest)}</tr>"
        for first, *rest in rows[:at_most]
    )
    more = f"<p>{len(rows) - at_most:,} more rows.</p>" if len(rows) > at_most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def counted(n: int, what: str) -> str:
    """1 row, 1,234 rows."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def possessive(label: str) -> str:
    """base's, atlas'."""
    return f"{label}'" if label.endswith("s") else f"{label}'s"


def number(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """ "0.83 [0.81, 0.85]", with two digits of the interval's width; four digits where there is no interval."""
    if math.isnan(value):
        return NONE
    bounds = [x for x in (low, high) if math.isfinite(x)]
    if not bounds or not math.isfinite(value):
        return f"{value:.4g}"
    width = max(value, *bounds) - min(value, *bounds)
    digits = min(4, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 4
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def result(found: Any) -> str:
    """A Result: its question, its estimates, the names and sizes of its tables, its notes."""
    rows = [(k, number(e.value, e.low, e.high), f"{e.n:,}", e.note) for k, e in found.estimates.items()]
    parts = [f"<p><b>{escape(found.name)}</b>: {escape(found.question)}</p>"]
    if rows:
        parts.append(table(["estimate", "value [95 %]", "n", "note"], rows))
    sizes = "; ".join(f"{name} ({len(t):,} rows)" for name, t in found.tables.items())
    parts += [f"<p>tables: {escape(sizes)}</p>"] if sizes else []
    return "".join([*parts, *(f"<p>{escape(note)}</p>" for note in found.notes)])


def verdicts(found: Iterable[Any]) -> str:
    """Verdicts as a table: word and level, budget, the first reason, what would decide."""
    rows = [
        (
            v.source,
            f"{MARKS[v.word]} {v.word}",
            v.level if v.prompt_of is None else f"{v.level} (prompts of {v.prompt_of})",
            f"{v.budget} draws of {v.reference}",
            v.why[0].replace(f"E_{v.budget} =", f"reach@{v.budget} =") if v.why else NONE,
            v.needs or NONE,
        )
        for v in found
    ]
    return table(["source", "verdict", "level", "budget", "because", "what would decide"], rows)


def run(path: Any, manifest: dict[str, Any]) -> str:
    """A Run: where it lies, how its inputs were read, its samplers, what it was scored under; nothing else is read."""
    files = [
        (
            ", ".join(f["sources"]) or NONE,
            f["path"],
            f["format"],
            f"{f['rows_used']:,} of {f['rows']:,}",
            f"{f['traces']:,}",
            ", ".join(k if k == v else f"{k} = {v}" for k, v in f["mapping"].items()),
        )
        for f in manifest["inputs"]
    ]
    reference = manifest.get("settings", {}).get("reference")
    samplers = [
        (s, ", ".join(f"{k} {x:g}" for k, x in v.items() if x != NEUTRAL.get(k)) if v else "unknown")
        for s, v in manifest.get("samplers", {}).items()
    ]
    models = [
        (label, record["model"], record["dtype"], record["path"]) for label, record in manifest["scorers"].items()
    ]
    parts = [f"<p><b>Run</b> in {escape(str(path))}{escape(f'; reference: {reference}') if reference else ''}</p>"]
    parts += [table(["source", "file", "read as", "rows used", "traces", "fields"], files)] if files else []
    parts += [table(["source", "sampler"], samplers)] if samplers else []
    parts += (
        [table(["scored under", "model", "dtype", "path"], models)] if models else ["<p>Nothing is scored yet.</p>"]
    )
    return "".join([*parts, *(f"<p>{escape(note)}</p>" for note in manifest.get("input_notes", []))])


def span(seconds: float) -> str:
    """A length of time for people: 0.4 s, 38 s, 3 min 20 s, 5 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours:,} h {left} min" if hours else f"{minutes} min {rest} s"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: 812 kB, 1.4 GB."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 999.5:
            break
        count, unit = count / 1000, larger
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:,.0f} {unit}"
