"""Does a source do other things than the reference, however it words them, and more than k reference draws could give?

Two different questions. `change`: are the two arms alike at all (permutation tests, labels permuted within problems)?
Every trained model fails that, also one that only re-weights what the base does: it is labelled change and never
leaving. `strategy_test`: is some group of traces more frequent than k times its frequency in the reference? The groups
are found on one half of the data without labels and counted on the other half: this can certify leaving.

Three representations certify, one a level of the ladder: `skeleton` (clusters of numbers, symbols and code in their
order, no wording), `steps` (which kind of step follows which), `kinds` (symbols and kinds of steps that a trace holds).
Two are described: `tfidf` (the words as well), `hidden` (mean hidden states of the base). A new wording is no strategy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from analyzer.analysis.data import features, steps
from analyzer.analysis.data.skeletons import computed
from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.strategy import change as strategy_change
from analyzer.analysis.strategy import ends as strategy_ends
from analyzer.analysis.strategy import split
from analyzer.analysis.strategy import units as strategy_units
from analyzer.analysis.strategy.figures import FIGURES, draw
from analyzer.records import BUDGET, METHOD, Estimate, Result, Tables
from analyzer.stats import permutation
from analyzer.stats.bootstrap import ALPHA, rate

__all__ = ["FIGURES", "QUESTION", "draw", "run"]

QUESTION = "Does each source use strategies that the reference, within the budget, does not, whatever the wording?"
BUDGETS = (1, 4, 16, 64)
AT_MOST = 64  # traces per source and problem in the permutation tests, and wherever a model is needed
COLUMNS = {  # of empty tables
    "strategy_test": ["source", "representation", "k", "best_cluster", "p", "certified", "factor"],
    "groups": ["source", "representation", "k", "group", "p", "certified"],
    "change": ["source", "representation", "statistic", "conditioned", "p"],
    "c2st": ["source", "auc", "p", "n", "note"],
}
SKELETON, STEPS, KINDS = METHOD
TFIDF, HIDDEN = "tfidf", "hidden"


def run(
    tables: Tables,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    permutations: int = permutation.PERMUTATIONS,
    at_most: int = AT_MOST,
) -> Result:
    """Change, reweighting, a classifier and split cluster reach, for every source against the reference.

    The tests of change take the lowest `at_most` samples per source and problem, the strategy test all of them (hidden
    states: those that were scored). Last training step of each source; problems that both have.
    Tables: strategy_test (per source, representation and budget the best group, p adjusted over the tested ones: max-T
    at k = 1, else Holm), groups (all groups at the budget, p NaN where not tested), change, c2st.
    Estimates: `<s>.strategy_mass` (share of the held-out traces in groups of the skeleton certified at the budget),
    `<s>.changed_p` and `<s>.reweight_p` (energy distance of skeletons; all traces, correct ones).
    """
    traces, left_out = prepared(tables)
    sources = [s for s in tables.sources if s != tables.reference]
    keys, vectors = [], np.empty((0, 0), np.float16)
    if tables.base:
        keys, vectors = features.pooled(tables, tables.base, keys=traces["key"])
    counts = features.word_counts(traces["response"])
    spaces = _spaces(traces, counts, keys, vectors, at_most)
    budgets = sorted({*BUDGETS, budget})
    tested, groups, estimates = [], [], {}
    for source in sources:
        method = []
        for rows, matrices in spaces:
            reached = split.reach(rows, matrices, source, tables.reference, budgets, seed, permutations)
            for name, found in reached.items():
                tested += found["tests"]
                groups += [g for g in found["groups"] if g["k"] == budget]
                if name in METHOD:
                    method.append(found)
        why = f"{source} and {tables.reference} have no problem in common with text on both sides"
        estimates[f"{source}.strategy_mass"] = _mass(method, budget) if method else Estimate(math.nan, note=why)
    change, c2st = strategy_change.tables(
        tables, traces, counts, keys, vectors, sources, at_most=at_most, permutations=permutations, seed=seed
    )
    for source in sources:
        for key, condition in (("changed_p", "all"), ("reweight_p", "correct")):
            estimates[f"{source}.{key}"] = _change_estimate(change, source, condition, permutations)
    params = {
        "budget": budget,
        "budgets": budgets,
        "permutations": permutations,
        "at_most": at_most,
        "alpha": ALPHA,
        "neighbours": strategy_change.NEIGHBOURS,
        "most_kinds": strategy_units.MOST_KINDS,
        "clusters": strategy_units.FINE,
        "tested": split.KEPT,
        "reference": tables.reference,
        "order": sources,
    }
    frames = {
        name: pd.DataFrame(rows, columns=None if rows else COLUMNS[name])
        for name, rows in (("strategy_test", tested), ("groups", groups), ("change", change), ("c2st", c2st))
    }
    notes = [*_notes(tables, tested, change, spaces), *strategy_ends.notes(traces), *filter(None, [left_out])]
    return Result("strategy", QUESTION, estimates, frames, tuple(notes), params, seed)


def prepared(tables: Tables) -> tuple[pd.DataFrame, str]:
    """The traces with a text, of each source's last step, by problem, and the sentence of `features.affordable` on
    those left out.

    With their skeleton, the shape of what it computes, the skeleton with marks between the computations, their kinds
    (tuple), whether a limit cut the trace before an answer was read, and characters to the end of that answer.
    `unit` and `text` are the ranks of problem and response: numbers sort a hundred times faster than names.
    """
    traces, left_out = features.affordable(last_steps(tables.traces))
    traces = features.with_text(tables, traces)
    traces = traces[~features.is_blank(traces["response"])]
    traces = traces.sort_values(["problem", "source", "sample"], kind="stable", ignore_index=True)
    # thousands of small pieces follow, each of them slow to cut from Arrow
    names = {name: traces[name].astype(object) for name in ("key", "source", "problem", "response")}
    forms = tables.memo.setdefault("skeleton", {})  # the checks and every variation read the same texts again
    hashes = traces["response_hash"].tolist()
    for text, h in zip(names["response"], hashes, strict=True):
        if h not in forms:
            forms[h] = steps.skeleton_of_steps(text)
    marked = [forms[h] for h in hashes]
    each = tables.memo.setdefault("shape", {})
    for form in set(marked) - each.keys():
        bare = form.replace(steps.MARK, " ")
        each[form] = bare, computed(features.shape(bare)), steps.kinds(form)
    skeletons, shapes, kinds = (pd.Series([each[form][i] for form in marked], dtype=object) for i in range(3))
    cut, length = strategy_ends.ends(traces["finish"], names["response"])
    traces = traces.assign(
        **names,
        cut=cut,
        length=length,
        marked=marked,
        skeleton=skeletons,
        shape=shapes,
        kinds=kinds,
        unit=pd.factorize(names["problem"], sort=True)[0],
        text=pd.factorize(names["response"], sort=True)[0],
    )
    return traces, left_out


Skeletons = tuple[pd.DataFrame, csr_matrix]  # traces as `prepared` and their features [N, V]


def skeletons(tables: Tables) -> Skeletons:
    """What `certifying` reads of the traces: most of its work, and the same for any part of them."""
    rows, _ = prepared(tables)
    return rows, _of_shapes(rows)


def _of_shapes(rows: pd.DataFrame) -> csr_matrix:
    distinct, where = np.unique(rows["shape"].to_numpy(dtype=object), return_inverse=True)
    return features.skeleton_counts(list(distinct))[where]


def certifying(
    tables: Tables, known: Skeletons, budgets: Sequence[int], seed: int, permutations: int = permutation.PERMUTATIONS
) -> Result:
    """What the verdict reads: the table `strategy_test` of the levels of the method, without the tests of change.
    known: of at least these traces."""
    rows, matrix = known
    at = np.flatnonzero(among(rows["key"], set(tables.traces["key"])))
    rows, shapes, tests = rows.iloc[at].reset_index(drop=True), {SKELETON: matrix[at]}, []
    for source in (s for s in tables.sources if s != tables.reference and len(rows)):
        found = split.reach(rows, shapes, source, tables.reference, budgets, seed, permutations)
        tests += [test for part in found.values() for test in part["tests"]]
    return Result("strategy", "", {}, {"strategy_test": pd.DataFrame(tests)})


def _spaces(
    traces: pd.DataFrame, counts: csr_matrix, keys: list[str], vectors: np.ndarray, at_most: int
) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """Traces, and representation -> their features that can be compared across problems; rows in one order."""
    if traces.empty:
        return []
    shapes = _of_shapes(traces)
    out: list[tuple[pd.DataFrame, dict[str, Any]]] = [
        (traces, {SKELETON: shapes, TFIDF: strategy_units.frequent(counts)})
    ]
    place = {key: i for i, key in enumerate(keys)}
    at_N = np.array([place.get(key, -1) for key in traces["key"]])
    rank = traces[at_N >= 0].groupby(["source", "unit"]).cumcount().reindex(traces.index)
    kept = (rank < at_most).to_numpy()
    scored = traces[kept].reset_index(drop=True)
    if len(scored) > 1:
        matrix = np.asarray(vectors)[at_N[kept]].astype(float)
        # around the middle of the reference's and the sources' traces of a problem, or the kinds would be the problems
        means = pd.DataFrame(matrix).groupby([scored["unit"], scored["source"]]).transform("mean")
        middle = means.groupby(scored["unit"]).transform("mean").to_numpy()
        hidden = features.components(matrix - middle, standardise=True)
        if len(scored) == len(traces):
            out[0][1][HIDDEN] = hidden
        else:
            out.append((scored, {HIDDEN: hidden}))
    return out


def _mass(method: list[dict[str, Any]], budget: int) -> Estimate:
    """Share of the held-out traces of the source in groups certified at the budget, interval by problem."""
    certified = [{g["group"] for g in found["groups"] if g["k"] == budget and g["certified"]} for found in method]
    names = [name for found, sure in zip(method, certified, strict=True) for name in found["names"] if name in sure]
    if not names:
        note = f"no group is certified beyond {budget} draws; that is no proof that there is none"
        return Estimate(0.0, n=len(method[0]["member"]), method="held-out traces in certified groups", note=note)
    inside = [found["member"][:, [n in sure for n in found["names"]]] for found, sure in zip(method, certified)]
    mass = rate(np.concatenate(inside, axis=1).any(axis=1).astype(float), method[0]["problem"])
    note = "certified: " + ", ".join(names)
    return Estimate.of(mass, note)


def _change_estimate(change: list[dict[str, Any]], source: str, condition: str, permutations: int) -> Estimate:
    for row in change:
        wanted = (source, SKELETON, "energy", condition)
        if (row["source"], row["representation"], row["statistic"], row["conditioned"]) == wanted:
            note = f"{row['problems']} problems; a small value says changed, never outside"
            method = f"energy distance of skeletons, {permutations} permutations within problems"
            return Estimate(row["p"], n=row["n"], method=method, note=note)
    why = "no problem has two traces of each"
    if condition == "correct":
        why = "no problem has two correct traces of each, or correctness is not known"
    return Estimate(math.nan, note=why)


def _notes(tables: Tables, tested: list[dict[str, Any]], change: list[dict[str, Any]], spaces: list[Any]) -> list[str]:
    if not tested:
        return [f"No source shares a problem with {tables.reference} where both have text: nothing to test."]
    notes = [
        "Change is not leaving: a small p of the permutation tests says that the two arms differ, which re-weighting "
        "alone brings about.",
        f"Groups are found without labels on half of the traces, the {split.KEPT} most promising there are tested on "
        'the other half, once; words for operators and numbers ("add", "twelve") are wording, symbols are not.',
        "The levels of the method (skeleton, steps, kinds) speak by what a text computes, to its first answer; groups "
        "of words or hidden states may be wording and certify nothing.",
    ]
    correct = [r for r in change if r["conditioned"] == "correct" and r["statistic"] == "energy"]
    for row in correct:
        if row["representation"] == SKELETON and row["dropped"]:
            notes.append(
                f"Correct traces of {row['source']}: {row['problems']} problems enter, {row['dropped']} are dropped "
                "for want of two correct traces on each side."
            )
    if not any(HIDDEN in matrices for _, matrices in spaces):
        notes.append("No hidden states of a base model: the third representation is missing.")
    return notes
