"""Where traces lie on the map of `clusters`: two principal components around the mean of each problem."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.analysis.clusters.grouping import Problem
from analyzer.analysis.data import features


def members(
    problems: list[Problem], vectors: dict[str, np.ndarray] | None, points: int, at_most: int, seed: int
) -> pd.DataFrame:
    """At most `at_most` traces, evenly over the sources: key, source, problem, correct, cluster, drawn, x, y.

    x, y: two principal components after taking each problem's mean away. `drawn`: about `points` traces, as many per
    source, that decide the components; the others are projected on these. vectors: by key, or None: TF-IDF of the text.
    """
    if not problems:
        return pd.DataFrame()
    rows = pd.concat([p.frame.assign(cluster=p.cluster) for p in problems]).sort_values("key", ignore_index=True)
    order = rows.iloc[np.random.default_rng(seed).permutation(len(rows))]
    turn, number = order.groupby("source").cumcount(), order["source"].value_counts().to_numpy()
    drawn = turn < max(1, points // len(number))
    rows = order.assign(drawn=drawn)[drawn | (turn < quota(number, at_most))].sort_values("key", ignore_index=True)
    keys, problem_N, drawn_N = rows["key"].tolist(), rows["problem"].to_numpy(), rows["drawn"].to_numpy()
    text = None if vectors else features.components(features.tfidf(rows["response"].tolist()), seed=seed)

    def raw(at: np.ndarray) -> np.ndarray:
        return np.stack([vectors[keys[i]] for i in at]).astype(np.float64) if vectors else text[at]

    fitted = np.flatnonzero(drawn_N)
    matrix = raw(fitted)
    spread = matrix.std(0) if vectors else 1.0
    scale = np.where(spread > 1e-12, spread, np.inf)
    means = pd.DataFrame(matrix / scale).groupby(problem_N[fitted]).mean()
    matrix = matrix / scale - means.loc[problem_N[fitted]].to_numpy()
    scores = features.components(matrix, at_most=2, seed=seed)
    axes = matrix.T @ scores / (scores**2).sum(0)
    flat = np.zeros((len(rows), 2))
    flat[fitted, : scores.shape[1]] = scores
    known_N = np.isin(problem_N, means.index.to_numpy())
    rest, alone = np.flatnonzero(~drawn_N & known_N), np.flatnonzero(~known_N)
    for i in range(0, len(rest), points):  # in parts: hidden states of many traces are large
        at = rest[i : i + points]
        flat[at, : scores.shape[1]] = (raw(at) / scale - means.loc[problem_N[at]].to_numpy()) @ axes
    for at in (alone[i] for i in pd.Series(alone).groupby(problem_N[alone]).indices.values()):
        matrix = raw(at) / scale
        flat[at, : scores.shape[1]] = (matrix - matrix.mean(0)) @ axes
    columns = ["key", "source", "problem", "correct", "cluster", "drawn"]
    return rows[columns].assign(x=flat[:, 0].round(4), y=flat[:, 1].round(4))


def quota(number: np.ndarray, at_most: int) -> int:
    """The largest q for which sum(min(number, q)) <= at_most."""
    sizes = np.arange(number.max() + 1)
    return int(sizes[np.minimum(number, sizes[:, None]).sum(1) <= at_most].max())
