"""report.md, the terminal and the wording they share."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import display, records, robustness
from analyzer.analyses import evidence
from analyzer.records import Trace
from analyzer.report import content, markdown, terminal


def verdict(word: str, **more) -> dict:
    return {
        "source": "distill",
        "reference": "base",
        "verdict": word,
        "level": "sequence",
        "budget": 64,
        "headline": True,
        "why": ["a.", " ", "b"],
        "needs": None,
        **more,
    }


def test_sentences():
    say = content.statement
    assert say(verdict("outside")) == "distill is OUTSIDE base's support at the sequence level (budget 64)"
    assert (
        say(verdict("inside", reference="models", level="answer"))
        == "distill is INSIDE models' support at the answer level (budget 64)"
    )
    assert say(verdict("sharpened")) == "distill is SHARPENED from base at the sequence level (budget 64)"
    assert say(verdict("reweighted")) == "distill is REWEIGHTED from base at the sequence level (budget 64)"
    assert say(verdict("undetermined")).startswith("distill is UNDETERMINED with respect to base's support at the")
    assert content.reasons(verdict("inside")) == ["a", "b"]
    assert content.overturn(verdict("outside", needs="more problems. ")) == "What would overturn it: more problems."
    assert content.overturn(verdict("undetermined")).startswith("What would decide it: more problems")
    for level in ("skeleton", "steps", "kinds"):
        assert "written otherwise" in content.overturn(verdict("outside", level=level))
    assert "written otherwise" not in content.overturn(verdict("outside", level="correct"))
    for word in content.WORDS:
        text = content.overturn(verdict(word))
        assert text.endswith(".") and "{" not in text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.31234, 0.2512, 0.374, "0.31 [0.25, 0.37]"),
        (0.3012, 0.3001, 0.3023, "0.3012 [0.3001, 0.3023]"),
        (1234.5, 1100.0, 1400.0, "1234 [1100, 1400]"),
        (0.5, None, None, "0.5"),
        (20.0, 12.0, None, "20.0 [12.0, ∞]"),
        (1.0, 1.0, 1.0, "1 [1, 1]"),
        (-3.1, -3.4, -2.8, "−3.10 [−3.40, −2.80]"),
        (None, None, None, "–"),
    ],
)
def test_intervals_carry_no_more_digits_than_they_support(value, low, high, text):
    assert content.interval({"value": value, "low": low, "high": high}) == text
    assert content.numeric(text)


def test_cells():
    assert [content.cell(v) for v in (None, True, 3, 0.123456, 2.0, "x", [1, 2.5], {"a": None})] == [
        "–",
        "yes",
        "3",
        "0.1235",
        "2",
        "x",
        "1, 2.5",
        "a: –",
    ]
    assert content.cell("y" * 1000) == "y" * content.LONG + " … (1000 characters)"
    assert not content.numeric("3 sheep") and content.numeric("1,010") and content.numeric("1e-05")


def test_key_table_puts_the_reference_first_and_explains_gaps(written, fake):
    data = copy.deepcopy(written.data)
    data["sources"] = dict(reversed(data["sources"].items()))
    grid = content.key_table(data, budget=64)
    assert [row[0] for row in grid.rows][:2] == ["base (reference)", "cool"]
    assert grid.columns == [
        "source",
        "traces",
        "problems",
        "correct",
        "tokens",
        "median ppl",
        "nats per token",
        "pass@1",
        "pass@256",
        "beyond@64",
        "hurdle share@64",
        "horizon@64",
    ]
    assert grid.rows[-1][-3:] == ["0.837 [0.802, 0.868]", "0.011 [0.005, 0.022]", "13.5 [10.7, ∞]"]
    numbers = "beyond@64, hurdle share@64, horizon@64"
    assert grid.notes == [
        "cool, correct: no labels",
        f"base, {numbers}: the others are held against it",
        f"cool, {numbers}: not scored under the base",
        f"{fake.HOSTILE}, {numbers}: the model that produced {fake.HOSTILE} is not known",
        "distill/v1 α, horizon@64: beyond the traces: the excess ends at 0.437",
    ]
    del data["analyses"]["boundary"]["estimates"]["rlvr.pass@256"]
    mixed = content.key_table(data, budget=64)
    assert "pass@max" in mixed.columns and any("(k = 64)" in c for row in mixed.rows for c in row)


def test_pivot_takes_the_longest_label(written):
    analysis = {
        "estimates": {
            k: {"value": float(i), "low": None, "high": None, "note": ""}
            for i, k in enumerate(["a.x", "a.b.x", "joint.x"])
        }
    }
    grid = content.pivot(analysis, ["a", "a.b"])
    assert grid.columns == ["quantity", "a", "a.b", "all"]
    assert grid.rows == [["x", "0", "1", "–"], ["joint.x", "–", "–", "2"]]


def test_ledger_lines_say_what_has_no_reason():
    ledger = {
        "rows": 10,
        "rows_used": 7,
        "rows_rejected": 3,
        "traces": 7,
        "traces_scored": 5,
        "traces_rejected": 2,
        "by_reason": {"x": 4},
    }
    assert content.ledger_lines(ledger) == [
        "10 rows read = 7 used + 3 rejected.",
        "7 traces = 5 scored + 2 not scored.",
        "1 of the rejected carry no reason.",
    ]


def test_markdown_shows_hostile_text_as_text(written):
    outside_code = re.sub(r"(`+) .*? \1(?= \|)", "", written.markdown)
    assert "<img" not in outside_code and "</script" not in outside_code and "\n\n\n" not in written.markdown
    assert written.markdown.startswith("# Inside or outside the support of base?\n\nrlvr, ")
    assert (
        written.markdown.index("## Verdict")
        < written.markdown.index("## Key numbers")
        < written.markdown.index("## Ledger")
    )
    assert (
        "- **distill/v1 α is OUTSIDE base's support at the answer level (budget 64)**: 12 problems" in written.markdown
    )


def test_the_words_are_those_of_the_records():
    """One list: texts, marks, colours and what would overturn each; the shares that the texts name are the rules'."""
    for table in (content.WORDS, content.OVERTURN, terminal.WORD_COLORS, display.MARKS, robustness.LOOK):
        assert tuple(table) == records.WORDS
    assert len(set(display.MARKS.values())) == len(set(terminal.WORD_COLORS.values())) == len(records.WORDS)
    share = f"{100 * evidence.HURDLED:.0f} % of the traces hold a step"
    assert all(share in content.WORDS[word] for word in ("sharpened", "reweighted", "outside"))
    assert evidence.EXPLAINED == 0.5 and all("half" in content.WORDS[w] for w in ("sharpened", "reweighted"))


