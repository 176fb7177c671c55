"""Dialects of RL trainers: what they write during training or validation (the words of an entry: see dialect)."""

from __future__ import annotations

from analyzer.dumps.dialects import rllm, small
from analyzer.dumps.dialects.dialect import Dialect

DIALECTS: dict[str, Dialect] = {
    "verl": Dialect(
        shape="row",
        needs=("input", "output", "score", "step"),
        label="parent",
        fields={
            "question": "input",
            "response": "output",
            "correct": "acc",
            "score": "score",
            "gold": ("gts", "ground_truth"),
            "answer": "pred",
            "step": "step",
            "group": "data_source",
        },
        note="verl writes prompts with their special tokens stripped: the prompt ids can't be recovered, so "
        "`input` is kept as the question (--map prompt=input where it had none).",
    ),
    "verl-generation": Dialect(
        shape="list",
        needs=("prompt", "responses[]", "reward_model.ground_truth"),
        fields={
            "prompt": "prompt",
            "response": "responses[]",
            "gold": "reward_model.ground_truth",
            "group": "data_source",
        },
    ),
    "trl": Dialect(
        shape="row",
        needs=("step", "prompt", "completion"),
        either=("advantage", "advantages"),
        label="parent",
        fields={"question": "prompt", "response": "completion", "step": "step"},
        prepare=small.without_nan,
        adapt=small.trl,
        note="TRL writes prompts with their special tokens stripped: the prompt ids can't be recovered, so `prompt` "
        "is kept as the question (--map prompt=prompt where it had none).",
    ),
    "nemo-rl": Dialect(
        shape="row",
        needs=("content[]", "rewards", "input_lengths"),
        label="parent",
        fields={"prompt": "@prompt", "response": "@response", "score": "@score", "meta.texts": "@texts"},
        name=r"_step_?(?P<step>\d+)$",
        prepare=small.nemo_rl,
        note="NeMo-RL logs the texts of a sample without their roles: the last text is taken as the response and "
        "what stands before it as the prompt (meta.texts counts more than two); its log-probs run over both and were "
        "not read.",
    ),
    "openrlhf": Dialect(
        shape="row",
        needs=("input", "output"),
        only=("input", "output", "reward"),
        fields={"prompt": "input", "response": "output", "meta.reward": "reward"},
        note="`reward` of OpenRLHF is a reward model's number and no label; it is kept in meta (--map score=reward "
        "--threshold X makes it one).",
    ),
    "open-instruct": Dialect(
        shape="row",
        needs=("prompt_tokens", "response_tokens", "reward", "step"),
        fields={
            "prompt_ids": "prompt_tokens",
            "response": "@response",  # there is no text, only ids
            "response_ids": "response_tokens",
            "response_logprobs": "logprobs",
            "score": "reward",
            "finish": "finish_reason",
            "group": "dataset",
            "step": "step",
        },
        name=r"^(?P<source>.+)_rollouts_\d+$",
        note="open-instruct's reward may add a format reward to the verifiable one (10 by default): check that "
        "--threshold separates correct from wrong.",
    ),
    "open-instruct-metadata": Dialect(shape="side", needs=("run_name", "git_commit", "model_name", "timestamp")),
    "rllm": Dialect(
        shape="list",
        reads=("task", "trajectories", "is_correct", "termination_reason"),
        needs=("task", "trajectories[].steps"),
        label="parent",
        fields={
            "question": "@question",
            "prompt": "@steps[].prompt",
            "prompt_ids": "@steps[].prompt_ids",
            "response": "@steps[].response",
            "response_ids": "@steps[].response_ids",
            "response_logprobs": "@steps[].logprobs",
            "correct": "@steps[].correct",
            "score": "@steps[].score",
            "finish": "@steps[].finish",
            "gold": "@gold",
            "step": "training_step",
            "group": "task.data_source",
            "meta.turn": "@steps[].turn",
            "meta.trajectory": "@steps[].name",
        },
        prepare=rllm.prepare,
    ),
    "rllm-metadata": Dialect(shape="side", needs=("dataset", "model", "agent", "timestamp")),
    "polaris": Dialect(
        shape="row",
        needs=("example_id", "prompt", "answer", "seed", "response"),
        label="parent",
        fields={
            "question": "prompt",
            "id": "example_id",
            "response": "response",
            "gold": "answer",
            "seed": "seed",
            "group": "task_name",
        },
    ),
    "roll": Dialect(
        shape="row",
        needs=("prompt", "responses", "scores", "global_step", "domain", "sampling_params"),
        label="parent",
        fields={
            "id": "id",
            "prompt": "prompt",
            "response": "responses",
            "score": "scores",
            "gold": "ground_truth",
            "step": "global_step",
            "group": ("source", "domain"),
            "meta.difficulty": "difficulty",
        },
    ),
}
