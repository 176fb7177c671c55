"""What each producer's file says, field by field, where more than the table of dialects is at work."""

import json
import zipfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analyzer.dumps import read as dumps
from analyzer.errors import DumpError, UsageError
from analyzer.records import Sampler, problem_id

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


def read(*names, **options):
    return dumps.read_dumps([str(SAMPLES / n) for n in names], **options)


def notes(ledger):
    return "\n".join(ledger.notes)


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_seeds_of_limit_of_rlvr_are_pooled():
    traces, _ = read("limit-of-rlvr")
    assert {t.meta["seed"] for t in traces} == {1, 2} and {t.sample for t in traces} == {0, 1, 2, 3}
    assert traces[0].sampler == Sampler(0.6) and traces[0].group == "arithmetic" and traces[0].step is None


def test_a_step_in_the_folder_of_a_checkpoint_is_kept(tmp_path):
    source = next((SAMPLES / "limit-of-rlvr").rglob("*seed1_t0.6*.jsonl"))
    path = tmp_path / "grpo_arithmetic_temp0.6_n2_seed1/eval_results/global_step_60/arithmetic" / source.name
    path.parent.mkdir(parents=True)
    path.write_bytes(source.read_bytes())
    traces, _ = dumps.read_dumps([str(path)])
    assert {(t.source, t.step) for t in traces} == {("grpo", 60)}


def test_verl_takes_acc_before_score_and_groups_by_text():
    traces, _ = read("verl/tiny-validation")
    assert [(t.correct, t.score) for t in traces][:2] == [(False, -0.2)] * 2 and traces[0].answer == "0"
    assert len({t.problem for t in traces}) == 3 and {t.sample for t in traces} == {0, 1}


def test_verl_generation_keeps_messages_and_has_no_label():
    traces, _ = read("verl-generation.parquet")
    assert traces[0].prompt == [{"role": "user", "content": "What is 7 plus 5?"}]
    assert traces[0].problem == problem_id("What is 7 plus 5?") and traces[0].meta["gold"] == "12"


def test_of_several_trl_rewards_the_user_chooses(tmp_path):
    row = {"step": 1, "prompt": "p", "completion": "c", "format": 1.0, "accuracy": 0.0, "advantage": 0.1}
    path = parquet(tmp_path / "run/completions/completions_00001.parquet", [row, {**row, "accuracy": float("nan")}])
    traces, ledger = dumps.read_dumps([path])
    assert traces[0].correct is None and traces[0].source == "run" and traces[0].meta["format"] == 1.0
    assert "2 reward columns (format, accuracy), none taken as the label: choose with --map score=" in notes(ledger)
    traces, _ = dumps.read_dumps([path], map={"score": "accuracy"})
    assert [t.correct for t in traces] == [False, None]  # NaN: the function did not apply
    with pytest.raises(UsageError, match="no row of .* has 'acuracy'; did you mean 'accuracy'"):
        dumps.read_dumps([path], map={"score": "acuracy"})


def test_open_instruct_has_ids_only():
    traces, ledger = read("open-instruct")
    assert traces[0].response == "" and traces[0].response_ids == (7, 20, 2) and traces[0].prompt_ids == (1, 30, 31, 4)
    assert traces[0].problem == traces[1].problem != traces[2].problem and traces[0].correct and not traces[1].correct
    assert "6 of 6 responses are token ids without text" in notes(ledger) and "are empty" not in notes(ledger)
    assert sum(f["rows"] for f in ledger.files) == ledger.rows == 7


def test_rllm_labels_the_last_step_of_an_episode():
    traces, _ = read("rllm/tiny-agent")
    assert {t.step for t in traces} == {10} and [t.correct for t in traces] == [True, False]
    assert traces[0].prompt == [{"role": "user", "content": "What is 7 plus 5?"}] and traces[0].group == "arithmetic"
    traces, _ = read("rllm/tiny-solver-judge.json")
    assert [t.score for t in traces] == [1.0, 0.0] and traces[0].response_ids == (7, 20, 2)


