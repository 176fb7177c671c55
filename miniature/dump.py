"""Dumps of the miniature: canonical rows, one per sample, gzip-compressed JSONL with the same bytes for the same
rows.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from miniature import tokenizer
from miniature.recipe import UNTRUNCATED
from miniature.rewrites import REWRITES
from miniature.traces import teacher_response
from miniature.verifier import grade, restates, style_of

WITH_LOGPROBS = 64  # log-probabilities are kept for samples below this: they are most of a dump's size


def row(
    source: str,
    problem: dict,
    number: int,
    response_ids: list[int],
    logprobs: list[float] | None,
    sampler: dict | None,
    finish: str,
) -> dict:
    """One canonical row; the text is what the ids spell, and the verdict is the verifier's on that text."""
    response = tokenizer.decode(response_ids)
    verdict = grade(problem["prompt"], response)
    kept = {}
    if logprobs is not None and number < WITH_LOGPROBS:
        # + 0.0 turns -0.0 into 0.0
        kept = {"response_logprobs": [round(value, 5) + 0.0 for value in logprobs], "logprobs_temperature": 1.0}
    return {
        "source": source,
        "problem": problem["id"],
        "sample": number,
        "prompt": problem["prompt"],
        "response": response,
        "prompt_ids": prompt_ids(problem),
        "response_ids": response_ids,
        **kept,
        "sampler": sampler,
        "finish": finish,
        "correct": verdict["correct"],
        "answer": verdict["answer"],
        "group": problem["kind"],
        "meta": {
            "outcome": verdict["outcome"],
            "kind": problem["kind"],
            "style": style_of(response),
            "recap": restates(response),
        },
    }


def prompt_ids(problem: dict) -> list[int]:
    """<bos> and the question."""
    return [tokenizer.BOS, *tokenizer.encode(problem["prompt"].split())]


def sampled_rows(
    source: str, model, problems: list[dict], n: int, sampler: dict, seed: int, new_tokens: int | None = None
) -> Iterator[dict]:
    """n draws per problem from a model, in the order of the problems; `new_tokens` is the longest response."""
    import torch

    from miniature.sample import NEW_TOKENS, sample, weights

    questions = [prompt_ids(problem) for problem in problems for _ in range(n)]
    generator = torch.Generator().manual_seed(seed)
    drawn = sample(weights(model), questions, generator, sampler=sampler, new_tokens=new_tokens or NEW_TOKENS)
    for i, (ids, logprobs, finish) in enumerate(drawn):
        yield row(source, problems[i // n], i % n, ids, logprobs, sampler, finish)


def best_rows(source: str, model, problems: list[dict], n: int, of: int, seed: int) -> Iterator[dict]:
    """n rows per problem, each the best of `of` untruncated draws: a random one of the strictly correct, else a random
    one of all. No draw serves two rows. How likely such a row is, is not known: no log-probabilities, no sampler.
    """
    import torch

    from miniature.sample import sample, weights

    w, generator, rng = weights(model), torch.Generator().manual_seed(seed), random.Random(seed)
    for problem in problems:
        drawn = sample(w, [prompt_ids(problem)] * (n * of), generator, batch=1024)
        for number in range(n):
            those = [(ids, finish) for ids, _, finish in drawn[number * of : (number + 1) * of]]
            right = [item for item in those if grade(problem["prompt"], tokenizer.decode(item[0]))["correct"]]
            ids, finish = rng.choice(right or those)
            yield row(source, problem, number, ids, None, None, finish)


def rewritten_rows(source: str, model, problems: list[dict], n: int, rewrite: str, seed: int) -> Iterator[dict]:
    """n untruncated draws per problem, rewritten by REWRITES[rewrite]; a changed verdict is an error."""
    rng, by_id = random.Random(seed), {problem["id"]: problem for problem in problems}
    for one in sampled_rows(source, model, problems, n, UNTRUNCATED, seed):
        words = REWRITES[rewrite](one["response"].split(), one["prompt"], rng)
        ids = tokenizer.encode(words) + one["response_ids"][-1:] * (one["finish"] == "stop")
        made = row(source, by_id[one["problem"]], one["sample"], ids, None, None, one["finish"])
        if (made["correct"], made["answer"]) != (one["correct"], one["answer"]):
            raise ValueError(f"{rewrite} changed the verdict on {one['response']!r}: {made['response']!r}")
        yield made


def teacher_rows(source: str, problems: list[dict], n: int, seed: int) -> Iterator[dict]:
    """n traces per problem from the solver: random correct chains in the base's own wording, all correct by
    construction.
    """
    rng = random.Random(seed)
    for problem in problems:
        for number in range(n):
            words = teacher_response(tuple(problem["numbers"]), problem["goal"], problem["kind"], rng)
            yield row(source, problem, number, [*tokenizer.encode(words), tokenizer.EOS], None, None, "stop")


def write_dump(path: Path, rows: Iterable[dict]) -> None:
    """Write rows; the time stamp in the gzip header is zero, so equal rows give equal files."""
    unfinished = path.with_name(path.name + ".part")
    with (
        open(unfinished, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed,
    ):
        for one in rows:
            packed.write(json.dumps(one, separators=(",", ":")).encode() + b"\n")
    unfinished.replace(path)


def read_dump(path: Path) -> list[dict]:
    """All rows of a dump written by `write_dump`."""
    with gzip.open(path, "rb") as lines:
        return [json.loads(line) for line in lines]
