"""What a file is: the dialect that fits it, or fields found by their names, or `--map`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from analyzer.dumps import automatic, beside, files, hints, outcomes, shapes, written
from analyzer.dumps.dialects import chats, rollouts, suites
from analyzer.dumps.dialects import table as dialects
from analyzer.dumps.dialects.dialect import BY_RECORD, Dialect
from analyzer.dumps.fields import CANONICAL, clean
from analyzer.dumps.names import RESPONSE, SYNONYMS
from analyzer.dumps.paths import Fault, get, has, known_paths, show
from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records.display import counted

OF_ROW = "@row."  # before a path of --map: the value holds for each response of the row
PSEUDO = ("rows", "format")  # names that --map takes besides the canonical fields
PROBLEM = {"problem", "question", "prompt", "id", "prompt_ids"}  # of which a row needs one

Raw = Callable[[], Iterator[tuple[int, Any]]]  # walks the records of a file, as often as it is called


@dataclass
class Plan:
    """A file with the decision how to read it. `walk()` yields its records again, ready for the reader of its shape."""

    file: files.Opened
    format: str
    dialect: Dialect
    fields: shapes.Fields
    raw: Raw
    derived: str = ""  # what its source is called where neither the user nor a row says so, see `labels`
    clash: str = ""  # why it can't be called so
    checkpoint: str = ""  # what its path calls it, and its step where files of several could be one source
    step: int | None = None
    part: Any = None  # labels.Part, of a dump in several files
    survey: Any = None
    notes: list[str] = field(default_factory=list)
    reads: tuple[str, ...] = ()  # paths that code reads, besides those of the fields
    for_all: frozenset[str] = frozenset()  # fields that a row says once for each of its responses
    join: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def walk(self) -> Iterator[tuple[int, Any]]:
        if self.join is None and self.dialect.prepare is None:
            yield from self.raw()
            return
        for line, record in self.raw():
            yield line, self.prepared(record)

    def prepared(self, record: Any) -> Any:
        """A record with what it is joined with and what its dialect's code adds, or the Fault that this meets."""
        if isinstance(record, dict):
            try:
                record = self.join(record) if self.join else record
                prepare = self.dialect.prepare
                return prepare(record, self.survey) if prepare else record
            except Fault as fault:
                return fault
            except RecursionError:
                return Fault("nested too deeply")
        return record


def checked_map(field_map: Mapping[str, str]) -> dict[str, str]:
    for name, path in field_map.items():
        if name not in CANONICAL and name not in PSEUDO and not (name.startswith("meta.") and len(name) > 5):
            raise UsageError(
                f"--map {name}={path}: {name!r} is no canonical field{nearest(name, [*CANONICAL, *PSEUDO])}"
            )
        if not isinstance(path, str) or not path:
            raise UsageError(f"--map {name}={path}: expected a path in the row, for example {name}=output.text")
    if field_map.get("format", "canonical") not in dialects.DIALECTS:
        raise UsageError(
            f"--map format={field_map['format']}: no such format{nearest(field_map['format'], dialects.DIALECTS)}"
        )
    return dict(field_map)


def plan_file(file: files.Opened, field_map: dict[str, str]) -> Plan:
    """Decide how a file is read. Raises DumpError where that can't be told, with the `--map` that would read it (tried
    on its first records), and UsageError where `--map` does not fit."""
    head = file.head
    try:
        return _decide(file, field_map)
    except automatic.UnnamedError as error:
        records = [r for _, r in head]
        hint = hints.propose(records, file.document, lambda given: _fault(file, head, field_map | given))
        after = error.after if hint.endswith("response=FIELD") else ""
        raise automatic.UnnamedError(error.before, after, hint) from None
    except automatic.ChoiceError as error:
        good = [i for i, option in enumerate(error.options) if not _fault(file, head, field_map | dict([option]))]
        raise automatic.ChoiceError(error.before, error.options, good[0] if good else 0) from None


def _fault(file: files.Opened, head: list[tuple[int, Any]], field_map: dict[str, str]) -> str:
    """Why one of the first records can't be used by a map, "" where all can: a trial of what a message proposes."""
    try:
        plan = _decide(replace(file, head=head, records=lambda: iter(head)), field_map)
        read, count = shapes.reader(plan.fields, plan.for_all), 0
        for _, record in islice(plan.walk(), files.HEAD):
            for values in (clean(draft, 1.0) for draft in read(record)):
                count += 1
                if hints.structured(values["response"]):
                    return "JSON, not what a model said"
                if not PROBLEM & values.keys():
                    return "no problem"
    except Fault as fault:
        return fault.reason
    except (DumpError, UsageError, RecursionError) as error:
        return str(error)
    return "" if count else "no samples"


