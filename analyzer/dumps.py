"""Any dump -> Traces, with a Ledger that accounts for every row.

`read_dumps` is the whole interface. What a file holds is decided by `formats`: a known dialect, or fields found by
their names, or `--map`. Problems are joined on the text of their question, never on their position. A row is used whole
or not at all; what is not used is counted and kept with its file, line and reason.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.formats import files, joins, shapes, traps
from analyzer.formats.fields import clean
from analyzer.formats.paths import Fault, has
from analyzer.formats.recognise import Plan, checked_map, derive_labels, label_of, plan_file, refuse_unused_map, stem_of
from analyzer.records import Sampler, Trace, json_value, problem_id

EXTRA_LIMIT = 200  # characters; longer unmapped texts are not kept in meta
META_FIELDS = ("gold", "seed", "max_tokens", "finish_raw", "null_answer", "greedy")
DEFAULTS = {**vars(Trace("", "", 0, "")), "meta": None}
hashed = lru_cache(1 << 16)(problem_id)  # a question is asked many times


@dataclass
class Ledger:
    """The account of a reading. rows = rows_used + rows_rejected; a row is a record of a file (a list per problem is
    one row and many traces; a row of a file that others are joined with is used, and no trace). `rejected`: dicts with
    file, line, reason, detail, row. `notes`: trap findings, one sentence each."""

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

    specs: paths, globs, folders, "-" (standard input), each also as LABEL=SPEC. field_map: canonical field -> path in
    the row (`rows`: where the records of a JSON document lie; `format`: the dialect to read as). threshold: score >=
    threshold is correct where a dump has no label of its own. samplers: source -> Sampler, winning over what the dump
    records. max_bad: the share of a file's rows that may be rejected (0 = strict).

    Source of a trace: LABEL; else the row's own source field; else the last part of its model name; else the file name
    (or its folder, where the dialect or a number as file name says so, or files of several folders share a name).
    Sample numbers are unique per (source, problem, step): the dump's own where they are, else the order of appearance.
    Raises DumpError (input can't be used) and UsageError (a spec, map, label or setting that does not fit).
    """
    ledger = Ledger(threshold=threshold)
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and looking for some among millions of traces takes a third of the time
    try:
        traces = list(
            stream(specs, ledger, field_map=field_map, threshold=threshold, samplers=samplers, max_bad=max_bad)
        )
        ledger.notes += traps.find(traces, ledger.files, threshold)
    finally:
        if collecting:
            gc.enable()
    return traces, ledger


def stream(
    specs: Sequence[str],
    ledger: Ledger,
    *,
    field_map: dict[str, str] | None = None,
    threshold: float = 1.0,
    samplers: dict[str, Sampler] | None = None,
    max_bad: float = 0.01,
) -> Iterator[Trace]:
    """The traces of `read_dumps` one by one, for dumps that memory can't hold; the rows of JSON lines and Parquet are
    not kept. `ledger` is complete when the last trace is out, but for the traps, which need all traces at once. What is
    raised late (too many bad rows, a label that no source has) makes the traces before it void.
    """
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad {max_bad!r} must be a share in [0, 1]; 0.2 accepts files with up to 20 % bad rows")
    if not (isinstance(threshold, (int, float)) and abs(threshold) < float("inf")):
        raise UsageError(f"threshold {threshold!r} must be a finite number; score >= threshold counts as correct")
    ledger.threshold = threshold
    given = samplers or {}
    for trace in _walk(specs, checked_map(field_map or {}), threshold, max_bad, ledger):
        yield replace(trace, sampler=given[trace.source]) if trace.source in given else trace
    labels = {source for account in ledger.files for source in account["sources"]}
    for label in given:
        if label not in labels:
            raise UsageError(f"--sampler {label}=...: no source is called {label!r}{nearest(label, labels)}")
    ledger.check()


