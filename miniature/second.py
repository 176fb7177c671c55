"""Build the second world (`python -m miniature build --world second`): models, dumps, truths and card of `grid`.

Training, sampling, the update and the measures are those of the first world; what differs is the domain, the
tokenizer and the size (192,000 parameters). About a quarter of an hour on one core.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from miniature import grid
from miniature.build import load_model, load_problems, write_json
from miniature.dump import WITH_LOGPROBS, read_dump, write_dump
from miniature.recipe import COLD, COOL, UNTRUNCATED
from miniature.second_models import DISTILL, GRPO, MODELS, NEW_TOKENS, PRETRAIN, SEEDS
from miniature.truths import TRUTHS as FIRST_TRUTHS

COUNTS = {"open": 32, "walled": 16}
PROBLEM_SEED = 9141

SOURCES = {
    "base": {"model": "base", "n": 128, "sampler": UNTRUNCATED, "seed": 3201},
    "base-again": {"model": "base", "n": 64, "sampler": UNTRUNCATED, "seed": 3202},
    "cool": {"model": "base", "n": 64, "sampler": COOL, "seed": 3203},
    "cold": {"model": "base", "n": 64, "sampler": COLD, "seed": 3204},
    "best-of-16": {"model": "base", "n": 64, "sampler": None, "seed": 3205, "best_of": 16},
    "rlvr": {"model": "rlvr", "n": 64, "sampler": UNTRUNCATED, "seed": 3206},
    "distill": {"model": "distill", "n": 64, "sampler": UNTRUNCATED, "seed": 3207},
    "teacher": {"model": None, "n": 64, "sampler": None, "seed": 3208},
}

# the truths of both worlds are the same, computed or by the making; what is said of the making is this world's
MADE_BY = {
    "rlvr": "GRPO paid by the strict verdict: a temperature explains 5 % of what it moved",
    "distill": "fine-tuned on a teacher that jumps, in the base's `sum` style",
    "teacher": "the solver that distill learned from: shortest paths with jumps; no log q, so by novelty",
}
TRUTHS = {source: FIRST_TRUTHS[source] for source in SOURCES}
TRUTHS |= {source: TRUTHS[source] | {"made_by": made_by} for source, made_by in MADE_BY.items()}


def make_problems(seed: int) -> list[dict]:
    """The evaluation set: COUNTS problems of each kind, no two alike."""
    rng, problems, seen = random.Random(seed), [], set()
    for kind, count in COUNTS.items():
        while sum(problem["kind"] == kind for problem in problems) < count:
            problem = grid.random_problem(kind, rng)
            if problem not in seen:
                seen.add(problem)
                problems.append({"id": f"g{len(problems):04d}", "prompt": grid.prompt_text(problem), "kind": kind})
    return problems


def row(source: str, problem: dict, number: int, ids: list[int], logprobs, sampler: dict | None, finish: str) -> dict:
    """One canonical row, as in the first world."""
    response = grid.decode(ids)
    verdict = grid.grade(problem["prompt"], response)
    kept = {}
    if logprobs is not None and number < WITH_LOGPROBS:
        kept = {"response_logprobs": [round(value, 5) + 0.0 for value in logprobs], "logprobs_temperature": 1.0}
    return {
        "source": source,
        "problem": problem["id"],
        "sample": number,
        "prompt": problem["prompt"],
        "response": response,
        "prompt_ids": [grid.BOS, *grid.encode(problem["prompt"])],
        "response_ids": ids,
        **kept,
        "sampler": sampler,
        "finish": finish,
        "correct": verdict["correct"],
        "answer": verdict["answer"],
        "group": problem["kind"],
        "meta": {"outcome": verdict["outcome"], "kind": problem["kind"], "style": grid.style_of(response)},
    }


def rows_of(source: str, folder: Path) -> Iterator[dict]:
    """The rows of a source, from its recipe."""
    import torch

    from miniature.sample import sample, weights

    recipe, rng = SOURCES[source], random.Random(SOURCES[source]["seed"])
    n, of = recipe["n"], recipe.get("best_of", 1)
    generator = torch.Generator().manual_seed(recipe["seed"])
    w = weights(load_model(folder, recipe["model"])) if recipe["model"] else None
    for problem in load_problems(folder):
        if w is None:
            texts = [grid.teacher(grid.parse_prompt(problem["prompt"]), rng) for _ in range(n)]
            drawn = [([*grid.encode(text), grid.EOS], None, "stop") for text in texts]
        else:
            asked = [[grid.BOS, *grid.encode(problem["prompt"])]] * (n * of)
            sampler = recipe["sampler"] or UNTRUNCATED
            drawn = sample(w, asked, generator, sampler=sampler, new_tokens=NEW_TOKENS, batch=1024)
        for number in range(n):
            those = drawn[number * of : (number + 1) * of]
            right = [one for one in those if grid.grade(problem["prompt"], grid.decode(one[0]))["correct"]]
            ids, logprobs, finish = rng.choice(right or those) if of > 1 else those[0]
            yield row(source, problem, number, ids, logprobs if of == 1 else None, recipe["sampler"], finish)


def measure(folder: Path) -> dict:
    """By source: pass@k, median perplexity under the base, E_64 where log q is known, shares of styles and jumps."""
    import numpy as np

    from miniature.measure import excess, pass_curve, token_logprobs

    base, result = load_model(folder, "base"), {}
    for source, recipe in SOURCES.items():
        path = folder / "dumps" / f"{source}.jsonl.gz"
        rows = read_dump(path)
        first = [one for one in rows if one["sample"] < WITH_LOGPROBS]
        under = token_logprobs(base, first)
        tempered = recipe["model"] == "base" and recipe["sampler"] in (COOL, COLD)
        drawn = token_logprobs(base, first, recipe["sampler"]) if tempered else None
        ppl = [float(np.exp(-values.mean())) for values in under]
        result[source] = {
            "rows": len(rows),
            "bytes": path.stat().st_size,
            "pass": pass_curve(rows),
            "outcome": pass_curve(rows, "outcome")["all"],
            "ppl_median": round(float(np.median(ppl)), 4),
            "excess@64": excess(first, under, drawn=drawn),
            "walk": round(sum(one["meta"]["style"] == "walk" for one in rows) / len(rows), 4),
            "jumps": round(sum(any(j in one["response"] for j in grid.JUMPS) for one in rows) / len(rows), 4),
        }
    return result


CARD = """\
# The second world: data card

