"""The one table of dialects: what a producer's file looks like and where its fields lie.

shape    row | list | dict | nested | wide (see shapes)
needs    paths that every record has (for `nested` and `dict`: document_needs are paths of the document)
rows     nested: where the records lie
fields   canonical field (fields.CANONICAL, or meta.NAME) -> path, or paths of which the first that is there counts
label    what names the source when neither LABEL= nor the row does: "stem" of the file name, or its folder's ("parent",
         "grandparent"); default "stem"
name     regular expression on the file's stem; its groups (temperature, seed, group) are fields of every row
requires fields that may not be null in any row
prepare  code that adds "@..." keys to a record; refuse: code that says why such a file can't be used
note     one sentence for the ledger
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyzer.formats import lm_eval
from analyzer.formats.paths import has

_RG_FIELDS = {
    "question": "question",
    "response": "completions[].full_model_response",
    "score": "completions[].score",
    "answer": "completions[].model_answer",
    "gold": "expected_answer",
}

DIALECTS: dict[str, dict[str, Any]] = {
    "canonical": {
        "shape": "row",
        "needs": ("source", "problem", "sample", "response"),
        "requires": ("source", "problem", "sample"),
        "fields": {
            name: name
            for name in (
                "source",
                "problem",
                "sample",
                "step",
                "question",
                "prompt",
                "response",
                "prompt_ids",
                "response_ids",
                "response_logprobs",
                "logprobs_temperature",
                "sampler",
                "finish",
                "correct",
                "score",
                "answer",
                "gold",
                "group",
                "max_tokens",
                "meta",
            )
        },
    },
    "reasoning-gym": {
        "shape": "nested",
        "document_needs": ("categories", "metadata"),
        "rows": "categories[].datasets[].results[]",
        "needs": ("question", "completions"),
        "fields": {
            **_RG_FIELDS,
            "model": "@0.metadata.model",
            "group": "@2.name",
            "meta.category": "@1.name",
            "temperature": "@0.metadata.temperature",
            "top_p": "@0.metadata.top_p",
            "max_tokens": "@0.metadata.max_tokens",
        },
    },
    "reasoning-gym-task": {
        "shape": "nested",
        "document_needs": ("results", "completions_per_prompt"),
        "rows": "results[]",
        "needs": ("question", "completions"),
        "label": "parent",
        "fields": {**_RG_FIELDS, "model": "@0.model", "group": "@0.name", "meta.category": "@0.category"},
    },
    "qwen-math": {
        "shape": "list",
        "needs": ("question", "gt", "code[]", "pred[]"),
        "label": "grandparent",
        "fields": {
            "question": "question",
            "response": "code[]",
            "correct": "score[]",
            "answer": "pred[]",
            "gold": "gt",
            "finish": "finish_reason[]",
            "id": "idx",
            "meta.level": "level",
            "meta.type": "type",
        },
        "name": r"_seed(?P<seed>\d+)_t(?P<temperature>\d+(?:\.\d+)?)_s-?\d+_e-?\d+$",
    },
    "tot": {
        "shape": "list",
        "needs": ("ys[]",),
        "any": ("infos[]", "accs[]"),
        "fields": {"id": "idx", "response": "ys[]", "score": ("infos[].r", "accs[]")},
        "name": r"^(?P<group>game24|crosswords|text)_(?:.*_(?P<temperature>\d\.\d+)_)?",
    },
    "openai-gsm8k": {
        "shape": "wide",
        "needs": ("question", "ground_truth", "*.solution"),
        "fields": {"question": "question", "gold": "ground_truth", "response": "*.solution", "correct": "*.is_correct"},
    },
    "long-traces": {
        "shape": "row",
        "needs": ("problem", "response", "pred", "correct", "old_correct"),
        "fields": {
            "question": "problem",
            "id": "id",
            "response": "response",
            "answer": "pred",
            "gold": "answer",
            "correct": "correct",
            "group": "subject",
            "max_tokens": "max_new_tokens",
            "meta.level": "level",
            "meta.precision": "precision",
            "meta.old_correct": "old_correct",
        },
    },
    "polaris": {
        "shape": "row",
        "needs": ("example_id", "prompt", "answer", "seed", "response"),
        "label": "parent",
        "fields": {
            "question": "prompt",
            "id": "example_id",
            "response": "response",
            "gold": "answer",
            "seed": "seed",
            "group": "task_name",
        },
    },
    "verl": {
        "shape": "row",
        "needs": ("input", "output", "score", "step"),
        "label": "parent",
        "fields": {
            "question": "input",
            "response": "output",
            "correct": "acc",
            "score": "score",
            "gold": "gts",
            "answer": "pred",
            "step": "step",
        },
        "note": "verl writes prompts with their special tokens stripped: the prompt ids can't be recovered, so "
        "`input` is kept as the question.",
    },
    "skythought": {
        "shape": "dict",
        "document_needs": (),
        "needs": ("responses[].content", "responses[].correctness"),
        "fields": {
            "id": "@id",
            "question": ("problem", "question", "prompt"),
            "response": "responses[].content",
            "correct": "responses[].correctness",
            "gold": ("answer", "solution"),
        },
    },
    "lm-eval": {
        "shape": "list",
        "needs": ("doc_id", "resps", "arguments"),
        "label": "parent",
        "fields": {
            "id": "doc_id",
            "question": ("doc.question", "doc.problem", "doc.query"),
            "prompt": "@prompt",
            "response": "@responses[]",
            "correct": "@correct",
            "gold": "target",
            "temperature": "@temperature",
            "top_p": "@top_p",
            "max_tokens": "@max_tokens",
        },
        "name": r"^samples_(?P<group>.+)_\d{4}-\d\d-\d\dT",
        "prepare": lm_eval.prepare,
        "refuse": lm_eval.refuse,
    },
}


def paths(dialect: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The field map of a dialect with every value a tuple of alternatives."""
    return {name: (p,) if isinstance(p, str) else tuple(p) for name, p in dialect["fields"].items()}


def fits(record: Any, dialect: dict[str, Any]) -> bool:
    """True where a record has everything that the dialect needs."""
    if not isinstance(record, dict):
        return False
    either = dialect.get("any", ())
    return all(has(record, p) for p in dialect["needs"]) and (not either or any(has(record, p) for p in either))


def sniff_document(document: dict[str, Any]) -> list[str]:
    """Names of the dialects that a JSON object as a whole fits: nested by the parts around the records, dict by its
    values."""
    names = [
        n for n, d in DIALECTS.items() if d["shape"] == "nested" and all(p in document for p in d["document_needs"])
    ]
    values = [v for v in list(document.values())[:50] if isinstance(v, dict)]
    if len(values) == min(len(document), 50):
        names += [n for n, d in DIALECTS.items() if d["shape"] == "dict" and any(fits(v, d) for v in values)]
    return names


def sniff_records(records: Sequence[Any]) -> list[str]:
    """Names of the row, list and wide dialects that fit the most of the first 50 records: one where the file is of a
    known kind, none where it is not; more than one would be an ambiguity of the table."""
    counts = {
        n: sum(fits(r, d) for r in records[:50]) for n, d in DIALECTS.items() if d["shape"] in ("row", "list", "wide")
    }
    best = max(counts.values(), default=0)
    return [n for n, c in counts.items() if c == best] if best else []
