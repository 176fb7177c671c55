"""What rows say is read as they mean it, or said: labels of several responses, tables of columns, lists and messages
written as text, reasoning, long integers, answers in several parts."""

import csv
import json
import re

import pytest

from analyzer.dumps import check as checks
from analyzer.dumps import read as dumps
from analyzer.dumps.survey import Survey

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture
def write(tmp_path):
    def _write(name, *rows):
        path = tmp_path / name
        if name.endswith(".jsonl"):
            path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        else:
            path.write_text(json.dumps(rows[0]))
        return str(path)

    return _write


def said(*paths):
    survey, ledger = Survey(), dumps.Ledger()
    for _ in dumps.batches(list(paths), ledger, survey):
        pass
    return "\n".join(checks.describe(survey, ledger)["warnings"])


# --- one label beside several responses ---

SEVERAL = {"question": "q", "responses": ["a", "b", "c"], "correct": True, "pred": "5"}
HARNESS = {  # lm-evaluation-harness with repeats
    "doc_id": 0, "doc": {"question": "q"}, "target": "5", "resps": [["5", "6"]], "filtered_resps": ["5"],
    "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {"do_sample": True, "temperature": 1.0}}},
    "filter": "none", "metrics": ["exact_match"], "exact_match": 1.0,
}  # fmt: skip


def test_one_label_beside_several_responses_labels_none_of_them(write):
    path = write("a.jsonl", SEVERAL, {**SEVERAL, "responses": ["d"]})
    traces, _ = dumps.read_dumps([path])
    assert [t.correct for t in traces] == [None, None, None, True]  # alone it is the one response's
    assert [t.answer for t in traces] == [None, None, None, "5"]
    notes = said(path)
    assert "1 row has one value of correct for several responses, which labels none" in notes
    assert "--map correct=@row.correct" in notes


def test_the_user_may_say_that_it_labels_each(write):
    path = write("a.jsonl", SEVERAL)
    traces, ledger = dumps.read_dumps([path], map={"correct": "@row.correct"})
    assert [t.correct for t in traces] == [True] * 3 and [t.answer for t in traces] == [None] * 3
    assert ledger.files[0]["unused"] == {}
    with pytest.raises(dumps.UsageError, match="has '@row.corect'"):
        dumps.read_dumps([path], map={"correct": "@row.corect"})


def test_the_metric_of_a_document_labels_no_repeats(write):
    path = write("samples_t_2025-01-01T00-00-00.000000.jsonl", HARNESS)
    assert [t.correct for t in dumps.read_dumps([path])[0]] == [None, None]
    assert "1 document has one exact_match for its 2 responses" in said(path)
    for mapped, expected in (("exact_match", [None, None]), ("@row.exact_match", [True, True])):
        traces, _ = dumps.read_dumps([path], map={"correct": mapped})
        assert [t.correct for t in traces] == expected


def test_one_label_beside_several_models_labels_none(write):
    row = {"question": "q", "one": {"output": "a"}, "two": {"output": "b"}, "correct": True}
    assert [t.correct for t in dumps.read_dumps([write("a.jsonl", row)])[0]] == [None, None]


# --- tables of columns ---

