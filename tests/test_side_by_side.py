"""Sources on different problems, from the dump to every page: what is compared, left out, and said first."""

from __future__ import annotations

import json

import pytest

from analyzer import pipeline
from analyzer.report import content, paper, summary
from analyzer.store import Run


def report(folder, **solved):
    """Report of dumps with these correct ones of three draws: source -> problem -> correct."""
    specs = []
    for source, own in solved.items():
        rows = [
            {"problem": p, "question": f"Question {p}?", "sample": i, "response": f"{source} {p} {i}", "correct": i < c}
            for p, c in own.items()
            for i in range(3)
        ]
        path = folder / f"{source}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        specs.append(f"{source}={path}")
    run = Run.create(folder / "run")
    pipeline.ingest(run, specs)
    pipeline.report(run, folder / "out", vary=False)
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
    assert "base (reference) & 6 & 18 & 1 & 0.06" in pages["tables/key.tex"] and first in pages["tables/key.tex"]
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
