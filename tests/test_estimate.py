"""Estimates and scoring agree on what is asked and on what is done already. Dry runs themselves: test_studies."""

import inspect
import json

from analyzer import pipeline, scorers, scoring
from analyzer.estimate import dry_run
from analyzer.store import Run


def test_a_dry_run_takes_what_scoring_takes():
    own, asked, scored = (set(inspect.signature(f).parameters) for f in (dry_run, scoring.planned, scoring.score))
    assert (own - {"call"}) | asked | set(scoring.LOADING) == scored - {"shard", "cluster", "workers", "tell"}


def test_what_is_done_is_read_once_and_known_at_the_end(tmp_path, stories, monkeypatch):
    dump = tmp_path / "base.jsonl"
    rows = [
        {"problem": "p", "sample": n, "prompt": "Once", "response": text} for n, text in enumerate(("", " a", " b"))
    ]
    dump.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, read, done = Run.create(tmp_path / "run"), [], Run.done
    pipeline.ingest(run, [str(dump)])
    monkeypatch.setattr(Run, "done", lambda self, label: read.append(label) or done(self, label))
    pipeline.score(run, base=str(stories), at_most=2)
    assert read == ["base"] and run.manifest["finished"]["base"] == [2, 2] == [2, len(done(run, "base"))]
    monkeypatch.setattr(scorers, "load", None)  # nothing is left to score
    pipeline.score(run, base=str(stories), at_most=2)
