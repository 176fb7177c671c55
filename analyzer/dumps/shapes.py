"""The five shapes of dumps: a row per sample, a list per problem, a dict by id, nested, wide.

`nested` and `dict_by_id` walk a document into records; `reader` makes the function that takes one record apart into
drafts, one per sample (row, list, wide). A draft maps canonical fields to raw values; a field that a record lacks is
absent from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from analyzer.dumps.paths import MISSING, Fault, get, has, show, split_each

# what a record says once says nothing of each of its responses, where there are several
ONE_EACH = frozenset(("correct", "score", "answer", "finish", "truncated", "reasoning"))
Fields = dict[str, tuple[str, ...]]  # canonical field -> paths, the first that is there counts


def nested(document: dict[str, Any], rows: str) -> Iterator[tuple[int, Any]]:
    """Records at `rows` ("a[].b{}.c[]": the elements of a list, the values of an object), each with the objects around
    it as "@0" (the document), "@1", ...; a part that is not as the path says is a Fault in place of its records."""
    levels = [(part.strip("."), mark) for part, mark in re.findall(r"([^\[{]*)(\[\]|\{\})", rows)]

    def walk(node: Any, depth: int, around: dict[str, Any]) -> Iterator[Any]:
        path, mark = levels[depth]
        values = get(node, path) if path else node
        if isinstance(values, dict) and mark == "{}":
            values = list(values.values())
        elif not isinstance(values, list) or mark == "{}":
            found = "nothing" if values is MISSING else type(values).__name__
            kind = "a list" if mark == "[]" else "an object"
            yield Fault("broken nesting", f"expected {kind} at {path!r} of {rows!r}, found {found}")
            return
        around = {**around, f"@{depth}": node}
        for value in values:
            if depth + 1 < len(levels):
                yield from walk(value, depth + 1, around)
            else:
                yield {**value, **around} if isinstance(value, dict) else value

    yield from enumerate(walk(document, 0, {}), 1)


def dict_by_id(document: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Records that are the values of one object; the key is kept as "@id"."""
    for count, (key, value) in enumerate(document.items(), 1):
        yield count, {**value, "@id": key} if isinstance(value, dict) else value


def pick(record: Any, paths: tuple[str, ...]) -> Any:
    """The value at the first of the paths that is there (and not null, where a later one has a value), or MISSING."""
    found = MISSING
    for path in paths:
        value = get(record, path)
        if value is not MISSING and value is not None:
            return value
        if found is MISSING:
            found = value
    return found


def row_per_sample(fields: Fields) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """A reader of records that are one sample each."""
    plain = [(name, paths[0]) for name, paths in fields.items() if len(paths) == 1 and "." not in paths[0]]
    others = [(name, paths) for name, paths in fields.items() if len(paths) > 1 or "." in paths[0]]

    def read(record: dict[str, Any]) -> list[dict[str, Any]]:
        draft = {name: record[path] for name, path in plain if path in record}
        for name, paths in others:
            value = pick(record, paths)
            if value is not MISSING:
                draft[name] = value
        return [draft]

    return read


def _spread(common: dict[str, Any], count: int, for_all: frozenset[str]) -> dict[str, Any]:
    """What a record says of all of its `count` responses, without what may be true of one of them only: the names of
    that are kept as "shared"."""
    if count > 1:
        shared = [n for n in common if n in ONE_EACH and n not in for_all]
        shared = [n for n in shared if common[n] is not None and not isinstance(common[n], (list, dict))]
        if shared:
            return {n: v for n, v in common.items() if n not in shared} | {"shared": shared}
    return common


def list_per_problem(
    record: dict[str, Any], fields: Fields, for_all: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """One record, n drafts: the paths with `[]` are taken apart together; lists of unequal length are a Fault, never
    padded. for_all: fields that a record says once for each of its responses."""
    common, lists = {}, {}
    for name, paths in fields.items():
        for path in paths:
            parts = split_each(path)
            if parts is None:
                value = get(record, path)
                if value is not MISSING and (value is not None or path == paths[-1]):
                    common[name] = value
                    break
                continue
            values = get(record, parts[0])
            if values is MISSING or values is None:
                continue
            if not isinstance(values, list):
                raise Fault("not a list", f"{parts[0]} = {show(values)}; expected a list with one entry per sample")
            lists[name] = [v if not parts[1] else (get(v, parts[1]) if isinstance(v, dict) else Fault) for v in values]
            if Fault in lists[name]:
                raise Fault(
                    "not an object",
                    f"an entry of {parts[0]} is {show(values[lists[name].index(Fault)])}; expected an object with "
                    f"{parts[1]!r}",
                )
            break
    if "response" not in lists:
        raise Fault("no response", f"{fields['response'][0]} is missing or null; expected a list of texts")
    count = len(lists["response"])
    if count == 0:
        raise Fault("no samples", "the list of responses is empty")
    for name, values in lists.items():
        if len(values) != count:
            raise Fault(
                "ragged lists",
                f"{count} responses but {len(values)} values of {name}; every list needs one entry per sample",
            )
    common = _spread(common, count, for_all)
    return [{**common, **{n: v[i] for n, v in lists.items() if v[i] is not MISSING}} for i in range(count)]


def wide(record: dict[str, Any], fields: Fields, for_all: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """One record, one draft per model: `*.x` is read inside each object that holds a response; its key names the
    source."""
    inner = fields["response"][0].removeprefix("*.")
    models = [k for k, v in record.items() if isinstance(v, dict) and k[:1] != "@" and has(v, inner)]
    if not models:
        raise Fault("no response", f"no object of this row holds {inner!r}")
    out = []
    starred = {n: tuple(p[2:] for p in paths) for n, paths in fields.items() if paths[0].startswith("*.")}
    common = {n: v for n, paths in fields.items() if n not in starred and (v := pick(record, paths)) is not MISSING}
    common = _spread(common, len(models), for_all)
    for model in models:
        draft = {n: v for n, paths in starred.items() if (v := pick(record[model], paths)) is not MISSING}
        out.append({**common, **draft, "source": model})
    return out


def reader(fields: Fields, for_all: frozenset[str] = frozenset()) -> Callable[[Any], list[dict[str, Any]]]:
    """A function from a record to its drafts; which shape applies is written in the path of the response. It raises
    Fault. for_all: as for `list_per_problem`."""
    path = fields["response"][0]
    if path.startswith("*."):
        read = partial(wide, fields=fields, for_all=for_all)
    elif "[]" in path:
        read = partial(list_per_problem, fields=fields, for_all=for_all)
    else:
        read = row_per_sample(fields)

    def drafts(record: Any) -> list[dict[str, Any]]:
        if isinstance(record, dict):
            return read(record)
        if isinstance(record, Fault):
            raise record
        raise Fault("not an object", f"the row is {show(record)}; expected a JSON object")

    return drafts
