"""V14: the words of the ladder from texts alone, on worlds of texts whose law over (method, answer) is known.

Everything is run as on a dump without a model: `strategy` (its tests of change left out), `boundary`, and `contained`
where a word may be inside. The numbers of contained@k are `text_bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.boundary import answers
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.contained import run as contained
from analyzer.analysis.data import features
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.strategy import split as split_test
from analyzer.analysis.verdict.decide import decide
from analyzer.records import METHOD, OUTCOME, Result, Tables
from validation import text_worlds as W
from validation.checks import Gate, GateResult, number, share
from validation.outcome_worlds import FALSE, GAINS
from validation.text_bounds import NEW, TAU, classes, unequal

PERMUTATIONS = 199  # of k = 1: p = .005 passes Holm over five levels
PROBLEMS, TRACES = 64, 16
SIZES, DRAWN, WIDE = (5, 16, 64), (4, 16, 64), (3, 5, 10, 30, 64, 200, 500)
MANY = 6144  # three times the draws of each side where a grader errs
SHARE = 0.6  # of the other method
ENOUGH = 20  # draws of the base a problem with which that is outside at k = 64; the source's hardly matter
COPIED = ((2, 32), (ENOUGH, 4))  # draws of the base a problem and how often each is there: base again, another method
SOURCE = "s"


def split(tables: Tables, *, seed: int = 0) -> Result:
    """`strategy` at the levels of the method alone, which is all that the verdict reads of it: a third of the time."""
    rows = W.told_apart(strategy.prepared(tables)[0], tables)
    distinct, where_N = np.unique(rows["shape"].to_numpy(dtype=object), return_inverse=True)
    shapes = {strategy.SKELETON: features.skeleton_counts(list(distinct))[where_N]}
    budgets = list(strategy.BUDGETS)
    found = split_test.reach(rows, shapes, SOURCE, tables.reference, budgets, seed, PERMUTATIONS)
    tested = pd.DataFrame(
        [row for name in found for row in found[name]["tests"]], columns=None if found else ["source"]
    )
    return Result("strategy", strategy.QUESTION, {}, {"strategy_test": tested}, (), {}, seed)


def answered(tables: Tables, k: int) -> Result:
    """The answer test, with equal texts as draws."""
    return boundary.certifying(replace(tables, traces=W.told_apart(tables.traces, tables)), k)


def words(tables: Tables, tested: Result | None, k: int, held: Result | None = None) -> dict[str, str]:
    """Level -> word of SOURCE at budget k, from the split test (all budgets), the answers and, where it is given,
    `contained` at that budget."""
    results = {"boundary": answered(tables, k)}
    results |= {name: found for name, found in (("strategy", tested), ("contained", held)) if found}
    found = decide(results, sources=tables.sources, reference=tables.reference, budget=k)
    return {v.level: v.word for v in found if v.level in (*METHOD, *OUTCOME)}


@contextmanager
def replaced(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """A function of `answers` replaced by a wrong one."""
    right = getattr(answers, name)
    setattr(answers, name, function)
    try:
        yield
    finally:
        setattr(answers, name, right)


def gate_texts(
    rng: np.random.Generator,
    runs: int,
    sizes: tuple[int, ...] = SIZES,
    drawn: tuple[int, ...] = DRAWN,
    problems: int = PROBLEMS,
    times: int = 1,
) -> Gate:
    """Readings, A/A, another style, another method, outcomes, a source that keeps to one method; so many times the runs
    where a run is quick."""
    checks = [*_readings(rng), *_again(rng, runs, sizes, drawn), *_restyled(rng, times * runs, problems)]
    checks += [*_other(rng, runs, problems), *_outcomes(rng, times * runs, problems), *_inside(rng, runs, problems)]
    return Gate(checks, {})


def gate_many(
    rng: np.random.Generator, runs: int, sizes: tuple[int, ...] = WIDE, drawn: tuple[int, ...] = (4, 16, 64, 256)
) -> Gate:
    """A/A with up to 500 problems and 256 draws a problem of each text."""
    return Gate(list(_again(rng, runs, sizes, drawn, "V15")), {})


def gate_copies(rng: np.random.Generator, runs: int, problems: int = PROBLEMS) -> Gate:
    """Every draw of the base several times (COPIED): A/A, and a method that the base never uses."""
    outside, fooled, hits = dict.fromkeys((1, 64), 0), 0, dict.fromkeys((4, 16, 64), 0)
    for run in range(runs):
        law = W.population(rng, problems)
        (n, times), (many, few) = COPIED
        base, own = W.copied(W.draw(law, rng, n), times), W.draw(law, rng, TRACES)
        tables = W.tables({"base": base, SOURCE: own})
        tested = split(tables, seed=run)
        for k in outside:
            outside[k] += "outside" in words(tables, tested, k).values()
        tables.memo[W.TIMES] = dict.fromkeys(tables.memo[W.TIMES], 1)
        fooled += "outside" in words(tables, split(tables, seed=run), 1).values()
        other = W.draw(W.other_method(law, SHARE), rng, TRACES, W.RESTYLED)
        tables = W.tables({"base": W.copied(W.draw(law, rng, many), few), SOURCE: other})
        tested = split(tables, seed=run)
        for k in hits:
            hits[k] += any(words(tables, tested, k)[level] == "outside" for level in METHOD)
    sizes = [f"{problems} problems x {TRACES}, the base's {n} draws each there {times} times" for n, times in COPIED]
    checks = []
    for k, count in outside.items():
        what = f"base again, {sizes[0]}: outside at any level, k = {k}"
        mutant = ("copies taken for draws", fooled) if k == 1 else None
        checks.append(share("V14", what, count, runs, at_most=0.05, mutant=mutant))
    for k, count in hits.items():
        what = f"{SHARE:.0%} by a method the base never uses, {sizes[1]}: outside at a level of the method"
        checks.append(share("V14", f"{what}, k = {k}", count, runs, at_least=0.9))
    return Gate(checks, {})


def _readings(rng: np.random.Generator) -> list[GateResult]:
    """The classes that the analysis reads from texts of all styles against the law's, problem by problem."""
    law = W.other_method(W.population(rng, 12), 0.2)
    drawn = {"base": W.draw(law, rng, 24)} | {style: W.draw(law, rng, 8, style) for style in W.OTHERS}
    tables = W.tables(drawn)
    found, wanted = contained.classes(tables).frame, classes(drawn)
    raw = pd.factorize(found["response"])[0]
    off = whole = 0
    for level in METHOD:
        code_N = np.concatenate([wanted[level][source] for source in drawn])
        off += _differ(found["problem"], found[level].to_numpy(), code_N)
        whole += _differ(found["problem"], raw, code_N)
    for level in OUTCOME:
        off += _differ(found["problem"], found[level].to_numpy(), np.concatenate(list(wanted[level].values())))
    lengths = found["response"].str.split().str.len()
    what = f"pairs of traces, {1 + len(W.OTHERS)} styles, of {lengths.min()} to {lengths.max():,} words, "
    what += "that a level takes for alike"
    mutant = ("the texts themselves for classes", whole)
    return [number("V14", f"{what} or not against the law", off, 0, 0, len(found), claim="= 0", mutant=mutant)]


