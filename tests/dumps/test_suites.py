"""Evaluation suites, conversations and folders as they are found in the wild: what a user sees of each."""

import json
from pathlib import Path

import pytest

from analyzer.dumps import read as dumps
from analyzer.dumps.dialects import chats
from analyzer.dumps.paths import Fault
from analyzer.errors import DumpError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(*names, **options):
    return dumps.read_dumps([str(SAMPLES / n) for n in names], **options)


def notes(ledger):
    return "\n".join(ledger.notes)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def test_messages_of_a_rollout_are_no_samples():
    traces, ledger = read("verifiers")
    used = traces[1]
    assert used.response == "I work it out: it is 12." and used.finish == "stop" and used.meta["turns"] == 2
    assert [m["role"] for m in used.prompt] == ["system", "user", "assistant", "tool"]
    assert traces[0].response.startswith("<think>\nA guess.") and traces[0].finish == "length" and not traces[0].correct
    assert len({t.problem for t in traces}) == 3 and traces[0].problem == traces[1].problem
    assert traces[0].sampler.temperature == 0.7 and "of a conversation of several turns" in notes(ledger)


def test_without_its_metadata_a_rollout_is_named_after_its_folder(tmp_path):
    rows = (SAMPLES / "verifiers/arithmetic--tiny-chat/0a1b2c3d/results.jsonl").read_bytes()
    path = tmp_path / "arithmetic--tiny-chat/0a1b2c3d/results.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(rows)
    traces, _ = dumps.read_dumps([str(path)])
    assert {t.source for t in traces} == {"arithmetic--tiny-chat"} and traces[0].sampler is None


def test_conversations_as_json_text_are_conversations():
    traces, _ = read("prime-rollouts.json")
    assert traces[0].prompt == [{"role": "user", "content": "What is 7 plus 5?"}] and traces[0].step == 3
    traces, _ = read("lm-eval/tiny-chat")
    assert traces[0].prompt[1] == {"role": "user", "content": "What is 7 plus 5?"}
    assert [(t.correct, t.score) for t in traces] == [(True, None), (False, 0.4), (False, None)]


def test_several_turns_are_told_apart_by_all_their_questions():
    traces, ledger = read("conversation.jsonl")
    assert [t.response for t in traces][1:] == ["I work it out: it is 5.", "That is all."]
    assert traces[2].question == "What is 6 times 3?\n\nGo on." and len(traces[2].prompt) == 3
    assert "of a conversation of several turns" in notes(ledger)
    assert "several turns" not in notes(read("sharegpt.jsonl")[1])


def test_a_conversation_needs_the_assistant(tmp_path):
    with pytest.raises(Fault, match=r"none of the 1 messages \(user\) is by the assistant"):
        chats.conversation({"messages": [USER]})
    with pytest.raises(DumpError, match="no field looks like a sampled response"):
        dumps.read_dumps([lines(tmp_path / "m.jsonl", {"messages": [USER]})])
    row = {"messages": [USER], "reasoning": "why", "answer": "a " * 60}
    row["reasoning"] = "why " * 40
    with pytest.raises(DumpError, match="--map response=answer$"):
        dumps.read_dumps([lines(tmp_path / "p.jsonl", row)])
    (trace,), _ = dumps.read_dumps([lines(tmp_path / "p.jsonl", row)], map={"response": "answer"})
    assert (
        trace.prompt == [USER] and trace.response.startswith("<think>\nwhy why") and "</think>\n\na a" in trace.response
    )
    traces, _ = dumps.read_dumps([lines(tmp_path / "n.jsonl", {"messages": [USER], "response": "r"})])
    assert traces[0].prompt == [USER] and traces[0].response == "r"


def test_a_response_that_is_a_conversation_is_unfolded_wherever_it_stands(tmp_path):
    tool = {"role": "tool", "content": "t"}
    path = lines(tmp_path / "g.jsonl", {"id": 1, "prompt": [USER], "output": [BOT, tool, {**BOT, "content": "b"}]})
    (trace,), ledger = dumps.read_dumps([path])
    assert (trace.response, trace.prompt, trace.question) == ("b", [USER, BOT, tool], "q")
    assert ledger.files[0]["format"] == "generic-row" and "several turns" in notes(ledger)


def test_responses_of_evalscope_and_their_reviews():
    traces, ledger = read("evalscope/predictions")
    assert traces[1].response == "<think>\nLet me see.\n</think>\n\nI work it out: it is 5."
    assert traces[0].problem == "arithmetic_easy-0" and "its reviews have them" in notes(ledger)
    traces, _ = read("evalscope/reviews")
    assert [t.correct for t in traces] == [True, False, True] and traces[1].prompt == [
        {"role": "user", "content": "What is 9 minus 4?"}
    ]
    assert traces[0].question == "What is 7 plus 5?" and traces[1].answer == "4"


