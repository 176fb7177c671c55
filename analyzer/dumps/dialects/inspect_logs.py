"""Samples of Inspect logs (.eval and .json): attachments put back, the last answer of the model as the response, what
stands before it as the prompt."""

from __future__ import annotations

from typing import Any

from analyzer.dumps.dialects.small import value_at
from analyzer.dumps.paths import Fault, show

PROTOCOL = "attachment://"
VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def prepare(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@question", "@prompt", "@response" and the rest; "@score" only where one scorer spoke. Raises Fault for a
    sample that failed."""
    held = record.get("attachments")
    held = held if isinstance(held, dict) else {}
    message = value_at(record, "output.choices.0.message")
    if not isinstance(message, dict):
        raise Fault("no output", f"the sample ended without output; error: {show(value_at(record, 'error.message'))}")
    given, messages = record.get("input"), record.get("messages")
    if not isinstance(messages, list) or not messages:
        messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
        messages = [*messages, message]
    turns = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "assistant"]
    prompt = _resolve(messages[: turns[-1]] if turns else messages, held)
    spoken = record.get("scores")
    spoken = {k: v for k, v in spoken.items() if isinstance(v, dict)} if isinstance(spoken, dict) else {}
    scores = {k: _value(v.get("value")) for k, v in spoken.items()}
    first = next(iter(spoken.values())) if len(scores) == 1 else None
    epoch = record.get("epoch")
    config = {
        k: v
        for part in ("@0.plan.config", "@0.eval.model_generate_config")
        if isinstance(found := value_at(record, part), dict)
        for k, v in found.items()
    }
    asked = given if isinstance(given, str) else _last_question(given)
    return {
        **record,
        "@sample": epoch - 1 if type(epoch) is int and epoch > 0 else epoch,
        "@question": _resolve(asked, held),
        "@prompt": [{"role": m.get("role"), "content": m.get("content")} for m in prompt if isinstance(m, dict)]
        or None,
        "@response": "" if (said := message.get("content")) == [] else _resolve(said, held),
        "@finish": value_at(record, "output.choices.0.stop_reason"),
        "@scores": scores if len(scores) > 1 else None,
        "@score": next(iter(scores.values())) if len(scores) == 1 else None,
        "@answer": value_at(first, "answer"),
        "@target": _resolve(record.get("target"), held),
        "@turns": len(turns) if len(turns) > 1 else None,
        "@config": config,
    }


def adapt(head: list[Any], fields: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Notes: where several scorers spoke, which one labels the samples is the user's choice; where tools were called,
    the prompts are not all that the model saw."""
    said = [m for r in head if isinstance(r, dict) and isinstance(r.get("messages"), list) for m in r["messages"]]
    called = any(isinstance(m, dict) and m.get("tool_calls") for m in said)
    tools = "tools were called: neither prompts nor responses hold the calls." if called else None
    held = [r.get("scores") for r in head if isinstance(r, dict)]
    names = list(dict.fromkeys(k for s in held if isinstance(s, dict) and len(s) > 1 for k in s))
    if not names or fields["score"] != ("@score",):
        return fields, tools
    return fields, (f"{tools[:-1]}; " if tools else "") + (
        f"{len(names)} scorers ({', '.join(names)}), none taken as the label: choose with "
        f"--map score=@scores.{names[0]}."
    )


def _last_question(given: Any) -> Any:
    asked = [
        m.get("content")
        for m in (given if isinstance(given, list) else [])
        if isinstance(m, dict) and m.get("role") == "user"
    ]
    return asked[-1] if asked and isinstance(asked[-1], str) else None


def _value(value: Any) -> float | None:
    if isinstance(value, (bool, int, float)):
        return float(value) if abs(value) < 1e300 else None
    return VALUES.get(value) if isinstance(value, str) else None


def _resolve(value: Any, held: dict[str, Any]) -> Any:
    """A value with its attachments put back. Raises Fault for one that is not in the log."""
    if isinstance(value, str) and value.startswith(PROTOCOL):
        key = value[len(PROTOCOL) :]
        if not isinstance(held.get(key), str):
            raise Fault("lost attachment", f"{show(value)} is not among the {len(held)} attachments of the sample")
        return held[key]
    if isinstance(value, list):
        return [_resolve(v, held) for v in value]
    if isinstance(value, dict):
        return {k: _resolve(v, held) for k, v in value.items()}
    return value
