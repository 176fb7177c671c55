"""Dialects of what APIs, engines and the tools around them answered (the words of an entry: see dialect)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analyzer.dumps.dialects import batch, chats
from analyzer.dumps.dialects.dialect import Dialect
from analyzer.dumps.dialects.small import objects, value_at
from analyzer.dumps.paths import Fault, show


def gemini(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@choices" of the candidates, "@prompt" of the request's contents."""
    request, choices = record.get("request"), []
    for candidate in objects(value_at(record, "response.candidates")):
        parts = _parts(value_at(candidate, "content.parts"))
        said = [[p["text"] for p in parts if bool(p.get("thought")) is thought] for thought in (False, True)]
        text, thought = ("".join(s) or None for s in said)
        choices.append({"text": text, "reasoning": thought, "finish": value_at(candidate, "finishReason")})
    request = request if isinstance(request, dict) else {}
    turns = [request.get("systemInstruction"), *objects(request.get("contents"))]
    held = [
        {"role": chats.SPEAKERS.get(str(t.get("role")), "user" if i else "system"), "content": _texts(t)}
        for i, t in enumerate(turns)
        if isinstance(t, dict)
    ]
    return {**record, "@prompt": held or None, "@choices": choices}


def _parts(value: Any) -> list[dict[str, Any]]:
    """The parts of a content that are texts. Raises Fault for any other, such as the call of a function."""
    for part in value if isinstance(value, list) else []:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise Fault("no text", f"the content has the part {show(part)}; expected parts of text only")
    return value if isinstance(value, list) else []


def _texts(turn: dict[str, Any]) -> str:
    return "".join(p["text"] for p in _parts(turn.get("parts")))


