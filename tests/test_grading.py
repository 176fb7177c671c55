"""Grading: a wrong answer, no answer, a crash and a time-out are four different things."""

import sys
from importlib.util import find_spec

import pytest

from analyzer import dumps, grading
from analyzer.errors import ResourceError
from analyzer.records import Trace

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


def test_each_reason_has_its_label_and_the_process_survives_the_worst():
    said = ["equal", "different", "crash", "equal", "hang", "half", "nothing found", "reference not read", "different"]
    graded, counts = grading.grade(traces(*said), seconds=1.0, command=COMMAND)
    assert [t.correct for t in graded] == [True, False, None, True, None, None, None, None, False]
    assert graded[2].meta["graded"] == graded[5].meta["graded"] == "crashed" and graded[4].meta["graded"] == "timed out"
    assert counts == {
        "equal": 2, "different": 2, "crashed": 2, "timed out": 1, "nothing found": 1, "reference not read": 1,
    }  # fmt: skip
    assert sum(counts.values()) == len(said)


def test_labels_of_the_dump_stay_and_what_can_not_be_graded_is_counted():
    given = [
        *traces("equal", correct=False),
        Trace("s", "q", 0, "equal"),
        Trace("s", "r", 0, "", meta={"gold": "1", "ids_only": True}),
    ]
    graded, counts = grading.grade(given, command=("no-such-program",))
    assert graded == given and counts == {"has a label": 1, "no reference": 1, "no text": 1}


def test_a_process_that_does_not_start_is_an_error():
    for command in (("no-such-program",), (sys.executable, "-c", "")):
        with pytest.raises(ResourceError, match="the grading process does not start"):
            grading.grade(traces("equal"), command=command)


@pytest.mark.skipif(find_spec("math_verify") is not None, reason="math-verify is installed")
def test_the_missing_extra_is_named():
    with pytest.raises(ResourceError, match=r"pip install 'reasoning-path-analyzer\[math-verify\]'"):
        grading.grade(traces("x"))


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
    graded, counts = grading.grade(given, seconds=10.0)
    assert [t.correct for t in graded] == [True, False, None, None]
    assert [t.meta["graded"] for t in graded] == ["equal", "different", "nothing found", "timed out"]


def test_a_dump_with_gold_answers_can_be_graded(root):
    found, _ = dumps.read_dumps([str(root / "data/samples/polaris")])
    script = "import json,sys\nprint(0,flush=True)\nfor l in sys.stdin:\n"
    script += " t=json.loads(l); ok=t['gold'] in t['response']\n"
    script += " print(json.dumps({'reason':'equal' if ok else 'different'}),flush=True)"
    graded, counts = grading.grade(found, command=(sys.executable, "-c", script))
    assert sum(counts.values()) == len(found) == 6 and all(t.correct is not None for t in graded)
