"""The way through the house: ingest -> score -> analyse -> report, each step resumable on a run directory.

One function per step; the command line and notebooks call these. Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import __version__
from analyzer.dumps import read_dumps
from analyzer.errors import UsageError, nearest
from analyzer.records import Result, Sampler, Tables, Trace, Verdict
from analyzer.scoring import Progress, dry_run, quiet, score
from analyzer.store import Run

__all__ = ["analyze", "compare", "dry_run", "ingest", "ledger", "one_trace", "report", "score", "sources"]

BUDGET = 64
VERSIONS = ("torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn", "pyarrow")


def ingest(
    run: Run,
    specs: Sequence[str],
    *,
    reference: str | None = None,
    field_map: Mapping[str, str] | None = None,
    threshold: float = 1.0,
    samplers: Mapping[str, Sampler] | None = None,
    max_bad: float = 0.01,
) -> None:
    """Read dumps into the run; files and rows that are already there are recognised and not added twice.

    reference: label of the reference source; by default "base" when there is one, else the only source. Raises
    DumpError for unusable input, UsageError for unknown labels or changed settings.
    """
    traces, ledger = read_dumps(
        specs,
        field_map=dict(field_map) if field_map else None,
        threshold=threshold,
        samplers=dict(samplers) if samplers else None,
        max_bad=max_bad,
    )
    fixed = {"threshold": threshold, "field_map": dict(field_map or {})}
    recorded = run.manifest.get("samplers", {})
    found = {label: asdict(s) if s else None for label, s in _samplers(traces).items()}
    labels = {*found, *recorded}
    for label in samplers or {}:
        if label not in labels:
            raise UsageError(f"--sampler {label}=...: no source has that label{nearest(label, labels)}")
    for label, value in found.items():
        if recorded.get(label, value) != value:
            raise UsageError(
                f"run {run.path} has sampler {recorded[label]} for {label}, the dump or flag now says {value}; "
                "use another -o folder"
            )
    fixed["reference"] = choose_reference(reference or run.manifest.get("settings", {}).get("reference"), labels)
    run.refuse_changes(**fixed)
    before = set(run.trace_table()["key"])
    run.append_traces(traces)
    run.settle(**fixed)
    run.manifest["samplers"] = recorded | found
    known = {(f["sha256"], *f["sources"]) for f in run.manifest["inputs"]}
    fresh = {t.origin for t in traces if t.key not in before}
    for account in ledger.as_json()["files"]:
        if (account["sha256"], *account["sources"]) not in known:
            run.manifest["inputs"].append(_account(account, ledger.rejected, traces, fresh))
    run.manifest["input_notes"] = sorted({*run.manifest.get("input_notes", []), *ledger.notes})
    run.reject(ledger.rejected)
    run.save()


def _account(
    account: dict[str, Any], rejected: Sequence[dict], traces: Sequence[Trace], fresh: set[str]
) -> dict[str, Any]:
    """The file's account with its reasons; a row all of whose traces the run already had (a dump that has grown, or
    was first given in part) is one of them."""
    reasons = Counter(r["reason"] for r in rejected if r["file"] == account["path"])
    rows = {t.origin for t in traces if t.origin.startswith((f"{account['path']}:", f"{account['path']}#"))}
    if again := len(rows - fresh):
        reasons["already in the run"] += again
    used = account["rows_used"] - again
    return account | {"rows_used": used, "rows_rejected": account["rows"] - used, "by_reason": dict(reasons)}


def choose_reference(wanted: str | None, labels: set[str]) -> str:
    """The reference source's label. Raises UsageError when it is unknown or can't be told."""
    if wanted is not None:
        if wanted not in labels:
            raise UsageError(f"--reference {wanted!r}: no source has that label{nearest(wanted, labels)}")
        return wanted
    if "base" in labels:
        return "base"
    if len(labels) == 1:
        return next(iter(labels))
    raise UsageError(f"which source is the reference? --reference LABEL with one of: {', '.join(sorted(labels))}")


def _samplers(traces: Sequence[Trace]) -> dict[str, Sampler | None]:
    """Source -> its sampler, None when unknown or when its traces disagree (no single distribution then)."""
    found: dict[str, set] = {}
    for t in traces:
        found.setdefault(t.source, set()).add(t.sampler)
    return {label: next(iter(kinds)) if len(kinds) == 1 else None for label, kinds in found.items()}


def analyze(
    run: Run,
    names: Sequence[str] | None = None,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress = quiet,
    tables: Tables | None = None,
) -> tuple[dict[str, Result], list[dict[str, str]]]:
    """Run analyses by name (all by default): results by name, and what was left out with the reason.

    An analysis that was asked for by name and can't run raises its UsageError; one that was not asked for is left out.
    """
    from analyzer import tables as tables_module
    from analyzer.analyses import ANALYSES

    unknown = [n for n in names or () if n not in ANALYSES]
    if unknown:
        raise UsageError(f"analysis {unknown[0]!r} is unknown{nearest(unknown[0], ANALYSES)}")
    tables = tables or tables_module.build(run)
    results: dict[str, Result] = {}
    left_out: list[dict[str, str]] = []
    chosen = list(names or ANALYSES)
    for n, name in enumerate(chosen):
        progress(f"analysis {name}", n, len(chosen), 0)
        try:
            results[name] = ANALYSES[name].run(tables, budget=budget, seed=seed)
        except UsageError as error:
            if names:
                raise
            left_out.append({"analysis": name, "why": str(error)})
    return results, left_out


def compare(run: Run, a: str, b: str, *, seed: int = 0) -> Result:
    """Two sources paired by problem: see `analyses.paired`."""
    from analyzer import tables as tables_module
    from analyzer.analyses import paired

    return paired.run(tables_module.build(run), a=a, b=b, seed=seed)


def one_trace(run: Run, key: str, model: str = "base") -> tuple[Trace, dict[str, Any]]:
    """A trace and its token columns under one model. Raises UsageError when either is not in the run."""
    trace = next((t for t in run.traces() if t.key == key), None)
    if trace is None:
        raise UsageError(f"run {run.path} has no trace {key!r}{nearest(key, [t.key for t in run.traces()])}")
    for part in run.tokens(model, ["token", "offset", "logprob", "rank", "entropy"]):
        hit = part[part["key"] == key]
        if len(hit):
            return trace, hit.iloc[0].to_dict()
    raise UsageError(f"trace {key} is not scored under {model!r} in run {run.path}")


def ledger(run: Run) -> dict[str, Any]:
    """The ledger of results.json: rows of the inputs, traces, and every reason why one of either was not used."""
    files = run.manifest["inputs"]
    rows = sum(f["rows"] for f in files)
    used = sum(f["rows_used"] for f in files)
    reasons: Counter = Counter()
    for f in files:
        reasons.update(f.get("by_reason", {}))
    traces = list(run.trace_table()["key"])
    out = {"rows": rows, "rows_used": used, "rows_rejected": rows - used, "traces": len(traces)}
    scored = 0
    if "base" in run.scorers():
        status = run.done("base")
        scored = sum(s == "ok" for s in status.values())
        reasons.update(f"not scored: {s}" for s in status.values() if s != "ok")
        at_most = run.manifest["settings"].get("at_most")
        missing = len(traces) - len(status)
        if missing:
            reasons[
                f"not scored: beyond the first {at_most} samples per source and problem"
                if at_most
                else "not scored yet"
            ] += missing
    # Without a model no trace was refused, none was scored either.
    return out | {
        "traces_scored": scored,
        "traces_rejected": len(traces) - scored if run.scorers() else 0,
        "by_reason": dict(sorted(reasons.items())),
    }


def sources(run: Run) -> dict[str, dict[str, Any]]:
    """The sources of results.json: traces, problems, scored tokens and correct traces by label."""
    frame = run.trace_table()
    tokens: Counter = Counter()
    if "base" in run.scorers():
        for part in run.tokens("base", ["token"]):
            for source, ids in zip(part["source"], part["token"]):
                tokens[source] += len(ids)
    out = {}
    for label, group in frame.groupby("source", sort=False):
        labelled = group["correct"].notna().any()
        out[str(label)] = {
            "traces": len(group),
            "problems": int(group["problem"].nunique()),
            "tokens": int(tokens[label]),
            "correct": int(group["correct"].sum()) if labelled else None,
        }
    return out


class Written(NamedTuple):
    """What `report` found and wrote; `paths` by name (results.json, report.md, index.html, ...)."""

    verdicts: list[Verdict]
    results: dict[str, Result]
    left_out: list[dict[str, str]]
    paths: dict[str, Path]


def report(
    run: Run,
    directory: str | Path,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    command: Sequence[str] = (),
    progress: Progress = quiet,
    **page: Any,
) -> Written:
    """Run every analysis that can run, decide, and write the report into `directory`; page: see `report.write`."""
    from analyzer import tables as tables_module
    from analyzer.analyses import ANALYSES
    from analyzer.report import write
    from analyzer.verdict import decide

    tables = tables_module.build(run)
    results, left_out = analyze(run, budget=budget, seed=seed, progress=progress, tables=tables)
    labels = sources(run)
    reference = run.manifest["settings"]["reference"]
    verdicts = decide(results, sources=list(labels), reference=reference, budget=budget)
    figures = {name: ANALYSES[name].FIGURES for name in results}
    progress("report", 0, 1, 0)
    keep = ("settings", "samplers", "scorers", "policies", "inputs")
    meta = {
        "version": __version__,
        "command": list(command),
        "reference": reference,
        "budget": budget,
        "seed": seed,
        **{name: run.manifest.get(name, {}) for name in keep},
        "notes": run.manifest.get("input_notes", []),
        "versions": versions(),
        "left_out": left_out,
    }
    paths = write(
        Path(directory),
        results=results,
        verdicts=verdicts,
        ledger=ledger(run),
        sources=labels,
        figures=figures,
        meta=meta,
        traces=tables,
        **page,
    )
    return Written(verdicts, results, left_out, paths)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    from importlib.metadata import version

    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in VERSIONS}}
