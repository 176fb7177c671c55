"""Shards and their merge: any division of the work gives the run of one process; what does not belong is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.api import pipeline
from analyzer.cli import main as cli
from analyzer.errors import DumpError, UsageError
from analyzer.runs import handover, review
from analyzer.runs.merge import merge
from analyzer.runs.store import Run
from analyzer.scoring import changes
from analyzer.scoring import load as scorers
from analyzer.scoring import parts as scoring

WORDS = ["", "day", "happy", "saw", "ran", "home", "mom", "dog", "ball", "big", "red"]


def write_dump(path: Path, seed: int, problems: int = 5, samples: int = 6) -> Path:
    """Random responses to few prompts; one is empty, one too long for the model."""
    rng = random.Random(seed)
    rows = [
        {"problem": f"p{p}", "sample": s, "prompt": f"One{WORDS[p]}", "response": text}
        for p in range(problems)
        for s in range(samples)
        for text in [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))).strip() or "ran"]
    ]
    rows[3]["response"], rows[5]["response"] = "", "word and " * 600
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture(scope="module")
def model(stories):
    """The name of a model that is loaded and probed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "UNIT_TRACES", 4)
        loaded = scorers.load(str(stories))
        patch.setattr(scorers, "load", lambda name, **options: loaded)
        patch.setattr(scorers, "choose_path", cache(scorers.choose_path))
        yield str(stories)


def score(path: Path, dump: Path, model: str, shard: tuple[int, int] | None = None, **options) -> Run:
    run = Run.create(path)
    pipeline.ingest(run, [f"base={dump}"], max_bad=0.5)
    pipeline.score(run, base=model, shard=shard, **{"on_overlong": "skip"} | options)
    return run


def contents(run: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(run)): p.read_bytes()
        for name in ("run.json", "rejected.jsonl", "traces", "scores")
        for p in [run / name, *(run / name).rglob("*")]
        if p.is_file()
    }


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), n=st.integers(1, 5), data=st.data())
def test_any_division_merges_to_the_run_of_one_process(model, seed, n, data):
    """Byte for byte, in whatever order the shards are given, and also when they come in two helpings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dump = write_dump(folder / "dump.jsonl", seed)
        whole = score(folder / "whole", dump, model)
        parts = [score(folder / f"shard-{i}", dump, model, (i, n)).path for i in data.draw(st.permutations(range(n)))]
        assert sum(len(Run.open(p).done("base")) for p in parts) == len(whole.done("base")) == 30
        early = data.draw(st.integers(1, n))
        run, missing = merge(parts[:early], folder / "merged")
        assert len(missing) == n - early
        run, missing = merge(parts, folder / "merged")
        assert missing == [] and contents(run.path) == contents(whole.path)
        before = contents(run.path)
        pipeline.score(run, base=model, on_overlong="skip")  # nothing is left to do
        assert contents(run.path) == before


def test_a_merge_of_some_shards_says_what_is_missing_and_score_completes_it(tmp_path, model):
    dump = write_dump(tmp_path / "dump.jsonl", 1)
    parts = [score(tmp_path / f"shard-{i}", dump, model, (i, 4)).path for i in (0, 3)]
    run, missing = merge(parts, tmp_path / "run")
    assert missing == ["shard 1/4", "shard 2/4"]
    assert pipeline.ledger(run)["by_reason"]["not scored yet"] > 0
    whole = score(tmp_path / "whole", dump, model)
    pipeline.score(Run.open(run.path), base=model, on_overlong="skip")
    assert contents(run.path) == contents(whole.path)


def test_an_interrupted_shard_is_called_unfinished(tmp_path, model):
    dump = write_dump(tmp_path / "dump.jsonl", 1)

    def interrupt(what, done, total, tokens):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "a", dump, model, (0, 2), progress=interrupt)
    score(tmp_path / "b", dump, model, (1, 2))
    run, missing = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "run")
    assert missing == [f"the rest of {tmp_path / 'a'}"]
    score(tmp_path / "a", dump, model, (0, 2))
    run, missing = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "run")
    assert missing == [] and len(run.done("base")) == 30


@pytest.mark.parametrize("what", ["a flipped bit", "a part of another run", "a lost part"])
def test_a_damaged_shard_is_named_and_not_sealed(tmp_path, model, what):
    """The merged run's sums would be those of the damage."""
    dump = write_dump(tmp_path / "dump.jsonl", 3)
    a, b = (score(tmp_path / f"s{i}", dump, model, (i, 2)) for i in range(2))
    part = sorted((a.path / "scores" / "base").glob("part-*"))[0]
    if what == "a flipped bit":
        data = part.read_bytes()
        at = data.rindex(b"ARROW:schema") + 40  # of the footer, which has no sum of its own
        part.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif what == "a lost part":
        part.unlink()
    else:
        part = shutil.copy(part, part.with_name("part-99999-copy.parquet"))
    with pytest.raises(DumpError, match=re.escape(Path(part).name)):
        merge([a.path, b.path], tmp_path / "run")
    assert not (tmp_path / "run" / "scores").exists()