COLUMNS = {"question": ["q0", "q0", "q1"], "response": ["a", "b", "c"], "correct": [True, False, True], "model": "m"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_table_of_columns_is_read_by_rows(write, name):
    traces, ledger = dumps.read_dumps([write(name, COLUMNS)])
    assert [(t.question, t.response, t.correct, t.source) for t in traces] == [
        ("q0", "a", True, "m"), ("q0", "b", False, "m"), ("q1", "c", True, "m"),
    ]  # fmt: skip
    assert len({t.problem for t in traces}) == 2 and ledger.rows == 3
    assert any("columns" in n for n in ledger.notes)


def test_a_label_that_a_table_has_once_labels_none_of_its_rows(write):
    table = {"prompt": "q", "responses": ["a", "b"], "uid": [7, 8], "correct": True}
    traces, ledger = dumps.read_dumps([write("a.jsonl", table)])
    assert [t.correct for t in traces] == [None, None] and len({t.problem for t in traces}) == 1
    assert set(ledger.files[0]["unused"]) == {"correct of all"}


def test_a_table_by_ids_alone_and_of_known_columns(write):
    traces, _ = dumps.read_dumps([write("a.json", {"response": ["a", "b"], "id": [7, 8]})])
    assert [(t.response, t.problem) for t in traces] == [("a", "7"), ("b", "8")]
    table = {"source": ["s", "s"], "problem": ["p", "p"], "sample": [0, 1], "response": ["a", "b"]}
    traces, ledger = dumps.read_dumps([write("b.json", table)])
    assert ledger.files[0]["format"] == "canonical" and [t.sample for t in traces] == [0, 1]


def test_the_columns_of_pandas_are_read_by_rows(write):
    table = {k: dict(zip("012", v, strict=True)) for k, v in COLUMNS.items() if isinstance(v, list)}
    traces, _ = dumps.read_dumps([write("a.json", table)])
    assert [(t.question, t.response, t.correct) for t in traces] == [
        ("q0", "a", True), ("q0", "b", False), ("q1", "c", True),
    ]  # fmt: skip


def test_a_fault_in_a_table_rejects_its_row_alone(write):
    table = {"question": ["q"] * 4, "response": ["a", 5, "c", "d"]}
    traces, ledger = dumps.read_dumps([write("a.json", table)], max_bad=0.5)
    assert [t.response for t in traces] == ["a", "c", "d"] and ledger.rows_rejected == 1


def test_samples_of_one_problem_are_no_table(write):
    rows = [{"prompt": CHAT, "responses": ["a", "b"]}, {"prompt": CHAT, "responses": ["c", "d"]}]
    traces, ledger = dumps.read_dumps([write("a.jsonl", *rows)])
    assert ledger.files[0]["format"] == "generic-list" and len({t.problem for t in traces}) == 1
    assert traces[0].prompt == CHAT


# --- lists and messages as text ---


def test_ids_and_log_probs_written_as_text_are_read(write):
    row = {"question": "q", "response": "a b", "response_ids": "[5, 6]", "response_logprobs": "[-0.5, null]"}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response_ids == (5, 6) and trace.response_logprobs[0] == -0.5
    row |= {"source": "s", "problem": "p", "sample": 0}
    (trace,), ledger = dumps.read_dumps([write("b.jsonl", row)])
    assert ledger.files[0]["format"] == "canonical" and trace.response_ids == (5, 6)


def test_lists_of_responses_and_labels_written_as_text_are_read(write):
    row = {"question": "q", "responses": '["a", "b"]', "correct": "[true, false]", "answer": "[1, 2]"}
    traces, ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert [(t.response, t.correct) for t in traces] == [("a", True), ("b", False)]
    assert traces[0].meta["gold"] == "[1, 2]"  # an answer may be a list
    assert any("text of JSON" in n for n in ledger.notes)


def test_a_response_that_is_a_list_in_text_stays_as_it_is(write):
    row = {"question": "[1, 2]", "prompt": "[3, 4]", "response": "[1, 2]"}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert (trace.question, trace.prompt, trace.response) == ("[1, 2]", "[3, 4]", "[1, 2]")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("row", [{}, {"source": "s", "problem": "p", "sample": 0}])
def test_json_text_of_messages_is_read_as_messages(write, row, indent):
    row = row | {"prompt": json.dumps(CHAT, indent=indent), "response": "5"}
    path, other = write("a.jsonl", row), write("b.jsonl", row | {"prompt": CHAT})
    (trace,), ledger = dumps.read_dumps([path])
    assert trace.prompt == CHAT and any("text of JSON" in n for n in ledger.notes)
    assert trace.problem == dumps.read_dumps([other])[0][0].problem


def test_pythons_text_of_messages_is_said(write):
    row = {"prompt": str(CHAT), "response": "5", "correct": True}
    path = write("a.jsonl", row)
    (trace,), _ = dumps.read_dumps([path])
    assert trace.prompt == str(CHAT)
    assert "prompt holds Python's text of messages" in said(path)
    row = {"step": 1, "prompt": str(CHAT), "completion": str(CHAT), "accuracy_reward": 1.0, "advantage": 0.7}
    notes = said(write("b.jsonl", row))
    assert "prompt and completion hold Python's text of messages" in notes


# --- reasoning ---


@pytest.mark.parametrize("value", ["on", "High", True, False])
def test_reasoning_as_a_switch_is_not_joined(write, value):
    row = {"question": "q", "response": "<think>\nso\n</think>\n5", "reasoning": value}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == row["response"]
    assert set(ledger.files[0]["unused"]) == {"reasoning"}
    assert any("reasoning was not read as reasoning" in n for n in ledger.notes)


@pytest.mark.parametrize("name", ["thoughts", "reasoning_text", "reasoning_trace", "chain_of_thought", "thinking_text"])
def test_reasoning_by_other_names_is_joined(write, name):
    row = {"question": "q", "response": "5", name: "2 and 3 make 5"}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == "<think>\n2 and 3 make 5\n</think>\n\n5"


@pytest.mark.parametrize(
    ("reasoning", "answer", "expected"),
    [
        ("<think>\nso\n</think>", "5", "<think>\nso\n</think>\n\n5"),
        ("<think>\nso", "5", "<think>\nso\n</think>\n\n5"),
        ("so</think>", "5", "<think>\nso\n</think>\n\n5"),
        ("\nso\n", "\n\n5", "<think>\nso\n</think>\n\n5"),
        ("so", "\n5", "<think>\nso\n</think>\n5"),
        ("so", "</think>\n5", "<think>\nso\n</think>\n5"),
        ("<reason>so</reason>", "5", "<reason>so</reason>\n\n5"),
        ("<think></think>", "5", "5"),
        ("so", "<think>\nso\n</think>5", "<think>\nso\n</think>5"),
        ("<think>so</think>", "<think>\nso\n</think>5", "<think>\nso\n</think>5"),
    ],
)
def test_tags_are_not_doubled(write, reasoning, answer, expected):
    row = {"question": "q", "response": answer, "reasoning_content": reasoning}
    assert dumps.read_dumps([write("a.jsonl", row)])[0][0].response == expected


# --- integers beyond 64 bits ---

HUGE = 2**100


def test_integers_beyond_64_bits_are_kept_to_the_last_digit(write):
    rows = [{"id": HUGE + i, "response": "a", "gold": -HUGE - i, "pred": HUGE + i} for i in range(2)]
    rows += [{"id": 2**64 + i, "response": "a", "gold": [HUGE]} for i in range(2)]
    for name in ("a.jsonl", "b.json"):
        path = write(name, *(rows if name == "a.jsonl" else [rows]))
        traces, _ = dumps.read_dumps([path])
        assert [t.problem for t in traces] == [str(r["id"]) for r in rows]
        assert [t.answer for t in traces[:2]] == [str(HUGE), str(HUGE + 1)]
        assert [t.meta["gold"] for t in traces] == [str(-HUGE), str(-HUGE - 1), [str(HUGE)], [str(HUGE)]]


def test_long_digits_in_texts_and_floats_change_nothing(write):
    row = {"question": "q", "response": f"It is {HUGE}.", "meta_x": 0.12345678901234567890123, "seed": 2**64 - 1}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == f"It is {HUGE}." and trace.meta["seed"] == 2**64 - 1
    text = json.dumps(row)[:-1] + ', "response": "b"}'
    with pytest.raises(dumps.DumpError, match="stands twice"):
        dumps.read_dumps([write("b.jsonl", text)])


# --- what is the response ---


@pytest.mark.parametrize(
    "name", ["llm_response", "attempt", "completion_text", "response_text", "model_completion", "decoded_text"]
)
def test_a_solution_beside_the_models_own_attempt_is_the_reference(write, name):
    row = {"question": "q", "solution": "A human wrote that it is 5.", name: "I say it is 5."}
    (trace,), ledger = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == "I say it is 5." and set(ledger.files[0]["unused"]) == {"solution"}


def test_a_solution_beside_what_may_be_an_attempt_is_asked_about(write):
    row = {"question": "q", "solution": "A human wrote that it is 5.", "bot_reply": "I say it is 5."}
    path = write("a.jsonl", row)
    with pytest.raises(dumps.DumpError, match="--map response=bot_reply.*--map response=solution"):
        dumps.read_dumps([path])
    assert dumps.read_dumps([path], map={"response": "solution"})[0][0].response == row["solution"]
    plain = {"question": "q", "solution": "It is 5.", "model_prompt": "You are a model.", "model_url": "a b"}
    assert dumps.read_dumps([write("b.jsonl", plain)])[0][0].response == "It is 5."


def test_a_solution_alone_is_read_and_said(write):
    path = write("a.jsonl", {"question": "q", "solution": "It is 5.", "correct": True})
    assert dumps.read_dumps([path])[0][0].response == "It is 5."
    assert "solution was taken for what the model wrote" in said(path)


def test_text_beside_ids_is_read(write):
    row = {"question": "q", "completion_ids": [5, 6], "completion_text": "a b"}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == "a b" and trace.response_ids == (5, 6)


def test_reasoning_in_a_list_of_one_is_joined(write):
    row = {"question": "q", "attempt": "It is 5.", "thinking_trajectories": ["2 and 3"], "solution": "Add."}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert trace.response == "<think>\n2 and 3\n</think>\n\nIt is 5."


# --- answers, log-probs, blanks ---


def test_an_answer_in_several_parts_is_one_answer(write):
    rows = [{"question": "q", "response": "a", "pred": p, "gold": ["5", "6"]} for p in (["5", "6"], [5, 6.5], [], "5")]
    path = write("a.jsonl", *rows)
    assert [t.answer for t in dumps.read_dumps([path])[0]] == ["5, 6", "5, 6.5", None, "5"]
    assert "no answer could be extracted from 1 of 4" in said(path)


@pytest.mark.parametrize("lost", ["null", "NaN", "-Infinity"])
def test_a_log_prob_that_is_not_known_costs_no_row(write, lost):
    row = '{"question": "q", "response": "a b", "response_ids": [5, 6], "correct": true, "response_logprobs": [%s, -1]}'
    path = write("a.jsonl", row % lost)
    (trace,), _ = dumps.read_dumps([path])
    assert trace.correct is True and trace.response_logprobs[0] != trace.response_logprobs[0]
    assert "1 log-probabilities in 1 of 1 rows are not known" in said(path)


def test_responses_of_white_space_are_said(write):
    rows = [{"question": "q", "response": r, "correct": False} for r in ("a", "", "\n", "  \n ", "\t")]
    notes = said(write("a.jsonl", *rows))
    assert "4 of 5 responses are empty (3 hold white space only; " in notes


# --- the same question under other ids ---


def test_a_question_under_other_ids_in_another_file_is_said(write):
    rows = [{"sample": 0, "response": "a", "correct": True, "question": f"What  is {i} + 3?"} for i in range(3)]
    one = write("one.jsonl", *({**r, "source": "one", "problem": f"p{i}"} for i, r in enumerate(rows)))
    ids = ("p0", "x1", "x2")
    two = write("two.jsonl", *({**r, "source": "two", "problem": i} for i, r in zip(ids, rows, strict=True)))
    notes = said(one, two)
    assert re.search(r"2 questions stand under several .* ids .*'p1' in .*one.jsonl:2, 'x1' in .*two.jsonl:2", notes)
    assert "several problem ids" not in said(one)


# --- CSV and TSV ---

TABLE = (
    "question,response,correct,score,temperature,sample,pred,response_ids,note\n"
    '"What is\n2 + 3?","It is ""5"", so 5",True,1.0,0.6,0,5,"[5, 6]",\n'
    'q,6,0.0,0,0.6,1,,"[7]",x\n'
)


@pytest.mark.parametrize(("name", "text"), [("a.csv", TABLE), ("a.csv", "\ufeff" + TABLE.replace("\n", "\r\n"))])
def test_a_csv_table_is_read(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    (one, two), ledger = dumps.read_dumps([str(tmp_path / name)])
    assert one.question.split() == ["What", "is", "2", "+", "3?"] and one.response == 'It is "5", so 5'
    assert (two.question, two.response, two.answer) == ("q", "6", None)
    assert [(t.correct, t.score, t.sampler.temperature, t.response_ids) for t in (one, two)] == [
        (True, 1.0, 0.6, (5, 6)), (False, 0.0, 0.6, (7,)),
    ]  # fmt: skip
    assert one.origin.endswith("a.csv:2") and two.origin.endswith("a.csv:4") and one.source == "a"
    assert ledger.files[0]["unused"] == {"note": {"rows": 1, "example": "'x'"}}


def test_tsv_packed_tables_and_known_columns(tmp_path):
    import gzip

    text = 'source\tproblem\tsample\tresponse\tscore\ns\tp\t0\ta "b"\t0.5\n'
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text.encode()))
    (trace,), ledger = dumps.read_dumps([str(tmp_path / "a.tsv.gz")])
    assert ledger.files[0]["format"] == "canonical" and trace.response == 'a "b"' and trace.score == 0.5


