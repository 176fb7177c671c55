"""Fields found by their names, for files of no known dialect.

Only names decide, never the values' meaning: the table in `names` is the whole rule. Two fields that could both be the
response, or both the label, are an error that shows the `--map` to choose with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from analyzer.dumps import media
from analyzer.dumps.names import (
    ASKED,
    ONCE,
    ONE_ONLY,
    PER_SAMPLE,
    RESPONSE,
    RESPONSE_WEAK,
    SAID,
    SAMPLING,
    SYNONYMS,
    TEXT_ONLY,
    TOKENS,
)
from analyzer.dumps.paths import MISSING, get, show
from analyzer.dumps.shapes import Fields
from analyzer.dumps.texts import NO_TEXT, prose, sounds, texts_in
from analyzer.errors import DumpError


class NoResponseError(DumpError):
    """A file in which nothing looks like a response."""


class UnnamedError(NoResponseError):
    """The same, where `--map` could name it: the message is `before`, what is to be given, `after`."""

    def __init__(self, before: str, after: str = "", hint: str = "--map response=FIELD") -> None:
        super().__init__(f"{before}{hint}{after}")
        self.before, self.after = before, after


class ChoiceError(DumpError):
    """Several fields or formats that could be meant: `options` are what `--map` takes of them, the likeliest first."""

    def __init__(self, before: str, options: list[tuple[str, str]], chosen: int = 0) -> None:
        super().__init__(f"{before}: --map {'='.join(options[chosen])}")
        self.before, self.options = before, options


class RefusedError(NoResponseError):
    """A file of a known kind that holds no sampled responses."""


def first_values(records: list[Any], count: int = 50) -> dict[str, Any]:
    """The first value that is not null of every key in the first records, in order of appearance."""
    out: dict[str, Any] = {}
    for record in records[:count]:
        if isinstance(record, dict):
            for key, value in record.items():
                if not key.startswith("@") and (key not in out or out[key] is None):
                    out[key] = value
    return out


def _marks(records: list[Any]) -> str:
    """What to do with a file of labels alone: a list of 0 and 1 of every problem, or one label a row; "" for any
    other."""
    values = first_values(records)
    flags = [f"{k}[]" for k, v in values.items() if isinstance(v, list) and _bits(v)] or labels(records)
    if not flags:
        return ""
    by_key = isinstance(records[0], dict) and "@id" in records[0]
    asked = by_key or any(k in values for k in ASKED if k not in ("source", "model"))
    rest = "" if asked else " --map problem=FIELD"
    if flags[0].endswith("[]"):
        return f"; {flags[0][:-2]!r} holds labels without texts: for pass@k --map correct={flags[0]}{rest}"
    return f"; for pass@k alone, where {flags[0]!r} says whether a response was correct: --map correct={flags[0]}{rest}"


def turned(record: Any) -> list[dict[str, Any]] | None:
    """The rows of a record that is a table of columns, as lists of one length or (pandas) as objects of the same keys;
    None for any other. One column is the responses, another tells their problems: the samples of one problem are no
    table. A label that the table has once is no row's: it goes by another name."""
    if not isinstance(record, dict):
        return None
    held = {k: v for k, v in record.items() if isinstance(v, list)}
    if not held and len(record) > 1 and all(isinstance(v, dict) and v for v in record.values()):
        first = list(next(iter(record.values())))
        if all(list(v) == first for v in record.values()):
            held = {k: list(v.values()) for k, v in record.items()}
    lengths = {len(v) for v in held.values()}
    if len(lengths) != 1 or 0 in lengths:
        return None
    said = [k for k in held if k in SAID and not _talk(held[k])]
    said += [k for k in held if k in SYNONYMS["response_ids"] and all(isinstance(v, list) for v in held[k])]
    asked = [k for k in held if k in ASKED and k not in said and not _talk(held[k])]
    asked += [k for k in held if k in SYNONYMS["prompt_ids"] and all(isinstance(v, list) for v in held[k])]
    if not said or not asked:
        return None
    common = {f"{k} of all" if k in ONCE else k: v for k, v in record.items() if k not in held}
    return [{**common, **{k: v[i] for k, v in held.items()}} for i in range(lengths.pop())]


def _talk(value: list[Any]) -> bool:
    """Whether a list is one conversation, or a text in parts."""
    return all(isinstance(v, dict) and ("role" in v or "from" in v or "type" in v) for v in value)


