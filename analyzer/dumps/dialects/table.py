"""The one table of dialects: what a producer's file looks like and where its fields lie.

shape    row | list | dict | nested | wide (see shapes), or side: a file that other dumps are joined with
needs    paths that every record has (for `nested` and `dict`: document_needs are paths of the document)
any      paths of which a record has at least one; only: keys besides which a record has none; without: keys that a
         record must not have; when: code that says of such a record whether it is one
rows     nested: where the records lie, or code that makes (line, record) of the document
fields   canonical field (fields.CANONICAL, or meta.NAME) -> path, or paths of which the first that is there counts
label    what names the source when neither LABEL= nor the row does: "stem" of the file name, or its folder's ("parent",
         "grandparent"), or "named": the folder, where the file's name is as `name` says, else the stem; default "stem"
inside   regular expression on names of folders that the producer makes inside a run's
name     regular expression on the file's stem; its groups (temperature, seed, group ...) are fields of every row
folder   the same on the path of its folder
join     {side dialect: path of the key}: the joined record is "@join"; key (side): path of the key; with no key, the
         one record of the side file in the same folder
requires fields that may not be null in any row; absent_nulls: null says no more than a field that is not there
reads    paths that this code reads: any other column that no field maps is reported as unused
survey   code that reads all records once before; prepare(record, survey) adds "@..." keys to a record or raises Fault;
refuse   code that says why such a file can't be used; adapt(head, fields) -> (fields, note) fits fields to a file
note     one sentence for the ledger
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyzer.dumps.dialects import datasets, harnesses, small, suites, trainers
from analyzer.dumps.paths import has

CANONICAL_ROW = (
    "source", "problem", "sample", "step", "question", "prompt", "response", "prompt_ids", "response_ids",
    "response_logprobs", "logprobs_temperature", "base_logprobs", "base_logprobs_temperature", "policy_logprobs",
    "response_mask",
    "sampler", "finish", "correct", "score", "answer", "gold", "group",
    "max_tokens", "seed", "id", "meta",
)  # fmt: skip

DIALECTS: dict[str, dict[str, Any]] = {
    "canonical": {
        "shape": "row",
        "needs": ("source", "problem", "sample", "response"),
        "requires": ("source", "problem", "sample"),
        "absent_nulls": True,
        "fields": {name: name for name in CANONICAL_ROW},
    },
    "canonical-parquet": {
        "shape": "row",
        "needs": ("source", "problem", "sample", "response", "meta_json"),
        "requires": ("source", "problem", "sample"),
        "absent_nulls": True,
        "fields": {name: name for name in CANONICAL_ROW} | {"prompt": ("prompt", "messages")},
        "prepare": small.canonical_parquet,
    },
    **harnesses.DIALECTS,
    **trainers.DIALECTS,
    **datasets.DIALECTS,
    **suites.DIALECTS,
}


def paths(dialect: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The field map of a dialect with every value a tuple of alternatives."""
    return {name: (p,) if isinstance(p, str) else tuple(p) for name, p in dialect.get("fields", {}).items()}


def fits(record: Any, dialect: dict[str, Any]) -> bool:
    """True where a record has everything that the dialect needs, and nothing that it can't have."""
    if not isinstance(record, dict):
        return False
    either, only = dialect.get("any", ()), dialect.get("only")
    return (
        all(has(record, p) for p in dialect["needs"])
        and (not either or any(has(record, p) for p in either))
        and (only is None or record.keys() <= {*only})
        and record.keys().isdisjoint(dialect.get("without", ()))
        and ("when" not in dialect or dialect["when"](record))
    )


def sniff_document(document: dict[str, Any]) -> list[str]:
    """Names of the dialects that a JSON object as a whole fits: nested by the parts around the records, dict by its
    values."""
    names = [
        n
        for n, d in DIALECTS.items()
        if d["shape"] == "nested" and "document_needs" in d and all(has(document, p) for p in d["document_needs"])
    ]
    values = [v for v in list(document.values())[:50] if isinstance(v, dict)]
    if len(values) == min(len(document), 50):
        names += [n for n, d in DIALECTS.items() if d["shape"] == "dict" and any(fits(v, d) for v in values)]
    return names


def sniff_records(records: Sequence[Any]) -> list[str]:
    """Names of the dialects that fit the most of the first 50 records, of these the ones that ask for the most: one
    where the file is of a known kind, none where it is not; more than one would be an ambiguity of the table."""
    counts = {
        n: (sum(fits(r, d) for r in records[:50]), len(d["needs"]) + bool(d.get("only")))
        for n, d in DIALECTS.items()
        if d["shape"] in ("row", "list", "wide", "side")
    }
    best = max(counts.values(), default=(0, 0))
    return [n for n, c in counts.items() if c == best] if best[0] else []
