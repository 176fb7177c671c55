"""The run directory: round trips, resume, refusals. Scores come from a real (tiny) model."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.records import (
    CORE_COLUMNS,
    NOVEL_COLUMNS,
    NOVEL_POWERS,
    POWER_COLUMNS,
    POWERS,
    SAMPLER_COLUMNS,
    SOURCE_COLUMNS,
    Sampler,
    Trace,
)
from analyzer.runs.disk import write_atomically
from analyzer.runs.rows import ADDED, prompt_hash
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring import plain
from analyzer.scoring.encoding.encode import encode


def traces(n=4):
    yield Trace(
        "base",
        "p1",
        0,
        "a b",
        prompt="Say: ",
        correct=True,
        score=0.5,
        meta={"x": [1]},
        origin="d:1",
        sampler=Sampler(0.6, 0.95),
    )
    for i in range(1, n):
        yield Trace(
            "base",
            "p1",
            i,
            f"word {i} \u2713",
            prompt=[{"role": "user", "content": "q"}],
            step=3,
            response_ids=(5, 6),
            prompt_ids=(1, 4),
            response_logprobs=(-0.5, -1.5),
            logprobs_temperature=1.0,
            finish="length",
            group="g",
            origin=f"d:{i}",
        )


def test_traces_survive_the_disk(tmp_path):
    run = Run.create(tmp_path / "r")
    assert run.append_traces(list(traces())) == 4
    assert list(Run.open(tmp_path / "r").traces()) == list(traces())
    frame = run.trace_table()
    assert list(frame["key"]) == ["base/p1/0", "base/p1/1@3", "base/p1/2@3", "base/p1/3@3"]
    assert frame["correct"].isna().sum() == 3 and frame["step"].isna().sum() == 1


def numbered():
    """A trace with numbers of its own: unknown, impossible, at two temperatures."""
    base = {1.0: (-0.5, -math.inf), 0.6: (math.nan, -0.25)}
    ids = {"response_ids": (5, 6), "response_logprobs": (math.nan, -1.5), "base_logprobs": base}
    ids |= {"policy_logprobs": {"b": {1.0: (-0.5, -math.inf)}, "a": base}}
    return Trace("rl", "p1", 0, "a b", **ids, meta={"response_mask": [0, 1]}, origin="d:1")


def test_numbers_of_a_row_survive_the_disk(tmp_path):
    run = Run.create(tmp_path / "r")
    run.append_traces([numbered(), *traces(2)])
    back = list(Run.open(tmp_path / "r").traces())
    assert repr(back[0]) == repr(numbered()) and [t.base_logprobs for t in back[1:]] == [None, None]


def test_parts_of_before_there_were_base_logprobs_are_read(tmp_path):
    run = Run.create(tmp_path / "r")
    run.append_traces(list(traces()))
    part = tmp_path / "r" / "traces" / "part-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(list(ADDED)), part)
    run.append_traces([numbered()])
    assert list(run.traces())[:4] == list(traces())
    batches = list(run.trace_batches(["base_logprobs"]))
    assert [b["base_logprobs"].null_count for b in batches] == [4, 0]
    names = ["base_temperatures", "key"]
    assert all(b.schema.names == names for b in run.trace_batches(names))
    pq.write_table(pq.read_table(part).drop_columns(["key"]), part)
    with pytest.raises(DumpError, match="column key is missing"):
        list(run.traces())


def test_base_logprobs_that_a_dump_got_later_are_refused_not_left_out(tmp_path):
    run = Run.create(tmp_path)
    run.append_traces([replace(numbered(), base_logprobs=None)])
    with pytest.raises(DumpError, match=r"with other content \(base_temperatures, base_logprobs\): the file"):
        run.append_traces([numbered()])
    other = Run.create(tmp_path / "other")
    assert [other.append_traces([numbered()]) for _ in range(2)] == [1, 0]


def test_appending_twice_adds_nothing_and_other_content_is_refused(tmp_path):
    run = Run.create(tmp_path)
    run.append_traces(list(traces()))
    assert run.append_traces(list(traces(6))) == 2
    with pytest.raises(DumpError, match=r"d:1: trace base/p1/0 is already in run .* with other content"):
        run.append_traces([Trace("base", "p1", 0, "changed", origin="d:1")])


def test_a_number_is_the_same_trace_however_it_is_written(tmp_path):
    run = Run.create(tmp_path)
    run.append_traces([Trace("base", "p1", 0, "x", score=1)])
    assert run.append_traces([Trace("base", "p1", 0, "x", score=1.0)]) == 0
    assert run.append_traces([Trace("base", "p1", 0, "x", score=1)]) == 0


@pytest.mark.parametrize("change", [{"prompt": "b"}, {"correct": False}, {"response_ids": (1,)}, {"answer": "7"}])
def test_whatever_else_a_trace_says_is_compared_too(tmp_path, change):
    run = Run.create(tmp_path)
    before = {"prompt": "a", "correct": True, "response_ids": (1, 2)}
    run.append_traces([Trace("base", "p1", 0, "x", **before, origin="d:1")])
    with pytest.raises(
        DumpError, match=rf"from d:1, with other content \({next(iter(change))}\): the file has changed"
    ):
        run.append_traces([Trace("base", "p1", 0, "x", **before | change, origin="d:2")])
    assert run.append_traces([Trace("base", "p1", 0, "x", **before, origin="other:1", meta={"new": 1})]) == 0


@pytest.mark.parametrize(
    "name, change",
    {
        "response_mask": {"meta": {"response_mask": [1, 0, 0]}},
        "response_logprobs": {"response_logprobs": (-0.5, math.nan, -0.7)},
        "base_logprobs": {"base_logprobs": {1.0: (-0.5, -1.0, -2.0), 0.7: (-0.5, -math.inf, -0.25)}},
        "policy_logprobs": {"policy_logprobs": {"rl": {1.0: (-0.5, -1.0, -2.5)}}},
        "policy_sources": {"policy_logprobs": {"rk": {1.0: (-0.5, -1.0, -2.0)}}},
    }.items(),
)
def test_numbers_and_masks_that_changed_under_a_known_key_are_refused(tmp_path, name, change):
    run = Run.create(tmp_path)
    numbers = {
        "response_logprobs": (-0.5, math.nan, -0.6),
        "base_logprobs": {1.0: (-0.5, -1.0, -2.0), 0.7: (-0.5, -math.inf, -0.3)},
        "policy_logprobs": {"rl": {1.0: (-0.5, -1.0, -2.0)}},
        "meta": {"response_mask": [1, 1, 0], "note": "a"},
    }
    before = Trace("base", "p1", 0, "x", response_ids=(4, 5, 6), **numbers, origin="d:1")
    run.append_traces([before])
    assert run.append_traces([before]) == 0  # NaN is as it was, and float32 holds -0.6 and -0.3 otherwise
    assert run.append_traces([replace(before, meta=before.meta | {"note": "b"})]) == 0
    with pytest.raises(DumpError, match=rf"from d:1, with other content \({name}\): the file has changed"):
        run.append_traces([replace(before, **change)])
    for lost in ({"meta": {}}, {"response_logprobs": None}):
        with pytest.raises(DumpError, match="with other content"):
            run.append_traces([replace(before, **lost)])


def test_a_mask_that_masks_nothing_is_none(tmp_path):
    run = Run.create(tmp_path)
    bare = Trace("base", "p1", 0, "x", response_ids=(4, 5))
    run.append_traces([bare])
    assert run.append_traces([replace(bare, meta={"response_mask": [1, 1]})]) == 0


def test_scores_survive_the_disk(tmp_path, stories):
    loaded = scorers.load(str(stories))
    run = Run.create(tmp_path)
    texts = ["Once upon a time", "zzz quite odd 17", "The end."]
    items = [
        encode(Trace("s", "p", i, t, prompt="A story: "), loaded.tokenizer, vocab_size=512) for i, t in enumerate(texts)
    ]
    want = {s.key: s for s in plain.score(items, loaded.model, Sampler(0.6, 0.9), powers=(*NOVEL_POWERS, *POWERS))}
    cool = next(plain.score(items[1:2], loaded.model, Sampler(0.5))).columns["logprob_s"]
    want["s/p/1"].columns["logprob_source"] = cool  # the others have none
    run.append_scores("base", [(i.trace, i.prompt_ids, want[i.trace.key]) for i in items[:2]])
    run.append_scores(
        "base", [(items[2].trace, items[2].prompt_ids, want["s/p/2"]), (Trace("s", "p", 3, ""), (), "empty response")]
    )
    assert run.done("base") == {"s/p/0": "ok", "s/p/1": "ok", "s/p/2": "ok", "s/p/3": "empty response"}
    columns = [*CORE_COLUMNS, *SAMPLER_COLUMNS, *POWER_COLUMNS, *NOVEL_COLUMNS, *SOURCE_COLUMNS, "offset", "embedding"]
    rows = [r for part in run.tokens("base", columns) for r in part.to_dict("records")]
    assert [r["key"] for r in rows] == list(want)
    for row in rows:
        for name, values in want[row["key"]].columns.items():
            assert np.array_equal(row[name], values), name
            assert row[name].dtype == values.dtype
        assert (row["logprob_source"] is None) == (row["key"] != "s/p/1")
        assert np.array_equal(row["embedding"], want[row["key"]].embedding)
        assert np.array_equal(run.prompts("base")[row["prompt"]], items[0].prompt_ids)
    [parts] = [list(run.tokens("base", ["top_position", "top_token"]))]
    assert list(parts[0].loc[1, "top_position"]) == [t[0] for t in want["s/p/1"].top]


def test_settings_of_a_run_cannot_change(tmp_path):
    run = Run.create(tmp_path)
    run.settle(threshold=1.0, templates={"*": "none"})
    Run.open(tmp_path).settle(threshold=1.0, templates={"*": "none"})
    with pytest.raises(UsageError, match="was made with threshold=1.0, now threshold=0.5"):
        Run.open(tmp_path).settle(threshold=0.5)


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(DumpError, match="has no run.json"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DumpError, match="not valid JSON"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(DumpError, match="schema 99"):
        Run.open(tmp_path)


def test_a_half_written_part_is_invisible(tmp_path):
    run = Run.create(tmp_path)
    run.append_traces(list(traces()))
    (tmp_path / "traces" / ".part-00001.parquet.tmp").write_bytes(b"PAR1 cut off")
    assert len(list(run.traces())) == 4


def test_unwritable_folders_are_a_resource_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ResourceError, match="can't be written"):
        Run.create(file / "run")
    with pytest.raises(ResourceError, match="can't be written"):
        write_atomically(file / "x", b"")


def test_rejected_rows_are_kept_once(tmp_path):
    run = Run.create(tmp_path)
    row = {"file": "d", "line": 3, "reason": "no response", "row": {"a": 1}}
    run.reject([row])
    run.reject([row, {**row, "line": 4}])
    lines = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(x)["line"] for x in lines] == [3, 4]


def test_prompt_hash_tells_prompts_apart():
    assert prompt_hash((1, 2)) == prompt_hash([1, 2]) != prompt_hash((2, 1))


def test_unknown_columns_and_scorers_are_named(tmp_path):
    run = Run.create(tmp_path)
    with pytest.raises(UsageError, match="nothing in run .* is scored; score it with --base MODEL"):
        list(run.tokens("base", ["logprob"]))
    run.append_scores("base", [(Trace("s", "p", 3, ""), (), "empty response")])
    with pytest.raises(UsageError, match="has no scores under 'bose'; did you mean 'base'"):
        list(run.tokens("bose", ["logprob"]))
    with pytest.raises(UsageError, match="scores have no column 'logprop'; did you mean 'logprob'"):
        list(run.tokens("base", ["logprop"]))
