"""lm-evaluation-harness `samples_*.jsonl`: log-likelihood rows are no generations, and the metric is per document."""

from __future__ import annotations

from typing import Any

from analyzer.formats.paths import get


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
    filters = sorted({str(r["filter"]) for r in rows if "filter" in r})
    if len(filters) > 1:
        return (
            f"the file holds {len(filters)} filters ({', '.join(filters)}) of the same responses, which would count "
            f"each one {len(filters)} times; "
            f"keep one: jq -c 'select(.filter==\"{filters[0]}\")' FILE > one.jsonl"
        )
    return None


def prepare(record: dict[str, Any]) -> dict[str, Any]:
    """Add "@responses", "@prompt", "@temperature", "@correct": the samples of the first request with its arguments
    (both
    layouts, object and list). The metric is per document, so it labels a sample only where there is one sample."""
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
    out = {**record, "@responses": responses if isinstance(responses, list) else None, "@prompt": request.get("arg_0")}
    settings = request.get("arg_1")
    if isinstance(settings, dict):
        sampled = settings.get("do_sample", True)
        out["@temperature"] = settings.get("temperature") if sampled else 0
        out["@top_p"] = settings.get("top_p") if sampled else None
        out["@max_tokens"] = settings.get("max_gen_toks")
    if isinstance(responses, list) and len(responses) == 1:
        out["@correct"] = next((record[k] for k in ("exact_match", "acc") if k in record), None)
    return out
