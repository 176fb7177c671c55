"""Dialects of agents' trajectories and of benchmarks that keep several turns (the words of an entry: see dialect)."""

from __future__ import annotations

from typing import Any

from analyzer.dumps.dialects import chats
from analyzer.dumps.dialects.dialect import Dialect
from analyzer.dumps.dialects.small import objects, value_at
from analyzer.dumps.paths import Fault, show

SAID = {"question": "@question", "prompt": "@prompt", "response": "@response", "meta.turns": "@turns"}


def history(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """A trajectory of SWE-agent: what the model saw and said is its history."""
    return chats.turns(record, None, record.get("history"))


def tau(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """An episode of tau-bench: "@task" names its problem, since a simulated user's words differ between trials."""
    domain = value_at(record, "@0.info.environment_info.domain_name")
    task = record.get("task_id")
    said = chats.turns(record, None, record.get("messages", record.get("traj")))
    return {**said, "@task": f"{domain}-{task}" if domain else task}


def turns(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """An answer of MT-Bench's kind: of several turns the last is the response, what stands before it the prompt."""
    asked = value_at(record, "@join.turns")
    asked = asked if isinstance(asked, list) and all(isinstance(q, str) for q in asked) else []
    choices = []
    for choice in objects(record.get("choices")):
        said = choice.get("turns")
        said = [t.get("content") if isinstance(t, dict) else t for t in said] if isinstance(said, list) else []
        if not said or not all(isinstance(t, str) for t in said):
            raise Fault("no response", f"turns = {show(said)}; expected one text for each turn")
        pairs = zip(asked, said, strict=False)
        before = [{"role": r, "content": c} for p in pairs for r, c in zip(("user", "assistant"), p, strict=True)]
        prompt = before[: 2 * len(said) - 1] if len(asked) >= len(said) else None
        choices.append({"text": said[-1], "prompt": prompt, "turns": len(said) if len(said) > 1 else None})
    return {**record, "@choices": choices, "@question": "\n\n".join(asked) or None}


def matharena(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The conversations of one problem as "@samples"; what a model thought is a message of its own."""
    samples = []
    for said in record["messages"] if isinstance(record.get("messages"), list) else ():
        held = chats.messages(said) or []
        thought = held.pop(-2) if len(held) > 1 and held[-2].get("type") == "cot" else {}
        last = chats.turns({}, None, held)
        samples.append({k[1:]: v for k, v in last.items()} | {"reasoning": thought.get("content")})
    return {**record, "@samples": samples}


DIALECTS: dict[str, Dialect] = {
    "swe-agent": Dialect(
        shape="row",
        reads=("history",),
        needs=("trajectory[]", "history[].role", "info"),
        label="parent",
        inside=r".+__.+-\d+",
        name=r"^(?P<id>.+)\.traj$",
        fields={**SAID, "id": "instance_id", "meta.exit_status": "info.exit_status"},
        prepare=history,
        note=chats.TURNS,
    ),
    "mini-swe-agent": Dialect(
        shape="row",
        reads=("messages", "trajectory_format"),
        needs=("messages", "info", "trajectory_format"),
        label="parent",
        inside=r".+__.+-\d+",
        name=r"^(?P<id>.+)\.traj$",
        fields={
            **SAID,
            "model": "info.config.model.model_name",
            "id": "instance_id",
            "temperature": "info.config.model.model_kwargs.temperature",
            "meta.exit_status": "info.exit_status",
        },
        prepare=chats.conversation,
        note=chats.TURNS,
    ),
    "tau-bench": Dialect(
        shape="row",
        reads=("traj",),
        needs=("task_id", "reward", "info", "traj", "trial"),
        fields={**SAID, "problem": "@task", "sample": "trial", "score": "reward"},
        prepare=tau,
        note=chats.TURNS,
    ),
    "tau2-bench": Dialect(
        shape="nested",
        reads=("messages", "task_id"),
        document_needs=("simulations[]", "tasks[]", "info"),
        rows="simulations[]",
        needs=("task_id", "messages", "reward_info"),
        fields={
            **SAID,
            "model": "@0.info.agent_info.llm",
            "problem": "@task",
            "sample": "trial",
            "seed": "seed",
            "score": "reward_info.reward",
            "group": "@0.info.environment_info.domain_name",
            "temperature": "@0.info.agent_info.llm_args.temperature",
            "meta.termination_reason": "termination_reason",
        },
        prepare=tau,
        note=chats.TURNS,
    ),
    "fastchat": Dialect(
        shape="list",
        reads=("choices",),
        needs=("question_id", "answer_id", "model_id", "choices[].turns"),
        join={"fastchat-questions": "question_id"},
        fields={
            "model": "model_id",
            "id": "question_id",
            "question": "@question",
            "prompt": "@choices[].prompt",
            "response": "@choices[].text",
            "group": ("category", "@join.category"),
            "meta.turns": "@choices[].turns",
        },
        prepare=turns,
    ),
    "fastchat-questions": Dialect(shape="side", needs=("question_id", "category", "turns[]"), key="question_id"),
    "matharena": Dialect(
        shape="list",
        reads=("messages",),
        needs=("problem", "gold_answer", "messages[]", "answers[]", "correct[]"),
        label="parent",
        fields={
            "question": "problem",
            "id": "idx",
            "prompt": "@samples[].prompt",
            "response": "@samples[].response",
            "reasoning": "@samples[].reasoning",
            "correct": "correct[]",
            "answer": "answers[]",
            "gold": "gold_answer",
            "meta.turns": "@samples[].turns",
            "meta.warnings": "warnings[]",
        },
        prepare=matharena,
    ),
    "bfcl": Dialect(
        shape="row",
        needs=("id", "result", "input_token_count", "output_token_count", "latency"),
        label="parent",
        name=r"^BFCL_v\d+_(?P<group>.+)_result$",
        fields={"id": "id", "response": "result"},
        note="results of BFCL hold neither prompts nor labels; rows whose result is a call of functions are rejected.",
    ),
}
