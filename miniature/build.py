"""Build the miniature from nothing: problems, models, dumps, measurements, data card. About an hour on one core.

Each stage writes its own outputs and is skipped when they are there; a stage that was interrupted is done again. A
source or a model is one entry in MODELS or SOURCES, and one function where it needs new code.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path

from miniature.domain import KINDS, count_solutions, kind_of, prompt_text, random_problem
from miniature.dump import best_rows, rewritten_rows, sampled_rows, teacher_rows, write_dump
from miniature.recipe import COUNTS, DISTILL, DISTILL_PLAN, SEEDS, SOURCES, UNFAITHFUL
from miniature.truths import TRUTHS


def make_problems(seed: int) -> list[dict]:
    """The evaluation set: COUNTS problems of each kind, no two alike in any order, with exact numbers of solutions."""
    rng, problems, seen = random.Random(seed), [], set()
    for kind, count in COUNTS.items():
        while sum(problem["kind"] == kind for problem in problems) < count:
            numbers, goal = random_problem(kind, rng)
            if (tuple(sorted(numbers)), goal) in seen:
                continue
            seen.add((tuple(sorted(numbers)), goal))
            problems.append(
                {
                    "id": f"n{len(problems):04d}",
                    "prompt": prompt_text(numbers, goal),
                    "numbers": list(numbers),
                    "goal": goal,
                    "kind": kind_of(numbers, goal),
                    "solutions": {ops: count_solutions(numbers, goal, ops) for ops in ("+-", "+-/", "+-*", "+-*/")},
                }
            )
    return problems


def train_base(folder: Path, log: Callable[[str], None]):
    """The base: pretraining from nothing."""
    from miniature.train import pretrain

    return pretrain(SEEDS["base"], log)


def train_rlvr(folder: Path, log: Callable[[str], None]):
    """Strict-reward GRPO from the base; the evaluation problems are never trained on. Step 100 is kept as well."""
    from miniature.grpo import GRPO, grpo
    from miniature.train import save_model

    model = load_model(folder, "base")

    def keep(step: int) -> None:
        save_model(model, folder / "models" / f"rlvr-step{step}")

    return model, grpo(model, GRPO, SEEDS["rlvr"], evaluation_problems(folder), log, keep)


def train_unfaithful(folder: Path, log: Callable[[str], None]):
    """GRPO from the base that pays for the final expression alone: nothing keeps the steps honest."""
    from miniature.grpo import GRPO, grpo

    model = load_model(folder, "base")
    return model, grpo(model, GRPO | UNFAITHFUL, SEEDS["rlvr-unfaithful"], evaluation_problems(folder), log)


def fine_tuned(folder: Path, teacher: Callable, recipe: dict, seed: int, log: Callable[[str], None]):
    """Fine-tuning from the base on a teacher's traces; the evaluation problems are never trained on."""
    from miniature.grpo import random_allowed
    from miniature.traces import draw
    from miniature.train import finetune

    model, forbidden = load_model(folder, "base"), evaluation_problems(folder)

    def lesson(rng: random.Random) -> tuple[list[str], list[str]]:
        kind = draw(recipe["kinds"], rng)
        numbers, goal = random_allowed(kind, forbidden, rng)
        return prompt_text(numbers, goal).split(), teacher(numbers, goal, kind, rng)

    return model, finetune(model, lesson, recipe, seed, log)


def train_distill(folder: Path, log: Callable[[str], None]):
    """The solver's traces in the base's own `step` style."""
    from miniature.traces import teacher_response

    return fine_tuned(folder, teacher_response, DISTILL, SEEDS["distill"], log)


def train_distill_plan(folder: Path, log: Callable[[str], None]):
    """The solver's traces in the foreign `plan` wording."""
    from miniature.backward import plan

    return fine_tuned(folder, plan, DISTILL_PLAN, SEEDS["distill-plan"], log)


MODELS = {
    "base": train_base,
    "rlvr": train_rlvr,
    "distill": train_distill,
    "rlvr-unfaithful": train_unfaithful,
    "distill-plan": train_distill_plan,
}


