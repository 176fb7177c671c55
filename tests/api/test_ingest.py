"""Streaming into a run: the same whatever the batches, all or nothing, and whole again after a kill at any point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyzer.api import pipeline, reading
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError, UsageError
from analyzer.runs import manifests, rows
from analyzer.runs.store import Run

ROWS = [
    {"question": f"q{i % 5}", "response": f"r{i}" * 30, "prompt": f"q{i % 5}", "gold": f"{i % 4}.0", "score": i % 3 / 2}
    for i in range(40)
]


@pytest.fixture
def two(tmp_path) -> list[str]:
    for name, some in (("base", ROWS), ("rlvr", ROWS[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some))
    return [str(tmp_path / "base.jsonl"), str(tmp_path / "rlvr.jsonl")]


def written(folder: Path, text: str) -> str:
    (folder / "base.jsonl").write_text(text)
    return str(folder / "base.jsonl")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same(one: Run, other: Run) -> bool:
    """Equal manifests and traces, whatever the sizes of the parts."""
    said = ({k: v for k, v in run.manifest.items() if k != "parts"} for run in (one, other))
    return next(said) == next(said) and list(one.traces()) == list(other.traces())


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batches_change_nothing(two, tmp_path, monkeypatch, size):
    traces, ledger = dumps.read_dumps(two)
    pipeline.ingest(whole := Run.create(tmp_path / "whole"), two)
    monkeypatch.setattr(dumps, "BATCH", size)
    monkeypatch.setattr(rows, "BATCH", size)
    again = dumps.Ledger()
    parts = list(dumps.batches(two, again))
    assert {len(p) for p in parts[:-1]} <= {size} and [t for p in parts for t in p] == traces
    assert again.as_json() == ledger.as_json() and len(again.notes) > 3
    pipeline.ingest(run := Run.create(tmp_path / "run"), two)
    assert same(run, whole) and same(Run.open(run.path), whole)


def test_a_file_refused_at_its_end_leaves_nothing(two, tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "BATCH", 4)
    monkeypatch.setattr(rows, "BATCH", 4)
    pipeline.ingest(run := Run.create(tmp_path / "run"), two[:1])
    before = contents(run.path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(Path(two[1]).read_text() + "{broken\n" * 9)
    with pytest.raises(DumpError, match=r"9 of 49 rows can't be used"):
        pipeline.ingest(Run.open(run.path), [two[0], str(bad)])
    assert contents(run.path) == before


@pytest.mark.parametrize("then", [39, 41])
def test_a_file_that_another_version_read_otherwise_is_not_added_to_what_it_read(two, tmp_path, then):
    """The same bytes, and other rows of them used: the run would hold rows that its account does not."""
    pipeline.ingest(run := Run.create(tmp_path / "run"), two[:1])
    run.manifest["inputs"][0] |= {"rows_used": then}
    run.save()
    before = contents(run.path)
    with pytest.raises(
        UsageError, match=rf"another version read {then} of the 40 rows of .*base.jsonl, this one 40; use"
    ):
        pipeline.ingest(Run.open(run.path), two)
    assert contents(run.path) == before


@pytest.mark.parametrize("moment", ["traces", "manifest", "part", "end"])
def test_a_kill_at_any_moment_is_made_good(two, tmp_path, monkeypatch, moment):
    """The process ends while traces are written, before the manifest says so, before the part has its name, before the
    manifest has its last form; then the same line again."""
    pipeline.ingest(whole := Run.create(tmp_path / "whole"), two)
    run = Run.create(tmp_path / "run")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "traces":
            patch.setattr(rows, "BATCH", 4)
            patch.setattr(rows, "_trace_rows", killed)
        elif moment == "manifest":
            patch.setattr(manifests, "write", killed)
        elif moment == "part":
            real = Path.replace
            patch.setattr(Path, "replace", lambda p, to: killed() if "part-" in p.name else real(p, to))
        else:
            patch.setattr(Run, "save", killed)
        pipeline.ingest(run, two)
    opened = Run.open(run.path)
    assert len(list(opened.traces())) == (80 if moment == "end" else 0)
    if moment == "end":
        assert same(opened, whole)
    pipeline.ingest(opened, two)
    assert same(Run.open(run.path), whole)
    assert {n: b for n, b in contents(run.path).items() if n != "run.json"} == {
        n: b for n, b in contents(whole.path).items() if n != "run.json"
    }


# --- rows that no JSON writer takes ---

DEEP = "[" * 253 + "]" * 253


@pytest.mark.parametrize("bad", ['"\\ud800"', "1" + "0" * 400, DEEP], ids=["surrogate", "huge", "deep"])
def test_rejected_rows_can_always_be_kept(tmp_path, bad):
    path = written(tmp_path, json.dumps(ROWS[0]) + '\n{"question": "q", "response": 1, "x": ' + bad + "}\n")
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [path], max_bad=0.5)
    (kept,) = map(json.loads, (run.path / "rejected.jsonl").read_text().splitlines())
    row = kept["row"] if isinstance(kept["row"], dict) else json.loads(kept["row"])
    assert kept["reason"] == "response is not text" and row["x"] == json.loads(bad)


@pytest.mark.parametrize("field", ["gold", "meta", "x"])
def test_integers_beyond_64_bits_do_not_stop_an_ingest(tmp_path, field):
    huge = "1" + "0" * 400
    bad = {"question": "q", "response": "r", field: {"a": 0} if field == "meta" else 0}
    lines = [json.dumps({**ROWS[0], "question": "other"}), json.dumps(bad).replace(": 0", ": " + huge)]
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [written(tmp_path, "\n".join(lines))], max_bad=0.5)
    reasons = run.manifest["inputs"][0]["by_reason"]
    assert reasons == {} and len(list(run.traces())) == 2


@pytest.mark.parametrize("what", ["rewritten", "a further file"])
def test_a_dump_that_changes_between_the_two_readings_of_a_limit_is_refused(two, tmp_path, monkeypatch, what):
    """The first reading says which problems come first, the second takes their rows: both must be of the same bytes."""
    look = reading._first_problems
    folder = tmp_path / "dumps"
    folder.mkdir()
    Path(two[0]).rename(folder / "base.jsonl")
    Path(two[1]).rename(folder / "rlvr.jsonl")

    def looked(*args):
        first = look(*args)
        target = folder / ("base.jsonl" if what == "rewritten" else "third.jsonl")
        target.write_text("".join(json.dumps(r) + "\n" for r in ROWS[1:]))
        return first

    pipeline.ingest(Run.create(tmp_path / "still"), [str(folder)], limit=2)
    monkeypatch.setattr(reading, "_first_problems", looked)
    run = Run.create(tmp_path / "run")
    before = contents(run.path)
    with pytest.raises(DumpError, match=r"(base|third)\.jsonl has changed while it was read; wait until"):
        pipeline.ingest(run, [str(folder)], limit=2)
    assert contents(run.path) == before
