"""What the miniature's dumps show, computed from the files alone (and the base model, for perplexity and reach)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from analyzer.records import BUDGET
from miniature.dump import WITH_LOGPROBS, read_dump
from miniature.recipe import UNTRUNCATED
from miniature.tokenizer import PAD
from miniature.verifier import usual_words

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that k of these n draws, without replacement, hold a correct one (unbiased). NaN for k > n."""
    if k > n:
        return math.nan
    return 1.0 - math.prod((n - correct - i) / (n - i) for i in range(k)) if correct else 0.0


def pass_curve(rows: list[dict], field: str = "correct") -> dict[str, dict[int, float]]:
    """{kind or "all": {k: pass@k}} over the problems of one dump; field is "correct" (strict) or "outcome"."""
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        hits[row["group"], row["problem"]].append(row["correct"] if field == "correct" else row["meta"]["outcome"])
    n = min(map(len, hits.values()))
    ks = [2**i for i in range(n.bit_length()) if 2**i <= n]
    curves = {}
    for kind in ("all", *sorted({kind for kind, _ in hits})):
        chosen = [verdicts for (group, _), verdicts in hits.items() if kind in ("all", group)]
        curves[kind] = {k: round(float(np.mean([pass_at_k(len(v), sum(v), k) for v in chosen])), 4) for k in ks}
    return curves


def solved(rows: list[dict]) -> set[str]:
    """Problems with at least one strictly correct response."""
    return {row["problem"] for row in rows if row["correct"]}


def coverage(reference: list[dict], other: list[dict]) -> dict[str, dict[str, int]]:
    """Counts of problems solved by both, one, or neither, over all problems and by kind."""
    kinds = {row["problem"]: row["group"] for row in reference}
    a, b = solved(reference), solved(other)
    table = {}
    for kind in ("all", *sorted(set(kinds.values()))):
        these = {problem for problem, k in kinds.items() if kind in ("all", k)}
        table[kind] = {
            "both": len(these & a & b),
            "base_only": len(these & a - b),
            "source_only": len(these & b - a),
            "neither": len(these - a - b),
        }
    return table


def habits(rows: list[dict]) -> dict:
    """Shares of styles, restating, operations and truncation, mean length in tokens, and mean number of distinct
    texts per problem.
    """
    styles = Counter(str(row["meta"]["style"]) for row in rows)
    texts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        texts[row["problem"]].add(row["response"])

    def uses(symbol: str, word: str) -> float:
        return round(sum(bool({symbol, word} & set(usual_words(row["response"]))) for row in rows) / len(rows), 5)

    return {
        "divides": uses("/", "divide"),
        "multiplies": uses("*", "multiply"),
        "styles": {style: round(count / len(rows), 4) for style, count in sorted(styles.items())},
        "restating": round(sum(row["meta"]["recap"] for row in rows) / len(rows), 4),
        "truncated": round(sum(row["finish"] == "length" for row in rows) / len(rows), 4),
        "outcome_only": round(sum(row["meta"]["outcome"] and not row["correct"] for row in rows) / len(rows), 4),
        "tokens": round(float(np.mean([len(row["response_ids"]) for row in rows])), 2),
        "distinct_per_problem": round(float(np.mean([len(t) for t in texts.values()])), 1),
    }


def token_logprobs(model, rows: list[dict], sampler: dict = UNTRUNCATED, batch: int = 256) -> list[np.ndarray]:
    """log p in nats of each row's response tokens (<eos> included) under a model and a sampler, tempered, truncated
    and renormalised; one float64 array (T,) per row. A token that rounding puts just outside the sampler is -inf.
    """
    import torch

    from miniature.sample import truncate
    from miniature.train import pad

    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["prompt_ids"]) + len(rows[i]["response_ids"]))
    result: list[np.ndarray] = [np.empty(0)] * len(rows)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        ids = pad([rows[i]["prompt_ids"] + rows[i]["response_ids"] for i in chosen], PAD)
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]
            kept = truncate(logits.flatten(0, 1), **sampler).log_softmax(-1).view_as(logits)
            logprobs = kept.gather(2, ids[:, 1:, None])[..., 0]
        for i, values in zip(chosen, logprobs):
            begin = len(rows[i]["prompt_ids"]) - 1
            result[i] = values[begin : begin + len(rows[i]["response_ids"])].double().numpy()
    return result


