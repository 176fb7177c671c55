"""Dumps with labels and answers whose law of solving is known: formats that one side does not keep, guesses, graders.

Every world but GAINS has a source that solves no more than the base or guesses without reading the question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.tables import in_memory
from analyzer.records import Tables, trace_key

PROBLEMS = 64
OPEN, MANY = 50, 10**6  # wrong answers that an open question has, and that hardly ever come twice


class Side(NamedTuple):
    """One source: draws a problem, rate of solving and of answers that are read by problem [P], wrong answers of a
    question, share of them that its grader takes for right, and whether its file has answers."""

    draws: int
    solves: np.ndarray
    read: np.ndarray
    wrong: int = OPEN
    lenient: float = 0.0
    answers: bool = True


def tables(rng: np.random.Generator, base: Side, source: Side) -> Tables:
    """Traces of base and source ("base", "s"), without texts; each problem has wrong answers of its own."""
    frames = []
    for name, side in (("base", base), ("s", source)):
        problem = np.repeat(np.arange(len(side.solves)), side.draws)
        solved = rng.random(len(problem)) < side.solves[problem]
        wrong = rng.integers(0, side.wrong, len(problem))
        seen = rng.random(len(problem)) < side.read[problem]
        marked = seen & (solved | (rng.random(len(problem)) < side.lenient))
        said = [f"{p}: right" if s else f"{p}: {w}" for p, s, w in zip(problem, solved, wrong, strict=True)]
        answer = [a if s and side.answers else None for a, s in zip(said, seen, strict=True)]
        frames.append(_frame(name, problem, marked, answer))
    return _tables(frames)


def _frame(source: str, problem: np.ndarray, correct: np.ndarray, answer: list[str | None]) -> pd.DataFrame:
    sample = np.arange(len(problem)) - np.searchsorted(problem, problem)
    key = [trace_key(source, f"p{p:03d}", int(i), None) for p, i in zip(problem, sample, strict=True)]
    columns = {"key": key, "source": source, "problem": [f"p{p:03d}" for p in problem], "sample": sample}
    return pd.DataFrame(columns | {"correct": correct, "answer": pd.Series(answer, dtype=object), "response": ""})


def _tables(frames: list[pd.DataFrame]) -> Tables:
    frame = pd.concat(frames, ignore_index=True).assign(score=np.nan, finish="stop", group="all", prompt=None)
    frame["correct"], frame["step"] = frame["correct"].astype("boolean"), pd.array([None] * len(frame), dtype="Int64")
    return Tables(
        **in_memory(frame),
        scores=pd.DataFrame(columns=["key", "source", "model", "problem", "step", "sample"]),
        tokens=lambda model, columns: iter(()),
        reference="base",
    )


def _flat(value: float) -> np.ndarray:
    return np.full(PROBLEMS, value)


def _rates(rng: np.random.Generator) -> np.ndarray:
    return rng.beta(0.3, 0.6, PROBLEMS)


def _format(share: float, problems: float, base: int, source: int) -> Callable[[np.random.Generator], Tables]:
    """One law of solving; of the base's answers a share is read on a share of the problems, and all on the rest."""

    def make(rng: np.random.Generator) -> Tables:
        rate = _rates(rng)
        read = np.where(np.arange(PROBLEMS) < problems * PROBLEMS, share, 1.0)
        return tables(rng, Side(base, rate, read), Side(source, rate, _flat(1.0)))

    return make


def _sides(base: dict[str, Any], source: dict[str, Any]) -> Callable[[np.random.Generator], Tables]:
    """Both sides by (draws, solves, read, ...), the rates the same on every problem."""

    def make(rng: np.random.Generator) -> Tables:
        sides = (
            Side(s["draws"], _flat(s["solves"]), _flat(s.get("read", 1.0)), *s.get("more", ())) for s in (base, source)
        )
        return tables(rng, *sides)

    return make


def _options(rng: np.random.Generator) -> Tables:
    """Four options answered with their own text; the base always gives the first, the source guesses."""
    gold = rng.integers(0, 4, PROBLEMS)
    frames = []
    for name, draws in (("base", 96), ("s", 64)):
        problem = np.repeat(np.arange(PROBLEMS), draws)
        said = np.zeros(len(problem), int) if name == "base" else rng.integers(0, 4, len(problem))
        frames.append(
            _frame(name, problem, said == gold[problem], [f"{p} {a}" for p, a in zip(problem, said, strict=True)])
        )
    return _tables(frames)


