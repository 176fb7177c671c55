"""The whole way on a real small model: ingest, score (resumed after a kill), ledger, report."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from analyzer.analysis.questions import ANALYSES
from analyzer.api import pipeline
from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.records import Sampler
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers

STARTS = ["Once upon a time", "One day", "Lily and Tom", "The dog"]
ENDS = [" was happy.", " saw a big red ball in the park.", " ran home to mom and they had fun.", " zq 17 x!"]


def write_dump(path: Path, source: str, n: int = 4, **extra) -> Path:
    rows = [
        {
            "source": source,
            "problem": f"p{p}",
            "sample": s,
            "prompt": start,
            "response": ENDS[(s + (source != "base")) % 4] * (1 + s % 3),
            "correct": (s + p) % 2 == 0,
            "group": "easy" if p < 2 else "hard",
            **extra,
        }
        for p, start in enumerate(STARTS)
        for s in range(n)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture()
def dumps(tmp_path):
    return [str(write_dump(tmp_path / f"{s}.jsonl", s)) for s in ("base", "rlvr")]


def score(run, stories, **options):
    pipeline.score(run, base=str(stories), **options)


def test_ingest_is_idempotent_and_refuses_changed_settings(tmp_path, dumps):
    run = Run.create(tmp_path / "run")
    for _ in range(2):
        pipeline.ingest(run, dumps)
    assert len(run.trace_table()) == 32 and len(run.manifest["inputs"]) == 2
    assert run.manifest["settings"]["reference"] == "base"
    with pytest.raises(UsageError, match="threshold"):
        pipeline.ingest(run, dumps, threshold=0.5)
    with pytest.raises(UsageError, match="--sampler rvlr=.*did you mean 'rlvr'"):
        pipeline.ingest(run, dumps, sampler={"rvlr": Sampler()})
    with pytest.raises(UsageError, match="--reference 'bse'"):
        pipeline.ingest(run, dumps, reference="bse")


def test_new_inputs_are_appended(tmp_path, dumps):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps[:1])
    pipeline.ingest(run, dumps[1:])
    assert pipeline.ledger(run) == {
        "rows": 32,
        "rows_used": 32,
        "rows_rejected": 0,
        "traces": 32,
        "traces_scored": 0,
        "traces_rejected": 0,
        "by_reason": {},
    }


def test_scores_of_a_run_are_those_of_the_scorer(tmp_path, dumps, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps, sampler={"base": Sampler(), "rlvr": Sampler(0.6, 0.95)})
    score(run, stories, policy={"rlvr": str(stories)})
    assert run.scorers() == ["base", "policy-rlvr"]
    assert run.manifest["policies"] == {"base": "base", "rlvr": "policy-rlvr"}
    assert run.manifest["scorers"]["base"]["path"] == "shared"
    counts = {label: len(run.done(label)) for label in run.scorers()}
    assert counts == {"base": 32, "policy-rlvr": 32}  # rlvr's own traces and the reference's
    loaded = scorers.load(str(stories))
    from analyzer.scoring import plain
    from analyzer.scoring.encoding.encode import encode

    traces = {t.key: t for t in run.traces()}
    for label, sampler in (("base", Sampler()), ("policy-rlvr", Sampler(0.6, 0.95))):
        for part in run.tokens(label, ["logprob", "logprob_s"]):
            for row in part.to_dict("records"):
                [want] = plain.score(
                    [encode(traces[row["key"]], loaded.tokenizer, vocab_size=512)], loaded.model, sampler
                )
                assert np.allclose(row["logprob"], want.columns["logprob"], atol=1e-4)
                finite = np.isfinite(want.columns["logprob_s"])
                assert np.array_equal(np.isfinite(row["logprob_s"]), finite)
                assert np.allclose(row["logprob_s"][finite], want.columns["logprob_s"][finite], atol=1e-4)


def test_a_policy_that_is_the_base_is_not_scored_again(tmp_path, dumps, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps, sampler={"base": Sampler(), "rlvr": Sampler()})
    score(run, stories, policy={"rlvr": str(stories)}, cross={"teacher": str(stories)})
    assert run.scorers() == ["base", "cross-teacher"]
    assert run.manifest["policies"] == {"base": "base", "rlvr": "base"}
    assert len(run.done("cross-teacher")) == 32


def test_the_scoring_limit_is_in_the_ledger(tmp_path, dumps, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps)
    score(run, stories, score_at_most=3)
    ledger = pipeline.ledger(run)
    assert ledger["traces_scored"] == 24 and ledger["traces_rejected"] == 8
    assert ledger["by_reason"] == {"not scored: beyond the first 3 samples per source and problem": 8}
    with pytest.raises(UsageError, match="at_most=3, now at_most=4"):
        score(run, stories, score_at_most=4)


def test_overlong_traces_are_refused_skipped_or_windowed(tmp_path, stories):
    file = write_dump(tmp_path / "base.jsonl", "base", 1)
    rows = file.read_text().splitlines()
    long = json.loads(rows[0]) | {"problem": "long", "response": "word and word " * 300}
    file.write_text(
        "\n".join([*rows, json.dumps(long), json.dumps(long | {"problem": "empty", "response": ""})]) + "\n"
    )
    for choice in ("error", "skip", "window"):
        run = Run.create(tmp_path / choice)
        pipeline.ingest(run, [str(file)], max_bad=0.5)
        if choice == "error":
            with pytest.raises(
                DumpError, match=r"1 of 5 traces are longer than the 512 tokens .*base/long/0.*--on-overlong skip"
            ):
                score(run, stories)
            continue
        score(run, stories, on_overlong=choice)
        ledger = pipeline.ledger(run)
        assert ledger["traces"] == ledger["traces_scored"] + ledger["traces_rejected"]
        status = run.done("base")["base/long/0"]
        assert status == ("ok" if choice == "window" else "longer than the model's context of 512 tokens")
        if choice == "window":
            assert max(len(t) for part in run.tokens("base", ["token"]) for t in part["token"]) > 512


def test_unknown_models_and_labels_are_named(tmp_path, dumps, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps)
    with pytest.raises(ResourceError, match="model folder ./nowhere does not exist"):
        pipeline.score(run, base="./nowhere")
    with pytest.raises(UsageError, match="--policy rlrv=.*did you mean 'rlvr'"):
        score(run, stories, policy={"rlrv": str(stories)})
    with pytest.raises(UsageError, match="--scorer 'locl' is unknown; did you mean 'local'"):
        score(run, stories, scorer="locl")


def test_bare_questions_ask_for_a_template(tmp_path, stories):
    rows = [{"question": f"{n}+1?", "response": "hm"} for n in range(3)]
    (tmp_path / "base.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    with pytest.raises(DumpError, match="base.jsonl:1: the dump has only the bare question .*--template"):
        score(run, stories)
    score(run, stories, template={"*": "none"})
    assert set(run.done("base").values()) == {"ok"}
    assert run.manifest["scorers"]["base"]["decisions"]["prompt: question rendered by --template"] == 3


def test_a_changed_model_is_refused(tmp_path, dumps, stories):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(stories, model)
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps[:1])
    score(run, model)
    with (model / "model.safetensors").open("r+b") as f:
        f.seek(-4, 2)
        f.write(b"\0\0\0\0")
    pipeline.ingest(run, dumps[1:])
    with pytest.raises(UsageError, match="was scored under another base model"):
        score(run, model)


def test_the_whole_way_to_a_report(tmp_path, dumps, stories):
    """dump -> run -> results.json, report.md, index.html; and again from the run: the same bytes."""
    compressed = tmp_path / "rlvr.jsonl.gz"
    compressed.write_bytes(gzip.compress(Path(dumps[1]).read_bytes()))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [dumps[0], f"rlvr={compressed}"], sampler={"base": Sampler(), "rlvr": Sampler()})
    score(run, stories, policy={"rlvr": str(stories)})
    done = pipeline.report(run, tmp_path / "one", command=["analyzer", "report"])
    pipeline.report(run, tmp_path / "two", command=["analyzer", "report"])
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert {"results.json", "report.md", "index.html"} <= {str(f) for f in files}
    for f in files:
        assert (tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes(), f
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    assert [v.source for v in done.verdicts if v.headline] == ["rlvr"]
    without = {"handover", "chains", "task_horizon"}
    assert set(results["analyses"]) == {*ANALYSES, "paired", "robustness"} - without and not done.left_out
    assert results["ledger"]["rows"] == 32 and results["sources"]["rlvr"]["correct"] == 8


def test_without_a_model_the_report_says_what_is_missing(tmp_path, dumps, monkeypatch):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps)
    done = pipeline.report(run, tmp_path / "out")
    assert "boundary" in done.results and {x["analysis"] for x in done.left_out} >= {"perplexity", "support", "tokens"}
    assert all(v.word == "undetermined" for v in done.verdicts)
    assert "--base MODEL" in (tmp_path / "out" / "report.md").read_text()
    monkeypatch.setattr("analyzer.analysis.questions.ANALYSES", {})  # their results are not what is asked for here
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tables").write_text("mine")
    with pytest.raises(UsageError, match="other is not empty and not a report of this program .it holds tables"):
        pipeline.report(run, tmp_path / "other", robustness=False)


def test_another_model_under_a_known_label_is_refused_even_when_nothing_is_left_to_score(tmp_path, dumps, stories):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(stories, other)
    with (other / "model.safetensors").open("r+b") as f:
        f.seek(-4, 2)
        f.write(b"\0\0\0\0")
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps, sampler={"base": Sampler(), "rlvr": Sampler()})
    score(run, stories, policy={"rlvr": str(other)})
    for options in ({"base": str(other)}, {"base": str(stories), "cross": {}, "policy": {"rlvr": str(stories)}}):
        with pytest.raises(UsageError, match="use another -o folder"):
            pipeline.score(run, **options)


def test_a_policy_that_needs_no_scoring_is_still_recorded(tmp_path, dumps, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps, sampler={"base": Sampler(), "rlvr": Sampler()})
    score(run, stories)
    assert Run.open(run.path).manifest["policies"] == {"base": "base"}
    score(run, stories, policy={"rlvr": str(stories)})
    assert Run.open(run.path).manifest["policies"] == {"base": "base", "rlvr": "base"}


def test_a_refused_ingest_changes_nothing(tmp_path, dumps):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps[:1])
    before = (run.path / "run.json").read_bytes()
    more = write_dump(tmp_path / "more.jsonl", "base", 9)
    with pytest.raises(UsageError, match="has sampler None for base"):
        pipeline.ingest(run, [str(more)], sampler={"base": Sampler(0.7)})
    assert (run.path / "run.json").read_bytes() == before and len(run.trace_table()) == 16


def test_rows_that_the_run_already_has_are_counted_as_such(tmp_path, dumps):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps[:1])
    grown = write_dump(tmp_path / "grown.jsonl", "base", 5)
    pipeline.ingest(run, [str(grown)])
    assert pipeline.ledger(run) | {"traces_scored": 0} == {
        "rows": 36,
        "rows_used": 20,
        "rows_rejected": 16,
        "traces": 20,
        "traces_scored": 0,
        "traces_rejected": 0,
        "by_reason": {"already in the run": 16},
    }
    pipeline.ingest(run, [f"rlvr={write_dump(tmp_path / 'x.jsonl', 'rlvr', 4)}"])
    assert pipeline.ledger(run)["rows_used"] == 36


def test_decisions_count_what_was_scored_once(tmp_path, dumps, stories, monkeypatch):
    from analyzer.scoring import parts as scoring

    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps)
    monkeypatch.setattr(scoring, "UNIT_TRACES", 10)

    def interrupted(what, done, total, tokens):
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(run, stories, progress=interrupted)
    partial = len(Run.open(run.path).done("base"))
    assert Run.open(run.path).manifest["scorers"]["base"]["decisions"]["prompt: text, with BOS"] == partial < 32
    score(Run.open(run.path), stories)
    assert Run.open(run.path).manifest["scorers"]["base"]["decisions"]["prompt: text, with BOS"] == 32


def test_no_interval_end_is_null_without_a_note(tmp_path, stories):
    rows = [
        json.dumps(
            {"source": "base", "problem": "p", "sample": n, "prompt": "One", "response": " day", "correct": True}
        )
        for n in range(3)
    ]
    (tmp_path / "base.jsonl").write_text("\n".join(rows))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    score(run, stories)
    pipeline.report(run, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for analysis in results["analyses"].values():
        for key, e in analysis["estimates"].items():
            assert e["note"] or None not in (e["value"], e["low"], e["high"]), key
    text = (tmp_path / "out" / "report.md").read_text()
    assert not re.search(rf"(?<![\w.]){re.escape(str(tmp_path))}", text), "an absolute path"
