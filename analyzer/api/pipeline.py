"""The way through the house: ingest -> score -> analyse -> report, each step resumable on a run directory.

One function per step; the command line and notebooks call these. Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from itertools import chain, groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import __version__
from analyzer.api import repeat
from analyzer.dumps.files import expand
from analyzer.dumps.read import Ledger, batches, stream
from analyzer.errors import DumpError, ResourceError, UsageError, nearest
from analyzer.records import BUDGET, Result, Sampler, Tables, Trace, Verdict
from analyzer.runs import outputs
from analyzer.runs.disk import saved
from analyzer.runs.store import Run
from analyzer.scoring import run as scoring
from analyzer.scoring.estimate import dry_run
from analyzer.scoring.run import Progress, quiet

__all__ = ["analyze", "compare", "dry_run", "ingest", "ledger", "one_trace", "report", "score", "sources"]

NEAR = 2000  # keys that a mistyped one is held against: a close match among 200,000 takes seconds
LOOK = "A LOOK ONLY"  # how the note of --limit begins
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
    grade: bool = False,
    limit: int | None = None,
) -> None:
    """Read dumps into the run; files and rows that are already there are recognised and not added twice.

    Rows stream through and appear in the run together with its manifest, or not at all. reference: label of the
    reference source; by default "base" when there is one, else the only source; limit: for a quick look, only the first
    so many problems, in the reference's order, with all their samples; the others: see `dumps.read.read_dumps`.
    Raises DumpError for unusable input, UsageError for unknown labels or changed settings.
    """
    ledger, samplers_of, again, judged = Ledger(), {}, Counter(), {}
    how = {
        "field_map": dict(field_map) if field_map else None,
        "threshold": threshold,
        "samplers": dict(samplers) if samplers else None,
        "max_bad": max_bad,
    }
    traces = batches(specs, ledger, **how, grade=grade)
    beyond: Counter[str] = Counter()
    if limit is not None:
        if run.manifest["inputs"]:  # a run that was made without a limit keeps all its problems
            run.manifest["settings"].setdefault("limit", None)
        if any(s == "-" or s.endswith("=-") for s in specs):
            raise UsageError("--limit reads the dumps twice, which standard input can't be: give a file")
        first = _first_problems(run, limit, reference, stream(specs, Ledger(), **how))
        traces = _limited(traces, first, beyond)
    with run.writing(), run.adding(_fresh(run, traces, run.contents(), samplers_of, again, judged)):
        recorded = run.manifest.get("samplers", {})
        found = {label: asdict(s) if s else None for label, s in samplers_of.items()}
        labels = {*found, *recorded}
        for label, value in found.items():
            if recorded.get(label, value) != value:
                raise UsageError(
                    f"run {run.path} has sampler {recorded[label]} for {label}, the dump or flag now says {value}; "
                    "use another -o folder"
                )
        reference = choose_reference(reference or run.manifest.get("settings", {}).get("reference"), labels)
        ledger.notes += _policies(judged, labels, reference)
        fixed = {"threshold": threshold, "field_map": dict(field_map or {}), "grade": grade, "reference": reference}
        fixed["limit"] = limit
        run.refuse_changes(**fixed)
        run.manifest.setdefault("settings", {}).update(fixed)
        run.manifest["samplers"] = recorded | found
        have = {(f["sha256"], *f["sources"]) for f in run.manifest["inputs"]}
        _refuse_lost_rows(run, ledger.as_json()["files"], again)
        for account in ledger.as_json()["files"]:
            if (account["sha256"], *account["sources"]) not in have:
                more = {"already in the run": again[account["path"]], _beyond(limit): beyond[account["path"]]}
                run.manifest["inputs"].append(_account(account, ledger.rejected, more))
        if rows := beyond.total():
            ledger.notes.append(
                f"{LOOK}: --limit {limit} keeps the first problems of {reference}, {rows:,} rows of other problems are "
                f"left out; every number is of the {limit} alone."
            )
        run.manifest["input_notes"] = sorted({*run.manifest.get("input_notes", []), *ledger.notes})
        run.reject(ledger.rejected)
        repeat.remember(run, "ingest", _call(specs, ledger, how, grade, limit))


def _fresh(
    run: Run,
    traces: Iterable[list[Trace]],
    known: Mapping[str, int],
    samplers: dict[str, Sampler | None],
    again: Counter[str],
    judged: dict[tuple[str, str], str],
) -> Iterator[Trace]:
    """The traces that the run does not have yet. Fills, as they pass, `samplers`: source -> its sampler, None when
    unknown or when its traces disagree (no single distribution then); `again`: file -> rows all of whose traces it had;
    `judged`: (source, label in its policy_logprobs) -> the first row that has it.
    """
    for origin, row in groupby(chain.from_iterable(traces), key=attrgetter("origin")):
        had = True
        for t in row:
            if samplers.setdefault(t.source, t.sampler) != t.sampler:
                samplers[t.source] = None
            for label in t.policy_logprobs or ():
                judged.setdefault((t.source, label), origin)
            if run.is_new(t, known):
                had = False
                yield t
        if had:
            again[re.sub(r"[:#]\d+$", "", origin)] += 1


def _policies(judged: Mapping[tuple[str, str], str], labels: set[str], reference: str) -> list[str]:
    """What is to be noted of policy_logprobs. Raises DumpError where they name a policy of no source."""
    for (_, label), origin in judged.items():
        if label not in labels:
            raise DumpError(
                f"{origin}: policy_logprobs names {label!r}, and no source has that label{nearest(label, labels)}; "
                "expected labels of the sources of this run, whose dumps are given in the same line or before"
            )
    unused = {source for source, _ in judged} - {reference}
    said = "policy_logprobs of {} are not used: what was lost is asked of the rows of the reference ({}) alone."
    return [said.format(", ".join(sorted(unused)), reference)] * bool(unused)


def _first_problems(run: Run, limit: int, reference: str | None, traces: Iterable[Trace]) -> set[str]:
    """The first problems in the order of the reference, the run's before the dumps'; then those of other sources. Reads
    on until there are enough."""
    settings, table = run.manifest.get("settings", {}), run.trace_table(["source", "problem"])
    wanted = reference or settings.get("reference") or "base"
    order, others = dict.fromkeys(table["problem"][table["source"] == wanted]), dict.fromkeys(table["problem"])
    for t in traces:
        if len(order) >= limit:
            break
        (order if t.source == wanted else others).setdefault(t.problem)
    return set(islice(order | others, limit))


def _limited(traces: Iterable[list[Trace]], first: set[str], beyond: Counter[str]) -> Iterator[list[Trace]]:
    """The traces of the first problems; fills `beyond`: file -> rows that hold none of them."""
    for origin, row in groupby(chain.from_iterable(traces), key=attrgetter("origin")):
        kept = [t for t in row if t.problem in first]
        if kept:
            yield kept
        else:
            beyond[re.sub(r"[:#]\d+$", "", origin)] += 1


def _beyond(limit: int | None) -> str:
    return f"of problems beyond --limit {limit}"


def _call(specs: Sequence[str], ledger: Ledger, how: dict[str, Any], grade: bool, limit: int | None) -> dict[str, Any]:
    """This ingest as run.json keeps it, for `report --again`."""
    hashes = {account["path"]: account["sha256"] for account in ledger.files}
    named = [("<stdin>" if path is None else name, label) for name, path, label in expand(specs)[0]]
    files = [{"path": name, "label": label, "sha256": hashes[name]} for name, label in named if name in hashes]
    samplers = {label: asdict(s) for label, s in (how["samplers"] or {}).items()}
    return {"files": files, **how, "samplers": samplers, "grade": grade, "limit": limit}


def _refuse_lost_rows(run: Run, files: Iterable[dict[str, Any]], again: Mapping[str, int]) -> None:
    """Raise DumpError when a file of the run has changed and lacks rows that it had: growing is all that it may do."""
    earlier = {f["path"]: f for f in run.manifest["inputs"]}
    for now in files:
        then = earlier.get(now["path"])
        if then and then["sha256"] != now["sha256"] and again[now["path"]] < then["rows_used"]:
            raise DumpError(
                f"{now['path']} has changed since run {run.path} was made (sha256 {then['sha256'][:12]} then, "
                f"{now['sha256'][:12]} now): {then['rows_used'] - again[now['path']]} of the {then['rows_used']} rows "
                "used then are gone; restore the file or use another -o folder"
            )


def _account(account: dict[str, Any], rejected: Sequence[dict], more: Mapping[str, int]) -> dict[str, Any]:
    """The file's account with its reasons; more: further reasons -> rows. A row all of whose traces the run already had
    (a dump that has grown, or was first given in part) has one of them."""
    reasons = Counter(r["reason"] for r in rejected if r["file"] == account["path"]) + Counter(more)
    used = account["rows_used"] - sum(more.values())
    return account | {"rows_used": used, "rows_rejected": account["rows"] - used, "by_reason": dict(reasons)}


@wraps(scoring.score)
def score(run: Run, **call: Any) -> None:
    settings = {name: value for name, value in call.items() if name not in ("progress", "tell")}
    settings["template_files"] = repeat.template_files(settings.get("templates"))
    ended: BaseException | None = None
    try:
        scoring.score(run, **call)
    except KeyboardInterrupt as error:  # what was done counts; a call that was refused does not
        ended = error
    except ResourceError as error:
        raise (saved(error) if any(run.path.glob("scores/*/part-*")) else error) from error.__cause__
    with run.writing():
        repeat.remember(run, "score", settings)
        run.manifest["versions"] = versions()
        run.save()
    if ended is not None:
        raise ended


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
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.questions import ANALYSES
    from analyzer.analysis.support import prompts

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
            results[name] = prompts.named(ANALYSES[name].run(tables, budget=budget, seed=seed), tables)
        except UsageError as error:
            if names:
                raise
            left_out.append({"analysis": name, "why": str(error)})
            progress(f"analysis {name}, left out", n + 1, len(chosen), 0)
    return results, left_out


def compare(run: Run, a: str, b: str, *, budget: int = BUDGET, seed: int = 0) -> Result:
    """Two sources paired by problem, at one budget: see `analysis.pairs.run`."""
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.pairs import run as paired
    from analyzer.analysis.support import prompts

    tables = tables_module.build(run)
    return prompts.named(paired.run(tables, a=a, b=b, budget=budget, seed=seed), tables)


def one_trace(run: Run, key: str, model: str = "base") -> tuple[Trace, dict[str, Any]]:
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
    tokens: Counter = Counter()
    if "base" in run.scorers():
        for batch in run.score_batches("base", ["token"]):
            for source, n in zip(batch["source"].to_pylist(), batch["token"].value_lengths().to_pylist(), strict=True):
                tokens[source] += n
    out = {}
    for label, group in frame.groupby("source", sort=False):
        labelled = group["correct"].notna().any()
        mine = last["problem"][last["source"] == label].isin(chosen.problems[label])
        side = {"traces": int(mine.sum()), "problems": len(chosen.problems[label])}
        side |= {"left_out": int((~mine).sum()), "basis": chosen.kind[label]}
        out[str(label)] = {
            "traces": len(group),
            "problems": int(group["problem"].nunique()),
            "tokens": int(tokens[label]),
            "correct": int(group["correct"].sum()) if labelled else None,
            "compared": side,
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
    vary: bool = True,
    **page: Any,
) -> Written:
    """Run every analysis that can run, decide, and write the report into `directory`; page: see `pages.write.write`.

    vary: decide again under variations (`robustness`), about as much work as the analyses themselves.
    An earlier report there is replaced at the end, at once. Raises UsageError where the folder is not empty and not a
    report's, ResourceError where another process reports into it.
    """
    with outputs.replaced(directory) as folder:
        done = _report(run, folder, budget, seed, command, progress, vary, page)
    paths = {name: Path(directory) / path.relative_to(folder) for name, path in done.paths.items()}
    with suppress(ResourceError), run.writing():  # a run that can't be written can be reported on
        repeat.remember(run, "report", {"budget": budget, "seed": seed, "vary": vary, **page})
        run.manifest["command"] = list(command)
        run.save()
    return done._replace(paths=paths)


def _report(
    run: Run,
    folder: Path,
    budget: int,
    seed: int,
    command: Sequence[str],
    progress: Progress,
    vary: bool,
    page: Mapping[str, Any],
) -> Written:
    """The same into an empty folder."""
    from analyzer.analysis import robustness
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.pairs import compared
    from analyzer.analysis.pairs import run as paired
    from analyzer.analysis.questions import ANALYSES
    from analyzer.analysis.support import prompts
    from analyzer.analysis.verdict.decide import decide
    from analyzer.pages.write import write
    from analyzer.scoring.encoding import findings

    tables = tables_module.build(run)
    results, left_out = analyze(run, budget=budget, seed=seed, progress=progress, tables=tables)
    labels = sources(run)
    reference = run.manifest["settings"]["reference"]
    verdicts = prompts.told(decide(results, sources=list(labels), reference=reference, budget=budget), tables)
    options = {"budget": budget, "seed": seed}
    beside: dict[str, Callable[[], Result]] = {"paired": lambda: paired.run(tables, **options)}
    if vary:
        beside["robustness"] = lambda: robustness.run(tables, results, verdicts, progress=progress, **options)
    else:
        left_out.append({"analysis": "robustness", "why": "it was not asked for (--no-robustness)"})
    for name, make in beside.items():
        try:
            results[name] = prompts.named(make(), tables)
        except UsageError as error:
            left_out.append({"analysis": name, "why": str(error)})
    with suppress(UsageError):  # the numbers of the analyses are over the same problems already
        results["compared"] = compared.run(tables, results, **options)
    modules = {**ANALYSES, "paired": paired, "robustness": robustness, "compared": compared}
    figures = {name: modules[name].FIGURES for name in results}
    progress("report", 0, 1, 0)
    keep = ("settings", "samplers", "scorers", "policies", "inputs")
    limit = run.manifest["settings"].get("limit")
    meta = {
        "version": __version__,
        "command": list(command),
        "reference": reference,
        "budget": budget,
        "seed": seed,
        **{name: run.manifest.get(name, {}) for name in keep},
        "notes": [*run.manifest.get("input_notes", []), *findings.of_earlier_versions(run.manifest["scorers"])],
        **({"title": f"A look at the first {limit} problems only"} if limit else {}),
        "versions": versions(),
        "left_out": left_out,
    }
    paths = write(
        folder,
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
