"""Traces -> vectors: TF-IDF, words, style-blind skeletons, pooled hidden states, and principal components.

Everything is fitted without looking at a label, so that what is built on it can't favour a source. No clustering here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.records import Tables
from analyzer.skeletons import shape, skeleton

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["COMPONENTS", "components", "pooled", "shape", "skeleton", "skeleton_counts", "tfidf", "words"]

COMPONENTS = 32
# words without digits, numbers, and every other sign by itself: "7*8=56" has the five tokens of its arithmetic
TOKENS = r"[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]|_"
DIRECT = 1500  # the largest smaller side of a matrix that is decomposed exactly


def tfidf(texts: Sequence[str]) -> csr_matrix:
    """TF-IDF of 1-grams and 2-grams of words, numbers and signs: sparse float64 [N, V], rows of length 1.

    Counts enter as 1 + ln(count), so that a loop does not drown the rest; a row is zero where the text has no token.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), sublinear_tf=True)
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's "empty vocabulary": no text has a token
        return csr_matrix((len(texts), 1))


def pooled(tables: Tables, model: str, *, keys: Collection[str] | None = None) -> tuple[list[str], np.ndarray]:
    """Pooled hidden states of the traces under a model: (keys [N], float16 [N, H]) in the order of the keys.

    Traces without a finite embedding are left out; without any the matrix is [0, 0]. keys: only these traces.
    """
    wanted = None if keys is None else set(keys)
    found: dict[str, np.ndarray] = {}
    for part in tables.tokens(model, ["embedding"]):
        for key, vector in zip(part["key"], part["embedding"], strict=True):
            if vector is not None and (wanted is None or key in wanted):
                vector = np.asarray(vector, dtype=np.float16)
                if vector.ndim == 1 and len(vector) and np.isfinite(vector).all():
                    found[key] = vector
    order = sorted(found)
    return order, np.stack([found[k] for k in order]) if order else np.empty((0, 0), np.float16)


def components(
    matrix: np.ndarray | csr_matrix, *, at_most: int = COMPONENTS, standardise: bool = False, seed: int = 0
) -> np.ndarray:
    """Scores on the first principal components: float64 [N, C], C <= at_most and <= rank, largest variance first.

    standardise: scale columns to variance 1 first (hidden states have a few huge dimensions that say little), dense
    input only. The sign of a component makes its largest entry positive; values are rounded to 1e-9 of the largest, so
    that they do not depend on the order in which a machine adds. Beyond DIRECT rows and columns the decomposition is
    randomised by `seed`. Equal rows give [N, 0].
    """
    from scipy.linalg import eigh
    from scipy.sparse import issparse

    n, width = matrix.shape
    if n < 2:
        return np.zeros((n, 0))
    if issparse(matrix) and n > DIRECT:
        return _randomised(matrix, at_most, seed)
    if issparse(matrix):
        gram = (matrix @ matrix.T).toarray()
        gram = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    else:
        dense = np.asarray(matrix, dtype=np.float64)
        dense = dense - dense.mean(0)
        if standardise:
            spread = dense.std(0)
            dense = dense / np.where(spread > 1e-12, spread, np.inf)
        if min(n, width) > DIRECT:
            return _randomised(dense, at_most, seed)
        if width < n:
            values, vectors = eigh(dense.T @ dense)
            return _tidy(dense @ vectors[:, ::-1][:, :at_most], values[::-1][:at_most])
        gram = dense @ dense.T
    values, vectors = eigh(gram, subset_by_index=(max(0, n - at_most), n - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    return _tidy(vectors * np.sqrt(np.maximum(values, 0)), values)


def _randomised(matrix: np.ndarray | csr_matrix, at_most: int, seed: int) -> np.ndarray:
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(matrix, min(at_most + 10, *matrix.shape), random_state=seed)
    scores = left * values
    scores = scores - scores.mean(0)  # a sparse matrix is not centred before: its first direction is the mean
    rotated = np.linalg.svd(scores, full_matrices=False)
    return _tidy((rotated[0] * rotated[1])[:, :at_most], rotated[1][:at_most] ** 2)


def _tidy(scores: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Drop directions without variance, fix signs, round."""
    top = float(variances[0]) if len(variances) else 0.0
    scores = scores[:, variances > max(1e-10 * top, 1e-18)]
    if scores.shape[1] == 0:
        return scores
    largest = np.abs(scores).argmax(0)
    scores = scores * np.sign(scores[largest, np.arange(scores.shape[1])])
    unit = 1e-9 * float(np.abs(scores).max())
    return np.round(scores / unit) * unit


def skeleton_counts(skeletons: Sequence[str], *, longest: int = 3) -> csr_matrix:
    """1-grams to 3-grams of skeleton tokens as 1 + ln(count): sparse float64 [N, V], rows of length 1 (0: no token).

    Counted in NumPy, several times faster than scikit-learn's vectoriser on this many short tokens.
    """
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    known: dict[str, int] = {}
    tokens = [[known.setdefault(token, len(known)) for token in s.split()] for s in skeletons]
    length = np.array([len(t) for t in tokens], dtype=np.int64)
    row = np.repeat(np.arange(len(tokens)), length)
    first = np.array([token for t in tokens for token in t], dtype=np.int64)
    rows, columns, width, gram = [], [], 0, first
    for n in range(1, longest + 1):
        if n > 1:  # a gram of n - 1 tokens and the token after it, both in the same row
            inside = row[: len(first) - n + 1] == row[n - 1 :]
            gram = np.where(inside, gram[: len(inside)] * max(len(known), 1) + first[n - 1 :], -1)
        at = np.flatnonzero(gram >= 0)
        distinct, found = np.unique(gram[at], return_inverse=True)
        rows.append(row[at])
        columns.append(found + width)
        width += len(distinct)
        dense = np.full(len(gram), -1, dtype=np.int64)  # small numbers again, so that the next product fits
        dense[at] = found
        gram = dense
    where = np.concatenate(rows), np.concatenate(columns)
    counts = csr_matrix((np.ones(len(where[0])), where), shape=(len(tokens), max(width, 1)))
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return normalize(counts, copy=False) if len(tokens) else counts


def words(texts: Sequence[str], *, least: float = 0.0, at_most: int | None = None) -> csr_matrix:
    """Words of two letters and more as 1 + ln(count), no idf: sparse float64 [N, V], rows of length 1 (0: no word).

    Only words in at least the share `least` of the texts; at_most: of these the most frequent.
    """
    return _counts(texts, token_pattern=r"[^\W\d_]{2,}", min_df=least, max_features=at_most)


def _counts(texts: Sequence[str], **options: Any) -> csr_matrix:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(sublinear_tf=True, use_idf=False, **options).fit_transform(texts)
    except ValueError:  # scikit-learn's "empty vocabulary", or no word is frequent enough
        return csr_matrix((len(texts), 1))
