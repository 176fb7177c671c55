"""The worlds of texts: laws, exact sums, draws, and the short ways that the gate takes to the analyses' own words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.data import steps
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import copies
from analyzer.records import METHOD
from validation import text_worlds as W
from validation import texts


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    law = W.population(rng, 12)
    source = W.draw(W.other_method(law, 0.5), rng, 16, W.RESTYLED)
    return W.tables({"base": W.draw(law, rng, 20), texts.SOURCE: source})


def test_laws_are_laws_and_sums_are_what_draws_show():
    """contained@4 of the steps by 4,000 times 4 draws against the sum, within 5 standard errors (1e-6)."""
    rng = np.random.default_rng(1)
    law = W.population(rng, 5)
    for source in (law, W.other_method(law, 0.3), W.concentrated(law, 0.9), W.rarest(law)):
        assert all(np.allclose(p.sum(1), 1) and (p >= 0).all() for p in W.chances(source).values())
    source = W.rarest(law)
    mine = W.draw(source, rng, 4000).method.reshape(5, -1)
    base = W.draw(law, rng, 16_000).method.reshape(5, -1, 4)
    seen = (base == mine[:, :, None]).any(2).mean(1)
    want = W.contained(source, law, 4)["steps"]
    assert (np.abs(seen - want) <= 5 * np.sqrt(want * (1 - want) / 4000) + 1e-9).all()
    assert W.excess(law, law, 1) == dict.fromkeys(W.chances(law), 0.0)
    assert W.excess(W.other_method(law, 0.3), law, 64)["steps"] == pytest.approx(0.3)


@pytest.mark.parametrize("style", [W.BASE, *W.OTHERS])
def test_texts_are_long_and_hold_their_method_and_nothing_else(style):
    for method in range(len(W.METHODS)):
        found = [W.text(p, method, v, w, style) for p in range(3) for v in range(W.VARIANTS) for w in range(W.WORDINGS)]
        kinds = {steps.kinds(steps.skeleton_of_steps(text)) for text in found}
        assert len(kinds) == 1 and len(next(iter(kinds))) == len(W.formulas(0, method, 0, style))
        lengths = [len(text.split()) for text in found]
        assert min(lengths) >= W.SHORTEST and max(lengths) <= W.LONGEST + 50 and len(set(found)) == len(found)


@pytest.mark.parametrize("style", W.OTHERS)
def test_all_styles_have_one_skeleton(style):
    for method in range(len(W.METHODS)):
        a, b = (steps.skeleton_of_steps(W.text(2, method, 1, 0, s)) for s in (W.BASE, style))
        assert a == b and a != steps.skeleton_of_steps(W.text(2, method, 0, 0, W.BASE))


def test_the_short_ways_give_the_rows_of_the_analyses(tables, monkeypatch):
    monkeypatch.setattr(copies, "later", lambda frame: np.zeros(len(frame), bool))  # equal texts are drawn here
    full = strategy.run(tables, permutations=texts.PERMUTATIONS, at_most=0, seed=3).tables["strategy_test"]
    full = full[full["representation"].isin(METHOD)].reset_index(drop=True)
    pd.testing.assert_frame_equal(texts.split(tables, seed=3).tables["strategy_test"], full, check_dtype=False)
    assert full["certified"].any()
    for k in (1, 64):
        rows = boundary.run(tables, budget=k, draws=2).tables["answer_test"]
        pd.testing.assert_frame_equal(texts.answered(tables, k).tables["answer_test"], rows)


def test_a_replaced_function_comes_back():
    right = texts.answers.lenient
    with pytest.raises(KeyError), texts.replaced("lenient", lambda traces, every: traces):
        assert texts.answers.lenient is not right
        raise KeyError
    assert texts.answers.lenient is right
