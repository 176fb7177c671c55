"""Steps by rule: where they begin and end, what they compute, and of which kind they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.analysis.data import skeletons, steps

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
    assert marked == "5 ! 120 | x * 2 4 | x + 1 2 | def v ( v ) return v + 1 4"
    assert steps.kinds(marked) == ("!", "*", "+", "+ def return")
    assert steps.kinds(steps.skeleton_of_steps("It is so. And then it is 4.")) == ()
    assert steps.kind("x + 1 2") == steps.kind("3 + y + 9 7") == "+" and steps.kind("2 * pi - infty 4") == "* -"


@pytest.mark.parametrize(
    "other",
    ["Well, we have 3 + 4 = 7. Next: 7 * 2 = 14.", "we have 3 + 4 = 7\nthen 7 * 2 = 14", "Here 3+4=7! So 7*2=14?"],
)
def test_another_wording_or_layout_is_the_same_method(other):
    marked = steps.skeleton_of_steps("First we add: 3 + 4 = 7. Now we double it, 7 x 2 = 14.")
    assert steps.skeleton_of_steps(other) == marked == "3 + 4 7 | 7 * 2 14"


FIRST = "Eight and 6 + 2 = 8, as 9 - 5 = 4. The "


@pytest.mark.parametrize(
    "tail",
    [
        "answer is 8. Question: what of 3 * 4 = 12?",
        "answer is **8**.\n\nHuman: and 3 * 4?",
        "answer is (B). But 3 * 4 = 12.",
        "answer is $8$. So 3 * 4 = 12",
        "result is $\\boxed{8}$. Then 3 * 4 = 12.",
        "end\n#### 8\nNext: 3 * 4 = 12",
        "end\n**Final answer:** 8\n3 * 4 = 12",
        "end <answer>8</answer> 3 * 4 = 12",
    ],
)
def test_what_follows_the_first_final_answer_is_no_method(tail):
    marked = steps.skeleton_of_steps(FIRST + tail)
    assert steps.kinds(marked) == ("+", "-"), marked


@pytest.mark.parametrize(
    "text",
    [
        "What the answer is we shall see. 3 * 4 = 12",
        "The answer is a product: 3 * 4 = 12",
        "Maybe the answer is 5, who knows. 3 * 4 = 12",
        "So the answer is 5?\nOr 3 * 4 = 12",
        "#### Case 1: the rest\n3 * 4 = 12",
        "#### $b = 2$\n3 * 4 = 12",
        "Put it into \\boxed{}. 3 * 4 = 12",
        "Answer: Let us take 3 * 4 = 12.",
        "Answer: 3 * 4 = 12. Then 2.",
        "answer 3 * 4",
        "<think>The answer is 5? No. \\boxed{5}</think> As 3 * 4 = 12, it is 12.",
    ],
)
def test_text_without_a_final_answer_is_read_to_its_end(text):
    assert "*" in steps.kinds(steps.skeleton_of_steps(text)) and steps.answered("It is so.") is None


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
