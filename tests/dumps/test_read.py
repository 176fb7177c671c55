import gzip
import io
import json
import re
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.dumps import parse, streams
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError, UsageError
from analyzer.records import Sampler, problem_id


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def write(tmp_path):
    def _write(name, rows, lines=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif isinstance(rows, str):
            path.write_text(rows)
        else:
            path.write_text("".join(json.dumps(r) + "\n" for r in rows) if lines else json.dumps(rows))
        return str(path)

    return _write


def rows(n=3, **extra):
    return [{"question": f"q{i}", "response": f"r{i}", "correct": i % 2 == 0, **extra} for i in range(n)]


# --- whole-file faults ---


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jsonl", b"", r"empty.jsonl: the file is empty \(0 bytes\)"),
        ("blank.jsonl", b" \n\n", "holds only white space"),
        (
            "lfs.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "lfs.jsonl:1: this is a Git-LFS pointer .*git lfs pull",
        ),
        ("x.parquet", b"PAR1xxxxPAR1", "the Parquet data is damaged or cut short .*copy the file again"),
        ("x.zip", zipped({"a.jsonl": b"{}"}), "zip archive that is no Inspect log .*it has a.jsonl.*unpack it"),
        ("x.eval", b"PK\x03\x04xxxx", "the zip archive is damaged or cut short .*copy the file again"),
        ("u16.jsonl", '{"response": "x"}\n'.encode("utf-16"), "UTF-16 text, not UTF-8 .*iconv -f UTF-16"),
        ("u16le.jsonl", '{"response": "x"}\n'.encode("utf-16-le"), "UTF-16 text"),
        ("bin.jsonl", b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "binary data"),
        (
            "latin.jsonl",
            b'{"response": "x"}\n{"response": "caf\xe9"}\n',
            r"latin.jsonl:2: not UTF-8 text \(byte "
            r"0xe9 at offset 35\).*iconv -f LATIN1",
        ),
        ("page.jsonl", b"<!DOCTYPE html><html>", "this is an HTML page"),
        (
            "x.txt",
            b"a,b\n1,2\n",
            r"x.txt:1: this is no JSON \(it starts with 'a,b.* or a table whose name ends in .csv",
        ),
        ("cut.json", b'[{"question": "q",\n "response": "r"},\n {"quest', r"cut.json:3: broken JSON .*cut short"),
        ("none.json", b"[]", "the JSON list is empty"),
        ("numbers.json", b"[1, 2]", r"numbers.json#1: the row is 1, not a JSON object; none of 2 rows"),
        ("cut.jsonl.gz", gzip.compress(b'{"response": "x"}' * 99, mtime=0)[:-12], "damaged or cut short"),
    ],
)
def test_whole_file_faults(write, name, data, message):
    with pytest.raises(DumpError, match=message):
        dumps.read_dumps([write(name, data)])


def test_a_byte_order_mark_is_fine(write):
    traces, _ = dumps.read_dumps([write("a.jsonl", "\ufeff".encode() + json.dumps(rows(1)[0]).encode())])
    assert traces[0].response == "r0"


def test_a_missing_file_names_its_neighbour(write):
    path = write("base.jsonl", rows())
    with pytest.raises(DumpError, match=r"no such file; did you mean '.*base.jsonl'"):
        dumps.read_dumps([path.replace("base.jsonl", "bsae.jsonl")])
    with pytest.raises(DumpError, match="no file matches this pattern"):
        dumps.read_dumps([path.replace("base.jsonl", "z*.jsonl")])
    with pytest.raises(UsageError, match="no dump given"):
        dumps.read_dumps([])


# --- row faults ---