def test_an_rllm_episode_of_several_turns_is_one_sample_per_call(tmp_path):
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "no"}]
    steps = [
        {"chat_completions": chat[:2], "model_response": "a"},
        {"chat_completions": [*chat, {"role": "assistant", "content": "b"}], "model_response": "b"},
    ]
    episode = {"id": "0", "task": {"question": "q"}, "is_correct": True, "trajectories": [{"steps": steps}]}
    (tmp_path / "e.json").write_text(json.dumps([episode]))
    traces, _ = dumps.read_dumps([str(tmp_path / "e.json")])
    assert [(t.response, t.correct, t.meta["turn"], len(t.prompt)) for t in traces] == [
        ("a", None, 0, 1), ("b", True, 1, 3),
    ]  # fmt: skip


def test_old_skythought_keeps_responses_by_temperature(tmp_path):
    row = {"problem": "q", "responses": {"0.7": {"content": "a", "correctness": True}}, "token_usages": {"0.7": {}}}
    (tmp_path / "results.json").write_text(json.dumps({"0": row, "1": {**row, "problem": "r"}}))
    traces, ledger = dumps.read_dumps([str(tmp_path / "results.json")])
    assert ledger.files[0]["format"] == "skythought" and traces[0].sampler == Sampler(0.7) and traces[0].correct


def test_nemo_skills_reads_the_full_generation_and_the_seed():
    traces, _ = read("nemo-skills")
    assert all(t.response.startswith("<think>") for t in traces) and {t.meta["seed"] for t in traces} == {0, 1}
    assert traces[0].group == "arithmetic"


def test_inspect_resolves_attachments_and_reasoning():
    traces, ledger = read("inspect")
    first = traces[0]
    assert first.response.startswith("<think>\n7 plus 5 needs care.") and first.response.endswith(
        "</think>\n\nIt is 12"
    )
    assert first.prompt[0] == {"role": "system", "content": "You are helpful."}
    assert first.sampler == Sampler(0.6, 0.95) and (first.sample, traces[1].sample) == (0, 1)
    assert "6 of 6 responses were kept as reasoning and answer apart" in notes(ledger)


def log(path, **changes):
    sample = {
        "id": 1, "epoch": 1, "input": "q", "target": "t", "messages": [],
        "output": {"choices": [{"message": {"role": "assistant", "content": "a"}, "stop_reason": "max_tokens"}]},
        "scores": {"x": {"value": "C"}, "y": {"value": 0.25}},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "org/m"}}))
        archive.writestr("samples/1_epoch_1.json", json.dumps(sample | changes))
    return str(path)


def test_inspect_leaves_the_choice_between_scorers_to_the_user(tmp_path):
    path = log(tmp_path / "a.eval")
    (trace,), ledger = dumps.read_dumps([path])
    assert trace.correct is None and trace.finish == "length" and trace.meta["scores"] == {"x": 1.0, "y": 0.25}
    assert "2 scorers (x, y), none taken as the label: choose with --map score=@scores.x" in notes(ledger)
    assert dumps.read_dumps([path], map={"score": "@scores.x"})[0][0].correct


def test_inspect_says_that_the_calls_of_tools_are_not_in_the_text(tmp_path):
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": "python", "arguments": {}}]}
    messages = [
        {"role": "user", "content": "q"},
        call,
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "a"},
    ]
    traces, ledger = dumps.read_dumps([log(tmp_path / "a.eval", messages=messages)])
    assert len(traces[0].prompt) == 3 and "tools were called" in notes(ledger) and "2 scorers (x, y)" in notes(ledger)


def test_an_inspect_message_without_parts_is_an_empty_response_and_a_log_may_be_empty(tmp_path):
    silent = {"choices": [{"message": {"role": "assistant", "content": []}, "stop_reason": "stop"}]}
    assert dumps.read_dumps([log(tmp_path / "a.eval", output=silent)])[0][0].response == ""
    with zipfile.ZipFile(tmp_path / "b.eval", "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "org/m"}}))
    with pytest.raises(DumpError, match="b.eval: no rows in it"):
        dumps.read_dumps([str(tmp_path / "b.eval")])
    traces, ledger = dumps.read_dumps([str(tmp_path)])
    assert len(traces) == 1 and f"{tmp_path / 'b.eval'}: not read (no rows in it" in notes(ledger)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": {"choices": []}, "error": {"message": "boom"}}, "no output: the sample ended .*'boom'"),
        ({"input": "attachment://zz"}, "lost attachment"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "name": "x"}]}]}, "has the part"),
    ],
)
def test_inspect_samples_that_cannot_be_used_say_why(tmp_path, changes, message):
    with pytest.raises(DumpError, match=message):
        dumps.read_dumps([log(tmp_path / "a.eval", **changes)])