def _walk(
    specs: Sequence[str], field_map: dict[str, str], threshold: float, max_bad: float, ledger: Ledger
) -> Iterator[Trace]:
    """The traces of all files in order; the ledger is complete when the last one is out."""
    names, notes = files.expand(specs)
    ledger.notes += notes
    plans = [plan_file(files.open_dump(*n), field_map) for n in names]
    sides = []
    for plan in [p for p in plans if p.dialect["shape"] == "side"]:
        account, rejected, held = joins.account(plan)
        _book(ledger, account, rejected, "", max_bad)
        sides.append((plan, held))
    plans = [p for p in plans if p.dialect["shape"] != "side"]
    if not plans:
        raise DumpError(
            f"{sides[0][0].file.name}: this is {sides[0][0].format}, which has no responses; give it beside the dump "
            "that belongs to it"
        )
    for plan in plans:
        joins.attach(plan, sides)
    refuse_unused_map(field_map, plans)
    derive_labels(plans)
    numbering: dict[tuple[str, str, int | None], Any] = {}
    owners: dict[str, tuple[str, str]] = {}
    said: dict[str, list[str]] = {}
    for plan in plans:
        yield from _convert(plan, ledger, threshold, max_bad, numbering, owners)
        for note in plan.notes:
            said.setdefault(note, []).append(plan.file.name)
    ledger.notes += [f"{traps.listed(where)}: {note}" for note, where in said.items()]
    ledger.notes += _same_content(ledger.files)


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
    numbering: dict[tuple[str, str, int | None], Any],
    owners: dict[str, tuple[str, str]],
) -> Iterator[Trace]:
    """The traces of one file, its account appended to the ledger. Raises DumpError where too many rows are bad."""
    file, by_row = plan.file, "[]" not in (path := plan.fields["response"][0]) and not path.startswith("*.")
    from_name, read = _fields_of_name(plan), shapes.reader(plan.fields)
    requires, keep = plan.dialect.get("requires", ()), plan.dialect.get("keep", False)
    absent_nulls = plan.dialect.get("absent_nulls", False)
    mapped = {p.split(".")[0].removesuffix("[]") for paths in plan.fields.values() for p in paths}
    kinds: dict[tuple[str, ...], list[str]] = {}  # the keys that rows have -> those of them that are not mapped
    rejected: list[dict[str, Any]] = []
    raw_sources: dict[str, str] = {}
    sources: dict[str, int] = {}
    rows_of: dict[tuple[str, str], int] = {}
    unseen = [(name, p) for name, paths in plan.fields.items() for p in paths]
    seen: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    fresh, first_bad, rows, prefix = False, "", 0, file.at(0)[:-1]
    for line, record in plan.walk():
        rows += 1
        try:
            if isinstance(record, dict):
                if record.get("@skip"):
                    continue
                kind = tuple(record)
                extra = kinds.get(kind)
                if extra is None:
                    if len(kinds) > 1000:
                        kinds.clear()
                    extra = kinds[kind] = [k for k in kind if k not in mapped and k[:1] != "@"]
                    fresh = True
                if unseen and (fresh or rows <= files.HEAD):
                    fresh = False
                    found = [x for x in unseen if has(record, x[1])]
                    unseen = [x for x in unseen if x not in found]
                    for name, path in found:
                        seen.setdefault(name, []).append(path)
            drafts = read(record)
            if from_name:
                drafts = [{**from_name, **d} for d in drafts]
            if absent_nulls:
                drafts = [{k: v for k, v in d.items() if v is not None} for d in drafts]
            if requires:
                _require(drafts, plan)
            pairs = [(v := clean(d, threshold), _problem(v)) for d in drafts]
        except (Fault, RecursionError) as e:
            fault = e if isinstance(e, Fault) else Fault("nested too deeply")
            row = record if not isinstance(record, dict) else {k: v for k, v in record.items() if not k.startswith("@")}
            row = None if isinstance(record, Fault) or not isinstance(e, Fault) else json_value(row)
            rejected.append(
                {"file": file.name, "line": line, "reason": fault.reason, "detail": fault.detail, "row": row}
            )
            first_bad = first_bad or f"{file.at(line)}: {fault}"
            continue
        extras = _extras(record, extra) if keep and extra else None
        origin = f"{prefix}{line}"
        for values, problem in pairs:
            raw = values.get("source") or values.get("model") or ""
            source = raw_sources.get(raw)
            if source is None:
                source = raw_sources[raw] = _source(values, plan, owners)
            # the problem's row is where it (or its own id) first appeared
            row = rows_of.setdefault((source, values.get("id", problem)), line) if by_row else line
            sample, moved = _number(numbering, (source, problem, values.get("step")), values.get("sample"))
            if moved:
                counts["renumbered"] += 1
            if "greedy" in values:
                counts["greedy"] += 1
            if "null_answer" in values:
                counts["null_answers"] += 1
            if "question" not in values and "prompt" not in values and "problem" not in values:
                counts["by_ids" if "id" not in values and "prompt_ids" in values else "by_id"] += 1
            sources[source] = sources.get(source, 0) + 1
            yield _trace(values, source, problem, sample, extras, row, origin)
    if file.label is not None and len(raw_sources) > 1:
        raise UsageError(
            f"{file.label}={file.name}: the file holds several sources "
            f"({', '.join(map(repr, list(raw_sources)[:6]))}), "
            f"which one label can't name; leave {file.label}= out to keep their own names"
        )
    mapping = {n: " | ".join(p for p in paths if p in seen[n]) for n, paths in plan.fields.items() if n in seen}
    account = {
        "path": file.name,
        "sha256": file.sha256,
        "bytes": file.size,
        "format": plan.format,
        "mapping": mapping | {k: "file name" for k in from_name},
        "sources": list(sources),
        "models": [r for r in raw_sources if r],
        "rows": rows,
        "rows_used": rows - len(rejected),
        "rows_rejected": len(rejected),
        "traces": sum(sources.values()),
        "shape": plan.dialect["shape"],
        "counts": dict(counts),
    }
    _book(ledger, account, rejected, first_bad, max_bad)


