"""Split cluster reach: groups of traces that one half of the draws suggests and the other half tests at each budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from analyzer.analysis.data.excerpts import shortened
from analyzer.analysis.strategy import ends as strategy_ends
from analyzer.analysis.strategy import units as strategy_units
from analyzer.analysis.strategy.units import Units
from analyzer.analysis.support import copies
from analyzer.records import METHOD, TESTED
from analyzer.stats import budget as at_budget
from analyzer.stats import cluster_reach, permutation
from analyzer.stats.bootstrap import ALPHA

SKELETON, STEPS, KINDS = METHOD
EXCERPT = 160  # characters
KEPT = 4  # groups that are tested, of those found


class Counts(NamedTuple):
    """One half of the traces: the source's by group and problem [C, P] and all [P]; the same of the reference."""

    b: np.ndarray
    n_q: np.ndarray
    a: np.ndarray
    n_p: np.ndarray


def reach(
    rows: pd.DataFrame,
    matrices: dict[str, Any],
    source: str,
    reference: str,
    budgets: Sequence[int],
    seed: int,
    permutations: int,
) -> dict[str, dict[str, Any]]:
    """Split cluster reach of one source, by representation: rows of `strategy_test` and of `groups`.

    Where long texts of the reference come more than once, p is the larger one of all its rows and of each text once:
    rows copied within a file are no draws, and nobody knows (`copies.later`). rows: as `prepared`; matrices: their
    features by representation. Nothing where no problem has both sides.
    """
    arguments = source, reference, budgets, seed, permutations
    found = _reach(rows, matrices, *arguments)
    once = np.flatnonzero(~(copies.later(rows) & (rows["source"] == reference).to_numpy()))
    if not found or len(once) == len(rows):
        return found
    again = _reach(rows.iloc[once].reset_index(drop=True), {n: m[once] for n, m in matrices.items()}, *arguments)
    for name, of in found.items():
        other = {test["k"]: test for test in again.get(name, {"tests": []})["tests"]}
        for test in of["tests"]:
            test |= copies.larger_p(test, other.get(test["k"]))
            test["certified"] &= test["p"] <= ALPHA
        sure = {test["k"] for test in of["tests"] if test["certified"]}
        of["groups"] = [row | {"certified": row["certified"] and row["k"] in sure} for row in of["groups"]]
    return found


def _reach(
    rows: pd.DataFrame,
    matrices: dict[str, Any],
    source: str,
    reference: str,
    budgets: Sequence[int],
    seed: int,
    permutations: int,
) -> dict[str, dict[str, Any]]:
    """`reach` with every row a draw."""
    label, unit = rows["source"].to_numpy(dtype=object), rows["unit"].to_numpy()
    held_by = [np.bincount(unit[label == s], minlength=unit.max() + 1) > 0 for s in (source, reference)]
    here = np.flatnonzero(((label == source) | (label == reference)) & np.logical_and(*held_by)[unit])
    if len(here) == 0:
        return {}
    problem = np.unique(unit[here], return_inverse=True)[1]
    from_source = label[here] == source
    held = cluster_reach.held_out(2 * problem + from_source, seed=seed)
    text = rows["text"].to_numpy()[here]
    if held.all() or not (held & from_source).any() or not (held & ~from_source).any():
        return {}
    by_text = np.argsort(text, kind="stable")  # no name decides what is fitted on
    units: dict[str, Units] = {}
    for name, matrix in matrices.items():
        sorted_units = strategy_units.clustered(matrix[here[by_text]], ~held[by_text], seed=seed)
        member = np.empty_like(sorted_units.member)
        member[by_text] = sorted_units.member
        units[name] = Units(sorted_units.names, member)
    if SKELETON in matrices:
        kinds = rows["kinds"].to_numpy(dtype=object)[here]
        for name, items in ((STEPS, strategy_units.followed), (KINDS, strategy_units.used)):
            of = {own: items(own) for own in set(kinds)}
            units[name] = strategy_units.held([of[own] for own in kinds], ~held)
        whole = strategy_ends.whole(rows["cut"].to_numpy()[here], rows["length"].to_numpy()[here])
        for name in set(METHOD) & set(units):
            units[name] = Units(units[name].names, units[name].member & whole[:, None])
    units = {name: found for name, found in units.items() if found.names}
    counts = {
        name: [_count(found.member, problem, from_source, half) for half in (~held, held)]
        for name, found in units.items()
    }
    kept = {(name, k): _promising(first, k) for name, (first, _) in counts.items() for k in budgets}
    changed = {}
    if 1 in budgets and units:  # all representations with the same permutations
        chosen = {name: units[name].member[:, kept[name, 1]] for name in units}
        blocks = _blocks(np.concatenate(list(chosen.values()), axis=1), problem, from_source, held, text, rows, here)
        family = np.repeat(np.arange(len(chosen)), [x.shape[1] for x in chosen.values()])
        p = permutation.max_t(blocks, permutations=permutations, seed=seed, family_C=family)
        changed = {name: p[family == i] for i, name in enumerate(chosen)}
    out = {}
    for name, (names, member) in units.items():
        held_source = np.flatnonzero(held & from_source)
        found = {"tests": [], "groups": [], "names": names}
        found |= {"member": member[held_source], "problem": problem[held_source]}
        for k in budgets:
            second, at = counts[name][1], kept[name, k]
            raw, adjusted = np.ones(len(names)), np.full(len(names), np.nan)
            if len(at):
                raw[at] = cluster_reach.p_values(second.b[at], second.n_q, second.a[at], second.n_p, k)
                adjusted[at] = changed[name] if k == 1 else at_budget.holm(raw[at])
            groups, test = _rows(names, second, k, at, raw, adjusted)
            exemplar = held_source[member[held_source, names.index(test["best_cluster"])]][:1]
            test["exemplar"] = "".join(shortened(str(rows["response"].iloc[here[i]]), EXCERPT) for i in exemplar)
            head = {"source": source, "representation": name, "k": k}
            found["groups"] += [head | row for row in groups]
            found["tests"].append(head | test)
        out[name] = found
    return out


