"""Plain listings for the terminal: the estimates of analyses, and one trace with its surprising tokens marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.records import Result, Trace
from analyzer.report.terminal import clean

# surprisal in nats -> background of the xterm-256 palette, light to dark: one hue, so that lightness carries it
SHADES = ((0.1, ""), (1.0, "\x1b[48;5;230;38;5;16m"), (3.0, "\x1b[48;5;222;38;5;16m"), (6.0, "\x1b[48;5;208;38;5;16m"))
DARKEST = "\x1b[48;5;124;38;5;231m"
MARKS = ((0.1, ""), (1.0, "\u00b7"), (3.0, ":"), (6.0, "!"))  # the same classes without colour


def tables(results: Mapping[str, Result], left_out: Sequence[Mapping[str, str]]) -> str:
    """Estimates of each result, one a line: key, value, interval, n, note."""
    lines: list[str] = []
    for result in results.values():
        lines += ["", f"{result.name}: {result.question}"]
        width = max(map(len, result.estimates), default=0)
        for key, e in result.estimates.items():
            interval = "" if math.isnan(e.low) else f"  [{e.low:.4g}, {e.high:.4g}]"
            value = "-" if math.isnan(e.value) else f"{e.value:.4g}"
            note = f"  {e.note}" if e.note and math.isnan(e.value) else ""
            lines.append(f"  {clean(key).ljust(width)}  {value:>9}{interval}  n={e.n}{clean(note)}")
        lines += [f"  note: {clean(n)}" for n in result.notes]
    lines += [f"left out: {i['analysis']}: {clean(i['why'])}" for i in left_out]
    return "\n".join(lines).lstrip("\n")


def trace(record: Trace, columns: Mapping[str, Any], *, colour: bool) -> str:
    """One trace: its facts, its text with tokens shaded (or marked) by surprisal, and its ten most surprising tokens.

    columns: "offset" int [T], "logprob" nats [T], "rank" [T], as stored. Where offsets are unknown (-1) the text can't
    be cut into tokens, and only the table of tokens by position is shown.
    """
    surprisal = [-float(x) for x in columns["logprob"]]
    offsets = [int(x) for x in columns["offset"]]
    known = all(o >= 0 for o in offsets)
    text = record.response
    pieces = (
        [text[a:b] for a, b in zip(offsets, [*offsets[1:], len(text)])]
        if known
        else [f"#{t}" for t in columns["token"]]
    )
    facts = {"correct": record.correct, "finish": record.finish, "answer": record.answer, "group": record.group}
    lines = [
        record.key,
        "  ".join(f"{k}={v}" for k, v in facts.items() if v is not None),
        f"{len(pieces)} tokens, {sum(surprisal):.2f} nats, perplexity {math.exp(sum(surprisal) / len(surprisal)):.3f}",
        "",
    ]
    shown = (
        "".join(_shaded(p, s) if colour else _marked(p, s) for p, s in zip(pieces, surprisal))
        if known
        else "(offsets unknown)"
    )
    legend = (
        " ".join(_shaded(f" {low:g}+ ", low) for low, _ in SHADES[1:]) + _shaded(" 6+ nats ", 7.0)
        if colour
        else "marks before a token: \u00b7 0.1+  : 1+  ! 3+  !! 6+ nats"
    )
    worst = sorted(range(len(pieces)), key=lambda i: -surprisal[i])[:10]
    table = [
        f"  {i:6d}  {surprisal[i]:7.2f} nats  rank {int(columns['rank'][i]):6d}  {clean(repr(pieces[i]))}"
        for i in worst
    ]
    return "\n".join(
        [
            *(clean(x) for x in lines),
            shown,
            "",
            legend,
            "",
            "most surprising tokens (position, surprisal, rank, text):",
            *table,
        ]
    )


def _shaded(piece: str, surprisal: float) -> str:
    code = next((c for top, c in SHADES if surprisal < top), DARKEST)
    # keep line breaks: only other control characters are dangerous in a terminal
    safe = "\n".join(clean(p) for p in piece.split("\n"))
    return f"{code}{safe}\x1b[0m" if code else safe


def _marked(piece: str, surprisal: float) -> str:
    mark = next((m for top, m in MARKS if surprisal < top), "!!")
    return mark + "\n".join(clean(p) for p in piece.split("\n"))