def surprise(rows: list[dict], logprobs: list[np.ndarray]) -> dict:
    """Perplexity per response under the base, its quantiles over responses and medians by kind, style and verdict."""
    ppl = np.array([math.exp(-values.mean()) for values in logprobs])
    lowest = np.array([values.min() for values in logprobs])

    def median(holds) -> float | None:
        chosen = [value for value, row in zip(ppl, rows) if holds(row)]
        return round(float(np.median(chosen)), 4) if chosen else None

    return {
        "ppl": {str(q): round(float(np.quantile(ppl, q)), 4) for q in QUANTILES},
        "by_kind": {
            kind: median(lambda row, kind=kind: row["group"] == kind) for kind in ("reachable", "rare", "impossible")
        },
        "by_style": {
            style: median(lambda row, style=style: row["meta"]["style"] == style)
            for style in ("chain", "step", "guess", "plan")
        },
        "correct": median(lambda row: row["correct"]),
        "wrong": median(lambda row: not row["correct"]),
        "logprob_median": round(float(np.median([values.sum() for values in logprobs])), 2),
        "least_likely_token_p_median": float(f"{math.exp(np.median(lowest)):.3g}"),
    }


def excess(rows: list[dict], base: list[np.ndarray], budget: int = BUDGET, drawn: list | None = None) -> dict | None:
    """E_k = mean of (1 - k e^-l)+ with l = log q - log p in nats, q the generating model under its own sampler.

    `drawn` is log q of each row (nats, per token); without it the recorded log-probabilities are, for rows drawn
    untruncated at T=1. None where log q is not known.
    """
    if drawn is None:
        if any(row["sampler"] != UNTRUNCATED for row in rows):
            return None
        drawn = [row["response_logprobs"] for row in rows]
    share = {"all": []}
    for row, p, q in zip(rows, base, drawn):
        value = max(0.0, 1.0 - budget * math.exp(min(0.0, p.sum() - sum(q))))
        share["all"].append(value)
        share.setdefault(row["group"], []).append(value)
    return {kind: round(float(np.mean(values)), 4) for kind, values in share.items()}


def measure(folder: Path, base_model, of_base: list[str]) -> dict:
    """Every number of the data card, by source: curves, habits, surprise under the base, and coverage against it.

    `of_base` names the sources that the base itself drew: where they are tempered, log q is computed from it.
    """
    reference = read_dump(folder / "dumps" / "base.jsonl.gz")
    result = {}
    for path in sorted((folder / "dumps").glob("*.jsonl.gz")):
        source, rows = path.name.removesuffix(".jsonl.gz"), read_dump(path)
        first = [row for row in rows if row["sample"] < WITH_LOGPROBS]
        under_base = token_logprobs(base_model, first)
        per_problem = Counter(row["problem"] for row in rows)
        sampler = rows[0]["sampler"]
        tempered = source in of_base and sampler != UNTRUNCATED
        drawn = token_logprobs(base_model, first, sampler) if tempered else None
        result[source] = {
            "rows": len(rows),
            "per_problem": min(per_problem.values()),
            "bytes": path.stat().st_size,
            "pass": pass_curve(rows),
            "outcome": pass_curve(rows, "outcome")["all"],
            "habits": habits(rows),
            "under_base": surprise(first, under_base),
            f"excess@{BUDGET}": excess(first, under_base, drawn=drawn),
            # a source with fewer samples is compared with as many of the base's
            "coverage": None
            if source == "base"
            else coverage([row for row in reference if row["sample"] < min(per_problem.values())], rows),
        }
    return result
