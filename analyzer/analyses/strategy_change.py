"""Is a source different from the reference at all? Stratified permutation tests and a classifier, for `strategy`.

The kernels of a problem are computed once on the traces of all sources together, without labels, which keeps every
comparison of two of them exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer import features
from analyzer.analyses.grouping import number_of_clusters
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
    keys: list[str],
    vectors: np.ndarray,
    sources: list[str],
    *,
    at_most: int,
    permutations: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `change` and of `c2st`; traces sorted by problem, with columns skeleton and shape."""
    rank = traces.groupby(["source", "problem"]).cumcount()
    # by text: the order in which ties and permutations see the traces has nothing to do with who wrote them
    chosen = traces[rank < at_most].sort_values(["problem", "response"], kind="stable", ignore_index=True)
    if chosen.empty:
        return [], []
    surprisal = tables.scores[tables.scores["model"] == tables.base].set_index("key")["nll_mean"].astype(float)
    chosen = chosen.assign(surprisal=chosen["key"].map(surprisal))
    state = {key: i for i, key in enumerate(keys)}
    skeletons, texts = (_matrix(chosen[c], make) for c, make in (("skeleton", features.skeleton_counts), _TFIDF))
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for _, at in chosen.groupby("problem", sort=True).indices.items():
        rows = chosen.iloc[at]
        spaces = {"skeleton": _of_sparse(skeletons[at]), "tfidf": _of_sparse(texts[at])}
        known = np.array([k in state for k in rows["key"]])
        if known.sum() > 1:
            found = features.components(vectors[[state[k] for k in rows["key"][known]]], standardise=True)
            spaces["hidden"] = np.full((len(rows), len(rows)), np.nan)
            spaces["hidden"][np.ix_(known, known)] = kernels.distances(found @ found.T)
        _add(sums, rows, spaces, sources, tables.reference, permutations, seed)
    change = [row for source in sources for row in _rows(sums, source)]
    return change, [_classifier(chosen, source, tables.reference, seed) for source in sources]


_TFIDF = ("response", features.tfidf)


def _matrix(column: pd.Series, make: Any) -> Any:
    distinct, where = np.unique(column.to_numpy(dtype=object), return_inverse=True)
    return make(list(distinct))[where]


def _of_sparse(rows: Any) -> np.ndarray:
    return kernels.distances((rows @ rows.T).toarray())


def _add(
    sums: dict[tuple[str, str], dict[str, Any]],
    rows: pd.DataFrame,
    spaces: dict[str, np.ndarray],
    sources: list[str],
    reference: str,
    permutations: int,
    seed: int,
) -> None:
    """Add one problem to every comparison: permuted statistics and what the effect sizes need."""
    label, right = rows["source"].to_numpy(), rows["correct"].astype("boolean").fillna(False).to_numpy(dtype=bool)
    text, surprisal = rows["response"].to_numpy(dtype=object), rows["surprisal"].to_numpy(dtype=float)
    known = {name: np.isfinite(np.diag(distance)) for name, distance in spaces.items()} | {
        "likelihood": np.isfinite(surprisal)
    }
    mark = permutation.mark(text)  # of all sources: those with the same counts share their permutations
    cluster = {}
    for name, distance in spaces.items():
        at = np.flatnonzero(known[name])
        cluster[name] = np.zeros(len(rows), int)
        cluster[name][at] = kernels.clusters(distance[np.ix_(at, at)], number_of_clusters(len(at)))
    for source in sources:
        for condition, allowed in (("all", np.ones(len(rows), bool)), ("correct", right)):
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


def _classifier(chosen: pd.DataFrame, source: str, reference: str, seed: int) -> dict[str, Any]:
    """AUC of a ridge classifier on words and shapes of held-out problems, labels permuted within problems for p.

    Features are taken relative to the mean of their problem; folds are made of whole problems; AUC is the mean over
    problems of the AUC within the problem: 1/2 is none, 1 is told apart always.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    own = chosen["source"].isin([source, reference])
    counts = chosen[own].groupby(["problem", "source"]).size().unstack(fill_value=0)
    both = counts.index[(counts >= LEAST).all(axis=1)] if counts.shape[1] == 2 else []
    pair = chosen[own & chosen["problem"].isin(both)]
    if len(both) < 2:
        return {"source": source, "auc": math.nan, "p": math.nan, "n": len(pair), "note": "needs two common problems"}
    wide = [features.words(pair["response"].tolist(), least=0.01, at_most=100).toarray()]
    wide.append(_matrix(pair["shape"], features.skeleton_counts).toarray())
    x = np.concatenate([w[:, np.argsort(-w.var(0), kind="stable")[:100]] for w in wide], axis=1)
    problem = np.unique(pair["problem"].to_numpy(), return_inverse=True)[1]
    x = x - pd.DataFrame(x).groupby(problem).transform("mean").to_numpy()
    y = np.empty((REFITS + 1, len(pair)))
    groups = [np.flatnonzero(problem == p) for p in range(problem.max() + 1)]
    is_source = (pair["source"] == source).to_numpy()
    for at in groups:
        text = pair["response"].to_numpy(dtype=object)[at]
        y[:, at] = permutation.signs(is_source[at], REFITS, seed, permutation.mark(text))
    scores = np.empty_like(y)
    for train, test in GroupKFold(min(FOLDS, len(both))).split(x, groups=problem):
        model = Ridge(alpha=STRENGTH, fit_intercept=False).fit(x[train], y[:, train].T)
        scores[:, test] = model.predict(x[test]).reshape(len(test), -1).T
    auc = np.mean([_auc(scores[:, at], y[:, at] > 0) for at in groups], axis=0)
    return {
        "source": source,
        "auc": float(auc[0]),
        "p": permutation.p_value(auc),
        "n": len(pair),
        "note": f"ridge on words and shapes, {len(both)} problems in {min(FOLDS, len(both))} folds, "
        f"{REFITS} permutations within problems",
    }


def _auc(scores_BN: np.ndarray, positive_BN: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for every row, ties counted half: float64 [B]."""
    from scipy.stats import rankdata

    b = positive_BN.sum(1)
    a = positive_BN.shape[1] - b
    ranks = rankdata(np.round(scores_BN, 9), axis=1)
    return ((ranks * positive_BN).sum(1) - b * (b + 1) / 2) / (a * b)
