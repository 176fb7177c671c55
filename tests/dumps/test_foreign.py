"""Text in responses that the model did not write is a finding, with its share of the characters."""

from __future__ import annotations

import json

import pytest
from growth import growth

from analyzer.api.pipeline import ingest
from analyzer.dumps.foreign import blocks
from analyzer.runs.store import Run

DOCUMENT = "The book was printed in many towns. " * 4
HELD = {
    "<information>": f"<search>book</search><information>{DOCUMENT}</information>so Anna",
    "<tool_response>": f'<tool_call>{{"n": 1}}</tool_call>\n<tool_response>\n{DOCUMENT}\n</tool_response>\nso Anna',
    "<|begin_of_documents|>": f"<|begin_of_query|> b <|begin_of_documents|>{DOCUMENT}<|end_of_documents|>",
    "<|im_start|>": f"I look.<|im_end|>\n<|im_start|>tool\n{DOCUMENT}<|im_end|>\n<|im_start|>assistant\nso Anna",
    "```output": f"```python\nprint(1)\n```\n```output\n{DOCUMENT}\n```\nso Anna",
    "<interpreter>": f"<code>print(1)</code><interpreter>{DOCUMENT}</interpreter>",
    "<result>": f"<search>book</search> <result>{DOCUMENT}</result> so Anna",
    "<output>": f"<python>1</python><output>{DOCUMENT}",  # cut off
    "Observation": f"Thought: I look\nAction: search\nObservation: {DOCUMENT}\nThought: so Anna",
}
OWN = (
    "<think>so</think><answer>5</answer>",
    "<result>5</result>",
    "<output>5</output> and <context>none</context>",
    "Observation: f is convex.\nSo it is.",
    "x < information > y",
    "```python\nprint('output')\n```",
    "the <information> desk",
)


@pytest.mark.parametrize("mark", HELD)
def test_what_stands_between_the_marks_of_tools_is_counted(mark):
    n, first = blocks(HELD[mark])
    assert first == mark and len(DOCUMENT) <= n <= len(DOCUMENT) + 60


@pytest.mark.parametrize("text", OWN[:-1])
def test_words_of_the_model_are_not(text):
    assert blocks(text) == (0, "")


def notes(tmp_path, rows):
    file = tmp_path / "base.jsonl"
    file.write_text("".join(json.dumps({"question": f"q{n}"} | row) + "\n" for n, row in enumerate(rows)))
    run = Run.create(tmp_path / "run")
    ingest(run, [str(file)])
    return [note for note in run.manifest["input_notes"] if "retrieved text" in note or "own prompt" in note]


def test_the_finding_names_how_many_and_how_much(tmp_path):
    rows = [{"response": text} for text in (*HELD.values(), *OWN[:3])]
    (note,) = notes(tmp_path, rows)
    assert note.startswith("base: 9 of 12 responses hold retrieved text or tool output that the model did not write")
    assert "<information>, <tool_response>, <|begin_of_documents|>; " in note and "response_mask" in note
    share = int(note.partition("% of their characters")[0].rpartition(" ")[2])
    total = sum(map(len, HELD.values()))
    assert share == round(100 * sum(blocks(t)[0] for t in HELD.values()) / total) > 60


def test_where_masks_leave_it_out_that_is_said(tmp_path):
    row = {"response": HELD["<information>"], "prompt_ids": [1], "response_ids": [5, 6], "response_mask": [1, 0]}
    (note,) = notes(tmp_path, [row])
    assert note.endswith("their masks leave it out of every score.")


def test_responses_that_begin_with_their_prompt_are_named(tmp_path):
    prompt = "Who wrote the book of the many towns?"
    rows = [{"prompt": prompt, "response": f"{prompt} Anna did"}]
    rows += [{"question": prompt + "?", "response": f"{prompt}? Anna"}]
    rows += [{"prompt": prompt, "response": "Anna"}, {"question": "2 + 3?", "response": "2 + 3? is 5"}]
    (note,) = notes(tmp_path, rows)
    assert note.startswith("base: 2 of 4 responses begin with their own prompt, word for word")
    assert f"{(2 * len(prompt) + 1) / (2 * len(prompt) + 1 + 14):.0%} of their characters" in note


LONG = (
    "a < b <c> <information>",
    "<information>",
    "<result>\n",
    "Observation",
    "<tool_response></tool_output>",
    "```output ",
)


@pytest.mark.parametrize("text", LONG)
def test_reading_is_linear_in_the_text(text):
    """Ten times the text takes about ten times the time; a square would take 100 times."""
    assert growth(lambda n: blocks(text * n), 2_000, 20_000) < 40
