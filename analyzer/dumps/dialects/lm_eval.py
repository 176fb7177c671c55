"""lm-evaluation-harness `samples_*.jsonl`: log-likelihood rows are no generations, and the metric is per document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analyzer.dumps.dialects.chats import messages
from analyzer.dumps.paths import get


def refuse(records: list[Any]) -> str | None:
    """Why a file of such rows can't be used, or None."""
    rows = [r for r in records if isinstance(r, dict)]
    first = next((v for r in rows if isinstance(v := get(r, "resps.0.0"), (list, str))), None)
    if isinstance(first, list):
        return (
            "these are lm-eval log-likelihood rows (`resps` holds [log-likelihood, is-greedy] pairs of answer "
            "choices), not sampled "
            "responses; run the task with output_type generate_until and --log_samples"
        )
    return None


def metric(record: dict[str, Any]) -> str | None:
    """The metric that says right or wrong: exact_match or acc, else the one metric there is."""
    named = record.get("metrics")
    named = named if isinstance(named, list) and len(named) == 1 else []
    return next((k for k in ("exact_match", "acc", *map(str, named)) if k in record), None)


def olmes(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The metric of a row of OLMES, which labels its sample where there is one."""
    metrics = record.get("metrics")
    alone = isinstance(held := record.get("model_output"), list) and len(held) == 1
    return {**record, **(_labelled(label(metrics)) if alone and isinstance(metrics, dict) else {})}


def _labelled(said: Any) -> dict[str, Any]:
    return {"@score" if isinstance(said, float) and 0 < said < 1 else "@correct": said}


def label(record: dict[str, Any]) -> Any:
    """What that metric says."""
    return record.get(metric(record))


def survey(records: Iterable[tuple[int, Any]]) -> dict[str, Any]:
    """What all rows say together: a row is written per filter of the same response, so a response is taken with its
    first filter, and the other filters' rows only add their labels. {"labels": {doc_id: {filter: label}}, "note",
    "reads": the metrics that are labels, "unlabelled": notes where no label is given}."""
    labels: dict[Any, dict[str, Any]] = {}
    reads: dict[str, None] = {}
    shared: dict[str, int] = {}
    most = 0
    for _, record in records:
        if isinstance(record, dict) and isinstance(record.get("doc_id"), (int, str)):
            labels.setdefault(record["doc_id"], {}).setdefault(str(record.get("filter")), label(record))
            if (own := metric(record)) and _single(record):
                reads[own] = None
            elif own and isinstance(held := get(record, "resps.0"), list) and len(held) > 1:
                shared[own] = shared.get(own, 0) + 1
                most = max(most, len(held))
    notes = [
        f"{n:,} document{' has' if n == 1 else 's have'} one {name} for {'its' if n == 1 else 'up to'} {most} "
        "responses: it labels none of them. --grade compares each with the reference answer; --map "
        f"correct=@row.{name} takes it for each."
        for name, n in shared.items()
    ]
    names = list(dict.fromkeys(f for held in labels.values() for f in held))
    if len(names) < 2:
        return {"reads": tuple(reads), "unlabelled": notes}
    unlike = sum(len({str(v) for v in held.values()}) > 1 for held in labels.values())
    filters = (
        f"{len(names)} filters ({', '.join(names)}) of the same responses, each response counts once; labels "
        f"are those of {names[0]}, which {unlike:,} of {len(labels):,} documents have another label for; choose "
        f"another with --map correct=@filters.{names[1]}."
    )
    return {"labels": labels, "reads": tuple(reads), "note": " ".join([*notes, filters])}


def _single(record: dict[str, Any]) -> bool:
    held = get(record, "resps.0")
    return isinstance(held, list) and len(held) == 1


def prepare(record: dict[str, Any], survey: dict[str, Any] | None = None) -> dict[str, Any]:
    """Add "@responses", "@prompt", "@temperature", "@correct": the samples of the first request with its arguments
    (both
    layouts, object and list). The metric is per document, so it labels a sample only where there is one sample."""
    held = (survey or {}).get("labels", {})
    doc_id = record.get("doc_id")
    filters = held.get(doc_id, {}) if isinstance(doc_id, (int, str)) else {}
    if filters and next(iter(filters)) != str(record.get("filter")):
        return {**record, "@skip": True}
    responses = get(record, "resps.0")
    arguments = record.get("arguments")
    request = (
        arguments.get("gen_args_0")
        if isinstance(arguments, dict)
        else (arguments[0] if isinstance(arguments, list) and arguments else None)
    )
    if isinstance(request, list):
        request = {f"arg_{i}": v for i, v in enumerate(request)}
    request = request if isinstance(request, dict) else {}
    asked = request.get("arg_0")
    if isinstance(asked, list) and len(asked) == 1 and (chat := messages(asked[0])):
        asked = chat  # of the chat models: [JSON text of the messages]
    out = {**record, "@responses": responses if isinstance(responses, list) else None, "@prompt": asked}
    settings = request.get("arg_1")
    if isinstance(settings, dict):
        sampled = settings.get("do_sample", True)
        out["@temperature"] = settings.get("temperature") if sampled else 0
        out["@top_p"] = settings.get("top_p") if sampled else None
        out["@max_tokens"] = settings.get("max_gen_toks")
    if _single(record):
        out |= {**_labelled(label(record)), "@filters": filters or None}
    return out
