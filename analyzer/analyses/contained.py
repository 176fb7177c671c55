"""The ladder: is what a source does among k draws of the reference, by texts, answers and correctness alone?

Rungs of two branches, each a coarsening of the one before it. Method: `skeleton` (numbers, symbols and code, step by
step, without wording), `steps` (the kinds of steps in order), `kinds` (which kinds there are). Outcome: `answer`,
`correct`. For every rung contained@k is the chance that k draws of the reference on the same problem hold the class of
a trace (`stats/contained.py`); beside it stands the reference's own rate, each of its traces against its other draws.
That rate is no ceiling: a source that does fewer things is contained more often. An upper bound of 1 - contained@k at
most tau certifies inside; outside is certified by `strategy` and by the answer test of `boundary`, never here. What is
contained is contained in the reference as it was sampled, and k guesses contain every answer that can be guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer import steps
from analyzer.analyses import answers, strategy
from analyzer.analyses.contained_figures import FIGURES, draw
from analyzer.analyses.primary import TAU
from analyzer.records import LEVELS, METHOD, Estimate, Result, Tables
from analyzer.stats import bootstrap, contained
from analyzer.summaries import among, last_steps

__all__ = ["FIGURES", "QUESTION", "draw", "run"]

QUESTION = "Is what each source does among k draws of the reference: its method, its answers?"
RUNGS = LEVELS[1:]
UNKNOWN, UNREAD = -1, -2  # class of a trace that has none at a rung; of one whose text is not read
EXEMPLARS, EXCERPT = 3, 160
PROBLEMS = 10  # below so many no interval over problems: with 5 it covered .84 in the worst setting
COLUMNS = {
    "rungs": ["source", "level", "k", "contained", "low", "high", "own", "n", "problems", "unknown", "note"],
    "exemplars": ["source", "level", "only", "problem", "class", "traces", "of", "text"],
}
WHY = {
    "skeleton": "no number, symbol or code in the text",
    "steps": "no operator, function or code in any step",
    "kinds": "no operator, function or code in any step",
    "answer": "no answer in the dump",
    "correct": "the dump does not say which rows are correct",
}


class Classes(NamedTuple):
    """The traces of each source's last step and their classes: frame with key, source, problem, response and a column
    of class numbers for every rung (UNKNOWN, UNREAD); names: rung -> text of each class; left_out: what is not read."""

    frame: pd.DataFrame
    names: dict[str, list[str]]
    left_out: str


def classes(tables: Tables) -> Classes:
    """What each trace is at every rung."""
    texts, left_out = strategy.prepared(tables)
    frame = last_steps(tables.traces)
    known = answers.known(frame)["answer"] if len(frame) else frame["problem"]
    frame = frame[["key", "source", "problem", "correct"]].assign(answer=known.reindex(frame.index))
    read = set(texts["problem"])
    of = texts.set_index("key")
    frame = frame.assign(response=frame["key"].map(of["response"]))
    unread = ~frame["problem"].isin(read).to_numpy() & bool(left_out)
    names: dict[str, list[str]] = {}
    for level in RUNGS:
        if level in METHOD:
            column = of["kinds"] if level != "skeleton" else of["marked"]
            said = {own: _name(level, own) for own in set(column)}
            values = frame["key"].map(column.map(said))
        elif level == "answer":
            values = frame["answer"].replace(answers.NONE, "(no answer)")
        else:
            values = frame["correct"].map({True: "correct", False: "wrong"})
        code, distinct = pd.factorize(values.astype(object).where(values.notna() & (values != ""), None))
        frame[level] = np.where(unread & (level in METHOD), UNREAD, code)
        names[level] = [str(name) for name in distinct]
    return Classes(frame.reset_index(drop=True), names, left_out)


def _name(level: str, own: Any) -> str:
    """The class of a trace as text: its skeleton, its kinds of steps in order, or the set of them."""
    return own if level == "skeleton" else steps.MARK.join(own if level == "steps" else sorted(set(own)))


def run(
    tables: Tables, *, budget: int = 64, seed: int = 0, draws: int = bootstrap.DRAWS, known: Classes | None = None
) -> Result:
    """contained@k at every rung for every source and the reference, with bounds for the given problems.

    k: the largest power of two at most `budget` and at most the reference's fewest draws of a problem less one, the
    same for all sources of a rung (`contained.budget`). known: the classes of the traces, where they are at hand (those
    of other traces are left out). Estimates: `<s>.contained@<k>.<level>`, the mean over problems of the mean over the
    source's traces, leave-one-out for the reference; `<s>.contained_gap@<k>.<level>`, source less reference, paired by
    problem; intervals by problem. Tables: rungs (the same; miss_high: the upper bound of 1 - contained@k for the given
    problems, p_inside: of "it is at least tau", best: the bound if nothing were missed, draws_needed: draws of the
    reference a problem with which best is at most tau), exemplars (classes that only one side has).
    A trace without a class at a rung is left out of the estimate and counts against the bound.
    """
    found = known or classes(tables)
    frame = found.frame[among(found.frame["key"], set(tables.traces["key"]))] if known else found.frame
    reference, others = tables.reference, [s for s in tables.sources if s != tables.reference]
    unit_N, problems = pd.factorize(frame["problem"])
    source_N = frame["source"].to_numpy(dtype=object)
    estimates: dict[str, Estimate] = {}
    rungs, exemplars = [], []
    for level in RUNGS:
        rung = _rung(frame[level].to_numpy(), unit_N, source_N, len(problems), reference, others, budget)
        own_P, own = np.full(len(problems), np.nan), {}
        for s in (reference, *others):
            row, contained_P = _row(rung, s, reference, level, budget)
            own_P, own = (contained_P, row) if s == reference else (own_P, own)
            row["own"] = float(np.nanmean(own_P)) if np.isfinite(own_P).any() else math.nan
            rungs.append({"source": s, "level": level} | row)
            at = f"@{rung.k or budget}.{level}"
            names = ("contained", "low", "high", "n", "method", "note")
            estimates[f"{s}.contained{at}"] = Estimate(*(row[name] for name in names))
            if s != reference:
                estimates[f"{s}.contained_gap{at}"] = _gap(contained_P, own_P, row, own, {"draws": draws, "seed": seed})
                exemplars += [{"source": s, "level": level} | r for r in _only(rung, s, reference, found, frame, level)]
    frames = {
        name: pd.DataFrame(rows, columns=None if rows else COLUMNS[name])
        for name, rows in (("rungs", rungs), ("exemplars", exemplars))
    }
    params = {"budget": budget, "tau": TAU, "reference": reference, "order": tables.sources, "draws": draws}
    return Result("contained", QUESTION, estimates, frames, tuple(_notes(frames["rungs"], found, budget)), params, seed)


class Rung(NamedTuple):
    """One rung: class, problem and source of its traces [N] (of problems that the reference and another source have),
    m_N: draws of the reference in the trace's class, n_P: of the problem, k."""

    at: np.ndarray  # rows of the frame, int [N]
    class_N: np.ndarray
    unit_N: np.ndarray
    source_N: np.ndarray
    m_N: np.ndarray
    n_P: np.ndarray
    k: int
    common: bool  # whether the reference and another source have a problem in common