Written by `python -m miniature build --world second` from the files beside it; do not edit. Paths on a 5 x 5 grid
with walls, one character a token: another domain and another tokenizer than the miniature's. **It checks thresholds
that were set on the miniature and never sets them.** Row format, `correct` (strict), `meta.outcome` (the answer alone)
and `response_logprobs` (T = 1, nats) are the miniature's. Truths by the way of making: `truths.json`.

{counts}, seed {seed}. `open`: reached by moves; `walled`: by jumps alone, certified by search.

{sources}

{models}

Built in: moves u r d l; jumps (8 6 2 4, two cells far, over walls) stand in pretraining's `f:` lines alone, never in a
path. Most paths of pretraining lead nowhere in particular (aimed: {aimed}), {slip:.0%} of the cells are written wrong.
rlvr is GRPO paid by the strict verdict; distill learned shortest paths with jumps in the base's `sum` style from the
solver (`teacher`). The evaluation questions are kept out of both trainings, not out of pretraining. Llama, {size:,}
parameters; one thread, shared machine. One training seed.

Came by itself: the base plans poorly (it reaches the goal far less often than its corpus does) and jumps now and then,
which no path of the corpus does; what rlvr and distill keep and lose; the perplexities and E_64.

    pretraining   {pretrain}
    GRPO          {grpo}
    distillation  {distill}
