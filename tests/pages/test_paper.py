"""What goes into a paper, and what verdicts were tested against: the file's numbers, text that LaTeX survives."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.pages import content, methods, paper

PAGE = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs}
\setlength{\textwidth}{6.75in}\setlength{\columnsep}{0.25in}
\begin{document}
\input{key}
\end{document}
"""


def test_the_paragraph_names_every_headline_with_its_numbers(written):
    text = paper.paragraph(written.data, {})
    assert (
        text.startswith("We compared rlvr, distill/v1 α, ")
        and "with samples of base on 64 problems (2,000 traces" in text
    )
    numbers = "beyond@64 0.837 [0.802, 0.868], hurdle share@64 0.011 [0.005, 0.022], horizon@64 13.5 [10.7, ∞] tokens"
    numbers += ", n = 64 traces"
    assert f"rlvr is REWEIGHTED from base at the sequence level (budget 64) ({numbers})." in text
    assert "hurdle share@64 0.42 [0.21, 0.84], horizon@64 not reached, n = 64 traces)" in text
    assert (
        text.count("(budget 64)") == len(content.headlines(written.data)) and "10 of 1,010 rows were rejected" in text
    )


def test_the_latex_table_has_even_rows_and_no_bare_special_character(written):
    text = paper.latex(written.data, {})
    found = re.findall(r"begin\{tabular\}\{@\{\}(\w+)@\{\}\}\n\\toprule(.*?)\\bottomrule", text, flags=re.S)
    assert len(found) == 2  # what is solved, what the base model says
    for columns, body in found:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 1 + len(written.data["sources"]) and len(columns) <= 6
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    assert re.search(r"^rlvr & .* & reweighted \\\\\n & \[.* & \(sequence\) \\\\$", text, flags=re.M)
    assert "Problems: " in text and "Traces: " in text  # n stands in the caption
    assert written.folder.joinpath("tables/key.tex").read_text() == text


def test_a_label_in_brackets_is_no_argument_of_a_line_break(written):
    for label in ("[new] model", "*"):
        data = json.loads(json.dumps(written.data).replace('"rlvr', f'"{label}'))
        assert f"{{}}{label} & " in paper.latex(data, {})


@pytest.mark.skipif(os.environ.get("TEX") != "1", reason="set TEX=1 to compile key.tex (make test-tex; needs pdflatex)")
def test_the_tables_compile_and_fit_one_of_two_columns(root, tmp_path):
    """The committed report in a column of 3.25 inches, with labels of every special character of LaTeX."""
    text = (root / "reports" / "miniature" / "results.json").read_text()
    for old, new in {"rlvr": "a_b & 50% #1", "distill": r"[x] {~^\\$}"}.items():
        text = text.replace(f'"{old}"', f'"{new}"').replace(f'"{old}.', f'"{new}.')
    (tmp_path / "key.tex").write_text(paper.latex(json.loads(text), {}))
    (tmp_path / "page.tex").write_text(PAGE)
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout, done.stdout[-3000:]


@settings(derandomize=True)
@given(st.text())
def test_escaped_latex_has_no_command_but_ours(text):
    out = paper.tex(text)
    ours = re.sub(r"\\text\w+\{\}|\$\\infty\$|\$-\$|\\[{}$&#%_]", "", out)
    assert not re.search(r"[\\{}$&#%_~^]", ours) and "\n" not in out


def test_robustness_shows_only_what_analyses_provide(written):
    assert methods.robustness(written.data, budget=64).rows == []
    assert (
        "No analysis of this run tested its own verdicts." in written.html and "Not varied in this run" in written.html
    )
    data = copy.deepcopy(written.data)
    data["analyses"]["preflight"] = {
        "tables": {
            "checks": {
                "columns": ["check", "source", "value", "limit", "passed", "gates", "note"],
                "rows": [["base", "", 0, 1, True, True, ""], ["policy", "rlvr", 1, 0, False, True, ""]]
                + [["engine floor", "cool", None, 64, None, False, ""]],
            },
            "a_a": {
                "columns": ["level", "p", "p_holm", "certified", "n"],
                "rows": [["sequence", 0.4, 1.0, False, 9], ["answer", 0.01, 0.03, True, 9]],
            },
        }
    }
    said = dict(methods.robustness(data, budget=64).rows)
    assert (
        said["checks before the tests"]
        == "1 of 3 passed; failed: policy on its own traces (rlvr); not possible: engine floor (cool)"
    )
    assert said["A/A, sequence: half of the reference against the other"] == "no alarm, p = 0.4"
    assert said["A/A, answer: half of the reference against the other"] == "ALARM: called outside, p = 0.01"


def test_the_answer_in_one_line(written, fake):
    assert content.short(written.data) == [
        ("inside", ["cool"]),
        ("reweighted", ["rlvr"]),
        ("outside", ["distill/v1 α (answer)"]),
        ("undetermined", [fake.HOSTILE]),
    ]
    verdict = {"why": ["E_64 = 0.1 over 9 traces. ", " "]}
    assert content.reasons(verdict) == ["reach@64 = 0.1 over 9 traces"]
