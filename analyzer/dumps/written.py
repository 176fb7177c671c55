"""Lists, objects and messages that stand in a column as text, as tables keep them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from analyzer.dumps import parse, settings
from analyzer.dumps.dialects import chats
from analyzer.dumps.names import PER_SAMPLE, RESPONSE, RESPONSE_WEAK, SYNONYMS, TOKENS

PLURAL = ("responses", "completions", "generations", "outputs", "model_outputs", "samples", "rollouts", "solutions")
NUMBERS = tuple(k for n in TOKENS for k in SYNONYMS[n])
OBJECTS = ("sampler", "meta", "base_logprobs", "policy_logprobs", *settings.OBJECTS)
EACH = tuple(k for n in PER_SAMPLE for k in SYNONYMS[n])
TALKS = (*SYNONYMS["prompt"], *RESPONSE, *RESPONSE_WEAK)
NUMERIC = (
    *("sample", "seed", "step", "score", "correct", "truncated", "max_tokens", "temperature", "top_p", "top_k"),
    *("min_p", "logprobs_temperature", "base_logprobs_temperature"),
)  # fields whose values are numbers, or true and false
SPELLED = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
Kinds = dict[str, str]  # column -> messages, list or object


def numeric(given: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The columns of a table of text whose cells are numbers, by the names of fields and by --map."""
    return frozenset(k for n in NUMERIC for k in (*SYNONYMS.get(n, (n,)), *given.get(n, ()))) | {*settings.SETTINGS}


def numbered(record: Any, columns: frozenset[str]) -> Any:
    """A record with the numbers that its cells of these columns spell."""
    if not isinstance(record, dict):
        return record
    return {k: _number(v) if v is not None and k in columns else v for k, v in record.items()}


def _number(text: str) -> Any:
    found = SPELLED.fullmatch(text)
    return text if found is None else float(text) if found[1] or found[2] else int(text)


def columns(rows: list[dict[str, Any]], given: Mapping[str, tuple[str, ...]], but: Collection[str]) -> Kinds:
    """The columns of the first rows that hold JSON text where a list, an object or messages are meant, by their names
    and by all values; given: from --map; but: columns that are known to be text. A single response and an answer may
    well be a list in text: these stay as they are."""
    mapped = {n: p[0] for n, p in given.items()}
    values: dict[str, list[str]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and key not in but:
                values.setdefault(key, []).append(value)
    if not values:
        return {}
    out: Kinds = {}
    for key, texts in values.items():
        if key in (*TALKS, mapped.get("prompt"), mapped.get("response")) and any(map(_messages, texts)):
            out[key] = "messages"
        elif key in (*NUMBERS, *PLURAL, *(mapped.get(n) for n in TOKENS)):
            held = [_json(t) for t in texts]
            if all(isinstance(v, list) for v in held) and (key not in PLURAL or all(map(_texts, held))):
                out[key] = "list"
        if key in OBJECTS and all(isinstance(_json(t), dict) for t in texts):
            out[key] = "object"
    several = next((k for k in PLURAL if out.get(k) == "list" or any(isinstance(r.get(k), list) for r in rows)), None)
    if several:
        fitting = [k for k in values if k in EACH and k not in out]
        out |= {k: "list" for k in fitting if all(_alike(r.get(k), r.get(several)) for r in rows)}
    return out


def pythons(rows: list[dict[str, Any]]) -> list[str]:
    """The columns in which Python's own writing of messages stands, which is no JSON."""
    return [
        key
        for key in TALKS
        if any(isinstance(v := r.get(key), str) and v[:2] == "[{" and ("'role'" in v or "'from'" in v) for r in rows)
        and not any(_messages(r[key]) for r in rows if isinstance(r.get(key), str))
    ]


def decoded(record: Any, kinds: Kinds) -> Any:
    """A record with the values of its text in these columns; text that is none of its column's kind stays."""
    if not isinstance(record, dict):
        return record
    out = record
    for key, kind in kinds.items():
        value = record.get(key)
        if isinstance(value, str):
            read = _messages(value) if kind == "messages" else _json(value)
            if isinstance(read, dict if kind == "object" else list):
                out = {**out, key: read}
    return out


def _json(text: Any) -> Any:
    try:
        return parse.loads(text.encode()) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


def _messages(text: str) -> list[dict[str, Any]] | None:
    """The messages of a text, as they stand there; those of ShareGPT by role and content."""
    found = chats.messages(text)
    if found is None:
        return None
    held = _json(text)
    named = all("role" in m for m in held)
    return held if named else [{"role": m["role"], "content": m["content"]} for m in found]


def _texts(values: list[Any]) -> bool:
    return all(isinstance(v, (str, dict)) for v in values)


def _alike(value: Any, several: Any) -> bool:
    one, other = _json(value), _json(several)
    return isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
