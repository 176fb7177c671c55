"""The way through the house: ingest -> score -> analyse -> report, each step resumable on a run directory.

One function per step; the command line and notebooks call these. Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import __version__
from analyzer.dumps import read_dumps
from analyzer.errors import DumpError, UsageError, nearest
from analyzer.plan import choose
from analyzer.records import Result, Sampler, Scored, Trace, Verdict
from analyzer.store import Run

BUDGET = 64
PART_TRACES = 2000  # a part on disk holds at most this many traces,
PART_SECONDS = 60.0  # or this much work: what a killed run loses
VERSIONS = ("torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn", "pyarrow")

Progress = Callable[[str, int, int, int], None]  # what, traces done, traces in all, tokens done


def quiet(what: str, done: int, total: int, tokens: int) -> None:
    """The progress callback that says nothing."""


def ingest(run: Run, specs: Sequence[str], *, reference: str | None = None, field_map: Mapping[str, str] | None = None,
           threshold: float = 1.0, samplers: Mapping[str, Sampler] | None = None, max_bad: float = 0.01) -> None:
    """Read dumps into the run; files and rows that are already there are recognised and not added twice.

    reference: label of the reference source; by default "base" when there is one, else the only source. Raises
    DumpError for unusable input, UsageError for unknown labels or changed settings.
    """
    traces, ledger = read_dumps(specs, field_map=dict(field_map) if field_map else None, threshold=threshold,
                                samplers=dict(samplers) if samplers else None, max_bad=max_bad)
    known = {f["sha256"] for f in run.manifest["inputs"]}
    summary = ledger.as_json()
    run.settle(threshold=threshold, field_map=dict(field_map or {}))
    labels = set(dict.fromkeys(t.source for t in traces)) | set(run.manifest.get("samplers", {}))
    for label in samplers or {}:
        if label not in labels:
            raise UsageError(f"--sampler {label}=...: no source has that label{nearest(label, labels)}")
    reference = choose_reference(reference or run.manifest.get("settings", {}).get("reference"), labels)
    run.append_traces(traces)
    recorded = run.manifest.setdefault("samplers", {})
    for label, sampler in _samplers(traces).items():
        value = asdict(sampler) if sampler else None
        if recorded.get(label, value) != value:
            raise UsageError(f"run {run.path} has sampler {recorded[label]} for {label}, the dump or flag now says {value}; use another -o folder")
        recorded[label] = value
    run.settle(reference=reference)
    for account in summary["files"]:
        if account["sha256"] not in known:
            account["by_reason"] = dict(Counter(r["reason"] for r in ledger.rejected if r["file"] == account["path"]))
            run.manifest["inputs"].append(account)
    run.manifest["input_notes"] = sorted({*run.manifest.get("input_notes", []), *summary["notes"]})
    run.reject(ledger.rejected)
    run.save()


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


def score(run: Run, *, base: str, policies: Mapping[str, str] | None = None, cross: Mapping[str, str] | None = None,
          templates: Mapping[str, str] | None = None, eos: int | None = None, on_overlong: str = "error",
          scorer: str = "local", dtype: str = "auto", device: str = "auto", at_most: int | None = None,
          progress: Progress = quiet) -> None:
    """Score everything in the run that is not scored yet: all sources under the base and the cross models, each
    source with a policy also under that, and the reference's traces under it (what training lost).

    A model that equals the base, for a source with the reference's sampler, is not run again. templates: source label
    (or "*" for the others) -> file or name, for bare questions. at_most: traces per source, problem and step. Raises DumpError (over-long traces, missing prompts), ResourceError (model, memory),
    UsageError (unknown labels, changed settings).
    """
    from analyzer import scorers
    from analyzer.scorers.encode import load_template

    if scorer not in scorers.SCORERS:
        raise UsageError(f"--scorer {scorer!r} is unknown{nearest(scorer, scorers.SCORERS)}")
    texts = {label: load_template(name) for label, name in (templates or {}).items()}
    jobs, produced = _jobs(run, base, dict(policies or {}), dict(cross or {}), set(texts))
    run.settle(templates=dict(templates or {}), eos=eos, on_overlong=on_overlong, at_most=at_most, dtype=dtype)
    traces, _ = choose(list(run.traces()), at_most)
    loaded = None
    for label, (model, sampler, sources) in jobs.items():
        wanted = [t for t in traces if t.source in sources]
        todo = _todo(run, label, wanted)
        if not todo and label in run.manifest["scorers"]:
            continue
        if loaded is None or loaded.name != model:
            loaded = scorers.load(model, dtype=dtype, device=device)
        path, why = scorers.choose_path(loaded, sampler, scorer)
        record = {"model": model, "fingerprint": loaded.fingerprint, "sampler": asdict(sampler) if sampler else None,
                  "path": path, "path_reason": why, "dtype": loaded.dtype, "device": loaded.device, "context": loaded.context,
                  "vocabulary": loaded.vocab_size, "eos": eos}
        before = run.manifest["scorers"].get(label)
        if before and before["fingerprint"] != loaded.fingerprint:
            raise UsageError(f"run {run.path} was scored under another {label} model ({before['model']}, {before['fingerprint']}); "
                             f"now {model} ({loaded.fingerprint}); use another -o folder")
        encoded, decisions = _encode(run, label, todo, loaded, texts, eos, on_overlong)
        run.manifest["scorers"][label] = record | {"decisions": _added(before, decisions)}
        run.save()
        limit = loaded.context if on_overlong == "window" else None
        _score_all(run, label, encoded, loaded, path, sampler, limit, len(wanted), progress)
    run.manifest["policies"] = run.manifest.get("policies", {}) | produced
    run.save()


def _jobs(run: Run, base: str, policies: dict[str, str], cross: dict[str, str],
          templated: set[str]) -> tuple[dict[str, tuple[str, Sampler | None, set[str]]], dict[str, str]]:
    """What to score: scorer label -> (model, sampler of the source it produces, sources scored under it), and
    source label -> the scorer label of its policy."""
    from analyzer.scorers import fingerprint

    samplers = {label: Sampler(**s) if s else None for label, s in run.manifest["samplers"].items()}
    for flag, labels in (("--policy", policies), ("--template", templated - {"*"})):
        for label in labels:
            if label not in samplers:
                raise UsageError(f"{flag} {label}=...: no source has that label{nearest(label, samplers)}")
    reference = run.manifest["settings"]["reference"]
    jobs: dict[str, tuple[str, Sampler | None, set[str]]] = {"base": (base, samplers[reference], set(samplers))}
    produced = {reference: "base"}
    base_print = fingerprint(base)
    for label, model in policies.items():
        if fingerprint(model) == base_print and samplers[label] == samplers[reference]:
            produced[label] = "base"
        else:
            produced[label] = f"policy-{label}"
            jobs[f"policy-{label}"] = (model, samplers[label], {label, reference})
    return jobs | {f"cross-{label}": (model, None, set(samplers)) for label, model in cross.items()}, produced


def _todo(run: Run, label: str, traces: list[Trace]) -> list[Trace]:
    done = run.done(label)
    return [t for t in traces if t.key not in done]


def _added(before: dict | None, decisions: Counter) -> dict[str, int]:
    return dict(sorted((Counter((before or {}).get("decisions", {})) + decisions).items()))


def _encode(run: Run, label: str, todo: list[Trace], loaded: Any, templates: dict[str, str], eos: int | None,
            on_overlong: str) -> tuple[list, Counter]:
    from analyzer.scorers.encode import encode

    decisions: Counter = Counter()
    encoded, empty = [], []
    for trace in todo:
        if not trace.response_ids and not trace.response:
            empty.append((trace, (), "empty response"))
            continue
        template = templates.get(trace.source, templates.get("*"))
        encoded.append(encode(trace, loaded.tokenizer, vocab_size=loaded.vocab_size, template=template, eos=eos, decisions=decisions))
    run.append_scores(label, empty)
    limit = loaded.context
    overlong = [e for e in encoded if limit is not None and len(e) > limit]
    if overlong and on_overlong == "error":
        worst = max(overlong, key=len)
        raise DumpError(f"{len(overlong)} of {len(encoded)} traces are longer than the {limit} tokens that {loaded.name} was built for "
                        f"(longest {len(worst)}: {worst.trace.key}, {worst.trace.origin}); "
                        "--on-overlong skip leaves them out, --on-overlong window scores them in overlapping windows")
    if overlong and on_overlong == "skip":
        run.append_scores(label, [(e.trace, e.prompt_ids, f"longer than the model's context of {limit} tokens") for e in overlong])
        encoded = [e for e in encoded if len(e) <= limit]
    return encoded, decisions


def _score_all(run: Run, label: str, encoded: list, loaded: Any, path: str, sampler: Sampler | None, limit: int | None,
               total: int, progress: Progress) -> None:
    """Score and write parts. Progress counts what was done in earlier, interrupted calls as well."""
    from analyzer import scorers

    by_key = {e.trace.key: e for e in encoded}
    earlier, tokens = total - len(encoded), 0
    rows: list[tuple[Trace, tuple[int, ...], Scored | str]] = []
    finished, since = 0, time.monotonic()
    # A batch in flight when the run is interrupted is dropped; what is finished is written before leaving.
    try:
        for scored in scorers.score(encoded, loaded, scorer=path, sampler=sampler, limit=limit):
            item = by_key[scored.key]
            rows.append((item.trace, item.prompt_ids, scored))
            finished, tokens = finished + 1, tokens + len(scored)
            if len(rows) >= PART_TRACES or time.monotonic() - since > PART_SECONDS:
                full, rows, since = rows, [], time.monotonic()
                run.append_scores(label, full)
            progress(label, earlier + finished, total, tokens)
    finally:
        run.append_scores(label, rows)


def analyze(run: Run, names: Sequence[str] | None = None, *, budget: int = BUDGET, seed: int = 0,
            progress: Progress = quiet) -> tuple[dict[str, Result], list[dict[str, str]]]:
    """Run analyses by name (all by default): results by name, and what was left out with the reason.

    An analysis that was asked for by name and can't run raises its UsageError; one that was not asked for is left out.
    """
    from analyzer import tables as tables_module
    from analyzer.analyses import ANALYSES

    unknown = [n for n in names or () if n not in ANALYSES]
    if unknown:
        raise UsageError(f"analysis {unknown[0]!r} is unknown{nearest(unknown[0], ANALYSES)}")
    tables = tables_module.build(run)
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


def dry_run(run: Run, *, base: str, templates: Mapping[str, str] | None = None, eos: int | None = None, dtype: str = "auto",
            device: str = "auto", at_most: int | None = None, policies: Mapping[str, str] | None = None,
            cross: Mapping[str, str] | None = None, on_overlong: str = "error", scorer: str = "local") -> dict[str, Any]:
    """What scoring would cost under the base model: exact tokens, weights in memory, disk. Scores nothing.

    Takes the arguments of `score`; further models see at most the same tokens each.
    """
    from analyzer import scorers
    from analyzer.scorers.encode import encode, load_template

    texts = {label: load_template(name) for label, name in (templates or {}).items()}
    jobs, _ = _jobs(run, base, dict(policies or {}), dict(cross or {}), set(texts))
    traces, over = choose(list(run.traces()), at_most)
    loaded = scorers.load(base, dtype=dtype, device=device)
    encoded = [encode(t, loaded.tokenizer, vocab_size=loaded.vocab_size, template=texts.get(t.source, texts.get("*")), eos=eos)
               for t in _todo(run, "base", traces) if t.response_ids or t.response]
    response = sum(len(e.response_ids) for e in encoded)
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return {"traces_to_score": len(encoded), "traces_over_the_limit": len(over), "models": len(jobs),
            "prompt_tokens": sum(len(e.prompt_ids) for e in encoded), "response_tokens": response,
            "longest_trace_tokens": max(map(len, encoded), default=0), "context_tokens": loaded.context,
            "weights_bytes": weights, "disk_bytes_about": 30 * response}


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
            reasons[f"not scored: beyond the first {at_most} samples per source and problem" if at_most else "not scored yet"] += missing
    # Without a model no trace was refused, none was scored either.
    return out | {"traces_scored": scored, "traces_rejected": len(traces) - scored if run.scorers() else 0,
                  "by_reason": dict(sorted(reasons.items()))}


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
        out[str(label)] = {"traces": len(group), "problems": int(group["problem"].nunique()), "tokens": int(tokens[label]),
                           "correct": int(group["correct"].sum()) if labelled else None}
    return out


class Written(NamedTuple):
    """What `report` found and wrote; `paths` by name (results.json, report.md, index.html, ...)."""

    verdicts: list[Verdict]
    results: dict[str, Result]
    left_out: list[dict[str, str]]
    paths: dict[str, Path]


def report(run: Run, directory: str | Path, *, budget: int = BUDGET, seed: int = 0, command: Sequence[str] = (),
           progress: Progress = quiet) -> Written:
    """Run every analysis that can run, decide, and write the report into `directory`."""
    from analyzer.analyses import ANALYSES
    from analyzer.report import write
    from analyzer.verdict import decide

    results, left_out = analyze(run, budget=budget, seed=seed, progress=progress)
    labels = sources(run)
    reference = run.manifest["settings"]["reference"]
    verdicts = decide(results, sources=list(labels), reference=reference, budget=budget)
    figures = {name: ANALYSES[name].FIGURES for name in results}
    progress("report", 0, 1, 0)
    keep = ("settings", "samplers", "scorers", "policies", "inputs")
    meta = {"version": __version__, "command": list(command), "reference": reference, "budget": budget, "seed": seed,
            **{name: run.manifest.get(name, {}) for name in keep}, "notes": run.manifest.get("input_notes", []),
            "versions": versions(), "left_out": left_out}
    paths = write(Path(directory), results=results, verdicts=verdicts, ledger=ledger(run), sources=labels, figures=figures, meta=meta)
    return Written(verdicts, results, left_out, paths)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    from importlib.metadata import version

    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in VERSIONS}}