def _rows(
    names: list[str], second: Counts, k: int, kept: np.ndarray, raw: np.ndarray, adjusted: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of `groups`, and the row of `strategy_test`: the best group."""
    b, n_q, a, n_p = (x.sum(-1) for x in second)
    groups = []
    for c, unit in enumerate(names):
        shares = {"share_source": b[c] / n_q, "share_reference": a[c] / n_p, "n_source": n_q, "n_reference": n_p}
        groups.append({"group": unit, "p": adjusted[c], **shares, "certified": bool(adjusted[c] <= ALPHA)})
    best = int(np.lexsort((k * a / n_p - b / n_q, raw, np.nan_to_num(adjusted, nan=2.0)))[0])
    factor = math.nan
    if best in kept:
        tests = len(kept) * len(TESTED)  # what Holm over groups and over levels asks for at most
        factor = cluster_reach.factor(int(b[best]), int(n_q), int(a[best]), int(n_p), k, units=tests)
    test = {
        "units": len(kept),
        "found": len(names),
        "best_cluster": names[best],
        "share_source": b[best] / n_q,
        "share_reference": a[best] / n_p,
        "n_source": int(n_q),
        "n_reference": int(n_p),
        "p": float(np.nan_to_num(adjusted[best], nan=1.0)),
        "certified": bool(adjusted[best] <= ALPHA),
        "exemplar": "",
        "factor": factor,
    }
    return groups, test


def _count(member: np.ndarray, problem: np.ndarray, from_source: np.ndarray, half: np.ndarray) -> Counts:
    out: list[np.ndarray] = []
    for arm in (half & from_source, half & ~from_source):
        at = np.flatnonzero(arm)
        shape = (problem.max() + 1, len(at))
        by_problem = csr_matrix((np.ones(len(at)), (problem[at], np.arange(len(at)))), shape=shape)
        out += [(by_problem @ member[at].astype(float)).T, np.bincount(problem[at], minlength=shape[0])]
    return Counts(*out)


def _promising(first: Counts, k: int) -> np.ndarray:
    """Groups beyond k times the reference on the first half, the KEPT with the smallest p there: int [<= KEPT].

    Looking at labels there costs nothing, as the other half is what is tested; few groups cost little of alpha.
    """
    b, n_q, a, n_p = (x.sum(-1) for x in first)
    p = cluster_reach.p_values(*first, k)
    beyond = np.flatnonzero(b * n_p > k * a * n_q)
    return np.sort(beyond[np.argsort(p[beyond], kind="stable")][:KEPT])


def _blocks(
    member: np.ndarray,
    problem: np.ndarray,
    from_source: np.ndarray,
    held: np.ndarray,
    text: np.ndarray,
    rows: pd.DataFrame,
    here: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """The held-out traces of every problem in the order of their texts."""
    response = rows["response"].to_numpy(dtype=object)[here]
    order = np.lexsort((text, problem))
    order = order[held[order]]
    for at in np.split(order, np.flatnonzero(np.diff(problem[order])) + 1):
        yield from_source[at], member[at], permutation.mark(response[at])
