"""Which model scores what: neither a tokenizer nor what a server serves changes unseen, nor stands for two models."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_server import Fake, serving

from analyzer import records
from analyzer.analysis.data.tables import build
from analyzer.analysis.support import laws
from analyzer.api import pipeline
from analyzer.errors import ResourceError, UsageError
from analyzer.records import NOVEL_COLUMNS, NOVEL_POWERS, POWERS, Sampler
from analyzer.runs.merge import merge
from analyzer.runs.rows import ADDED_SCORES
from analyzer.runs.store import Run
from analyzer.scoring import changes
from analyzer.scoring.encoding import findings
from analyzer.scoring.encoding.padding import PADDED
from analyzer.scoring.servers import client as server_client
from analyzer.stats import evalue

PLAIN = {"base": Sampler(), "rl": Sampler()}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.001)


@pytest.fixture()
def folders(tiny, tmp_path):
    """Two models as one names them beside a server: config alone, and not even that differs."""
    for name in ("base", "rl"):
        tiny.model.config.save_pretrained(tmp_path / name)
    return str(tmp_path / "base"), str(tmp_path / "rl")


@pytest.fixture()
def new(tmp_path):
    """A function that makes a run of 12 traces by base and 6 of the others."""
    rng = np.random.default_rng(0)
    for source, n in {"base": 12, "rl": 6, "api": 6, "hot": 6}.items():
        ids = rng.integers(1, 60, (n, 9)).tolist()
        rows = [
            {"source": source, "question": f"q{i % 3}", "sample": i // 3, "response": "r"}
            | {"prompt_ids": ids[i][:3], "response_ids": ids[i][3:]}
            for i in range(n)
        ]
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def make(name="run", sources=("base",), **samplers):
        run = Run.create(tmp_path / name)
        samplers = {source: PLAIN.get(source, Sampler()) for source in sources} | samplers
        pipeline.ingest(run, [str(tmp_path / f"{source}.jsonl") for source in sources], sampler=samplers)
        return run

    return make


@contextmanager
def served(tiny, model="m", *more, until=None, owner="vllm", kind="vllm"):
    """The address of a server of models by these names; it fails for good from completion `until` on."""
    fake = Fake(tiny.model, kind, fault=lambda n, body: "404" if until is not None and n >= until else None)
    fake.models = [{"id": name, "owned_by": owner} for name in (model, *more)]
    with serving(fake) as url:
        yield url


def begun(tiny, run, folder, **more):
    """A run that a server broke off."""
    with served(tiny, "m", until=9) as url, pytest.raises(ResourceError, match="the same line again continues"):
        pipeline.score(run, base=folder, server={"*": url}, concurrent=1, **more)
    assert 0 < len(run.done("base")) < 12
    return url


def test_another_tokenizer_is_refused_and_an_unrecorded_one_accepted(stories, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(stories, model)
    (tmp_path / "base.jsonl").write_text(json.dumps({"source": "base", "prompt": "One", "response": " day"}) + "\n")
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    pipeline.score(run, base=str(model))
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UsageError, match="scored with another tokenizer or chat template of the base model"):
        pipeline.score(run, base=str(model))
    del run.manifest["scorers"]["base"]["tokenizer"]
    run.save()
    pipeline.score(run, base=str(model))


def by_key(run, label, columns):
    return {row["key"]: row for part in run.tokens(label, columns) for row in part.to_dict("records")}


def test_the_base_tells_powers_and_what_the_samplers_of_other_sources_give(tiny, tmp_path, new):
    """As a run of its own would under that sampler; the source with the base's sampler needs none."""
    hot, names = Sampler(0.5, 0.9), ["logprob", "logprob_s", "power_2.5", "logprob_source"]
    run = new(sources=("base", "rl"), rl=hot)
    pipeline.score(run, base=tiny.name, policy={"rl": tiny.name}, cross={"c": tiny.name}, eos=7)
    records, tables = run.manifest["scorers"], build(run)
    assert {k: r["powers"] for k, r in records.items()} == {"base": [*POWERS], "policy-rl": [], "cross-c": []}
    assert all(r["eos_ids"] == [0, 7] for r in records.values())
    base, policy, cross = (by_key(run, label, names) for label in ("base", "policy-rl", "cross-c"))
    for key, row in base.items():
        assert row["power_2.5"].shape == row["logprob"].shape and (row["power_2.5"] <= 0).all()
        if key.startswith("base/"):
            assert row["logprob_source"] is None and cross[key]["logprob_source"] is None
        else:
            assert np.allclose(row["logprob_source"], policy[key]["logprob_s"], atol=1e-5)
            assert np.allclose(cross[key]["logprob_source"], policy[key]["logprob_s"], atol=1e-5)
    assert all(row["logprob_source"] is None and row["power_2.5"] is None for row in policy.values())
    scores = tables.scores.set_index(["model", "source"])
    assert scores.loc[("base", "rl"), "logprob_source"].notna().all()
    assert scores.loc[("base", "base"), "logprob_source"].isna().all()
    own = scores.loc[("policy-rl", "rl")]
    assert np.allclose(scores.loc[("base", "rl"), "logprob_source"], own["logprob_s"], atol=1e-4)
    assert (own["variance_s"] > 0).all() and own["excess_s"].notna().all()


