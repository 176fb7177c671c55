"""Is a source different from the reference at all? Stratified permutation tests and a classifier, for `strategy`.

The kernels of a problem are computed once on the traces of all sources together, without labels, which keeps every
comparison of two of them exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from analyzer.analysis.clusters.grouping import number_of_clusters
from analyzer.analysis.data import features
from analyzer.records import Tables
from analyzer.stats import kernels, permutation

NEIGHBOURS = kernels.NEIGHBOURS
LEAST = 2  # traces per arm and problem
FOLDS = 5
REFITS = 99  # permutations of the classifier
STRENGTH = 1.0  # of the ridge, in units of a column's variance over the traces of all problems


def tables(
    tables: Tables,
    traces: pd.DataFrame,
    counts: csr_matrix,
    keys: list[str],
    vectors: np.ndarray,
    sources: list[str],
    *,
    at_most: int,
    permutations: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `change` and of `c2st`; traces as `strategy.prepared`, counts: of their words."""
    rank = traces.groupby(["source", "unit"]).cumcount().to_numpy()
    # by text: the order in which ties and permutations see the traces has nothing to do with who wrote them
    order = np.lexsort((traces["text"], traces["unit"]))
    order = order[rank[order] < at_most]
    chosen = traces.iloc[order].reset_index(drop=True)
    if chosen.empty:
        return [], []
    surprisal = tables.scores[tables.scores["model"] == tables.base].set_index("key")["nll_mean"].astype(float)
    chosen = chosen.assign(surprisal=chosen["key"].map(surprisal))
    state = {key: i for i, key in enumerate(keys)}
    state_N = np.array([state.get(key, -1) for key in chosen["key"]])
    skeletons, texts = (_matrix(chosen[c], make) for c, make in (("skeleton", features.skeleton_counts), _TFIDF))
    columns = {name: chosen[name].to_numpy(dtype=object) for name in ("source", "response")}
    columns["correct"] = chosen["correct"].astype("boolean").fillna(False).to_numpy(dtype=bool)
    columns["surprisal"] = chosen["surprisal"].to_numpy(dtype=float)
    unit = chosen["unit"].to_numpy()
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for at in np.split(np.arange(len(unit)), np.flatnonzero(np.diff(unit)) + 1):
        spaces = {"skeleton": _distances(*skeletons, at), "tfidf": _distances(*texts, at)}
        known = state_N[at] >= 0
        if known.sum() > 1:
            found = features.components(vectors[state_N[at][known]], standardise=True)
            spaces["hidden"] = np.full((len(at), len(at)), np.nan)
            spaces["hidden"][np.ix_(known, known)] = kernels.distances(found @ found.T)
        rows = {name: column[at] for name, column in columns.items()}
        _add(sums, rows, spaces, sources, tables.reference, permutations, seed)
    change = [row for source in sources for row in _rows(sums, source)]
    return change, [_classifier(chosen, counts[order], source, tables.reference, seed) for source in sources]


_TFIDF = ("response", features.tfidf)


def _matrix(column: pd.Series, make: Any) -> tuple[csr_matrix, np.ndarray]:
    """Features of the distinct values, and which of them each row has: sparse [U, V], int [N]."""
    distinct, where = np.unique(column.to_numpy(dtype=object), return_inverse=True)
    return make(list(distinct)), where


