"""Does a source do other things than the reference, however it words them, and more than k reference draws could give?

Two different questions. `change`: are the two arms alike at all (permutation tests, labels permuted within problems)?
Every trained model fails that, also one that only re-weights what the base does: it is labelled change and never
leaving. `strategy_test`: is some group of traces more frequent than k times its frequency in the reference? The groups
are found on one half of the data without labels and counted on the other half: this can certify leaving.

Three representations: `skeleton` (numbers, symbols and code in their order, no wording), `tfidf` (the words as well),
`hidden` (mean hidden states of the base). A strategy is what the skeleton shows: a new wording is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyzer import features
from analyzer.analyses import strategy_change, strategy_units
from analyzer.analyses.strategy_figures import FIGURES, draw
from analyzer.analyses.strategy_units import Units
from analyzer.records import Estimate, Result, Tables
from analyzer.stats import budget as at_budget
from analyzer.stats import cluster_reach, permutation
from analyzer.stats.bootstrap import rate
from analyzer.summaries import last_steps

__all__ = ["FIGURES", "QUESTION", "draw", "run"]

QUESTION = "Does each source use strategies that the reference, within the budget, does not, whatever the wording?"
ALPHA = 0.05
BUDGETS = (1, 4, 16, 64)
AT_MOST = 64  # traces per source and problem in the permutation tests, and wherever a model is needed
EXCERPT = 160  # characters
KEPT = 4  # groups that are tested, of those found
COLUMNS = {  # of empty tables
    "strategy_test": ["source", "representation", "k", "best_cluster", "p", "certified", "factor"],
    "groups": ["source", "representation", "k", "group", "p", "certified"],
    "change": ["source", "representation", "statistic", "conditioned", "p"],
    "c2st": ["source", "auc", "p", "n", "note"],
}
SKELETON, TFIDF, HIDDEN = "skeleton", "tfidf", "hidden"


def run(
    tables: Tables,
    *,
    budget: int = 64,
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
    traces = last_steps(tables.traces)
    traces = traces[traces["response"].fillna("").str.strip() != ""]
    traces = traces.sort_values(["problem", "source", "sample"], kind="stable", ignore_index=True)
    forms = {text: features.skeleton(text) for text in traces["response"].unique()}
    traces = traces.assign(skeleton=traces["response"].map(forms))
    traces = traces.assign(shape=traces["skeleton"].map({s: features.shape(s) for s in set(forms.values())}))
    sources = [s for s in tables.sources if s != tables.reference]
    keys, vectors = features.pooled(tables, tables.base) if tables.base else ([], np.empty((0, 0), np.float16))
    spaces = _spaces(traces, keys, vectors, tables.reference, at_most)
    budgets = sorted({*BUDGETS, budget})
    tested, groups, estimates = [], [], {}
    for source in sources:
        mass = None
        for name, (rows, matrix) in spaces.items():
            found = _reach(rows, matrix, name, source, tables.reference, budgets, seed, permutations)
            tested += found["tests"]
            groups += [g for g in found["groups"] if g["k"] == budget]
            if name == SKELETON:
                mass = _mass(found, source, budget, seed)
        estimates[f"{source}.strategy_mass"] = mass or Estimate(
            math.nan, note=f"{source} and {tables.reference} have no problem in common with text on both sides"
        )
    change, c2st = strategy_change.tables(
        tables, traces, keys, vectors, sources, at_most=at_most, permutations=permutations, seed=seed
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
        "tested": KEPT,
        "reference": tables.reference,
        "order": sources,
    }
    frames = {
        name: pd.DataFrame(rows, columns=None if rows else COLUMNS[name])
        for name, rows in (("strategy_test", tested), ("groups", groups), ("change", change), ("c2st", c2st))
    }
    return Result("strategy", QUESTION, estimates, frames, tuple(_notes(tables, tested, change, spaces)), params, seed)


def _spaces(
    traces: pd.DataFrame, keys: list[str], vectors: np.ndarray, reference: str, at_most: int
) -> dict[str, tuple[pd.DataFrame, Any]]:
    """representation -> (its traces, features that can be compared across problems), rows in one order."""
    if traces.empty:
        return {}
    distinct, where = np.unique(traces["shape"].to_numpy(dtype=object), return_inverse=True)
    out: dict[str, tuple[pd.DataFrame, Any]] = {
        SKELETON: (traces, features.skeleton_counts(list(distinct))[where]),
        TFIDF: (traces, strategy_units.words(traces["response"].tolist())),
    }
    at = {key: i for i, key in enumerate(keys)}
    scored = traces[traces["key"].isin(at)]
    scored = scored[scored.groupby(["source", "problem"]).cumcount() < at_most].reset_index(drop=True)
    if len(scored) > 1:
        matrix = np.asarray(vectors)[[at[k] for k in scored["key"]]].astype(float)
        # around the middle of the reference's and the sources' traces of a problem, or the kinds would be the problems
        means = pd.DataFrame(matrix).groupby([scored["problem"], scored["source"]]).transform("mean")
        middle = means.groupby(scored["problem"]).transform("mean").to_numpy()
        out[HIDDEN] = (scored, features.components(matrix - middle, standardise=True))
    return out


def _reach(
    rows: pd.DataFrame,
    matrix: Any,
    name: str,
    source: str,
    reference: str,
    budgets: list[int],
    seed: int,
    permutations: int,
) -> dict[str, Any]:
    """Split cluster reach of one source in one representation: rows of `strategy_test` and of `groups`."""
    both = set(rows.loc[rows["source"] == source, "problem"]) & set(rows.loc[rows["source"] == reference, "problem"])
    here = np.flatnonzero((rows["source"].isin([source, reference]) & rows["problem"].isin(both)).to_numpy())
    empty = {"tests": [], "groups": [], "member": None}
    if len(here) == 0:
        return empty
    pair, own = rows.iloc[here], matrix[here]
    held = cluster_reach.held_out((pair["source"] + "\0" + pair["problem"]).to_numpy(), seed=seed)
    by_text = np.argsort((pair["response"]).to_numpy(dtype=object), kind="stable")  # no name decides what is fitted on
    units = strategy_units.clustered(own[by_text], ~held[by_text], seed=seed)
    member = np.empty_like(units.member)
    member[by_text] = units.member
    units = Units(units.names, member)
    if name == SKELETON:
        used = strategy_units.symbols(pair["shape"].tolist(), ~held)
        units = Units([*used.names, *units.names], np.concatenate([used.member, units.member], axis=1))
    if not units.names or held.all():
        return empty
    problem = np.unique(pair["problem"].to_numpy(), return_inverse=True)[1]
    from_source = (pair["source"] == source).to_numpy()
    names, member = units
    first, second = (_count(member, problem, from_source, half) for half in (~held, held))
    b, n_q, a, n_p = (x.sum(-1) for x in second)
    if not (n_q and n_p):
        return empty
    texts = pair["response"].to_numpy(dtype=object)
    tests, groups = [], []
    for k in budgets:
        kept = _promising(first, k)
        raw, adjusted = np.ones(len(names)), np.full(len(names), np.nan)
        if len(kept):
            raw[kept] = cluster_reach.p_values(second[0][kept], second[1], second[2][kept], second[3], k)
            adjusted[kept] = at_budget.holm(raw[kept])
            if k == 1:
                blocks = _blocks(member[:, kept], problem, from_source, held, texts)
                adjusted[kept] = permutation.max_t(blocks, permutations=permutations, seed=seed)
        for c, unit in enumerate(names):
            line = {"source": source, "representation": name, "k": k, "group": unit, "p": adjusted[c]}
            shares = {"share_source": b[c] / n_q, "share_reference": a[c] / n_p, "n_source": n_q, "n_reference": n_p}
            groups.append(line | shares | {"certified": bool(adjusted[c] <= ALPHA)})
        order = np.lexsort((k * a / n_p - b / n_q, raw, np.nan_to_num(adjusted, nan=2.0)))
        best = int(order[0])
        members = np.flatnonzero(held & from_source & member[:, best])
        tests.append(
            {
                "source": source,
                "representation": name,
                "k": k,
                "units": len(kept),
                "found": len(names),
                "best_cluster": names[best],
                "share_source": b[best] / n_q,
                "share_reference": a[best] / n_p,
                "n_source": int(n_q),
                "n_reference": int(n_p),
                "p": float(np.nan_to_num(adjusted[best], nan=1.0)),
                "certified": bool(adjusted[best] <= ALPHA),
                "exemplar": " ".join(str(texts[members[0]]).split())[:EXCERPT] if len(members) else "",
                "factor": cluster_reach.factor(int(b[best]), int(n_q), int(a[best]), int(n_p), k, units=len(kept))
                if best in kept
                else math.nan,
            }
        )
    held_source = held & from_source
    return {
        "tests": tests,
        "groups": groups,
        "names": names,
        "member": member[held_source],
        "problem": pair["problem"].to_numpy()[held_source],
    }


def _count(
    member: np.ndarray, problem: np.ndarray, from_source: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Traces of the source by group and problem [C, P], all of its traces [P], and the same of the reference."""
    out: list[np.ndarray] = []
    for arm in (half & from_source, half & ~from_source):
        size = np.bincount(problem[arm], minlength=problem.max() + 1)
        count = np.zeros((len(size), member.shape[1]))
        np.add.at(count, problem[arm], member[arm])
        out += [count.T, size]
    return tuple(out)


