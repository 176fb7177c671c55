"""A report from texts alone leads with what is solved and what draws contain, not with the word of the tokens."""

from __future__ import annotations

import copy

import pytest

from analyzer.pages import content, document, html, lead, markdown, terminal

SURE = {"n": 40, "method": "", "note": ""}
ROW = {"k": 8, "low": 0.86, "high": 0.963, "note": "", "source": "rlvr"}


@pytest.fixture
def alone(written):
    data = copy.deepcopy(written.data)
    kept = {"value": 0.54, "low": 0.4, "high": 0.6, **SURE}
    numbers = {f"{s}.pass@{k}": kept | {"value": v} for s, k, v in (("rlvr", 1, 0.54), ("rlvr", 8, 0.97))}
    numbers |= {f"{s}.pass@{k}": kept | {"value": v} for s, k, v in (("base", 1, 0.55), ("base", 8, 0.98))}
    gaps = {"rlvr-base.pass_rate": kept | {"value": -0.01, "low": -0.07, "high": 0.05}}
    gaps |= {"rlvr-base.pass@8": kept | {"value": -0.004, "low": -0.07, "high": 0.04}}
    rows = [ROW | {"level": "skeleton", "contained": 0.607, "own": 0.524}]
    rows += [ROW | {"level": "steps", "contained": 0.9465, "own": 0.876}]
    table = {"columns": list(rows[0]), "rows": [list(r.values()) for r in rows]}
    one = {"question": "", "estimates": {}, "tables": {}, "notes": [], "params": {}}
    data["analyses"] = {
        "boundary": one | {"estimates": numbers},
        "paired": one | {"estimates": gaps},
        "contained": one | {"tables": {"levels": table}},
    }
    said = {"verdict": "undetermined", "why": ["no token probabilities under the base model"], "needs": "--base MODEL"}
    said |= {"source": "rlvr", "reference": "base", "budget": 64}
    data["verdicts"] = [said | {"level": level, "headline": level == "sequence"} for level in ("sequence", "kinds")]
    return data


FIRST = (
    "Share of problems solved with one draw (pass@1): rlvr 0.54, base 0.55, difference −0.01 [−0.07, 0.05]; with the "
    "best of 8 draws (pass@8): rlvr 0.97, base 0.98, difference −0.00 [−0.07, 0.04]"
)
SECOND = (
    "8 draws of base on the same problem include one with the same kinds of steps in the same order for 95% [86%, 96%] "
    "of rlvr's draws (88% of base's own); with the same numbers and signs too for 61% [86%, 96%] of rlvr's draws (52% "
    "of base's own). Brackets are for problems such as these; the reference's own share is no ceiling"
)
THIRD = "Whether rlvr goes beyond the reference is not decided by these draws"


def test_brackets_are_spoken_of_where_there_are_some(alone):
    table = alone["analyses"]["contained"]["tables"]["levels"]
    low = table["columns"].index("low")
    for row in table["rows"]:
        row[low] = None  # too few problems for an interval
    assert lead.sentences(alone, "rlvr", "base")[1].endswith(
        "95% of rlvr's draws (88% of base's own); with the same numbers and signs too for 61% of rlvr's draws (52% of "
        "base's own). The reference's own share is no ceiling"
    )


def test_a_share_of_few_traces_says_of_which(alone):
    """Where most traces hold no formula, 4 % of those that do is no 4 % of the source."""
    table = alone["analyses"]["contained"]["tables"]["levels"]
    table["columns"].append("unknown")
    for row, share in zip(table["rows"], (0.28, 0.697), strict=True):
        row.append(share)
    said = lead.sentences(alone, "rlvr", "base")[1]
    assert "for 95% [86%, 96%] of the 30% of rlvr's draws with a formula (88% of base's own)" in said
    assert "for 61% [86%, 96%] of the 72% of rlvr's draws with a number or formula (52%" in said


