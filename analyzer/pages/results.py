"""results.json: the one file that scripts read; built here, checked here, and the only thing that the pages show."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.errors import AnalyzerError
from analyzer.records import LEVELS, WORDS, Result, Verdict, json_value

SCHEMA = 2
# of the page; further analyses follow by name
ORDER = ("compared", "preflight", "perplexity", "support", "contained", "strategy", "tokens", "boundary", "clusters")
LEDGER = ("rows", "rows_used", "rows_rejected", "traces", "traces_scored", "traces_rejected")
SOURCE = ("traces", "problems", "tokens", "correct")
COMPARED = ("traces", "problems", "left_out", "basis")  # of a source, beside these: on what it is set side by side


def build_results(
    *,
    results: Mapping[str, Result],
    verdicts: Sequence[Verdict],
    ledger: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    version: str,
    command: Sequence[str],
) -> dict[str, Any]:
    """The content of results.json (docs/reading.md) as JSON values; raises AnalyzerError when it breaks the contract.

    Absolute paths in `command` become relative to the working directory. Analyses stand in the order of the page,
    verdicts in the order of the sources and from the finest level to the coarsest, reasons by falling count.
    """
    places = {label: i for i, label in enumerate(sources)}
    ordered = sorted(verdicts, key=lambda v: (places.get(v.source, len(places)), LEVELS.index(v.level), v.budget))
    reasons = sorted(ledger.get("by_reason", {}).items(), key=lambda item: (-item[1], str(item[0])))
    data = {
        "schema": SCHEMA,
        "version": version,
        "command": [relative(str(a)) for a in command],
        "ledger": {
            **{k: _count(ledger[k]) for k in LEDGER if k in ledger},
            "by_reason": {str(k): _count(n) for k, n in reasons},
        },
        "sources": {label: _source(s) for label, s in sources.items()},
        "verdicts": [v.as_json() for v in ordered],
        "analyses": {name: _analysis(results[name]) for name in in_order(results)},
    }
    validate_results(data)
    return data


def in_order(names: Mapping[str, Any]) -> list[str]:
    """Names of analyses in the order of the page."""
    return [n for n in ORDER if n in names] + sorted(n for n in names if n not in ORDER)


def relative(argument: str) -> str:
    """An absolute path (also behind LABEL=) relative to the working directory; anything else as it is."""
    label, mark, path = ("", "", argument) if os.path.isabs(argument) else argument.partition("=")
    return label + mark + os.path.relpath(path) if os.path.isabs(path) else argument


def _source(counts: Mapping[str, Any]) -> dict[str, Any]:
    own = {k: _count(counts[k]) for k in SOURCE if k in counts}
    compared = counts.get("compared")
    return own if compared is None else own | {"compared": {k: _count(compared[k]) for k in COMPARED}}


def _count(value: Any) -> Any:
    value = json_value(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _analysis(result: Result) -> dict[str, Any]:
    out = result.as_json()
    return {**out, "params": json_value(out["params"]), "notes": list(map(str, out["notes"]))}


def validate_results(data: Mapping[str, Any]) -> None:
    """Check the contract of results.json; raises AnalyzerError with every breach, its place and value."""
    wrong: list[str] = []
    for name in ("schema", "version", "command", "ledger", "sources", "verdicts", "analyses"):
        if name not in data:
            wrong.append(f"{name} is missing")
    if wrong:
        raise AnalyzerError("results.json breaks its contract: " + "; ".join(wrong))
    if data["schema"] != SCHEMA:
        again = "; make it again from its run: analyzer report RUN -o DIR" if data["schema"] == 1 else ""
        wrong.append(f"schema is {data['schema']!r}, not {SCHEMA}{again}")
    wrong += _wrong_ledger(data["ledger"])
    for label, source in data["sources"].items():
        for key in SOURCE:
            if not (_is_count(source.get(key)) or (key == "correct" and key in source and source[key] is None)):
                wrong.append(f"sources.{label}.{key} is {source.get(key)!r}, not a count")
        for key in ("traces", "problems", "left_out"):
            if "compared" in source and not _is_count(source["compared"].get(key)):
                wrong.append(f"sources.{label}.compared.{key} is {source['compared'].get(key)!r}, not a count")
    wrong += _wrong_verdicts(data["verdicts"], data["sources"])
    for name, analysis in data["analyses"].items():
        wrong += _wrong_analysis(name, analysis)
    if wrong:
        shown = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise AnalyzerError(f"results.json breaks its contract: {shown}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong_ledger(ledger: Mapping[str, Any]) -> list[str]:
    wrong = [f"ledger.{k} is {ledger.get(k)!r}, not a count" for k in LEDGER if not _is_count(ledger.get(k))]
    wrong += [
        f"ledger.by_reason.{k} is {n!r}, not a count"
        for k, n in ledger.get("by_reason", {}).items()
        if not _is_count(n)
    ]
    if "by_reason" not in ledger:
        wrong.append("ledger.by_reason is missing")
    if wrong:
        return wrong
    read = ledger["rows_used"] + ledger["rows_rejected"]
    if ledger["rows"] != read:
        wrong.append(f"ledger.rows is {ledger['rows']}, but rows_used + rows_rejected is {read}")
    scored = ledger["traces_scored"] + ledger["traces_rejected"]  # both 0: no model was given
    if scored and ledger["traces"] != scored:
        wrong.append(f"ledger.traces is {ledger['traces']}, but traces_scored + traces_rejected is {scored}")
    return wrong


def _wrong_verdicts(verdicts: Sequence[Mapping[str, Any]], sources: Mapping[str, Any]) -> list[str]:
    wrong: list[str] = []
    headlines: dict[str, int] = {}
    seen: set[tuple[Any, ...]] = set()
    for i, v in enumerate(verdicts):
        where = f"verdicts[{i}]"
        if v.get("verdict") not in WORDS:
            wrong.append(f"{where}.verdict is {v.get('verdict')!r}, not one of {', '.join(WORDS)}")
        if v.get("level") not in LEVELS:
            wrong.append(f"{where}.level is {v.get('level')!r}, not one of {', '.join(LEVELS)}")
        wrong += [
            f"{where}.{k} is {v.get(k)!r}, which is not a source"
            for k in ("source", "reference")
            if v.get(k) not in sources
        ]
        if not _is_count(v.get("budget")) or v["budget"] == 0:
            wrong.append(f"{where}.budget is {v.get('budget')!r}, not a positive count")
        if not isinstance(v.get("headline"), bool):
            wrong.append(f"{where}.headline is {v.get('headline')!r}, not true or false")
        if not isinstance(v.get("why"), list) or not all(isinstance(w, str) for w in v["why"]):
            wrong.append(f"{where}.why is not a list of sentences")
        if "needs" not in v or not (v["needs"] is None or isinstance(v["needs"], str)):
            wrong.append(f"{where}.needs is neither text nor null")
        place = (v.get("source"), v.get("level"), v.get("budget"))
        if place in seen:
            wrong.append(f"{where} is a second verdict on {place}")
        seen.add(place)
        headlines[v.get("source", "")] = headlines.get(v.get("source", ""), 0) + (v.get("headline") is True)
    return wrong + [f"source {label!r} has {n} headline verdicts, not one" for label, n in headlines.items() if n != 1]


def _wrong_analysis(name: str, analysis: Mapping[str, Any]) -> list[str]:
    wrong = [
        f"analyses.{name}.{k} is missing"
        for k in ("question", "params", "notes", "estimates", "tables")
        if k not in analysis
    ]
    if wrong:
        return wrong
    for key, e in analysis["estimates"].items():
        where = f"analyses.{name}.estimates.{key}"
        for part in ("value", "low", "high"):
            number = e.get(part, "missing")
            if number is not None and (isinstance(number, (bool, str)) or not math.isfinite(number)):
                wrong.append(f"{where}.{part} is {number!r}, not a finite number or null")
        if e.get("value") is None and not e.get("note"):
            wrong.append(f"{where} has no value and no note that says why")
        if not _is_count(e.get("n")):
            wrong.append(f"{where}.n is {e.get('n')!r}, not a count")
    for key, table in analysis["tables"].items():
        width = len(table["columns"])
        uneven = [i for i, row in enumerate(table["rows"]) if len(row) != width]
        if uneven:
            wrong.append(f"analyses.{name}.tables.{key} has {width} columns, but row {uneven[0]} does not")
    parts = {"params": analysis["params"], "tables": analysis["tables"]}
    return wrong + [f"analyses.{name}.{where} is not finite" for where in _not_finite(parts)]


def _not_finite(value: Any, where: str = "") -> list[str]:
    if isinstance(value, float) and not math.isfinite(value):
        return [where]
    if isinstance(value, Mapping):
        return [w for k, v in value.items() for w in _not_finite(v, f"{where}.{k}".lstrip("."))]
    if isinstance(value, (list, tuple)):
        return [w for i, v in enumerate(value) for w in _not_finite(v, f"{where}[{i}]")]
    return []


def encode(value: Any, indent: int = 0) -> str:
    """JSON text, one line per key and per table row, so that two reports can be compared line by line."""
    pad = "\n" + " " * (indent + 1)
    if isinstance(value, Mapping) and value:
        lines = [f"{json.dumps(str(k), ensure_ascii=False)}: {encode(v, indent + 1)}" for k, v in value.items()]
        flat = not any(isinstance(v, (Mapping, list)) for v in value.values()) and len(value) > 1
        return "{" + ", ".join(lines) + "}" if flat and indent else "{" + pad + f",{pad}".join(lines) + pad[:-1] + "}"
    if isinstance(value, list) and any(isinstance(v, (Mapping, list)) for v in value):
        return (
            "["
            + pad
            + f",{pad}".join(encode(v, indent + 1) if isinstance(v, Mapping) else _line(v) for v in value)
            + pad[:-1]
            + "]"
        )
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