def _decide(file: files.Opened, field_map: dict[str, str]) -> Plan:
    for_all = frozenset(k for k, v in field_map.items() if v.startswith(OF_ROW))
    field_map = {k: v.removeprefix(OF_ROW) for k, v in field_map.items()}
    given: shapes.Fields = {k: (v,) for k, v in field_map.items() if k not in PSEUDO}
    plan = _decided(file, field_map, given)
    plan.for_all = for_all
    return plan


def _decided(file: files.Opened, field_map: dict[str, str], given: shapes.Fields) -> Plan:
    raw, found = file.records, []
    document = file.document
    if "format" in field_map:
        found = [field_map["format"]]
        dialect = dialects.DIALECTS[found[0]]
        if document is not None and dialect.shape in BY_RECORD and not dialect.fits(document):
            raw = _loose_document(file)
    elif "rows" in field_map:
        raw = _rows_at(file, field_map["rows"])
    elif document is not None:
        found = dialects.sniff_document(document)
        if not found and not dialects.sniff_records([document]):
            raw = _loose_document(file)
    elif file.kind == "eval":
        found = ["inspect"]
    elif file.kind == "json" and all(isinstance(r, list) for _, r in file.head):
        raw = lambda: suites.by_place(file)  # noqa: E731
    head = file.head if raw is file.records else files.first(raw())
    file.head = []  # nobody asks again, and there may be many files, or huge rows
    if not found:
        found = dialects.sniff_records([r for _, r in head])
    notes: list[str] = []
    if not found or dialects.DIALECTS[found[0]].shape in BY_RECORD:
        raw, head, notes = _unfolded(file, raw, head, given, found)
        found = [field_map["format"]] if "format" in field_map else dialects.sniff_records([r for _, r in head])
    if len(found) > 1:
        raise automatic.ChoiceError(
            f"{file.name}: looks like {' and like '.join(found)} ({automatic.keys_of([r for _, r in head])}); say "
            "which",
            [("format", name) for name in found],
        )
    if found:
        plan = _known(file, found[0], raw, given, head)
        plan.notes = notes + plan.notes + beside.masks([r for _, r in head], plan.fields, plan.reads)
        return plan
    if not head:
        raise DumpError(
            f"{file.name}: no rows in it; the run that wrote it produced nothing: leave it out or write it again"
        )
    if not any(isinstance(r, dict) for _, r in head):
        line, first = head[0]
        why = first.detail if isinstance(first, Fault) else f"the row is {show(first)}, not a JSON object"
        rows = counted(len(head), "row") if len(head) < files.HEAD else f"the first {files.HEAD} rows"
        raise DumpError(f"{file.at(line)}: {why}; none of {rows} can be used: expected one JSON object per row")
    try:
        fields = {**automatic.mapping(file.name, [r for _, r in head], field_map), **given}
    except automatic.NoResponseError:
        labels = outcomes.found([r for _, r in head], field_map.get("correct"))
        if labels is None:
            raise
        return _counted(file, labels, given, [r for _, r in head], raw)
    plan = _generic(file, fields, given, [r for _, r in head], raw)
    plan.notes = notes + plan.notes + beside.masks([r for _, r in head], plan.fields, plan.reads)
    return plan


def _unfolded(
    file: files.Opened, raw: Raw, head: list[tuple[int, Any]], given: shapes.Fields, found: list[str]
) -> tuple[Raw, list[tuple[int, Any]], list[str]]:
    """The records again, their first ones, and notes: tables of columns turned into rows, JSON text of lists and
    messages read."""
    notes = []
    if file.kind == "table":
        cells, columns = raw, written.numeric(given)
        raw = lambda: ((line, written.numbered(r, columns)) for line, r in cells())  # noqa: E731
        head = [(line, written.numbered(r, columns)) for line, r in head]
    rows = [r for _, r in head if isinstance(r, dict)]
    lists = any("[]" in p for paths in given.values() for p in paths)
    known = found and dialects.DIALECTS[found[0]].shape != "row"
    if rows and not known and not lists and all(automatic.turned(r) for r in rows):
        tables = raw
        raw = lambda: _turned(tables, file.kind != "jsonl")  # noqa: E731
        head = files.first(raw())
        rows = [r for _, r in head]
        notes.append("its columns are lists, of which the first belong together, the second, and so on.")
    read = dialects.DIALECTS[found[0]].reads if found else ()
    if kinds := written.columns(rows, given, read):
        texts = raw
        raw = lambda: ((line, written.decoded(r, kinds)) for line, r in texts())  # noqa: E731
        head = [(line, written.decoded(r, kinds)) for line, r in head]
        notes.append(f"text of JSON was read as what it holds: {', '.join(f'{k} ({v})' for k, v in kinds.items())}.")
    if held := [k for k in written.pythons(rows) if k not in kinds]:
        notes.append(
            f"{' and '.join(held)} hold{'s' * (len(held) == 1)} Python's text of messages (str or repr of a list), "
            "which is no JSON: it was left as it is, quotes and all. Write them with json.dumps, or as a list."
        )
    return raw, head, notes


