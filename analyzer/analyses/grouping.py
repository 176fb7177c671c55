"""Traces of one problem -> clusters, without a look at who wrote them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyzer import features
from analyzer.records import Tables
from analyzer.summaries import last_steps

LIMIT = 64  # traces per source and problem
MOST = 16  # clusters per problem
STARTS = 3  # of KMeans


class Problem(NamedTuple):
    """One problem's traces: the rows of `frame` (sorted by text) and the cluster of each, int [N] from 0."""

    frame: pd.DataFrame
    cluster: np.ndarray
    middle: np.ndarray  # row of the trace nearest to the centre, by cluster


def chosen(tables: Tables) -> tuple[pd.DataFrame, int]:
    """The traces that are clustered, and how many the limit per source and problem left out."""
    traces = last_steps(tables.traces).sort_values(["source", "problem", "sample"], kind="stable")
    rank = traces.groupby(["source", "problem"]).cumcount()
    return traces[rank < LIMIT].reset_index(drop=True), int((rank >= LIMIT).sum())


def cluster_all(rows: pd.DataFrame, vectors: np.ndarray | None, seed: int) -> list[Problem]:
    groups = rows.groupby("problem", sort=True).indices
    return [_cluster(rows.iloc[at], None if vectors is None else vectors[at], seed) for _, at in groups.items()]


def _cluster(rows: pd.DataFrame, vectors: np.ndarray | None, seed: int) -> Problem:
    """Cluster one problem's traces; equal texts are one point, so that a repeated trace does not make a cluster."""
    from sklearn.cluster import KMeans

    text = rows["response"].fillna("").to_numpy(dtype=object)
    if vectors is not None:  # traces known by their token ids alone have no text to tell them apart
        text = np.array([t or v.tobytes().hex() for t, v in zip(text, vectors, strict=True)], dtype=object)
    # the order of the points is that of their texts: neither source nor problem can touch the clustering
    order = np.lexsort((rows["key"].to_numpy(dtype=str), text.astype(str)))
    rows, text = rows.iloc[order], text[order]
    _, first, point = np.unique(text.astype(str), return_index=True, return_inverse=True)
    if vectors is None:
        scores = features.components(features.tfidf(text[first].tolist()), seed=seed)
    else:
        scores = features.components(vectors[order][first], standardise=True, seed=seed)
    k = number_of_clusters(len(first))
    if k < 2 or scores.shape[1] == 0:
        return Problem(rows, np.zeros(len(rows), int), np.zeros(1, int))
    fitted = KMeans(k, n_init=STARTS, random_state=seed).fit(scores)
    distance = ((scores - fitted.cluster_centers_[fitted.labels_]) ** 2).sum(1)
    middle = np.empty(k, int)
    for c in range(k):
        members = np.flatnonzero(fitted.labels_ == c)
        middle[c] = first[members[distance[members].argmin()]]
    return Problem(rows, fitted.labels_[point], middle)


def number_of_clusters(points: int) -> int:
    """k = sqrt(points / 2), rounded, from 1 to 16: the usual rule of thumb, so that a cluster has a few dozen traces."""
    return int(np.clip(round(math.sqrt(points / 2)), 1, MOST))
