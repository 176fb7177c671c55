"""The summary that the command line prints: verdict per source, key numbers, ledger, where the report lies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.records import Result, Verdict
from analyzer.report import content

COLORS = {"inside": "32", "sharpened": "34", "outside": "31", "undetermined": "33"}


def summary(
    verdicts: Sequence[Verdict],
    ledger: Mapping[str, Any],
    *,
    results: Mapping[str, Result],
    sources: Mapping[str, Mapping[str, Any]],
    report: str = "",
    left_out: Sequence[Mapping[str, str]] = (),
    budget: int | None = None,
    color: bool = False,
) -> str:
    """Lines without a trailing newline. `report` is the path to name at the end; `budget` defaults to the verdicts'.

    Control characters in labels and reasons (a dump could carry terminal escapes) become U+FFFD.
    """
    heads = [v.as_json() for v in verdicts if v.headline]
    lines: list[str] = []
    for v in heads:
        word = v["verdict"].upper()
        head = clean(content.statement(v))
        if color:
            head = head.replace(word, f"\x1b[1;{COLORS[v['verdict']]}m{word}\x1b[0m", 1)
        why = content.reasons(v)
        lines.append(head + (f": {clean(why[0])}" if why else "") + ".")
    if not heads:
        lines.append(clean(content.no_verdict({"sources": sources})))
    k = budget or (heads[0]["budget"] if heads else content.BUDGET)
    analyses = {
        name: {"estimates": {key: e.as_json() for key, e in r.estimates.items()}} for name, r in results.items()
    }
    grid = content.key_table(sources, analyses, k)
    lines += ["", *_columns([grid.columns, *grid.rows]), ""]
    lines += content.ledger_lines(ledger)
    lines += [clean(f"Left out: {item['analysis']}: {item['why']}") for item in left_out]
    return "\n".join([*lines, f"Report: {report}"] if report else lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[clean(c) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def clean(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", "\N{REPLACEMENT CHARACTER}", text)