def test_numbers_of_a_mapped_column_are_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("q,text,mark\nx,12,0.25\n")
    path = str(tmp_path / "a.csv")
    (trace,), _ = dumps.read_dumps([path], map={"question": "q", "response": "text", "score": "mark"})
    assert (trace.response, trace.score) == ("12", 0.25)


@pytest.mark.parametrize(
    ("cell", "score"),
    [("1e-1", 0.1), ("+1", 1.0), ("1.", 1.0), ("1_0", None), ("nan", None), (" 1", None), ("inf", None)],
)
def test_only_plain_numbers_are_numbers(tmp_path, cell, score):
    (tmp_path / "a.csv").write_text(f"question,response,score\nx,a,{cell}\n")
    (trace,), ledger = dumps.read_dumps([str(tmp_path / "a.csv")])
    assert trace.score == score and (score is not None or "score" in ledger.files[0]["unused"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('question,response\nq,"a\nb\n', r"a.csv:2: broken table \(.*write it with a CSV library"),
        ("question,response,question\nq,a,b\n", "a.csv:1: two columns are called 'question'"),
        ("question,response\nq\nq,a\n", "a.csv:2: ragged row: 1 cells under 2 columns"),
        ("question,response\n", "no rows in it"),
        ("question,response\nq,\n", "null in every row"),
        ("question,response\nq,caf\xe9\n", "a.csv:2: not UTF-8 text"),
        ("a,b\n1,2\n", "no field looks like a sampled response"),
    ],
)
def test_broken_tables(tmp_path, text, message):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(dumps.DumpError, match=message):
        dumps.read_dumps([str(tmp_path / "a.csv")])


