"""The packs of the page: what goes in comes out, offsets count as the browser counts, the rest is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analyzer.analysis.figures import styles
from analyzer.pages import embed
from analyzer.records import Result

text = st.text(st.characters(exclude_categories=["Cs"]))


@settings(derandomize=True)
@given(
    st.dictionaries(st.sampled_from("abcd"), text),
    hnp.arrays(st.sampled_from(["u1", "u2", "u4"]), st.integers(0, 40), elements=st.integers(0, 255)),
    hnp.arrays("f4", st.integers(0, 40)),
)
def test_a_pack_comes_back(unpack, head, whole, real):
    found = unpack(embed.pack(head, {"x": whole, "y": real}))
    assert {k: found[k] for k in head} == head
    assert (found["x"] == whole).all() and found["x"].dtype == whole.dtype
    np.testing.assert_array_equal(found["y"], real)


def test_half_a_surrogate_pair_survives(unpack):
    assert unpack(embed.pack({"t": "a\ud83db"}, {}))["t"] == "a\ud83db"


def test_every_token_is_found_again(unpack, traces):
    """Lengths are UTF-16 units, numbers are rounded by no more than is said, packs hold each trace once."""
    built = embed.build(traces, {}, styles(traces.sources))
    index, packs = unpack(built.index), [unpack(p) for p in built.packs]
    scores = {row["key"]: row for part in traces.tokens("base", []) for row in part.to_dict("records")}
    seen = 0
    for number, pack in enumerate(packs):
        at = 0
        for trace in pack["traces"]:
            i = trace["i"]
            source, problem = index["sources"][index["source"][i]]["label"], index["problems"][index["problem"][i]]
            key = f"{source}/{problem}/{index['sample'][i]}"
            row, part = scores[key], slice(at, at + trace["n"])
            assert index["pack"][i] == number and index["tokens"][i] == trace["n"] == len(row["token"])
            units = trace["text"].encode("utf-16-le")
            ends = 2 * np.cumsum(pack["length"][part])
            pieces = [units[a:b].decode("utf-16-le") for a, b in zip([0, *ends[:-1]], ends, strict=True)]
            response = traces.text_of([key])[key]
            bounds = [*row["offset"], len(response)]
            assert pieces == [response[a:b] for a, b in zip(bounds, bounds[1:])]
            assert np.abs(pack["surprisal"][part] / 100 + row["logprob"]).max() <= 0.0051
            assert np.abs(pack["mass"][part] / 65000 - row["mass_above"]).max() <= 1e-5
            assert (pack["rank"][part] == row["rank"]).all()
            assert [p for p, _, _ in trace["top"]] == list(row["top_position"])
            assert pack["prompts"][str(index["problem"][i])] == f"What is {problem[1:]}?"
            at, seen = at + trace["n"], seen + 1
    assert seen == len(traces.traces) == 120 and built.note == "All 120 traces are in the viewer."


def test_a_large_run_keeps_what_analyses_point_at_and_says_so(unpack, traces):
    pointed = ["cool/p3/5", "rlvr/p2/4"]
    frame = pd.DataFrame({"source": ["cool", "rlvr"], "key": pointed})
    tested = pd.DataFrame({"source": ["cool", "rlvr"]})
    results = {"support": Result("support", "?", {}, {"flagged_windows": frame, "plane_counts": tested})}
    built = embed.build(traces, results, styles(traces.sources), megabytes=0.01)
    index = unpack(built.index)
    kept = np.flatnonzero(index["pack"] != embed.NONE)
    assert 2 < len(kept) < 120 and len(index["pack"]) == 120  # the index has all
    keys = traces.traces["key"].tolist()
    assert set(pointed) <= {keys[i] for i in kept}
    assert built.note.startswith(f"{len(kept)} of 120 traces are in the viewer, as many as 0.01 MB hold: 2 of 2 that")
    assert sum(map(len, built.packs)) < 0.03e6
    flags = {keys[i]: int(index["flagged"][i]) for i in range(120)}
    assert {k for k, v in flags.items() if v == 1} == set(pointed)
    assert {k for k, v in flags.items() if v == 0} == {k for k in keys if k.startswith(("cool", "rlvr"))} - set(pointed)


def test_the_index_holds_questions_and_clusters(unpack, traces, written):
    index = unpack(written.html.split('id="pack-index">')[1].split("<")[0])
    assert index["problems"] == ["p0", "p1", "p2", "p3"] and index["asked"][2] == "What is 2?"
    members = written.data["analyses"]["clusters"]["tables"]["members"]["rows"]
    assert index["cluster"].tolist().count(0) == sum(row[1] == 0 for row in members) == 40
    assert np.isfinite(index["x"]).all() and index["flagged"].tolist().count(1) == 5
    assert index["flagged"].tolist().count(2) == 24  # the reference is not tested


def test_a_long_question_is_cut_in_the_index_and_whole_in_the_pack(unpack, world):
    tables = world.tables(["a"], problems=1, samples=2)
    long = "Let  x\nbe " + "7" * 200
    held = tables.traces[["key"]].assign(question=long)
    tables = dataclasses.replace(tables, texts=lambda columns: iter([held.reindex(columns=["key", *columns])]))
    built = embed.build(tables, {}, styles(["a"]))
    assert unpack(built.index)["asked"] == ["Let x be " + "7" * (embed.ASKED_CHARACTERS - 9) + "…"]
    assert unpack(built.packs[0])["prompts"] == {"0": long}


def test_numbers_that_are_not_finite_have_codes():
    found = embed._coded(np.array([np.nan, np.inf, 0.004, -0.2, 1e9]), 100)
    assert found.tolist() == [embed.UNKNOWN, embed.ENDLESS, 0, 0, embed.UNKNOWN - 1]


def test_tokens_without_offsets_show_their_ids(unpack, traces):
    def stream(model, columns):
        for part in traces.tokens(model, columns):
            yield part.assign(offset=[np.full(len(t), -1) for t in part["token"]])

    built = embed.build(dataclasses.replace(traces, tokens=stream), {}, styles(traces.sources))
    trace = unpack(built.packs[0])["traces"][0]
    assert trace["text"].startswith("<") and trace["text"].count("<") == trace["n"]


def test_without_a_model_the_text_is_there(unpack, world):
    built = embed.build(world.tables(["a", "b"], base=None), {}, styles(["a", "b"]))
    found = unpack(built.packs[0])
    assert len(found["traces"]) == 48 and found["traces"][0]["n"] == 0 and found["traces"][0]["text"].startswith(" w")


def test_the_same_traces_make_the_same_bytes(traces):
    one, two = (embed.build(traces, {}, styles(traces.sources)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("values", [[None, None], [True, None], [False, True]])
def test_correctness_may_be_unknown(unpack, world, values):
    tables = world.tables(["a"], problems=1, samples=2)
    frame = tables.traces.assign(correct=pd.array(values, dtype="boolean"))
    index = unpack(embed.build(dataclasses.replace(tables, traces=frame), {}, styles(["a"])).index)
    assert index["correct"].tolist() == [{False: 0, True: 1, None: 2}[v] for v in values]


def test_step_zero_and_no_step_differ(unpack, world):
    tables = world.tables(["a"], problems=1, samples=2)
    frame = tables.traces.assign(step=pd.array([0, None], dtype="Int64"))
    index = unpack(embed.build(dataclasses.replace(tables, traces=frame), {}, styles(["a"])).index)
    assert sorted(index["step"].tolist()) == [0, embed.NONE]


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA])
def test_missing_facts_are_left_out(value):
    assert not embed._said(value)
