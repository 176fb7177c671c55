"""Estimates and scoring agree on what is asked and on what is done already. Dry runs themselves: test_studies."""

import json

import analyzer
from analyzer.api import pipeline
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers


def test_what_is_done_is_read_once_and_known_at_the_end(tmp_path, stories, monkeypatch):
    dump = tmp_path / "base.jsonl"
    rows = [
        {"problem": "p", "sample": n, "prompt": "Once", "response": text} for n, text in enumerate(("", " a", " b"))
    ]
    dump.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, read, done = Run.create(tmp_path / "run"), [], Run.done
    pipeline.ingest(run, [str(dump)])
    monkeypatch.setattr(Run, "done", lambda self, label: read.append(label) or done(self, label))
    pipeline.score(run, base=str(stories), score_at_most=2)
    assert read == ["base"] and run.manifest["finished"]["base"] == [2, 2] == [2, len(done(run, "base"))]
    monkeypatch.setattr(scorers, "load", None)  # nothing is left to score
    pipeline.score(run, base=str(stories), score_at_most=2)


def test_a_dry_run_leaves_out_the_padding_that_scoring_does(tiny, tmp_path):
    """Told by the run's first model and by --eos, for every model."""
    import shutil

    shutil.copytree(tiny.name, tmp_path / "other")
    for name in ("config.json", "generation_config.json"):
        held = json.loads((tmp_path / "other" / name).read_text())
        (tmp_path / "other" / name).write_text(json.dumps(held | {"eos_token_id": 5}))
    row = {"source": "base", "problem": "p", "prompt_ids": [4, 6], "response": ""}
    ids = ([7, 9, 21, 21, 21], [7, 8, 9], [7, 0, 0, 0])
    dump = tmp_path / "base.jsonl"
    dump.write_text("".join(json.dumps(row | {"sample": n, "response_ids": r}) + "\n" for n, r in enumerate(ids)))
    run, how = Run.create(tmp_path / "run"), {"base": tiny.name, "cross": {"o": str(tmp_path / "other")}, "eos": 9}
    pipeline.ingest(run, [str(dump)])
    plan = analyzer.estimate(run, **how)["models"]
    pipeline.score(run, **how)
    for label in ("base", "cross-o"):
        scored = sum(len(r["token"]) for part in run.tokens(label, ["token"]) for r in part.to_dict("records"))
        assert plan[label]["response_tokens"] == scored == 2 + 3 + 2, label
