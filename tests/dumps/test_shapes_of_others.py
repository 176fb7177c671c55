"""Shapes of APIs, engines, agents and benchmarks, field by field; and what only names speak for in such rows."""

import json
from pathlib import Path

import pytest

from analyzer.dumps import read as dumps
from analyzer.errors import DumpError
from analyzer.records import Sampler, problem_id

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
ASKED = [{"role": "user", "content": "What is 7 plus 5?"}]
SYSTEM = {"role": "system", "content": "You are helpful."}


def read(name, **options):
    traces, ledger = dumps.read_dumps([str(SAMPLES / name)], **options)
    return traces, "\n".join(ledger.notes)


def rows(tmp_path, *given):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in given))
    traces, ledger = dumps.read_dumps([str(path)])
    return traces, ledger


def test_gemini_keeps_thoughts_apart_and_has_its_own_words_for_roles_and_ends():
    first, _, last = read("gemini-batch.jsonl")[0]
    assert first.prompt == [SYSTEM, *ASKED] and last.finish == "length" and first.finish == "stop"
    assert first.response == "<think>\nThis needs care.\n</think>\n\nI work it out: it is 12."
    assert first.sampler == Sampler(0.7, 0.9) and first.meta["max_tokens"] == 100 and first.meta["id"] == "q0"


