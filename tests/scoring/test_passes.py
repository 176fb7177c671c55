"""One pass over a model serves every scorer that is it: the same rows, results and words as a pass for each."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import analyzer
from analyzer.api import pipeline
from analyzer.pages import write
from analyzer.records import POWERS, Sampler
from analyzer.runs.merge import merge
from analyzer.runs.rows import LISTS
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring import parts
from analyzer.scoring.work import Work

COOL, WARM = Sampler(0.6, 0.95), Sampler(0.8)
NAMES = [*LISTS, "embedding", "top_position"]


@pytest.fixture(scope="module")
def drawn(tiny, tmp_path_factory):
    """A function that writes a dump of draws of `tiny` by a sampler: 4 problems x 8 draws; seeded."""
    folder = tmp_path_factory.mktemp("drawn")

    def draw(source, sampler, seed):
        torch.manual_seed(seed)
        rows = []
        for problem in range(4):
            asked = torch.tensor([[11 + problem, 7, 5]])
            how = {"temperature": sampler.temperature, "top_p": sampler.top_p, "top_k": 0, "eos_token_id": 99}
            out = tiny.model.generate(
                asked, do_sample=True, num_return_sequences=8, max_new_tokens=24, pad_token_id=0, **how
            )
            rows += [
                {"source": source, "problem": f"p{problem}", "sample": n, "response": "r", "correct": n % 3 == 0}
                | {"prompt_ids": asked[0].tolist(), "response_ids": ids}
                for n, ids in enumerate(out[:, 3:].tolist())
            ]
        (folder / f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    draw("base", Sampler(), 1)
    draw("cut", COOL, 2)
    draw("cool", COOL, 3)
    draw("warm", WARM, 4)
    return folder


def begin(folder, drawn, reference, **samplers):
    run = Run.create(folder)
    files = [str(drawn / f"{source}.jsonl") for source in samplers]
    pipeline.ingest(run, files, sampler=samplers, reference=reference)
    return run


def rows_of(run, label):
    return {row["key"]: row for part in run.tokens(label, NAMES) for row in part.to_dict("records")}


def assert_same_rows(one, two):
    assert one.scorers() == two.scorers()
    for label in one.scorers():
        have, want = rows_of(one, label), rows_of(two, label)
        assert have.keys() == want.keys() and list(one.done(label)) == list(dict.fromkeys(one.done(label)))
        for key, name in ((key, name) for key in want for name in NAMES):
            mine, its = have[key][name], want[key][name]
            assert (mine is None) == (its is None), (label, name)
            if mine is not None:
                assert np.allclose(mine, its, rtol=1e-4, atol=1e-5), (label, key, name)


def differences(one, two, at=""):
    """Where two values of results.json differ by more than float noise."""
    if isinstance(one, dict) and isinstance(two, dict):
        odd = [f"{at}/{k}" for k in one.keys() ^ two.keys()]
        return odd + [d for k in one.keys() & two.keys() for d in differences(one[k], two[k], f"{at}/{k}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [d for n, pair in enumerate(zip(one, two, strict=True)) for d in differences(*pair, f"{at}/{n}")]
    if isinstance(one, float) and isinstance(two, float):
        return [] if math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-4) else [f"{at}: {one} {two}"]
    return [] if one == two else [f"{at}: {one} {two}"]


def tokens_computed(call):
    """How many tokens go through embedding layers of some length: not those of the made-up group."""
    seen = []

    def count(module, given):
        if isinstance(module, torch.nn.Embedding) and given[0].numel() > 200:
            seen.append(given[0].numel())

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        call()
    finally:
        hook.remove()
    return sum(seen)


@pytest.mark.parametrize(
    ("reference", "samplers"),
    [
        ("base", {"base": Sampler(), "cool": COOL, "warm": WARM}),
        ("cut", {"cut": COOL, "base": Sampler(), "warm": WARM}),
    ],
)
def test_another_sampler_of_the_bases_weights_gives_the_results_of_a_second_pass(
    tiny, drawn, tmp_path, monkeypatch, reference, samplers
):
    """Reach, lost, membership, declarations, pairs, words: all of results.json."""
    how = {"base": tiny.name, "policy": {source: tiny.name for source in samplers if source != reference}}
    one, two, alone = (begin(tmp_path / name, drawn, reference, **samplers) for name in ("one", "two", "alone"))
    computed = tokens_computed(lambda: pipeline.score(one, **how))
    assert computed == tokens_computed(lambda: pipeline.score(alone, base=tiny.name)) > 0
    monkeypatch.setattr(Work, "passes", lambda work: [[label] for label in work.jobs])  # as it was: a pass for each
    assert tokens_computed(lambda: pipeline.score(two, **how)) > 2 * computed
    assert_same_rows(one, two)
    assert one.manifest["scorers"] == two.manifest["scorers"]
    monkeypatch.setattr(write, "write", lambda folder, **given: {})  # nothing is drawn
    found = [pipeline.report(run, tmp_path / "report", robustness=False) for run in (one, two)]
    whole = [
        {"verdicts": [v.as_json() for v in f.verdicts], "results": {n: r.as_json() for n, r in f.results.items()}}
        for f in found
    ]
    assert differences(*whole) == []
    for source in samplers.keys() - {reference}:
        assert any(v.source == source and v.level == "sequence" for v in found[0].verdicts)
        for name in ("reach@64", "lost@64", "sampler_inside"):
            assert math.isfinite(found[0].results["support"].estimates[f"{source}.{name}"].value), (source, name)


def test_a_copy_is_not_loaded_and_another_model_has_a_pass_of_its_own(tiny, stories, drawn, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(tiny.name, copy)
    other = tmp_path / "other"
    shutil.copytree(tiny.name, other)
    (other / "tokenizer_config.json").write_text("{}")  # another tokenizer may make other ids of the same text
    run = begin(tmp_path / "run", drawn, "base", base=Sampler(), cool=COOL, warm=WARM)
    loads, load = [], scorers.load
    monkeypatch.setattr(scorers, "load", lambda name, **options: loads.append(name) or load(name, **options))
    pipeline.score(run, base=tiny.name, policy={"cool": str(copy), "warm": str(other)}, cross={"x": tiny.name})
    assert loads == [tiny.name, str(other)]
    records = run.manifest["scorers"]
    assert records["policy-cool"]["model"] == str(copy) and records["policy-cool"]["powers"] == []
    assert records["base"]["powers"] == [*POWERS] and records["cross-x"]["sampler"] is None
    crossed, plain = rows_of(run, "cross-x"), rows_of(run, "base")
    assert all(row["logprob_s"] is None and row["power_5"] is None for row in crossed.values())
    assert all(np.array_equal(row["logprob"], plain[key]["logprob"]) for key, row in crossed.items())


def test_what_an_earlier_version_or_a_broken_call_left_is_gone_on_with(tiny, drawn, tmp_path, monkeypatch):
    """Whichever scorer has less: no row twice, none missing, and what is whole is not computed again."""
    monkeypatch.setattr(parts, "UNIT_TRACES", 8)
    samplers = {"base": Sampler(), "cool": COOL}
    how = {"base": tiny.name, "policy": {"cool": tiny.name}}
    whole = begin(tmp_path / "whole", drawn, "base", **samplers)
    pipeline.score(whole, **how)
    later = begin(tmp_path / "later", drawn, "base", **samplers)
    pipeline.score(later, base=tiny.name)
    pipeline.score(later, **how)
    want = rows_of(whole, "policy-cool")
    assert all(np.allclose(r["logprob_s"], want[key]["logprob_s"]) for key, r in rows_of(later, "policy-cool").items())
    assert later.manifest["finished"] == {"base": [64, 64], "policy-cool": [64, 64]}
    for label in ("base", "policy-cool"):
        for number in (0, 3):
            run = begin(tmp_path / f"{label}-{number}", drawn, "base", **samplers)
            with broken_off(monkeypatch, label, number):
                pipeline.score(run, **how)
            run = Run.open(run.path)
            assert len(run.done("base")) < 64
            pipeline.score(run, **how)
            assert_same_rows(run, whole)
            assert run.manifest["finished"] == {"base": [64, 64], "policy-cool": [64, 64]}
            for scorer in ("base", "policy-cool"):
                said = run.manifest["scorers"][scorer]["decisions"]
                assert said == whole.manifest["scorers"][scorer]["decisions"] and set(said.values()) == {64}


@contextmanager
def broken_off(monkeypatch, label, number):
    """The call is interrupted at a scorer's part of this number."""
    append, written = Run.append_scores, []

    def breaks(run, scorer, rows, **options):
        if scorer == label:
            written.append(scorer)
            if len(written) > number:
                raise KeyboardInterrupt
        append(run, scorer, rows, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "append_scores", breaks)
        yield


