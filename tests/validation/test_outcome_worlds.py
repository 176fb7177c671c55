"""`outside` at answer or correct: never by a format, a guess or a grader of one side; a true gain is seen."""

from __future__ import annotations

import numpy as np
import pytest

from validation import outcome_worlds as O
from validation import texts


def outside(make, seed: int) -> bool:
    found = texts.words(make(np.random.default_rng([seed, 5])), None, 64)
    return "outside" in (found["answer"], found["correct"])


@pytest.mark.parametrize("name", O.FALSE)
def test_formats_guesses_and_graders_are_no_gain(name):
    """Two draws of each; where a word is wrong it was in 2 to 10 of 10."""
    assert not any(outside(O.FALSE[name], seed) for seed in range(2))


@pytest.mark.parametrize("name", O.GAINS)
def test_a_gain_is_outside(name):
    assert all(outside(O.GAINS[name], seed) for seed in range(2))