"""


def card(measured: dict, training: dict) -> str:
    """The card, from measured.json and training.json."""
    from miniature.card import listed, table

    rows = []
    for source, item in measured.items():
        curve = [item["pass"]["all"].get(k) for k in ("1", "16", "64", "128")]
        kinds = [item["pass"][kind]["64"] for kind in COUNTS]
        reach = (item["excess@64"] or {}).get("all")
        recipe = SOURCES[source]
        rows.append([source, recipe["seed"], item["rows"], *curve, *kinds, item["outcome"]["1"], item["ppl_median"]])
        rows[-1] += [reach, item["walk"], item["jumps"], round(item["bytes"] / 1000)]
    head = ["source", "seed", "rows", "@1", "@16", "@64", "@128", "open @64", "walled @64", "outcome @1"]
    head += ["median PPL under base", "E_64", "walk", "jumps", "KB"]
    trained = []
    for name, record in training.items():
        last = record["history"][-1] if "history" in record else None
        end = f"reward {last['reward']}, entropy {last['entropy']}" if last else f"loss {record['loss']}"
        trained.append([name, record["seed"], record["steps"], record["tokens"], round(record["seconds"]), end])
    return CARD.format(
        counts=f"{sum(COUNTS.values())} problems ({listed(COUNTS)})",
        seed=PROBLEM_SEED,
        sources=table(head, rows),
        models=table(["model", "seed", "steps", "tokens", "seconds", "end"], trained),
        aimed=listed(grid.CORPUS["aimed"]),
        slip=grid.CORPUS["slip"],
        size=training["base"]["parameters"],
        pretrain=PRETRAIN,
        grpo=GRPO,
        distill=DISTILL,
    )


def problems_stage(folder: Path, log) -> None:
    """problems.json"""
    problems = make_problems(PROBLEM_SEED)
    write_json(folder / "problems.json", {"schema": 1, "seed": PROBLEM_SEED, "problems": problems})


def model_stage(name: str) -> Callable[[Path, Callable], None]:
    """models/NAME and its entry in training.json."""

    def run(folder: Path, log) -> None:
        from miniature.train import save_model

        model, record = MODELS[name](folder, log)
        path = folder / "training.json"
        records = json.loads(path.read_text()) if path.exists() else {}
        size = sum(parameter.numel() for parameter in model.parameters())
        records[name] = {"seed": SEEDS[name], "parameters": size, **record}
        write_json(path, {known: records[known] for known in MODELS if known in records})
        save_model(model, folder / "models" / name, grid.build_tokenizer())

    return run


def dump_stage(source: str) -> Callable[[Path, Callable], None]:
    """dumps/SOURCE.jsonl.gz"""

    def run(folder: Path, log) -> None:
        (folder / "dumps").mkdir(exist_ok=True)
        write_dump(folder / "dumps" / f"{source}.jsonl.gz", rows_of(source, folder))

    return run


def truths_stage(folder: Path, log) -> None:
    """truths.json"""
    write_json(folder / "truths.json", {"schema": 1, "budget": 64, "sources": TRUTHS})


def measure_stage(folder: Path, log) -> None:
    """measured.json"""
    write_json(folder / "measured.json", {"schema": 1, "sources": measure(folder)})


def card_stage(folder: Path, log) -> None:
    """card.md"""
    measured, training = (json.loads((folder / f"{name}.json").read_text()) for name in ("measured", "training"))
    (folder / "card.md").write_text(card(measured["sources"], training))


def stages() -> dict[str, tuple[str, Callable[[Path, Callable], None]]]:
    """stage -> (the file that marks it done, what to run), in order."""
    return {
        "problems": ("problems.json", problems_stage),
        **{name: (f"models/{name}/tokenizer_config.json", model_stage(name)) for name in MODELS},
        **{f"dump-{source}": (f"dumps/{source}.jsonl.gz", dump_stage(source)) for source in SOURCES},
        "truths": ("truths.json", truths_stage),
        "measure": ("measured.json", measure_stage),
        "card": ("card.md", card_stage),
    }
