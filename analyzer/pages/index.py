"""The index of many studies: index.html and index.json, which compare their verdicts; each study has its own report.

Everything is read from the studies' results.json. The page has no script at all: its policy allows none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analyzer.errors import AnalyzerError
from analyzer.pages import content, html
from analyzer.pages.parts import esc, number
from analyzer.pages.results import SCHEMA, encode, relative
from analyzer.pages.terminal import clean, columns

NUMBERS = ("beyond", "hurdle_share", "horizon", "reach", "novel")  # of support, at the budget; the first are shown
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def build(
    studies: Mapping[str, Mapping[str, Any] | AnalyzerError], *, version: str, command: Sequence[str]
) -> dict[str, Any]:
    """The content of index.json; a study is its results.json, or the error that stopped it.

    {"schema", "version", "command", "studies": [{"study", "report" (path of its page or null), "exit_code", "error",
    "ledger", "sources", "verdicts" (the headlines, each with its beyond,
    hurdle_share, horizon, reach and novel at the budget)}]}
    """
    return {
        "schema": SCHEMA,
        "version": version,
        "command": [relative(str(word)) for word in command],
        "studies": [_failed(n, s) if isinstance(s, AnalyzerError) else _done(n, s) for n, s in studies.items()],
    }


def _failed(name: str, error: AnalyzerError) -> dict[str, Any]:
    nothing = {"ledger": None, "sources": {}, "verdicts": []}
    return {"study": name, "report": None, "exit_code": error.exit_code, "error": str(error), **nothing}


def _done(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = [
        {
            **v,
            **{
                what: content.estimate(data["analyses"], "support", f"{v['source']}.{what}@{v['budget']}")
                for what in NUMBERS
            },
        }
        for v in content.headlines(data)
    ]
    kept = {key: data[key] for key in ("ledger", "sources")}
    return {"study": name, "report": f"{name}/index.html", "exit_code": 0, "error": None, **kept, "verdicts": verdicts}


def table(index: Mapping[str, Any]) -> content.Grid:
    """One row per study and source: its verdict, how far it reaches, from how many traces, and the first reason."""
    rows = []
    for s in index["studies"]:
        for v in s["verdicts"]:
            own = s["sources"][v["source"]]
            rows.append(
                [
                    s["study"],
                    v["source"],
                    v["verdict"].upper(),
                    v["level"] + content.asked_of(v),
                    str(v["budget"]),
                    *(content.interval(v[what]) for what in NUMBERS[:3]),
                    content.count(own["traces"]),
                    content.count(own["problems"]),
                    next(iter(content.reasons(v)), content.NONE),
                ]
            )
        if not s["verdicts"]:
            rows.append([s["study"], content.NONE, "FAILED" if s["error"] else "NO VERDICT", *[content.NONE] * 8])
    numbers = [f"{what.replace('_', ' ')}@budget" for what in NUMBERS[:3]]
    head = ["study", "source", "verdict", "level", "budget", *numbers, "traces", "problems", "first reason"]
    return content.Grid(head, rows, [])


def matrix(index: Mapping[str, Any]) -> content.Grid:
    """One row per study and one column per source: the word of its headline."""
    labels = list(dict.fromkeys(v["source"] for s in index["studies"] for v in s["verdicts"]))
    rows = []
    for s in index["studies"]:
        words = {v["source"]: v["verdict"].upper() for v in s["verdicts"]}
        rows.append([s["study"], *(words.get(label, content.NONE) for label in labels)])
    return content.Grid(["study", *labels], rows, [])


def summary(index: Mapping[str, Any]) -> str:
    """How many studies came to what, in one sentence."""
    failed = [s["study"] for s in index["studies"] if s["error"]]
    words = [v["verdict"] for s in index["studies"] for v in s["verdicts"]]
    found = ", ".join(f"{words.count(w)} {w}" for w in content.WORDS if w in words)
    count = len(index["studies"])
    text = f"{count} {'study' if count == 1 else 'studies'}, {len(words)} sources judged: {found or 'no verdict'}"
    return text + (f"; {len(failed)} failed ({', '.join(failed)})" if failed else "") + "."


def text(index: Mapping[str, Any], *, directory: str) -> str:
    """The index for a terminal."""
    shown = table(index)
    narrow = content.Grid(shown.columns[:-1], [row[:-1] for row in shown.rows], [])
    lines = [summary(index), "", *columns(narrow), ""]
    lines += [clean(f"{s['study']}: {s['error']}") for s in index["studies"] if s["error"]]
    return "\n".join([*lines, f"Index: {directory.rstrip('/')}/index.html (and index.json, a folder per study)"])


def write(directory: Path, index: Mapping[str, Any]) -> None:
    """Write index.html and index.json into `directory` (see `outputs.replaced`)."""
    from analyzer.pages.write import _put

    _put(directory / "index.html", page(index))
    _put(directory / "index.json", encode(index) + "\n")


def page(index: Mapping[str, Any]) -> str:
    """The whole file; links lead to the studies' own pages."""
    links = {
        s["study"]: f'<a href="{esc(quote(s["report"]))}">{esc(s["study"])}</a>'
        for s in index["studies"]
        if s["report"]
    }
    numbers = _grid(table(index), links, slice(2, 3))
    failed = [s for s in index["studies"] if s["error"]]
    errors = "".join(f"<dt>{esc(s['study'])}</dt><dd>{esc(s['error'])}</dd>" for s in failed)
    words = "".join(f"<dt>{html._chip(w)}</dt><dd>{esc(text)}</dd>" for w, text in content.WORDS.items())
    compared = matrix(index)
    several = len(compared.columns) > 2 and len(compared.rows) > 1
    sections = [
        ("verdicts", "Verdicts", _grid(compared, links, slice(1, None)) if several else ""),
        ("numbers", "Numbers behind them", f"{numbers}<p class=note>{esc(content.BRACKETS)}</p>"),
        ("failed", "Studies without a report", f"<dl>{errors}</dl>" if failed else ""),
        ("words", "What the verdicts mean", f"<dl>{words}</dl><p>{esc(content.REACH)}</p><p>{esc(content.BOUNDS)}</p>"),
    ]
    body = "".join(
        f'<section id="{i}" aria-labelledby="{i}-h"><h2 id="{i}-h">{esc(title)}</h2>{text}</section>\n'
        for i, title, text in sections
        if text
    )
    command = " ".join(index["command"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{esc(summary(index))}</title>
<link rel="icon" href="data:,">
<style>
{html._plain("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdicts</a>
<header><h1>Inside or outside the base's support?</h1>
<p class="sub">{esc(summary(index))} analyzer {esc(index["version"])}</p></header>
<main id="main">
{body}<p class="note"><code>{esc(command)}</code> · for scripts: <a href="index.json">index.json</a></p>
</main>
</body>
</html>
"""


def _grid(table: content.Grid, links: Mapping[str, str], words: slice) -> str:
    """A table with its studies linked and the verdict words in the columns `words` marked."""
    head = "".join(f'<th scope="col">{esc(c)}</th>' for c in table.columns)
    right = [all(content.numeric(row[i]) for row in table.rows) for i in range(len(table.columns))]
    rows = ""
    for row in table.rows:
        marked = row[words]
        cells = [f"<td>{links.get(row[0], esc(row[0]))}</td>"]
        for text, is_number in zip(row[1:], right[1:], strict=True):
            if text in marked and text.lower() in content.WORDS:
                cells.append(f"<td>{html._chip(text.lower())}</td>")
            else:
                cells.append(f"<td class=r>{number(text)}</td>" if is_number else f"<td>{esc(text)}</td>")
        rows += f"<tr>{''.join(cells)}</tr>\n"
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Table: {esc(", ".join(table.columns[:4]))}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