def test_what_stays_behind_is_named(tmp_path, model, capsys):
    """Shards choose among their own traces; those of the merged run stay its own when it is merged again."""
    dump = write_dump(tmp_path / "dump.jsonl", 3)
    a, b = (score(tmp_path / f"s{i}", dump, model, (i, 2)) for i in range(2))
    left = handover.file(a.path, "base")
    with a.writing(), handover.adding(left, {"base": "b", "cuts": 2}):
        a.manifest["handovers"] = handover.counts(a.path)
        a.save()
    review.add(b.path, [{"key": "base/p0/0", "valid": True, "picked": "all"}])
    merge([a.path], tmp_path / "run")
    own = handover.file(tmp_path / "run", "base")
    own.parent.mkdir()
    own.write_bytes(left.read_bytes())
    run = Run.open(tmp_path / "run")
    run.manifest["handovers"] = {"mine": 0}
    run.save()
    capsys.readouterr()
    assert cli.main(["merge", str(a.path), str(b.path), "-o", str(run.path), "--json"]) == 0
    out, err = capsys.readouterr()
    read = b.path / review.FILE
    for path in (left, read):
        assert f"left behind: {path}, of traces that the shard chose for itself; do it again in {run.path}" in err
    assert json.loads(out)["left_behind"] == [str(left), str(read)]
    assert Run.open(run.path).manifest["handovers"] == {"mine": 0} and own.exists()
    assert merge([b.path], tmp_path / "other")[0].manifest.get("handovers") is None
    assert merge([a.path], tmp_path / "third")[0].manifest.get("handovers") is None


