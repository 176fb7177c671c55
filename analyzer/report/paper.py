"""What an author pastes into a paper: one paragraph, and the key table in LaTeX. Numbers are those of results.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from analyzer.report import content

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
    problems = max((s["problems"] for s in data["sources"].values()), default=0)
    scored = f", of which {ledger['traces_scored']:,} scored under the base model" if ledger["traces_scored"] else ""
    parts = [
        f"We compared {_listed(others) or 'no further source'} with samples of {reference or 'the reference'} on "
        f"{problems:,} problems ({ledger['traces']:,} traces{scored}; {ledger['rows_rejected']:,} of "
        f"{ledger['rows']:,} rows were rejected), with reasoning-path-analyzer {data['version']} at a budget of "
        f"k = {k} draws. Intervals are at 95 %, by problem; the words rest on one-sided 95 % bounds for these problems."
    ]
    if said := content.asked(data):
        parts.append(f"Under the base: {said}.")
    for v in content.headlines(data):
        numbers = content.evidence(data, v)
        parts.append(content.statement(v) + (f" ({numbers})" if numbers else "") + ".")
    return " ".join(parts)


def latex(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """The key table as a booktabs table; brackets hold the intervals."""
    k = content.budget(data, meta)
    grid = content.key_table(data, budget=k, meta=meta)
    verdicts = {v["source"]: f"{v['verdict']} ({v['level']})" for v in content.headlines(data)}
    marked = {row[0]: verdicts.get(name, content.NONE) for row, name in zip(grid.rows, content.labels(data, meta))}
    columns = [*grid.columns, "verdict"]
    lines = [" & ".join(tex(c) for c in [*row, marked[row[0]]]) + r" \\" for row in grid.rows]
    said = f" Under the base: {tex(asked)}." if (asked := content.asked(data)) else ""
    caption = rf"{tex(content.title(data, meta))} Brackets: 95\,\% intervals over problems; budget $k={k}$.{said}"
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 2)}l}}",
            r"\toprule",
            " & ".join(map(tex, columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def tex(text: str) -> str:
    """Text that LaTeX sets as it is; control characters and line breaks become spaces."""
    return "".join(SPECIAL.get(c, c) for c in re.sub(r"[\x00-\x1f\x7f]+", " ", text))


def _listed(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