def test_a_call_of_a_function_is_no_text(tmp_path):
    row = json.loads((SAMPLES / "gemini-batch.jsonl").read_text().splitlines()[0])
    row["response"]["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "add"}}]
    with pytest.raises(DumpError, match="no text: the content has the part .*functionCall"):
        rows(tmp_path, row)


def test_bedrock_reads_what_was_asked_and_how():
    first, _, last = read("bedrock-batch.jsonl")[0]
    assert first.prompt == [SYSTEM, *ASKED] and first.sampler == Sampler(0.5) and last.finish == "length"


def test_nemo_gym_reads_the_numbers_of_the_engine():
    (first, second, *_), _ = read("nemo-gym")
    assert first.prompt == ASKED and first.sampler == Sampler(0.6, 0.95)  # null in the request, known in the response
    assert first.response_ids == (7, 20, 2) and first.response_logprobs == (-0.5, -0.1, -0.2)
    assert (second.sample, second.correct, second.meta["gold"], second.prompt_ids) == (1, False, "12", (1, 30, 31, 4))


def test_events_of_openai_evals_are_one_sample_each(tmp_path):
    (first, second, _), _ = read("openai-evals.jsonl")
    assert first.prompt == ASKED and first.correct is False and second.correct and second.answer == "5"
    assert first.group == "arithmetic.dev.v0" and first.meta["gold"] == "12" and first.origin.endswith(":3")
    events = [json.loads(line) for line in (SAMPLES / "openai-evals.jsonl").read_text().splitlines()]
    judge = {**events[2], "event_id": 99, "data": {"prompt": "Is it right?", "sampled": ["Yes"]}}
    traces, ledger = rows(tmp_path, *events, judge)
    assert len(traces) == 3 and ledger.rows == ledger.rows_used == 9


def test_promptfoo_reads_messages_in_text_and_its_verdict():
    (first, second, _), notes = read("promptfoo.json")
    assert first.prompt == ASKED and second.prompt == "What is 9 minus 4?" and first.correct is False
    assert second.meta["score"] == 1.0 and "all of a test's assertions passed" in notes


def test_every_trajectory_of_a_run_is_of_one_source_and_has_its_task():
    for name in ("swe-agent", "mini-swe-agent"):
        traces, notes = read(name)
        assert len({t.source for t in traces}) == 1 and {t.meta["id"] for t in traces} == {"calc__add-1", "calc__add-2"}
        assert [m["role"] for m in traces[0].prompt] == ["system", "user", "assistant", "user"]
        assert traces[0].response.startswith("Done.") and traces[0].meta["turns"] == 2 and "several turns" in notes


def test_trials_of_tau_bench_are_draws_of_their_task():
    for name, problem in (("tau-bench.json", "0"), ("tau2-bench.json", "arithmetic-0")):
        (first, second, *_), _ = read(name)
        assert (first.problem, second.problem) == (problem, problem) and (first.sample, second.sample) == (0, 1)
        assert first.correct and not second.correct and second.question == "Please: What is 7 plus 5?"
    assert first.sampler == Sampler(0.5) and first.meta["seed"] == 300


def test_turns_of_mt_bench_join_their_questions(tmp_path):
    (first, _, last), _ = read("fastchat")
    assert first.prompt == ASKED and first.problem == problem_id("What is 7 plus 5?") and first.group == "arithmetic"
    assert [m["role"] for m in last.prompt] == ["user", "assistant", "user"] and last.response == "That is all."
    alone, notes = read("fastchat/model_answer")
    assert (
        alone[0].prompt is None and alone[0].problem == "81" and "in a file of their own (fastchat-questions)" in notes
    )
    answer = json.loads((SAMPLES / "fastchat/model_answer/tiny-chat.jsonl").read_text().splitlines()[0])
    answer["choices"] = [{"index": 0, "turns": [{"content": "It is 12.", "token_len": 4}]}]  # as Arena-Hard has it
    assert rows(tmp_path, answer)[0][0].response == "It is 12."


def test_matharena_has_several_conversations_in_a_record():
    (first, second, *_), _ = read("matharena")
    assert first.response.startswith("<think>\nThis needs care.\n</think>") and second.response == "It is 11."
    assert (first.correct, second.correct, first.answer, first.prompt) == (True, False, "12", ASKED)


def test_the_metric_of_one_sample_is_its_label():
    traces, notes = read("olmes")
    assert [(t.problem, t.correct) for t in traces][:2] == [("arithmetic-10", False), ("arithmetic-11", True)]
    assert "prompts in files of their own" in notes
    traces, _ = read("lmms-eval")
    assert traces[0].prompt == "What is 7 plus 5?" and traces[0].correct is False and traces[0].group == "arithmetic"


def test_roll_says_where_problems_come_from_and_how_rows_were_drawn():
    (first, second, *_), _ = read("roll")
    assert (first.source, first.group, first.step) == ("tiny-grpo", "arithmetic", 3)
    assert first.sampler == Sampler(0.99, 0.9) and first.correct and second.sample == 1


# --- rows of no known format ---


@pytest.mark.parametrize(
    ("row", "finish"),
    [
        ({"prompt": "q", "response": "r", "done_reason": "length"}, "length"),
        ({"prompt": "q", "text": "r", "meta_info": {"finish_reason": {"type": "stop", "matched": 2}}}, "stop"),
        ({"inputs": "q", "generated_text": "r", "details": {"finish_reason": "eos_token"}}, "stop"),
        ({"prompt": "q", "predict": "r", "finish_reason": {"type": "length", "length": 9}}, "length"),
        ({"model_input": "q", "message": {"role": "assistant", "content": "r"}, "finishReason": "STOP"}, "stop"),
    ],
)
def test_why_a_response_ended_is_found_where_engines_write_it(tmp_path, row, finish):
    (trace,), _ = rows(tmp_path, row)
    assert (trace.prompt, trace.response, trace.finish) == ("q", "r", finish)


def test_what_stands_beside_a_response_in_its_object_belongs_to_it(tmp_path):
    row = {"question": "q", "response": {"content": "r", "reasoning_content": "why", "finish_reason": "length"}}
    (trace,), _ = rows(tmp_path, row)
    assert trace.response == "<think>\nwhy\n</think>\n\nr" and trace.finish == "length"


def test_log_probs_of_sglang_are_one_per_id(tmp_path):
    numbers = {"output_token_logprobs": [[-0.1, 5, None], [-0.2, 6, None]]}
    (trace,), _ = rows(tmp_path, {"prompt": "q", "text": "r", "output_ids": [5, 6], "meta_info": numbers})
    assert trace.response_logprobs == (-0.1, -0.2)


def test_log_probs_of_vllm_are_those_of_the_drawn_ids(tmp_path):
    best = [
        {"7": {"logprob": -0.1, "rank": 1}, "9": {"logprob": -3.0}},
        {"4": {"logprob": -0.2}, "8": {"logprob": -2.5}},
    ]
    own = {"index": 0, "text": "r", "token_ids": [7, 8], "logprobs": best, "finish_reason": "stop"}
    (trace,), ledger = rows(tmp_path, {"prompt": "q", "prompt_token_ids": [1], "outputs": [own]})
    assert trace.response_logprobs == (-0.1, -2.5) and trace.prompt_ids == (1,) and trace.finish == "stop"


def test_predictions_of_llama_factory_have_their_reference():
    (first, *_), _ = read("llama-factory")
    assert first.response == "I work it out: it is 12." and first.meta["gold"] == "12" and "7 plus 5" in first.prompt


def test_messages_that_end_with_the_response_are_no_prompt_with_its_answer(tmp_path):
    row = {"response": "It is 12.", "labels": "12", "messages": [*ASKED, {"role": "assistant", "content": "It is 12."}]}
    other = {"response": "It is 11.", "labels": "12", "messages": ASKED}
    (first, second), ledger = rows(tmp_path, row, other)
    assert first.prompt == second.prompt == ASKED and first.problem == second.problem
    assert any("messages ends with the response" in n for n in ledger.notes)


def test_a_label_of_0_and_1_under_another_name_is_proposed(tmp_path):
    row = {"prompt": "q", "model_output": "r", "accuracy": 1, "reference": ["r"]}
    (trace, _), ledger = rows(tmp_path, row, {**row, "accuracy": 0})
    assert trace.correct is None and any("--map correct=accuracy" in n for n in ledger.notes)


def test_names_of_many_meanings_count_where_they_hold_text(tmp_path):
    row = {"prompt": "q", "response": "r", "inputs": [1, 2], "label": "easy"}
    (trace,), ledger = rows(tmp_path, row)
    assert trace.prompt == "q" and "gold" not in trace.meta and {"inputs", "label"} <= ledger.files[0]["unused"].keys()
    with pytest.raises(DumpError, match="no field looks like a sampled response"):
        rows(tmp_path, {"message": "What is 7 plus 5?", "id": 1})


def test_a_problem_copied_beside_its_solution_is_a_row(tmp_path):
    """A runner that adds what a model wrote, and whether it passed, to the rows of HumanEval."""
    problem = {"prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b", "test": ""}
    said = [{"solution": f"    return a + b + {i}", "is_solved": i < 1} for i in (0, 1)]
    traces, ledger = rows(tmp_path, *({"task_id": f"T/{i}", **problem, **s} for i, s in enumerate(said)))
    assert [t.response for t in traces] == [s["solution"] for s in said] and [t.correct for t in traces] == [
        True,
        False,
    ]
    assert traces[0].prompt == problem["prompt"] and "canonical_solution" in ledger.files[0]["unused"]


@pytest.mark.parametrize("about", ["image", "context", "table", "options"])
def test_the_same_words_about_different_things_are_no_draws(tmp_path, about):
    """Their answers differ since the questions do: they are references, not what each draw answered."""
    shown = [["a.png", "b.png"], [["A) 1"], ["A) 2"]]][about == "options"]
    asked = [{"question": "How many?", about: x, "answer": str(i)} for i, x in enumerate(shown)]
    traces, ledger = rows(tmp_path, *({**a, "response": f"I see {a['answer']}"} for a in asked))
    assert [t.meta["gold"] for t in traces] == ["0", "1"] and {t.answer for t in traces} == {None}
    told = [n for n in ledger.notes if "different reference answers" in n]
    assert about == "image" or "--map problem=FIELD names what tells them apart" in told[0]


def test_a_correct_answer_is_the_reference(tmp_path):
    row = {"id": "1", "source": "a1", "target": "f3", "correct_answer": "NO", "parsed_answer": "YES", "output": "Yes."}
    (trace,), _ = rows(tmp_path, row)
    assert trace.meta["gold"] == "NO" and trace.answer == "YES"


def test_one_thing_is_told_in_the_singular(tmp_path):
    draws = [{"id": 1, "question": "2+2", "prompt": f"{p} 2+2", "sample": 0, "response": p} for p in ("Say", "Tell")]
    _, ledger = rows(tmp_path, *draws)
    told = "\n".join(ledger.notes)
    assert "1 problem has more than one prompt" in told and "1 sample number was taken already" in told
