"""Traces of one problem -> clusters, without a look at who wrote them.

KMeans sees kinds of about points / k traces: a handful of odd ones among hundreds can melt into a neighbour, and a
kind of many wordings can be cut into several.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data import features
from analyzer.analysis.data.summaries import last_steps
from analyzer.records import Tables

LIMIT = 64  # traces per source and problem
MOST = 16  # clusters per problem
STARTS = 3  # of KMeans


class Problem(NamedTuple):
    """One problem's traces: the rows of `frame` (sorted by text) and the cluster of each, int [N] from 0."""

    frame: pd.DataFrame  # key, source, problem, correct, response, text (a number for each text, -1: none)
    cluster: np.ndarray
    middle: np.ndarray  # row of the trace nearest to the centre, by cluster


def chosen(tables: Tables) -> tuple[pd.DataFrame, list[str]]:
    """The traces that are clustered, with their text, and sentences on those that are not."""
    traces = last_steps(tables.traces).sort_values(["source", "problem", "sample"], kind="stable")
    kept = traces[traces.groupby(["source", "problem"]).cumcount() < LIMIT]
    notes = []
    if cut := len(traces) - len(kept):
        notes.append(
            f"At most {LIMIT} traces per source and problem are clustered: {cut:,} of {len(traces):,} are left out."
        )
    kept, said = features.affordable(kept)
    return features.with_text(tables, kept.reset_index(drop=True)), notes + [said] * bool(said)


def cluster_all(rows: pd.DataFrame, vectors: np.ndarray | None, seed: int) -> list[Problem]:
    """Every problem's traces in clusters, problems sorted; vectors [N, H] of the rows, or None: TF-IDF of the text."""
    groups = rows.groupby("problem", sort=True).indices
    rows = rows.astype(dict.fromkeys(("key", "source", "problem", "response"), object))  # thousands of small frames
    rows = rows[["key", "source", "problem", "correct", "response"]].assign(text=pd.factorize(rows["response"])[0])
    return [_cluster(rows.iloc[at], None if vectors is None else vectors[at], seed) for _, at in groups.items()]


def _cluster(rows: pd.DataFrame, vectors: np.ndarray | None, seed: int) -> Problem:
    """Cluster one problem's traces; equal texts are one point, so that a repeated trace does not make a cluster."""
    from sklearn.cluster import KMeans

    text = rows["response"].fillna("").tolist()
    if vectors is not None:  # traces known by their token ids alone have no text to tell them apart
        text = [t or v.tobytes().hex() for t, v in zip(text, vectors, strict=True)]
    # the order of the points is that of their texts: neither source nor problem can touch the clustering
    keys = rows["key"].tolist()
    order = sorted(range(len(rows)), key=lambda i: (text[i], keys[i]))
    first: list[int] = []  # of the sorted traces, the first with each text
    point = np.empty(len(order), int)
    for at, i in enumerate(order):
        if at == 0 or text[i] != text[order[at - 1]]:
            first.append(at)
        point[at] = len(first) - 1
    rows = rows.iloc[order]
    if vectors is None:
        scores = features.components(features.tfidf([text[order[at]] for at in first]), seed=seed)
    else:
        scores = features.components(vectors[[order[at] for at in first]], standardise=True, seed=seed)
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
    """k = sqrt(points / 2), rounded, from 1 to 16: the usual rule of thumb; 384 points make 14 clusters of 27."""
    return int(np.clip(round(math.sqrt(points / 2)), 1, MOST))
