"""Which groups of traces are tested: kinds of skeletons that clustering finds on one half, symbols and kinds of steps
that traces hold, and which kind of step follows which.

Nothing here sees who wrote a trace, and no number of a problem enters: what is grouped can be compared across problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, issparse

from analyzer.analysis.data import features

MOST_KINDS = 8
FINE = 16  # clusters of the second, finer grouping
FITTED = 2000  # traces that a clustering is fitted on
JUDGED = 1000  # of them for the silhouette
STARTS = 3  # of KMeans
SLACK = 0.02  # the fewest kinds whose silhouette is this close to the best
LEAST = 0.01  # share of the texts that hold a word
WORDS = 300
ITEMS = 32  # what a trace can hold, the most frequent


class Units(NamedTuple):
    """Groups by name and who belongs to them: names [C], member bool [N, C]. A trace may be in several."""

    names: list[str]
    member: np.ndarray


def formats(texts: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """Unlabelled kinds of text by their words: int [N] from 0, at most 8, as many as the silhouette asks for."""
    matrix = words(texts)
    return nearest(matrix, kinds(matrix, seed=seed))


def words(texts: Sequence[str]) -> csr_matrix:
    """Words found in at least 1 % of the texts, at most 300: sparse [N, V]; a word of one problem alone drops out."""
    return frequent(features.word_counts(texts))


def frequent(counts: csr_matrix) -> csr_matrix:
    """`words` from the counts of words of all texts."""
    return features.frequent(counts, least=LEAST, at_most=WORDS)


def kinds(matrix: csr_matrix | np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Centres [K, V] of KMeans; K is the smallest from 2 to 8 whose silhouette is within .02 of the best.

    The slack keeps a format with two wordings from being cut in two. Fewer than three different rows: one kind.
    """
    return _kinds(_sample(matrix, seed), seed)


def _kinds(dense: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.metrics import pairwise_distances, silhouette_score

    distinct = _distinct(dense)
    if distinct < 3:
        return dense.mean(0, keepdims=True)
    judged = np.random.RandomState(seed).permutation(len(dense))[:JUDGED]
    distance = pairwise_distances(dense[judged])  # once for every number of kinds
    scores, centres = [], []
    for k in range(2, min(MOST_KINDS, distinct - 1) + 1):
        fitted = _kmeans(dense, k, seed)
        scores.append(silhouette_score(distance, fitted.labels_[judged], metric="precomputed"))
        centres.append(fitted.cluster_centers_)
    return centres[int(np.flatnonzero(np.array(scores) >= max(scores) - SLACK)[0])]


def _distinct(dense: np.ndarray) -> int:
    """How many rows differ by more than rounding."""
    return len({row.tobytes() for row in np.round(dense, 9) + 0.0})  # + 0: -0 and 0 are one number


def nearest(matrix: csr_matrix | np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of every row, int [N]."""
    return np.asarray(matrix @ centres.T - (centres**2).sum(1) / 2).argmax(1)


def clustered(matrix: csr_matrix | np.ndarray, fit_N: np.ndarray, *, seed: int = 0) -> Units:
    """Kinds and at most 16 finer clusters of all rows, fitted on the rows of fit_N (bool [N])."""
    own = _sample(matrix[np.flatnonzero(fit_N)], seed)
    names, columns = [], []
    fine = _kmeans(own, min(FINE, _distinct(own)), seed).cluster_centers_
    for word, centres in (("kind", _kinds(own, seed)), ("cluster", fine)):
        if len(centres) < 2:
            continue
        label = nearest(matrix, centres)
        names += [f"{word} {c + 1} of {len(centres)}" for c in range(len(centres))]
        columns.append(label[:, None] == np.arange(len(centres)))
    return Units(names, np.concatenate(columns, axis=1) if columns else np.zeros((matrix.shape[0], 0), bool))


def held(items: Sequence[frozenset[str]], fit_N: np.ndarray) -> Units:
    """Which of the items of the rows each row holds; those of the rows in fit_N, frequent first, at most ITEMS."""
    count: dict[str, int] = {}
    for at in np.flatnonzero(fit_N):
        for item in items[at]:
            count[item] = count.get(item, 0) + 1
    chosen = sorted(count, key=lambda item: (-count[item], item))[:ITEMS]
    rows = {own: [item in own for item in chosen] for own in set(items)}
    member = np.array([rows[own] for own in items], dtype=bool).reshape(len(items), len(chosen))
    return Units(chosen, member)


def used(kinds: tuple[str, ...]) -> frozenset[str]:
    """What a trace holds by the kinds of its steps: "uses +" for every operator, "has a step + *" for every kind."""
    return frozenset(
        [f"uses {symbol}" for kind in kinds for symbol in kind.split()] + [f"has a step {k}" for k in kinds]
    )


def followed(kinds: tuple[str, ...]) -> frozenset[str]:
    """Pairs of kinds in a row, and the first one: "+ then -", "start then +". Where a trace ends is no method: what
    makes it end is a limit, a sampler or a habit of going on."""
    line = ("start", *kinds)
    return frozenset(f"{a} then {b}" for a, b in zip(line, line[1:], strict=False))


def _kmeans(dense: np.ndarray, k: int, seed: int):
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=STARTS, random_state=seed).fit(dense)


def _sample(matrix: csr_matrix | np.ndarray, seed: int) -> np.ndarray:
    n = matrix.shape[0]
    if n > FITTED:
        matrix = matrix[np.sort(np.random.default_rng(seed).choice(n, FITTED, replace=False))]
    return np.asarray(matrix.toarray() if issparse(matrix) else matrix, dtype=float)
