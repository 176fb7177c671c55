"""Features against definitions: tokens of TF-IDF, pooled states from a stream, principal components by SVD."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist

from analyzer.features import components, pooled, tfidf
from analyzer.records import Tables


def make_tables(parts: list[pd.DataFrame]) -> Tables:
    return Tables(pd.DataFrame(), pd.DataFrame(), lambda model, columns: iter(parts), "base", "base")


def test_numbers_and_operators_are_tokens():
    texts = ["7*8=56", "7 * 8 = 56", "seven times eight", "7*8=57"]
    m = tfidf(texts)
    assert np.allclose(m[0].toarray(), m[1].toarray())  # spacing says nothing
    similar = (m @ m.T).toarray()
    assert 0 < similar[0, 3] < 1 and similar[0, 2] == 0
    assert np.allclose(np.sqrt(m.multiply(m).sum(1)), 1)


def test_texts_without_tokens_are_zero_rows():
    assert tfidf(["", "  "]).nnz == 0 and tfidf(["", "  "]).shape == (2, 1)
    assert tfidf(["", "a b"])[0].nnz == 0


def test_pooled_reads_the_stream_in_the_order_of_keys():
    parts = [
        pd.DataFrame({"key": ["b", "c"], "embedding": [np.array([1, 2]), None]}),
        pd.DataFrame({"key": ["a", "d"], "embedding": [np.array([3, 4]), np.array([np.nan, 1])]}),
    ]
    keys, matrix = pooled(make_tables(parts), "base")
    assert keys == ["a", "b"] and matrix.dtype == np.float16 and matrix.tolist() == [[3, 4], [1, 2]]
    keys, matrix = pooled(make_tables(parts), "base", keys={"b"})
    assert keys == ["b"]
    assert pooled(make_tables([]), "base")[1].shape == (0, 0)


@pytest.mark.parametrize("shape", [(30, 5), (8, 40), (12, 12)])
def test_components_equal_the_svd(shape):
    x = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1)
    got = components(x, at_most=4)
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert got.shape == (shape[0], 4)
    assert np.allclose(np.abs(got), np.abs((u * s)[:, :4]), atol=1e-6 * s[0])
    sparse = components(csr_matrix(x), at_most=4)
    assert np.allclose(sparse, got, atol=1e-6 * s[0])
    assert (got[np.abs(got).argmax(0), np.arange(4)] > 0).all()


def test_all_components_keep_the_distances():
    x = np.random.default_rng(2).normal(size=(20, 6))
    assert np.allclose(pdist(components(x)), pdist(x))
    assert components(x).shape[1] == 6  # no more than the rank
    assert components(np.ones((5, 3))).shape == (5, 0) and components(np.ones((1, 3))).shape == (1, 0)


def test_standardise_keeps_a_huge_dimension_from_ruling():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 8))
    x[:30, :6] += 4
    x[:, 7] *= 1e4
    two = components(x, at_most=1, standardise=True)[:, 0]
    assert (two[:30] > 0).all() != (two[30:] > 0).all() and len(np.unique(two[:30] > 0)) == 1
    plain = components(x, at_most=1)[:, 0]
    assert abs(np.corrcoef(plain, x[:, 7])[0, 1]) > 0.999


def test_large_sparse_input_is_decomposed_close_to_the_exact_one():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(1600, 3)) @ rng.normal(size=(3, 50)) + 0.01 * rng.normal(size=(1600, 50)) + 1
    exact, fast = components(base, at_most=2), components(csr_matrix(base), at_most=2, seed=0)
    for c in range(2):
        assert abs(np.corrcoef(exact[:, c], fast[:, c])[0, 1]) > 0.999
