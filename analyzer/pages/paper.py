"""What an author pastes into a paper: one paragraph, and the key table in LaTeX. Numbers are those of results.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from analyzer.pages import content, key, ledgers
from analyzer.records.display import NONE, counted, listed

PRINTED = ("pass@", "median ppl", "beyond@", "hurdle share@")  # columns of the key tables; the others are in the report
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "∞": r"$\infty$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}


def paragraph(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Plain text: what was compared and how, then every headline with its interval."""
    reference, k, ledger = content.reference(data, meta), content.budget(data, meta), data["ledger"]
    others = [s for s in content.labels(data, meta) if s != reference]
    sources = data["sources"].values()
    problems = max((s["problems"] for s in sources), default=0)
    scored = f", of which {ledger['traces_scored']:,} scored under the base model" if ledger["traces_scored"] else ""
    said = key.basis(data, meta)
    on = "these problems" if said else counted(problems, "problem")
    rejected = ledgers.rejected_rows(ledger)
    left = "".join(f"; {n:,} {why}" for why, n in ledgers.not_asked(ledger).items())
    parts = [
        *said,
        f"We compared {listed(others) or 'no further source'} with samples of {reference or 'the reference'} on "
        f"{on} ({counted(ledger['traces'], 'trace')}{scored}; {rejected:,} of {counted(ledger['rows'], 'row')} "
        f"{'was' if rejected == 1 else 'were'} rejected{left}), with reasoning-path-analyzer {data['version']} at a "
        f"budget of k = {k} draws. Intervals are at 95 %, by problem; each verdict rests on one-sided 95 % bounds for "
        "these problems, uncorrected over sources.",
    ]
    if said := content.asked(data):
        parts.append(f"Under the base: {said}.")
    for v in content.headlines(data):
        numbers = content.evidence(data, v)
        parts.append(content.statement(v) + (f" ({numbers})" if numbers else "") + ".")
    return " ".join(parts)


def latex(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """The key numbers as booktabs tables of four columns at most, one below the other, which fit one of two columns of
    a page. A row's second line has what is in brackets: intervals, the level of a verdict. Counts are in the caption.
    """
    k = content.budget(data, meta)
    found = key.tables(data, budget=k, meta=meta)
    verdicts = {v["source"]: f"{v['verdict']} ({v['level']})" for v in content.headlines(data)}
    words = [verdicts.get(source, NONE) for source in key.sources(data, meta)]
    caption = [f"{tex(content.title(data, meta))}.", rf"Brackets: 95\,\% intervals over problems; budget $k={k}$."]
    caption += [tex(line) for line in [*_counts(found), *key.basis(data, meta)]]
    caption += [f"Under the base: {tex(said)}."] if (said := content.asked(data)) else []
    lines = []
    for i, (title, grid) in enumerate(found):
        columns = {name: [row[n] for row in grid.rows] for n, name in enumerate(grid.columns)}
        names = [name for name in columns if name == "source" or name.startswith(PRINTED)]
        rows = zip(*(columns[name] for name in names), strict=True)
        rows = [[*row, word] for row, word in zip(rows, words, strict=True)] if i == 0 else [list(row) for row in rows]
        lines += [
            *([r"\par\medskip"] if i else []),
            rf"{tex(title)}:\par\smallskip",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(names) - 1)}{'' if i else 'l'}@{{}}}}",
            r"\toprule",
            " & ".join(map(tex, [*names, *([] if i else ["verdict"])])) + r" \\",
            r"\midrule",
            *(line for row in rows for line in _two_lines(row)),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    head = ["% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}"]
    if re.search(r"[^\x00-\u017f]", "".join(lines) + "".join(caption)):
        head.insert(1, "% names beyond Latin letters need XeLaTeX or LuaLaTeX, and a font that has them")
    return "\n".join([*head, rf"\caption{{{' '.join(caption)}}}", *lines, r"\end{table}", ""])


def _counts(found: list[tuple[str, content.Grid]]) -> list[str]:
    """What stands behind the rows: problems, traces and scored traces, once where all sources have as many."""
    out = []
    for name in ("problems", "traces", "scored"):
        grids = [grid for _, grid in found if name in grid.columns][:1]
        cells = {row[0]: row[grid.columns.index(name)] for grid in grids for row in grid.rows}
        if len(set(cells.values())) == 1:
            out.append(f"{name.capitalize()}: {next(iter(cells.values()))}.")
        elif cells:
            out.append(f"{name.capitalize()}: {', '.join(f'{source} {n}' for source, n in cells.items())}.")
    return out


def _two_lines(row: list[str]) -> list[str]:
    """A row, and below it what stands in brackets behind the values."""
    parts = [(row[0], "", ""), *(re.split(r" (?=[\[(])", cell, maxsplit=1) for cell in row[1:])]
    lines = [" & ".join(tex(p[0]) for p in parts), " & ".join(tex(p[1]) if len(p) > 1 else "" for p in parts)]
    # a row that begins with [ or * would be an argument of the line break before it
    return [f"{'{}' if line[:1] in '[*' else ''}{line} \\\\" for line in lines if line.strip("& ")]


def tex(text: str) -> str:
    """Text that LaTeX sets as it is; control characters and line breaks become spaces."""
    return "".join(SPECIAL.get(c, c) for c in re.sub(r"[\x00-\x1f\x7f]+", " ", text))