def _constant(rng: np.random.Generator) -> Tables:
    """Options A to D; the base always says D and the source A."""
    gold = rng.integers(0, 4, PROBLEMS)
    problem = np.repeat(np.arange(PROBLEMS), 64)
    return _tables(
        [
            _frame(name, problem, gold[problem] == "ABCD".index(a), [a] * len(problem))
            for name, a in (("base", "D"), ("s", "A"))
        ]
    )


def _again(rng: np.random.Generator) -> Tables:
    rate = _rates(rng)
    return tables(rng, Side(64, rate, _flat(1.0)), Side(64, rate, _flat(1.0)))


def _cut(rng: np.random.Generator) -> Tables:
    """One law of solving; a limit cuts all of the base's draws, and some number within them is taken for the answer."""
    rate = _rates(rng)
    drawn = tables(rng, Side(64, rate, _flat(1.0)), Side(64, rate, _flat(1.0)))
    found = drawn.traces
    base = (found["source"] == "base").to_numpy()
    wrong = [f"{n}" for n in rng.integers(0, 9, len(found))]
    answer = found["answer"].astype(object).where(~base, pd.Series(wrong, found.index))
    correct, finish = found["correct"].where(~base, False), np.where(base, "length", "stop")
    return replace(drawn, traces=found.assign(answer=answer, correct=correct, finish=finish))


def _spelt(how: str) -> Callable[[np.random.Generator], Tables]:
    """One law of solving; the base writes its answers n / 2 in this way, which its grader does not take, and the source
    decimals."""

    def make(rng: np.random.Generator) -> Tables:
        rate = _rates(rng)
        frames = []
        for name in ("base", "s"):
            problem = np.repeat(np.arange(PROBLEMS), 64)
            solved = rng.random(len(problem)) < rate[problem]
            twice = 2 * problem + 1 + np.where(solved, 0, 2 * rng.integers(1, OPEN, len(problem)))
            answer = [how.format(n=n, half=n / 2) if name == "base" else f"{n / 2}" for n in twice.tolist()]
            frames.append(_frame(name, problem, solved & (name == "s"), answer))
        return _tables(frames)

    return make


NONE = {"draws": 128, "solves": 0.0, "more": (MANY,)}
GUESSES = {"draws": 64, "solves": 0.25, "more": (3,)}
BLIND = {"draws": 64, "solves": 0.25, "more": (3, 0.0, False)}
FALSE: dict[str, Callable[[np.random.Generator], Tables]] = {
    "base again": _again,
    "the base's answers are never read": _format(0.0, 1.0, 64, 64),
    "a limit cuts all of the base's draws": _cut,
    "the base's grader does not take its spelling": _spelt("\\frac{{{n}}}{{2}}"),
    "the base's grader does not take its words": _spelt("x = {half} metres"),
    "never read, 16 draws": _format(0.0, 1.0, 16, 16),
    "2 % of the base's answers are read": _format(0.02, 1.0, 64, 64),
    "never read on a quarter of the problems": _format(0.0, 0.25, 256, 64),
    "never read on half of the problems": _format(0.0, 0.5, 64, 64),
    "options with texts of their own guessed, .2 % of the base's read": _sides(
        GUESSES | {"draws": 96, "read": 0.002}, GUESSES
    ),
    "options with texts of their own guessed, the base gives one": _options,
    "each side always gives the same option": _constant,
    "guessed, no answers in the dumps": _sides(BLIND | {"draws": 96, "read": 0.002}, BLIND),
    "the source's grader takes 5 % of wrong answers": _sides(NONE, NONE | {"more": (MANY, 0.05)}),
    "the same with 50 wrong answers": _sides(NONE | {"draws": 64, "more": (OPEN,)}, NONE | {"more": (OPEN, 0.05)}),
}
_HALF = {"draws": 64, "solves": 0.5, "more": (OPEN,)}
GAINS: dict[str, Callable[[np.random.Generator], Tables]] = {
    "solves half, the base none": _sides(_HALF | {"solves": 0.0}, _HALF),
    "solves all, the base none": _sides(NONE | {"draws": 64, "more": (8,)}, NONE | {"draws": 16, "solves": 1.0}),
    "solves half, 1 in 5 of the base's answers read": _sides(NONE | {"draws": 256, "read": 0.2}, _HALF),
}