def _response_path(key: str, value: Any) -> str | None:
    """The path of the responses under a key, by the kind of its value; None where it can't be one."""
    if isinstance(value, str):
        return key if key != "message" else None  # which may be the user's
    if isinstance(value, dict):
        inner = next((k for k in (*RESPONSE, *RESPONSE_WEAK) if isinstance(value.get(k), str)), None)
        return f"{key}.{inner}" if inner else None
    if isinstance(value, list) and value:
        if isinstance(value[0], str):
            return f"{key}[]"
        if isinstance(value[0], dict):
            if all(isinstance(m, dict) and "role" in m for m in value) or value[0].get("type") == "text":
                return key  # a conversation, or a text in parts: one sample
            path = _response_path("", value[0].get("message")) if "message" in value[0] else None
            inner = (
                f"message{path}"
                if path
                else next((k for k in (*RESPONSE, *RESPONSE_WEAK) if isinstance(value[0].get(k), str)), None)
            )
            return f"{key}[].{inner}" if inner else None
    return None


def mapping(name: str, records: list[Any], given: dict[str, str]) -> Fields:
    """The field map of a file of no known dialect; `given` (from --map) decides what it names. Raises DumpError."""
    values = first_values(records)
    if "response" in given:
        response = given["response"]
    else:
        found = [(k, p) for k in RESPONSE if k in values and (p := _response_path(k, values[k]))]
        found = found or [(k, p) for k in RESPONSE_WEAK if k in values and (p := _response_path(k, values[k]))][:1]
        found = found or _wide(values)
        if len(found) > 1:
            raise ChoiceError(
                f"{name}: {' and '.join(k for k, _ in found)} could both be the response ({_keys(values)}); choose one",
                [("response", path) for _, path in found],
            )
        if found and found[0][0] in ("solution", "solutions") and (others := _attempts(values, found[0][0])):
            raise DumpError(
                f"{name}: {found[0][0]!r} may be what a model wrote or the reference answer, and {others[0]!r} stands "
                f"beside it ({_keys(values)}); choose: --map response={others[0]} or --map response={found[0][1]}"
            )
        held = {k for r in records if isinstance(r, dict) for k in r}
        ids = [k for k in SYNONYMS["response_ids"] if isinstance(v := values.get(k), list) and v and type(v[0]) is int]
        if not found and ids:
            found = [(ids[0], "response")]  # ids alone: there is no text to read
        names = (k for k in (*RESPONSE, *RESPONSE_WEAK) if k in held and not isinstance(values.get(k), str))
        empty = next(names, None)
        if not found and empty is not None:
            kind = "null" if values.get(empty) is None else f"not text ({show(values[empty])})"
            raise UnnamedError(
                f"{name}: {empty!r} is {kind} in every row looked at, and no other field looks like a sampled "
                "response; where is the text? "
            )
        if not found:
            raise UnnamedError(
                f"{name}: no field looks like a sampled response ({keys_of(records)}); name the fields: ",
                _marks(records),
            )
        response = found[0][1]
    fields: Fields = {"response": (response,)}
    if "[]." in response:
        head = response.split("[].")[0]
        elements = values.get(head)
        sub = elements[0] if isinstance(elements, list) and elements and isinstance(elements[0], dict) else {}
        _fill(name, fields, sub, given, lambda k, v, f: f"{head}[].{k}", PER_SAMPLE)
    elif response.startswith("*."):
        sub = next((v for v in values.values() if isinstance(v, dict)), {})
        _fill(name, fields, sub, given, lambda k, v, f: f"*.{k}", PER_SAMPLE)
    elif isinstance(sub := values.get(head := response.split(".")[0]), dict) and head != response:
        _fill(name, fields, sub, given, lambda k, v, f: f"{head}.{k}", PER_SAMPLE)
    taken = response.split(".")[0].removesuffix("[]")
    rest = {k: v for k, v in values.items() if k != taken}
    exploded = "[]" in response

    def path(key: str, value: Any, field: str) -> str:
        per_sample = exploded and isinstance(value, list) and field in PER_SAMPLE
        return f"{key}[]" if per_sample else key

    _fill(name, fields, rest, given, path, tuple(SYNONYMS))
    if (
        isinstance(values.get("answer"), (str, int, float))
        and fields.get("gold", ("",))[0] not in ("", "answer")
        and "answer" not in fields
    ):
        fields["answer"] = ("answer",)  # another field is the reference, so `answer` is the model's
    if "valid" not in given and not {"correct", "score"} & fields.keys():
        fields.pop("valid", None)  # alone it says what `correct` says elsewhere, or that something could be read
    if "question" in fields and not isinstance(values.get(fields["question"][0]), str) and "question" not in given:
        if isinstance(values.get(fields["question"][0]), int):
            fields.setdefault("id", fields["question"])
        del fields["question"]
    if "id" not in fields.keys() | given.keys() and all("@id" in r for r in records if isinstance(r, dict)):
        fields["id"] = ("@id",)  # the key of each row in its document
    return fields


