"""Any dump -> Traces, with a Ledger that accounts for every row.

`read_dumps` is the whole interface. What a file holds is decided by `formats`: a known dialect, or fields found by
their names, or `--map`. Problems are joined on the text of their question, never on their position. A row is used whole
or not at all; what is not used is counted and kept with its file, line and reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.formats import files, shapes, traps
from analyzer.formats.fields import clean
from analyzer.formats.paths import Fault, has
from analyzer.formats.recognise import Plan, checked_map, derive_labels, label_of, plan_file, refuse_unused_map, stem_of
from analyzer.records import Sampler, Trace, problem_id

EXTRA_LIMIT = 200  # characters; longer unmapped texts are not kept in meta
TRACE_FIELDS = (
    "response",
    "prompt",
    "question",
    "step",
    "prompt_ids",
    "response_ids",
    "response_logprobs",
    "logprobs_temperature",
    "correct",
    "score",
    "finish",
    "answer",
    "group",
    "sampler",
)


@dataclass
class Ledger:
    """The account of a reading. rows = rows_used + rows_rejected; a row is a record of a file (a list per problem is
    one
    row and many traces). `rejected`: dicts with file, line, reason, detail, row. `notes`: trap findings, one
    sentence each."""

    threshold: float = 1.0
    files: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_used: int = 0
    rows_rejected: int = 0
    traces: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise ValueError unless the numbers add up, in all and file by file."""
        sums = {k: sum(f[k] for f in self.files) for k in ("rows", "rows_used", "rows_rejected", "traces")}
        wrong = [k for k, v in sums.items() if v != getattr(self, k)]
        if (
            wrong
            or self.rows != self.rows_used + self.rows_rejected
            or len({self.rows_rejected, len(self.rejected), sum(self.by_reason.values())}) > 1
        ):
            raise ValueError(f"the ledger does not add up ({wrong or 'rows'}): {self.as_json()}")

    def as_json(self) -> dict[str, Any]:
        """Everything but the rejected rows themselves (those go to rejected.jsonl)."""
        return {
            "rows": self.rows,
            "rows_used": self.rows_used,
            "rows_rejected": self.rows_rejected,
            "traces": self.traces,
            "by_reason": dict(self.by_reason),
            "threshold": self.threshold,
            "files": self.files,
            "notes": list(self.notes),
        }


def read_dumps(
    specs: Sequence[str],
    *,
    field_map: dict[str, str] | None = None,
    threshold: float = 1.0,
    samplers: dict[str, Sampler] | None = None,
    max_bad: float = 0.01,
) -> tuple[list[Trace], Ledger]:
    """Read dumps into traces.

    specs: paths, globs, folders, "-" (standard input), each also as LABEL=SPEC. field_map: canonical field -> path
    in the
    row (`rows`: where the records of a JSON document lie). threshold: score >= threshold is correct where a dump has no
    label of its own. samplers: source -> Sampler, winning over what the dump records. max_bad: the share of a file's
    rows
    that may be rejected (0 = strict).

    Source of a trace: LABEL; else the row's own source field; else the last part of its model name; else the file name
    (or its folder, where the dialect or a number as file name says so, or files of several folders share a name).
    Sample numbers are unique per (source, problem, step): the dump's own where they are, else the order of appearance.
    Raises DumpError (input can't be used) and UsageError (a spec, map, label or setting that does not fit).
    """
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad {max_bad!r} must be a share in [0, 1]; 0.2 accepts files with up to 20 % bad rows")
    if not (isinstance(threshold, (int, float)) and abs(threshold) < float("inf")):
        raise UsageError(f"threshold {threshold!r} must be a finite number; score >= threshold counts as correct")
    field_map = checked_map(field_map or {})
    names, notes = files.expand(specs)
    plans = [plan_file(files.open_dump(*n), field_map) for n in names]
    refuse_unused_map(field_map, plans)
    derive_labels(plans)
    ledger = Ledger(threshold=threshold, notes=notes)
    traces: list[Trace] = []
    numbering: dict[tuple[str, str, int | None], set[int]] = {}
    owners: dict[str, tuple[str, str]] = {}
    for plan in plans:
        before = len(traces)
        traces += _convert(plan, ledger, threshold, max_bad, numbering, owners)
        account = ledger.files[-1]
        account["traces"] = len(traces) - before
    ledger.traces = len(traces)
    _refuse_same_content(ledger.files)
    traces = _with_samplers(traces, samplers or {})
    ledger.notes += traps.find(traces, ledger.files, threshold)
    ledger.check()
    return traces, ledger


def _source(values: dict[str, Any], plan: Plan, owners: dict[str, tuple[str, str]]) -> str:
    raw = values.get("source") or values.get("model")
    if plan.file.label is not None:
        return plan.file.label
    label = label_of(raw) if raw else plan.derived
    owner = (raw or "", plan.file.name)
    known = owners.setdefault(label, owner)
    if known[0] != owner[0]:
        one, two = (f"{o[0]!r} in {o[1]}" if o[0] else f"the file {o[1]}" for o in (known, owner))
        raise DumpError(
            f"{plan.file.name}: two different models would both be called {label!r} ({one}; {two}); "
            f"name the sources: A={known[1]} B={plan.file.name}"
        )
    return label


