"""Sources on different problems, from the dump to every page: what is compared, left out, and said first."""

from __future__ import annotations

import json

import pytest

from analyzer.api import pipeline
from analyzer.pages import content, paper
from analyzer.pages.write import summary
from analyzer.runs.store import Run


def report(folder, **solved):
    """Report of dumps with these correct ones of three draws: source -> problem -> correct."""
    specs = []
    for source, own in solved.items():
        rows = [
            {
                "problem": p,
                "question": f"Question {p}?",
                "sample": i,
                "response": f"{source} {p} {i}",
                "correct": c if c is None else i < c,
            }
            for p, c in own.items()
            for i in range(3)
        ]
        path = folder / f"{source}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        specs.append(f"{source}={path}")
    run = Run.create(folder / "run")
    pipeline.ingest(run, specs)
    pipeline.report(run, folder / "out", robustness=False)
    data = json.loads((folder / "out" / "results.json").read_text())
    return data, {n: (folder / "out" / n).read_text() for n in ("report.md", "index.html", "tables/key.tex")}


def test_a_partial_overlap_is_said_and_counted_everywhere(tmp_path):
    base = {f"q{i}": int(i < 5) for i in range(10)}
    rl = {f"q{i}": 2 * (i < 7) for i in range(4, 12)}
    data, pages = report(tmp_path, base=base, rl=rl)
    assert data["sources"]["base"] == {
        "traces": 30,
        "problems": 10,
        "tokens": 0,
        "correct": 5,
        "compared": {"traces": 18, "problems": 6, "left_out": 12, "basis": "common"},
    }
    # q4 of base is solved once in three; q4, q5, q6 of rl twice
    assert data["analyses"]["compared"]["estimates"]["base.pass@1"]["value"] == pytest.approx(1 / 18)
    first = "base and rl share 6 problems: numbers side by side are over these 6."
    assert (
        "| base (reference) | 6 | 18 | 1 | 0.06" in pages["report.md"]
        and "| rl | 6 | 18 | 6 | 0.33" in pages["report.md"]
    )
    assert (
        "base (reference) & 0.06" in pages["tables/key.tex"]
        and "Traces: 18." in pages["tables/key.tex"]
        and first in pages["tables/key.tex"]
    )
    assert (
        pages["report.md"].splitlines()[2].startswith(f"**{first} Left out of them: base 4 of 10 problems (12 traces)")
    )
    assert f"- {first}" in pages["report.md"]  # the ledger
    assert pages["index.html"].index(first) < pages["index.html"].index('id="verdict"')
    assert summary(data).startswith(first) and paper.paragraph(data, {}).startswith(first)
    assert "compared on 6 problems" in content.subtitle(data, {}, 64)
    assert content.doubts(data)[0] == ("key", True, "problems compared: base 6 of 10, rl 6 of 8")


def test_no_overlap_is_the_first_sentence_and_each_has_its_own_pass_at_k(tmp_path):
    data, pages = report(tmp_path, base={f"a{i}": 1 for i in range(5)}, rl={f"b{i}": 2 for i in range(4)})
    first = "rl and base have no problem in common"
    assert summary(data).startswith(first) and pages["report.md"].splitlines()[2].startswith(f"**{first}")
    assert "| rl, on its own problems | 4 | 12 | 8 | 0.67" in pages["report.md"]
    estimates = data["analyses"]["boundary"]["estimates"]
    assert estimates["rl.pass@3"]["value"] == 1 and estimates["base.pass@1"]["value"] == pytest.approx(1 / 3)
    assert content.doubts(data)[0] == ("key", True, "no problem in common with base: rl")


def test_equal_problems_have_nothing_more_to_say(tmp_path):
    same = {f"q{i}": 1 for i in range(4)}
    data, pages = report(tmp_path, base=same, rl=same)
    assert "compared" not in data["analyses"] and "side by side" not in pages["report.md"].partition("## Key")[0]
    assert data["sources"]["rl"]["compared"] == {"traces": 12, "problems": 4, "left_out": 0, "basis": "common"}


def test_labels_on_a_part_of_the_problems_are_said_wherever_the_numbers_stand(tmp_path):
    """a has labels on 5 of the 10 problems that all have: pass@k of all is over these 5, in words and first."""
    every = {f"q{i}": 2 * (i < 5) for i in range(10)}
    part = {p: c if p < "q5" else None for p, c in every.items()}
    data, pages = report(tmp_path, base=every, a=part, b=every)
    first = "base, a and b have the same 10 problems: numbers side by side are over these 10 at most."
    second = "pass@k is over 5 of the 10 alone: those with labels in every source that has any"
    second += " (with labels: a 5 of 10 problems)."
    assert all(f"| {s} | 5 | 15 | 10 | 0.67" in pages["report.md"] for s in ("base (reference)", "a", "b"))
    for page in pages.values():
        assert first in page and second in page
    assert summary(data).startswith(f"{first}\n{second}")
    assert "90 traces on 10 problems, pass@k on 5 ·" in content.subtitle(data, {}, 64)
    assert content.doubts(data)[0] == ("key", True, "pass@k on 5 (with labels: a 5 of 10 problems)")
    assert content.doubts(data)[1] == ("ledger", False, "no row rejected")


def test_labels_on_no_common_problem_are_said(tmp_path):
    low, high = ({f"q{i}": 1 if (i < 4) == one else None for i in range(10)} for one in (True, False))
    data, _ = report(tmp_path, base=low, a=high)
    assert "No problem has labels in all sources: pass@k is over different problems in each row" in summary(data)
    assert "(base 4 of 10, a 6 of 10; with labels: base 4 of 10 problems, a 6 of 10 problems)" in summary(data)


def test_one_source_apart_leaves_the_others_numbers_where_they_are(tmp_path):
    names = {"base": range(10), "a": range(8), "b": range(6, 14), "c": range(20, 24)}
    data, pages = report(tmp_path, **{s: {f"q{i}": 1 for i in own} for s, own in names.items()})
    first = "c and base have no problem in common: nothing is compared between them, and c has its numbers over its own"
    assert summary(data).startswith(f"{first} problems (c 4).")
    assert "base, a and b share 2 problems: numbers side by side are over these 2." in summary(data)
    assert (
        "| base (reference) | 2 | 6 |" in pages["report.md"]
        and "| c, on its own problems | 4 | 12 |" in pages["report.md"]
    )
    same = {f"q{i}": 1 for i in range(3)}
    (tmp_path / "same").mkdir()
    data, _ = report(tmp_path / "same", base=same, a=same, c={"z": 1})
    assert "base and a have the same 3 problems: numbers side by side are over these 3." in summary(data)


@pytest.mark.parametrize("apart", [{}, {"c": {"z": 1}}])
def test_two_halves_of_the_reference_are_not_the_same_problems(tmp_path, apart):
    """Nothing is left out of any source, and yet a and b are compared on different problems."""
    half = {s: {f"q{i}": 1 for i in own} for s, own in {"a": range(3), "b": range(3, 6)}.items()}
    data, pages = report(tmp_path, base=half["a"] | half["b"], **half, **apart)
    said = "No problem is in all of base, a and b: key numbers are of pairs, a source and base over the problems"
    assert said in summary(data) and said in pages["report.md"] and said in paper.paragraph(data, {})
    assert "have the same" not in summary(data) and "eft out" not in summary(data).partition("source ")[0]
    if not apart:
        assert "36 traces, compared on problems shared in pairs" in content.subtitle(data, {}, 64)
        assert content.doubts(data)[0] == ("key", True, "no problem is in all sources: compared in pairs")
