"""How the numbers were made and what they were tested against: the settings, and the grid of robustness."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from analyzer.analysis.preflight import NAMES
from analyzer.pages.content import Grid, interval
from analyzer.pages.content import records as _records
from analyzer.records.display import NONE, cell

NOT_VARIED = (
    "Not varied in this run: correct traces only, length, halves of the samples, seed, copied tokens, the closing "
    "token, engine floor, tolerance; a report without --no-robustness decides the verdicts again under each of them. "
    "BOS, the prompt template and the precision need the dumps scored again into another folder."
)


def settings(data: Mapping[str, Any], meta: Mapping[str, Any]) -> Grid:
    """Version, command and everything else in meta, one row each, nested keys joined by colons."""
    rows = [["analyzer", str(data["version"])], ["command", shlex.join(data["command"])]]
    for key in sorted(k for k in meta if k not in ("version", "command", "decisions", "notes", "left_out", "title")):
        rows += _flat(key, meta[key])
    for name, analysis in data["analyses"].items():
        if analysis["params"]:
            rows.append([f"{name}: settings", ", ".join(f"{k} = {cell(v)}" for k, v in analysis["params"].items())])
    return Grid(["what", "value"], rows, [])


def _flat(key: str, value: Any) -> list[list[str]]:
    """Rows of a nested value: one for the plain values of a dict, one per entry of a list of dicts."""
    if isinstance(value, Mapping) and value:
        plain = {k: v for k, v in value.items() if not isinstance(v, (Mapping, list)) or not v}
        rows = [[key, ", ".join(f"{k} = {cell(v)}" for k, v in plain.items())]] if plain else []
        return rows + [row for k, v in value.items() if k not in plain for row in _flat(f"{key}: {k}", v)]
    if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        return [row for i, v in enumerate(value, 1) for row in _flat(f"{key} {i}", v)]
    return [[key, cell(value)]]


def robustness(data: Mapping[str, Any], *, budget: int) -> Grid:
    """What this run tested its own verdicts against: the checks, A/A, the engine floor, the other sampler, the mask,
    guessing. Rows only of what the analyses provide."""
    rows: list[list[str]] = []
    checks = _records(data, "preflight", "checks")
    if checks:
        named = [f"{NAMES.get(c['check'], c['check'])} ({c['source'] or 'all'})" for c in checks]
        failed = [name for name, c in zip(named, checks, strict=True) if c["passed"] is False]
        unknown = [name for name, c in zip(named, checks, strict=True) if c["passed"] is None]
        passed = len(checks) - len(failed) - len(unknown)
        said = f"{passed} of {len(checks)} passed" + (f"; failed: {', '.join(failed)}" if failed else "")
        rows.append(["checks before the tests", said + (f"; not possible: {', '.join(unknown)}" if unknown else "")])
    for r in _records(data, "preflight", "a_a"):
        said = "ALARM: called outside" if r["certified"] else "no alarm"
        rows.append([f"A/A, {r['level']}: half of the reference against the other", f"{said}, p = {cell(r['p'])}"])
    floors = [r["k_min"] for r in _records(data, "preflight", "engine") if r["k_min"] is not None]
    if floors:
        rows.append(
            ["engine floor: smallest budget that rounding leaves", f"k = {cell(max(floors))} (budget {budget})"]
        )
    other = {r["source"]: r for r in _records(data, "support", "reach_sampler") if r["k"] == budget}
    for r in _records(data, "support", "reach"):
        two = other.get(r["source"])
        if r["k"] == budget and two and r["share"] is not None and two["share"] is not None:
            said = f"reach@{budget} {interval(_as_estimate(r))} at T=1, {interval(_as_estimate(two))}"
            rows.append([f"{r['source']}: base sampled as the reference in place of T=1", said])
    for r in _records(data, "perplexity", "masked"):
        said = f"{cell(r['share_below'])} below the reference's median, {cell(r['share_below_masked'])} without them"
        rows.append([f"{r['source']}: tokens copied from the prompt left out", said])
    for r in _records(data, "boundary", "luck"):
        if r["k"] == 1:
            said = f"pass@1 {cell(r['pass'])}, {cell(r['pass_filtered'])} on {r['problems_filtered']} problems"
            rows.append([f"{r['source']}: problems that a guess may solve left out", said])
    return Grid(["what was varied or tested", "result"], rows, [])


def varied(data: Mapping[str, Any]) -> Grid:
    """The headline's word of every source under every variation of `robustness`; none where the run lacks it.

    Notes: what the checked variations are; the notes of the analysis say what would check the others.
    """
    heads, cases = _records(data, "robustness", "headlines"), _records(data, "robustness", "cases")
    words = {(h["variation"], h["source"]): h for h in heads}
    sources = list(dict.fromkeys(h["source"] for h in heads if h["source"]))
    rows, notes = [], []
    for case in cases:
        found = [words.get((case["variation"], s), {"word": "not checked", "differs": None}) for s in sources]
        said = [f"{h['word'].upper()} (was {h['main']})" if h["differs"] else h["word"] for h in found]
        rows.append([case["variation"], f"{case['traces']:,}" if case["checked"] else NONE, *said])
        notes += [f"{case['variation']}: {case['note']}."] if case["note"] and case["checked"] else []
        notes += [f"{case['variation']}, {h['source']}: {h['note']}." for h in found if h.get("note")]
    return Grid(["variation", "traces", *sources], rows, notes)


def pairs(data: Mapping[str, Any]) -> Grid:
    """Mean differences of every pair of `paired`, one column per measure; none where the run lacks it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for r in _records(data, "paired", "differences"):
        ends = {"value": r["difference"], "low": r["low"], "high": r["high"]}
        row = found.setdefault((r["a"], r["b"]), {"pair": f"{r['a']} minus {r['b']}", "problems": r["problems"]})
        row |= {r["measure"]: interval(ends), "problems": max(row["problems"], r["problems"])}
    columns = list(next(iter(found.values()), {}))
    heads = {"pass_rate": "share correct", "n_tokens": "tokens", "nll_mean": "nats per token", "typical": "typical"}
    heads["hurdle_share"] = "hurdle share"
    rows = [[row["pair"], f"{row['problems']:,}", *(row[c] for c in columns[2:])] for row in found.values()]
    return Grid([heads.get(c, c) for c in columns], rows, [])


def _as_estimate(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": row["share"], "low": row["low"], "high": row["high"]}
