"""A hint is a promise: the `--map` that a message proposes reads the file, and reads it rightly.

Every hint that a sample provokes with one of its fields renamed or removed is followed by itself.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from analyzer.dumps import files, hints
from analyzer.dumps import read as dumps
from analyzer.dumps.specs import is_dump_name
from analyzer.errors import DumpError, UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
FILES = sorted(str(p.relative_to(SAMPLES)) for p in SAMPLES.rglob("*") if is_dump_name(p))
HINT = re.compile(r"--map ([\w.]+=[^\s;,]+?)[.,;:)]*(?=\s|$)")
BARE = {"evalscope/predictions/tiny-chat/arithmetic_easy.jsonl"}  # its messages hold the answer without the thoughts


def told(text):
    """(what `--map` and --max-bad a message proposes); nothing where a name is left to the user."""
    found = dict(h.split("=", 1) for h in HINT.findall(text))
    share = re.search(r"--max-bad ([\d.]+)", text)
    return {} if any(v.isupper() for v in found.values()) else found, float(share[1]) if share else None


def followed(path):
    """(traces and ledger, or None; messages): the file read as its messages say."""
    given, bad, said = {}, 0.01, []
    for _ in range(5):
        try:
            return dumps.read_dumps([str(path)], map=given, max_bad=bad), said
        except (DumpError, UsageError) as error:
            said.append(str(error))
            found, share = told(str(error))
            if not found.items() - given.items() and share is None:
                break
            given, bad = given | found, share or bad
    return None, said


def loaded(path):
    """(the JSON value of a dump, its suffix)."""
    file = files.open_dump(path.name, path, None)
    if file.kind == "json":
        return (file.document or [r for _, r in file.records()]), ".json"
    return [r for _, r in file.records()], ".jsonl"


def stored(path, value):
    path.write_text(json.dumps(value) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in value))
    return path


def named(value, out):
    """Every key in a JSON value, once."""
    if isinstance(value, dict):
        for key, inner in value.items():
            out.setdefault(key)
            named(inner, out)
    elif isinstance(value, list):
        for inner in value[:2]:
            named(inner, out)
    return out


def renamed(value, key, new):
    """A JSON value with a key of all its objects renamed, or without it."""
    if isinstance(value, dict):
        return {new if k == key else k: renamed(v, key, new) for k, v in value.items() if k != key or new}
    return [renamed(v, key, new) for v in value] if isinstance(value, list) else value


def check_hints(source, tmp_path, *, bare=False):
    """Follow what one file provokes; returns how many hints were followed."""
    value, suffix = loaded(source)
    path = stored(tmp_path / f"mine{suffix}", value)
    try:
        before, _ = dumps.read_dumps([str(path)], max_bad=1)
    except (DumpError, UsageError):
        before = []
        held, said = followed(path)
        assert held or not any(told(s)[0] for s in said), said
        return bool(held)
    wanted, golds = Counter(t.response for t in before), {str(t.meta["gold"]) for t in before if t.meta.get("gold")}
    count = 0
    for key in named(value, {}):
        for new in (f"my_{key}", f"zz{len(key)}", None):
            held, said = followed(stored(path, renamed(value, key, new)))
            here = f"{source.name}: {key} -> {new}: {said}"
            if not any(told(s) != ({}, None) for s in said):
                continue
            count += 1
            assert held, here
            traces, _ = held
            assert not any({t.question, str(t.prompt)} & golds for t in traces), here
            found = Counter(t.response for t in traces)
            if any(told(s)[1] for s in said):
                assert len(traces) <= len(before), here  # a file may have bad rows of its own
            elif new and not bare:  # a row of lm-eval stands there once per filter
                assert found == wanted or ("filter" in str(value) and {*found} == {*wanted}), here
                assert len({t.problem for t in traces}) == len({t.problem for t in before}), here
            elif not new:
                assert not {*found} & ({str(t.prompt) for t in before} | {t.question for t in before}), here
    return count


@pytest.mark.parametrize("name", [f for f in FILES if not f.endswith(".eval")])
def test_every_hint_of_a_sample_is_kept(name, tmp_path):
    check_hints(SAMPLES / name, tmp_path, bare=name in BARE)


def test_the_samples_provoke_hints(tmp_path):
    assert check_hints(SAMPLES / "generic-row.jsonl", tmp_path) > 3


def test_every_hint_of_the_cases_is_kept(shared, tmp_path):
    cases = shared / "cases"
    others = ("read-solution-is-reference",)  # whose fields hold a reference and a response by design
    for path in sorted(cases.rglob("*.json*")):
        if "model" not in path.parts and path.relative_to(cases).parts[0] not in others:
            check_hints(path, tmp_path)


@pytest.mark.parametrize("name", [f for f in FILES if not f.endswith(".eval")])
def test_what_a_note_proposes_can_be_read(name):
    try:
        _, ledger = dumps.read_dumps([str(SAMPLES / name)])
    except DumpError:
        return  # a file that others are joined with
    for note in ledger.notes:
        for given in HINT.findall(note):
            field, path = given.split("=", 1)
            if not path.isupper():
                dumps.read_dumps([str(SAMPLES / name)], map={field: path})


def test_the_messages_of_a_trajectory_are_one_trace(tmp_path):
    rows = [
        {"task_id": task, "reward": float(trial < 2), "trial": trial, "traj": [
            {"role": "system", "content": "Be an agent. " * 9}, {"role": "user", "content": f"Change booking {task}."},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}, {"role": "tool", "content": "{}"},
            {"role": "user", "content": f"in other words {trial}"}, {"role": "assistant", "content": f"Done {trial}."}]}
        for task in range(3) for trial in range(4)
    ]  # fmt: skip
    (traces, _), said = followed(stored(tmp_path / "runs.json", rows))
    assert said[0].endswith("--map response=traj --map problem=task_id --map score=reward --map sample=trial")
    assert len(traces) == 12 and len({t.problem for t in traces}) == 3 and {t.sample for t in traces} == {0, 1, 2, 3}
    assert sum(t.correct for t in traces) == 6 and traces[0].response == "Done 0."


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"ans_id": "a b", "created_at": "2025", "reply": "long text"}, "--map response=reply --map id=ans_id"),
        ({"kind": "Algebra", "reply_body": "long text"}, "--map response=reply_body --map question=FIELD"),
        ({"type": "Algebra", "options": ["a b"], "pred": "is 4", "q": "2+2"}, "--map response=pred --map question=q"),
        ({"final": "r " * 40, "meta": {"problem": "what is it"}}, "--map response=final --map question=meta.problem"),
        ({"ans_id": "dgYC"}, "--map response=FIELD"),
        ({"q": "what", "my_texts": ["is 4", "is 5"]}, "--map response=my_texts[] --map question=q"),
        ({"my_contents": ["what is it", "is 5"]}, "--map response=my_contents.1 --map prompt=my_contents.0"),
        ({"q": "what is it", "gold": "a golden answer"}, "--map response=FIELD"),
        ({"reply": "it is 4", "reference": "a golden text"}, "--map response=reply --map question=FIELD"),
        (
            {"q": "what", "api": {"choices": [{"message": {"content": "it is 4", "reasoning_content": "two twos"}}]}},
            "--map response=api.choices[].message.content --map reasoning=api.choices[].message.reasoning_content "
            "--map question=q",
        ),
        (
            {"q": "what", "a": {"reply": "it is 4"}, "b": {"reply": "it is five"}},
            "--map response=*.reply --map question=q",
        ),
    ],
)  # fmt: skip
def test_the_words_of_a_hint(tmp_path, row, hint):
    with pytest.raises(DumpError) as caught:
        dumps.read_dumps([str(stored(tmp_path / "a.jsonl", [row]))])
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        # a human's rationale is not what the model wrote, and the end of a text is not the text
        ([{"question": "2+2", "generated_prediction": f"It is {i}", "rationale": "two " * 30 + str(i)} for i in (0, 1)],
         "--map response=generated_prediction"),
        ([{"question": "2+2", "text_tail": f"so it is {i}"} for i in (0, 1)], "--map response=FIELD"),
        # a style, a message of the judge, what was taken from the answer, and what some rows lack ask nothing
        ([{"prompt_style": "plain", "output": "no"}] * 2, "--map question=FIELD"),
        ([{"output": "no", "info": {"status_msg": "Wrong Answer"}}] * 2, "--map question=FIELD"),
        ([{"raw_response": "It is SELECT 1", "sql": "SELECT 1"}] * 2, "--map question=FIELD"),
        ([{"output": "no", "info": {"input_text": "1 2"}}, {"output": "no", "info": {}}], "--map question=FIELD"),
        ([{"output": "no", "kind": "a"}] * 3 + [{"output": None}], "--map question=FIELD"),  # what most rows lack
        ([{"output": "no", "info": {"asked": f"what is {i}"}} for i in (0, 1)], "--map question=info.asked"),
    ],
)  # fmt: skip
def test_a_hint_holds_for_every_row(tmp_path, rows, hint):
    with pytest.raises(DumpError) as caught:
        dumps.read_dumps([str(stored(tmp_path / "a.jsonl", rows))])
    assert str(caught.value).endswith(hint)


def test_a_choice_names_the_one_that_reads(tmp_path):
    rows = [{"question": "q", "response": None, "generation": "it is 4", "output": 5}] * 2
    path = stored(tmp_path / "a.jsonl", [{**r, "response": "x"} if i else r for i, r in enumerate(rows)])
    with pytest.raises(DumpError, match="could both be the response .*--map response=generation$"):
        dumps.read_dumps([str(path)])


@pytest.mark.parametrize(
    "name", ["simple-evals", "cruxeval", "helm", "reasoning-gym", "skythought", "evalplus-results"]
)
@pytest.mark.parametrize("rows", [[{"question": "q", "response": "r"}] * 2, [{"question": "q", "response": "r"}]])
def test_a_format_that_does_not_fit_is_said(tmp_path, name, rows):
    for suffix in (".jsonl", ".json"):
        path = stored(tmp_path / f"a{suffix}", rows)
        with pytest.raises(UsageError, match=rf"--map format={name}: .*is not of this format .*leave it out"):
            dumps.read_dumps([str(path)], map={"format": name})


def test_most_rows_are_not_to_be_left_out(tmp_path):
    rows = [{"question": "q", "response": "r"}] + [{"question": "q", "response": 5}] * 2
    with pytest.raises(DumpError, match="2 of 3 rows can't be used .*So many say"):
        dumps.read_dumps([str(stored(tmp_path / "a.jsonl", rows))])


def test_a_reference_is_no_question():
    assert hints.question([{"ground_truth": "it is a golden text", "out": {"solution": "a b"}}], "out.solution") is None


def test_a_list_of_a_document_is_no_dump(tmp_path):
    """Charts of a report, whose texts nobody was asked for."""
    told = [{"title": "one", "subtitle": f"what the chart {i} shows"} for i in (0, 1)]
    with pytest.raises(DumpError, match="--map response=FIELD$"):
        dumps.read_dumps([str(stored(tmp_path / "a.json", {"report": {"charts": told}, "sources": [{"path": "x"}]}))])


def test_lists_in_objects_that_are_alike_are_all_read(tmp_path):
    tasks = {
        f"task-{t}": {"tries": [{"prompt": f"do {t}", "final_text": f"{t} is {i}"} for i in (0, 1)]} for t in "abc"
    }
    (traces, _), said = followed(stored(tmp_path / "a.json", {"judge": "j", "tasks": tasks}))
    assert said[0].endswith("--map rows=tasks{}.tries[] --map response=final_text")
    assert [t.response for t in traces] == ["a is 0", "a is 1", "b is 0", "b is 1", "c is 0", "c is 1"]
