"""The ladder: is what a source does among k draws of the reference, by texts, answers and correctness alone?

Levels of two branches, each a coarsening of the one before it. Method: `skeleton` (numbers, symbols and code, step by
step, without wording), `steps` (the kinds of steps in order), `kinds` (which kinds there are). Outcome: `answer`,
`correct`. For every level contained@k is the chance that k draws of the reference on the same problem hold the class of
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

from analyzer.analysis.contained.classes import TEXT_LEVELS, UNREAD, WHY, Classes, classes
from analyzer.analysis.contained.figures import FIGURES, draw
from analyzer.analysis.data.excerpts import shortened
from analyzer.analysis.data.summaries import among
from analyzer.records import BUDGET, TAU, Estimate, Result, Tables
from analyzer.stats import bootstrap, bounded, contained

__all__ = ["FIGURES", "QUESTION", "Classes", "classes", "draw", "run"]

QUESTION = "Do k draws of the reference hold the same method and the same answer as each source's traces?"
EXEMPLARS, EXCERPT = 3, 160
COLUMNS = {
    "levels": ["source", "level", "k", "contained", "low", "high", "own", "n", "problems", "unknown", "note"],
    "exemplars": ["source", "level", "only", "problem", "class", "traces", "of", "text"],
}


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = bootstrap.DRAWS) -> Result:
    """contained@k at every level for every source and the reference, with bounds for the given problems.

    k: the largest power of two at most `budget` and below the reference's draws of nine problems in ten, the same for
    all sources of a level (`contained.budget`); problems with no more than k draws are left out, and said. Estimates:
    `<s>.contained@<k>.<level>`, the mean over problems of the mean over the source's traces, leave-one-out for the
    reference; `<s>.contained_gap@<k>.<level>`, source less reference, paired by problem; intervals by problem. Tables:
    levels (the same; own: the reference's rate on the source's problems, miss_high: the upper bound of 1 - contained@k
    for the given problems, p_inside: of "it is at least tau", best: the bound if nothing were missed, draws_needed:
    draws of the reference a problem with which best is at most tau at the k that they allow; where it is, at k =
    budget), exemplars (classes that only one side has).
    A trace without a class at a level is left out of the estimate and counts against the bound; copies of a long text
    count once in the number of traces behind it.
    """
    found, reference = classes(tables), tables.reference
    estimates: dict[str, Estimate] = {}
    levels, exemplars = [], []
    for frame, here, row, contained_P, own_P in _levels(tables, found, budget):
        s, level = row["source"], row["level"]
        own = _interval(own_P[np.isfinite(contained_P)])
        row |= _interval(contained_P)
        levels.append(row)
        at = f"@{here.k or budget}.{level}"
        names = ("contained", "low", "high", "n", "method", "note")
        estimates[f"{s}.contained{at}"] = Estimate(*(row[name] for name in names))
        if s != reference:
            estimates[f"{s}.contained_gap{at}"] = _gap(contained_P, own_P, row, own, {"draws": draws, "seed": seed})
            exemplars += [{"source": s, "level": level} | r for r in _only(here, s, reference, found, frame, level)]
    frames = {
        name: pd.DataFrame(rows, columns=None if rows else COLUMNS[name])
        for name, rows in (("levels", levels), ("exemplars", exemplars))
    }
    params = {"budget": budget, "tau": TAU, "reference": reference, "order": tables.sources, "draws": draws}
    return Result(
        "contained", QUESTION, estimates, frames, tuple(_notes(frames["levels"], found, budget)), params, seed
    )


def bounds(tables: Tables, known: Classes, budget: int) -> Result:
    """What the verdict reads: the table `levels`, without intervals. known: the classes of at least these traces."""
    rows = [row for _, _, row, *_ in _levels(tables, known, budget)]
    return Result("contained", "", {}, {"levels": pd.DataFrame(rows)})


def _levels(
    tables: Tables, found: Classes, budget: int
) -> Iterator[tuple[pd.DataFrame, AtLevel, dict[str, Any], np.ndarray, np.ndarray]]:
    """By level and source: the classes of the traces, the level, the row of `levels` without its interval, and
    contained@k by problem [P] of the source and of the reference."""
    frame = found.frame[among(found.frame["key"], set(tables.traces["key"]))]
    reference, others = tables.reference, [s for s in tables.sources if s != tables.reference]
    unit_N, problems = pd.factorize(frame["problem"])
    source_N = frame["source"].to_numpy(dtype=object)
    for level in TEXT_LEVELS:
        traces = frame[level].to_numpy(), unit_N, source_N, frame["copy"].to_numpy()
        here = _at_level(*traces, len(problems), reference, others, budget)
        own_P = np.full(len(problems), np.nan)
        for s in (reference, *others):
            row, contained_P = _row(here, s, reference, level, budget)
            own_P = contained_P if s == reference else own_P
            row["own"] = _mean(own_P[np.isfinite(contained_P)])  # on the source's problems
            yield frame, here, {"source": s, "level": level} | row, contained_P, own_P


class AtLevel(NamedTuple):
    """One level: class, problem and source of its traces [N] (of problems that the reference and another source have,
    with more than k draws of the reference), copy_N: equal for copies, m_N: draws of the reference in the trace's
    class, n_P: of the problem, k."""

    at: np.ndarray  # rows of the frame, int [N]
    class_N: np.ndarray
    unit_N: np.ndarray
    source_N: np.ndarray
    copy_N: np.ndarray
    m_N: np.ndarray
    n_P: np.ndarray
    k: int
    common: bool  # whether the reference and another source have a problem in common
    thin: int  # problems left out, as they have no more than k draws of the reference


def _at_level(
    class_N: np.ndarray,
    unit_N: np.ndarray,
    source_N: np.ndarray,
    copy_N: np.ndarray,
    problems: int,
    reference: str,
    others: list[str],
    budget: int,
) -> AtLevel:
    known = class_N != UNREAD
    n_P = np.bincount(unit_N[known & (source_N == reference)], minlength=problems)
    shared = np.bincount(unit_N[known & (source_N != reference)], minlength=problems) > 0 if others else n_P > 0
    classed = ((class_N >= 0) & (source_N == reference)).any()
    common_P = shared & (n_P > 0)
    k = contained.budget(n_P[common_P], budget) if classed else 0
    thin_P = common_P & (n_P <= k) & (k > 0)
    at = np.flatnonzero(known & (common_P & ~thin_P)[unit_N] & classed)
    width = int(class_N.max(initial=0)) + 2
    pair_N = unit_N[at].astype(np.int64) * width + class_N[at] + 1
    own = source_N[at] == reference
    pairs, count = np.unique(pair_N[own], return_counts=True)
    place = np.searchsorted(pairs, pair_N)
    hit = place < len(pairs)
    hit[hit] = pairs[place[hit]] == pair_N[hit]
    m_N = np.zeros(len(at), int)
    m_N[hit] = count[place[hit]]
    of = class_N[at], unit_N[at], source_N[at], copy_N[at]
    return AtLevel(at, *of, m_N, n_P, k, bool(common_P.any()), int(thin_P.sum()))


def _row(here: AtLevel, source: str, reference: str, level: str, budget: int) -> tuple[dict[str, Any], np.ndarray]:
    """The row of `levels` of one source, and contained@k by problem [P], NaN where it has no trace with a class."""
    mine = here.source_N == source
    unit, own = here.unit_N[mine], int(source == reference)
    known = here.class_N[mine] >= 0
    n_N = here.n_P[unit]
    row = {"k": here.k, "contained": math.nan, "low": math.nan, "high": math.nan, "n": int(known.sum())}
    row |= {"problems": len(np.unique(unit[known])), "unknown": float(1 - known.mean()) if len(known) else math.nan}
    row |= dict.fromkeys(("miss_high", "p_inside", "best", "draws_needed"), math.nan) | {"method": "", "note": ""}
    contained_P = np.full(len(here.n_P), np.nan)
    if not here.k or not known.any():
        why = WHY[level]
        if not here.common:
            why = f"{source} and {reference} have no problem in common"
        elif len(here.at) and not here.k:
            why = f"{reference} has a single draw of a problem, of more than one in ten; two are needed"
        return row | {"note": why}, contained_P
    miss_N = np.where(known, contained.missed(np.maximum(here.m_N[mine] - own, 0), n_N - own, here.k), 1.0)
    total_P = np.bincount(unit[known], minlength=len(contained_P))
    with np.errstate(invalid="ignore"):
        contained_P = 1 - np.bincount(unit[known], weights=miss_N[known], minlength=len(contained_P)) / total_P
    row["contained"] = _mean(contained_P)
    apart_P = _apart(unit, here.copy_N[mine], len(contained_P))
    row["note"] = _note(here, row["unknown"], level, budget, int(mine.sum() - apart_P.sum()), reference)
    if source != reference:
        traces_P = np.bincount(unit, minlength=len(contained_P))
        there = np.flatnonzero(traces_P)
        w = float((np.bincount(unit, weights=miss_N, minlength=len(traces_P))[there] / traces_P[there]).mean())
        counts = here.n_P[there], apart_P[there], here.k
        row |= {"miss_high": contained.upper(w, *counts), "best": contained.upper(0.0, *counts)}
        row["p_inside"] = contained.p_value(w, *counts, TAU) if len(there) >= bootstrap.LEAST else math.nan
        least = budget + 1 if row["best"] <= TAU else 0  # where k can certify, what the budget itself would take
        row["draws_needed"] = contained.draws_needed(*counts[:2], budget, TAU, least=least)
    return row, contained_P


def _apart(unit_N: np.ndarray, copy_N: np.ndarray, problems: int) -> np.ndarray:
    """Traces of each problem that count as independent, int [P]: (sum c)^2 / sum c^2 of the copies c of each text, for
    which the bound holds (`stats/contained.py`); all of them where none is a copy."""
    _, first, size = np.unique(copy_N, return_index=True, return_counts=True)
    whole_P = np.bincount(unit_N, minlength=problems).astype(float)
    square_P = np.bincount(unit_N[first], weights=size.astype(float) ** 2, minlength=problems)
    with np.errstate(invalid="ignore"):
        return np.floor(np.nan_to_num(whole_P**2 / square_P) + 1e-9).astype(int)


def _interval(contained_P: np.ndarray) -> dict[str, Any]:
    """Columns contained, low, high, method: the mean over problems and Gaffke's bounds (`bounded`). All traces of a
    problem are held against the same draws, so that only problems are independent. NaN: a problem without a value."""
    contained_P = contained_P[np.isfinite(contained_P)]
    if not len(contained_P):
        return dict.fromkeys(("contained", "low", "high"), math.nan) | {"method": ""}
    low_K, high_K, *_ = bounded.bounds(contained_P[:, None])
    few = len(contained_P) < bootstrap.LEAST
    method = bootstrap.too_few(len(contained_P), bootstrap.LEAST) if few else bounded.METHOD
    return {"contained": _mean(contained_P), "low": float(low_K[0]), "high": float(high_K[0]), "method": method}


def _mean(contained_P: np.ndarray) -> float:
    """Over the problems that have a value."""
    there = np.isfinite(contained_P)
    return float(contained_P[there].mean()) if there.any() else math.nan


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


def _note(here: AtLevel, unknown: float, level: str, budget: int, copies: int, reference: str) -> str:
    """What a reader of the number must know: k below the budget, what is left out, copies, traces without a class."""
    said = []
    if here.k < budget:
        least = int(here.n_P[np.unique(here.unit_N)].min())
        said.append(f"k = {here.k} and not {budget}: {least} draws of the reference on a problem, {budget + 1} needed")
    if here.thin:
        have = "problem has" if here.thin == 1 else "problems have"
        said.append(f"left out: {here.thin} {have} no more than {here.k} draws of the reference")
    if copies:
        said.append(f"copies of long texts: the bound counts {copies:,} traces less")
    own = here.copy_N[here.source_N == reference]
    if again := len(own) - len(np.unique(own)):
        said.append(
            f"{again:,} of {len(own):,} draws of {reference} repeat a long text: if they are copies and no draws, "
            f"contained is too low and the own rate of {reference} too high"
        )
    if unknown > 0:
        said.append(f"{unknown:.2%} of the traces are left out ({WHY[level]}); they count against the bound")
    return "; ".join(said)


def _only(
    here: AtLevel, source: str, reference: str, found: Classes, frame: pd.DataFrame, level: str
) -> Iterator[dict[str, Any]]:
    """The most frequent classes of a problem that only the source, or only the reference, has: a trace of each."""
    if level == "correct":
        return
    pair_N = here.unit_N.astype(np.int64) * (int(here.class_N.max(initial=0)) + 1) + here.class_N
    arms = {s: np.flatnonzero((here.source_N == s) & (here.class_N >= 0)) for s in (source, reference)}
    common = set(here.unit_N[arms[source]]) & set(here.unit_N[arms[reference]])
    for one, other in ((source, reference), (reference, source)):
        mine = arms[one][np.isin(here.unit_N[arms[one]], list(common))]
        alone = mine[~np.isin(pair_N[mine], pair_N[arms[other]])]
        pairs, first, count = np.unique(pair_N[alone], return_index=True, return_counts=True)
        for i in np.argsort(-count, kind="stable")[:EXEMPLARS]:
            row = frame.iloc[here.at[alone[first[i]]]]
            text = shortened(row["response"], EXCERPT) if isinstance(row["response"], str) else ""
            of = int((here.unit_N[mine] == here.unit_N[alone[first[i]]]).sum())
            name = shortened(found.names[level][row[level]], EXCERPT)
            head = {"only": one, "problem": row["problem"], "class": name, "traces": int(count[i]), "of": of}
            yield head | {"text": text}


def _notes(levels: pd.DataFrame, found: Classes, budget: int) -> list[str]:
    notes = [
        "The reference's own rate holds each of its traces against its other draws. It is no ceiling: a source that "
        "does fewer things is contained more often. Contained is contained in the reference as it was sampled.",
        "contained_gap is paired: over the problems on which both sides have a trace with a class at the level. Where "
        "many traces have none it is not the difference of the two numbers.",
        f"Inside at a level: k draws miss at most {TAU:g} (miss_high, a 95 % upper bound for the given problems); or "
        "inside at a finer level or at the sequence level, which carries over here whatever share these draws contain: "
        "a trace may be no rarer than under the reference and still not come up in k draws.",
    ]
    for level, part in levels[levels["k"] > 0].groupby("level", sort=False):
        small = part[part["best"] > TAU]
        if len(small):
            draws = ("more problems or traces" if math.isnan(n) else f"{n:.0f} draws" for n in small["draws_needed"])
            names = ", ".join(f"{source}: {n}" for source, n in zip(small["source"], draws, strict=True))
            notes.append(
                f"At the {level} level inside cannot be certified with the draws at hand, whatever they show; what "
                f"could (draws of the reference a problem): {names}."
            )
    return [*notes, *([found.left_out] if found.left_out else [])]
