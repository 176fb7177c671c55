"""Dialects of published sets of traces (the words of an entry: see dialect)."""

from __future__ import annotations

from analyzer.dumps.dialects import small
from analyzer.dumps.dialects.dialect import Dialect

DIALECTS: dict[str, Dialect] = {
    "tot": Dialect(
        shape="list",
        needs=("ys[]",),
        either=("infos[]", "accs[]"),
        fields={"id": "idx", "response": "ys[]", "score": ("infos[].r", "accs[]")},
        name=r"^(?P<group>game24|crosswords|text)_(?:.*_(?P<temperature>\d\.\d+)_)?",
    ),
    "openai-gsm8k": Dialect(
        shape="wide",
        needs=("question", "ground_truth", "*.solution"),
        fields={"question": "question", "gold": "ground_truth", "response": "*.solution", "correct": "*.is_correct"},
    ),
    "long-traces": Dialect(
        shape="row",
        needs=("problem", "response", "pred", "correct", "old_correct"),
        fields={
            "question": "problem",
            "id": "id",
            "response": "response",
            "answer": "pred",
            "gold": "answer",
            "correct": "correct",
            "group": "subject",
            "max_tokens": "max_new_tokens",
            "meta.level": "level",
            "meta.precision": "precision",
            "meta.old_correct": "old_correct",
        },
    ),
    "openr1-math": Dialect(
        shape="list",
        needs=("problem", "generations[]", "correctness_math_verify[]"),
        fields={
            "question": "problem",
            "id": "uuid",
            "response": "generations[]",
            "correct": "correctness_math_verify[]",
            "finish": "finish_reasons[]",
            "gold": "answer",
            "group": "source",
            "meta.type": "problem_type",
            "meta.complete": "is_reasoning_complete[]",
            "meta.correctness_llama": "correctness_llama[]",
        },
    ),
    "prm800k": Dialect(
        shape="row",
        reads=("question.pre_generated_steps", "label.steps"),
        needs=("labeler", "question.problem", "label.steps"),
        fields={
            "question": "question.problem",
            "response": "@response",
            "answer": "question.pre_generated_answer",
            "gold": "question.ground_truth_answer",
            "meta.ratings": "@ratings",
            "meta.finish_reason": "label.finish_reason",
            "meta.generation": "generation",
        },
        prepare=small.prm800k,
        note="PRM800K rates steps, not solutions: traces have no label (meta.ratings keeps the ratings of the "
        "steps); grading against the reference answer gives one.",
    ),
}
