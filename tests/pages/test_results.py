"""results.json: what is written holds the contract, and each broken clause is found."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.errors import AnalyzerError
from analyzer.pages.results import encode, relative, validate_results
from analyzer.records import Result


def test_the_written_file_is_valid_and_strict_json(written):
    def refuse(word):
        raise AssertionError(word)

    data = json.loads(written.paths["results.json"].read_bytes(), parse_constant=refuse)
    validate_results(data)
    assert list(data) == ["schema", "version", "command", "ledger", "sources", "verdicts", "analyses"]
    assert list(data["analyses"]) == [
        "perplexity",
        "support",
        "tokens",
        "boundary",
        "clusters",
    ]  # the order of the page
    assert set(data["verdicts"][0]) == {"source", "reference", "verdict", "level", "budget", "headline", "why", "needs"}
    assert set(data["analyses"]["support"]) == {"question", "params", "notes", "estimates", "tables"}


def test_no_value_is_null_with_a_reason(written, fake):
    estimates = written.data["analyses"]["boundary"]["estimates"]
    assert estimates["base.crossover_k"]["value"] is None
    assert estimates["base.crossover_k"]["note"] == "the reference does not cross itself"
    endless = estimates[f"{fake.HOSTILE}.crossover_k"]
    assert endless["value"] is None and endless["low"] == 12 and "value is inf" in endless["note"]
    assert written.data["analyses"]["boundary"]["params"] == {"eps": 0.05, "bad": None, "seed": 0}


def test_analyses_come_back_as_results(written):
    data = written.data["analyses"]["support"]
    back = Result.from_json("support", data)
    assert json.loads(encode(back.as_json())) == data


BREAKS = {
    "schema": (lambda d: d.update(schema=1), "schema is 1, not 2"),
    "missing part": (lambda d: d.pop("sources"), "sources is missing"),
    "rows": (lambda d: d["ledger"].update(rows_used=5), "but rows_used \\+ rows_rejected is 15"),
    "traces": (lambda d: d["ledger"].update(traces_rejected=0), "but traces_scored \\+ traces_rejected is 1990"),
    "count": (lambda d: d["ledger"].update(rows=1010.0), "ledger.rows is 1010.0, not a count"),
    "reasons": (lambda d: d["ledger"].pop("by_reason"), "by_reason is missing"),
    "reason": (lambda d: d["ledger"]["by_reason"].update(x=-1), "by_reason.x is -1, not a count"),
    "source": (lambda d: d["sources"]["base"].update(tokens=None), "sources.base.tokens is None, not a count"),
    "word": (
        lambda d: d["verdicts"][0].update(verdict="novel"),
        "'novel', not one of inside, sharpened, reweighted, outside",
    ),
    "level": (
        lambda d: d["verdicts"][0].update(level="token"),
        "'token', not one of sequence, skeleton, steps, kinds, answer, correct",
    ),
    "unknown source": (lambda d: d["verdicts"][0].update(source="x"), "source is 'x', which is not a source"),
    "no headline": (
        lambda d: d["verdicts"][0].update(headline=False),
        "source 'rlvr' has 0 headline verdicts, not one",
    ),
    "two headlines": (
        lambda d: d["verdicts"][1].update(headline=True),
        "source 'rlvr' has 2 headline verdicts, not one",
    ),
    "twice": (lambda d: d["verdicts"].append({**d["verdicts"][0], "headline": False}), "is a second verdict on"),
    "budget": (lambda d: d["verdicts"][0].update(budget=0), "budget is 0, not a positive count"),
    "why": (lambda d: d["verdicts"][0].update(why="text"), "why is not a list of sentences"),
    "needs": (lambda d: d["verdicts"][0].pop("needs"), "needs is neither text nor null"),
    "nan": (lambda d: estimate(d).update(low=math.nan), "base.reach@64.low is nan, not a finite number or null"),
    "absent": (lambda d: estimate(d).pop("high"), "base.reach@64.high is 'missing'"),
    "no reason": (lambda d: estimate(d).update(value=None, note=""), "reach@64 has no value and no note that says why"),
    "n": (lambda d: estimate(d).update(n=None), "reach@64.n is None, not a count"),
    "infinite cell": (lambda d: table(d)[3].__setitem__(2, math.inf), r"tables.curve.rows\[3\]\[2\] is not finite"),
    "short row": (lambda d: table(d)[3].pop(), "tables.curve has 4 columns, but row 3 does not"),
    "params": (lambda d: d["analyses"]["support"]["params"].update(tau=math.nan), "params.tau is not finite"),
    "no notes": (lambda d: d["analyses"]["support"].pop("notes"), "analyses.support.notes is missing"),
}


def estimate(data):
    return data["analyses"]["support"]["estimates"]["base.reach@64"]


def table(data):
    return data["analyses"]["support"]["tables"]["curve"]["rows"]


@pytest.mark.parametrize("name", BREAKS)
def test_each_breach_is_found(written, name):
    damage, message = BREAKS[name]
    data = copy.deepcopy(written.data)
    damage(data)
    with pytest.raises(AnalyzerError, match=message):
        validate_results(data)


def test_without_a_model_traces_need_not_add_up(written):
    data = copy.deepcopy(written.data)
    data["ledger"].update(traces_scored=0, traces_rejected=0)
    validate_results(data)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@settings(derandomize=True)
@given(values)
def test_the_layout_of_the_file_changes_no_value(value):
    assert json.loads(encode(value)) == value


def test_a_table_row_is_a_line_of_the_file(written):
    text = written.paths["results.json"].read_text(encoding="utf-8")
    assert '"rows": [\n' in text and '\n      ["base", 0, 0.0, null],\n' in text
    with pytest.raises(ValueError, match="Out of range"):
        encode({"x": [math.nan]})


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(f"{tmp_path}/x/y.jsonl") == "x/y.jsonl"
    assert relative(f"rlvr={tmp_path}/a=b.jsonl") == "rlvr=a=b.jsonl"
    assert relative(f"{tmp_path}/a=b.jsonl") == "a=b.jsonl"
    assert [relative(w) for w in ("-o", "base=x.jsonl", "0.6,0.95", "")] == ["-o", "base=x.jsonl", "0.6,0.95", ""]