def bedrock(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@prompt": the messages with the system prompt as the first, or the text."""
    asked, system = value_at(record, "modelInput.messages"), value_at(record, "modelInput.system")
    if isinstance(asked, list) and system:
        asked = [{"role": "system", "content": system}, *asked]
    return {**record, "@prompt": asked or value_at(record, "modelInput.prompt")}


def nemo_gym(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The answer of the Responses API, with the ids and log-probs that an engine gave to its only message."""
    out = batch.prepare(record)
    held = [i for i in objects(value_at(record, "response.output")) if i.get("generation_token_ids")]
    (own,) = held if len(held) == 1 else ({},)
    numbers = {"ids": own.get("generation_token_ids"), "logprobs": own.get("generation_log_probs")}
    out["@choices"] = [{**c, **numbers} for c in out["@choices"]]
    return {**out, "@prompt_ids": own.get("prompt_token_ids")}


def openai_evals(records: Iterable[tuple[int, Any]]) -> dict[str, Any]:
    """What the events of a log say of each sample: {"model", "eval", "first": {sample: its first event with a
    response}, "match": {sample: what it was graded}}."""
    out: dict[str, Any] = {"first": {}, "match": {}}
    for _, record in records:
        if not isinstance(record, dict):
            continue
        spec, sample = record.get("spec"), str(record.get("sample_id"))
        if isinstance(spec, dict):
            out["model"] = value_at(spec, "completion_fns.0") or value_at(spec, "model_name")
            out["eval"] = spec.get("eval_name")
        elif record.get("type") == "sampling":
            out["first"].setdefault(sample, record.get("event_id"))
        elif record.get("type") == "match" and isinstance(record.get("data"), dict):
            out["match"].setdefault(sample, record["data"])
    return out


def sampled(record: dict[str, Any], survey: dict[str, Any]) -> dict[str, Any]:
    """An event of a log: the first with a response of each sample is one; any later one is of a judge as a rule."""
    sample = str(record.get("sample_id"))
    if record.get("type") != "sampling" or survey["first"].get(sample) != record.get("event_id"):
        return {**record, "@skip": True}
    said = value_at(record, "data.sampled")
    graded = survey["match"].get(sample, {})
    return {
        **record,
        "@model": survey.get("model"),
        "@eval": survey.get("eval"),
        "@said": said[0] if isinstance(said, list) and len(said) == 1 else said,
        **{f"@{name}": graded.get(name) for name in ("correct", "expected", "picked")},
    }


def promptfoo(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The prompt, which may be messages as JSON text; a provider is text in older files."""
    asked, provider = value_at(record, "prompt.raw"), record.get("provider")
    model = (provider.get("label") or provider.get("id")) if isinstance(provider, dict) else provider
    return {**record, "@prompt": chats.messages(asked) or asked, "@model": model}


DIALECTS: dict[str, Dialect] = {
    "gemini-batch": Dialect(
        shape="list",
        reads=("request.contents", "request.systemInstruction", "response.candidates"),
        needs=("response.candidates[].content",),
        fields={
            "model": "response.modelVersion",
            "id": ("key", "id"),
            "prompt": "@prompt",
            "response": "@choices[].text",
            "reasoning": "@choices[].reasoning",
            "finish": "@choices[].finish",
            "temperature": "request.generationConfig.temperature",
            "top_p": "request.generationConfig.topP",
            "top_k": "request.generationConfig.topK",
            "max_tokens": "request.generationConfig.maxOutputTokens",
        },
        prepare=gemini,
    ),
    "bedrock-batch": Dialect(
        shape="row",
        reads=("modelInput.messages", "modelInput.system", "modelInput.prompt"),
        needs=("recordId", "modelInput", "modelOutput"),
        fields={
            "model": "modelOutput.model",
            "id": "recordId",
            "prompt": "@prompt",
            "response": ("modelOutput.content", "modelOutput.generation", "modelOutput.output.message.content.0.text"),
            "finish": ("modelOutput.stop_reason", "modelOutput.stopReason"),
            "temperature": ("modelInput.temperature", "modelInput.inferenceConfig.temperature"),
            "top_p": ("modelInput.top_p", "modelInput.inferenceConfig.topP"),
            "top_k": "modelInput.top_k",
            "max_tokens": ("modelInput.max_tokens", "modelInput.max_gen_len", "modelInput.inferenceConfig.maxTokens"),
        },
        prepare=bedrock,
    ),
    "nemo-gym": Dialect(
        shape="list",
        reads=("response",),
        needs=("responses_create_params.input", "response", "reward"),
        fields={
            "model": "response.model",
            "id": "_ng_task_index",
            "sample": "_ng_rollout_index",
            "prompt": "responses_create_params.input",
            "prompt_ids": "@prompt_ids",
            "response": "@choices[].text",
            "reasoning": "@choices[].reasoning",
            "response_ids": "@choices[].ids",
            "response_logprobs": "@choices[].logprobs",
            "finish": "@choices[].finish",
            "score": "reward",
            "answer": "extracted_answer",
            "gold": "expected_answer",
            "group": "agent_ref.name",
            "temperature": ("responses_create_params.temperature", "response.temperature"),
            "top_p": ("responses_create_params.top_p", "response.top_p"),
            "max_tokens": ("responses_create_params.max_output_tokens", "response.max_output_tokens"),
        },
        prepare=nemo_gym,
    ),
    "llama-factory": Dialect(
        shape="row",
        needs=("prompt", "predict", "label"),
        only=("prompt", "predict", "label"),
        fields={"prompt": "prompt", "response": "predict", "gold": "label"},
    ),
    "openai-evals": Dialect(
        shape="row",
        reads=("data", "type", "event_id"),
        needs=("run_id", "event_id", "sample_id", "type", "data"),
        fields={
            "model": "@model",
            "id": "sample_id",
            "prompt": "data.prompt",
            "response": "@said",
            "correct": "@correct",
            "answer": "@picked",
            "gold": "@expected",
            "group": "@eval",
        },
        survey=openai_evals,
        prepare=sampled,
    ),
    "promptfoo": Dialect(
        shape="nested",
        reads=("prompt", "provider"),
        document_needs=("results.results[]", "results.stats"),
        rows="results.results[]",
        needs=("prompt.raw", "response"),
        fields={
            "model": "@model",
            "prompt": "@prompt",
            "response": "response.output",
            "correct": "success",
            "finish": "response.finishReason",
            "group": "testCase.description",
            "meta.score": "score",
            "meta.test": "testIdx",
        },
        prepare=promptfoo,
        note="correct means that all of a test's assertions passed (meta.score keeps promptfoo's grade).",
    ),
}