def test_bad_rows_are_counted_up_to_max_bad(write):
    good = rows(8)
    path = write(
        "a.jsonl",
        "".join(json.dumps(r) + "\n" for r in good) + '{"question": "q", "resp\n{"question": "q9", "response": 5}\n',
    )
    with pytest.raises(DumpError) as caught:
        dumps.read_dumps([path])
    message = str(caught.value)
    assert message.startswith(f"{path}:9: broken JSON: ") and '\'{"question": "q", "resp\'' in message
    assert "2 of 10 rows can't be used (1 x broken JSON, 1 x response is not text); allowed are 1.0%" in message
    assert "--max-bad 0.2 leaves them out" in message
    traces, ledger = dumps.read_dumps([path], max_bad=0.2)
    assert (ledger.rows, ledger.rows_used, ledger.rows_rejected, ledger.traces) == (10, 8, 2, 8) and len(traces) == 8
    assert ledger.by_reason == {"broken JSON": 1, "response is not text": 1}
    assert [(r["line"], r["reason"]) for r in ledger.rejected] == [(9, "broken JSON"), (10, "response is not text")]
    assert ledger.rejected[1]["row"] == {"question": "q9", "response": 5}


def test_strict_accepts_no_bad_row(write):
    path = write("a.jsonl", [*rows(199), {"question": "q", "response": None}])
    assert dumps.read_dumps([path])[1].rows_rejected == 1
    with pytest.raises(DumpError, match="1 of 200 rows"):
        dumps.read_dumps([path], max_bad=0)


def test_nan_scores_are_judged_as_rows(write):
    path = write(
        "a.jsonl", '{"question": "a", "response": "r", "score": NaN}\n{"question": "b", "response": "r", "score": 1}\n'
    )
    _, ledger = dumps.read_dumps([path], max_bad=0.5)
    assert ledger.by_reason == {"bad score": 1}


def test_ragged_lists_are_refused_never_padded(write):
    good = {"question": "a", "responses": ["x", "y"], "score": [1, 0]}
    path = write("a.jsonl", [good, {"question": "b", "responses": ["x", "y"], "score": [1]}])
    traces, ledger = dumps.read_dumps([path], max_bad=0.5)
    assert len(traces) == 2 and ledger.by_reason == {"ragged lists": 1}
    assert ledger.rejected[0]["detail"] == "2 responses but 1 values of score; every list needs one entry per sample"


def test_no_usable_row_shows_the_keys(write):
    path = write("a.jsonl", [{"question": "a", "response": "x"}] + [{"prompt": 3, "response": None}] * 3)
    with pytest.raises(DumpError, match="3 of 4 rows"):
        dumps.read_dumps([path], max_bad=0.1)
    with pytest.raises(DumpError, match=r"none of 2 rows can be used \(2 x no problem\); its rows have: response, z"):
        dumps.read_dumps([write("b.jsonl", [{"response": "x", "z": 1}] * 2)])


# --- fields ---


def test_unknown_fields_show_the_map_that_would_work(write):
    path = write("a.jsonl", [{"q": "what", "out": {"txt": "a long response"}, "n": 1}])
    with pytest.raises(
        DumpError,
        match=r"no field looks like a sampled response \(its first row has: q \(text of 4\), out \(object\), "
        r"n \(int\)\); name the fields: --map response=out.txt --map question=q$",
    ):
        dumps.read_dumps([path])
    traces, ledger = dumps.read_dumps([path], map={"response": "out.txt", "question": "q"})
    assert traces[0].response == "a long response" and traces[0].problem == problem_id("what")
    assert ledger.files[0]["mapping"] == {"response": "out.txt", "question": "q"}


def test_two_candidates_are_never_guessed_between(write):
    path = write("a.jsonl", [{"question": "q", "response": "a", "output": "b"}])
    with pytest.raises(DumpError, match=r"response and output could both be the response .*--map response=response"):
        dumps.read_dumps([path])
    assert dumps.read_dumps([path], map={"response": "output"})[0][0].response == "b"
    path = write("b.jsonl", [{"problem": "q", "generation": "a", "symbolic_correct": True, "judge_correct": False}])
    with pytest.raises(
        DumpError, match=r"several fields say whether a response is correct .*--map correct=symbolic_correct"
    ):
        dumps.read_dumps([path])


def test_map_refuses_unknown_names_and_paths(write):
    path = write("a.jsonl", rows())
    with pytest.raises(UsageError, match=r"'respnse' is no canonical field; did you mean 'response'\?"):
        dumps.read_dumps([path], map={"respnse": "x"})
    with pytest.raises(UsageError, match=r"has 'questoin'; did you mean 'question'\?"):
        dumps.read_dumps([path], map={"prompt": "questoin"})


