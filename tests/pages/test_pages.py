"""report.md, the terminal and the wording they share."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import records
from analyzer.analysis import robustness
from analyzer.analysis.support import evidence
from analyzer.pages import content, document, key, ledgers, markdown, paper, terminal, wording
from analyzer.records import HURDLED, Trace, display


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
    for word in wording.WORDS:
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
        (0.0, 0.0, 0.0, "0 [0, 0]"),
        (0.25, 0.25, 0.25, "0.2500 [0.2500, 0.2500]"),
        (-3.1, -3.4, -2.8, "−3.10 [−3.40, −2.80]"),
        (None, None, None, "–"),
    ],
)
def test_intervals_carry_no_more_digits_than_they_support(value, low, high, text):
    assert content.interval({"value": value, "low": low, "high": high}) == text
    assert display.numeric(text)


def test_cells():
    assert [display.cell(v) for v in (None, True, 3, 0.123456, 2.0, "x", [1, 2.5], {"a": None})] == [
        "–",
        "yes",
        "3",
        "0.1235",
        "2",
        "x",
        "1, 2.5",
        "a: –",
    ]
    assert display.cell("y" * 1000) == "y" * display.LONG + " … (1000 characters)"
    assert not display.numeric("3 sheep") and display.numeric("1,010") and display.numeric("1e-05")


def test_key_table_puts_the_reference_first_and_explains_gaps(written, fake):
    data = copy.deepcopy(written.data)
    data["sources"] = dict(reversed(data["sources"].items()))
    (solved_title, solved), (scored_title, scored) = key.tables(data, budget=64)
    assert (solved_title, scored_title) == (key.SOLVED, key.SCORED)
    assert [row[0] for row in solved.rows][:2] == [row[0] for row in scored.rows][:2] == ["base (reference)", "cool"]
    assert solved.columns == ["source", "problems", "traces", "correct", "pass@1", "pass@256"]
    columns = ["median ppl", "nats per token", "beyond@64", "hurdle share@64", "horizon@64"]
    assert scored.columns == ["source", "scored", "tokens", *columns]
    assert scored.rows[-1][-3:] == ["0.837 [0.802, 0.868]", "0.011 [0.005, 0.022]", "13.5 [10.7, ∞]"]
    assert solved.notes == ["cool, correct: no labels"]
    numbers = "beyond@64, hurdle share@64, horizon@64"
    assert scored.notes == [
        f"base, {numbers}: it is the reference, which the others are compared with",
        f"cool, {numbers}: not scored under the base",
        f"{fake.HOSTILE}, {numbers}: the model that produced {fake.HOSTILE} is not known",
        "distill/v1 α, horizon@64: beyond the traces: the excess ends at 0.437",
    ]


def test_pass_at_k_stands_at_a_k_that_every_row_has(written):
    """One source has fewer draws: the column is the largest k of all, not each source's own."""
    data = copy.deepcopy(written.data)
    del data["analyses"]["boundary"]["estimates"]["rlvr.pass@256"]
    assert key.tables(data, budget=64)[0][1].columns[-2:] == ["pass@1", "pass@64"]


def test_every_row_of_a_key_table_is_over_one_set_of_traces(written):
    """Traces with a label and traces that were scored have tables of their own, each with its counts; a number over
    fewer says so."""
    data = copy.deepcopy(written.data)
    names = ["source", "step", "rows", "problems", "problems_joined", "rows_joined", "correct_joined"]
    rows = [[s, None, 400, 64, 60, 390, 90] for s in data["sources"]]
    data["analyses"]["boundary"]["tables"]["accuracy"] = {"columns": names, "rows": rows}
    names, rows = ["source", "n", "problems", "tokens"], [[s, 64, 16, 2000] for s in data["sources"]]
    data["analyses"]["perplexity"]["tables"]["sources"] = {"columns": names, "rows": rows}
    (_, solved), (_, scored) = key.tables(data, budget=64)
    assert solved.rows[0][1:4] == ["60", "390", "90"] and solved.rows[0][4].endswith("(n = 64)")
    assert scored.columns[:4] == ["source", "problems", "scored", "tokens"]
    assert scored.rows[1][1:4] == ["16", "64", "2,000"] and not any("n =" in c for c in scored.rows[1])
    assert all(display.numeric(c) for row in solved.rows for c in row[1:])


