"""Dumps -> traces in a run: what is new of them, or nothing at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Any

from analyzer.api import repeat
from analyzer.dumps.read import Ledger, batches, stream
from analyzer.dumps.specs import expand
from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records import Sampler, Trace
from analyzer.records.options import ReadOptions
from analyzer.records.steps import stored
from analyzer.runs.store import Run

AGAIN, BEYOND = "already in the run", "of problems beyond --limit"  # why rows that were read are not new
LOOK = "A LOOK ONLY"  # how the note of --limit begins


def ingest(run: Run, specs: Sequence[str], read: ReadOptions) -> None:
    """Read dumps into the run; files and rows that are already there are recognised and not added twice.

    Rows stream through and appear in the run together with its manifest, or not at all. reference: label of the
    reference source; by default "base" when there is one, else the only source; limit: for a quick look, only the first
    so many problems, in the reference's order, with all their samples; the others: see `dumps.read.read_dumps`.
    Raises DumpError for unusable input, UsageError for unknown labels or changed settings.
    """
    ledger = Ledger()
    samplers_of: dict[str, Sampler | None] = {}
    again: Counter[str] = Counter()
    judged: dict[tuple[str, str], str] = {}
    traces = batches(specs, ledger, read=read)
    beyond: Counter[str] = Counter()
    if read.limit is not None:
        if run.manifest["inputs"]:  # a run that was made without a limit keeps all its problems
            run.manifest["settings"].setdefault("limit", None)
        if any(s == "-" or s.endswith("=-") for s in specs):
            raise UsageError("--limit reads the dumps twice, which standard input can't be: give a file")
        look = Ledger()
        first = _first_problems(run, read.limit, read.reference, stream(specs, look, read))
        ledger.opened = look.opened
        traces = _limited(traces, first, beyond)
    with run.writing(), run.adding(_fresh(run, traces, run.contents(), samplers_of, again, judged)):
        recorded = run.manifest.get("samplers", {})
        found = {label: asdict(s) if s else None for label, s in samplers_of.items()}
        for label, value in found.items():
            if recorded.get(label, value) != value:
                raise UsageError(
                    f"run {run.path} has sampler {recorded[label]} for {label}, the dump or flag now says {value}; "
                    "use another -o folder"
                )
        earlier = run.manifest.get("settings", {}).get("reference")
        labels = {*found, *recorded}
        reference = choose_reference(read.reference or earlier, labels)
        ledger.notes += _policies(judged, labels, reference)
        fixed = {"threshold": read.threshold, "field_map": dict(read.map), "grade": read.grade}
        fixed |= {"reference": reference, "limit": read.limit}
        run.refuse_changes(**fixed)
        run.manifest.setdefault("settings", {}).update(fixed)
        run.manifest["samplers"] = recorded | found
        have = {(f["sha256"], *f["sources"]): f for f in run.manifest["inputs"]}
        _refuse_lost_rows(run, ledger.as_json()["files"], again)
        for account in ledger.as_json()["files"]:
            if then := have.get((account["sha256"], *account["sources"])):
                _refuse_another_reading(run, account, then)
            else:
                path = account["path"]
                more = {AGAIN: again[path], f"{BEYOND} {read.limit}": beyond[path]}
                run.manifest["inputs"].append(_account(account, ledger.rejected, more))
        if rows := beyond.total():
            ledger.notes.append(
                f"{LOOK}: --limit {read.limit} keeps the first problems of {reference}, {rows:,} rows of other "
                f"problems are left out; every number is of the {read.limit} alone."
            )
        run.manifest["input_notes"] = sorted({*run.manifest.get("input_notes", []), *ledger.notes})
        run.reject(ledger.rejected)
        repeat.remember(run, "ingest", {"files": _files(specs, ledger), **stored(read)})


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


def _files(specs: Sequence[str], ledger: Ledger) -> list[dict[str, Any]]:
    """The files of this call as run.json keeps them, for `report --again`."""
    hashes = {account["path"]: account["sha256"] for account in ledger.files}
    named = [("<stdin>" if path is None else name, label) for name, path, label in expand(specs)[0]]
    return [{"path": name, "label": label, "sha256": hashes[name]} for name, label in named if name in hashes]


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


def _refuse_another_reading(run: Run, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Raise UsageError when other rows of the very same file were used: the run would hold what it does not account
    for, or lack what it says."""
    reasons = then.get("by_reason", {}).items()
    used = then["rows_used"] + sum(n for reason, n in reasons if reason.startswith((AGAIN, BEYOND)))
    if now["rows_used"] != used:
        raise UsageError(
            f"another version read {used:,} of the {now['rows']:,} rows of {now['path']}, this one "
            f"{now['rows_used']:,}; use another -o folder than {run.path}"
        )


def _account(account: dict[str, Any], rejected: Sequence[dict], more: Mapping[str, int]) -> dict[str, Any]:
    """The file's account with its reasons; more: further reasons -> rows. A row all of whose traces the run already had
    (a dump that has grown, or was first given in part) has one of them."""
    reasons = Counter(r["reason"] for r in rejected if r["file"] == account["path"]) + Counter(more)
    used = account["rows_used"] - sum(more.values())
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
