"""Output of the OpenAI batch API and of `vllm run-batch`: one request per line, its choices inside; the prompt is in
the file of requests, joined on custom_id."""

from __future__ import annotations

from typing import Any

from analyzer.formats.paths import Fault, show


def prepare(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@body" and "@choices": {text, reasoning, ids, finish}. `response` holds the body, or is it (both occur).
    Raises Fault for a request that failed."""
    response = record.get("response")
    body = response.get("body", response) if isinstance(response, dict) else None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list):
        error = record.get("error") or (body.get("error") if isinstance(body, dict) else None)
        raise Fault("request failed", f"{show(record.get('custom_id'))} has no choices; error: {show(error)}")
    return {
        **record,
        "@body": body,
        "@prompt_ids": body.get("prompt_token_ids"),
        "@choices": [_choice(c) if isinstance(c, dict) else c for c in choices],
    }


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    held = message if isinstance(message, dict) else choice
    if held.get("content", held.get("text")) is None and held.get("refusal"):
        raise Fault("refused", f"the model refused: {show(held['refusal'])}")
    return {
        "text": held.get("content", held.get("text")),
        "reasoning": held.get("reasoning_content", held.get("reasoning")),
        "ids": choice.get("token_ids"),
        "finish": choice.get("finish_reason"),
    }