def compared(data, **kinds):
    """`data` whose sources have these bases: (basis, problems compared, of)."""
    data = copy.deepcopy(data)
    data["sources"] = {
        s: data["sources"][s]
        | {"problems": of, "compared": {"basis": kind, "problems": n, "traces": 4 * n, "left_out": 4 * (of - n)}}
        for s, (kind, n, of) in kinds.items()
    }
    data["verdicts"] = [v for v in data["verdicts"] if v["source"] in kinds]
    return data


def test_what_is_left_out_of_the_comparison_is_said_first(written):
    part = compared(written.data, base=("common", 6, 10), rlvr=("common", 6, 8))
    [said] = key.basis(part, {})
    assert said.startswith(
        "base and rlvr share 6 problems: numbers side by side are over these 6. Left out of them: base 4 of 10 "
        "problems (16 traces), rlvr 2 of 8 problems (8 traces)."
    )
    apart = compared(written.data, base=("own", 6, 6), rlvr=("own", 5, 5))
    [alone] = key.basis(apart, {})
    assert alone.startswith("rlvr and base have no problem in common") and "(base 6, rlvr 5)" in alone
    pairs = compared(written.data, base=("pair", 9, 9), rlvr=("pair", 4, 6), cool=("pair", 5, 5))
    assert key.basis(pairs, {})[0].startswith("No problem is in all of base, rlvr and cool: key numbers are of pairs")
    for data, first in ((part, said), (apart, alone)):
        assert terminal.summary(data).startswith(first) and paper.paragraph(data, {}).startswith(first)
        assert first in paper.latex(data, {})
        made = document.build(data, meta={"left_out": []}, figures={}, tables=no_tables(data))
        lines = markdown.page(made).splitlines()
        assert lines[2] == f"**{first}**" and f"- {first}" in lines  # below the title, and in the ledger
        assert content.doubts(data)[0][1:2] == (True,)
    assert key.basis(compared(written.data, base=("common", 9, 9), rlvr=("common", 9, 9)), {}) == []


def no_tables(data):
    """Paths of tables that nobody opens."""
    analyses = data["analyses"].items()
    return {name: dict.fromkeys([content.ALL, *found["tables"]], "x.csv") for name, found in analyses}


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


def test_numbers_side_by_side_over_unequal_counts_have_their_n():
    number = {"low": None, "high": None, "note": ""}
    values = {"a.x": (0.5, 100), "b.x": (0.25, 1200), "a.y": (1.0, 7), "b.y": (2.0, 7), "a.z": (3.0, 5)}
    estimates = {key: number | {"value": value, "n": n} for key, (value, n) in values.items()}
    grid = content.pivot({"estimates": estimates}, ["a", "b"])
    assert grid.rows == [["x", "0.5 (n = 100)", "0.25 (n = 1,200)"], ["y", "1", "2"], ["z", "3", "–"]]
    assert all(display.numeric(c) for row in grid.rows for c in row[1:])


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
    assert ledgers.sentences(ledger) == [
        "10 rows read = 7 used + 3 rejected.",
        "7 traces = 5 scored + 2 not scored.",
        "1 of the rejected carry no reason.",
    ]


def test_rows_beyond_a_limit_are_not_rejected():
    ledger = {"rows": 15, "rows_used": 9, "rows_rejected": 6, "traces": 1, "traces_scored": 0, "traces_rejected": 0}
    ledger["by_reason"] = {"no response": 1, "of problems beyond --limit 2": 5}
    assert ledgers.sentences(ledger) == [
        "15 rows read = 9 used + 1 rejected + 5 of problems beyond --limit 2.",
        "1 trace, none scored here: no model was given.",
    ]
    said = content.doubts({"ledger": ledger, "sources": {}, "analyses": {}, "verdicts": []})
    assert said == [("ledger", True, "1 of 15 rows rejected, a look only: 5 rows of problems beyond --limit 2")]
    one = {**ledger, "rows": 1, "rows_used": 1, "rows_rejected": 0, "by_reason": {}}
    assert ledgers.sentences(one)[0] == "1 row read = 1 used + 0 rejected."


