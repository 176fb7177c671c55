"""The stages from nothing to the reports. Each keeps its output; a run that was killed goes on at the stage it was in.

Models: `base` is fetched; `rlvr` learns from its own correct draws (rejection sampling), then by policy gradient on the
same reward; `restyle` from the same draws in capitals; `distill` from a teacher that guesses and checks by the inverse
operation. All train on other problems than those that the sources answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import analyzer
from analyzer.errors import ResourceError
from analyzer.records.display import counted
from miniature.dump import read_dump, write_dump
from validation.real import model, problems, training

Log = Callable[[str], None]
REFERENCE, PAIR = "base", ("base-cut", "same-sampler")  # the second report's reference and source: T = .6, top-p .95
CUT = {"temperature": 0.6, "top_p": 0.95}
LESSONS = "lessons"  # the base's draws on the problems to train on, cooler, where it is right more often
# label -> the model that draws it, its sampler
DRAWN: dict[str, tuple[str, dict[str, float]]] = {
    LESSONS: ("base", {"temperature": 0.4}),
    "base": ("base", {}),
    "base-again": ("base", {}),
    "cool": ("base", {"temperature": 0.4}),
    "rlvr": ("rlvr", {}),
    "restyle": ("restyle", {}),
    "distill": ("distill", {}),
    **dict.fromkeys(PAIR, ("base", CUT)),
}
TEXTS = ("noise", "language")  # no model writes them
MISLABELLED = "said-base"  # rlvr's draws, said to be the base's


class Size(NamedTuple):
    """How much is drawn and trained. problems, draws: of every source; lessons: problems to train on."""

    problems: int = len(problems.QUESTIONS)
    draws: int = 12
    max_tokens: int = 72
    lessons: int = 48
    epochs: int = 2  # of supervised training
    rounds: int = 8  # of policy gradient
    per_round: int = 8  # problems of a round, each drawn `rollouts` times
    rollouts: int = 8
    seed: int = 0


def stages(size: Size) -> dict[str, tuple[str, Callable[[Path, Log], None]]]:
    """stage -> (the file that marks it done, what to run), in order; as `miniature.build.build` takes them."""
    table: dict[str, tuple[str, Callable[[Path, Log], None]]] = {
        "questions": ("questions.jsonl.gz", lambda folder, log: write_questions(folder, size)),
        "base": ("models/base", lambda folder, log: model.as_folder(model.fetch(), folder / "models" / "base", log)),
    }
    for label, (name, _) in DRAWN.items():
        if name not in table:
            table[name] = (f"models/{name}", lambda folder, log, name=name: train_model(folder, name, size, log))
        table[f"draws of {label}"] = (
            f"dumps/{label}.jsonl.gz",
            lambda folder, log, label=label: draw(folder, label, size, log),
        )
    for label in (*TEXTS, MISLABELLED):
        table[f"rows of {label}"] = (
            f"dumps/{label}.jsonl.gz",
            lambda folder, log, label=label: write_rows(folder, label, size),
        )
    table["report"] = ("report/results.json", main_report)
    table["report of the pair"] = ("pair/results.json", pair_report)
    return table


# ---- problems and dumps


def write_questions(folder: Path, size: Size) -> None:
    """questions.jsonl.gz, and lessons.jsonl.gz first: the problems to train on."""
    asked = [(q + problems.ASK, a) for q, a in problems.QUESTIONS[: size.problems]]
    taught = [(one.question, one.answer) for one in problems.lessons(size.lessons, size.seed)]
    for name, some in ((LESSONS, taught), ("questions", asked)):
        write_dump(folder / f"{name}.jsonl.gz", ({"question": q, "answer": str(a)} for q, a in some))


def draw(folder: Path, label: str, size: Size, log: Log) -> None:
    """Draw a source into drawn/, which goes on where it was, and grade it into dumps/."""
    name, sampler = DRAWN[label]
    out = folder / "drawn" / f"{label}.jsonl.gz"
    for made in (out, dump(folder, label)):
        made.parent.mkdir(exist_ok=True)
    asked, n = (LESSONS, size.rollouts) if label == LESSONS else ("questions", size.draws)
    how = {"n": n, "seed": seed_of(size, label), "max_tokens": size.max_tokens, "template": "chat", **sampler}
    model_folder = str(folder / "models" / name)
    analyzer.sample([folder / f"{asked}.jsonl.gz"], out, model=model_folder, label=label, device="cpu", **how)
    rows = read_dump(out)
    for row in rows:
        row["answer"] = problems.answer_of(row["response"])
        row["correct"] = problems.is_correct(row["response"], row["gold"])
    write_dump(dump(folder, label), rows)
    log(f"{counted(len(rows), 'draw')}, {sum(row['correct'] for row in rows)} correct")


def write_rows(folder: Path, label: str, size: Size) -> None:
    """Noise; base-again's traces in German, with their numbers, formulas and answers as they are; or rlvr's rows."""
    rng, rows = random.Random(seed_of(size, label)), []
    for row in read_dump(dump(folder, "rlvr" if label == MISLABELLED else "base-again")):
        text = {name: row[name] for name in ("problem", "sample", "question", "gold")}
        if label == MISLABELLED:
            text = row
        elif label == "noise":
            text |= {"response": problems.noise(rng), "correct": False}
        else:
            text |= {"response": problems.in_german(row["response"], rng)}
            text |= {name: row[name] for name in ("correct", "answer")}
        rows.append({**text, "source": label})
    write_dump(dump(folder, label), rows)


def seed_of(size: Size, label: str) -> int:
    """A seed of its own for every source and model."""
    return random.Random(f"{size.seed} {label}").randrange(2**31)


def dump(folder: Path, label: str) -> Path:
    """Where the graded rows of a source lie."""
    return folder / "dumps" / f"{label}.jsonl.gz"


# ---- models


def train_model(folder: Path, name: str, size: Size, log: Log) -> None:
    """models/NAME from the base."""
    from analyzer.scoring.load import load

    loaded = load(str(folder / "models" / "base"), dtype="float32", device="cpu")
    seed, taught = seed_of(size, name), problems.lessons(size.lessons, size.seed)
    layers = 2 if name == "rlvr" else 6
    pairs = lessons_of(name, folder, loaded.tokenizer, taught, seed)
    steps = size.epochs * -(-len(pairs) // training.BATCH)
    log(f"{len(pairs)} texts to learn from")
    training.train(loaded.model, training.supervised(pairs, seed), steps, layers=layers, lr=3e-4, log=log)
    if name == "rlvr":
        more = {"per_step": size.per_round, "each": size.rollouts, "max_tokens": size.max_tokens, "seed": seed}
        batches = training.rollouts(loaded, taught, **more, log=log)
        training.train(loaded.model, batches, size.rounds, layers=layers, lr=2e-4, log=log)
    model.save(loaded.model, loaded.tokenizer, folder / "models" / name)


def lessons_of(
    name: str, folder: Path, tokenizer: Any, taught: list[problems.Lesson], seed: int
) -> list[tuple[list[int], list[int]]]:
    """What a model learns from: (prompt ids, response ids). Raises ResourceError where the base solved nothing."""
    if name == "distill":
        rng = random.Random(seed)
        texts = [(one.question, problems.by_inverse(one, rng)) for one in taught for _ in range(2)]
    else:
        right = [r for r in read_dump(dump(folder, LESSONS)) if r["correct"] and r["finish"] == "stop"]
        texts = sorted({(row["question"], row["response"].strip()) for row in right})
        if name == "restyle":
            texts = [(question, problems.restyled(text)) for question, text in texts]
    if not texts:
        raise ResourceError("none of the base's draws on the lessons is correct: nothing to learn; try more --lessons")
    return [training.written(tokenizer, *text) for text in texts]


# ---- reports


def main_report(folder: Path, log: Log) -> None:
    """All sources against the base at T = 1."""
    from transformers import AutoTokenizer

    labels = [label for label in DRAWN if label not in (LESSONS, *PAIR)] + [*TEXTS, MISLABELLED]
    dumps = {label: str(dump(folder, label)) for label in labels}
    eos = AutoTokenizer.from_pretrained(str(folder / "models" / "base")).eos_token_id
    policies = {label: DRAWN[label][0] for label in labels if label in DRAWN and label != REFERENCE}
    report(
        folder, "report", dumps, policies | {MISLABELLED: "base"}, log, template=dict.fromkeys(TEXTS, "chat"), eos=eos
    )


def pair_report(folder: Path, log: Log) -> None:
    """Two draws of the base, both at T = .6 and top-p .95."""
    dumps = {label: str(dump(folder, label)) for label in PAIR}
    report(folder, "pair", dumps, {PAIR[1]: "base"}, log, reference=PAIR[0])


def report(folder: Path, name: str, dumps: dict[str, str], policies: dict[str, str], log: Log, **more: Any) -> None:
    models = {label: str(folder / "models" / policy) for label, policy in policies.items()}
    base = str(folder / "models" / "base")
    analyzer.report(
        dumps, folder / name, base=base, policy=models, device="cpu", command=["make", "test-real"], tell=log, **more
    )