def test_shards_of_a_shared_pass_join_to_the_whole(tiny, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "UNIT_TRACES", 8)
    samplers = {"base": Sampler(), "warm": WARM, "cool": COOL}  # the base has traces that the policy is not asked for
    how = {"base": tiny.name, "policy": {"cool": tiny.name}}
    whole = begin(tmp_path / "whole", drawn, "base", **samplers)
    pipeline.score(whole, **how)
    shards = []
    for i in range(2):
        shards.append(begin(tmp_path / f"shard{i}", drawn, "base", **samplers))
        pipeline.score(shards[i], shard=(i, 2), **how)
        assert 0 < len(shards[i].done("policy-cool")) < 64
    joined, missing = merge([s.path for s in shards], tmp_path / "joined")
    assert missing == []
    assert_same_rows(joined, whole)
    # the policy is named later, when one shard has its base and the other has not: who scores what stays the same
    late = [begin(tmp_path / f"late{i}", drawn, "base", **samplers) for i in range(2)]
    pipeline.score(late[0], base=tiny.name, shard=(0, 2))
    with broken_off(monkeypatch, "base", 1):
        pipeline.score(late[1], base=tiny.name, shard=(1, 2))
    for i in range(2):
        pipeline.score(Run.open(late[i].path), shard=(i, 2), **how)
        assert Run.open(late[i].path).done("policy-cool") == shards[i].done("policy-cool")


def test_a_dry_run_counts_a_shared_pass_once(tiny, drawn, tmp_path):
    run = begin(tmp_path / "run", drawn, "base", base=Sampler(), cool=COOL, warm=WARM)
    how = {"base": tiny.name, "policy": {"cool": tiny.name, "warm": tiny.name}}
    alone = analyzer.estimate(run, base=tiny.name)["models"]["base"]
    plan = analyzer.estimate(run, **how)["models"]
    assert plan["base"]["computed_tokens"] == alone["computed_tokens"] > 0
    for label in ("policy-cool", "policy-warm"):
        assert (plan[label]["pass"], plan[label]["computed_tokens"], plan[label]["seconds"]) == ("base", 0, 0)
        assert plan[label]["traces"] == 64
    pipeline.score(run, base=tiny.name)
    after = analyzer.estimate(run, **how)["models"]  # the base is whole: now one of them computes, the other the rest
    assert after["base"]["traces"] == 0 < after["policy-cool"]["computed_tokens"]
    assert 0 < after["policy-warm"]["computed_tokens"] < after["policy-cool"]["computed_tokens"]
    computed = sum(m["computed_tokens"] for m in after.values())
    assert computed == pytest.approx(tokens_computed(lambda: pipeline.score(run, **how)), rel=0.1)