def _turned(tables: Raw, alone: bool) -> Iterator[tuple[int, Any]]:
    """The rows of tables of columns; alone: one table is the file, and its rows are numbered."""
    for line, record in tables():
        rows = automatic.turned(record)
        if rows is None:
            yield line, record if not isinstance(record, dict) else Fault("no table", "expected columns of one length")
            continue
        for i, row in enumerate(rows, 1):
            yield i if alone else line, row


def _counted(
    file: files.Opened, labels: tuple[str, str] | str, given: shapes.Fields, head: list[Any], raw: Raw
) -> Plan:
    """The plan of a file of labels without texts."""
    used = {labels} if isinstance(labels, str) else {*labels}
    rest = [{k: v for k, v in r.items() if k not in used} for r in head if isinstance(r, dict)]
    fixed = {n: (p,) for n, p in outcomes.FIELDS.items()}
    own = {n: p[0] for n, p in given.items()} | outcomes.FIELDS
    fields = {**automatic.mapping(file.name, rest, own), **given, **fixed}
    fields.pop("score", None)
    dialect = Dialect(shape="list", prepare=lambda record, _: outcomes.prepared(record, labels))
    plan = Plan(file, "labels", dialect, fields, raw, reads=(*used, *outcomes.MANY, *outcomes.RIGHT))
    plan.notes = beside.doubtful(rest, fields, {**given, **fixed}) + [outcomes.NOTE]
    return plan


def _generic(file: files.Opened, fields: shapes.Fields, given: shapes.Fields, head: list[Any], raw: Raw) -> Plan:
    """The plan of a file whose fields were found by their names: a response that is a conversation is unfolded; a note
    where nothing was taken as the label though something could be one."""
    notes = beside.doubtful(head, fields, given) + rollouts.find(fields, head, given)
    path = fields["response"][0]
    shape = "wide" if path.startswith("*.") else "list" if "[]" in path else "row"
    plan = Plan(file, f"generic-{shape}", Dialect(shape=shape, keep=True), fields, raw, notes=notes)
    asked = fields.get("prompt", ("",))[0]
    said = [v for r in head if isinstance(r, dict) and isinstance(v := r.get(path), list) and chats.messages(v)]
    if shape == "row" and any(len(v) > 1 for v in said):
        plan.reads = (asked, path)
        prepare = lambda record, _: chats.turns(record, record.get(asked), record.get(path))  # noqa: E731
        plan.dialect = replace(plan.dialect, prepare=prepare)
        plan.fields = {
            **fields,
            **{n: (f"@{n}",) for n in ("response", "reasoning", "prompt")},
            "meta.turns": ("@turns",),
        }
        plan.fields.setdefault("question", ("@question",))
        plan.notes.append(chats.TURNS)
    rows = [r for r in head if isinstance(r, dict)]
    if shape == "row" and plan.dialect.prepare is None and any(_echoed(r, asked, path) for r in rows):
        plan.reads = (asked,)
        prepare = lambda record, _: {**record, "@prompt": _before(record, asked, path)}  # noqa: E731
        plan.dialect, plan.fields = replace(plan.dialect, prepare=prepare), {**fields, "prompt": ("@prompt",)}
        plan.notes.append(f"{asked} ends with the response: the prompt is what stands before it.")
    if "response" not in given and path.split("[]")[0] in ("solution", "solutions"):
        plan.notes.append(
            f"{path} was taken for what the model wrote, since no other field looks like it: where it is the reference "
            "answer, these rows hold no response."
        )
    found = automatic.labels(head)
    if found and not {"correct", "score"} & fields.keys():
        plan.notes.append(
            f"no field was taken as the label; true or false are in {', '.join(found[:6])}: where one says whether a "
            f"response is correct, --map correct={found[0]}."
        )
    return plan


def _echoed(record: dict[str, Any], asked: str, response: str) -> bool:
    """Whether the messages of a row end with its response."""
    held = chats.messages(record.get(asked)) if isinstance(record.get(asked), list) else None
    return bool(held) and held[-1]["role"] == "assistant" and held[-1]["content"] == record.get(response)


