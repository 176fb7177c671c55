"""Traces -> vectors: TF-IDF, words, style-blind skeletons, pooled hidden states, and principal components.

Everything is fitted without looking at a label, so that what is built on it can't favour a source. No clustering here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyzer.analysis.data.skeletons import shape, skeleton
from analyzer.records import Tables

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "COMPONENTS",
    "affordable",
    "components",
    "is_blank",
    "pooled",
    "shape",
    "skeleton",
    "skeleton_counts",
    "tfidf",
    "with_text",
    "words",
]

COMPONENTS = 32
# words without digits, numbers, and every other sign by itself: "7*8=56" has the five tokens of its arithmetic
TOKENS = r"[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]|_"
MOST_TEXT = 100_000_000  # characters that an analysis of texts reads: minutes, and a gigabyte of its own
TRACE_TEXT = 500  # characters that a trace costs beside those it has
DIRECT = 1500  # the largest smaller side of a matrix that is decomposed exactly


def tfidf(texts: Sequence[str]) -> csr_matrix:
    """TF-IDF of 1-grams and 2-grams of words, numbers and signs: sparse float64 [N, V], rows of length 1.

    Counts enter as 1 + ln(count), so that a loop does not drown the rest; idf is ln((1 + N) / (1 + texts with it)) + 1.
    A row is zero where the text has no token.
    """
    counts = _counted([t.lower() for t in texts], 2, pattern=TOKENS)
    with_it_V = np.bincount(counts.indices, minlength=counts.shape[1])
    return _weighted(counts, np.log((1 + counts.shape[0]) / (1 + with_it_V)) + 1)


def with_text(tables: Tables, traces: pd.DataFrame) -> pd.DataFrame:
    """The traces with their text as column `response`, None where there is none."""
    texts = tables.text_of(traces["key"])
    return traces.assign(response=pd.Series([texts.get(k) for k in traces["key"]], traces.index, dtype=object))


def affordable(traces: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The traces of as many problems as MOST_TEXT holds, and a sentence on what is left out ("": nothing).

    Whole problems with all their sources, in the order of a hash of their names: nothing that a trace is decides
    whether it is read, and a larger limit adds problems and drops none. The first problem is always read.
    """
    cost = traces["characters"].fillna(0).astype(float) + TRACE_TEXT
    if cost.sum() <= MOST_TEXT:
        return traces, ""
    of = cost.groupby(traces["problem"].to_numpy(dtype=object)).sum()
    of = of.loc[sorted(of.index, key=lambda name: blake2b(name.encode("utf-8", "surrogatepass")).digest())]
    chosen = set(of.index[: max(1, int((of.cumsum() <= MOST_TEXT).sum()))])
    kept = traces[[problem in chosen for problem in traces["problem"]]]
    return kept, (
        f"{len(chosen):,} of {len(of):,} problems are read ({len(kept):,} of {len(traces):,} traces, about "
        f"{MOST_TEXT / 1e6:.0f} MB of text), drawn by a hash of their names."
    )


def is_blank(texts: Iterable[str | None]) -> np.ndarray:
    """Which texts are missing or nothing but white space: bool [N]."""
    return np.array([not (text and text.strip()) for text in texts], bool)


def pooled(tables: Tables, model: str, *, keys: Collection[str] | None = None) -> tuple[list[str], np.ndarray]:
    """Pooled hidden states of the traces under a model: (keys [N], float16 [N, H]) in the order of the keys.

    Traces without a finite embedding are left out; without any the matrix is [0, 0]. keys: only these traces.
    """
    wanted = None if keys is None else set(keys)
    found: dict[str, np.ndarray] = {}
    for part in tables.tokens(model, ["embedding"]):
        for key, vector in zip(part["key"], part["embedding"], strict=True):
            if vector is not None and (wanted is None or key in wanted):
                vector = np.array(vector, dtype=np.float16)  # a view would keep the whole part
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
    """1-grams to 3-grams of skeleton tokens as 1 + ln(count): sparse float64 [N, V], rows of length 1 (0: no token)."""
    return _weighted(_counted(skeletons, longest))


def words(texts: Sequence[str], *, least: float = 0.0, at_most: int | None = None) -> csr_matrix:
    """Words of two letters and more as 1 + ln(count), no idf: sparse float64 [N, V], rows of length 1 (0: no word).

    Only words in at least the share `least` of the texts; at_most: of these the most frequent.
    """
    return frequent(word_counts(texts), least=least, at_most=at_most)


