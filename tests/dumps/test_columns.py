"""Nothing that a row says is dropped in silence: columns beside a known format are read, or named as not used."""

import json
import random
from pathlib import Path

import pytest

from analyzer.dumps import check as checks
from analyzer.dumps import read as dumps
from analyzer.dumps.survey import Survey

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


@pytest.fixture
def write(tmp_path):
    def _write(name, *rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return str(path)

    return _write


def unused(path, **how):
    _, ledger = dumps.read_dumps([path], **how)
    return {name: (c["rows"], c["example"]) for name, c in ledger.files[0]["unused"].items()}


def text(path):
    survey, ledger = Survey(), dumps.Ledger()
    for _ in dumps.batches([path], ledger, survey):
        pass
    return checks.render(checks.describe(survey, ledger))


# --- columns that nothing reads are named once per file ---


def test_columns_that_nothing_reads_are_named_with_their_rows_and_an_example(write):
    path = write(
        "a.jsonl",
        {"question": "q", "response": "a", "correct": True, "judge": "x\x1b[31m\n\u202e" + "y" * 99, "note": None},
        {"question": "q", "response": "b", "correct": True, "judge": None, "cost": 0.25},
        {"question": "q", "response": "c", "correct": True, "judge": "z", "note": None, "tags": []},
    )
    found = unused(path)
    assert {k: n for k, (n, _) in found.items()} == {"judge": 2, "cost": 1}  # null and [] say nothing
    assert found["cost"][1] == "0.25"
    assert found["judge"][1].startswith("'x\\x1b[31m\\n\\u202eyyy") and len(found["judge"][1]) <= 40
    shown = text(path)
    assert shown.count("judge (2 rows, such as 'x\\x1b[31m") == 1 and "cost (1 row, such as 0.25)" in shown
    assert not any(c in shown for c in "\x1b\u202e")


def test_rows_are_counted_whatever_they_say_first(write):
    values = [None, 0, "x", False, "", [], {}, 1, True, [0]]
    rng = random.Random(0)
    rows = [{"question": "q", "response": str(i), **{k: rng.choice(values) for k in "abc"}} for i in range(400)]
    rows += [{"question": "q", "response": "a", "c": "z", "b": None} for _ in range(50)]
    found = unused(write("a.jsonl", *rows))
    told = {k: sum(r.get(k) not in (None, "", [], {}) for r in rows) for k in "abc"}
    assert {k: n for k, (n, _) in found.items()} == told


def test_names_of_columns_are_escaped_and_bounded(write):
    path = write("a.jsonl", {"question": "q", "response": "a", "correct": True, "\x1b[2J\u202e": 1, "": 2})
    assert set(unused(path)) == {"'\\x1b[2J\\u202e'", "''"}
    rows = [{"question": "q", "response": str(i), "correct": True, f"column {i}": i} for i in range(300)]
    path = write("b.jsonl", *rows)
    found = unused(path)
    assert len(found) == 101 and found["further columns"] == (200, "100")
    assert "'column 99' (1 row" in text(path) or "column 99 (1 row" in text(path)


def test_parts_of_objects_that_are_read_in_part_are_named_too(write):
    path = write(
        "a.jsonl",
        {"question": "q", "completions": [{"text": "a", "tries": 1}, {"text": "b", "tries": 2, "judge": "no"}]},
        {"question": "q", "completions": [{"text": "a", "tries": None}], "info": {"host": "h"}},
    )
    found = unused(path, map={"response": "completions[].text"})
    assert found == {"completions.tries": (1, "1"), "completions.judge": (1, "'no'"), "info": (1, "{'host': 'h'}")}


def test_a_field_that_is_mapped_is_used_and_a_rejected_row_does_not_count(write):
    good = {"question": "q", "response": "a", "correct": True, "grade": 3, "extra": "e"}
    path = write("a.jsonl", good, {**good, "response": 5})
    assert unused(path, map={"meta.grade": "grade"}, max_bad=0.5) == {"extra": (1, "'e'")}


def test_dialects_name_what_they_do_not_read():
    assert unused(str(SAMPLES / "canonical.jsonl")) == {}
    found = unused(str(SAMPLES / "lm-eval" / "tiny-base"))
    assert "resps" not in found and "exact_match" not in found and "doc_hash" in found
    assert "messages" not in unused(str(SAMPLES / "conversation.jsonl"))


# --- columns of canonical names beside a known format are read ---

TOLD = {"temperature": 0.6, "top_p": 0.95, "finish_reason": "length", "max_tokens": 64}
BESIDE = {  # a row of a known format without a label, sampler and finish
    "verl": {"input": "2 + 3?", "output": "5", "score": 1.0, "step": 5},
    "nemo-skills": {"question": "2 + 3?", "generation": "5", "predicted_answer": "5", "correct": True},
    "conversation": {
        "messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}],
        "is_correct": True,
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}], "passed": 1},
    "canonical": {"source": "s", "problem": "p", "sample": 0, "response": "5", "is_correct": True},
    "polaris": {"example_id": 1, "prompt": "2 + 3?", "answer": "5", "seed": 1, "response": "5", "acc": 1.0},
}


