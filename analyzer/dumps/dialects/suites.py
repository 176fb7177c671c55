"""Dialects of evaluation suites and of APIs that keep whole conversations (the words of an entry: see dialect)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from analyzer.dumps.dialects import batch, chats
from analyzer.dumps.dialects.dialect import Dialect
from analyzer.dumps.names import RESPONSE

SAID = {"question": "@question", "prompt": "@prompt", "response": "@response", "reasoning": "@reasoning"}


OTHERS = (*RESPONSE, "choices")  # beside one of these, messages are a prompt


def cruxeval(document: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Records of CRUXEval: {id: [texts]}, or these as raw_generations beside raw_scored_generations {id: [bool]}."""
    texts = document.get("raw_generations", document)
    marks = document.get("raw_scored_generations")
    for count, (key, value) in enumerate(texts.items() if isinstance(texts, dict) else [], 1):
        record = {"@id": key, "generations": value}
        yield count, record | ({"graded": marks.get(key)} if isinstance(marks, dict) else {})


def by_place(file: Any) -> Iterator[tuple[int, Any]]:
    """Records of a JSON list of lists of texts, as the bigcode harness writes its generations."""
    for line, value in file.records():
        yield line, {"@place": line - 1, "@generations": value} if isinstance(value, list) else value


def convos(document: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Records of simple-evals: its conversations, each with its score where there are as many."""
    held, scores = document.get("convos"), document.get("scores")
    alike = isinstance(scores, list) and len(scores) == len(held)
    for count, said in enumerate(held, 1):
        yield count, {"messages": said, **({"score": scores[count - 1]} if alike else {})}


OPENCOMPASS = Dialect(
    shape="dict",
    needs=("origin_prompt", "prediction"),
    label="parent",
    reads=("origin_prompt", "prediction"),
    fields={"id": "@id", "prompt": "@prompt", "response": "@predictions[]", "gold": ("gold", "refr", "reference")},
    prepare=chats.opencompass,
    name=r"^(?P<group>.+?)(?:_\d+)?$",
)
DIALECTS: dict[str, Dialect] = {
    "livecodebench": Dialect(
        shape="list",
        needs=("question_content", "output_list[]", "code_list[]"),
        label="parent",
        fields={
            "question": "question_content",
            "id": "question_id",
            "response": "output_list[]",
            "correct": "graded_list[]",
            "answer": "code_list[]",
            "group": "platform",
            "meta.difficulty": "difficulty",
        },
        name=r"^Scenario\.\w+?_\d+_(?P<temperature>\d+\.\d+)(?:_eval_all)?$",
    ),
    "cruxeval": Dialect(
        shape="nested",
        document_needs=("raw_generations", "raw_scored_generations"),
        rows=cruxeval,
        needs=("generations[]",),
        fields={"id": "@id", "response": "generations[]", "correct": "graded[]"},
    ),
    "cruxeval-raw": Dialect(
        shape="nested",
        document_needs=("sample_0[]",),
        rows=cruxeval,
        needs=("generations[]",),
        fields={"id": "@id", "response": "generations[]"},
        note="generations of CRUXEval may begin with their prompt, which the file does not tell apart: look at one "
        "before scoring; labels are in the scored file.",
    ),
    "bigcode": Dialect(
        shape="list",
        needs=("@generations[]",),
        fields={"id": "@place", "response": "@generations[]"},
        note="the bigcode harness keeps neither ids nor prompts: problems go by their place in the file, which is "
        "the number of the task, and generations as a rule begin with their prompt: look at one before scoring.",
    ),
    "opencompass": OPENCOMPASS,
    "opencompass-rows": replace(
        OPENCOMPASS,
        shape="list",
        needs=("origin_prompt", "prediction", "data_abbr", "id"),
        fields={**OPENCOMPASS.fields, "id": "id"},
    ),
    "helm": Dialect(
        shape="nested",
        reads=("instance.references", "request.messages", "request.prompt"),
        document_needs=("adapter_spec", "request_states"),
        rows="request_states[]",
        needs=("instance", "request"),
        label="parent",
        fields={
            "model": "request.model",
            "id": "instance.id",
            "question": "instance.input.text",
            "prompt": "@prompt",
            "response": "result.completions[].text",
            "finish": "result.completions[].finish_reason.reason",
            "gold": "@gold",
            "temperature": "request.temperature",
            "top_p": "request.top_p",
            "max_tokens": "request.max_tokens",
        },
        prepare=chats.helm,
        note="HELM's labels are in per_instance_stats.json; --grade gives them by the reference answers.",
    ),
    "simple-evals": Dialect(
        shape="nested",
        reads=("messages",),
        document_needs=("convos[]", "htmls[]"),
        rows=convos,
        needs=("messages",),
        fields={**SAID, "score": "score", "meta.turns": "@turns"},
        prepare=chats.conversation,
    ),
    "evalscope": Dialect(
        shape="list",
        reads=("messages",),
        needs=("index", "model_output.choices[].message", "messages"),
        fields={
            "model": "model",
            "id": "index",
            "question": "@question",
            "prompt": "@prompt",
            "response": "model_output.choices[].message.content",
            "finish": "model_output.choices[].stop_reason",
        },
        name=r"^(?P<group>.+)$",
        prepare=chats.evalscope,
        note="evalscope's predictions have no labels; its reviews have them, and the responses too.",
    ),
    "evalscope-reviews": Dialect(
        shape="row",
        reads=("messages", "input", "sample_score.score"),
        needs=("index", "sample_score.score"),
        label="parent",
        fields={
            **SAID,
            "id": ("sample_score.group_id", "index"),
            "answer": "sample_score.score.extracted_prediction",
            "gold": "target",
            "score": "@score",
            "meta.turns": "@turns",
        },
        name=r"^(?P<group>.+)$",
        prepare=chats.reviewed,
    ),
    "verifiers": Dialect(
        shape="row",
        reads=("prompt", "completion", "error", "is_truncated"),
        needs=("prompt", "completion", "reward"),
        either=("generation_ms", "is_truncated", "timing"),
        label="grandparent",
        join={"verifiers-metadata": ""},
        fields={
            **SAID,
            "model": "@join.model",
            "id": "example_id",
            "score": "reward",
            "finish": "@finish",
            "gold": "answer",
            "temperature": "@join.sampling_args.temperature",
            "top_p": "@join.sampling_args.top_p",
            "max_tokens": "@join.sampling_args.max_tokens",
            "meta.turns": "@turns",
            "meta.metrics": "metrics",
        },
        name=r"^results$",
        prepare=chats.completed,
        adapt=chats.several,
    ),
    "verifiers-metadata": Dialect(shape="side", needs=("model", "num_examples", "rollouts_per_example")),
    "prime-rollouts": Dialect(
        shape="row",
        reads=("prompt", "completion", "error", "is_truncated"),
        needs=("run_id", "problem_id", "sample_id", "prompt", "completion", "reward", "advantage"),
        fields={
            **SAID,
            "source": "run_id",
            "id": "problem_id",
            "score": "reward",
            "gold": "answer",
            "step": "step",
            "group": "env_name",
            "meta.turns": "@turns",
        },
        prepare=chats.completed,
        adapt=chats.several,
    ),
    "conversation": Dialect(
        shape="row",
        reads=("messages", "conversations", "system"),
        needs=("messages",),
        without=OTHERS,
        when=chats.answered,
        fields={**SAID, "model": "model", "id": ("question_id", "uid", "id"), "meta.turns": "@turns"},
        prepare=chats.conversation,
        adapt=chats.several,
    ),
    "sharegpt": Dialect(
        shape="row",
        reads=("messages", "conversations", "system"),
        needs=("conversations",),
        without=OTHERS,
        when=chats.answered,
        fields={**SAID, "model": "model", "id": ("question_id", "uid", "id"), "meta.turns": "@turns"},
        prepare=chats.conversation,
        adapt=chats.several,
    ),
    "anthropic-batch": Dialect(
        shape="row",
        reads=("result.type", "result.error"),
        needs=("custom_id", "result.type"),
        join={"anthropic-batch-requests": "custom_id"},
        fields={
            "model": "result.message.model",
            "id": "custom_id",
            "prompt": "@prompt",
            "response": "result.message.content",
            "finish": "result.message.stop_reason",
            "temperature": "@join.params.temperature",
            "top_p": "@join.params.top_p",
            "top_k": "@join.params.top_k",
            "max_tokens": "@join.params.max_tokens",
        },
        prepare=batch.anthropic,
    ),
    "anthropic-batch-requests": Dialect(shape="side", needs=("custom_id", "params.messages"), key="custom_id"),
    "chat-completions": Dialect(
        shape="list",
        reads=("choices",),
        needs=("choices[].message", "usage", "model"),
        without=("custom_id", "response"),
        fields={
            "model": "model",
            "id": "id",
            "response": "@choices[].text",
            "reasoning": "@choices[].reasoning",
            "finish": "@choices[].finish",
        },
        prepare=batch.alone,
        note="answers of an API as they came, without the requests: problems go by the id of the answer, one each; "
        "--map question=FIELD where the rows have the question.",
    ),
}