def test_scores_of_cruxeval_join_by_id():
    traces, _ = read("cruxeval")
    assert [(t.problem, t.response, t.correct) for t in traces][:2] == [
        ("sample_0", "f(3)", True), ("sample_0", "f(4)", False),
    ]  # fmt: skip


def test_requests_of_an_anthropic_batch_and_their_failures(tmp_path):
    traces, _ = read("anthropic-batch")
    assert traces[0].prompt == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 6 times 3?"},
    ]  # fmt: skip
    assert traces[0].response == "<think>\nEasy.\n</think>\n\nI work it out: it is 18." and traces[0].finish == "stop"
    failed = {"custom_id": "r", "result": {"type": "errored", "error": {"type": "e", "error": {"message": "too long"}}}}
    with pytest.raises(DumpError, match="request failed: 'r' is 'errored'; error: 'too long'"):
        dumps.read_dumps([lines(tmp_path / "r.jsonl", failed)])


def test_answers_of_the_responses_api(tmp_path):
    said = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "t"}]},
    ]
    body = {"model": "m", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": said}
    (trace,), _ = dumps.read_dumps([lines(tmp_path / "o.jsonl", {"custom_id": "r", "response": {"body": body}})])
    assert (trace.response, trace.finish) == ("t", "length")


@pytest.mark.parametrize("named", [False, True])
def test_a_folder_may_hold_summaries_and_what_was_no_sampling(tmp_path, named):
    rows = (SAMPLES / "lm-eval/tiny-base").glob("*.jsonl")
    (tmp_path / "samples_x_2025-01-02T03-04-05.000006.jsonl").write_bytes(next(rows).read_bytes())
    summary = tmp_path / "results_2025-01-02T03-04-05.000006.json"
    summary.write_text(json.dumps({"results": {"x": {"acc,none": 0.5}}, "configs": {"x": {"task": "x"}}}))
    scored = {"doc_id": 0, "resps": [[["-1.5", "False"]]], "arguments": {}, "filter": "none"}
    lines(tmp_path / "samples_y_2025-01-02T03-04-05.000006.jsonl", scored)
    if named:
        with pytest.raises(DumpError, match="no field looks like a sampled response"):
            dumps.read_dumps([str(tmp_path), str(summary)])
        return
    traces, ledger = dumps.read_dumps([str(tmp_path)])
    assert len(traces) == 3 and [Path(f["path"]).name[:9] for f in ledger.files] == ["samples_x"]
    assert f"{summary}: not read (no field looks like a sampled response)." in ledger.notes
    assert "samples_y_2025-01-02T03-04-05.000006.jsonl: not read (these are lm-eval log-likelihood rows" in notes(
        ledger
    )
    with pytest.raises(DumpError, match="log-likelihood rows"):
        dumps.read_dumps([str(tmp_path / "samples_y*")])


def test_statuses_of_old_evalplus_do_not_replace_the_samples(tmp_path):
    lines(tmp_path / "s.jsonl", {"task_id": "t/0", "completion": "x"})
    old = {
        "date": "d",
        "hash": "h",
        "eval": {"t/0": {"nfiles": 1, "base": [["success", [1]]], "plus": [["failed", []]]}},
    }
    (tmp_path / "s_eval_results.json").write_text(json.dumps(old))
    (trace,), ledger = dumps.read_dumps([str(tmp_path)])
    assert trace.response == "x" and trace.correct is None and "(EvalPlus before 0.2.1)" in notes(ledger)
    with pytest.raises(DumpError, match="hold the statuses of the tests and no solutions"):
        dumps.read_dumps([str(tmp_path / "s_eval_results.json")])


def test_what_could_be_the_label_is_named(tmp_path):
    row = {"question": "q", "response": "r", "solved": True, "passes": [True], "truncated": True, "n": 1}
    _, ledger = dumps.read_dumps([lines(tmp_path / "a.jsonl", row)])
    assert "true or false are in solved, passes[]: where one says" in notes(ledger) and "correct=solved" in notes(
        ledger
    )
    _, ledger = dumps.read_dumps([lines(tmp_path / "b.jsonl", {**row, "acc": 1})])
    assert "no field was taken as the label" not in notes(ledger)


def test_rows_without_a_problem_are_told_which_field_could_name_it(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"output": "r", "data": {"question": "q"}, "input_str": "a longer text"})
    with pytest.raises(DumpError, match=r"1 x no problem\); its rows have: .*--map question=data.question$"):
        dumps.read_dumps([path])


