"""The dialects whose rows need a few lines of code. Each function takes a record (and the survey, unused here) and
returns it with "@..." keys; what it can't understand it leaves out, so that the checks of the fields judge it."""

from __future__ import annotations

import json
from typing import Any

from analyzer.dumps.paths import MISSING, Fault, get, show

# fields of the package's own Parquet that are JSON text, as their shape differs between rows
AS_JSON = ("messages", "sampler", "base_logprobs", "policy_logprobs", "gold", "meta")


def canonical_parquet(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The fields that are JSON text in the package's own Parquet, as values."""
    out = dict(record)
    for name in AS_JSON:
        held = out.pop(f"{name}_json", None)
        if held is not None:
            try:
                out[name] = json.loads(held)
            except (ValueError, TypeError, RecursionError):
                raise Fault(f"bad {name}", f"{name}_json = {show(held)}; expected JSON") from None
    return out


def nemo_rl(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The texts of a sample, in one list (as every value of the row in a list of one), as prompt and response."""
    texts, score = record.get("content"), record.get("rewards")
    texts = texts[0] if isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], list) else texts
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(t, str) for t in texts):
        raise Fault("no response", f"content = {show(texts)}; expected the texts of prompt and response")
    return {
        **record,
        "@prompt": "".join(texts[:-1]),
        "@response": texts[-1],
        "@score": score[0] if isinstance(score, list) and len(score) == 1 else score,
        "@texts": len(texts) if len(texts) > 2 else None,
    }


def lighteval(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Ids where they fit the texts; the metric is per document, so it labels a sample only where there is one sample
    and one metric."""
    texts = get(record, "model_response.text")
    texts = texts if isinstance(texts, list) else record.get("predictions")
    prompt_ids, response_ids = (get(record, f"model_response.{k}") for k in ("input_tokens", "output_tokens"))
    metric = record.get("metric", record.get("metrics"))
    out = dict(record)
    if isinstance(prompt_ids, list) and prompt_ids:
        out["@prompt_ids"] = prompt_ids
    if isinstance(response_ids, list) and isinstance(texts, list) and len(response_ids) == len(texts):
        out["@response_ids"] = [ids or None for ids in response_ids]
    values = [v for v in metric.values() if isinstance(v, (int, float))] if isinstance(metric, dict) else []
    if isinstance(texts, list) and len(texts) == 1 and len(values) == 1:
        out["@score"] = values[0]
    return out


def lighteval_choices(records: list[Any]) -> str | None:
    """Why details of a task without generations can't be used, or None."""
    rows = [r for r in records if isinstance(r, dict)]
    held = [get(r, "model_response.text") for r in rows if "model_response" in r] or [
        r.get("predictions") for r in rows
    ]
    if not held or any(not isinstance(h, list) or any(isinstance(t, str) for t in h) for h in held):
        return None
    return (
        "these are LightEval details of a log-likelihood task (no row has a generated text), not sampled responses; "
        "choose a generative task"
    )


def lighteval_metrics(
    head: list[Any], fields: dict[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """A note where no sample gets a label: several metrics, or several samples under one metric."""
    rows = [r for r in head if isinstance(r, dict)]
    key = "metrics" if any(isinstance(r.get("metrics"), dict) for r in rows) else "metric"
    held = [r[key] for r in rows if isinstance(r.get(key), dict)]
    names = list(dict.fromkeys(k for m in held for k, v in m.items() if isinstance(v, (int, float))))
    texts = [
        t
        for r in rows
        if isinstance(t := get(r, "model_response.text"), list) or isinstance(t := r.get("predictions"), list)
    ]
    most = max(map(len, texts), default=0)
    if fields.get("score") != ("@score",) or not names:
        return fields, None
    if most > 1:
        return fields, (
            f"up to {most} samples of a document and one {key} for all of them, so that no sample has a label of its "
            "own: --grade gives labels by the reference answers."
        )
    if len(names) > 1:
        return fields, (
            f"{len(names)} metrics ({', '.join(names)}), none taken as the label: choose with "
            f"--map score={key}.{names[0]}."
        )
    return fields, None


def skythought(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Old files keep the responses by temperature: {"0.7": {content, correctness}} or {"0.7": [...]}."""
    held = record.get("responses")
    if isinstance(held, dict):
        held = [
            {**r, "@temperature": _float(t)} if isinstance(r, dict) else r
            for t, rs in held.items()
            for r in (rs if isinstance(rs, list) else [rs])
        ]
    return {**record, "@responses": held}


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def r1_zero(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The reference answer stands once for each sample."""
    gold = record.get("gt")
    return {
        **record,
        "@gold": gold[0] if isinstance(gold, list) and gold and gold.count(gold[0]) == len(gold) else gold,
    }


def run_code(head: list[Any], fields: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """A note where code was run in between (ToRA): its output stands in the responses."""
    held = [t for r in head if isinstance(r, dict) and isinstance(r.get("code"), list) for t in r["code"]]
    n = sum(isinstance(t, str) and "```output" in t for t in held)
    return fields, (
        f"{n:,} of the first {len(held):,} responses hold the output of code that was run (```output), which the model "
        "did not write: their perplexity is in part that of the interpreter."
        if n
        else None
    )


def evalplus(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """Correct: every status that is there is "pass", as EvalPlus counts it (BigCodeBench has one status)."""
    found = [record.get(k) for k in ("base_status", "plus_status", "status") if record.get(k) is not None]
    return {**record, "@correct": all(s == "pass" for s in found) if found else None}


def evalplus_statuses(records: list[Any]) -> str | None:
    """Why a file of results of old EvalPlus can't be used, or None."""
    if not records or not all(isinstance(r, Fault) for r in records):
        return None
    return (
        "these are results of EvalPlus before 0.2.1, which hold the statuses of the tests and no solutions; give the "
        "file of samples (unlabelled), or evaluate it again with a newer EvalPlus, whose results hold both"
    )


def prm800k(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """The solution that was labelled: the pre-generated steps (phase 2), else the chosen completions (phase 1). A step
    that a person wrote makes the row no sample of a model."""
    given, labelled = get(record, "question.pre_generated_steps"), get(record, "label.steps")
    steps, ratings = [], []
    for step in labelled if isinstance(labelled, list) else []:
        listed = step.get("completions") if isinstance(step, dict) else None
        listed = listed if isinstance(listed, list) else []
        chosen = step.get("chosen_completion") if isinstance(step, dict) else None
        if not isinstance(chosen, int) or not 0 <= chosen < len(listed):
            if not isinstance(given, list) and isinstance(step, dict) and step.get("human_completion") is not None:
                raise Fault("step by a person", "a step of this solution was written by the labeller, not by the model")
            chosen = 0
        completion = listed[chosen] if listed and isinstance(listed[chosen], dict) else {}
        steps.append(completion.get("text"))
        ratings.append(completion.get("rating"))
    lines = given if isinstance(given, list) and given else steps
    text = "\n".join(lines) if lines and all(isinstance(s, str) for s in lines) else None
    return {**record, "@response": text, "@ratings": ratings}


def without_nan(record: dict[str, Any], survey: Any = None) -> dict[str, Any]:
    """NaN in a column of numbers stands for nothing there: a reward function that did not apply."""
    return {k: None if isinstance(v, float) and v != v else v for k, v in record.items()}


def trl(head: list[Any], fields: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """TRL names a column after each reward function. One is the score; of several the user chooses."""
    taken = {"step", "prompt", "completion", "advantage", "advantages"}
    rows = [r for r in head if isinstance(r, dict)]
    names = dict.fromkeys(
        k for r in rows for k, v in r.items() if k not in taken and isinstance(v, float) and not k.startswith("@")
    )
    if "score" in fields or "correct" in fields or not names:
        return fields, None
    if len(names) == 1:
        return {**fields, "score": (next(iter(names)),)}, None
    return (
        {**fields, **{f"meta.{n}": (n,) for n in names}},
        f"{len(names)} reward columns ({', '.join(names)}), none taken as the label: choose with "
        f"--map score={next(iter(names))}.",
    )


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; [] for anything else."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def value_at(record: Any, path: str) -> Any:
    """The value at a path, or None."""
    value = get(record, path)
    return None if value is MISSING else value
