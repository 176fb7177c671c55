"""Output of the OpenAI batch API and of `vllm run-batch`: one request per line, its choices inside; the prompt is in
the file of requests, joined on custom_id."""

from __future__ import annotations

from typing import Any

from analyzer.dumps.dialects.small import value_at
from analyzer.dumps.paths import Fault, show


def answers(record: dict[str, Any]) -> bool:
    """True for a row whose response is what an API sent back, or nothing at all."""
    return record["response"] is None or isinstance(record["response"], dict)


def prepare(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@body" and "@choices": {text, reasoning, ids, finish}. `response` holds the body, or is it (both occur).
    Raises Fault for a request that failed."""
    response = record.get("response")
    body = response.get("body", response) if isinstance(response, dict) else None
    choices = body.get("choices") if isinstance(body, dict) else None
    if choices is None and isinstance(body, dict) and isinstance(body.get("output"), list):
        choices = [_output(body)]
    if not isinstance(choices, list):
        error = record.get("error") or (body.get("error") if isinstance(body, dict) else None)
        raise Fault("request failed", f"{show(record.get('custom_id'))} has no choices; error: {show(error)}")
    return {
        **record,
        "@body": body,
        "@prompt_ids": body.get("prompt_token_ids"),
        "@choices": [_choice(c) if isinstance(c, dict) else c for c in choices],
    }


def _output(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of the Responses API as a choice: its messages' texts; of the reasoning there are only summaries."""
    said = [p for item in body["output"] if isinstance(item, dict) and item.get("type") == "message"
            for p in (item.get("content") if isinstance(item.get("content"), list) else [])]  # fmt: skip
    refused = next((p.get("refusal") for p in said if isinstance(p, dict) and p.get("refusal")), None)
    why = value_at(body, "incomplete_details.reason") or {"completed": "stop"}.get(str(body.get("status")))
    return {"message": {"content": said or None, "refusal": refused}, "finish_reason": why}


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


def alone(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """An answer that is the row itself, without a request."""
    choices = record.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Fault("request failed", f"{show(record.get('id'))} has no choices")
    return {**record, "@choices": [_choice(c) if isinstance(c, dict) else c for c in choices]}


def anthropic(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@prompt", the system prompt as its first message. Raises Fault for a request that failed."""
    kind = value_at(record, "result.type")
    if kind != "succeeded":
        error = value_at(record, "result.error.error.message") or value_at(record, "result.error")
        raise Fault("request failed", f"{show(record.get('custom_id'))} is {show(kind)}; error: {show(error)}")
    asked, system = value_at(record, "@join.params.messages"), value_at(record, "@join.params.system")
    if isinstance(asked, list) and system:
        asked = [{"role": "system", "content": system}, *asked]
    return {**record, "@prompt": asked}