def test_map_reaches_lists_and_documents(write):
    doc = {"run": {"items": [{"q": "a", "outs": [{"t": "x", "ok": 1}, {"t": "y", "ok": 0}]}]}}
    path = write("a.json", doc, lines=False)
    given = {"rows": "run.items[]", "question": "q", "response": "outs[].t", "correct": "outs[].ok"}
    traces, _ = dumps.read_dumps([path], map=given)
    assert [(t.response, t.correct, t.sample) for t in traces] == [("x", True, 0), ("y", False, 1)]
    with pytest.raises(UsageError, match="has no list there"):
        dumps.read_dumps([path], map={**given, "rows": "items[]"})


def test_generic_shapes_by_field_names(write):
    wide = write(
        "w.jsonl", [{"question": "q", "m1": {"output": "a", "correct": True}, "m2": {"output": "b", "correct": False}}]
    )
    traces, ledger = dumps.read_dumps([wide])
    assert [(t.source, t.response, t.correct) for t in traces] == [("m1", "a", True), ("m2", "b", False)]
    assert ledger.files[0]["format"] == "generic-wide"
    by_id = write(
        "d.json", {"p1": {"question": "a", "response": "x"}, "p2": {"question": "b", "response": "y"}}, lines=False
    )
    assert len(dumps.read_dumps([by_id])[0]) == 2
    chat = write(
        "c.jsonl",
        [{"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yo"}]}],
    )
    trace = dumps.read_dumps([chat])[0][0]
    assert trace.response == "yo" and trace.problem == problem_id("hi") and isinstance(trace.prompt, list)


def test_scores_have_an_explicit_threshold(write):
    path = write("a.jsonl", [{"question": "a", "response": str(s), "score": s} for s in (1.0, 0.999, 0.65, 0.0)])
    traces, ledger = dumps.read_dumps([path])
    assert [t.correct for t in traces] == [True, False, False, False]
    assert any(
        "score >= 1 " in n and "2 of 4 scores are neither 0 nor 1 (such as 0.999, 0.65" in n for n in ledger.notes
    )
    assert [t.correct for t in dumps.read_dumps([path], threshold=0.65)[0]] == [True, True, True, False]


def test_no_label_stays_none(write):
    assert dumps.read_dumps([write("a.jsonl", [{"question": "a", "response": "x"}])])[0][0].correct is None


# --- sources, samples, problems ---


def test_labels_in_order_of_precedence(write):
    with_source = write("x.jsonl", rows(1, source="mine"))
    with_model = write("y.jsonl", rows(1, model="org/Model-7B"))
    bare = write("z.jsonl", rows(1))
    traces, _ = dumps.read_dumps([with_source, with_model, bare])
    assert [t.source for t in traces] == ["mine", "Model-7B", "z"]
    assert dumps.read_dumps([f"base={with_model}"])[0][0].source == "base"
    a, b = write("base/s.jsonl", rows(1)), write("rl/s.jsonl", rows(2))
    assert {t.source for t in dumps.read_dumps([a, b])[0]} == {"base", "rl"}
    assert dumps.read_dumps([write("run7/100.jsonl", rows(1))])[0][0].source == "run7"


def test_two_models_of_one_label_are_an_error(write):
    a, b = write("a.jsonl", rows(1, model="one/M")), write("b.jsonl", rows(2, model="two/M"))
    with pytest.raises(DumpError, match=r"two different models would both be called 'M' .*name the sources: A="):
        dumps.read_dumps([a, b])
    assert {t.source for t in dumps.read_dumps([f"x={a}", f"y={b}"])[0]} == {"x", "y"}
    both = write("c.jsonl", [*rows(1, source="p"), *rows(1, source="q")])
    with pytest.raises(UsageError, match="the file holds several sources"):
        dumps.read_dumps([f"x={both}"])


def test_the_same_bytes_count_once(write):
    a, b = write("a.jsonl", rows()), write("b.jsonl", rows())
    assert len(dumps.read_dumps([a, a])[0]) == 3
    with pytest.raises(DumpError, match="the same bytes as"):
        dumps.read_dumps([f"x={a}", f"x={b}"])
    assert len(dumps.read_dumps([a, b])[0]) == 6


