"""Steps by rule: where they begin and end, what they compute, and of which kind they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import skeletons, steps

TEXT = """Okay. Let us write it down. We get 5! = 120! So x * 2 = 4 and
- first x + 1 = 2
2. Then so.

```python
def f(x):
    return x + 1.
```
The answer is **4**"""


def test_a_step_is_a_line_or_a_sentence_or_a_block_of_code():
    pieces = [TEXT[s.start : s.end].strip() for s in steps.steps(TEXT)]
    assert pieces == [
        "Okay. Let us write it down.",  # "Okay." is short and joins the next
        "We get 5! = 120!",  # an operator follows: no end
        "So x * 2 = 4 and",
        "- first x + 1 = 2",
        "2. Then so.",
        "```python\ndef f(x):\n    return x + 1.\n```",
        "The answer is **4**",  # not ended, and kept
    ]
    assert [s.code for s in steps.steps(TEXT)] == [False] * 5 + [True, False]


def test_skeletons_and_kinds_of_steps():
    marked = steps.skeleton_of_steps(TEXT)
    assert marked == "5 ! = 120 | x * 2 = 4 | x + 1 = 2 | def v ( v ) return v + 1 | 4"
    assert steps.kinds(marked) == ("! =", "* =", "+ =", "+ def return")
    assert steps.kinds(steps.skeleton_of_steps("It is so. And then it is 4.")) == ()
    assert steps.kind("x + 1 = 2") == steps.kind("7 = 3 + y + 9") == "+ ="


@pytest.mark.parametrize(
    "other",
    ["Well, we have 3 + 4 = 7. Next: 7 * 2 = 14.", "we have 3 + 4 = 7\nthen 7 * 2 = 14", "Here 3+4=7! So 7*2=14?"],
)
def test_another_wording_or_layout_is_the_same_method(other):
    marked = steps.skeleton_of_steps("First we add: 3 + 4 = 7. Now we double it, 7 x 2 = 14.")
    assert steps.skeleton_of_steps(other) == marked == "3 + 4 = 7 | 7 * 2 = 14"


@settings(max_examples=300, deadline=None)
@given(st.text("aB1+=.!? \n`x#-", max_size=80) | st.text(max_size=60))
def test_steps_cover_the_text_without_gap_or_overlap(text):
    found = steps.steps(text)
    assert all(a.end == b.start for a, b in zip(found, found[1:])) and all(s.start < s.end for s in found)
    if text.strip():
        assert found and not text[: found[0].start].strip() and found[-1].end == len(text)
    assert all(text[s.start].strip() for s in found)
    blocks = list(skeletons.blocks(text))
    assert [a for a, _, _ in blocks][:1] in ([0], []) and all(a[1] == b[0] for a, b in zip(blocks, blocks[1:]))
    steps.kinds(steps.skeleton_of_steps(text))
