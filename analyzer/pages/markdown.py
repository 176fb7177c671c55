"""report.md: the report as GitHub shows it. Every text from outside is escaped; figures are linked relatively."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.pages import content, key, lead, methods, sequences
from analyzer.records.display import counted, visible

ROWS = 40  # of one table; the csv and results.json hold all of them


def page(
    data: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
) -> str:
    """The whole file; `data` is the content of results.json, `figures` and `tables` hold paths relative to it."""
    budget, labels = content.budget(data, meta), content.labels(data, meta)
    said = key.basis(data, meta)
    parts = [f"# {esc(content.title(data, meta))}", *(f"**{esc(line)}**" for line in said)]
    parts.append(esc(content.subtitle(data, meta, budget)))
    parts.append("Doubts: " + esc("; ".join(f"{text}" for _, _, text in content.doubts(data))) + ".")
    parts += ["## Verdict", *_verdicts(data)]
    parts.append("## Key numbers")
    for title, table in key.tables(data, budget=budget, meta=meta):
        parts += [f"{esc(title)}:", *_grid(table)]
    under = f"Under the base: {content.asked(data)}. " if content.asked(data) else ""
    parts.append(esc(under + content.BRACKETS))
    parts += ["## Ledger", *_ledger(data["ledger"], [*said, *(meta.get("notes") or [])])]
    instead = {"paired": methods.pairs(data), "robustness": methods.varied(data)}  # of estimates by source
    for name, analysis in data["analyses"].items():
        if name == "compared":  # its numbers are the key numbers
            continue
        grid = instead[name] if name in instead and instead[name].rows else content.pivot(analysis, labels)
        more = _sequences(data, budget) if name == "support" else []
        parts += _analysis(name, analysis, grid, figures.get(name, []), tables.get(name, {}), more)
    parts += ["## Left out, and why"]
    parts += [_list(f"**{esc(i['analysis'])}**: {esc(i['why'])}" for i in meta["left_out"]) or "Nothing."]
    parts += ["## Methods", *_grid(methods.settings(data, meta), code=True)]
    parts.append("The key table in LaTeX: [key.tex](tables/key.tex).")
    if meta.get("decisions"):
        parts += ["Decisions taken on the way:", _list(esc(d) for d in meta["decisions"])]
    parts += [
        "### How to read the verdicts",
        _list(f"**{w}**: {esc(text)}" for w, text in content.WORDS.items()),
        "Levels, finest first: " + "; ".join(f"**{k}**, {esc(v)}" for k, v in content.LEVELS.items()) + ".",
        esc(content.REACH),
        esc(content.BOUNDS),
        esc(content.RAW),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _verdicts(data: Mapping[str, Any]) -> list[str]:
    heads = content.headlines(data)
    if not heads:
        return [esc(content.no_verdict(data))]
    rows = [
        [v["source"], v["verdict"].upper(), v["level"], str(v["budget"]), content.evidence(data, v) or content.NONE]
        for v in heads
    ]
    columns = ["source", "verdict", "level", "budget", "whole traces and steps, 95 % by problem"]
    first = [f"{esc(s)}." for v in heads for s in _first(data, v)]
    sentences = []
    for v in heads:
        why = "; ".join(content.reasons(v))
        said = f"**{esc(content.statement(v))}**" + (f": {esc(why)}" if why else "")
        sentences.append(f"{said}. {esc(content.overturn(v))}")
    return [
        _list(first),
        *_grid(content.Grid(columns, rows, [])),
        _list(sentences),
        "By level (the headline in capitals):",
        *_grid(content.by_level(data)),
        *(
            part
            for v in heads
            for part in (f"{esc(v['source'])}, the other levels:", *_grid(content.levels(data, v["source"])))
        ),
    ]


def _ledger(ledger: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    parts = [_list(esc(line) for line in [*content.ledger_lines(ledger), *notes])]
    if ledger["by_reason"]:
        parts += _grid(
            content.Grid(["reason", "n"], [[k, content.count(n)] for k, n in ledger["by_reason"].items()], [])
        )
    return parts


def _first(data: Mapping[str, Any], v: Mapping[str, Any]) -> list[str]:
    """What texts alone say, before any word."""
    return [*lead.sentences(data, v["source"], v["reference"]), *filter(None, [lead.certified(data, v["source"])])]


def _analysis(
    name: str,
    analysis: Mapping[str, Any],
    grid: content.Grid,
    figures: Sequence[Mapping[str, Any]],
    tables: Mapping[str, str],
    more: Sequence[str] = (),
) -> list[str]:
    """more: what stands between the first figure and the others."""
    parts = [f"## {esc(content.heading(name))}", f"*{esc(analysis['question'])}*"]
    parts.append(_list(esc(n) for n in analysis["notes"]))
    plots = [
        f"![{esc(f['caption'])}]({f['svg']})\n\n{esc(f['caption'])} ([pdf]({f['pdf']}), [csv]({f['csv']}))"
        for f in figures
    ]
    numbers = _grid(grid, whole=tables[content.ALL]) if grid.rows else []
    if more:
        parts += [*plots[:1], *more, "### Whole traces and novelty", *numbers, *plots[1:]]
    else:
        parts += [*numbers, *plots]
    links = [
        f"[{esc(t)}]({path}) ({counted(len(analysis['tables'][t]['rows']), 'row')})"
        for t, path in tables.items()
        if t != content.ALL
    ]
    if tables:
        links.insert(0, f"[estimates]({tables[content.ALL]}) (with n, method and notes)")
        parts.append("Tables: " + ", ".join(links) + ".")
    return parts


def _sequences(data: Mapping[str, Any], budget: int) -> list[str]:
    """Steps of the sources, hurdles with their places, stretches, laws: as on the page."""
    steps = sequences.numbers(data, budget)
    parts = _grid(steps) if steps.rows else []
    for title, said, table in (
        ("Hurdles", sequences.hurdle(budget), sequences.hurdles(data)),
        ("Stretches", sequences.STRETCHES, sequences.stretches(data)),
        ("Laws of the base", sequences.LAWS, sequences.laws(data, budget)),
    ):
        if table.rows or table.notes:
            parts += [f"### {title}", esc(said), *(_grid(table._replace(notes=[])) if table.rows else [])]
            parts.append(esc("; ".join(table.notes) + ".") if table.notes else "")
    return parts


def _grid(grid: content.Grid, *, whole: str = "", code: bool = False) -> list[str]:
    """A table in pipes, its surplus rows counted, and the notes on empty cells below."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    shown = grid.rows[:ROWS] if whole else grid.rows
    right = [i > 0 and not code and all(content.numeric(row[i]) for row in shown) for i in range(len(grid.columns))]
    out = [line([esc(c) for c in grid.columns]), line(["---:" if r else "---" for r in right])]
    out += [line([esc(row[0]), *(_code(c) if code else esc(c) for c in row[1:])]) for row in shown]
    parts = ["\n".join(out)]
    if len(shown) < len(grid.rows):
        parts.append(f"{len(shown)} shown of {len(grid.rows)}, the whole table in [{whole}]({whole}).")
    return [*parts, _list(f"{content.NONE} {esc(n)}" for n in grid.notes[:ROWS]), content.more(len(grid.notes), ROWS)]


def _list(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items)


def _code(text: str) -> str:
    """A code span in a table cell; its fence is longer than any run of backticks inside."""
    text = visible(re.sub(r"\s+", " ", text)).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if fence != "`" else f"`{text}`"


def esc(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no math, no line break."""
    text = visible(re.sub(r"[\t-\r\u2028\u2029]+", " ", text))
    text = re.sub(r"([\\`*\[\]|$~#])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return text.replace("://", ":&#8203;//")