def test_a_batch_is_joined_with_its_requests_in_any_order():
    traces, _ = read("openai-batch")
    assert traces[0].prompt == [{"role": "user", "content": "What is 6 times 3?"}] and traces[0].response == "It is 18"
    assert traces[0].sampler == Sampler(0.7) and traces[0].meta["max_tokens"] == 64 and traces[0].finish == "stop"
    alone, ledger = read("openai-batch/output.jsonl")
    assert alone[0].prompt is None and alone[0].problem == "r-2"
    assert "the prompts of openai-batch are in a file of their own (openai-batch-requests)" in notes(ledger)
    with pytest.raises(DumpError, match="this is openai-batch-requests, which has no responses"):
        read("openai-batch/requests.jsonl")


def test_reasoning_of_a_batch_is_joined_and_said():
    traces, ledger = read("vllm-batch")
    assert traces[0].response == "<think>\n7 plus 5 is 12\n</think>\n\nIt is 12"
    assert "3 of 3 responses were kept as reasoning and answer apart" in notes(ledger)


def test_failed_flat_and_unmatched_batch_rows(tmp_path):
    flat = {"id": "1", "custom_id": "r-0", "response": {"model": "m", "choices": [{"text": "t", "token_ids": [1, 2]}]}}
    failed = {"id": "2", "custom_id": "r-1", "response": None, "error": {"message": "quota"}}
    (trace,), ledger = dumps.read_dumps([lines(tmp_path / "o.jsonl", [flat, failed])], max_bad=0.5)
    assert trace.response == "t" and trace.response_ids == (1, 2) and ledger.by_reason == {"request failed": 1}
    lost = lines(tmp_path / "p.jsonl", [{**flat, "custom_id": "zz"}])
    with pytest.raises(DumpError, match="no partner: custom_id = 'zz' is not in the file of openai-batch-requests"):
        dumps.read_dumps([lost, str(SAMPLES / "openai-batch/requests.jsonl")])