@pytest.mark.parametrize("kind", BESIDE)
def test_canonical_columns_beside_a_known_format_are_read(write, kind):
    path = write("a.jsonl", BESIDE[kind] | TOLD | {"ground_truth": "five"})
    (trace,), ledger = dumps.read_dumps([path])
    assert ledger.files[0]["format"] == kind
    assert trace.correct is True and trace.finish == "length" and trace.meta["max_tokens"] == 64
    assert (trace.sampler.temperature, trace.sampler.top_p) == (0.6, 0.95)
    assert trace.meta["gold"] == ("5" if kind == "polaris" else "five")
    assert {*ledger.files[0]["unused"]} <= {"ground_truth"}  # polaris has its own


def test_what_the_format_reads_itself_and_what_is_mapped_wins(write):
    row = BESIDE["verl"] | {"acc": False, "correct": True, "temperature": 0.6}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.correct is False and set(ledger.files[0]["unused"]) == {"correct"}
    (trace,), _ = dumps.read_dumps([write("b.jsonl", row)], map={"correct": "correct", "temperature": "step"})
    assert trace.correct is True and trace.sampler.temperature == 5


def test_a_column_whose_values_speak_against_its_name_is_left_as_it_was(write):
    row = BESIDE["conversation"] | {"temperature": "hot", "is_correct": "perhaps", "seed": -1}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.correct is None and trace.sampler is None
    assert {*ledger.files[0]["unused"]} == {"temperature", "is_correct", "seed"}
    assert any("is_correct was not read as correct" in n for n in ledger.notes)


def test_a_mark_of_quality_beside_a_known_format_is_no_label(write):
    row = {k: v for k, v in BESIDE["conversation"].items() if k == "messages"}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row | {"score": 4.5})])
    assert trace.correct is None and {*ledger.files[0]["unused"]} == {"score"}
    assert any("score = 4.5 lies beyond -1 to 1" in n for n in ledger.notes)
    (trace,), _ = dumps.read_dumps([write("b.jsonl", row | {"score": 0.0})])
    assert trace.correct is False


def test_two_labels_beside_a_known_format_are_left_to_the_user(write):
    row = BESIDE["sharegpt"] | {"is_correct": False}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.correct is None and {*ledger.files[0]["unused"]} == {"passed", "is_correct"}
    assert any("--map correct=is_correct" in n for n in ledger.notes)


# --- a format takes its own rows only ---


@pytest.mark.parametrize("task", ["HumanEval/0", 30])
def test_rows_with_their_own_prompt_are_not_taken_for_humaneval(write, task):
    row = {"task_id": task, "prompt": "def f():", "completion": " return 1", "reward": 1.0, "sample_idx": 3}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert ledger.files[0]["format"] == "generic-row" and trace.prompt == "def f():"
    assert trace.correct is True and trace.sample == 3
    assert not any("humaneval" in n for n in ledger.notes)


def test_a_response_of_text_beside_custom_id_is_no_batch(write):
    row = {"custom_id": "a", "prompt": "q", "response": "It is 5.", "correct": True}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert ledger.files[0]["format"] == "generic-row" and trace.response == "It is 5."


# --- cut responses ---


@pytest.mark.parametrize("name", ["truncated", "is_truncated"])
def test_truncated_is_a_finish_reason(write, name):
    rows = [{"question": "q", "response": str(i), "correct": True, name: i % 2 == 0} for i in range(4)]
    path = write("a.jsonl", *rows)
    traces, _ = dumps.read_dumps([path])
    assert [t.finish for t in traces] == ["length", "stop"] * 2
    assert "2 of 4 responses ended at the token budget" in text(path)
    rows = [r | {"finish_reason": "eos"} for r in rows[:1]]  # what was cut may have been the prompt
    (trace,), _ = dumps.read_dumps([write("b.jsonl", *rows)])
    assert trace.finish == "stop" and trace.meta["truncated"] is True


def test_a_switch_that_is_mapped_as_the_finish_says_what_to_map(write):
    path = write("a.jsonl", {"question": "q", "response": "a", "was_cut": True})
    with pytest.raises(dumps.DumpError, match=r"finish = True \(bool\).*--map truncated=FIELD"):
        dumps.read_dumps([path], map={"finish": "was_cut"})
    (trace,), _ = dumps.read_dumps([path], map={"truncated": "was_cut"})
    assert trace.finish == "length"