def test_the_limit_of_cells_is_that_of_the_process_again(tmp_path):
    import csv

    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"question,response\nq,{'x' * 300_000}\n")
    (trace,), _ = dumps.read_dumps([str(tmp_path / "a.csv")])
    assert len(trace.response) == 300_000 and csv.field_size_limit() == before


def test_tables_in_a_folder_are_not_taken_for_dumps(write, tmp_path):
    write("a.jsonl", {"question": "q", "response": "a"})
    (tmp_path / "summary.csv").write_text("model,accuracy\nm,0.5\n")
    assert len(dumps.read_dumps([str(tmp_path)])[0]) == 1


# --- labels without texts ---


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": f"p{i}", "answer": i, "samples_correct": [1] * i + [0] * (4 - i), "n_samples": 4} for i in range(4)],
        [{"id": f"p{i}", "answer": i, "passed": [True] * i + [False] * (4 - i), "n_correct": i} for i in range(4)],
        [{"id": f"p{i}", "answer": i, "n": 4, "c": i, "model": "org/m"} for i in range(4)],
    ],
)
def test_labels_alone_give_pass_at_k(write, rows):
    path = write("a.jsonl", *rows)
    traces, ledger = dumps.read_dumps([path])
    assert len(traces) == 16 and sum(t.correct for t in traces) == 6
    assert {t.problem for t in traces} == {"p0", "p1", "p2", "p3"} and traces[0].meta["gold"] == 0
    survey, ledger = Survey(), dumps.Ledger()
    for _ in dumps.batches([path], ledger, survey):
        pass
    told = checks.describe(survey, ledger)
    (source,) = told["sources"].values()
    assert source["pass@1"] == 6 / 16 and source["any_correct"] == 0.75
    assert (source["repeats"], source["empty"]) == (0, 0)
    notes = "\n".join(told["warnings"])
    assert "labels without responses" in notes and "empty" not in notes and "hidden" not in notes