def _differ(problem_N: pd.Series, a_N: np.ndarray, b_N: np.ndarray) -> int:
    """Pairs of traces of a problem that one of two partitions joins and the other does not."""
    off = 0
    for at in problem_N.groupby(problem_N.to_numpy()).indices.values():
        a, b = a_N[at], b_N[at]
        off += int(((a[:, None] == a) != (b[:, None] == b)).sum()) // 2
    return off


def _again(
    rng: np.random.Generator, runs: int, sizes: tuple[int, ...], drawn: tuple[int, ...], gate: str = "V14"
) -> Iterator[GateResult]:
    """A second draw of the base, which has twice as many traces, or whose draws differ by problem and side (n = 0):
    outside at any level."""
    outside, naive, cells = {}, 0, [(m, n) for m in sizes for n in (*drawn, 0)]
    for problems, n in cells:
        for run in range(runs):
            law = W.population(rng, problems)
            many, few = (2 * n, n) if n else (unequal(rng, problems, max(drawn)) for _ in range(2))
            base, own = W.draw(law, rng, many), W.draw(law, rng, few)
            tables = W.tables({"base": base, SOURCE: own})
            tested = split(tables, seed=run)
            for k in (1, 64):
                hit = "outside" in words(tables, tested, k).values()
                outside[problems, n, k] = outside.get((problems, n, k), 0) + hit
            shown, mine = (d.problem * len(W.METHODS) + d.method for d in (base, own))
            naive += not np.isin(mine, shown).all()
    for k in (1, 64):
        hits = [outside[problems, n, k] for problems, n in cells]
        what = f"base again, {_listed(sizes)} problems x {_listed(drawn)} (base twice as many) and unequal draws"
        mutant = ("a method that no draw of the base shows", naive) if k == 64 else None
        what += f": outside at any level, k = {k}"
        yield share(gate, what, sum(hits), runs * len(cells), at_most=0.05, mutant=mutant)
        worst = int(np.argmax(hits))
        what = (
            f"the same where it is most often so ({cells[worst][0]} problems x {cells[worst][1] or 'unequal'}), k = {k}"
        )
        yield share(gate, what, hits[worst], runs, at_most=0.05)