def _book(
    ledger: Ledger, account: dict[str, Any], rejected: list[dict[str, Any]], first_bad: str, max_bad: float
) -> None:
    """Add a file's account to the ledger. Raises DumpError where too many of its rows are bad."""
    _judge(account, rejected, first_bad, max_bad)
    ledger.files.append(account)
    ledger.rows += account["rows"]
    ledger.rows_used += account["rows_used"]
    ledger.rows_rejected += len(rejected)
    ledger.traces += account["traces"]
    ledger.rejected += rejected
    for r in rejected:
        ledger.by_reason[r["reason"]] = ledger.by_reason.get(r["reason"], 0) + 1


def _require(drafts: list[dict[str, Any]], plan: Plan) -> None:
    """Raise Fault where a row lacks what its dialect requires of every row."""
    for name in plan.dialect.get("requires", ()):
        if any(d.get(name) is None for d in drafts) and not (name == "source" and plan.file.label):
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


def _fields_of_name(plan: Plan) -> dict[str, Any]:
    """Fields that the dialect reads from the file's name and its folder's."""
    path = plan.file.path
    if path is None:
        return {}
    out: dict[str, Any] = {}
    for word, text in (("name", stem_of(path)), ("folder", f"{path.absolute().parent.as_posix()}/")):
        found = re.search(plan.dialect[word], text) if word in plan.dialect else None
        out |= {k: v for k, v in (found.groupdict() if found else {}).items() if v is not None}
    if plan.format == "qwen-math" and "seed" in out and path.absolute().parent.name:
        out["group"] = path.absolute().parent.name
    kinds = {"temperature": float, "top_p": float, "seed": int, "max_tokens": int}
    return {k: kinds.get(k, str)(v) for k, v in out.items()}


def _problem(values: dict[str, Any]) -> str:
    """The id of a problem: given as `problem`; else the hash of the question, of the prompt; else the dump's own id."""
    if "problem" in values:
        return values["problem"]
    if "question" in values:
        return hashed(values["question"])
    prompt = values.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return hashed(prompt)
    if isinstance(prompt, list):
        users = [m["content"] for m in prompt if m["role"] == "user"]
        return hashed(users[-1] if users else prompt[-1]["content"])
    if "id" in values:
        return f"{values['group']}-{values['id']}" if "group" in values else values["id"]
    if "prompt_ids" in values:
        return problem_id(" ".join(map(str, values["prompt_ids"])))
    raise Fault("no problem", "the row has no question, no prompt and no id; name one: --map question=FIELD")


def _number(
    numbering: dict[tuple[str, str, int | None], Any], key: tuple[str, str, int | None], given: int | None
) -> tuple[int, bool]:
    """The sample's number: the given one unless it is taken, else the next free one; second value: it had to move.
    `numbering` holds how many numbers are taken where these are the first ones, else the set of them."""
    used = numbering.get(key, 0)
    if isinstance(used, int):
        if given is None or given <= used:
            numbering[key] = used + 1
            return used, given is not None and given != used
        used = numbering[key] = set(range(used))
    sample = given
    if sample is None or sample in used:
        sample = len(used)
        while sample in used:
            sample += 1
    used.add(sample)
    return sample, given is not None and sample != given


def _trace(
    values: dict[str, Any], source: str, problem: str, sample: int, extra: dict[str, Any] | None, row: int, origin: str
) -> Trace:
    # A frozen dataclass sets its fields one by one through object.__setattr__, which took a sixth of the reading.
    trace = object.__new__(Trace)
    fields = trace.__dict__
    fields.update(DEFAULTS)
    fields.update(values)
    meta = dict(extra) if extra else {}
    if "meta" in values:
        meta.update(values["meta"])
    meta["row"] = row
    for k in META_FIELDS:
        if k in values:
            meta[k] = fields.pop(k)
    if "id" in values and fields.pop("id") != problem:
        meta["id"] = values["id"]
    fields.pop("model", None)
    fields["source"], fields["problem"], fields["sample"] = source, problem, sample
    fields["meta"], fields["origin"] = meta, origin
    return trace


def _extras(record: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Small unmapped values of a row of no known dialect: they may matter later, and cost little."""
    small = {
        k: v
        for k in keys
        if isinstance(v := record[k], (bool, int, float))
        and v == v
        and abs(v) < 1e300
        or isinstance(v, str)
        and len(v) <= EXTRA_LIMIT
        and v.isprintable()
    }
    return dict(list(small.items())[:20])


def _same_content(accounts: list[dict[str, Any]]) -> list[str]:
    """Notes about files that are byte for byte the same under several labels. Raises DumpError within one label."""
    seen: dict[str, dict[str, Any]] = {}
    notes = []
    for account in (a for a in accounts if a["sources"]):
        other = seen.setdefault(account["sha256"], account)
        if other is account or other["path"] == account["path"]:
            continue
        if set(other["sources"]) & set(account["sources"]):
            raise DumpError(
                f"{account['path']}: the same bytes as {other['path']} (sha256 {account['sha256'][:12]}), both for "
                f"source {account['sources'][0]!r}: "
                "every sample would count twice; leave one out, or give it another label: LABEL=PATH"
            )
        notes.append(
            f"{account['path']} ({', '.join(account['sources'])}) is byte for byte {other['path']} "
            f"({', '.join(other['sources'])}): comparing the two compares a file with itself."
        )
    return notes