def _rung(
    class_N: np.ndarray,
    unit_N: np.ndarray,
    source_N: np.ndarray,
    problems: int,
    reference: str,
    others: list[str],
    budget: int,
) -> Rung:
    known = class_N != UNREAD
    n_P = np.bincount(unit_N[known & (source_N == reference)], minlength=problems)
    shared = np.bincount(unit_N[known & (source_N != reference)], minlength=problems) > 0 if others else n_P > 0
    classed = ((class_N >= 0) & (source_N == reference)).any()
    common_P = shared & (n_P > 0)
    at = np.flatnonzero(known & common_P[unit_N] & classed)
    k = contained.budget(n_P[np.unique(unit_N[at])], budget)
    width = int(class_N.max(initial=0)) + 2
    pair_N = unit_N[at].astype(np.int64) * width + class_N[at] + 1
    own = source_N[at] == reference
    pairs, count = np.unique(pair_N[own], return_counts=True)
    place = np.searchsorted(pairs, pair_N)
    hit = place < len(pairs)
    hit[hit] = pairs[place[hit]] == pair_N[hit]
    m_N = np.zeros(len(at), int)
    m_N[hit] = count[place[hit]]
    return Rung(at, class_N[at], unit_N[at], source_N[at], m_N, n_P, k, bool(common_P.any()))