def word_counts(texts: Iterable[str]) -> csr_matrix:
    """How often each text holds each word of two letters and more, for `frequent`: sparse float64 [N, V]."""
    distinct, where_N = unique(texts)
    return _counted([t.lower() for t in distinct], 1, pattern=r"[^\W\d_]{2,}")[where_N]


def frequent(counts: csr_matrix, *, least: float = 0.0, at_most: int | None = None) -> csr_matrix:
    """`words` from counts: those in at least the share `least` of the rows, and of these the most frequent."""
    with_it_V = np.bincount(counts.indices, minlength=counts.shape[1])
    chosen = np.flatnonzero(with_it_V >= max(least * counts.shape[0], 1))
    if at_most is not None and len(chosen) > at_most:
        total_V = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1])
        chosen = np.sort(chosen[np.argsort(-total_V[chosen], kind="stable")[:at_most]])
    return _weighted(counts[:, chosen]) if len(chosen) else type(counts)((counts.shape[0], 1))


def unique(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in the order in which they first occur, and the place of each text among them: int [N]."""
    place: defaultdict[str, int] = defaultdict()
    place.default_factory = place.__len__
    where_N = np.fromiter(map(place.__getitem__, texts), dtype=np.int64)
    return list(place), where_N


def _counted(texts: Sequence[str], longest: int, *, pattern: str | None = None) -> csr_matrix:
    """How often each text holds each 1-gram to `longest`-gram: float64 [N, V], V >= 1; shorter grams first.

    pattern: of a token; no token holds a blank. None: a token is whatever stands between blanks. Texts repeat what
    stands between blanks, so each such part is cut into tokens once, and the rest is arithmetic: ten times faster
    than scikit-learn's vectoriser.
    """
    from pandas import factorize
    from scipy.sparse import hstack

    place: defaultdict[str, int] = defaultdict()
    place.default_factory = place.__len__
    parts_N = [np.fromiter(map(place.__getitem__, text.split()), dtype=np.int32) for text in texts]
    cut = [[part] for part in place] if pattern is None else list(map(re.compile(pattern).findall, place))
    names = list(place) if pattern is None else sorted({token for tokens in cut for token in tokens})
    rank = {token: i for i, token in enumerate(names)}
    part_T = np.concatenate([*parts_N, np.zeros(0, np.int32)])
    row_T = np.repeat(np.arange(len(texts), dtype=np.int32), [len(parts) for parts in parts_N])
    token_T, size_T = _expand([[rank[token] for token in tokens] for tokens in cut], part_T)
    row_T = np.repeat(row_T, size_T)
    blocks, gram_T = [_tallied(row_T, token_T, len(texts), max(len(names), 1))], token_T
    for n in range(2, longest + 1):  # a gram of n - 1 tokens and the token after it, both in the same row
        at = np.flatnonzero(row_T[: max(len(row_T) - n + 1, 0)] == row_T[n - 1 :])
        code, distinct = factorize(gram_T[at].astype(np.int64) * len(names) + token_T[at + n - 1], sort=True)
        blocks.append(_tallied(row_T[at], code, len(texts), len(distinct)))
        gram_T = np.zeros(len(row_T), dtype=np.int32)  # small numbers again, so that the next product fits
        gram_T[at] = code
    return hstack(blocks, format="csr", dtype=np.float64)


def _tallied(row_T: np.ndarray, column_T: np.ndarray, rows: int, width: int) -> csr_matrix:
    """How often each row (ascending) holds each column: float32 [rows, width], exact below 2^24."""
    from scipy.sparse import csr_matrix

    ends = np.searchsorted(row_T, np.arange(rows + 1, dtype=row_T.dtype)).astype(np.int32)
    ones = np.ones(len(row_T), np.float32)
    out = csr_matrix((ones, column_T.astype(np.int32), ends), shape=(rows, width))
    out.sum_duplicates()
    return out


def _expand(lists: list[list[int]], which_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen lists end to end, int32, and the length of each."""
    size = np.array([len(x) for x in lists], dtype=np.int64)
    flat = np.array([x for one in lists for x in one], dtype=np.int32)
    size_T = size[which_T]
    start_T = (size.cumsum() - size)[which_T] - (size_T.cumsum() - size_T)
    return flat[np.repeat(start_T, size_T) + np.arange(size_T.sum())], size_T


def _weighted(counts: csr_matrix, idf_V: np.ndarray | None = None) -> csr_matrix:
    """1 + ln(count), times idf, rows of length 1; changes `counts`."""
    from sklearn.preprocessing import normalize

    counts.data = 1 + np.log(counts.data)
    if idf_V is not None:
        counts.data *= idf_V[counts.indices]
    return normalize(counts, copy=False) if counts.shape[0] else counts