def test_requests_belong_to_the_dump_of_their_label(tmp_path):
    def pair(name, prompt):
        request = {"custom_id": "r", "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt}}
        answer = {"custom_id": "r", "response": {"body": {"choices": [{"text": f"of {prompt}"}]}}}
        return lines(tmp_path / f"{name}-in.jsonl", [request]), lines(tmp_path / f"{name}-out.jsonl", [answer])

    (a_in, a_out), (b_in, b_out) = pair("a", "one"), pair("b", "two")
    traces, _ = dumps.read_dumps([f"a={a_in}", f"a={a_out}", f"b={b_in}", f"b={b_out}"])
    assert [(t.source, t.prompt, t.response) for t in traces] == [("a", "one", "of one"), ("b", "two", "of two")]
    with pytest.raises(DumpError, match="is also in another file .*give each file the label of its dump"):
        dumps.read_dumps([a_in, a_out, b_in])


def test_humaneval_and_evalplus_take_prompts_from_their_problems():
    traces, _ = read("humaneval")
    assert traces[0].prompt.startswith("def add") and [t.correct for t in traces] == [True, False, False, True]
    code, ledger = read("evalplus")
    assert code[0].question == traces[0].prompt and code[0].problem == traces[0].problem and code[0].prompt is None
    assert code[1].meta["base_status"] == "pass" and code[1].correct is False
    assert "base tests and, where they were run, the plus tests" in notes(ledger)


def test_samples_give_way_to_their_results_in_a_folder(tmp_path):
    row = {"task_id": "t/0", "completion": "x"}
    lines(tmp_path / "s.jsonl", [row])
    lines(tmp_path / "s.jsonl_results.jsonl", [{**row, "passed": True, "result": "passed"}])
    (trace,), ledger = dumps.read_dumps([str(tmp_path)])
    assert trace.correct and "s.jsonl was not read" in notes(ledger)


def test_codet_tells_its_sampler_by_its_name():
    traces, _ = read("codet")
    assert traces[0].sampler == Sampler(0.8, 0.95) and traces[0].meta["max_tokens"] == 300


def test_prm800k_has_answers_and_ratings_but_no_label(tmp_path):
    traces, _ = read("prm800k.jsonl")
    assert [t.correct for t in traces] == [None] * 3 and [t.answer for t in traces] == ["12", "13", None]
    assert traces[2].response == "I multiply.\nThe answer is 18." and traces[1].meta["ratings"] == [-1]
    row = json.loads((SAMPLES / "prm800k.jsonl").read_text().splitlines()[2])
    row["label"]["steps"][0] |= {"chosen_completion": None, "human_completion": {"text": "mine", "rating": None}}
    with pytest.raises(DumpError, match="step by a person"):
        dumps.read_dumps([lines(tmp_path / "p.jsonl", [row])])


def test_old_lighteval_columns(tmp_path):
    row = {"full_prompt": "p", "predictions": ["a"], "gold": ["g"], "metrics": {"em": 1}, "input_tokens": [[1]]}
    (trace,), ledger = dumps.read_dumps([parquet(tmp_path / "details.parquet", [row])])
    assert ledger.files[0]["format"] == "lighteval-flat" and trace.prompt == "p" and trace.correct


def test_lighteval_says_why_samples_have_no_label(tmp_path):
    def row(texts, **metric):
        doc = {"id": "0", "query": "q", "choices": ["7"], "task_name": "t"}
        return {"doc": doc, "metric": metric, "model_response": {"text": texts, "input": "q"}}

    def said(name, row, **given):
        traces, ledger = dumps.read_dumps([parquet(tmp_path / name, [row])], map=given or None)
        return [t.correct for t in traces], "\n".join(ledger.notes)

    labels, notes = said("a.parquet", row(["7"], **{"pass@1": 1.0, "em": 0.0}))
    assert labels == [None] and "2 metrics (pass@1, em), none taken as the label" in notes
    assert said("b.parquet", row(["7"], **{"pass@1": 1.0, "em": 0.0}), score="metric.em")[0] == [False]
    labels, notes = said("c.parquet", row(["7", "8"], em=0.5))
    assert labels == [None, None] and "up to 2 samples of a document and one metric for all of them" in notes
    labels, notes = said("d.parquet", row(["7"], em=1.0))
    assert labels == [True] and "none taken" not in notes and "--sampler LABEL=T,top_p" in notes


def test_tasks_of_a_lighteval_run_are_one_source(tmp_path):
    def row(texts, task="t"):
        doc = {"id": "0", "query": f"q of {task}", "choices": ["7"], "task_name": task}
        return {"doc": doc, "metric": {"em": 1.0}, "model_response": {"text": texts, "input": "q"}}

    folder = tmp_path / "details/org/tiny/2025-11-05T14-43-47.148527"
    for task in ("gsm8k_test|0", "math_500|0"):
        parquet(folder / f"details_{task}_2025-11-05T14-43-47.148527.parquet", [row(["7"], task)])
    choice = parquet(folder / "details_mmlu:x|5_2025-11-05T14-43-47.148527.parquet", [row([])])
    traces, ledger = dumps.read_dumps([str(tmp_path)])
    assert {t.source for t in traces} == {"tiny"} and len(traces) == 2
    assert "not read (these are LightEval details of a log-likelihood task" in notes(ledger)
    with pytest.raises(DumpError, match="log-likelihood task"):
        dumps.read_dumps([choice])


def test_files_of_lm_eval_that_were_renamed_are_sources_of_their_own(tmp_path):
    [file] = (SAMPLES / "lm-eval" / "tiny-base").glob("samples_*.jsonl")
    for name in ("samples_arithmetic_LEVEL1", "samples_arithmetic_LEVEL2"):
        (tmp_path / f"{name}.jsonl").write_bytes(file.read_bytes() + b"\n" * (name[-1] == "2"))
    traces, _ = dumps.read_dumps([str(tmp_path)])
    assert {t.source for t in traces} == {"samples_arithmetic_LEVEL1", "samples_arithmetic_LEVEL2"}


def test_understand_r1_zero_keeps_ids_and_writes_its_sampler_into_the_name(tmp_path):
    row = {"task_name": "t", "prompt": "p", "gt": ["7", "7"], "model_output": ["7", "8"], "reward": [1.0, 0.0]}
    row["model_output_token_ids"] = [[5, 2], [6, 2]]
    path = tmp_path / "model_eval_out_Qwen_Qwen2.5-7B1742000000_template_r1_temp0.6_topp0.95_n2.json"
    path.write_text(json.dumps([row]))
    traces, _ = dumps.read_dumps([str(path)])
    assert {t.source for t in traces} == {"Qwen_Qwen2.5-7B"} and traces[1].sampler == Sampler(0.6, 0.95)
    assert [t.response_ids for t in traces] == [(5, 2), (6, 2)] and traces[0].meta["gold"] == "7"


def test_the_output_of_code_that_was_run_is_not_the_models(tmp_path):
    said = "```python\nprint(7)\n```\n```output\n7\n```\nIt is 7."
    row = {"idx": 0, "question": "q", "gt": "7", "code": [said, "7"], "pred": ["7", "7"], "report": [None, None]}
    traces, ledger = dumps.read_dumps([lines(tmp_path / "a.jsonl", [row])])
    assert traces[0].response == said and "1 of the first 2 responses hold the output of code that was run" in notes(
        ledger
    )


def test_categories_of_reasoning_gym_are_folders_of_one_run(tmp_path):
    source = next((SAMPLES / "reasoning-gym-task").rglob("*.json"))
    document = {k: v for k, v in json.loads(source.read_text()).items() if k != "model"}
    for category in ("algebra", "logic"):
        path = tmp_path / "org_tiny_20250412_124352" / category / f"{category}_task.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**document, "name": category}))
    (tmp_path / "org_tiny_20250412_124352" / "summary.json").write_text('{"total": 2}')
    traces, ledger = dumps.read_dumps([str(tmp_path)])
    assert {t.source for t in traces} == {"org_tiny_20250412_124352"} and "summary.json: not read" in notes(ledger)


def test_greedy_samples_come_with_what_follows():
    _, ledger = read("lm-eval")
    (note,) = [n for n in ledger.notes if "decoded greedily" in n]
    assert note.startswith("tiny-filters: ") and "do_sample=true,temperature=1" in note


def test_a_format_can_be_forced_and_must_exist(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"input": "q", "output": "r", "reward": 1}])
    assert read_format(path) == "openrlhf" and read_format(path, format="verl") == "verl"
    with pytest.raises(UsageError, match=r"--map format=verll: no such format; did you mean 'verl'\?"):
        read_format(path, format="verll")