def _row(rung: Rung, source: str, reference: str, level: str, budget: int) -> tuple[dict[str, Any], np.ndarray]:
    """The row of `rungs` of one source, and contained@k by problem [P], NaN where it has no trace with a class."""
    mine = rung.source_N == source
    unit, own = rung.unit_N[mine], int(source == reference)
    known = rung.class_N[mine] >= 0
    n_N = rung.n_P[unit]
    row = {"k": rung.k, "contained": math.nan, "low": math.nan, "high": math.nan, "n": int(known.sum())}
    row |= {"problems": len(np.unique(unit[known])), "unknown": float(1 - known.mean()) if len(known) else math.nan}
    row |= dict.fromkeys(("miss_high", "p_inside", "best", "draws_needed"), math.nan) | {"method": "", "note": ""}
    contained_P = np.full(len(rung.n_P), np.nan)
    if not rung.k or not known.any():
        why = WHY[level]
        if not rung.common:
            why = f"{source} and {reference} have no problem in common"
        elif len(rung.at) and not rung.k:
            why = f"{reference} has a single draw of a problem; two are needed"
        return row | {"note": why}, contained_P
    miss_N = np.where(known, contained.missed(np.maximum(rung.m_N[mine] - own, 0), n_N - own, rung.k), 1.0)
    total_P = np.bincount(unit[known], minlength=len(contained_P))
    with np.errstate(invalid="ignore"):
        contained_P = 1 - np.bincount(unit[known], weights=miss_N[known], minlength=len(contained_P)) / total_P
    there = np.flatnonzero(total_P)
    row |= _interval(contained_P[there], row["n"])
    row["note"] = _note(rung, row["unknown"], level, budget)
    if source != reference:
        traces_P = np.bincount(unit, minlength=len(contained_P))
        there = np.flatnonzero(traces_P)
        w = float((np.bincount(unit, weights=miss_N, minlength=len(traces_P))[there] / traces_P[there]).mean())
        counts = rung.n_P[there], traces_P[there], rung.k
        row |= {"miss_high": contained.upper(w, *counts), "best": contained.upper(0.0, *counts)}
        row["p_inside"] = contained.p_value(w, *counts, TAU) if len(there) >= bootstrap.LEAST else math.nan
        row["draws_needed"] = contained.draws_needed(*counts, TAU)
    return row, contained_P


