"""The index of many studies: index.html and index.json, which compare their verdicts; each study has its own report.

Everything is read from the studies' results.json. The page has no script at all: its policy allows none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from analyzer.errors import AnalyzerError
from analyzer.pages import content, render, wording
from analyzer.pages.results import SCHEMA, encode, relative
from analyzer.pages.terminal import columns
from analyzer.records import display
from analyzer.records.display import counted, one_line

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
                    next(iter(content.reasons(v)), display.NONE),
                ]
            )
        if not s["verdicts"]:
            rows.append([s["study"], display.NONE, "FAILED" if s["error"] else "NO VERDICT", *[display.NONE] * 8])
    numbers = [f"{what.replace('_', ' ')}@budget" for what in NUMBERS[:3]]
    head = ["study", "source", "verdict", "level", "budget", *numbers, "traces", "problems", "first reason"]
    return content.Grid(head, rows, [])


def matrix(index: Mapping[str, Any]) -> content.Grid:
    """One row per study and one column per source: the word of its headline."""
    labels = list(dict.fromkeys(v["source"] for s in index["studies"] for v in s["verdicts"]))
    rows = []
    for s in index["studies"]:
        words = {v["source"]: v["verdict"].upper() for v in s["verdicts"]}
        rows.append([s["study"], *(words.get(label, display.NONE) for label in labels)])
    return content.Grid(["study", *labels], rows, [])


def summary(index: Mapping[str, Any]) -> str:
    """How many studies came to what, in one sentence."""
    failed = [s["study"] for s in index["studies"] if s["error"]]
    words = [v["verdict"] for s in index["studies"] for v in s["verdicts"]]
    found = ", ".join(f"{words.count(w)} {w}" for w in wording.WORDS if w in words)
    count, sources = len(index["studies"]), counted(len(words), "source")
    text = f"{count} {'study' if count == 1 else 'studies'}, {sources} judged: {found or 'no verdict'}"
    return text + (f"; {len(failed)} failed ({', '.join(failed)})" if failed else "") + "."


def text(index: Mapping[str, Any], *, directory: str) -> str:
    """The index for a terminal."""
    shown = table(index)
    narrow = content.Grid(shown.columns[:-1], [row[:-1] for row in shown.rows], [])
    lines = [summary(index), "", *columns(narrow), ""]
    lines += [f"{s['study']}: {s['error']}" for s in index["studies"] if s["error"]]
    lines.append(f"Index: {directory.rstrip('/')}/index.html (and index.json, a folder per study)")
    return "\n".join(map(one_line, lines))


def write(directory: Path, index: Mapping[str, Any]) -> None:
    """Write index.html and index.json into `directory` (see `outputs.replaced`)."""
    from analyzer.pages.write import _put

    _put(directory / "index.html", page(index))
    _put(directory / "index.json", encode(index) + "\n")


def page(index: Mapping[str, Any]) -> str:
    """The whole file; links lead to the studies' own pages."""
    links = {s["study"]: s["report"] for s in index["studies"] if s["report"]}

    def marked(grid: content.Grid, words: slice) -> content.Grid:
        link = Markup('<a href="{}">{}</a>')
        rows = []
        for first, *rest in grid.rows:
            cells = [link.format(quote(links[first]), display.markup(first)) if first in links else first, *rest]
            places = [i for i in range(len(cells))[words] if cells[i].lower() in display.MARKS]
            rows.append([render.chip(c.lower()) if i in places else c for i, c in enumerate(cells)])
        return content.Grid(grid.columns, rows, [])

    compared = matrix(index)
    several = len(compared.columns) > 2 and len(compared.rows) > 1
    tables = [
        ("verdicts", "Verdicts", marked(compared, slice(1, None)) if several else compared._replace(rows=[])),
        ("numbers", "Numbers behind them", marked(table(index), slice(2, 3))),
    ]
    failed = [(s["study"], s["error"]) for s in index["studies"] if s["error"]]
    values = {"title": summary(index), "index": index, "tables": tables, "failed": failed}
    return render.page("index.html", POLICY, values)
