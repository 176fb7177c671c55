"""What an author pastes into a paper: one paragraph, and the key table in LaTeX. Numbers are those of results.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from analyzer.pages import content, key
from analyzer.records.display import NONE, counted, listed

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
    rejected = content.rejected_rows(ledger)
    left = "".join(f"; {n:,} {why}" for why, n in content.not_asked(ledger).items())
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
    """The key tables as booktabs tables, one below the other; brackets hold the intervals."""
    k = content.budget(data, meta)
    found = key.tables(data, budget=k, meta=meta)
    verdicts = {v["source"]: f"{v['verdict']} ({v['level']})" for v in content.headlines(data)}
    caption = [tex(content.title(data, meta)), rf"Brackets: 95\,\% intervals over problems; budget $k={k}$."]
    caption += [tex(line) for line in key.basis(data, meta)]
    caption += [f"Under the base: {tex(said)}."] if (said := content.asked(data)) else []
    lines = [rf"\caption{{{' '.join(caption)}}}"]
    for i, (title, grid) in enumerate(found):
        words = [verdicts.get(source, NONE) for source in key.sources(data, meta)]
        columns = [*grid.columns, *([] if i else ["verdict"])]
        rows = [[*row, *([] if i else [word])] for row, word in zip(grid.rows, words, strict=True)]
        lines += [
            *([r"\par\medskip"] if i else []),
            rf"{tex(title)}:\par\smallskip",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}{'' if i else 'l'}}}",
            r"\toprule",
            " & ".join(map(tex, columns)) + r" \\",
            r"\midrule",
            *(" & ".join(map(tex, row)) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    head = ["% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering\small"]
    return "\n".join([*head, *lines, r"\end{table}", ""])


def tex(text: str) -> str:
    """Text that LaTeX sets as it is; control characters and line breaks become spaces."""
    return "".join(SPECIAL.get(c, c) for c in re.sub(r"[\x00-\x1f\x7f]+", " ", text))