def _listed(counts: tuple[int, ...]) -> str:
    return ", ".join(map(str, counts))


def _restyled(rng: np.random.Generator, runs: int, problems: int) -> Iterator[GateResult]:
    """The base's methods in each of the other styles."""
    for style in W.OTHERS:
        outside, by_words = dict.fromkeys((1, 64), 0), 0
        for run in range(runs):
            law = W.population(rng, problems)
            drawn = {"base": W.draw(law, rng, TRACES), SOURCE: W.draw(law, rng, TRACES, style)}
            tables = W.tables(drawn)
            tested = strategy.run(tables, permutations=PERMUTATIONS, at_most=0, seed=run)
            for k in outside:
                outside[k] += "outside" in words(tables, tested, k).values()
            table = tested.tables["strategy_test"]
            by_words += bool((table.loc[table["representation"] == strategy.TFIDF, "p"] <= 0.01).any())
        for k, hits in outside.items():
            mutant = ("groups by words certify as well", by_words) if k == 64 else None
            what = (
                f"the same methods in another style ({style}), {problems} problems x {TRACES}: outside at any level, "
            )
            yield share("V14", f"{what}k = {k}", hits, runs, at_most=0.05, mutant=mutant)


def _other(rng: np.random.Generator, runs: int, problems: int) -> Iterator[GateResult]:
    """A method that the base never uses: what the split test can show with so many draws."""
    settings = ((TRACES, (4, 16, 64)), (ENOUGH, (64,))) if problems == PROBLEMS else ((TRACES, (4,)),)
    for n, budgets in settings:
        hits, answered = dict.fromkeys(budgets, 0), 0
        for run in range(runs):
            law = W.population(rng, problems)
            source = W.draw(W.other_method(law, SHARE), rng, TRACES, W.RESTYLED)
            tables = W.tables({"base": W.draw(law, rng, n), SOURCE: source})
            tested = split(tables, seed=run)
            for k in budgets:
                found = words(tables, tested, k)
                hits[k] += any(found[level] == "outside" for level in METHOD)
                answered += k == 4 and any(found[level] == "outside" for level in OUTCOME)
        for k, count in hits.items():
            what = (
                f"{SHARE:.0%} by a method the base never uses, {problems} problems x {TRACES} (base {n}): outside at a "
            )
            what += f"level of the method, k = {k}"
            if (n, k) == (TRACES, 64):
                what, claim = f"{what} (cannot be: {ENOUGH} draws of the base are needed)", "none: reported"
                yield number("V14", what, count / runs, 0.0, 1.0, runs, claim=claim)
                continue
            mutant = ("the answers alone", answered) if k == 4 else None
            yield share("V14", what, count, runs, at_least=0.9, mutant=mutant)


