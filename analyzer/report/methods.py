"""How the numbers were made and what they were tested against: the settings, and the grid of robustness."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from analyzer.report.content import Grid, cell, interval

NOT_VARIED = (
    "Not varied in this run: BOS and EOS, the prompt template, the length cap, correct traces only, seeds of the "
    "resampling, dtype. To see what they do, score the dumps again with another setting into another folder."
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
    """Rows of a nested value: one per leaf of a dict, one per entry of a list of dicts."""
    if isinstance(value, Mapping) and value:
        return [row for k, v in value.items() for row in _flat(f"{key}: {k}", v)]
    if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        return [[f"{key} {i}", cell(v)] for i, v in enumerate(value, 1)]
    return [[key, cell(value)]]


def robustness(data: Mapping[str, Any], *, budget: int) -> Grid:
    """What this run tested its own verdicts against: the checks, A/A, the engine floor, the other sampler, the mask,
    guessing. Rows only of what the analyses provide."""
    rows: list[list[str]] = []
    checks = _records(data, "preflight", "checks")
    if checks:
        failed = [f"{c['check']} ({c['source'] or 'all'})" for c in checks if c["passed"] is False]
        unknown = [f"{c['check']} ({c['source'] or 'all'})" for c in checks if c["passed"] is None]
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
            rows.append([f"{r['source']}: the reference's own sampler in place of T=1", said])
    for r in _records(data, "perplexity", "masked"):
        said = f"{cell(r['share_below'])} below the reference's median, {cell(r['share_below_masked'])} without them"
        rows.append([f"{r['source']}: tokens copied from the prompt left out", said])
    for r in _records(data, "boundary", "luck"):
        if r["k"] == 1:
            said = f"pass@1 {cell(r['pass'])}, {cell(r['pass_filtered'])} on {r['problems_filtered']} problems"
            rows.append([f"{r['source']}: problems that a guess may solve left out", said])
    return Grid(["what was varied or tested", "result"], rows, [])


def _records(data: Mapping[str, Any], analysis: str, table: str) -> list[dict[str, Any]]:
    found = data["analyses"].get(analysis, {}).get("tables", {}).get(table, {"columns": [], "rows": []})
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def _as_estimate(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": row["share"], "low": row["low"], "high": row["high"]}