def test_a_list_of_labels_by_another_name_is_mapped(write):
    path = write("a.jsonl", {"id": 1, "bits": [1, 0, 1]})
    with pytest.raises(dumps.DumpError, match=r"--map correct=bits\[\]"):
        dumps.read_dumps([path])
    traces, _ = dumps.read_dumps([path], map={"correct": "bits[]"})
    assert [t.correct for t in traces] == [True, False, True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"n": 4, "c": 5}, "bad counts"),
        ({"n": 10**12, "c": 5}, "bad counts"),
        ({"n": 4, "c": None}, "bad counts"),
        ({"n": 4, "c": 2, "num_correct": 3}, "two counts"),
    ],
)
def test_counts_that_can_not_be_are_faults(write, row, reason):
    good = [{"id": str(i), "n": 4, "c": 2} for i in range(60)]
    traces, ledger = dumps.read_dumps([write("a.jsonl", *good, {"id": "x", **row})], max_bad=0.5)
    assert len(traces) == 240 and ledger.by_reason == {reason: 1}


@pytest.mark.parametrize(
    ("rows", "hint", "given"),
    [
        ([{"problem": "1+1", "sample": s, "correct": s < 1} for s in range(2)], "--map correct=correct", {}),
        ([{"question": "1+1", "got": str(s), "is_correct": 1 - s} for s in range(2)], "--map correct=is_correct", {}),
        ([{"name": f"room {i}", "memory": [], "is_success": i < 1} for i in range(2)],
         "--map correct=is_success --map problem=FIELD", {"problem": "name"}),
    ],
)  # fmt: skip
def test_a_row_each_may_hold_its_label_alone(write, rows, hint, given):
    path = write("a.jsonl", *rows)
    with pytest.raises(dumps.DumpError, match=f"for pass@k alone, where .*: {hint}$"):
        dumps.read_dumps([path])
    label = hint.split("=")[1].split()[0]
    traces, ledger = dumps.read_dumps([path], map={"correct": label, **given})
    assert [t.correct for t in traces] == [True, False] and all(t.meta["labels_only"] for t in traces)
    assert ledger.rows_used == 2