def test_samples_are_numbered_uniquely_and_collisions_are_noted(write):
    path = write("a.jsonl", [{"question": "a", "response": str(i), "sample": s} for i, s in enumerate((0, 1, 1, 5))])
    traces, ledger = dumps.read_dumps([path])
    assert [t.sample for t in traces] == [0, 1, 2, 5]
    assert any("1 sample number was taken already" in n for n in ledger.notes)


def test_a_repeated_question_is_pooled_and_rows_stay_apart(write):
    listed = [
        {"question": "a", "responses": ["x", "y"], "score": [1, 0]},
        {"question": "b", "responses": ["x", "z"], "score": [0, 0]},
        {"question": "a ", "responses": ["w", "x"], "score": [0, 0]},
    ]
    traces, ledger = dumps.read_dumps([write("a.jsonl", listed)])
    pooled = [t for t in traces if t.problem == problem_id("a")]
    assert [t.sample for t in pooled] == [0, 1, 2, 3] and [t.meta["row"] for t in pooled] == [1, 1, 3, 3]
    assert any("2 distinct questions in 3 problem rows" in n for n in ledger.notes)


def test_samplers_come_from_the_dump_and_the_user_wins(write):
    path = write("a.jsonl", rows(2, temperature=0.6, top_p=0.9))
    assert dumps.read_dumps([path])[0][0].sampler == Sampler(0.6, 0.9)
    assert dumps.read_dumps([path], sampler={"a": Sampler(1.0)})[0][0].sampler == Sampler(1.0)
    with pytest.raises(UsageError, match=r"no source is called 'aa'; did you mean 'a'\?"):
        dumps.read_dumps([path], sampler={"aa": Sampler(1.0)})


def test_a_sampler_of_a_model_that_a_row_names_is_taken(write):
    wide = write("a.jsonl", [{"question": "q", "big": {"response": "r"}, "small": {"response": "s"}}] * 2)
    traces, _ = dumps.read_dumps([wide], sampler={"small": Sampler(0.5)})
    assert {(t.source, t.sampler) for t in traces} == {("big", None), ("small", Sampler(0.5))}


def test_a_label_that_no_source_can_have_is_refused_before_the_rows_are_read(write, monkeypatch):
    paths = write("a.jsonl", rows(2)), f"b={write('c.jsonl', rows(3, model='m'))}"
    monkeypatch.setattr(dumps.reading, "traces_of", lambda *given: pytest.fail("rows were read"))
    with pytest.raises(UsageError, match="no source is called 'zz'; allowed: a, b"):
        dumps.read_dumps(paths, sampler={"zz": Sampler(1.0)})


def test_steps_and_folders_and_stdin(write, monkeypatch, tmp_path):
    write("d/a.jsonl", rows(2, global_step=100))
    write("d/notes.txt", "hello")
    traces, ledger = dumps.read_dumps([str(tmp_path / "d")])
    assert [t.step for t in traces] == [100, 100] and "1 of 2 files" in ledger.notes[0]
    stream = io.TextIOWrapper(io.BytesIO(json.dumps(rows(1)[0]).encode()))
    monkeypatch.setattr("sys.stdin", stream)
    trace = dumps.read_dumps(["-"])[0][0]
    assert trace.source == "stdin" and trace.origin == "<stdin>:1"


def test_canonical_rows_must_name_problem_and_sample(write):
    row = {"source": "base", "problem": "p", "sample": 0, "response": "r", "prompt": "x"}
    path = write("a.jsonl", [row, {**row, "sample": None}, {**row, "problem": None}, {**row, "sample": -1}])
    _, ledger = dumps.read_dumps([path], max_bad=1)
    assert ledger.by_reason == {"no sample": 1, "no problem": 1, "bad sample": 1}


