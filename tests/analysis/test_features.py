"""Features against definitions: tokens of TF-IDF, pooled states from a stream, principal components by SVD."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist
from sklearn.feature_extraction.text import TfidfVectorizer

from analyzer.analysis.data import features
from analyzer.analysis.data.features import TOKENS, components, pooled, shape, skeleton, skeleton_counts, tfidf, words
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


# --- skeletons ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start 8 . add 10 gives 18 . answer 8 + 10", "8 10 18 8 + 10"),  # words for operators stand between operands
        ("We get 12 + 7 = 19, i.e. 3.50 x 2 = 7.", "12 + 7 19 3.5 * 2 7"),
        (r"$x^2 + 3x = 10$, so \boxed{x = 2}.", "x ^ 2 + 3 * x 10 2"),
        (r"\frac{3}{4} \times 12 = 9 and \dfrac{\sqrt{16}}{2} = 2", "3 / 4 * 12 9 ( sqrt 16 ) / 2 2"),
        (r"\frac{\frac{1}{2}}{3}, \left( 1 + 2 \right) \cdot 3 \text{ apples}", "( 1 / 2 ) / 3 ( 1 + 2 ) * 3"),
        ("x² ≤ 4, 7 × 8 = 56, 9 ÷ 3 = 3, 5 − 2 = 3, ½", "x ^ 2 4 7 * 8 56 9 / 3 3 5 - 2 3 1 / 2"),
        ("**Step 1:** It costs $1,000.\n2. A well-known km/h and/or #### 42", "1000 42"),
        ("- first\n* **second** 3\n1) third 4 -> 5, the 2nd one", "3 4 5"),
        ("I have a cat (see above). f(x) = 2x - 1; (12 + 7) * 2", "2 * x - 1 ( 12 + 7 ) * 2"),
        ("5! = 120! 50% of 3:4 at 10: -3 (a) yes", "5 ! 120 50 * 3 4 10 3"),
        ("2**3 = 8, 7 // 2 = 3, 1 < 2 <think> 6 </think>", "2 ^ 3 8 7 // 2 3 1 2 6"),
        ("", ""),
        ("no number at all!", ""),
    ],
)
def test_skeleton_of_texts(text, expected):
    assert skeleton(text) == expected


def test_skeleton_of_code_keeps_keywords_calls_and_operators():
    fenced = """```python
def solve(n):
    # add
    total = 0
    for i in range(n):
        total += i * 2
    return total
```"""
    renamed = fenced.replace("total", "result").replace("# add", "# sum it up").replace("solve", "main")
    expected = "def v ( v ) v 0 for v in range ( v ) v v + v * 2 return v"
    assert skeleton(f"Let us write it.\n{fenced}\nThe answer is 90!") == f"{expected} 90"
    assert skeleton(renamed) == expected
    bare = "def f(x):\n    return x + 1\nThen the result is 4."
    assert skeleton(bare) == "def v ( v ) return v + 1 4"
    assert skeleton("The return is 4, if all goes well: for 2 of us") == "4 2"  # prose with words of Python


def test_shape_compares_across_problems():
    assert shape(skeleton("x^2 + 3x = 10.5")) == "v ^ N + N * v N"
    assert shape("12 + 7 = 19") == shape("1 + 70 = 71") != shape("1 * 70 = 70")


OPENERS = ["", "well , ", "Okay, so ", "Let us think step by step. ", "Hmm... ", "First of all: "]
PAIRS = [("start", "begin"), ("add", "plus"), ("gives", "makes"), ("so", "therefore"), ("answer", "result")]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    st.lists(st.sampled_from(["+", "-", "*", "/", "="]), min_size=6, max_size=6),
    st.sampled_from(OPENERS),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_synonyms_and_openers_leave_the_skeleton_as_it_is(numbers, signs, opener, swapped):
    word = [pair[swap] for pair, swap in zip(PAIRS, swapped)]
    formula = " ".join(str(x) for pair in zip(numbers, signs) for x in pair)[:-2]
    body = "{} {} . {} it {} {} , {} the {} {} .".format
    plain = body("start", numbers[0], "add", "gives", formula, "so", "answer", numbers[-1])
    other = opener + body(word[0], numbers[0], word[1], word[2], formula, word[3], word[4], numbers[-1])
    assert skeleton(other) == skeleton(plain)
    assert skeleton(plain).split().count(str(numbers[-1])) >= 2  # the numbers are all there
    if len(numbers) > 1:
        assert skeleton(plain) != skeleton(plain.replace(f" {signs[0]} ", " % ", 1)) or signs[0] == "%"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80) | st.text("`'\"\\{}()[]$*-+x1. \ndef:", max_size=60))
def test_skeleton_never_fails_and_is_plain_tokens(text):
    found = skeleton(text)
    assert found == " ".join(found.split()) and len(shape(found).split()) == len(found.split())
    assert skeleton(f"well then {text}") is not None


def test_skeleton_counts_and_words():
    m = skeleton_counts(["N + N", "N + N", "N * N", ""])
    assert (
        np.allclose(m[0].toarray(), m[1].toarray()) and np.allclose(m[:3].multiply(m[:3]).sum(1), 1) and m[3].nnz == 0
    )
    assert m.shape[1] == 9  # N, +, *, two pairs and one triple of each sign
    texts = ["add 3 then 4", "plus 3 then 4", "add then x"]
    w = words(texts)
    assert w.shape == (3, 3) and (words(texts, least=0.5) != 0).sum() == 5 and words(texts, at_most=1).shape == (3, 1)
    assert words(["1 2", "3"]).nnz == 0 and skeleton_counts(["", ""]).shape == (2, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("aBc1.,+_ \n\u00e9\u0130", max_size=30), min_size=1, max_size=8))
def test_counting_equals_scikit_learns_vectoriser(texts):
    texts = [*texts, *texts[:2], "one word"]  # equal texts are counted once and weigh twice
    pairs = {"ngram_range": (1, 2), "token_pattern": TOKENS}
    single = {"use_idf": False, "token_pattern": r"[^\W\d_]{2,}", "min_df": 0.3, "max_features": 3}
    for found, options in ((tfidf(texts), pairs), (words(texts, least=0.3, at_most=3), single)):
        try:
            wanted = TfidfVectorizer(sublinear_tf=True, **options).fit_transform(texts)
        except ValueError:  # no word is frequent enough
            assert found.nnz == 0
            continue
        assert found.shape == wanted.shape and np.allclose((found @ found.T).toarray(), (wanted @ wanted.T).toarray())


def test_what_can_be_read_is_whole_problems_drawn_by_name(monkeypatch):
    """A larger limit adds problems; neither order, source nor text of a trace decides."""
    rows = [(f"{s}/{p}/{i}", s, f"p{p}", 100 * (1 + p % 3)) for s in ("a", "b") for p in range(40) for i in range(3)]
    frame = pd.DataFrame(rows, columns=["key", "source", "problem", "characters"]).astype({"characters": "Int64"})
    assert features.affordable(frame)[0] is frame and features.affordable(frame)[1] == ""
    before: set[str] = set()
    for limit in (0, 5_000, 20_000, 60_000):
        monkeypatch.setattr(features, "MOST_TEXT", limit)
        kept, said = features.affordable(frame)
        names = set(kept["problem"])
        assert before <= names and names and kept.groupby("problem").size().eq(6).all()
        assert (kept["characters"] + features.TRACE_TEXT).sum() <= limit or len(names) == 1
        assert f"{len(names)} of 40 problems are read ({len(kept)} of 240 traces" in said
        shuffled = frame.sample(frac=1, random_state=0).assign(source="c")
        assert set(features.affordable(shuffled)[0]["key"]) == set(kept["key"])
        before = names
    assert 1 < len(before) < 40
