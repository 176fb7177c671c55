"""results.json: the one file that scripts read; built here, checked here, and the only thing that the pages show."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analyzer.errors import AnalyzerError
from analyzer.records import LEVELS, WORDS, Result, Verdict, json_value

SCHEMA = 2
# of the page; further analyses follow by name
ORDER = (
    "compared",
    "preflight",
    "perplexity",
    "support",
    "contained",
    "strategy",
    "tokens",
    "boundary",
    "reliability",
    "task_horizon",
    "chains",
    "handover",
    "clusters",
)
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
    parts = ("schema", "version", "command", "ledger", "sources", "verdicts", "analyses")
    wrong = _breaches((name in data, f"{name} is missing") for name in parts)
    wrong = wrong or [
        *_breaches([(data["schema"] == SCHEMA, f"schema is {data['schema']!r}, not {SCHEMA}{_again(data['schema'])}")]),
        *_breaches(_ledger(data["ledger"])),
        *_breaches(check for label, source in data["sources"].items() for check in _counts(label, source)),
        *_breaches(_verdicts(data["verdicts"], data["sources"])),
        *_breaches(check for name, analysis in data["analyses"].items() for check in _result(name, analysis)),
    ]
    if wrong:
        shown = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise AnalyzerError(f"results.json breaks its contract: {shown}")


Checks = Iterable[tuple[Any, str]]  # what must hold, and what is said where it does not


def _breaches(checks: Checks) -> list[str]:
    return [says for holds, says in checks if not holds]


def _again(schema: Any) -> str:
    return "; make it again from its run: analyzer report RUN -o DIR" if schema == 1 else ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _ledger(ledger: Mapping[str, Any]) -> Checks:
    counts = {f"ledger.{k}": ledger.get(k) for k in LEDGER}
    counts |= {f"ledger.by_reason.{k}": n for k, n in ledger.get("by_reason", {}).items()}
    yield from ((_is_count(n), f"{where} is {n!r}, not a count") for where, n in counts.items())
    yield "by_reason" in ledger, "ledger.by_reason is missing"
    if all(map(_is_count, counts.values())):
        read = ledger["rows_used"] + ledger["rows_rejected"]
        yield ledger["rows"] == read, f"ledger.rows is {ledger['rows']}, but rows_used + rows_rejected is {read}"
        scored = ledger["traces_scored"] + ledger["traces_rejected"]  # both 0: no model was given
        said = f"ledger.traces is {ledger['traces']}, but traces_scored + traces_rejected is {scored}"
        yield not scored or ledger["traces"] == scored, said


def _counts(label: str, source: Mapping[str, Any]) -> Checks:
    known = {f"{label}.{k}": source.get(k, "missing") for k in SOURCE}
    compared = source.get("compared", {k: 0 for k in COMPARED})
    known |= {f"{label}.compared.{k}": compared.get(k) for k in ("traces", "problems", "left_out")}
    for where, n in known.items():
        unlabelled = where == f"{label}.correct" and n is None
        yield _is_count(n) or unlabelled, f"sources.{where} is {None if n == 'missing' else n!r}, not a count"


def _verdicts(verdicts: Sequence[Mapping[str, Any]], sources: Mapping[str, Any]) -> Checks:
    places = [(v.get("source"), v.get("level"), v.get("budget")) for v in verdicts]
    for i, (v, place) in enumerate(zip(verdicts, places, strict=True)):
        where, k, why = f"verdicts[{i}]", v.get("budget"), v.get("why")
        for name, allowed in (("verdict", WORDS), ("level", LEVELS)):
            yield v.get(name) in allowed, f"{where}.{name} is {v.get(name)!r}, not one of {', '.join(allowed)}"
        for name in ("source", "reference"):
            yield v.get(name) in sources, f"{where}.{name} is {v.get(name)!r}, which is not a source"
        yield _is_count(k) and k, f"{where}.budget is {k!r}, not a positive count"
        yield isinstance(v.get("headline"), bool), f"{where}.headline is {v.get('headline')!r}, not true or false"
        reasons = isinstance(why, list) and all(isinstance(w, str) for w in why)
        yield reasons, f"{where}.why is not a list of sentences"
        yield isinstance(v.get("needs", 0), (str, type(None))), f"{where}.needs is neither text nor null"
        yield place not in places[:i], f"{where} is a second verdict on {place}"
    for label in dict.fromkeys(v.get("source", "") for v in verdicts):
        n = sum(v.get("headline") is True for v in verdicts if v.get("source", "") == label)
        yield n == 1, f"source {label!r} has {n} headline verdicts, not one"


def _result(name: str, analysis: Mapping[str, Any]) -> Checks:
    at, missing = f"analyses.{name}", {"question", "params", "notes", "estimates", "tables"} - set(analysis)
    yield from ((False, f"{at}.{part} is missing") for part in sorted(missing))
    if missing:
        return
    for key, e in analysis["estimates"].items():
        where = f"{at}.estimates.{key}"
        for part in ("value", "low", "high"):
            x = e.get(part, "missing")
            known = x is None or not isinstance(x, (bool, str)) and math.isfinite(x)
            yield known, f"{where}.{part} is {x!r}, not a finite number or null"
        yield e.get("value") is not None or e.get("note"), f"{where} has no value and no note that says why"
        yield _is_count(e.get("n")), f"{where}.n is {e.get('n')!r}, not a count"
    for key, table in analysis["tables"].items():
        width, odd = (
            len(table["columns"]),
            [i for i, row in enumerate(table["rows"]) if len(row) != len(table["columns"])],
        )
        yield not odd, f"{at}.tables.{key} has {width} columns, but row {odd[0] if odd else 0} does not"
    for where in _not_finite({"params": analysis["params"], "tables": analysis["tables"]}):
        yield False, f"{at}.{where} is not finite"


def _not_finite(value: Any, where: str = "") -> list[str]:
    if isinstance(value, float) and not math.isfinite(value):
        return [where]
    inner = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    dotted = isinstance(value, Mapping)
    return [w for k, v in inner for w in _not_finite(v, f"{where}.{k}".lstrip(".") if dotted else f"{where}[{k}]")]


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
