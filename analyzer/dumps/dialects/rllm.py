"""rllm episodes, as its episode logger, its evaluation store and `Episode.to_dict` write them: each step of a
trajectory is one call of the model, and one sample."""

from __future__ import annotations

from typing import Any

from analyzer.dumps.dialects.small import objects
from analyzer.dumps.paths import Fault


def prepare(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Add "@question", "@gold" and "@steps". The label of an episode belongs to the last step of its trajectory."""
    task = record.get("task")
    task = task if isinstance(task, dict) else {"question": task}
    meta = task.get("metadata") if isinstance(task.get("metadata"), dict) else {}
    held = objects(record.get("trajectories"))
    alone = len(held) == 1
    steps = []
    for trajectory in held:
        own = objects(trajectory.get("steps"))
        for turn, step in enumerate(own):
            last = turn == len(own) - 1
            steps.append(
                _step(step)
                | {
                    "correct": record.get("is_correct") if last and alone else None,
                    "score": trajectory.get("reward") if last and not alone else None,
                    "finish": {"max_response_length_exceeded": "length"}.get(str(record.get("termination_reason")))
                    if last
                    else None,
                    "turn": turn if len(own) > 1 else None,
                    "name": None if alone else trajectory.get("name"),
                }
            )
    if not steps:
        raise Fault("no samples", f"the episode ended without a step ({record.get('termination_reason')})")
    question = next((task[k] for k in ("question", "problem", "instruction", "prompt") if k in task), None)
    gold = next((d[k] for d in (task, meta) for k in ("ground_truth", "answer", "target") if k in d), None)
    return {**record, "@question": question if isinstance(question, str) else None, "@gold": gold, "@steps": steps}


def _step(step: dict[str, Any]) -> dict[str, Any]:
    """The last message of an assistant is the response, what stands before it the prompt."""
    chat = objects(step.get("chat_completions"))
    said = max((i for i, m in enumerate(chat) if m.get("role") == "assistant"), default=None)
    text = step.get("model_response") or (chat[said].get("content") if said is not None else step.get("output"))
    ids, logprobs = step.get("response_ids") or None, step.get("logprobs") or None
    return {
        "prompt": chat[:said] if said else None,
        "prompt_ids": step.get("prompt_ids") or None,
        "response": text or (None if ids else text),
        "response_ids": ids,
        "logprobs": logprobs if ids else None,
    }