def test_of_the_reference_alone_no_powers_and_old_parts_and_records_are_still_read(tiny, new):
    run = new()
    pipeline.score(run, base=tiny.name)
    assert run.manifest["scorers"]["base"]["powers"] == []
    for part in (run.path / "scores" / "base").glob("part-*"):
        pq.write_table(pq.read_table(part).drop_columns(list(ADDED_SCORES)), part)
    for name in ("powers", "eos_ids"):
        del run.manifest["scorers"]["base"][name]
    del run.manifest["parts"]["scores/base"]  # parts of then were not counted
    run.save()
    run = Run.open(run.path)
    pipeline.score(run, base=tiny.name)  # finished: nothing is done again
    assert "powers" not in run.manifest["scorers"]["base"]
    assert all(row["power_5"] is None for row in by_key(run, "base", ["power_5"]).values())
    assert build(run).scores["logprob_source"].isna().all() and build(run).scores["excess_s"].notna().all()


def of_an_earlier_version(run, **decisions):
    """The run as it was before encodings were recorded."""
    for record in run.manifest["scorers"].values():
        del record["encoding"]
        record["decisions"] |= decisions
    run.save()
    return Run.open(run.path)


def test_what_an_earlier_version_began_is_not_gone_on_with_in_another_encoding(tiny, new):
    whole = new("whole")
    pipeline.score(whole, base=tiny.name)
    run = new()
    pipeline.score(run, base=tiny.name)
    of_an_earlier_version(run)
    pipeline.score(Run.open(run.path), base=tiny.name)  # all is done
    assert "encoding" not in Run.open(run.path).manifest["scorers"]["base"]
    grown = new("run", ("rl",))  # adds to it
    for more in ({}, {"cross": {"x": tiny.name}}):
        before = (grown.path / "run.json").read_bytes()
        with pytest.raises(UsageError, match=r"scored by another version \(base has encoding none, .* 6 traces are st"):
            pipeline.score(Run.open(run.path), base=tiny.name, **more)
        assert (grown.path / "run.json").read_bytes() == before
    whole.manifest["scorers"]["base"]["encoding"] = 1
    whole.save()
    with pytest.raises(UsageError, match="base has encoding 1, this one 3.* 12 traces are still .* under cross-x"):
        pipeline.score(Run.open(whole.path), base=tiny.name, cross={"x": tiny.name})


