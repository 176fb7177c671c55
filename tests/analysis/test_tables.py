"""What `tables` adds to a run: generation-time log-probs summed, prompt hashes, what the scorers ran with."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analyzer import records
from analyzer.analysis.data import tables
from analyzer.records import Scored, Trace
from analyzer.runs.rows import prompt_hash
from analyzer.runs.store import Run


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.create(tmp_path / "run")
    rows = [
        ((-0.5, -0.25), 1.0),
        (None, None),
        ((-math.inf, -1.0), 1.0),
        ((-2.0,), 0.6),  # tempered: not comparable with scores at T=1
        ((-1.0, -2.0, -3.0), 1.0),
        ((-1.0,), None),  # temperature not declared
    ]
    traces = [
        Trace("base", f"p{i}", 0, "a b", "q", response_logprobs=lp, logprobs_temperature=t)
        for i, (lp, t) in enumerate(rows)
    ]
    run.append_traces(traces[:4])
    run.append_traces(traces[4:])
    columns = {n: np.zeros(2, np.float32) for n in ("logprob", "entropy", "varentropy", "renyi_half", "mass_above")}
    columns |= {"token": np.array([1, 2], np.int32), "rank": np.ones(2, np.int32), "offset": np.array([0, 2], np.int32)}
    run.append_scores("base", [(t, (7, i), Scored(t.key, columns)) for i, t in enumerate(traces)])
    run.manifest["scorers"]["base"] = {"dtype": "float32", "device": "cpu", "sampler": None}
    run.settle(reference="base")
    return run


def test_generated_log_probs_are_summed_where_they_are_at_temperature_one(run):
    made = tables.build(run).traces.set_index("problem")
    assert made["logprob_generated"].tolist() == pytest.approx(
        [-0.75, math.nan, -math.inf, math.nan, -6.0, math.nan], nan_ok=True
    )
    assert made["n_generated"].tolist() == [2, 0, 2, 0, 3, 0]


def test_scores_carry_the_hash_of_their_prompt_and_the_engine_is_known(run):
    made = tables.build(run)
    assert made.scores.sort_values("problem")["prompt_hash"].tolist() == [prompt_hash((7, i)) for i in range(6)]
    assert made.engines == {"base": {"dtype": "float32", "device": "cpu", "sampler": None}}


def test_a_sum_with_an_unknown_log_prob_is_not_known(tmp_path):
    run = Run.create(tmp_path / "run")
    rows = [(-0.5, math.nan), (-0.5, -0.25), (math.nan,), ()]
    run.append_traces(
        Trace("base", f"p{i}", 0, "a", response_logprobs=lp, logprobs_temperature=1.0) for i, lp in enumerate(rows)
    )
    run.settle(reference="base")
    made = tables.build(run).traces
    assert made["logprob_generated"].tolist() == pytest.approx([math.nan, -0.75, math.nan, math.nan], nan_ok=True)
    assert made["n_generated"].tolist() == [0, 2, 0, 0]


def test_numbers_are_those_of_rows_that_bring_both(tmp_path):
    run = Run.create(tmp_path / "run")
    own = {"response_ids": (5, 6), "response_logprobs": (-0.5, math.nan)}
    law = {1.0: (-1.0, -math.inf), 0.6: (math.nan, -2.0)}
    kept = {"response_mask": [1, 0]}
    first = [
        Trace("rl", "p0", 0, "a", **own, base_logprobs=law, logprobs_temperature=0.6, finish="stop", step=3, meta=kept),
        Trace("rl", "p1", 0, "a", **own),
        Trace("rl", "p2", 0, "a", response_ids=(5, 6), base_logprobs=law),
        Trace("rl", "p3", 0, "", response_ids=(), response_logprobs=(), base_logprobs={1.0: ()}),
    ]
    run.append_traces(first)
    run.append_traces([Trace("base", "p0", 0, "text alone")])
    run.append_traces(
        [Trace("base", "p1", 1, "b", response_ids=(7,), response_logprobs=(-3.0,), base_logprobs={2.0: (-4.0,)})]
    )
    run.settle(reference="base")
    one, two = tables.build(run).numbers()
    assert list(one) == [
        "key", "source", "problem", "sample", "step", "finish", "token", "logprob_q",
        "logprobs_temperature", "laws", "written", "stated",
    ]  # fmt: skip
    assert one["key"].tolist() == ["rl/p0/0@3", "rl/p3/0"] and two["key"].tolist() == ["base/p1/1"]
    row = one.iloc[0]
    assert row["token"].dtype == np.int32 and row["token"].tolist() == [5, 6] and row["finish"] == "stop"
    assert row["logprob_q"].dtype == np.float32 and row["logprobs_temperature"] == 0.6 and row["step"] == 3
    np.testing.assert_array_equal(row["logprob_q"], np.float32([-0.5, np.nan]))
    assert row["written"].tolist() == [True, False] and two.iloc[0]["written"] is None
    assert list(row["laws"]) == [1.0, 0.6] and row["laws"][0.6].dtype == np.float32
    np.testing.assert_array_equal(row["laws"][1.0], np.float32([-1, -np.inf]))
    np.testing.assert_array_equal(row["laws"][0.6], np.float32([np.nan, -2]))
    assert one.iloc[1]["laws"][1.0].tolist() == [] and pd.isna(one.iloc[1]["finish"])
    assert two.iloc[0]["laws"] == {2.0: np.float32(-4)} and math.isnan(two.iloc[0]["logprobs_temperature"])


def test_numbers_made_by_hand_are_none_unless_given():
    assert list(records.Tables(pd.DataFrame(), pd.DataFrame(), lambda m, c: iter(()), "base").numbers()) == []


def test_a_run_without_traces_has_the_columns(tmp_path):
    empty = Run.create(tmp_path / "empty")
    empty.settle(reference="base")
    made = tables.build(empty)
    assert (
        {"logprob_generated", "n_generated"} <= set(made.traces) and "prompt_hash" in made.scores and not made.engines
    )
