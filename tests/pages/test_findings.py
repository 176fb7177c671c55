"""What the first screen and the panels say: the title, the finding of each analysis, the two sources side by side."""

from __future__ import annotations

import copy

from analyzer.pages import content, findings


def test_the_title_says_what_the_report_says(written):
    data = copy.deepcopy(written.data)
    said = "Against base: cool inside, rlvr reweighted, distill/v1 α (answer) outside, 1 not decided"
    assert content.title(data, {}) == said and content.title(data, {"title": "Mine"}) == "Mine"
    for v in data["verdicts"]:
        v["verdict"] = "undetermined"
    assert content.title(data, {}).endswith(" against base: not decided")
    data["verdicts"] = []
    assert content.title(data, {}).endswith(" against base: no verdict")
    data["sources"] = {"base": data["sources"]["base"]}
    assert content.title(data, {}) == "base alone: what it solves and how it writes"
    assert content.question(data, {}, 64) == "What does base hold?"


def test_many_sources_are_counted_in_the_title(written):
    data = copy.deepcopy(written.data)
    one = next(v for v in data["verdicts"] if v["headline"])
    names = [f"s{i}" for i in range(9)]
    data["sources"] = dict.fromkeys(["base", *names], data["sources"]["base"])
    data["verdicts"] = [one | {"source": s, "verdict": "inside", "level": "sequence"} for s in names]
    assert content.title(data, {}) == "Against base: 9 sources inside"
    assert content.question(data, {}, 8) == "Could 8 draws of base have given what the 9 sources write?"


def test_findings_are_sentences_with_the_numbers_of_the_file(written):
    say = findings.said(written.data, "support", 64)
    assert say.startswith("Probability mass, by whole traces, beyond 64 times the base's: ") and "rlvr 0.837" in say
    assert findings.said(written.data, "boundary", 64).startswith("Problems solved (pass@256): base (reference) ")
    assert findings.said(written.data, "preflight", 64) == findings.said(written.data, "unknown", 64) == ""


def test_a_source_that_a_check_refused_has_no_finding(written):
    data = copy.deepcopy(written.data)
    for v in data["verdicts"]:
        if v["source"] == "rlvr":
            v["why"] = ["no verdict: a check before the tests failed"]
    assert "rlvr" not in findings.said(data, "support", 64)


def test_two_sources_beside_each_other_only_without_the_reference(written):
    says = "a against b (9 problems): is right more often (+0.2 [+0.1, +0.3] x), is longer (+3 y), is z (+1 w)"
    pairs = {"columns": ["a", "b", "says"], "rows": [["a", "base", "other"], ["a", "b", says]]}
    data = copy.deepcopy(written.data)
    data["analyses"]["paired"] = {"notes": [f"{says}"], "tables": {"pairs": pairs}}
    first = "a against b (9 problems): is right more often (+0.2 [+0.1, +0.3] x), is longer (+3 y)"
    assert findings.between(data) == first and findings.said(data, "paired", 64) == f"{first}."
    pairs["rows"] = [["a", "base", says]]
    assert findings.between(data) == ""


def test_the_first_screen_has_the_prefix_curve_or_what_draws_contain():
    both = {"support": {"prefix": 1}, "contained": {"contained": 1}, "boundary": {"pass_at_k": 1}}
    assert findings.pictures(both) == [("support", "prefix"), ("boundary", "pass_at_k")]
    assert findings.pictures({"contained": {"contained": 1}}) == [("contained", "contained")]
    assert findings.pictures({}) == []
    assert findings.shown("support", ["kinds", "reach"]) == ["reach"] and findings.shown("other", ["x", "y"]) == ["x"]
