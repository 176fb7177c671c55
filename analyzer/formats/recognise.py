"""What a file is: the dialect that fits it, or fields found by their names, or `--map`; and what its source is called
where neither the user nor a row says so."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.formats import automatic, dialects, files, shapes
from analyzer.formats.fields import CANONICAL
from analyzer.formats.paths import Fault, has, known_paths, show


@dataclass
class Plan:
    """A file with the decision how to read it."""

    file: files.Opened
    format: str
    dialect: dict[str, Any]
    fields: shapes.Fields
    records: list[tuple[int, Any]]
    derived: str = ""


def checked_map(field_map: dict[str, str]) -> dict[str, str]:
    for name, path in field_map.items():
        if name not in CANONICAL and name != "rows" and not (name.startswith("meta.") and len(name) > 5):
            raise UsageError(
                f"--map {name}={path}: {name!r} is no canonical field{nearest(name, [*CANONICAL, 'rows'])}"
            )
        if not isinstance(path, str) or not path:
            raise UsageError(f"--map {name}={path}: expected a path in the row, for example {name}=output.text")
    return dict(field_map)


def plan_file(file: files.Opened, field_map: dict[str, str]) -> Plan:
    given: shapes.Fields = {k: (v,) for k, v in field_map.items() if k != "rows"}
    records, found = file.records, []
    if "rows" in field_map:
        if (
            file.document is None
            or "[]" not in field_map["rows"]
            or not has(file.document, field_map["rows"].split("[]")[0] + "[]")
        ):
            options = [p for p in known_paths(file.document or {}) if p.endswith("[]")]
            raise UsageError(
                f"--map rows={field_map['rows']}: {file.name} has no list there; "
                + (
                    f"it has {', '.join(options[:8])}"
                    if options
                    else "it is no JSON document with lists inside, leave `rows` out"
                )
            )
        records = list(shapes.nested(file.document, field_map["rows"]))
    elif file.document is not None:
        found = dialects.sniff_document(file.document)
        if not found and not dialects.sniff_records([file.document]):
            records = _loose_document(file, given)
    if not found:
        found = dialects.sniff_records([r for _, r in records])
    if len(found) > 1:
        raise DumpError(
            f"{file.name}: looks like {' and like '.join(found)}; say which fields to read: --map response=FIELD "
            "--map question=FIELD"
        )
    if found:
        dialect = dialects.DIALECTS[found[0]]
        if dialect["shape"] == "nested":
            records = list(shapes.nested(file.document or {}, dialect["rows"]))
        elif dialect["shape"] == "dict":
            records = list(shapes.dict_by_id(file.document or {}))
        if why := dialect.get("refuse", lambda _: None)([r for _, r in records]):
            raise DumpError(f"{file.name}: {why}")
        if "prepare" in dialect:
            records = [(n, dialect["prepare"](r) if isinstance(r, dict) else r) for n, r in records]
        return Plan(file, found[0], dialect, {**dialects.paths(dialect), **given}, records)
    if not records:
        raise DumpError(
            f"{file.name}: no rows in it; the run that wrote it produced nothing: leave it out or write it again"
        )
    if not any(isinstance(r, dict) for _, r in records):
        first = records[0][1]
        why = first.detail if isinstance(first, Fault) else f"the row is {show(first)}, not a JSON object"
        raise DumpError(
            f"{file.at(records[0][0])}: {why}; none of {len(records)} rows can be used: expected one JSON object "
            "per row"
        )
    if "inspect_ai" in str(_packages(file.document)):
        raise DumpError(
            f"{file.name}: Inspect logs are not read by this version; write one row per sample from it (question, "
            "response, correct)"
        )
    fields = {**automatic.mapping(file.name, [r for _, r in records], field_map), **given}
    shape = "wide" if fields["response"][0].startswith("*.") else "list" if "[]" in fields["response"][0] else "row"
    return Plan(file, f"generic-{shape}", {"shape": shape, "keep": True}, fields, records)


def _packages(document: dict[str, Any] | None) -> Any:
    part = (document or {}).get("eval")
    return part.get("packages") if isinstance(part, dict) else None


def _loose_document(file: files.Opened, given: shapes.Fields) -> list[tuple[int, Any]]:
    """Records of a JSON object of no known dialect: the object itself if it is one row, its values (dict by id), or the
    one list of objects in it."""
    document = file.document or {}
    if "inspect_ai" in str(_packages(document)):
        return file.records
    lists = [k for k, v in document.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:50])]
    values = list(document.values())
    if len(lists) == 1 and not any(k in document for k in automatic.RESPONSE):
        return list(shapes.nested(document, f"{lists[0]}[]"))
    if (
        values
        and all(isinstance(v, dict) for v in values)
        and len({frozenset(v) for v in values}) <= max(1, len(values) // 2)
    ):
        return list(shapes.dict_by_id(document))
    return file.records


def refuse_unused_map(field_map: dict[str, str], plans: list[Plan]) -> None:
    for name, path in field_map.items():
        if name != "rows" and not any(has(r, path) for plan in plans for _, r in plan.records if isinstance(r, dict)):
            known = {p for plan in plans for _, r in plan.records[:50] for p in known_paths(r)}
            raise UsageError(
                f"--map {name}={path}: no row of {plans[0].file.name}{' or the others' if len(plans) > 1 else ''} "
                f"has {path!r}{nearest(path, known)}"
            )


def stem_of(path: PurePath) -> str:
    return re.sub(r"\.(jsonl|ndjson|json)$", "", path.name.removesuffix(".gz").removesuffix(".zst"), flags=re.I)


def derive_labels(plans: list[Plan]) -> None:
    """Name each file's source from its path: the stem, or the folder; two folders of one name are an error."""

    def absolute(plan: Plan) -> Path | None:
        return None if plan.file.path is None else plan.file.path.absolute()

    stems = Counter(stem_of(p) for plan in plans if plan.file.label is None and (p := absolute(plan)))
    homes: dict[str, Path] = {}
    for plan in plans:
        path = absolute(plan)
        if path is None:
            plan.derived = "stdin"
            continue
        stem, rule = stem_of(path), plan.dialect.get("label", "stem")
        if rule == "grandparent" and not re.search(plan.dialect.get("name", "$^"), stem):
            rule = "stem"
        if rule == "stem" and (stem.isdecimal() or stems[stem] > 1):
            rule = "parent"
        if rule == "stem" or not path.parent.name:
            plan.derived = label_of(stem)
            continue
        folder = path.parent if rule == "parent" else path.parent.parent
        if folder.name == "math_eval":
            folder = folder.parent
        plan.derived = label_of(folder.name or stem)
        if plan.file.label is None and homes.setdefault(plan.derived, folder) != folder:
            raise DumpError(
                f"{plan.file.name}: its source would be called {plan.derived!r} after its folder, as that of "
                "another folder; "
                f"name the sources: A={plan.file.name}"
            )


def label_of(name: str) -> str:
    """A source label from a model or file name: the last part of a path, other characters than letters, digits, . +
    - _ as -."""
    return re.sub(r"[^\w.+-]+", "-", name.rstrip("/").rsplit("/", 1)[-1]).strip("-") or "unnamed"