def test_markdown_shows_hostile_text_as_text(written):
    outside_code = re.sub(r"(`+) .*? \1(?= \|)", "", written.markdown)
    assert "<img" not in outside_code and "</script" not in outside_code and "\n\n\n" not in written.markdown
    title = "# Against base: cool inside, rlvr reweighted, distill/v1 α (answer) outside, 1 not decided"
    assert written.markdown.startswith(f"{title}\n\nrlvr, ")
    order = ["## Verdict", "## Key numbers", "## Support: sequences", "## Robustness", "## Ledger", "## Methods"]
    places = [written.markdown.index(f"\n{heading}\n") for heading in order]
    assert places == sorted(places)
    assert (
        "- **distill/v1 α is OUTSIDE base's support at the answer level (budget 64)**: 12 problems" in written.markdown
    )


def test_the_words_are_those_of_the_records():
    """One list: texts, marks, colours and what would overturn each; the shares that the texts name are the rules'."""
    for table in (wording.WORDS, wording.OVERTURN, terminal.WORD_COLORS, display.MARKS, robustness.LOOK):
        assert tuple(table) == records.WORDS
    assert len(set(display.MARKS.values())) == len(set(terminal.WORD_COLORS.values())) == len(records.WORDS)
    share = f"{100 * HURDLED:.0f} % of the traces hold a step"
    assert all(share in wording.WORDS[word] for word in ("sharpened", "reweighted", "outside"))
    assert evidence.EXPLAINED == 0.5 and all("half" in wording.WORDS[w] for w in ("sharpened", "reweighted"))


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
    assert any(re.match(r"rlvr +64 +400 +101 +0.21 +0.50$", line) for line in lines)
    shown = "\n".join(lines)  # beyond 80 columns the rest follows below
    assert re.search(r"^rlvr +64 +51,235 +2.80$", shown, re.M) and "[0.802, 0.868]" in shown
    assert re.search(r"^rlvr +0.837 +0.011 \[0.005, 0.022\] +13.5 \[10.7, ∞\]$", shown, re.M)
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
    assert re.search(r"^quantity +base +rlvr$", text, re.M)  # the others follow below
    assert re.search(r"^quantity +distill/v1 α +wide 基础 +cool$", text, re.M)
    assert "– base.crossover_k: the reference does not cross itself" in text


def test_a_table_in_the_terminal_is_wrapped_and_never_cut():
    said = "rlvr against distill (64 problems): is right more often (+0.24 [+0.16, +0.32] share correct) " * 3
    grid = content.Grid(["a", "b", "says"], [["rlvr", "基础" * 20, said], ["x", "", "short"]], [])
    lines = terminal.columns(grid)
    assert max(map(terminal._width, lines)) <= terminal.WIDTH and not any("…" in line for line in lines)
    at = terminal._width(lines[0].partition("says")[0])
    shown = " ".join(line[at - line.count("基") - line.count("础") :] for line in lines[1:-1])  # these are two wide
    assert shown.split() == said.split()
    assert "".join(re.findall("[基础]", "".join(lines))) == "基础" * 20
    many = content.Grid(
        ["key", *(f"c{i}" for i in range(30))], [["k", *(f"0.{i:02d} [0.10, 0.90]" for i in range(30))]], []
    )
    lines = terminal.columns(many)
    assert max(map(len, lines)) <= terminal.WIDTH and "".join(lines).count("[0.10, 0.90]") == 30
    assert all(f"0.{i:02d}" in "".join(lines) for i in range(30))
    assert terminal.columns(content.Grid(["a"], [["x" * 300]], [])) == ["a", *["x" * 80] * 3, "x" * 60]
    assert terminal.columns(content.Grid(["a", "n"], [["x  y", "1"]], [])) == ["a     n", "x  y  1"]


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
    assert "\n\nHello⟦ there⟧⟦⟦\n world⟧⟧ \\x1b[31m\n\n" in text
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
