"""What a run holds: its rows and traces in numbers, its sources, one trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

from analyzer.errors import UsageError, nearest
from analyzer.records import Trace
from analyzer.runs.store import Run

NEAR = 2000  # keys that a mistyped one is held against: a close match among 200,000 takes seconds


def one_trace(run: Run, key: str, model: str = "base") -> tuple[Trace, dict[Any, Any]]:
    """A trace and its token columns under one model; prompt_of: the source after whose prompt it was scored, None: its
    own. Of a trace that was not scored `not_scored` alone: why. Raises UsageError for a trace or a model that the run
    does not have."""
    run.verify()
    trace = next((t for t in run.traces() if t.key == key), None)
    if trace is None:
        raise UsageError(f"run {run.path} has no trace {key!r}{nearest(key, _near(run, key))}")
    if not run.scorers():
        return trace, {"not_scored": "no model was given"}
    for part in run.tokens(model, ["token", "offset", "logprob", "rank", "entropy"]):
        hit = part[part["key"] == key]
        if len(hit):
            record = run.manifest["scorers"].get(model, {})
            counts = record.get("prompts", {}).get(trace.source)
            other = counts is not None and counts["other"] + counts["unknown"] > 0
            return trace, hit.iloc[0].to_dict() | {"prompt_of": record["prompt_of"] if other else None}
    return trace, {"not_scored": run.done(model).get(key, f"not scored yet under {model}")}


def _near(run: Run, key: str) -> list[str]:
    """The keys that one may have meant: of its source and problem, else of its source, else sources; few of many."""
    keys = [t.key for t in run.traces()]
    for at in (key.rpartition("/")[0], key.partition("/")[0]):
        if alike := [k for k in keys if at and k.startswith(f"{at}/")]:
            return alike[:NEAR]
    return keys[:NEAR]


def ledger(run: Run) -> dict[str, Any]:
    """The ledger of results.json: rows of the inputs, traces, and every reason why one of either was not used."""
    run.verify()
    files = run.manifest["inputs"]
    rows = sum(f["rows"] for f in files)
    used = sum(f["rows_used"] for f in files)
    reasons: Counter = Counter()
    for f in files:
        reasons.update(f.get("by_reason", {}))
    traces = run.trace_count()
    out = {"rows": rows, "rows_used": used, "rows_rejected": rows - used, "traces": traces}
    scored = 0
    if "base" in run.scorers():
        status = run.status_counts("base")
        scored = status["ok"]
        reasons.update({f"not scored: {s}": n for s, n in status.items() if s != "ok"})
        at_most = run.manifest["settings"].get("at_most")
        over = 0
        if at_most:
            cells = run.trace_table(["source", "problem", "step"]).groupby(["source", "problem", "step"], dropna=False)
            over = int((cells.size() - at_most).clip(lower=0).sum())
            reasons[f"not scored: beyond the first {at_most} samples per source and problem"] += over
        reasons["not scored yet"] += traces - status.total() - over
    # Without a model no trace was refused, none was scored either.
    return out | {
        "traces_scored": scored,
        "traces_rejected": traces - scored if run.scorers() else 0,
        "by_reason": {why: n for why, n in sorted(reasons.items()) if n},
    }


def sources(run: Run) -> dict[str, dict[str, Any]]:
    """The sources of results.json: traces, problems, scored tokens and correct traces by label; `compared`: traces (of
    the last training step) and problems that are set side by side, and the traces left out of that (`basis.choose`)."""
    from analyzer.analysis.data.summaries import last_steps
    from analyzer.analysis.pairs import compared

    frame = run.trace_table(["source", "problem", "step", "correct"])
    last = last_steps(frame.astype({"step": "Int64"}))
    chosen = compared.chosen(last, run.manifest["settings"]["reference"])
    tokens: Counter[str] = Counter()
    if "base" in run.scorers():
        for batch in run.score_batches("base", ["token"]):
            for source, n in zip(batch["source"].to_pylist(), batch["token"].value_lengths().to_pylist(), strict=True):
                tokens[source] += n
    out = {}
    for name, group in frame.groupby("source", sort=False):
        label = str(name)
        labelled = group["correct"].notna().any()
        mine = last["problem"][last["source"] == label].isin(chosen.problems[label])
        side: dict[str, Any] = {"traces": int(mine.sum()), "problems": len(chosen.problems[label])}
        side |= {"left_out": int((~mine).sum()), "basis": chosen.kind[label]}
        out[label] = {
            "traces": len(group),
            "problems": int(group["problem"].nunique()),
            "tokens": int(tokens[label]),
            "correct": int(group["correct"].sum()) if labelled else None,
            "compared": side,
        }
    return out