def _promising(first: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], k: int) -> np.ndarray:
    """Groups beyond k times the reference on the first half, the KEPT with the smallest p there: int [<= KEPT].

    Looking at labels there costs nothing, as the other half is what is tested; few groups cost little of alpha.
    """
    b, n_q, a, n_p = (x.sum(-1) for x in first)
    p = cluster_reach.p_values(*first, k)
    beyond = np.flatnonzero(b * n_p > k * a * n_q)
    return np.sort(beyond[np.argsort(p[beyond], kind="stable")][:KEPT])


def _blocks(
    member: np.ndarray, problem: np.ndarray, from_source: np.ndarray, held: np.ndarray, texts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """The held-out traces of every problem in the order of their texts."""
    by_text = np.argsort(texts, kind="stable")
    for p in range(problem.max() + 1):
        at = by_text[(problem == p)[by_text] & held[by_text]]
        yield from_source[at], member[at], permutation.mark(texts[at])


def _mass(found: dict[str, Any], source: str, budget: int, seed: int) -> Estimate | None:
    """Share of the held-out traces of the source in groups certified at the budget, interval by problem."""
    if found["member"] is None:
        return None
    certified = {g["group"] for g in found["groups"] if g["k"] == budget and g["certified"]}
    inside = found["member"][:, [name in certified for name in found["names"]]].any(axis=1)
    if not certified:
        note = f"no group of skeletons is certified beyond {budget} draws; that is no proof that there is none"
        return Estimate(0.0, n=len(inside), method="held-out traces in certified groups", note=note)
    mass = rate(inside.astype(float), found["problem"], seed=seed)
    note = "certified: " + ", ".join(name for name in found["names"] if name in certified)
    return Estimate(mass.value, mass.low, mass.high, mass.n, mass.method, note)


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


def _notes(
    tables: Tables, tested: list[dict[str, Any]], change: list[dict[str, Any]], spaces: dict[str, Any]
) -> list[str]:
    if not tested:
        return [f"No source shares a problem with {tables.reference} where both have text: nothing to test."]
    notes = [
        "Change is not leaving: a small p of the permutation tests says that the two arms differ, which re-weighting "
        "alone brings about.",
        f"Groups are found without labels on half of the traces, the {KEPT} most promising there are tested on the "
        'other half, once; words for operators and numbers ("add", "twelve") are wording, symbols are not.',
        "The strategy level speaks by the skeleton alone; groups of words or hidden states may be wording.",
    ]
    correct = [r for r in change if r["conditioned"] == "correct" and r["statistic"] == "energy"]
    for row in correct:
        if row["representation"] == SKELETON and row["dropped"]:
            notes.append(
                f"Correct traces of {row['source']}: {row['problems']} problems enter, {row['dropped']} are dropped "
                "for want of two correct traces on each side."
            )
    if HIDDEN not in spaces:
        notes.append("No hidden states of a base model: the third representation is missing.")
    return notes