def test_filters_of_lm_eval_are_not_counted_twice(write):
    row = {
        "doc_id": 0,
        "doc": {"question": "q"},
        "target": "1",
        "arguments": {"gen_args_0": {"arg_0": "p", "arg_1": {}}},
        "resps": [["1"]],
    }
    rows = [
        {**row, "filter": "strict-match", "exact_match": 0},
        {**row, "filter": "flexible-extract", "exact_match": 1},
    ]
    path = write("s.jsonl", rows)
    (trace,), ledger = dumps.read_dumps([path])
    assert trace.correct is False and trace.meta["filters"] == {"strict-match": 0, "flexible-extract": 1}
    assert (ledger.rows, ledger.rows_used) == (2, 2)
    assert "labels are those of strict-match, which 1 of 1 documents have another label for" in ledger.notes[0]
    (other,), _ = dumps.read_dumps([path], map={"correct": "@filters.flexible-extract"})
    assert other.correct is True


# --- warnings ---


def test_notes_name_the_warnings(write):
    base = [
        {
            "question": f"q{i}",
            "prompt": f"A: q{i}",
            "response": "reasoning " * 30 + str(i % 2),
            "gold": "27.0",
            "pred": "27",
            "max_tokens": 10,
        }
        for i in range(4)
    ]
    teacher = [
        {
            "question": f"q{i}",
            "prompt": f"B: q{i}",
            "response": "<answer>27</answer>",
            "gold": g,
            "pred": None,
            "max_tokens": 20,
            "finish_reason": "length",
        }
        for i, g in enumerate((27, "27", ["27"], "28"))
    ]
    _, ledger = dumps.read_dumps([write("base.jsonl", base), write("teacher.jsonl", teacher)])
    notes = "\n".join(ledger.notes)
    for part in (
        "teacher: no answer could be extracted from 4 of 4 responses",
        "Reference answers come in 3 types (6 str, 1 int, 1 list)",
        "1 of 4 problems have different reference answers",
        "4 answers equal the reference only after normalising ('27' and '27.0'",
        "teacher: 4 of 4 responses have at most 80 characters where base writes 301 (median): the reasoning is hidden",
        "Prompts differ between sources in 4 of 4 shared problems",
        "Token budgets differ: base 10, teacher 20",
        "Finish reasons are not recorded for base",
        "teacher: 4 of 4 responses ended at the token budget",
    ):
        assert part in notes


# --- what once went unnoticed ---


@pytest.mark.parametrize("value, kind", [(None, "null"), (12, r"not text \(12\)")])
def test_a_response_that_is_not_text_is_named_and_no_other_field_is_suggested(tmp_path, value, kind):
    file = tmp_path / "d.jsonl"
    file.write_text(json.dumps({"question": "what is it?", "response": value}) + "\n")
    with pytest.raises(DumpError, match=rf"'response' is {kind} in every row looked at.*--map response=FIELD"):
        dumps.read_dumps([str(file)])


def test_a_single_row_of_messages_is_one_row(tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_text(
        json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}) + "\n"
    )
    (trace,), ledger = dumps.read_dumps([str(file)])
    assert ledger.rows == 1 and trace.response == "a" and trace.prompt == [{"role": "user", "content": "q"}]


def test_a_key_that_stands_twice_rejects_its_row(write):
    good = json.dumps(rows(1)[0])
    twice = '{"question": "q", "response": "first", "response": "second"}'
    quoted = '{"question": "q\\u0022", "response": "a \\"response\\": b", "deep": {"a": 1, "b": ["a", {"a": 2}]}}'
    path = write("a.jsonl", "\n".join([good, twice, quoted]))
    traces, ledger = dumps.read_dumps([path], max_bad=0.5)
    assert ledger.by_reason == {"duplicate key": 1} and [t.response for t in traces] == ["r0", 'a "response": b']
    assert ledger.rejected[0]["detail"].startswith("the key 'response' stands twice in one object")
    assert ledger.rejected[0]["line"] == 2
    inner = write("b.json", '[{"question": "q", "response": "r", "meta": {"a": 1, "a": 2}}]')
    with pytest.raises(DumpError, match="the key 'a' stands twice"):
        dumps.read_dumps([inner])