def test_markdown_tables_have_even_rows(written):
    for block in re.findall(r"(?:^\|.*\n)+", written.markdown, re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


@settings(derandomize=True)
@given(st.text())
def test_escaped_markdown_has_no_markup(text):
    out = markdown.esc(text)
    assert "\n" not in out and "<" not in out and ">" not in out
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|$~]", re.sub(r"\\[`*\[\]|$~#_]", "", out).replace("\\\\", ""))


def test_summary_in_the_terminal(written, fake):
    plain = terminal.summary(written.data, directory="out/")
    lines = plain.splitlines()
    assert (
        lines[0]
        == "rlvr is REWEIGHTED from base at the sequence level (budget 64): whole traces beyond 64 draws: 0.837 (at "
        "least 0.811) over 512 traces, at T=1."
    )
    assert lines[-1] == "Report: out/index.html (and report.md, results.json, figures/, tables/)"
    assert "1,010 rows read = 1,000 used + 10 rejected." in lines and "\x1b" not in plain
    numbers = r"0.837 \[0.802, 0.868\] +0.011 \[0.005, 0.022\] +13.5 \[10.7, ∞\]"
    assert any(re.match(rf"rlvr +400 +2.80 +0.21 +0.50 +{numbers}$", line) for line in lines)
    assert "– distill/v1 α, horizon@64: beyond the traces: the excess ends at 0.437" in lines
    coloured = terminal.summary(written.data, colour=True)
    assert "\x1b[1;35mREWEIGHTED\x1b[0m" in coloured and "Report:" not in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines() == lines[:-1]


def test_terminal_escapes_of_a_dump_are_not_passed_on(written):
    text = json.dumps(written.data).replace("rlvr", "rl\\u001b[31mvr")
    assert "\x1b" not in terminal.summary(json.loads(text))


def test_tables_in_the_terminal(fake):
    text = terminal.tables(fake.inputs(hostile="wide 基础")["results"], [{"analysis": "steps", "why": "no step"}])
    assert "BOUNDARY: What can be solved in k tries?" in text and "curve (300 rows, first 20 shown)" in text
    assert text.endswith("Left out: steps: no step")
    assert re.search(r"^quantity +base +rlvr +distill/v1 α +wide 基础 +cool$", text, re.M)
    assert "– base.crossover_k: the reference does not cross itself" in text


def columns(**more) -> dict:
    return {
        "logprob": np.array([-0.1, -4.0, -7.0, -2.0]),
        "rank": np.array([1, 5, 100, 2]),
        "entropy": np.array([1.0, 2, 3, 4]),
        "token": np.array([11, 12, 13, 14]),
        "offset": np.array([0, 5, 11, 18]),
        **more,
    }


def test_a_trace_in_the_terminal():
    item = Trace("rlvr", "p", 0, "Hello there\n world \x1b[31m", correct=True, finish="stop")
    text = terminal.trace(item, columns())
    assert text.startswith("rlvr/p/0: 4 tokens, 13.1 nats, 3.275 nats per token, correct, finish stop\n")
    assert "\n\nHello⟦ there⟧⟦⟦\n world⟧⟧ \ufffd[31m\n\n" in text
    assert "\x1b" not in text and re.search(r"^2 +7.00 +100 +3.00 +'\\n world'$", text, re.M)
    coloured = terminal.trace(item, columns(), colour=True)
    assert (
        "\x1b[30;48;5;215m there\x1b[0m" in coloured
        and "Hello\x1b" in coloured
        and "⟦" not in coloured.split("\n\nMost")[0]
    )


def test_a_trace_without_offsets_shows_ids():
    text = terminal.trace(Trace("a", "p", 1, "xyz"), columns(offset=np.array([0, -1, -1, -1])))
    assert "<11>⟦<12>⟧⟦⟦<13>⟧⟧<14>" in text and "correctness unknown" in text
