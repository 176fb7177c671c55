"""Grading: a wrong answer, no answer, a crash and a time-out are four different things."""

import importlib.util
import json
import os
import sys
from collections import Counter

import pytest

from analyzer.api import pipeline
from analyzer.cli import main as cli
from analyzer.dumps import grading
from analyzer.dumps import read as dumps
from analyzer.errors import ResourceError, UsageError
from analyzer.records import Trace
from analyzer.runs.store import Run

FAKE = """
import json, os, sys, time
print(json.dumps({"reason": "ready"}), flush=True)
for line in sys.stdin:
    said = json.loads(line)["response"]
    if said == "crash":
        os._exit(3)
    if said == "hang":
        time.sleep(60)
    if said == "half":
        os.write(1, b'{"reason": "equ')
        os._exit(0)
    print(json.dumps({"reason": said}), flush=True)
"""
COMMAND = (sys.executable, "-c", FAKE)


def traces(*responses, **changes):
    return [Trace("s", "p", i, r, meta={"gold": "1"}, **changes) for i, r in enumerate(responses)]


def graded(given, **how):
    counts = Counter()
    return list(grading.grade(given, counts, **how)), dict(counts)


def test_each_reason_has_its_label_and_the_process_survives_the_worst():
    said = ["equal", "different", "crash", "equal", "hang", "half", "nothing found", "reference not read", "different"]
    found, counts = graded(traces(*said), seconds=1.0, command=COMMAND)
    assert [t.correct for t in found] == [True, False, None, True, None, None, None, None, False]
    assert found[2].meta["graded"] == found[5].meta["graded"] == "crashed" and found[4].meta["graded"] == "timed out"
    assert counts == {
        "equal": 2, "different": 2, "crashed": 2, "timed out": 1, "nothing found": 1, "reference not read": 1,
    }  # fmt: skip
    assert sum(counts.values()) == len(said)


def test_an_interrupt_in_the_terminal_does_not_reach_the_process():
    """Ctrl-C goes to the foreground's group; its answer would be a traceback of the child."""
    judge = grading.Judge(COMMAND, 5.0)
    try:
        assert judge("1", "equal") == "equal"
        assert os.getpgid(judge.process.pid) not in (os.getpgrp(), 0)
    finally:
        judge.stop()


def test_labels_of_the_dump_stay_and_what_can_not_be_graded_is_counted():
    given = [
        *traces("equal", correct=False),
        Trace("s", "q", 0, "equal"),
        Trace("s", "r", 0, "", meta={"gold": "1", "ids_only": True}),
    ]
    found, counts = graded(given, command=("no-such-program",))
    assert found == given and counts == {"has a label": 1, "no reference": 1, "no text": 1}


def test_a_process_that_does_not_start_is_an_error():
    for command in (("no-such-program",), (sys.executable, "-c", "")):
        with pytest.raises(ResourceError, match="the grading process does not start"):
            graded(traces("equal"), command=command)


def test_the_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    file = tmp_path / "base.jsonl"
    file.write_text('{"question": "q", "response": "r", "gold": "1"}\n')
    assert cli.main(["convert", str(file), "--grade", "-o", str(tmp_path / "out.jsonl")]) == 4
    assert "pip install 'reasoning-path-analyzer[math-verify]'" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["base.jsonl"]


@pytest.mark.parametrize(
    ("gold", "asked"),
    [("12", "$12$"), (["12"], "$12$"), ([["12"]], "$12$"), (12.5, "$12.5$"), ("so\n#### 12", "$12$"), ("$x$", "$x$")],
)
def test_the_reference_is_read_in_the_forms_that_dumps_have(gold, asked):
    seen = []
    assert grading.judged(gold, "r", lambda text, **_: seen.append(text) or text, lambda *a, **_: True) == "equal"
    assert seen == [asked, "r"]


def test_a_list_of_references_is_not_guessed_at():
    assert grading.judged(["1", "2"], "r", lambda text, **_: text, lambda *a, **_: True) == "reference not read"


def test_math_verify_itself():
    pytest.importorskip("math_verify")
    said = ["so \\boxed{\\frac{2}{4}}", "it is 3", "no idea", "\\boxed{9999999^{9999999^{99999}}}"]
    given = [Trace("s", "p", i, r, meta={"gold": "0.5"}) for i, r in enumerate(said)]
    found, counts = graded(given, seconds=10.0)
    assert [t.correct for t in found] == [True, False, None, None]
    assert [t.meta["graded"] for t in found] == ["equal", "different", "nothing found", "timed out"]


JUDGE = """
import json, sys
print(0, flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if "stall" in task["response"]:
        sys.exit(1)
    print(json.dumps({"reason": "equal" if task["gold"] in task["response"] else "nothing found"}), flush=True)
"""


@pytest.fixture
def judge(monkeypatch):
    """The command line's own way to the judging process, with another judge in it."""
    real = grading.grade
    monkeypatch.setattr(grading, "grade", lambda *a: real(*a, command=(sys.executable, "-c", JUDGE)))


def test_a_dump_with_gold_answers_is_graded_while_it_is_read(root, judge):
    found, ledger = dumps.read_dumps([str(root / "data/samples/polaris")], grade=True)
    right = sum(t.correct is True for t in found)
    assert len(found) == 6 and all(t.correct or t.meta["graded"] == "nothing found" for t in found) and right
    assert f"Graded with math-verify: {right:,} equal" in "\n".join(ledger.notes)


def test_the_flag_reaches_the_run_and_the_new_file(tmp_path, judge, capsys):
    rows = [
        {"question": "q", "response": r, "gold": "7", "prompt": "q"} for r in ("it is 7", "it is 8", "stall", "7 again")
    ]
    file = tmp_path / "base.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = (
        "Graded with math-verify: 2 equal, 1 nothing found, 1 crashed; equal counts as correct, different as wrong, "
        "anything else has no label."
    )
    assert cli.main(["check", str(file), "--grade"]) == 0 and said in capsys.readouterr().out
    assert cli.main(["convert", str(file), "--grade", "-o", str(tmp_path / "out.jsonl")]) == 0
    back, _ = dumps.read_dumps([str(tmp_path / "out.jsonl")])
    assert [t.correct for t in back] == [True, None, None, True] and back[2].meta["graded"] == "crashed"
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(file)], grade=True)
    assert [t.correct for t in run.traces()] == [True, None, None, True] and said in run.manifest["input_notes"]
    with pytest.raises(UsageError, match="was made with grade=true, now grade=false"):
        pipeline.ingest(Run.open(tmp_path / "run"), [str(file.rename(tmp_path / "again.jsonl"))])


def test_with_nothing_to_grade_it_says_so(tmp_path, judge):
    file = tmp_path / "base.jsonl"
    file.write_text('{"question": "q", "response": "r", "correct": true}\n{"question": "p", "response": "s"}\n')
    _, ledger = dumps.read_dumps([str(file)], grade=True)
    assert "Grading found nothing to do: 1 with a label, 1 without a reference answer." in ledger.notes