def test_columns_of_another_definition_are_not_gone_on_with(tiny, new, monkeypatch):
    run = new()
    pipeline.score(run, base=tiny.name)
    assert run.manifest["scorers"]["base"]["columns"] == records.COLUMNS
    grown = new("run", ("rl",))
    monkeypatch.setattr(records, "COLUMNS", 2)
    before = (grown.path / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"another version \(base has columns 1, this one 2\).* 6 traces are still"):
        pipeline.score(Run.open(run.path), base=tiny.name)
    assert (grown.path / "run.json").read_bytes() == before
    (said,) = findings.of_other_versions(Run.open(run.path).manifest["scorers"])
    assert "base was scored by another version, with columns 1 (this one: 2)" in said
    monkeypatch.setattr(records, "COLUMNS", 1)
    pipeline.score(Run.open(run.path), base=tiny.name)


def test_a_later_encoding_is_not_told_as_an_earlier_one(tiny, new):
    run = new()
    pipeline.score(run, base=tiny.name)
    run.manifest["scorers"]["base"]["encoding"] = 99
    (said,) = findings.of_other_versions(run.manifest["scorers"])
    assert "base was scored by another version, with encoding 99 (this one: 3)" in said


def test_what_is_taken_up_under_other_libraries_says_so_and_what_is_not_keeps_its_own(tiny, new, tmp_path, monkeypatch):
    run = new("run", ("base", "rl"))
    monkeypatch.setattr(changes, "versions", lambda: {"analyzer": "1", "torch": "1"})
    pipeline.score(run, base=tiny.name)
    monkeypatch.setattr(changes, "versions", lambda: {"analyzer": "2", "torch": "1"})
    pipeline.score(Run.open(run.path), base=tiny.name)  # all is done: who did it stays
    record = Run.open(run.path).manifest["scorers"]["base"]
    assert record["versions"] == {"analyzer": "1", "torch": "1"} and "earlier" not in record
    run = new("run", ("api",))
    for _ in range(2):
        pipeline.score(run, base=tiny.name)
    record = Run.open(run.path).manifest["scorers"]["base"]
    assert record["versions"]["analyzer"] == "2"
    assert [e["versions"] for e in record["earlier"]] == [{"analyzer": "1", "torch": "1"}]
    pipeline.report(run, tmp_path / "out", robustness=False)
    said = (tmp_path / "out" / "report.md").read_text()
    assert "base was scored in several calls that differ in versions" in said and "analyzer 1, then 2" in said