def read_format(path, **given):
    return dumps.read_dumps([path], map=given or None)[1].files[0]["format"]


def test_a_rejected_problem_is_kept_also_where_not_every_writer_takes_it(tmp_path):
    for name in ("problems.jsonl", "tiny_vllm_temp_0.8_eval_results.json"):
        (tmp_path / name).write_bytes((SAMPLES / "evalplus" / name).read_bytes())
    rows = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    lines(tmp_path / "problems.jsonl", [*rows, {"task_id": None, "prompt": "\ud800", "entry_point": 2**80}])
    _, ledger = dumps.read_dumps([str(tmp_path)], max_bad=0.9)
    [bad] = ledger.rejected
    assert bad["reason"] == "no key" and json.loads(bad["row"])["entry_point"] == 2**80


def test_a_filter_with_half_a_character_for_a_name_can_be_written_down(tmp_path):
    [file] = (SAMPLES / "lm-eval" / "tiny-base").glob("samples_*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    path = lines(tmp_path / file.name, [*rows, rows[0] | {"filter": "\ud800"}])
    _, ledger = dumps.read_dumps([path], max_bad=0.9)
    assert "2 filters (none, \\ud800)" in notes(ledger) and orjson.dumps(ledger.as_json())


def test_further_filters_of_rejected_rows_alone_are_refused(tmp_path):
    [file] = (SAMPLES / "lm-eval" / "tiny-filters").glob("samples_*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = rows[0]["filter"]
    path = lines(tmp_path / file.name, [r | {"resps": 3} if r["filter"] == first else r for r in rows])
    with pytest.raises(DumpError, match="no trace is left|can't be used"):
        dumps.read_dumps([path], max_bad=1.0)


def test_what_a_file_s_name_tells_is_shown():
    _, ledger = read("limit-of-rlvr")
    assert ledger.files[0]["mapping"]["temperature"] == "0.6 (of the file's name)"
    assert ledger.files[0]["mapping"]["seed"] == "1 (of the file's name)"