def test_what_does_not_belong_together_is_refused(tmp_path, model, monkeypatch):
    dump, other = write_dump(tmp_path / "dump.jsonl", 1), write_dump(tmp_path / "more" / "dump.jsonl", 2)
    one = score(tmp_path / "one", dump, model, (0, 2)).path
    for name, options in {
        "settings, eos": {"eos": 2},
        "settings, on_overlong": {"on_overlong": "window"},
        "inputs, dump.jsonl": {"dump": other},
        "scorer base, path": {"scorer": "plain"},
        "expected different shards of one division": {"shard": (1, 3)},
        "expected different shards of .*/x is shard 0/2": {"shard": (0, 2)},
        "/x is not a shard": {"shard": None},
    }.items():
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        x = score(tmp_path / "x", **{"dump": dump, "model": model, "shard": (1, 2)} | options).path
        with pytest.raises(UsageError, match=f"{name}.*only shards of one score can be joined"):
            merge([one, x], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    two = score(tmp_path / "two", dump, model, (1, 2)).path
    manifest = json.loads((two / "run.json").read_text())
    del manifest["check"]
    manifest["scorers"]["base"]["fingerprint"] = "0" * 16
    (two / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="scorer base, fingerprint: .* and 0000000000000000"):
        merge([one, two], tmp_path / "out")
    manifest["scorers"]["base"] |= {"fingerprint": Run.open(one).manifest["scorers"]["base"]["fingerprint"]}
    manifest["scorers"]["base"]["tokenizer"] = "1" * 16
    (two / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="scorer base, tokenizer: .* and 1111111111111111"):
        merge([one, two], tmp_path / "out")
    samplers = manifest.pop("samplers")  # unknown in one run, not even named in the other
    (two / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="samplers, base: None and nothing"):
        merge([one, two], tmp_path / "out")
    manifest["samplers"] = samplers
    for name in ("tokenizer", "eos_ids", "powers"):  # as runs made before they were recorded
        del manifest["scorers"]["base"][name]
    (two / "run.json").write_text(json.dumps(manifest))
    for shards in ([one, two], [two, one]):
        assert merge(shards, tmp_path / "out")[1] == []
    merged = Run.open(tmp_path / "out").manifest["scorers"]["base"]
    assert merged["tokenizer"] == Run.open(one).manifest["scorers"]["base"]["tokenizer"]
    monkeypatch.setattr(scoring, "UNIT_TRACES", 5)  # as another version could cut the work
    shutil.rmtree(two)
    score(two, dump, model, (1, 2))
    with pytest.raises(UsageError, match="trace base/.* is scored in both .*/one and .*/two"):
        merge([one, two], tmp_path / "out")


def test_shards_of_two_versions_are_joined_and_both_are_told(tmp_path, model, monkeypatch):
    dump, parts = write_dump(tmp_path / "dump.jsonl", 1), []
    for i in (0, 1):
        monkeypatch.setattr(changes, "versions", lambda i=i: {"analyzer": str(i)})
        parts.append(score(tmp_path / f"shard-{i}", dump, model, (i, 2)).path)
    for order in (parts, parts[::-1]):
        merge(order, tmp_path / "out")
        record = Run.open(tmp_path / "out").manifest["scorers"]["base"]
        told = [record["versions"], *(made["versions"] for made in record["earlier"])]
        assert sorted(told, key=str) == [{"analyzer": "0"}, {"analyzer": "1"}]
    manifest = json.loads((parts[1] / "run.json").read_text())
    manifest["scorers"]["base"]["columns"] = 2
    (parts[1] / "run.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "check"}))
    with pytest.raises(UsageError, match="scorer base, columns: 1 and 2"):
        merge(parts, tmp_path / "no")


def test_a_folder_that_holds_something_else_is_not_merged_into(tmp_path, model):
    dump = write_dump(tmp_path / "dump.jsonl", 1)
    parts = [score(tmp_path / f"shard-{i}", dump, model, (i, 2)).path for i in (0, 1)]
    foreign = score(tmp_path / "foreign", write_dump(tmp_path / "other.jsonl", 2), model)
    before = contents(foreign.path)
    bare = Run.create(tmp_path / "bare")
    pipeline.ingest(bare, [f"base={tmp_path / 'other.jsonl'}"], max_bad=0.5)
    for out in (foreign.path, bare.path, parts[0]):
        with pytest.raises(UsageError, match=r"-o .* (holds|is one of) .*; name another folder"):
            merge(parts, out)
    assert contents(foreign.path) == before


def test_a_shard_keeps_to_its_share(tmp_path, model):
    dump = write_dump(tmp_path / "dump.jsonl", 1)
    score(tmp_path / "a", dump, model, (0, 2))
    for shard in (None, (1, 2), (0, 3)):
        with pytest.raises(UsageError, match='was made with shard="0/2", now shard='):
            score(tmp_path / "a", dump, model, shard)


def test_the_command_line(tmp_path, model, capsys):
    dump, run = write_dump(tmp_path / "dump.jsonl", 1), tmp_path / "run"
    line = ["score", str(dump), "--base", model, "-o", str(run), "--on-overlong", "skip"]
    for i in range(2):
        assert cli.main([*line, "--shard", f"{i}/2"]) == 0
        assert f"analyzer merge {run}/shard-* -o" in capsys.readouterr().out
    shards = [str(p) for p in sorted(run.glob("shard-*"))]
    assert [Path(p).name for p in shards] == ["shard-0-of-2", "shard-1-of-2"]
    assert cli.main(["merge", shards[0], "-o", str(run)]) == 0
    assert "missing: shard 1/2" in capsys.readouterr().err
    assert cli.main(["merge", *shards, "-o", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledger"]["traces_scored"] == 28
    assert cli.main(["merge", *shards, shards[0], "-o", str(run)]) == 2
    assert cli.main([*line, "--shard", "2/2"]) == 2
    assert "'2/2' is not I/N, counted from 0" in capsys.readouterr().err
