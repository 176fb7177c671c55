"""Conversations: the last message of the assistant is the response, what stands before it the prompt."""

from __future__ import annotations

import json
from typing import Any

from analyzer.dumps.paths import MISSING, Fault, get

SPEAKERS = {  # as data sets in the manner of ShareGPT and OpenAssistant call them, whatever the case
    **dict.fromkeys(("human", "prompter", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "chatbot", "ai", "assistant"), "assistant"),
    "system": "system",
}
TURNS = (
    "of a conversation of several turns the last message of the assistant is the response (meta.turns tells how many "
    "there were) and what stands before it the prompt, without the calls of tools."
)
ROLES = {"HUMAN": "user", "BOT": "assistant", "SYSTEM": "system"}


def messages(value: Any) -> list[dict[str, Any]] | None:
    """Chat messages {role, content, ...} of a value that holds such, {from, value} (ShareGPT) or JSON text of either;
    None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[" and ('"role"' in value or '"from"' in value):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value:
        return None
    out = []
    for message in value:
        role = message.get("role", message.get("from")) if isinstance(message, dict) else None
        if not isinstance(role, str):
            return None
        content = next((message[k] for k in ("content", "value", "text") if k in message), None)
        if isinstance(content, dict) and isinstance(content.get("answer"), str):
            content = content["answer"]  # Arena-Hard 2
        called = message.get("tool_calls") or message.get("function_call")
        out.append(
            {
                **message,
                "role": SPEAKERS.get(role.lower(), role),
                "content": "" if called and content is None else content,
            }
        )
    return out


def turns(record: dict[str, Any], asked: Any, said: Any) -> dict[str, Any]:
    """The record with "@prompt", "@response", "@reasoning", "@question" and "@turns" (None: one), where `asked` and
    `said` are texts or conversations. Raises Fault where nothing is by the assistant."""
    before, after = messages(asked), messages(said)
    if after is None:
        return {**record, "@prompt": _bare(before) or asked, "@response": said, "@question": _question(before)}
    own = [i for i, m in enumerate(after) if m["role"] == "assistant"]
    if not own:
        roles = ", ".join(m["role"] for m in after[:6])
        raise Fault("no response", f"none of the {len(after)} messages ({roles}) is by the assistant")
    answer, earlier = after[own[-1]], after[: own[-1]]
    if before is None:
        before = [{"role": "user", "content": asked}] if isinstance(asked, str) else []
        prompt = _bare([*before, *earlier]) if earlier else asked
    else:
        prompt = _bare([*before, *earlier])
    thought = next((answer[k] for k in ("reasoning_content", "reasoning") if isinstance(answer.get(k), str)), None)
    return {
        **record,
        "@prompt": prompt or None,
        "@response": answer["content"],
        "@reasoning": thought,
        "@question": _question(before) if before else _question(earlier, every=True),
        "@turns": len(own) if len(own) > 1 else None,
    }


def answered(record: dict[str, Any]) -> bool:
    """True for a row whose messages are not only a prompt."""
    held = (messages(record.get(k)) or [] for k in ("messages", "conversations"))
    return any(m["role"] == "assistant" for h in held for m in h[-2:])


def conversation(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """A row that is one conversation: `messages` or `conversations`."""
    held = next((v for k in ("messages", "conversations") if messages(v := record.get(k)) is not None), None)
    if held is None:
        raise Fault("no response", "messages holds no list of {role, content}")
    system = record.get("system")
    if isinstance(system, str) and system.strip() and messages(held)[0]["role"] != "system":
        held = [{"role": "system", "content": system}, *messages(held)]
    return turns(record, None, held)


def opencompass(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The prompt in OpenCompass's own roles, and the prediction or predictions as a list."""
    asked, said = record.get("origin_prompt"), record.get("prediction")
    if isinstance(asked, list) and asked and all(isinstance(m, dict) for m in asked):
        asked = [{"role": ROLES.get(str(m.get("role")), m.get("role")), "content": m.get("prompt")} for m in asked]
    return {**record, "@prompt": asked, "@predictions": said if isinstance(said, list) or said is None else [said]}


def helm(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """A request of HELM: its prompt, and the first of the references that are tagged correct."""
    given = get(record, "instance.references")
    given = [r for r in given if isinstance(r, dict)] if isinstance(given, list) else []
    right = [r.get("output") for r in given if isinstance(r.get("tags"), list) and "correct" in r["tags"]]
    gold = right[0].get("text") if right and isinstance(right[0], dict) else None
    asked = get(record, "request.messages")
    asked = asked if isinstance(asked, list) and asked else get(record, "request.prompt")
    return {**record, "@gold": gold, "@prompt": None if asked is MISSING or asked == "" else asked}


def completed(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """A row of prompt and completion, both texts or conversations (verifiers, prime-rl); "@finish" and "@score"."""
    error = record.get("error")
    if error and not record.get("completion"):
        raise Fault("no output", f"the rollout ended without output; error: {str(error)[:60]}")
    cut = record.get("is_truncated")
    finish = {True: "length", False: "stop"}.get(cut) if isinstance(cut, bool) else None
    return {**turns(record, record.get("prompt"), record.get("completion")), "@finish": finish}


def evalscope(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """What stands before the choices of a prediction (often nothing is kept of it)."""
    held = messages(record.get("messages")) or []
    last = max((i for i, m in enumerate(held) if m["role"] == "assistant"), default=len(held))
    return {**record, "@prompt": _bare(held[:last]) or None, "@question": _question(held[:last])}


def reviewed(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """A review of evalscope: the conversation where it is kept, else the rendered input and the prediction."""
    score = get(record, "sample_score.score")
    score = score if isinstance(score, dict) else {}
    held = messages(record.get("messages")) or []
    out = record
    if any(m["role"] == "assistant" for m in held):
        out = turns(record, None, held)
    else:
        given = record.get("input")
        out = {**record, "@question": given if isinstance(given, str) else None, "@response": score.get("prediction")}
    values = score.get("value")
    values = values if isinstance(values, dict) else {}
    named = str(score.get("main_score_name"))
    return {**out, "@score": values.get(named if named in values else next(iter(values), ""))}


def several(head: list[Any], fields: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A note where conversations have several turns."""
    rows = [r for r in head if isinstance(r, dict)]
    held = [messages(r[k]) or [] for r in rows for k in ("completion", "messages", "conversations") if k in r]
    return fields, TURNS if any(sum(m["role"] == "assistant" for m in h) > 1 for h in held) else None


def _bare(held: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{k: m[k] for k in ("role", "content", "images") if k in m} for m in held or []]


def _question(held: list[dict[str, Any]] | None, every: bool = False) -> str | None:
    """What the user asked last, or in every turn: the last one alone may be "go on" in many conversations."""
    asked = [m["content"] for m in held or [] if m["role"] == "user"][0 if every else -1 :]
    if not asked or not all(isinstance(a, str) for a in asked):
        return None
    return "\n\n".join(asked) if "".join(asked).strip() else None
