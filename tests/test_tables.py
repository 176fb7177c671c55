"""What `tables` adds to a run: generation-time log-probs summed, prompt hashes, what the scorers ran with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analyzer import tables
from analyzer.records import Scored, Trace
from analyzer.rows import prompt_hash
from analyzer.store import Run


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


def test_a_run_without_traces_has_the_columns(tmp_path):
    empty = Run.create(tmp_path / "empty")
    empty.settle(reference="base")
    made = tables.build(empty)
    assert (
        {"logprob_generated", "n_generated"} <= set(made.traces) and "prompt_hash" in made.scores and not made.engines
    )