def test_documents_one_after_the_other_are_no_broken_json(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"a": 1}, indent=1) * 2)
    with pytest.raises(DumpError, match=r"several JSON documents one after the other .*jq -c \. a\.jsonl"):
        dumps.read_dumps([str(tmp_path / "a.jsonl")])


def test_where_problems_come_from_is_no_policy(tmp_path):
    rows = [{"question": f"q{i}", "response": "r", "source": f"set{i % 2}"} for i in range(4)]
    traces, ledger = dumps.read_dumps([f"base={lines(tmp_path / 'a.jsonl', *rows)}"])
    assert {t.source for t in traces} == {"base"} and {t.group for t in traces} == {"set0", "set1"}
    assert "source differs between problems and never within one" in notes(ledger)
    both = [{"question": "q", "response": "r", "source": s} for s in ("base", "rlvr")]
    assert {t.source for t in dumps.read_dumps([lines(tmp_path / "b.jsonl", *both)])[0]} == {"base", "rlvr"}
    mapped = dumps.read_dumps([lines(tmp_path / "c.jsonl", rows[0])], map={"group": "source"})[0]
    assert [(t.source, t.group) for t in mapped] == [("c", "set0")]


def test_a_field_whose_values_speak_against_its_name_is_left_out_and_said(tmp_path):
    row = {"question": "q", "response": "r", "acc": 0.4, "finish_reason": ["stop"], "score": "high"}
    (trace,), ledger = dumps.read_dumps([lines(tmp_path / "a.jsonl", row)])
    assert trace.correct is trace.score is trace.finish is None
    assert "acc was not read as correct: correct = 0.4; expected" in notes(ledger)
    (trace,), _ = dumps.read_dumps([lines(tmp_path / "b.jsonl", row)], map={"score": "acc"}, threshold=0.3)
    assert trace.correct and trace.score == 0.4
    with pytest.raises(DumpError, match="bad score"):
        dumps.read_dumps([lines(tmp_path / "c.jsonl", row)], map={"score": "score"})


def test_reasoning_that_the_response_has_is_not_joined_again(tmp_path):
    row = {"question": "q", "response": "<think>\nwhy\n</think>\n\na", "thinking": "why"}
    other = {"question": "q", "message_content": "a", "message_thinking": "why"}
    for name, r in (("a", row), ("b", other)):
        assert dumps.read_dumps([lines(tmp_path / f"{name}.jsonl", r)])[0][0].response == row["response"]


def test_a_generator_names_the_policy_before_a_source_does(tmp_path):
    row = {"question": "q", "output": ["r"], "source": "gsm8k", "generator": "org/tiny"}
    (trace,), _ = dumps.read_dumps([lines(tmp_path / "a.jsonl", row)])
    assert (trace.source, trace.group) == ("tiny", "gsm8k")
    row["model"] = row.pop("generator")
    (trace,), ledger = dumps.read_dumps([lines(tmp_path / "b.jsonl", row)])
    assert trace.source == "gsm8k" and "source names the sources, not model" in notes(ledger)


@pytest.mark.parametrize("name", ["outputs", "results", "samples"])
def test_rows_with_questions_of_their_own_are_rows_under_any_name(tmp_path, name):
    (tmp_path / "a.json").write_text(
        json.dumps({"canary": "c", name: [{"input": f"q{i}", "output": "r"} for i in (1, 2)]})
    )
    traces, _ = dumps.read_dumps([str(tmp_path / "a.json")])
    assert [(t.prompt, t.response) for t in traces] == [("q1", "r"), ("q2", "r")]
    (tmp_path / "b.json").write_text(json.dumps({"question": "q", "outputs": [{"text": "r"}, {"text": "s"}]}))
    assert [t.response for t in dumps.read_dumps([str(tmp_path / "b.json")])[0]] == ["r", "s"]


def test_a_count_of_tokens_is_no_list_of_them(tmp_path):
    row = {"question": "q", "response": "r", "prompt_tokens": 7, "response_tokens": 9, "logprobs": {"content": []}}
    (trace,), _ = dumps.read_dumps([lines(tmp_path / "a.jsonl", row)])
    assert trace.prompt_ids is trace.response_ids is trace.response_logprobs is None and trace.response == "r"


def test_results_of_bigcodebench_are_those_of_evalplus_with_one_status(tmp_path):
    rows = [{"task_id": "B/0", "solution": s, "status": w, "details": {}} for s, w in (("x", "pass"), ("y", "timeout"))]
    (tmp_path / "a_eval_results.json").write_text(json.dumps({"date": "d", "eval": {"B/0": rows}}))
    traces, ledger = dumps.read_dumps([str(tmp_path / "a_eval_results.json")])
    assert [t.correct for t in traces] == [True, False] and ledger.files[0]["format"] == "evalplus-results"
