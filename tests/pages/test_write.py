"""write: every file is there, the same every time, relative, and nothing is lost silently."""

from __future__ import annotations

import csv
import json
import re

import pandas as pd
import pytest

from analyzer.errors import AnalyzerError
from analyzer.pages import write as report
from analyzer.records import Estimate, Figure, Result, Verdict


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_input_same_bytes(written, fake, traces, tmp_path):
    again = fake.inputs()
    report.write(tmp_path / "elsewhere", **again, traces=traces)
    assert files(tmp_path / "elsewhere") == files(written.folder)


def test_returned_paths_exist_and_nothing_partial_is_left(written):
    assert set(written.paths) == {"results.json", "report.md", "index.html", "figures", "tables"}
    assert all(p.exists() for p in written.paths.values())
    assert not [f for f in files(written.folder) if f.endswith(".tmp")]


def test_every_link_leads_to_a_file_and_every_file_is_linked(written):
    linked = set(re.findall(r"\]\(([^)]+)\)", written.markdown))
    assert linked == {f for f in files(written.folder) if f.startswith(("figures/", "tables/"))}
    hrefs = {h for h in re.findall(r'href="([^"]+)"', written.html) if not h.startswith(("#", "data:"))}
    assert hrefs and hrefs <= set(files(written.folder))


def test_file_names_are_safe(written):
    for name in files(written.folder):
        assert re.fullmatch(r"[a-z0-9_./-]+", name), name


def test_csv_of_a_table_equals_results_json(written):
    table = written.data["analyses"]["support"]["tables"]["curve"]
    with (written.folder / "tables/support-curve.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == table["columns"] and len(rows) == len(table["rows"]) == 300
    assert [float(r[2]) for r in rows] == [r[2] for r in table["rows"]]
    assert {r[3] for r in rows} == {""} and {r[3] for r in table["rows"]} == {None}  # infinity is null, never 0


def test_a_figure_that_fails_or_lacks_its_table_is_named(written, fake):
    for page in (written.html, written.markdown):
        assert "boundary, figure broken" in page and "drawing failed: ValueError: no " in page
        assert "boundary, figure nothing" in page and "which this run does not have" in page
    assert not any("broken" in f for f in files(written.folder))


def test_absolute_paths_become_relative(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kwargs = fake.inputs(hostile="teacher")
    kwargs["figures"] = {}
    kwargs["meta"] |= {
        "command": ["analyzer", "report", f"base={tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl", "-o", "x=y"],
        "scorers": {"base": tmp_path / "models" / "base"},
        "inputs": [{"path": f"{tmp_path}/a.jsonl"}],
    }
    paths = report.write(tmp_path / "out", **kwargs)
    for name in ("results.json", "report.md", "index.html"):
        text = paths[name].read_text()
        assert str(tmp_path) not in text and "base=a.jsonl" in text
    assert "models/base" in paths["report.md"].read_text()


def test_without_verdicts_models_or_analyses(tmp_path):
    ledger = {
        "rows": 3,
        "rows_used": 3,
        "rows_rejected": 0,
        "traces": 3,
        "traces_scored": 0,
        "traces_rejected": 0,
        "by_reason": {},
    }
    sources = {"only": {"traces": 3, "problems": 1, "tokens": 0, "correct": None}}
    paths = report.write(
        tmp_path,
        results={},
        verdicts=[],
        ledger=ledger,
        sources=sources,
        figures={},
        meta={"version": "1", "command": ["analyzer"]},
    )
    for name in ("report.md", "index.html"):
        text = paths[name].read_text()
        assert "No verdict" in text and "none scored here: no model was given" in text and "Nothing." in text


def test_a_broken_ledger_is_refused(fake, tmp_path):
    kwargs = fake.inputs(hostile="teacher")
    kwargs["ledger"]["rows"] += 1
    with pytest.raises(AnalyzerError, match="ledger.rows is 1011, but rows_used \\+ rows_rejected is 1010"):
        report.write(tmp_path / "out", **kwargs)
    assert not (tmp_path / "out").exists()


def test_tables_whose_names_meet_in_one_file_name_stay_apart(tmp_path):
    frames = {"a-b": pd.DataFrame({"x": [1]}), "estimates": pd.DataFrame({"x": [2]})}
    results = {
        "one": Result("one", "?", {"base.k": Estimate(1.0)}, frames),
        "one-a": Result("one-a", "?", {}, {"b": pd.DataFrame({"x": [3]})}),
    }
    ledger = {
        "rows": 1,
        "rows_used": 1,
        "rows_rejected": 0,
        "traces": 1,
        "traces_scored": 1,
        "traces_rejected": 0,
        "by_reason": {},
    }
    report.write(
        tmp_path,
        results=results,
        verdicts=[Verdict("b", "base", "sequence", 64, "undetermined", True)],
        ledger=ledger,
        sources={s: {"traces": 1, "problems": 1, "tokens": 1, "correct": 1} for s in ("base", "b")},
        figures={},
        meta={"version": "1", "command": []},
    )
    texts = [p.read_text() for p in (tmp_path / "tables").iterdir()]
    assert sorted(t for t in texts if t.startswith("x")) == ["x\n1\n", "x\n2\n", "x\n3\n"]
    assert any(t.startswith("key,value,low,high,n,method,note\nbase.k,1.0") for t in texts)


def test_lone_surrogates_of_a_broken_dump_do_not_stop_the_report(fake, tmp_path):
    kwargs = fake.inputs(hostile="teacher")
    kwargs["meta"]["decisions"] = kwargs["meta"]["notes"] = ["half \ud83d pair"]
    kwargs["ledger"]["by_reason"]["half \ud83d pair"] = 0
    title = Figure(lambda r, ax: ax.set_title("half \ud83d pair"), "pass_at_k", lambda r: "n = 64")
    kwargs["figures"] = {"boundary": {"curve": title}}
    paths = report.write(tmp_path, **kwargs)
    for name in ("report.md", "index.html", "results.json"):
        assert "half \\ud83d pair" in paths[name].read_text(encoding="utf-8")
    assert json.loads(paths["results.json"].read_bytes())["ledger"]["by_reason"]["half \ud83d pair"] == 0