def _before(record: dict[str, Any], asked: str, response: str) -> Any:
    return record[asked][:-1] if _echoed(record, asked, response) else record.get(asked)


def _known(file: files.Opened, name: str, raw: Raw, given: shapes.Fields, head: list[tuple[int, Any]]) -> Plan:
    dialect = dialects.DIALECTS[name]
    document = file.document or {}
    lacks = [p for p in dialect.document_needs if not has(document, p)]
    if file.kind != "eval" and (lacks or (dialect.shape in ("nested", "dict") and not document)):
        held = f"it has no {', '.join(lacks)}" if document else "it is no JSON document that is one object"
        raise UsageError(f"--map format={name}: {file.name} is not of this format ({held}); leave it out")
    if dialect.shape == "nested" and file.kind != "eval":
        rows = dialect.rows
        raw = lambda: rows(document) if callable(rows) else shapes.nested(document, rows)  # noqa: E731
    elif dialect.shape == "dict":
        raw = lambda: shapes.dict_by_id(document)  # noqa: E731
    plan = Plan(file, name, dialect, {**dialect.paths, **given}, raw)
    head = [r for _, r in (files.first(raw()) if dialect.shape in ("nested", "dict") else head)]
    if not head and dialect.shape == "nested":
        raise automatic.RefusedError(
            f"{file.name}: no rows in it; the run that wrote it produced nothing: leave it out or write it again"
        )
    if dialect.refuse and (why := dialect.refuse(head)):
        raise automatic.RefusedError(f"{file.name}: {why}")
    told = plan.survey = dialect.survey(raw()) if dialect.survey else {}
    plan.notes += [told["note"]] if told.get("note") else []
    plan.reads = (*dialect.reads, *dialect.join.values(), *told.get("reads", ()))
    plan.notes += [] if {"correct", "score"} & given.keys() else told.get("unlabelled", [])
    if dialect.adapt:
        plan.fields, note = dialect.adapt(head, plan.fields)
        plan.notes += [note] if note else []
    plan.notes += [dialect.note] if dialect.note else []
    plan.notes += rollouts.find(plan.fields, head, given) if dialect.shape == "row" else []
    if dialect.shape != "side":
        known = {p.split(".")[0] for p in plan.reads}
        plan.notes += beside.fill(plan.fields, [plan.prepared(r) for r in head], known, given)
    return plan


def _rows_at(file: files.Opened, rows: str) -> Raw:
    document = file.document
    head = re.match(r"([^\[{]*)(\[\]|\{\})", rows)
    kind = list if head and head[2] == "[]" else dict
    if document is None or not head or not isinstance(get(document, head[1]), kind):
        options = [p for p in known_paths(document or {}) if p.endswith("[]")]
        raise UsageError(
            f"--map rows={rows}: {file.name} has no list there; "
            + (
                f"it has {', '.join(options[:8])}"
                if options
                else "it is no JSON document with lists inside, leave `rows` out"
            )
        )
    return lambda: shapes.nested(document, rows)


def _loose_document(file: files.Opened) -> Raw:
    """Records of a JSON object of no known dialect: the object itself if it is one row, its values (dict by id), or the
    one list of objects in it."""
    document = file.document or {}
    lists = [k for k, v in document.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:50])]
    values = list(document.values())
    inside = document[lists[0]] if len(lists) == 1 else []
    asked = {k for f in ("question", "prompt") for k in SYNONYMS[f]}
    own = inside and any(k in inside[0] for k in asked) and not any(k in document for k in asked)
    if automatic.turned(document):
        return file.records
    if inside and (own or dialects.sniff_records(inside) or not any(k in document for k in RESPONSE)):
        return lambda: shapes.nested(document, f"{lists[0]}[]")
    if (
        values
        and all(isinstance(v, dict) for v in values)
        and len({frozenset(v) for v in values}) <= max(1, len(values) // 2)
    ):
        return lambda: shapes.dict_by_id(document)
    return file.records


def refuse_unused_map(field_map: dict[str, str], plans: list[Plan]) -> None:
    """Raise UsageError for a path of `--map` that no row of any file has."""
    plans = [p for p in plans if p.dialect.shape != "side"]
    for name, path in field_map.items():
        if name in PSEUDO or any(
            has(r, path.removeprefix(OF_ROW)) for plan in plans for _, r in plan.walk() if isinstance(r, dict)
        ):
            continue
        known = {p for plan in plans for (_, r), _ in zip(plan.walk(), range(50)) for p in known_paths(r)}
        raise UsageError(
            f"--map {name}={path}: no row of {plans[0].file.name}{' or the others' if len(plans) > 1 else ''} "
            f"has {path!r}{nearest(path, known)}"
        )