def test_a_source_has_a_law_of_the_base_in_all_of_its_traces_or_in_none(tiny, new, tmp_path):
    """Scored in part without a policy, then with it: the powers of the rest are no law of the whole source."""
    run = new("run", ("base", "rl"), rl=Sampler(0.5))
    pipeline.score(run, base=tiny.name)
    rows = [json.loads(line) for line in (tmp_path / "rl.jsonl").read_text().splitlines()]
    rows += [r | {"sample": r["sample"] + 9} for r in rows]
    (tmp_path / "rl.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = new("run", ("base", "rl"), rl=Sampler(0.5))
    pipeline.score(run, base=tiny.name, policy={"rl": tiny.name})
    known = {key: row["power_5"] is not None for key, row in by_key(run, "base", ["power_5"]).items()}
    assert sorted(known.values()).count(True) == 6  # those of the second call
    tables = build(run)
    laws_of = {part.source: {*part.laws} for part in laws.parts(tables)}
    assert len(known) == 24 and all(not name.startswith("T=") or name == laws.PLAIN for name in laws_of["rl"]), laws_of
    results, _ = pipeline.analyze(run, ["support"])
    of_rows = [r for r in results["support"].tables["laws"].to_dict("records") if r["source"] == "rl"]
    assert {r["law"] for r in of_rows} <= {laws.PLAIN, laws.SOURCE}, of_rows


def test_where_all_was_done_but_not_counted_the_encoding_stays_as_it_was(tiny, new):
    run = new()
    pipeline.score(run, base=tiny.name)
    run.manifest["finished"]["base"] = []
    run = of_an_earlier_version(run)
    pipeline.score(run, base=tiny.name)
    record = Run.open(run.path).manifest["scorers"]["base"]
    assert record["encoding"] is None and Run.open(run.path).manifest["finished"]["base"] == [12, 12]


def test_a_report_says_that_an_earlier_version_encoded_otherwise(tiny, new, tmp_path):
    run = new()
    pipeline.score(run, base=tiny.name)
    pipeline.report(run, tmp_path / "now", robustness=False)
    run = of_an_earlier_version(run, **{"response: text, encoded apart from the prompt": 3})
    pipeline.report(run, tmp_path / "then", robustness=False)
    now, then = ((tmp_path / name / "report.md").read_text() for name in ("now", "then"))
    assert "earlier version" not in now
    assert "base was scored by an earlier version: responses given as text (3) were encoded apart" in then
    assert "of responses given as ids (12), padding and tokens that a mask says" in then


def test_a_report_says_what_the_second_encoding_cut(tiny, new, tmp_path):
    run = new()
    pipeline.score(run, base=tiny.name)
    run.manifest["scorers"]["base"] |= {"encoding": 2}
    assert findings.of_other_versions(run.manifest["scorers"]) == []
    run.manifest["scorers"]["base"]["decisions"][PADDED["response", "end"]] = 3
    (said,) = findings.of_other_versions(run.manifest["scorers"])
    assert "base was scored by an earlier version" in said and "(3 traces were cut)" in said


def test_where_a_source_has_no_policy_the_base_tells_what_novelty_is_told_by(tiny, new):
    run = new(sources=("base", "rl", "api"))
    pipeline.score(run, base=tiny.name, policy={"rl": tiny.name})
    assert run.manifest["scorers"]["base"]["powers"] == [*NOVEL_POWERS, *POWERS]
    rows = by_key(run, "base", ["logprob", "renyi_half", *NOVEL_COLUMNS])
    scores = build(run).scores.query("model == 'base'").set_index("key")
    for key, row in rows.items():
        assert all((row[name] >= 0).all() for name in NOVEL_COLUMNS), key
        assert scores.at[key, "log_e"] == pytest.approx(evalue.log_e(row), abs=1e-6), key
        roots = evalue.log_e({c: row[c] for c in ("logprob", "renyi_half")})
        assert scores.at[key, "log_e"] != pytest.approx(roots, abs=1e-6)


def test_a_hot_source_is_held_against_the_base_as_hot(tiny, new):
    run = new(sources=("base", "api", "hot"), api=Sampler(1.25), hot=Sampler(1.6))
    pipeline.score(run, base=tiny.name)
    assert run.manifest["scorers"]["base"]["powers"] == [*NOVEL_POWERS]
    rows = by_key(run, "base", ["logprob", "renyi_half", *NOVEL_COLUMNS])
    for key, log_e in build(run).scores.set_index("key")["log_e"].items():
        heat = {"base": 1.0, "api": 1.25, "hot": 1.6}[key.partition("/")[0]]
        assert log_e == pytest.approx(evalue.log_e(rows[key], heat), abs=1e-6, nan_ok=True), key
        assert math.isnan(log_e) == (heat == 1.6)


def test_a_served_base_tells_neither_powers_nor_end_tokens(tiny, folders, new):
    base, rl = folders
    run = new(sources=("base", "rl"), rl=Sampler(0.5))
    with served(tiny, "m", "n") as url:
        pipeline.score(run, base=base, policy={"rl": rl}, server={"base": f"{url}#m", "rl": f"{url}#n"})
    assert all(r["powers"] == r["eos_ids"] == [] for r in run.manifest["scorers"].values())
    assert all(r["logprob_source"] is None for r in by_key(run, "base", ["logprob_source"]).values())


def test_one_served_model_never_stands_for_two(tiny, folders, new):
    base, rl = folders
    both = {"base": base, "policy": {"rl": rl}}
    run = new(sources=("base", "rl"))
    with served(tiny, "m") as url:
        with pytest.raises(UsageError, match=r"base .*policy-rl .* by the one that it calls m; .*--server rl=URL"):
            pipeline.score(run, **both, server={"*": url})
        assert not run.scorers()
        pipeline.score(run, base=base, server={"*": url})
        with pytest.raises(UsageError, match="base .* and policy-rl .* are different models"):  # now base is finished
            pipeline.score(run, **both, server={"*": url})
        again = new("again", sources=("base", "rl"))
        pipeline.score(again, base=base, policy={"rl": base}, server={"*": url})  # said to be the base: it is
        assert again.scorers() == ["base"]
        with served(tiny, "m", "n") as other:
            pipeline.score(run, **both, server={"base": url, "rl": f"{other}#n"})
    assert run.manifest["policies"] == {"base": "base", "rl": "policy-rl"}
    assert run.manifest["scorers"]["policy-rl"]["server"]["model"] == "n"


def test_a_served_name_that_was_not_asked_for_is_told(tiny, folders, new):
    base, _ = folders
    for name, model, how in (("a", "other", ""), ("b", "org/base", ""), ("c", "other", "#other")):
        run = new(name)
        with served(tiny, model) as url:
            pipeline.score(run, base=base, server={"*": url + how})
        found = run.manifest["scorers"]["base"]["decisions"]
        told = {"model: the server serves other; it was asked as base": 12} if name == "a" else {}
        assert {k: n for k, n in found.items() if k.startswith("model: ")} == told


@pytest.mark.parametrize("now", [{"model": "other"}, {"owner": "sglang"}, {"kind": "sglang"}])
def test_a_server_that_serves_another_model_is_refused(tiny, folders, new, now):
    run = new()
    begun(tiny, run, folders[0])
    done, record = run.done("base"), dict(run.manifest["scorers"]["base"])
    with served(tiny, **now) as url, pytest.raises(UsageError, match="base was scored by a server with"):
        pipeline.score(run, base=folders[0], server={"*": url})
    assert run.done("base") == done and run.manifest["scorers"]["base"] == record


def test_a_server_may_move(tiny, folders, new):
    run = new()
    before = begun(tiny, run, folders[0])
    with served(tiny, "m") as url:
        pipeline.score(run, base=folders[0], server={"*": url})
        record = run.manifest["scorers"]["base"]
        assert len(run.done("base")) == 12 and url != before
        assert record["server"]["url"] == url and record["other_urls"] == [before]
        pipeline.score(run, base=folders[0], server={"*": f"{before}#m"})  # nothing is left to do
        with pytest.raises(UsageError, match="was scored under another base model"):
            pipeline.score(run, base=folders[0], server={"*": f"{url}#other"})


def test_shards_may_have_servers_of_their_own_but_no_models(tiny, folders, new, monkeypatch, tmp_path):
    monkeypatch.setattr("analyzer.scoring.parts.UNIT_TRACES", 4)
    urls = []
    for name, shard, model in (("a", (0, 2), "m"), ("b", (1, 2), "m"), ("c", (1, 2), "other")):
        with served(tiny, model) as url:
            pipeline.score(new(name), base=folders[0], server={"*": url}, shard=shard)
            urls.append(url)
    with pytest.raises(UsageError, match="differ in scorer base, server"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
    run, missing = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    record = run.manifest["scorers"]["base"]
    assert missing == [] and len(run.done("base")) == 12
    assert [record["server"]["url"], *record["other_urls"]] == urls[:2]


def test_labels_that_differ_in_case_alone_would_share_a_folder(tiny, new):
    run = new()
    with pytest.raises(UsageError, match="cross-X and cross-x differ in the case of letters alone"):
        pipeline.score(run, base=tiny.name, cross={"X": tiny.name, "x": tiny.name})
    assert not run.scorers()