def test_the_same_bytes_under_two_labels_are_named(write):
    a, b = write("a.jsonl", rows()), write("b.jsonl", rows())
    _, ledger = dumps.read_dumps([a, b])
    assert any("is byte for byte" in n and "compares a file with itself" in n for n in ledger.notes)
    long = [{"question": f"q{i}", "response": "reasoning " * 20 + str(i)} for i in range(4)]
    c, d = write("c.jsonl", long), write("d.json", long, lines=False)
    _, ledger = dumps.read_dumps([c, d])
    assert any("c and d: 4 of 4 long responses are the same word for word" in n for n in ledger.notes)
    other = write("e.jsonl", [{**r, "response": r["response"] + "!"} for r in long])
    assert not any("copy of the other" in n for n in dumps.read_dumps([c, other])[1].notes)


def test_contents_in_parts_are_joined_and_other_parts_refused(write):
    text = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    row = {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": text}]}
    (trace,), _ = dumps.read_dumps([write("a.jsonl", [row])])
    assert trace.prompt == [{"role": "user", "content": "hello"}] and trace.response == "hello"
    call = [{"role": "user", "content": [*text, {"type": "tool_use", "name": "x"}]}]
    with pytest.raises(DumpError, match="expected parts of type text or reasoning only"):
        dumps.read_dumps([write("b.jsonl", [{**row, "prompt": call}])])


def test_ids_without_text_are_read_and_said(write):
    path = write("a.jsonl", [{"question": "q", "response_ids": [1, 2], "correct": True}])
    (trace,), ledger = dumps.read_dumps([path])
    assert trace.response == "" and trace.response_ids == (1, 2) and trace.meta["ids_only"]
    assert any("1 of 1 responses are token ids without text" in n for n in ledger.notes)
    with pytest.raises(DumpError, match="response_ids is empty"):
        dumps.read_dumps(
            [write("b.jsonl", [{"question": "q", "response_ids": [1]}, {"question": "q", "response_ids": []}])]
        )


def test_the_suggested_map_goes_by_names_before_lengths(write):
    path = write("u.jsonl", [{"q": "a long question, longer than its answer", "reply": {"txt": "four"}, "ok": 1}])
    with pytest.raises(DumpError, match="name the fields: --map response=reply.txt --map question=q$"):
        dumps.read_dumps([path])


WORDS = ("q", "out", "txt", "question", "gold", "target", "note", "deep", "n", "model")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(WORDS),
        st.one_of(
            st.text("abc ", min_size=1, max_size=9),
            st.integers(),
            st.dictionaries(st.sampled_from(WORDS), st.text("abc", min_size=1, max_size=9), max_size=2),
            st.lists(st.text("abc", min_size=1, max_size=9), max_size=2),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_map_that_a_message_suggests_works(tmp_path_factory, row):
    path = tmp_path_factory.mktemp("s") / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    try:
        dumps.read_dumps([str(path)])
    except DumpError as error:
        found = dict(re.findall(r"--map (\w+)=(\S+)", str(error)))
        if "no field looks like a sampled response" not in str(error) or "FIELD" in found.values():
            return
    else:
        return
    assert dumps.read_dumps([str(path)], map=found)[0][0].response


def test_bombs_and_endless_lines_are_refused(write, monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE", 1 << 20)
    bomb = gzip.compress(b'{"response": "' + b"a" * (1 << 24))
    with pytest.raises(DumpError, match=r"bomb.jsonl.gz:1: this line has more than 1 MB"):
        dumps.read_dumps([write("bomb.jsonl.gz", bomb)])
    monkeypatch.setattr(streams, "MAX_DOCUMENT", 1 << 20)
    with pytest.raises(DumpError, match="a JSON document of more than"):
        dumps.read_dumps([write("a.json", b"[" + b" " * (1 << 21) + b"]")])
    monkeypatch.setattr(parse, "MAX_MEMBER", 10)
    with pytest.raises(DumpError, match="a.eval: header.json unpacks to 101 bytes; one sample has at most 10"):
        dumps.read_dumps([write("a.eval", zipped({"header.json": "{}" + " " * 99}))])
    deep = write(
        "deep.jsonl",
        '{"question": "q", "response": "r", "x": ' + "[" * 5000 + "]" * 5000 + "}\n" + json.dumps(rows(1)[0]),
    )
    assert dumps.read_dumps([deep], max_bad=0.5)[1].by_reason == {"broken JSON": 1}