def _interval(contained_P: np.ndarray, traces: int) -> dict[str, Any]:
    """Columns contained, low, high, method: the mean over problems, Korn and Graubard's interval (`bootstrap.rate`),
    problems as the unit and each of equal weight. Where all miss or all hold, the problems are the trials."""
    value, problems = float(contained_P.mean()), len(contained_P)
    low, high, method = math.nan, math.nan, bootstrap.too_few(problems, PROBLEMS)
    if problems >= PROBLEMS and 0 < value < 1:
        each = max(1, traces // problems)
        low_K, high_K, _ = bootstrap.share_ends(contained_P[:, None] * each, np.full(problems, each))
        low, high, method = float(low_K[0]), float(high_K[0]), "Korn-Graubard over problems"
    elif problems >= PROBLEMS:
        bound = float(bootstrap.share_upper(0, problems))
        low, high, method = (0.0, bound, "Clopper-Pearson") if value <= 0 else (1 - bound, 1.0, "Clopper-Pearson")
        method += " over problems"
    return {"contained": value, "low": low, "high": high, "method": method}


def _gap(
    contained_P: np.ndarray, own_P: np.ndarray, row: dict[str, Any], own: dict[str, Any], options: dict[str, int]
) -> Estimate:
    """Source less reference, paired by problem. The interval is the wider one of a bootstrap over problems and of that
    from the two sides' own ends (Zou and Donner, Statistics in Medicine 27, 2008, 1693): where hardly a
    trace is missed, resampling has not seen the few that matter."""
    gap_P = contained_P - own_P
    gap = bootstrap.mean(gap_P, np.arange(len(gap_P)), **options)
    low = gap.value - math.hypot(row["contained"] - row["low"], own["high"] - own["contained"])
    high = gap.value + math.hypot(row["high"] - row["contained"], own["contained"] - own["low"])
    low, high = float(np.minimum(gap.low, low)), float(np.maximum(gap.high, high))
    method = f"paired by problem; {gap.method}, not narrower than the two sides' own intervals"
    method = method if math.isfinite(low) else row["method"]
    return Estimate(gap.value, low, high, gap.n, method, row["note"])


def _note(rung: Rung, unknown: float, level: str, budget: int) -> str:
    """What a reader of the number must know: k below the budget, traces that have no class."""
    said = []
    if rung.k < budget:
        least = int(rung.n_P[np.unique(rung.unit_N)].min())
        said.append(f"k = {rung.k} and not {budget}: {least} draws of the reference on a problem, {budget + 1} needed")
    if unknown > 0:
        said.append(f"{unknown:.2%} of the traces are left out ({WHY[level]}); they count against the bound")
    return "; ".join(said)


def _only(
    rung: Rung, source: str, reference: str, found: Classes, frame: pd.DataFrame, level: str
) -> Iterator[dict[str, Any]]:
    """The most frequent classes of a problem that only the source, or only the reference, has: a trace of each."""
    if level == "correct":
        return
    pair_N = rung.unit_N.astype(np.int64) * (int(rung.class_N.max(initial=0)) + 1) + rung.class_N
    arms = {s: np.flatnonzero((rung.source_N == s) & (rung.class_N >= 0)) for s in (source, reference)}
    common = set(rung.unit_N[arms[source]]) & set(rung.unit_N[arms[reference]])
    for one, other in ((source, reference), (reference, source)):
        mine = arms[one][np.isin(rung.unit_N[arms[one]], list(common))]
        alone = mine[~np.isin(pair_N[mine], pair_N[arms[other]])]
        pairs, first, count = np.unique(pair_N[alone], return_index=True, return_counts=True)
        for i in np.argsort(-count, kind="stable")[:EXEMPLARS]:
            row = frame.iloc[rung.at[alone[first[i]]]]
            text = " ".join(str(row["response"]).split())[:EXCERPT] if isinstance(row["response"], str) else ""
            of = int((rung.unit_N[mine] == rung.unit_N[alone[first[i]]]).sum())
            name = found.names[level][row[level]][:EXCERPT]
            head = {"only": one, "problem": row["problem"], "class": name, "traces": int(count[i]), "of": of}
            yield head | {"text": text}


def _notes(rungs: pd.DataFrame, found: Classes, budget: int) -> list[str]:
    notes = [
        "The reference's own rate holds each of its traces against its other draws. It is no ceiling: a source that "
        "does fewer things is contained more often. Contained is contained in the reference as it was sampled.",
        "contained_gap is paired: over the problems on which both sides have a trace with the rung. Where many traces "
        "have none it is not the difference of the two numbers.",
        f"Inside at a rung: what k draws miss is at most {TAU:g} (miss_high, an upper bound for the given problems); "
        "or inside at a finer rung or at the sequence level, which then holds here whatever share these draws contain.",
    ]
    for level, part in rungs[rungs["k"] > 0].groupby("level", sort=False):
        small = part[part["best"] > TAU]
        if len(small):
            draws = ("more problems or traces" if math.isnan(n) else f"{n:.0f} draws" for n in small["draws_needed"])
            names = ", ".join(f"{source}: {n}" for source, n in zip(small["source"], draws, strict=True))
            notes.append(
                f"At the {level} rung inside cannot be certified with the draws at hand, whatever they show; what "
                f"could (draws of the reference a problem): {names}."
            )
    return [*notes, *([found.left_out] if found.left_out else [])]