def _fill(
    name: str,
    fields: Fields,
    values: dict[str, Any],
    given: dict[str, str],
    path: Callable[[str, Any, str], str],
    allowed: tuple[str, ...],
) -> None:
    used = {p.split(".")[0].removesuffix("[]") for p in given.values()}
    for field in allowed:
        if field in fields or field in given:
            continue
        if field in SAMPLING and "sampler" in fields.keys() | given.keys() and field not in values:
            continue  # an object of settings says no more than that
        held = {k: v for k in SYNONYMS[field] if (v := get(values, k)) is not MISSING}
        free = held if field in ("question", "prompt") else held.keys() - used
        keys = [k for k, v in held.items() if k in free and _may_be(field, k, v)]
        if len(keys) > 1 and field in ONE_ONLY:
            options = ", ".join(f"{k} = {show(held[k], 20)}" for k in keys)
            raise ChoiceError(
                f"{name}: several fields say whether a response is correct ({options}); choose one",
                [(field, path(k, held[k], field)) for k in keys],
            )
        if keys:
            alike = keys if field in SAMPLING else keys[:1]  # rows may say it in one place or another
            fields[field] = tuple(path(k, held[k], field) for k in alike)


def _may_be(field: str, key: str, value: Any) -> bool:
    """Whether a value is of a kind that a field found by its name may have."""
    if field in TOKENS:
        return isinstance(value, TOKENS[field])  # else a count of them
    if field == "images":
        return bool(media.of_column(value))
    return isinstance(value, str) if key in TEXT_ONLY else not (field == "finish" and isinstance(value, dict))


def _attempts(values: dict[str, Any], solution: str) -> list[str]:
    """Paths of texts beside a solution that sound like what a model wrote, by names that no table has."""
    tables = {k for names in SYNONYMS.values() for k in names} | {solution}
    held = {p: t for p, t in texts_in(values).items() if p.split(".")[0].removesuffix("[]") not in tables and prose(t)}
    return sorted(p for p in held if sounds(p) < 0 and not NO_TEXT.search(p) and not is_reference(p))


def is_reference(path: str) -> bool:
    """Whether a path sounds like a reference answer."""
    return any(REFERENCE.fullmatch(w) for w in re.split(r"[._\[\]-]+", path.lower())) or path in SYNONYMS["gold"]


def _wide(values: dict[str, Any]) -> list[tuple[str, str]]:
    objects = [v for v in values.values() if isinstance(v, dict)]
    if len(objects) < 2:
        return []
    inner = [k for k in (*RESPONSE, *RESPONSE_WEAK) if all(isinstance(v.get(k), str) for v in objects)]
    return [(f"*.{inner[0]}", f"*.{inner[0]}")] if inner else []


REFERENCE = re.compile(r"gold|gt|gts|truth|target|reference|ref|expected|label|canonical")
COUNT = re.compile(r"(n|num|count|total)_|.*_count$")  # how many were: no label, though 0 or 1
LABEL = re.compile(r"correct|solv|pass|(^|_)ok$|result|right|success|accura|match|verif|equal|grade|valid")


def labels(records: list[Any]) -> list[str]:
    """Paths of values that are all true or false, or all 1 or 0, or null (of a list, one each) and sound like a
    label."""
    out = []
    for key, first in first_values(records).items():
        held = [r[key] for r in records if isinstance(r, dict) and r.get(key) is not None]
        if not LABEL.search(key.lower()) or COUNT.match(key.lower()):
            continue
        if _bits(held):
            out.append(key)
        elif isinstance(first, list) and all(isinstance(v, list) and _bits(v) for v in held):
            out.append(f"{key}[]")
    return out


def _bits(values: list[Any]) -> bool:
    return bool(values) and all(
        v.lower() in ("true", "false") if isinstance(v, str) else isinstance(v, (bool, int, float)) and v in (0, 1)
        for v in values
    )


def origins(records: list[Any], fields: Fields) -> bool:
    """True where `source` says where problems come from, not who answered them: several values, none of which shares a
    problem with another."""
    problem = next((fields[f][0] for f in ("question", "prompt", "id") if f in fields), None)
    rows = [r for r in records if isinstance(r, dict) and problem in r and "source" in fields]
    pairs = {(repr(r[problem]), str(r.get(fields["source"][0]))) for r in rows}
    return len({s for _, s in pairs}) > 1 and len({p for p, _ in pairs}) == len(pairs)


def _keys(values: dict[str, Any]) -> str:
    names = list(values)
    return "its rows have: " + (
        ", ".join(names[:15]) + (f" and {len(names) - 15} more" if len(names) > 15 else "") if names else "nothing"
    )


def keys_of(records: list[Any]) -> str:
    """The keys of the first row with the kinds of their values, for messages."""
    first = next((r for r in records if isinstance(r, dict)), {})
    shown = [f"{k} ({_kind(v)})" for k, v in first.items() if not k.startswith("@")]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"its first row has: {', '.join(shown[:12]) or 'nothing'}{more}"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"text of {len(value):,}"
    if isinstance(value, list):
        return f"list of {len(value):,}"
    return "null" if value is None else "object" if isinstance(value, dict) else type(value).__name__
