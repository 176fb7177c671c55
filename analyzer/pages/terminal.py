"""Text for the terminal: the summary of a report, the tables of analyses, one trace with its surprisals.

Text from dumps could carry terminal escapes: they are written out before colours are added. Nothing is printed here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from analyzer.analysis.support.prompts import phrase
from analyzer.pages import content, render
from analyzer.pages import key as key_numbers
from analyzer.records import Result, Trace, display, json_value
from analyzer.records.display import counted, one_line, visible

WORD_COLORS = {"inside": "32", "sharpened": "34", "reweighted": "35", "outside": "31", "undetermined": "33"}
STEPS = ((6.0, "1;97;48;5;88"), (3.0, "30;48;5;215"), (1.0, "30;48;5;230"))  # surprisal in nats from -> its colours
MARKS = ((6.0, "⟦⟦", "⟧⟧"), (3.0, "⟦", "⟧"))  # the same without colour
ROWS, WORST, REASONS = 20, 10, 5
WIDTH, LONGEST = 80, 24  # of a table, and of the longest word in it that is not broken


def summary(data: Mapping[str, Any], *, directory: str = "", colour: bool = False) -> str:
    """Verdict per source in one line, key numbers, ledger, where the report lies; `data` is that of results.json. From
    texts alone the numbers that they give come first (`lead`)."""
    unused = [(why, n) for why, n in data["ledger"]["by_reason"].items() if not why.startswith("not scored")]
    values = {"data": data, "directory": directory.rstrip("/"), "colour": colour, "unused": unused}
    return _rendered("summary.txt", {**values, "narrow": _narrow, "word": _word, "REASONS": REASONS})


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    made = render.environment(_shown).get_template(template)
    text = made.render(
        columns=lambda grid: Markup("\n".join(columns(grid))), key=key_numbers, counted=counted, **values
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _shown(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(one_line(str(value)))


def _word(word: str, colour: bool) -> Markup:
    return Markup(f"\x1b[1;{WORD_COLORS[word]}m{word.upper()}\x1b[0m" if colour else word.upper())


def _narrow(grid: content.Grid) -> content.Grid:
    """Fewer columns, and intervals only where the verdict hangs on them; the report has the rest."""
    kept = [i for i, c in enumerate(grid.columns) if c != "nats per token"]

    def short(i: int, text: str) -> str:
        known = grid.columns[i].startswith(("beyond", "hurdle", "horizon"))
        return text if known else re.sub(r" \[[^]]*\]", "", text)

    rows = [[row[0], *(short(i, row[i]) for i in kept if i)] for row in grid.rows]
    return content.Grid([grid.columns[i] for i in kept], rows, grid.notes)


def tables(results: Mapping[str, Result], left_out: Sequence[Mapping[str, str]]) -> str:
    """Every estimate and the first rows of every table of `results`, then what was left out and why."""
    values = {"results": {name: result.as_json() for name, result in results.items()}, "left_out": left_out}
    return _rendered(
        "tables.txt", {**values, "labels": _labels, "cells": lambda table: content.cells(table, ROWS), "ROWS": ROWS}
    )


def _labels(data: Mapping[str, Any]) -> list[str]:
    """Sources as the tables of the result name them (a label may hold a dot), else what stands before the first dot."""
    found = sorted({key.partition(".")[0] for key in data["estimates"]})
    for table in data["tables"].values():
        if "source" in table["columns"]:
            at = table["columns"].index("source")
            named = list(dict.fromkeys(str(row[at]) for row in table["rows"]))
            return named + [s for s in found if not any(n == s or n.startswith(f"{s}.") for n in named)]
    return found


def trace(item: Trace, row: Mapping[str, Any], *, colour: bool = False) -> str:
    """The response with its surprising tokens set off, then the most surprising ones as a table.

    row: token columns under one model as arrays [T] (logprob in nats, rank from 1, entropy in nats, token, offset).
    With colour a token's background says its surprisal; without, tokens of 3 nats or more stand in ⟦ ⟧, from 6 in two.
    A trace that was not scored (`not_scored`: why) is its text alone.
    """
    if "not_scored" in row:
        head = one_line(f"{item.key}: {', '.join([*_facts(item), 'not scored'])}: {row['not_scored']}")
        return "\n".join([head, "", visible(item.response)])
    surprisal = [-float(x) for x in row["logprob"]]
    pieces = _pieces(item.response, [int(x) for x in row["offset"]], [int(x) for x in row["token"]])
    total, n = sum(surprisal), len(surprisal)
    facts = [
        f"{n} tokens",
        f"{total:.1f} nats",
        f"{total / n:.3f} nats per token" if n else "",
        *_facts(item),
        phrase(row["prompt_of"]) if row.get("prompt_of") else "",
    ]
    text = "".join(_mark(piece, s, colour) for piece, s in zip(pieces, surprisal, strict=True))
    worst = sorted(range(n), key=lambda i: -surprisal[i])[:WORST]
    rows = [
        [str(i), f"{surprisal[i]:.2f}", str(int(row["rank"][i])), f"{float(row['entropy'][i]):.2f}", repr(pieces[i])]
        for i in worst
    ]
    grid = content.Grid(["position", "nats", "rank", "entropy", "token"], rows, [])
    legend = "background: from 1, 3 and 6 nats" if colour else "⟦ ⟧: from 3 nats, ⟦⟦ ⟧⟧: from 6"
    head = one_line(f"{item.key}: " + ", ".join(f for f in facts if f))
    return "\n".join([head, f"Surprisal of a token, {legend}.", "", text, "", "Most surprising:", *columns(grid)])


def _facts(item: Trace) -> list[str]:
    """What is known of a trace without a model."""
    facts = [
        {True: "correct", False: "wrong", None: "correctness unknown"}[item.correct],
        f"finish {item.finish}" if item.finish else "",
        f"answer {item.answer}" if item.answer else "",
    ]
    return [f for f in facts if f]


def trace_json(item: Trace, row: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """One trace and its token columns as JSON values: text and id of each token, logprob and entropy in nats, rank from
    1; `not_scored` in place of them."""
    identity = ("source", "problem", "sample", "step", "correct", "score", "finish", "answer", "group", "origin")
    told = {"key": item.key, "model": model, **{name: getattr(item, name) for name in identity}}
    if "not_scored" in row:
        return {**told, "not_scored": row["not_scored"], "prompt": item.prompt, "response": item.response}
    pieces = _pieces(item.response, [int(x) for x in row["offset"]], [int(x) for x in row["token"]])
    columns = {name: json_value(row[name]) for name in ("token", "logprob", "rank", "entropy")}
    told |= {"prompt_of": row["prompt_of"]} if row.get("prompt_of") else {}
    return {**told, "prompt": item.prompt, "response": item.response, "tokens": {"text": pieces, **columns}}


def left_out(items: Sequence[Mapping[str, str]]) -> list[str]:
    """What was left out, one line per reason."""
    by_reason: dict[str, list[str]] = {}
    for item in items:
        by_reason.setdefault(item["why"], []).append(item["analysis"])
    return [one_line(f"left out: {', '.join(names)}: {why}") for why, names in by_reason.items()]


def _pieces(text: str, offsets: Sequence[int], ids: Sequence[int]) -> list[str]:
    """The text of each token; its id where the offsets are not known."""
    bounds = [*offsets, len(text)]
    if any(a < 0 or a > b for a, b in zip(bounds, bounds[1:], strict=False)):
        return [f"<{i}>" for i in ids]
    return [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _mark(piece: str, surprisal: float, colour: bool) -> str:
    shown = visible(piece)
    style = next((s for limit, s in STEPS if surprisal >= limit), None)
    if colour:
        return shown if style is None else f"\x1b[{style}m{shown}\x1b[0m"
    left, right = next(((a, b) for limit, a, b in MARKS if surprisal >= limit and shown), ("", ""))
    return f"{left}{shown}{right}"


def columns(grid: content.Grid, *, width: int = WIDTH) -> list[str]:
    """Lines of aligned cells within `width`, the first column to the left, numbers to the right. What is too wide is
    wrapped; where columns do not fit beside each other even so, the second half follows below, behind the first one."""
    rows = [list(map(one_line, row)) for row in [grid.columns, *grid.rows]]
    cells = list(zip(*rows, strict=True))
    widths = [max(map(_width, column)) for column in cells]
    least = [min(LONGEST, max(_width(w) for c in column for w in _words(c))) for column in cells]
    while (over := sum(widths) + 2 * len(widths) - 2 - width) > 0:
        spare = [n - m for n, m in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= min(over, max(1, max(spare) // 2))
    if over > 0 and len(cells) > 2:
        half = (len(cells) + 1) // 2
        parts = [[0, *range(1, half)], [0, *range(half, len(cells))]]
        shown = [
            content.Grid(*([[row[i] for i in part] for row in rows][k] for k in (0, slice(1, None))), [])
            for part in parts
        ]
        return [*columns(shown[0], width=width), "", *columns(shown[1], width=width)]
    right = display.numbers(rows[1:], len(cells))
    lines = []
    for row in rows:
        wrapped = [_wrapped(text, n) for text, n in zip(row, widths, strict=True)]
        for line in zip_longest(*wrapped, fillvalue=""):
            filled = [
                (" " * (n - _width(c))) + c if r else c + " " * (n - _width(c))
                for c, n, r in zip(line, widths, right, strict=True)
            ]
            lines.append("  ".join(filled).rstrip())
    return lines


def _words(text: str) -> list[str]:
    """What is not broken: words, and the two ends of an interval."""
    held = re.sub(r"(\[[^\] ]+,) (?=[^\] ]+\])|(\([kn]) (=) (?=[\d,]+\))", lambda m: m[0].replace(" ", "\0"), text)
    return [word.replace("\0", " ") for word in held.split(" ")]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`, broken at blanks, and inside a word that is longer."""
    lines = [""]
    for word in [text] if _width(text) <= width else _words(text):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        lines[-1:] = [joined] if _width(joined) <= width else [*filter(None, lines[-1:]), ""]
        for c in word if joined != lines[-1] else "":
            lines[-1:] = [lines[-1] + c] if _width(lines[-1] + c) <= width else [lines[-1], c]
    return lines


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
