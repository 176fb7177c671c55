"""The one table of dialects, and which of them a file is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyzer.dumps.dialects import agents, apis, datasets, harnesses, small, suites, trainers
from analyzer.dumps.dialects.dialect import BY_RECORD, Dialect
from analyzer.dumps.paths import has

CANONICAL_ROW = (
    "source", "problem", "sample", "step", "question", "prompt", "response", "prompt_ids", "response_ids",
    "response_logprobs", "logprobs_temperature", "base_logprobs", "base_logprobs_temperature", "policy_logprobs",
    "response_mask",
    "sampler", "finish", "correct", "valid", "score", "answer", "gold", "group",
    "max_tokens", "seed", "id", "meta",
)  # fmt: skip

DIALECTS: dict[str, Dialect] = {
    "canonical": Dialect(
        shape="row",
        needs=("source", "problem", "sample", "response"),
        requires=("source", "problem", "sample"),
        absent_nulls=True,
        fields={name: name for name in CANONICAL_ROW},
    ),
    "canonical-parquet": Dialect(
        shape="row",
        needs=("source", "problem", "sample", "response", "meta_json"),
        requires=("source", "problem", "sample"),
        absent_nulls=True,
        fields={name: name for name in CANONICAL_ROW} | {"prompt": ("prompt", "messages")},
        prepare=small.canonical_parquet,
    ),
    **harnesses.DIALECTS,
    **trainers.DIALECTS,
    **datasets.DIALECTS,
    **suites.DIALECTS,
    **agents.DIALECTS,
    **apis.DIALECTS,
}


def sniff_document(document: dict[str, Any]) -> list[str]:
    """Names of the dialects that a JSON object as a whole fits: nested by the parts around the records, dict by its
    values."""
    names = [n for n, d in DIALECTS.items() if d.document_needs and all(has(document, p) for p in d.document_needs)]
    values = [v for v in list(document.values())[:50] if isinstance(v, dict)]
    if len(values) == min(len(document), 50):
        names += [n for n, d in DIALECTS.items() if d.shape == "dict" and any(d.fits(v) for v in values)]
    return names


def sniff_records(records: Sequence[Any]) -> list[str]:
    """Names of the dialects that fit the most of the first 50 records, of these the ones that ask for the most: one
    where the file is of a known kind, none where it is not; more than one would be an ambiguity of the table."""
    counts = {
        n: (sum(d.fits(r) for r in records[:50]), len(d.needs) + bool(d.only))
        for n, d in DIALECTS.items()
        if d.shape in (*BY_RECORD, "side")
    }
    best = max(counts.values(), default=(0, 0))
    return [n for n, c in counts.items() if c == best] if best[0] else []
