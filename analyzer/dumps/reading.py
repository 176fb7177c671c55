"""One planned file -> its traces and its account. A row is used whole or not at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from analyzer.dumps import accounts, files, settings, shapes, unused
from analyzer.dumps.accounts import Ledger
from analyzer.dumps.fields import clean
from analyzer.dumps.labels import label_of, stem_of
from analyzer.dumps.paths import Fault, has
from analyzer.dumps.recognise import Plan
from analyzer.errors import DumpError, UsageError
from analyzer.records import Trace, problem_id

LARGE = 1 << 20  # of a rejected row: it is kept by its place alone
EXTRA_LIMIT, EXTRAS = 200, 20  # characters: longer unmapped texts are not kept in meta; and how many values are
META_FIELDS = (
    *("gold", "seed", "max_tokens", "response_mask", "finish_raw", "null_answer", "greedy", "sampler_part", "images"),
    "valid_votes",
)
NO_FIELDS = frozenset((*META_FIELDS, "id", "model"))  # of a Trace
DEFAULTS = {**vars(Trace("", "", 0, "")), "meta": None}
hashed = lru_cache(1 << 12)(problem_id)  # a question is asked many times


def traces_of(
    plan: Plan,
    ledger: Ledger,
    threshold: float,
    max_bad: float,
    numbering: dict[tuple[str, str, int | None], Any],
    owners: dict[str, tuple[str, str]],
) -> Iterator[Trace]:
    """The traces of one file, its account appended to the ledger. Raises DumpError where too many rows are bad."""
    file, by_row = plan.file, "[]" not in (path := plan.fields["response"][0]) and not path.startswith("*.")
    from_name, read = _fields_of_name(plan), shapes.reader(plan.fields, plan.for_all)
    requires, keep, absent_nulls = plan.dialect.requires, plan.dialect.keep, plan.dialect.absent_nulls
    whole = {p for paths in plan.fields.values() for p in paths}
    mapped = {p.split(".")[0].removesuffix("[]") for p in whole}
    parts = unused.read_parts([*whole, *plan.reads])
    # the keys that rows have -> those of them that are not mapped, those that may state how the row was drawn, those
    # that nothing reads, those read in part
    kinds: dict[tuple[str, ...], tuple[Any, ...]] = {}
    left: dict[str, list[Any]] = {}
    rejected: list[dict[str, Any]] = []
    raw_sources: dict[str, str] = {}
    sources: dict[str, int] = {}
    rows_of: dict[tuple[str, str], int] = {}
    unseen = [(name, p) for name, paths in plan.fields.items() for p in paths]
    seen: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    fresh, first_bad, rows, prefix = False, "", 0, file.at(0)[:-1]
    last, extra, telling, unread, within = (), None, [], None, []
    for line, record in plan.walk():
        rows += 1
        try:
            if isinstance(record, dict):
                if record.get("@skip"):
                    continue
                kind = tuple(record)
                if kind != last:
                    last, (extra, telling, unread, within) = kind, kinds.get(kind, (None, [], None, []))
                if extra is None:
                    if len(kinds) > 1000:
                        unused.settle(left, (known[2] for known in kinds.values()))
                        kinds.clear()
                    extra = [k for k in kind if k not in mapped and k[:1] != "@"]
                    telling = settings.stating(kind, whole)
                    unread, within = unused.columns(record, *parts)
                    kinds[kind] = extra, telling, unread, within
                    fresh = True
                if unseen and (fresh or rows <= files.HEAD):
                    fresh = False
                    found = [x for x in unseen if has(record, x[1])]
                    unseen = [x for x in unseen if x not in found]
                    for name, path in found:
                        seen.setdefault(name, []).append(path)
            drafts = read(record)
            if not by_row and "shared" in drafts[0]:
                shared.update(drafts[0]["shared"])
            if telling and (drawn := settings.of_row(record, telling)):
                drafts = [{**drawn, **d} for d in drafts]
            if from_name:
                drafts = [{**from_name, **d} for d in drafts]
            if absent_nulls:
                drafts = [{k: v for k, v in d.items() if v is not None} for d in drafts]
            if requires:
                _require(drafts, plan)
            pairs = [(v := clean(d, threshold), _problem(v)) for d in drafts]
        except (Fault, RecursionError) as e:
            fault = e if isinstance(e, Fault) else Fault("nested too deeply")
            plain = not isinstance(record, Fault) and isinstance(e, Fault)
            row = accounts.kept(record) if plain and files.bulk(record, LARGE) <= LARGE else None
            detail = fault.detail.encode(errors="backslashreplace").decode()
            rejected.append({"file": file.name, "line": line, "reason": fault.reason, "detail": detail, "row": row})
            first_bad = first_bad or f"{file.at(line)}: {fault}"
            continue
        extras = _extras(record, extra) if keep and extra else None
        if unread is not None or within:
            unused.count(left, record, unread, within)
        origin = f"{prefix}{line}"
        for values, problem in pairs:
            raw = values.get("source") or values.get("model") or ""
            source = raw_sources.get(raw)
            if source is None:
                source = raw_sources[raw] = _source(values, plan, owners)
                sources.setdefault(source, 0)
            if plan.step is not None and values.get("step") is None and (raw or plan.checkpoint not in source):
                values["step"] = plan.step
                counts["steps_of_path"] += 1
            # the problem's row is where it (or its own id) first appeared
            row = rows_of.setdefault((source, values.get("id", problem)), line) if by_row else line
            key, given = (source, problem, values.get("step")), values.get("sample")
            sample = numbering.get(key, 0)
            if sample.__class__ is int and (given is None or given == sample):
                numbering[key] = sample + 1  # the next number, as nearly always
            else:
                sample, moved = _number(numbering, key, given)
                counts["renumbered"] += moved
            if "greedy" in values:
                counts["greedy"] += 1
            if "null_answer" in values:
                counts["null_answers"] += 1
            if "question" not in values and "prompt" not in values and "problem" not in values:
                counts["by_ids" if "id" not in values and "prompt_ids" in values else "by_id"] += 1
            sources[source] += 1
            yield _trace(values, source, problem, sample, extras, row, origin)
        record = drafts = pairs = values = None  # the next row is built before they would be let go, and may be large
    if file.label is not None and len(raw_sources) > 1:
        raise UsageError(
            f"{file.label}={file.name}: the file holds several sources "
            f"({', '.join(map(repr, list(raw_sources)[:6]))}), "
            f"which one label can't name; leave {file.label}= out to keep their own names"
            + (", or --map group=source if it says where problems come from" if "source" in seen else "")
        )
    plan.notes += [
        f"{n:,} row{' has' if n == 1 else 's have'} one value of {name} for several responses, which labels none of "
        f"them: a list with one for each is read, --map {name}=@row.{plan.fields[name][0]} takes it for each."
        for name, n in shared.items()
    ]
    unused.settle(left, (known[2] for known in kinds.values()))
    mapping = {
        n: " | ".join(p for p in paths if p in seen[n])
        for n, paths in plan.fields.items()
        if n in seen and n[:5] != "mask."
    }
    account = {
        "path": file.name,
        "sha256": file.sha256,
        "bytes": file.size,
        "format": plan.format,
        "mapping": mapping
        | {k: f"{v} (of the file's name)" for k, v in from_name.items()}
        | ({"step": "path"} if counts["steps_of_path"] else {}),
        "sources": list(sources),
        "models": [r for r in raw_sources if r],
        "rows": rows,
        "rows_used": rows - len(rejected),
        "rows_rejected": len(rejected),
        "traces": sum(sources.values()),
        "shape": plan.dialect.shape,
        "counts": dict(+counts),
        "unused": unused.account(left),
    }
    if rows > len(rejected) and not sources:  # further filters of responses whose own rows were rejected
        raise DumpError(
            f"{first_bad or file.name}; no trace is left: the {rows - len(rejected)} rows that can be used repeat "
            "responses of rows that were rejected; repair those"
        )
    accounts.book(ledger, account, rejected, first_bad, max_bad)


def _source(values: dict[str, Any], plan: Plan, owners: dict[str, tuple[str, str]]) -> str:
    raw = values.get("source") or values.get("model")
    if plan.file.label is not None:
        return plan.file.label
    if plan.clash and not raw:
        raise DumpError(plan.clash)
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


def _require(drafts: list[dict[str, Any]], plan: Plan) -> None:
    """Raise Fault where a row lacks what its dialect requires of every row."""
    for name in plan.dialect.requires:
        if any(d.get(name) is None for d in drafts) and not (name == "source" and plan.file.label):
            raise Fault(f"no {name}", f"{name} is null; rows of the {plan.format} format name their {name}")


def _fields_of_name(plan: Plan) -> dict[str, Any]:
    """Fields that the dialect reads from the file's name and its folder's."""
    path = plan.file.path
    if path is None:
        return {}
    out: dict[str, Any] = {}
    folder = f"{path.absolute().parent.as_posix()}/"
    for pattern, text in ((plan.dialect.name, stem_of(path)), (plan.dialect.folder, folder)):
        found = re.search(pattern, text) if pattern else None
        out |= {k: v for k, v in (found.groupdict() if found else {}).items() if v is not None}
    if plan.format == "qwen-math" and "seed" in out and path.absolute().parent.name:
        out["group"] = path.absolute().parent.name
    kinds = {"temperature": float, "top_p": float, "seed": int, "max_tokens": int}
    return {k: kinds.get(k, str)(v) for k, v in out.items()}


def _problem(values: dict[str, Any]) -> str:
    """The id of a problem: given as `problem`; else the hash of the question, of the prompt, with what is shown beside
    it; else the dump's own id."""
    if "problem" in values:
        return values["problem"]
    asked, prompt = values.get("question"), values.get("prompt")
    if asked is None and isinstance(prompt, str) and prompt.strip():
        asked = prompt
    elif asked is None and isinstance(prompt, list):
        users = [m["content"] for m in prompt if m["role"] == "user"]
        asked = users[-1] if users else prompt[-1]["content"]
    if asked is not None:
        return hashed("\n".join((asked, *values["images"])) if "images" in values else asked)
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
    if "meta" in values:
        extra = {**(extra or {}), **values["meta"]}
    meta = {**extra, "row": row} if extra else {"row": row}
    if not NO_FIELDS.isdisjoint(values):
        for k in META_FIELDS:
            if k in values:
                meta[k] = values.pop(k)
        if "id" in values and (own := values.pop("id")) != problem:
            meta["id"] = own
        values.pop("model", None)
    # A frozen dataclass sets its fields one by one through object.__setattr__, which took a sixth of the reading.
    trace = object.__new__(Trace)
    fields = DEFAULTS | values
    fields["source"], fields["problem"], fields["sample"] = source, problem, sample
    fields["meta"], fields["origin"] = meta, origin
    object.__setattr__(trace, "__dict__", fields)
    return trace


def _extras(record: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Small unmapped values of a row of no known dialect, the first of them: they may matter later, and cost little."""
    small: dict[str, Any] = {}
    for k in keys:
        value = record[k]
        kind = type(value)
        if kind is str:
            fits = len(value) <= EXTRA_LIMIT and value.isprintable()
        else:
            fits = kind is bool or (kind is int and -(2**63) < value < 2**63) or (kind is float and abs(value) < 1e300)
        if fits:
            small[k] = value
            if len(small) == EXTRAS:
                break
    return small