def test_a_table_may_hold_labels_alone(tmp_path):
    (tmp_path / "a.csv").write_text("problem,sample,passed\np,0,True\np,1,false\nq,0,\n")
    traces, ledger = dumps.read_dumps([str(tmp_path / "a.csv")], map={"correct": "passed"}, max_bad=0.5)
    assert [(t.sample, t.correct) for t in traces] == [(0, True), (1, False)] and ledger.rows_rejected == 1


def test_rows_by_their_keys_may_hold_labels_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({f"repo-{i}": {"cost": 0.1, "resolved": i < 1} for i in range(4)}))
    with pytest.raises(dumps.DumpError, match="--map correct=resolved$"):
        dumps.read_dumps([str(path)])
    traces, _ = dumps.read_dumps([str(path)], map={"correct": "resolved"})
    assert [t.problem for t in traces] == [f"repo-{i}" for i in range(4)] and sum(t.correct for t in traces) == 1


def test_a_count_is_no_label(write):
    with pytest.raises(dumps.DumpError, match="--map response=FIELD$"):
        dumps.read_dumps([write("a.jsonl", {"id": 0, "n_correct": 1}, {"id": 1, "n_correct": 0})])


def test_predictions_name_their_model_and_instance(write):
    row = {"instance_id": "a-1", "model_name_or_path": "org/m", "response": "diff"}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", row)])
    assert (trace.source, trace.problem) == ("m", "a-1")


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_a_table_may_be_split_by_what_its_header_is(tmp_path, mark):
    rows = [["question", "response", "correct"], ["2+2", f'it; is{mark}, "4"\nor\t5', "1"]]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=mark).writerows(rows)
    (trace,), _ = dumps.read_dumps([str(tmp_path / "a.csv")])
    assert (trace.question, trace.response, trace.correct) == ("2+2", rows[1][1], True)
