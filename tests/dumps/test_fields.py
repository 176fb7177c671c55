import json
import math

import pytest

from analyzer.dumps.fields import clean, sampler
from analyzer.dumps.paths import Fault
from analyzer.dumps.read import read_dumps
from analyzer.dumps.values import truth
from analyzer.records import Sampler

GOOD = {"response": "r", "question": "q"}


@pytest.mark.parametrize(
    ("raw", "value"),
    [(True, True), (0, False), (1.0, True), ("true", True), ("False", False), ("1", True), (None, None)],
)
def test_truth_accepts_only_what_needs_no_interpretation(raw, value):
    assert truth(raw) is value


@pytest.mark.parametrize("raw", ["yes", "", 2, 0.5, "correct", [], {}, math.nan])
def test_truth_refuses_the_rest(raw):
    with pytest.raises(Fault, match="bad correct"):
        truth(raw)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("response", None, "no response"),
        ("response", 3, "response is not text"),
        ("response", "\ud800", "response is not valid text"),
        ("prompt", [{"role": "\ud800", "content": "c"}], "bad prompt"),
        ("question", ["q"], "question is not text"),
        ("question", "  ", "empty question"),
        ("sample", -1, "bad sample"),
        ("sample", "3", "bad sample"),
        ("sample", True, "bad sample"),
        ("sample", 10**30, "bad sample"),
        ("step", "last", "bad step"),
        ("score", math.nan, "bad score"),
        ("score", math.inf, "bad score"),
        ("score", "1", "bad score"),
        ("response_ids", [1, -2], "bad response_ids"),
        ("response_ids", [1, 2.0], "bad response_ids"),
        ("response_ids", [1, True], "bad response_ids"),
        ("response_ids", "1 2", "bad response_ids"),
        ("response_ids", [], "bad response_ids"),
        ("response_logprobs", [-1.0], "bad logprobs"),
        ("prompt", [], "bad prompt"),
        ("prompt", [{"role": "user"}], "bad prompt"),
        ("prompt", 3, "prompt is not text"),
        ("finish", 3, "finish is not text"),
        ("answer", {"a": 1}, "bad answer"),
        ("meta", "x", "bad meta"),
        ("meta", {"x": math.nan}, "bad meta"),
        ("problem", "", "bad problem"),
        ("temperature", -1, "bad sampler"),
        ("sampler", "greedy", "bad sampler"),
        ("sampler", {"temperature": 1, "topp": 0.9}, "bad sampler"),
    ],
)
def test_a_wrong_value_is_a_fault_that_names_it(field, value, reason):
    with pytest.raises(Fault) as caught:
        clean({**GOOD, field: value}, 1.0)
    assert caught.value.reason == reason


def test_logprobs_need_one_number_per_id():
    ids = {**GOOD, "response_ids": [1, 2]}
    assert clean({**ids, "response_logprobs": [-1, -0.5]}, 1.0)["response_logprobs"] == (-1.0, -0.5)
    for bad in ([-1.0], [-1.0, 0.5], [-1.0, "-inf"], [-1.0, "nan"], [-1.0, math.inf], [-1.0, -1e31], [-1.0, True]):
        with pytest.raises(Fault, match="bad logprobs"):
            clean({**ids, "response_logprobs": bad}, 1.0)


def test_score_becomes_a_label_only_where_there_is_none():
    assert clean({**GOOD, "score": 0.999}, 1.0)["correct"] is False
    assert clean({**GOOD, "score": 0.999}, 0.9)["correct"] is True
    assert clean({**GOOD, "score": 0.0, "correct": True}, 1.0)["correct"] is True
    assert clean(GOOD, 1.0)["correct"] is None


def test_step_reads_the_number_that_a_checkpoint_ends_in():
    assert clean({**GOOD, "step": "checkpoint-500"}, 1.0)["step"] == 500


def test_sampler_is_recorded_unknown_or_greedy():
    assert sampler({"temperature": 0.6, "top_p": 0.9}) == (Sampler(0.6, 0.9), False)
    assert sampler({"sampler": {"temperature": 1, "top_k": -1}}) == (Sampler(1.0), False)
    assert sampler({"top_p": 0.9}) == (None, False)
    assert sampler({"temperature": 0.0}) == (None, True)


def test_unknown_finish_reasons_are_kept_and_count_as_unknown():
    out = clean({**GOOD, "finish": "abort"}, 1.0)
    assert out["finish"] is None and out["finish_raw"] == "abort"
    assert clean({**GOOD, "finish": "max_tokens"}, 1.0)["finish"] == "length"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("response_ids", [1, 2**32], r"response_ids\[1\] = 4294967296; expected an integer >= 0 and < 2\^31"),
        ("sample", 2**62, r"sample = 4611686018427387904; expected an integer >= 0 and < 2\^62"),
    ],
)
def test_integers_beyond_their_kind_are_told_both_bounds(field, value, said):
    with pytest.raises(Fault, match=said):
        clean({**GOOD, field: value}, 1.0)


def test_an_answer_that_differs_between_draws_of_a_problem_is_no_reference(tmp_path):
    def read(answers, **how):
        rows = [
            {"question": f"q{i // 4}", "response": "r", "correct": True, "answer": a} for i, a in enumerate(answers)
        ]
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_dumps([str(path)], **how)

    drawn = ["1", "2", "1", "3", "7", "7.0", "8", "7"]
    traces, ledger = read(drawn)
    assert [t.answer for t in traces] == drawn and not any("gold" in t.meta for t in traces)
    assert any("answer differs between draws of one problem" in note for note in ledger.notes)
    traces, ledger = read(["1", "1", "1.0", "1", "7", "7", "7", "7"])
    assert [t.meta["gold"] for t in traces][:2] == ["1", "1"] and not any("differs between" in n for n in ledger.notes)
    traces, _ = read(drawn, map={"gold": "answer"})
    assert [t.meta["gold"] for t in traces] == drawn
