"""What a disk does to a run: a flipped bit or a lost file is refused by name, or changes no number."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from analyzer.analysis.data.tables import build
from analyzer.api import pipeline
from analyzer.dumps.convert import convert
from analyzer.dumps.read import read_dumps
from analyzer.errors import AnalyzerError, DumpError
from analyzer.records import Sampler
from analyzer.runs import rows, store
from analyzer.runs.rows import SCORES
from analyzer.runs.store import Run

FLIPS = 200


def write_dump(path: Path, source: str, n: int = 12) -> str:
    ids = np.random.default_rng(len(source)).integers(1, 60, (n, 9)).tolist()
    made = [
        {"source": source, "question": f"q{i % 3}", "sample": i // 3, "response": f"{i} words", "correct": i % 2 == 0}
        | {"prompt_ids": ids[i][:3], "response_ids": ids[i][3:], "response_logprobs": [-0.5 - i / 7] * 6}
        | {"logprobs_temperature": 1.0}
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return str(path)


@pytest.fixture(scope="module")
def make(tiny, tmp_path_factory):
    """A function that brings the run at a path as far as it goes."""
    folder = tmp_path_factory.mktemp("dumps")
    dumps = [write_dump(folder / f"{source}.jsonl", source) for source in ("base", "rlvr")]

    def make(path: Path) -> Run:
        run = Run.create(path)
        for dump in dumps:
            pipeline.ingest(run, [dump], sampler={Path(dump).stem: Sampler()})
        pipeline.score(run, base=tiny.name, policy={"rlvr": tiny.name}, cross={"other": tiny.name})
        return run

    return make


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "run").path


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*.parquet")}


def numbers(path: Path) -> bytes:
    """Everything that analyses read of a run."""
    run = Run.open(path)
    run.verify(sums=True)
    columns = [n for n in SCORES.names if n not in (*rows.IDENTITY, "prompt", "status")]
    scores = {s: [f.to_dict("list") for f in run.tokens(s, columns)] for s in run.scorers()}
    traces = [b.to_pylist() for b in run.trace_batches()]
    counts = [dict(run.status_counts(s)) for s in run.scorers()]
    prompts = [{h: ids.tolist() for h, ids in run.prompts(s).items()} for s in run.scorers()]
    return pickle.dumps([repr(x) for x in (run.manifest, traces, scores, counts, prompts)])


def test_a_flipped_bit_is_refused_or_changes_no_number(whole, tmp_path):
    """Files weigh by their bytes: most flips fall into pages, some into footers and run.json."""
    run = shutil.copytree(whole, tmp_path / "run")
    want = numbers(run)
    files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != ".lock")
    places = [(file, i) for file in files for i in range(file.stat().st_size)]
    rng = random.Random(0)
    refused = 0
    for file, i in rng.sample(places, FLIPS):
        data = file.read_bytes()
        file.write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :])
        try:
            assert numbers(run) == want, (file, i)
        except (AnalyzerError, MemoryError) as error:
            assert str(file.relative_to(run)) in str(error) or file.parent.name in str(error), (file, i, error)
            refused += 1
        file.write_bytes(data)
    assert refused > FLIPS / 2 and numbers(run) == want


@pytest.mark.parametrize("folder, stem", [("traces", "part"), ("scores/base", "part"), ("scores/base", "prompts")])
def test_a_lost_part_is_named_and_comes_back(make, whole, tmp_path, folder, stem):
    run = shutil.copytree(whole, tmp_path / "run")
    part = sorted((run / folder).glob(f"{stem}-*"))[0]
    part.unlink()
    for act in (
        build,
        pipeline.ledger,
        lambda r: pipeline.one_trace(r, "x"),
        lambda r: pipeline.analyze(r, ["tokens"]),
    ):
        with pytest.raises(DumpError, match=rf"{folder}/{part.name} is not there, \d+ rows of the run were in it"):
            act(Run.open(run))
    if stem == "prompts":  # both are made by one write
        (run / folder / part.name.replace("prompts", "part")).unlink()
    make(run)
    assert contents(run) == contents(whole) and numbers(run) == numbers(whole)


def test_a_lost_part_of_traces_is_not_forgotten_by_another_dump(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    sorted((run / "traces").glob("part-*"))[0].unlink()
    more = write_dump(tmp_path / "more.jsonl", "more", 5)
    with pytest.raises(
        DumpError, match="part-00000.parquet is not there, 12 rows .* all of its dumps again, or restore"
    ):
        pipeline.ingest(Run.open(run), [more], sampler={"more": Sampler()})
    with pytest.raises(DumpError, match="part-00000.parquet is not there"):
        build(Run.open(run))


def test_a_damaged_part_is_not_sealed_by_what_is_added_later(whole, tiny, tmp_path):
    """Sums are taken of a part once, when it was written."""
    run = Run.open(shutil.copytree(whole, tmp_path / "run"))
    part = sorted((run.path / "scores" / "base").glob("part-*"))[0]
    data = part.read_bytes()
    at = data.rindex(b"parquet-cpp")  # of the footer, which has no sum of its own
    part.write_bytes(data[:at] + b"q" + data[at + 1 :])
    pipeline.ingest(run, [f"late={write_dump(tmp_path / 'late.jsonl', 'late')}"], sampler={"late": Sampler()})
    pipeline.score(run, base=tiny.name, policy={"rlvr": tiny.name}, cross={"other": tiny.name})
    with pytest.raises(DumpError, match=rf"{part.name} is damaged"):
        build(Run.open(run.path))
    part.write_bytes(data)
    assert set(build(Run.open(run.path)).scores["source"]) == {"base", "rlvr", "late"}


@pytest.mark.parametrize(
    "folder, name",
    [
        ("traces", "part-00000 (1).parquet"),
        ("traces", "part-00007.parquet"),
        ("scores/base", "part-00000 (1).parquet"),
        ("scores/base", "prompts-00000 (1).parquet"),
        ("scores/base", "part-00001-0123abcd.parquet"),
    ],
)
def test_a_part_that_the_run_did_not_write_is_named(make, whole, tmp_path, folder, name):
    """As a sync client leaves beside the first one where two machines wrote."""
    run = shutil.copytree(whole, tmp_path / "run")
    before = (run / "run.json").read_bytes()
    shutil.copy(sorted((run / folder).glob(f"{name.split('-')[0]}-*"))[0], run / folder / name)
    for act in (build, pipeline.ledger, lambda r: pipeline.one_trace(r, "x"), lambda r: make(r.path)):
        with pytest.raises(DumpError, match=rf"{folder}/{re.escape(name)} is no part that run .* wrote: .*move it"):
            act(Run.open(run))
    assert (run / "run.json").read_bytes() == before
    (run / folder / name).unlink()
    make(run)
    assert contents(run) == contents(whole) and numbers(run) == numbers(whole)


def test_a_part_that_a_killed_call_left_is_no_strangers(make, whole, tmp_path):
    run = Run.open(shutil.copytree(whole, tmp_path / "run"))
    part = next((run.path / "scores" / "base").glob("part-*")).name
    del run.manifest["parts"]["scores/base"][part]
    run.manifest["finished"]["base"] = []
    run.save()
    assert pipeline.ledger(Run.open(run.path)) == pipeline.ledger(Run.open(whole))
    make(run.path)
    assert numbers(run.path) == numbers(whole)


def test_a_run_that_grows_while_it_is_read_has_no_strangers(make, whole, tmp_path):
    reader = Run.open(shutil.copytree(whole, tmp_path / "run"))
    more = write_dump(tmp_path / "more.jsonl", "more", 5)
    pipeline.ingest(Run.open(reader.path), [more], sampler={"more": Sampler()})
    reader.verify()


def test_a_part_of_other_rows_is_named(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    part = next((run / "scores" / "base").glob("part-*"))
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(DumpError, match=rf"{part.name} is damaged .23 rows, 24 were written.; .*move it"):
        pipeline.ledger(Run.open(run))


def test_a_changed_manifest_is_refused_and_the_way_out_is_said(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"temperature": 1.0', '"temperature": 1.5'))
    with pytest.raises(DumpError, match='run.json is not as it was written.* take the line with "check" out of it'):
        Run.open(run)
    manifest = orjson.loads((run / "run.json").read_bytes())
    assert manifest.pop("check")
    (run / "run.json").write_bytes(orjson.dumps(manifest))
    assert Run.open(run).manifest["samplers"]["base"]["temperature"] == 1.5


def test_a_run_of_an_earlier_version_is_read_and_its_counts_are_checked(make, whole, tmp_path, monkeypatch):
    """Without sums of pages, without a list of parts, without a check of the manifest."""
    for module in (rows, store):
        monkeypatch.setattr(module, "PACKED", {"compression": "zstd"})
    old = make(tmp_path / "run")
    manifest = old.manifest
    del manifest["parts"]
    (old.path / "run.json").write_bytes(orjson.dumps(manifest))
    monkeypatch.undo()
    old = Run.open(old.path)
    assert pipeline.ledger(old) == pipeline.ledger(Run.open(whole))
    assert build(old).scores.equals(build(Run.open(whole)).scores)
    next((old.path / "scores" / "base").glob("part-*")).unlink()
    with pytest.raises(DumpError, match=r"scores/base holds \d+ traces, 24 were scored: a part is not there"):
        build(old)
    again = make(old.path)  # this version goes on with it
    assert numbers(again.path) and build(again).scores.equals(build(Run.open(whole)).scores)


def test_of_a_run_that_was_cut_off_the_ledger_says_what_is_not_scored_yet(make, whole, tmp_path):
    run = Run.open(shutil.copytree(whole, tmp_path / "run"))
    run.manifest["settings"]["at_most"] = 3
    run.manifest["finished"]["base"], run.manifest["parts"] = [], {}
    next((run.path / "scores" / "base").glob("part-*")).unlink()
    assert pipeline.ledger(run)["by_reason"] == {
        "not scored yet": 18,
        "not scored: beyond the first 3 samples per source and problem": 6,
    }


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_flipped_bit_in_a_written_dump_is_refused_or_changes_nothing(tmp_path, ending):
    """What `convert` and `sample` write: packed files have sums, plain text can have none. Parquet's footer has none
    either; no flip is tried there."""
    rng, packed = np.random.default_rng(0), tmp_path / f"out{ending}"
    texts = [" ".join(rng.choice(["one", "two", "three", "4", "5 + x"], 30)) for _ in range(60)]
    dump = tmp_path / "base.jsonl"
    dump.write_text("".join(json.dumps({"problem": f"p{i % 5}", "response": t}) + "\n" for i, t in enumerate(texts)))
    convert([str(dump)], packed)

    def read() -> list[tuple]:
        return [(t.source, t.problem, t.sample, t.response, t.meta) for t in read_dumps([str(packed)])[0]]

    want, data = read(), packed.read_bytes()
    pages = len(data) if ending != ".parquet" else len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    refused = 0
    for i in rng.integers(0, pages, 100):
        packed.write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.integers(8)]) + data[i + 1 :])
        try:
            assert read() == want, i
        except DumpError as error:
            assert str(packed) in str(error), (i, error)
            refused += 1
    assert refused >= 80