def _outcomes(rng: np.random.Generator, runs: int, problems: int) -> Iterator[GateResult]:
    """Formats, guesses and graders of one side alone, true gains, and a grader that marks right answers as wrong."""
    for name, make in FALSE.items():
        what, function, wrong = FOOLED.get(name, ("", "", None))
        hits = fooled = 0
        for _ in range(runs):
            tables = make(rng)
            hits += _solved(tables, 64)
            if wrong:
                with replaced(function, wrong):
                    fooled += _solved(tables, 64)
        mutant = (what, fooled) if wrong else None
        yield share("V14", f"{name}: outside at answer or correct, k = 64", hits, runs, at_most=0.05, mutant=mutant)
    for name, make in GAINS.items():
        hits = sum(_solved(make(rng), 64) for _ in range(runs))
        yield share("V14", f"{name}: outside at answer or correct, k = 64", hits, runs, at_least=0.9)
    hits, wrong = dict.fromkeys((1, 64), 0), 0
    for _ in range(runs):
        law = W.population(rng, problems)
        drawn = {source: W.draw(law, rng, MANY // 3 // problems) for source in ("base", SOURCE)}
        right = drawn["base"].answer == 0
        marked = right & (rng.random(len(right)) >= 0.3)
        tables = W.tables(drawn, correct={"base": marked})
        for k in (1, 64):
            hits[k] += _solved(tables, k)
        with replaced("lenient", lambda traces, every: traces):
            wrong += _solved(tables, 1)
    for k in (1, 64):
        what = f"base again, {problems} problems x {MANY // 3 // problems}, 30 % of the base's right draws marked wrong"
        what += f": outside at answer or correct, k = {k}"
        mutant = ("each row as its grader has it", wrong) if k == 1 else None
        yield share("V14", what, hits[k], runs, at_most=0.05, mutant=mutant)


def _solved(tables: Tables, k: int) -> bool:
    found = words(tables, None, k)
    return any(found[level] == "outside" for level in OUTCOME)


def _no_sign_test(part: pd.DataFrame, chosen: bool, solves: bool) -> dict[str, Any]:
    return {"answered": True, "top_right": 0, "top_wrong": 0, "p_blind": 0.0, "p_count": 1.0}


_UNREAD = ("unread draws of the base taken for misses", "read", lambda reference: np.ones(len(reference), bool))
_SIGN = ("no test against guesses", "blind", _no_sign_test)
FOOLED: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "never read on a quarter of the problems": _UNREAD,
    "options with texts of their own guessed, the base gives one": _SIGN,
    "guessed, no answers in the dumps": _SIGN,
    "each side always gives the same option": (
        "without the guess rate",
        "guess_rate",
        lambda gold: pd.Series(0.0, index=gold.index),
    ),
    "the source's grader takes 5 % of wrong answers": _SIGN,
}


def _inside(rng: np.random.Generator, runs: int, problems: int) -> Iterator[GateResult]:
    """One of the base's methods nearly always: inside; just more than tau of a new method besides: not."""
    good = wrong = hoeffding = 0
    for _ in range(runs):
        law = W.population(rng, problems)
        near = W.other_method(W.concentrated(law, 1.0), NEW)
        base, excess = W.draw(law, rng, 256), W.excess(near, law, 64)
        for source in (W.concentrated(law, 0.9), near)[: 1 + (problems == PROBLEMS)]:
            tables = W.tables({"base": base, SOURCE: W.draw(source, rng, TRACES)})
            known = contained.classes(tables)  # six texts a method, drawn independently: equal ones are no copies
            known = known._replace(frame=known.frame.assign(copy=-1 - np.arange(len(known.frame))))
            held = contained.bounds(tables, known, 64)
            found = words(tables, None, 64, held)
            if source is near:
                wrong += any(found[level] == "inside" and excess[level] > TAU for level in found)
                continue
            good += found["steps"] == "inside"
            w = 1 - next(r["contained"] for r in held.rows("levels")[SOURCE] if r["level"] == "steps")
            hoeffding += w + np.sqrt(np.log(20) / 2 / problems) <= TAU
    size = f"{problems} problems x {TRACES} (base 256)"
    what = f"90 % by the base's most frequent method, {size}: inside at steps, k = 64"
    mutant = ("Hoeffding's bound over problems", hoeffding)
    yield share("V14", what, good, runs, at_least=0.8, mutant=mutant)
    if problems < PROBLEMS:
        return
    what = f"that method alone and {NEW:.1%} of a new one, {size}: inside at a level where E_64 > {TAU:g}"
    yield share("V14", what, wrong, runs, at_most=0.05)