def _convert(
    plan: Plan,
    ledger: Ledger,
    threshold: float,
    max_bad: float,
    numbering: dict[tuple[str, str, int | None], set[int]],
    owners: dict[str, tuple[str, str]],
) -> list[Trace]:
    """The traces of one file, its account appended to the ledger. Raises DumpError where too many rows are bad."""
    file = plan.file
    from_name = _fields_of_name(plan)
    traces: list[Trace] = []
    rejected: list[dict[str, Any]] = []
    raw_sources: dict[str, int] = {}
    rows_of: dict[tuple[str, str], int] = {}
    counts: Counter[str] = Counter()
    first_bad = ""
    for line, record in plan.records:
        try:
            drafts = [{**from_name, **d} for d in shapes.drafts_of(record, plan.fields)]
            checked = [clean(d, threshold) for d in drafts]
            _require(checked, plan)
            problems = [_problem(v) for v in checked]
        except Fault as fault:
            row = record if not isinstance(record, dict) else {k: v for k, v in record.items() if not k.startswith("@")}
            row = None if isinstance(record, Fault) else row
            rejected.append(
                {"file": file.name, "line": line, "reason": fault.reason, "detail": fault.detail, "row": row}
            )
            first_bad = first_bad or f"{file.at(line)}: {fault}"
            continue
        except RecursionError:
            rejected.append({"file": file.name, "line": line, "reason": "nested too deeply", "detail": "", "row": None})
            first_bad = first_bad or f"{file.at(line)}: nested too deeply"
            continue
        extras = _extras(record, plan) if plan.dialect.get("keep") else {}
        for values, problem in zip(checked, problems, strict=True):
            raw = str(values.get("source") or values.get("model") or "")
            raw_sources.setdefault(raw, line)
            source = _source(values, plan, owners)
            row = line
            if plan.dialect["shape"] == "row":  # the problem's row is where it (or its own id) first appeared
                row = rows_of.setdefault((source, values.get("id", problem)), line)
            sample, moved = _number(numbering, (source, problem, values.get("step")), values.get("sample"))
            counts["renumbered"] += moved
            traces.append(_trace(values, source, problem, sample, {**extras, "row": row}, file.at(line)))
            counts["greedy"] += bool(values.get("greedy"))
            counts["null_answers"] += bool(values.get("null_answer"))
            counts["by_id"] += "question" not in values and "prompt" not in values and "problem" not in values
    if file.label is not None and len(raw_sources) > 1:
        raise UsageError(
            f"{file.label}={file.name}: the file holds several sources "
            f"({', '.join(map(repr, list(raw_sources)[:6]))}), "
            f"which one label can't name; leave {file.label}= out to keep their own names"
        )
    account = {
        "path": file.name,
        "sha256": file.sha256,
        "bytes": file.size,
        "format": plan.format,
        "mapping": _mapping_found(plan) | {k: "file name" for k in from_name},
        "sources": list(dict.fromkeys(t.source for t in traces)),
        "models": [r for r in raw_sources if r],
        "rows": len(plan.records),
        "rows_used": len(plan.records) - len(rejected),
        "rows_rejected": len(rejected),
        "traces": len(traces),
        "shape": plan.dialect["shape"],
        "counts": {k: v for k, v in counts.items() if v},
    }
    _judge(account, rejected, first_bad, max_bad)
    ledger.files.append(account)
    ledger.rows += account["rows"]
    ledger.rows_used += account["rows_used"]
    ledger.rows_rejected += len(rejected)
    ledger.rejected += rejected
    for r in rejected:
        ledger.by_reason[r["reason"]] = ledger.by_reason.get(r["reason"], 0) + 1
    if "note" in plan.dialect:
        ledger.notes.append(f"{file.name}: {plan.dialect['note']}")
    return traces


def _require(checked: list[dict[str, Any]], plan: Plan) -> None:
    """Raise Fault where a row lacks what its dialect requires of every row."""
    for name in plan.dialect.get("requires", ()):
        if any(name not in values for values in checked) and not (name == "source" and plan.file.label):
            raise Fault(f"no {name}", f"{name} is null; rows of the {plan.format} format name their {name}")