def _distances(matrix: csr_matrix, where_N: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Distances between the rows `at`, computed once for equal ones."""
    distinct, place = np.unique(where_N[at], return_inverse=True)
    rows = matrix[distinct]
    return kernels.distances((rows @ rows.T).toarray())[np.ix_(place, place)]


def _add(
    sums: dict[tuple[str, str], dict[str, Any]],
    rows: dict[str, np.ndarray],
    spaces: dict[str, np.ndarray],
    sources: list[str],
    reference: str,
    permutations: int,
    seed: int,
) -> None:
    """Add one problem to every comparison: permuted statistics and what the effect sizes need."""
    label, right, text, surprisal = (rows[name] for name in ("source", "correct", "response", "surprisal"))
    known = {name: np.isfinite(np.diag(distance)) for name, distance in spaces.items()} | {
        "likelihood": np.isfinite(surprisal)
    }
    mark = permutation.mark(text)  # of all sources: those with the same counts share their permutations
    cluster = {}
    for name, distance in spaces.items():
        at = np.flatnonzero(known[name])
        cluster[name] = np.zeros(len(label), int)
        cluster[name][at] = kernels.clusters(distance[np.ix_(at, at)], number_of_clusters(len(at)))
    for source in sources:
        for condition, allowed in (("all", np.ones(len(label), bool)), ("correct", right)):
            total = sums.setdefault((source, condition), {"seen": 0})
            pair = np.isin(label, (source, reference)) & allowed
            total["seen"] += bool((label == source).any() and (label == reference).any())
            signs: dict[bytes, np.ndarray] = {}  # representations with the same traces share their permutations
            for name in (*spaces, "likelihood"):
                at = np.flatnonzero(pair & known[name])
                own = label[at] == source
                a, b = int((~own).sum()), int(own.sum())
                if min(a, b) < LEAST:
                    continue
                if at.tobytes() not in signs:
                    signs[at.tobytes()] = permutation.signs(own, permutations, seed, mark)
                s = signs[at.tobytes()]
                if name == "likelihood":
                    v = surprisal[at]
                    _put(total, (name, "surprisal"), s @ v, v[own].mean() - v[~own].mean(), len(at))
                    continue
                distance = spaces[name][np.ix_(at, at)]
                cross = 2 * distance[np.ix_(own, ~own)].mean()
                # distances of a trace to itself left out: an effect of 0 where the arms are alike
                within = [distance[np.ix_(x, x)].sum() / (n * (n - 1)) for x, n in ((own, b), (~own, a))]
                energy = (cross - sum(within)) / cross if cross else 0.0
                _put(total, (name, "energy"), permutation.quadratic(s, kernels.energy(distance)), energy, len(at))
                if condition == "correct":  # reweighting has two endpoints: energy and surprisal
                    continue
                near, c = kernels.nearest(distance), cluster[name][at]
                same = near[np.ix_(own, own)].sum() + near[np.ix_(~own, ~own)].sum()
                chance = (a * (a - 1) + b * (b - 1)) / (len(at) * (len(at) - 1))
                _put(total, (name, "knn"), permutation.quadratic(s, near), same / near.sum() - chance, len(at))
                chi_square = permutation.factored(s, kernels.occupancy_factor(c))
                _put(total, (name, "occupancy"), chi_square, chi_square[0] - chi_square[1:].mean(), len(at))


def _put(total: dict[str, Any], name: tuple[str, str], drawn: np.ndarray, effect: float, n: int) -> None:
    entry = total.setdefault(name, {"drawn": 0.0, "effects": [], "n": 0})
    entry["drawn"] = entry["drawn"] + drawn
    entry["effects"].append(effect)
    entry["n"] += n


def _rows(sums: dict[tuple[str, str], dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Rows of `change`: effect is the mean over problems of the energy coefficient (0..1), of the share of neighbours
    on the own side beyond chance, of chi-square / N of clusters by arm beyond chance, of the difference in nats per
    token (source minus reference). All are about 0 where the arms are alike."""
    out = []
    for condition in ("all", "correct"):
        total = sums.get((source, condition), {})
        for name, entry in total.items():
            if name == "seen":
                continue
            drawn = np.abs(entry["drawn"]) if name[1] == "surprisal" else entry["drawn"]
            out.append(
                {
                    "source": source,
                    "representation": name[0],
                    "statistic": name[1],
                    "conditioned": condition,
                    "p": permutation.p_value(drawn),
                    "effect": float(np.mean(entry["effects"])),
                    "n": entry["n"],
                    "problems": len(entry["effects"]),
                    "dropped": total["seen"] - len(entry["effects"]),
                }
            )
    return out


def _classifier(chosen: pd.DataFrame, counts: csr_matrix, source: str, reference: str, seed: int) -> dict[str, Any]:
    """AUC of a ridge classifier on words and shapes of held-out problems, labels permuted within problems for p.

    Features are taken relative to the mean of their problem; folds are made of whole problems; AUC is the mean over
    problems of the AUC within the problem: 1/2 is none, 1 is told apart always.
    """
    from sklearn.model_selection import GroupKFold

    unit, is_source = chosen["unit"].to_numpy(), (chosen["source"] == source).to_numpy()
    arms = is_source, (chosen["source"] == reference).to_numpy()
    both = np.logical_and(*(np.bincount(unit[arm], minlength=unit.max() + 1) >= LEAST for arm in arms))
    pair = np.flatnonzero(np.logical_or(*arms) & both[unit])
    if both.sum() < 2:
        return {"source": source, "auc": math.nan, "p": math.nan, "n": len(pair), "note": "needs two common problems"}
    shapes, where = _matrix(chosen["shape"].iloc[pair], features.skeleton_counts)
    found = features.frequent(counts[pair], least=0.01, at_most=100)
    x = np.concatenate([_varied(found, np.arange(len(pair))), _varied(shapes, where)], axis=1)
    problem = np.unique(unit[pair], return_inverse=True)[1]
    x = x - pd.DataFrame(x).groupby(problem).transform("mean").to_numpy()
    y = np.empty((REFITS + 1, len(pair)))
    groups = np.split(np.arange(len(pair)), np.flatnonzero(np.diff(problem)) + 1)
    text, own = chosen["response"].to_numpy(dtype=object)[pair], is_source[pair]
    for at in groups:
        y[:, at] = permutation.signs(own[at], REFITS, seed, permutation.mark(text[at]))
    scores = np.empty_like(y)
    # the normal equations of all problems less those of a fold: every product is made once
    folds = [test for _, test in GroupKFold(min(FOLDS, len(groups))).split(x, groups=problem)]
    parts = [(x[test].T @ x[test], x[test].T @ y[:, test].T) for test in folds]
    square, cross = (sum(part) for part in zip(*parts, strict=True))
    for test, (own_square, own_cross) in zip(folds, parts, strict=True):
        ridge = square - own_square + STRENGTH * np.eye(len(square))
        scores[:, test] = (x[test] @ np.linalg.solve(ridge, cross - own_cross)).T
    auc = np.mean([_auc(scores[:, at], y[:, at] > 0) for at in groups], axis=0)
    return {
        "source": source,
        "auc": float(auc[0]),
        "p": permutation.p_value(auc),
        "n": len(pair),
        "note": f"ridge on words and shapes, {len(groups)} problems in {len(folds)} folds, "
        f"{REFITS} permutations within problems",
    }


def _varied(matrix: csr_matrix, where_N: np.ndarray) -> np.ndarray:
    """The 100 columns of largest variance over the rows `where_N` of the matrix, dense [N, <= 100]."""
    times_U = np.bincount(where_N, minlength=matrix.shape[0]) / len(where_N)
    times_M = np.repeat(times_U, np.diff(matrix.indptr))
    mean_V, square_V = (
        np.bincount(matrix.indices, weights=times_M * x, minlength=matrix.shape[1])
        for x in (matrix.data, matrix.data**2)
    )
    widest = np.argsort(np.round(mean_V**2 - square_V, 12), kind="stable")[:100]
    return matrix[:, widest].toarray()[where_N]


def _auc(scores_BN: np.ndarray, positive_BN: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for every row, ties counted half: float64 [B]."""
    from scipy.stats import rankdata

    b = positive_BN.sum(1)
    a = positive_BN.shape[1] - b
    ranks = rankdata(np.round(scores_BN, 9), axis=1)
    return ((ranks * positive_BN).sum(1) - b * (b + 1) / 2) / (a * b)