def test_numbers_lead_where_no_model_was_given(alone):
    assert lead.sentences(alone, "rlvr", "base") == [FIRST, SECOND]
    lines = terminal.summary(alone).splitlines()
    assert lines[:2] == [f"{FIRST}.", f"{SECOND}."] and lines[2].startswith(f"{THIRD}. What would decide it: --base")
    assert "UNDETERMINED" not in "".join(lines)
    tables = dict.fromkeys(alone["analyses"], {"": "x.csv", "levels": "y.csv"})
    made = document.build(alone, meta={"left_out": []}, figures={}, tables=tables)
    text = markdown.page(made)
    assert 0 < text.index("Share of problems solved") < text.index("include one with") < text.index("UNDETERMINED")
    page = html.page(made)
    assert made["title"].endswith(" against base: not decided")
    assert page.index("Share of problems solved") < page.index("UNDETERMINED") and page.index(THIRD) < page.index(
        "UNDETERMINED"
    )


def test_a_word_that_was_earned_stands_and_a_refusal_too(alone):
    outside = copy.deepcopy(alone)
    outside["verdicts"][0] |= {"headline": False}
    outside["verdicts"][1] |= {"verdict": "outside", "level": "kinds", "headline": True}
    assert lead.certified(outside, "rlvr") == ""
    assert terminal.summary(outside).splitlines()[2].startswith("rlvr is OUTSIDE base's support at the kinds level")
    refused = copy.deepcopy(alone)
    for v in refused["verdicts"]:
        v["why"] = ["no verdict: a check before the tests failed", "prompts of rlvr: 0.5 of its problems"]
    first = terminal.summary(refused).splitlines()[0]
    assert first.endswith("no verdict: a check before the tests failed; prompts of rlvr: 0.5 of its problems.")
    assert lead.sentences(refused, "rlvr", "base") == []  # the numbers that the check disqualifies do not lead


def test_with_a_model_nothing_is_put_before_the_word(written):
    assert lead.sentences(written.data, "rlvr", "base") == []


def test_what_is_not_known_is_said_with_its_reason(alone):
    table = alone["analyses"]["contained"]["tables"]["levels"]
    at = [table["columns"].index(name) for name in ("contained", "note")]
    for row in table["rows"]:
        row[at[0]], row[at[1]] = None, "no number, symbol or code in the text"
    alone["analyses"]["boundary"]["estimates"] = {}
    said = "How much of rlvr is among draws of base can't be said: no number, symbol or code in the text"
    assert lead.sentences(alone, "rlvr", "base") == [said]


def test_what_could_not_be_checked_has_no_tick_and_no_finding_is_called_unchanged(alone):
    def marks(passed, word):
        data = copy.deepcopy(alone)
        rows = [
            {"check": "prompts", "source": "rlvr", "passed": True},
            {"check": "A/A", "source": "", "passed": passed},
        ]
        columns = {"columns": list(rows[0]), "rows": [list(r.values()) for r in rows]}
        one = {"question": "", "estimates": {}, "tables": {}, "notes": [], "params": {}}
        data["analyses"]["preflight"] = one | {"tables": {"checks": columns}}
        data["analyses"]["robustness"] = one | {"estimates": {"rlvr.words_kept": {"value": 1.0, "n": 9}}}
        data["verdicts"][0]["verdict"] = word
        return {section: (bad, text) for section, bad, text in content.doubts(data)}

    assert marks(True, "inside")["a-preflight"] == (False, "2 of 2 checks passed")
    assert marks(None, "inside")["a-preflight"] == (None, "1 of 2 checks passed, 1 not possible")
    assert marks(False, "inside")["a-preflight"][0] is True
    assert marks(True, "inside")["robustness"] == (False, "every verdict unchanged in 9 sensitivity analyses")
    assert "robustness" not in marks(True, "undetermined")
    assert "✓" not in html.DOUBTS[None]