def _judge(account: dict[str, Any], rejected: list[dict[str, Any]], first_bad: str, max_bad: float) -> None:
    """Raise DumpError where nothing is usable or more than the allowed share of rows is bad."""
    rows, bad = account["rows"], len(rejected)
    if rows and bad == 0:
        return
    if rows == 0:
        raise DumpError(
            f"{account['path']}: no rows in it; the run that wrote it produced nothing: leave it out or write it again"
        )
    reasons = Counter(r["reason"] for r in rejected).most_common(3)
    listed = ", ".join(f"{n} x {reason}" for reason, n in reasons)
    if bad == rows:
        keys = ", ".join(list(rejected[0]["row"])[:15]) if isinstance(rejected[0]["row"], dict) else ""
        hint = (
            f"its rows have: {keys}; name the fields: --map response=FIELD"
            if keys
            else "expected one JSON object per row"
        )
        raise DumpError(f"{first_bad}\nnone of {rows} rows can be used ({listed}); {hint}")
    if bad > max_bad * rows:
        share = min(1.0, -(-bad * 1000 // rows) / 1000)
        raise DumpError(
            f"{first_bad}\n{bad} of {rows} rows can't be used ({listed}); allowed are {max_bad:.1%} of a file's rows. "
            f"Repair them, or --max-bad {share:g} leaves them out and counts them"
        )


def _mapping_found(plan: Plan) -> dict[str, str]:
    """The field map as it applies here: without the paths that no row has."""
    rows = [r for _, r in plan.records if isinstance(r, dict)]
    found = {name: [p for p in paths if any(has(r, p) for r in rows)] for name, paths in plan.fields.items()}
    return {name: " | ".join(paths) for name, paths in found.items() if paths}


def _fields_of_name(plan: Plan) -> dict[str, Any]:
    """Fields that the dialect reads from the file's name."""
    pattern = plan.dialect.get("name")
    if pattern is None or plan.file.path is None:
        return {}
    found = re.search(pattern, stem_of(plan.file.path))
    out: dict[str, Any] = {k: v for k, v in (found.groupdict() if found else {}).items() if v is not None}
    if "temperature" in out:
        out["temperature"] = float(out["temperature"])
    if "seed" in out:
        out["seed"] = int(out["seed"])
    if plan.format == "qwen-math" and found and plan.file.path.absolute().parent.name:
        out["group"] = plan.file.path.absolute().parent.name
    return out


def _problem(values: dict[str, Any]) -> str:
    """The id of a problem: given as `problem`; else the hash of the question, of the prompt; else the dump's own id."""
    if "problem" in values:
        return values["problem"]
    if "question" in values:
        return problem_id(values["question"])
    prompt = values.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return problem_id(prompt)
    if isinstance(prompt, list):
        users = [m["content"] for m in prompt if m["role"] == "user"]
        return problem_id(users[-1] if users else prompt[-1]["content"])
    if "id" in values:
        return f"{values['group']}-{values['id']}" if "group" in values else values["id"]
    if "prompt_ids" in values:
        return problem_id(" ".join(map(str, values["prompt_ids"])))
    raise Fault("no problem", "the row has no question, no prompt and no id; name one: --map question=FIELD")


def _number(
    numbering: dict[tuple[str, str, int | None], set[int]], key: tuple[str, str, int | None], given: int | None
) -> tuple[int, bool]:
    """The sample's number: the given one unless it is taken, else the next free one; second value: it had to move."""
    used = numbering.setdefault(key, set())
    sample = given
    if sample is None or sample in used:
        sample = len(used)
        while sample in used:
            sample += 1
    used.add(sample)
    return sample, given is not None and sample != given


def _trace(values: dict[str, Any], source: str, problem: str, sample: int, extra: dict[str, Any], origin: str) -> Trace:
    meta = {**extra, **values.get("meta", {}), "row": extra["row"]}
    meta |= {k: values[k] for k in ("gold", "seed", "max_tokens", "finish_raw", "null_answer", "greedy") if k in values}
    if "id" in values and values["id"] != problem:
        meta["id"] = values["id"]
    return Trace(
        source=source,
        problem=problem,
        sample=sample,
        meta=meta,
        origin=origin,
        **{k: values[k] for k in TRACE_FIELDS if values.get(k) is not None},
    )


def _extras(record: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Small unmapped values of a row of no known dialect: they may matter later, and cost little."""
    used = {p.split(".")[0].removesuffix("[]") for paths in plan.fields.values() for p in paths}
    small = {
        k: v
        for k, v in record.items()
        if k not in used
        and not k.startswith("@")
        and (
            isinstance(v, (bool, int, float))
            and v == v
            and abs(v) < 1e300
            or isinstance(v, str)
            and len(v) <= EXTRA_LIMIT
            and v.isprintable()
        )
    }
    return dict(list(small.items())[:20])


def _refuse_same_content(accounts: list[dict[str, Any]]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for account in accounts:
        for source in account["sources"]:
            other = seen.setdefault((account["sha256"], source), account["path"])
            if other != account["path"]:
                raise DumpError(
                    f"{account['path']}: the same bytes as {other} (sha256 {account['sha256'][:12]}), both for "
                    f"source {source!r}: "
                    "every sample would count twice; leave one out, or give it another label: LABEL=PATH"
                )


def _with_samplers(traces: list[Trace], samplers: dict[str, Sampler]) -> list[Trace]:
    labels = {t.source for t in traces}
    for label in samplers:
        if label not in labels:
            raise UsageError(f"--sampler {label}=...: no source is called {label!r}{nearest(label, labels)}")
    return [replace(t, sampler=samplers[t.source]) if t.source in samplers else t for t in traces]