def load_model(folder: Path, name: str):
    """A model of the miniature, float32, ready to score."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "models" / name).eval()


def load_problems(folder: Path) -> list[dict]:
    """The evaluation set as `make_problems` wrote it."""
    return json.loads((folder / "problems.json").read_text())["problems"]


def evaluation_problems(folder: Path) -> set:
    """The evaluation set as (sorted numbers, goal), for leaving it out of training."""
    return {(tuple(sorted(problem["numbers"])), problem["goal"]) for problem in load_problems(folder)}


def write_json(path: Path, value) -> None:
    """Indented JSON, in one piece: a reader never sees half a file."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(value, indent=1) + "\n")
    unfinished.replace(path)


def problems_stage(folder: Path, log) -> None:
    """problems.json"""
    write_json(
        folder / "problems.json",
        {"schema": 1, "seed": SEEDS["problems"], "kinds": KINDS, "problems": make_problems(SEEDS["problems"])},
    )


def model_stage(name: str) -> Callable[[Path, Callable], None]:
    """models/NAME and its entry in training.json."""

    def run(folder: Path, log) -> None:
        from miniature.train import save_model

        model, record = MODELS[name](folder, log)
        path = folder / "training.json"
        records = json.loads(path.read_text()) if path.exists() else {}
        records[name] = {"seed": SEEDS[name], **record, "machine": f"{platform.machine()}, one thread"}
        write_json(path, records)
        save_model(model, folder / "models" / name)

    return run


def dump_stage(source: str) -> Callable[[Path, Callable], None]:
    """dumps/SOURCE.jsonl.gz"""

    def run(folder: Path, log) -> None:
        (folder / "dumps").mkdir(exist_ok=True)
        write_dump(folder / "dumps" / f"{source}.jsonl.gz", rows_of(source, folder))

    return run


def rows_of(source: str, folder: Path):
    """The rows of a source, from its recipe."""
    recipe, problems = SOURCES[source], load_problems(folder)
    n, seed = recipe["n"], recipe["seed"]
    if recipe["model"] is None:
        return teacher_rows(source, problems, n, seed)
    model = load_model(folder, recipe["model"])
    if "best_of" in recipe:
        return best_rows(source, model, problems, n, recipe["best_of"], seed)
    if "rewrite" in recipe:
        return rewritten_rows(source, model, problems, n, recipe["rewrite"], seed)
    return sampled_rows(source, model, problems, n, recipe["sampler"], seed, recipe.get("new_tokens"))


def truths_stage(folder: Path, log) -> None:
    """truths.json"""
    write_json(folder / "truths.json", {"schema": 1, "budget": 64, "sources": TRUTHS})


def measure_stage(folder: Path, log) -> None:
    """measured.json"""
    from miniature.measure import measure

    of_base = [source for source, recipe in SOURCES.items() if recipe["model"] == "base" and recipe["sampler"]]
    write_json(folder / "measured.json", {"schema": 1, "sources": measure(folder, load_model(folder, "base"), of_base)})


def card_stage(folder: Path, log) -> None:
    """card.md"""
    from miniature.card import card

    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("measured", "training")}
    (folder / "card.md").write_text(
        card(read["measured"]["sources"], read["training"], load_problems(folder), SOURCES, SEEDS)
    )


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


def build(
    folder: Path,
    log: Callable[[str], None],
    *,
    only: list[str] | None = None,
    force: bool = False,
    table: dict | None = None,
) -> None:
    """Run every stage whose output is missing under `folder`; only some, if named; done ones too, with `force`.
    `table` holds another world's stages.

    A stage done again does not make the later ones out of date by itself: force these too.
    """
    import torch

    torch.set_num_threads(1)  # the results depend on it, and two threads lose more than they gain on a shared machine
    table = stages() if table is None else table
    for name in only or []:
        if name not in table:
            raise ValueError(f"no stage {name!r}; stages: {', '.join(table)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (marker, run) in table.items():
        if only and name not in only:
            continue
        if (folder / marker).exists() and not force:
            log(f"{name}: there already")
            continue
        started = time.perf_counter()
        log(f"{name}: started")
        run(folder, lambda line, name=name: log(f"{name}: {line}"))
        log(f"{name}: done in {time.perf_counter() - started:.0f} s")
