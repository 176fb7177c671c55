"""Whatever comes in, its canonical rows read back to the same traces."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.dumps import convert, frames
from analyzer.dumps import read as dumps
from analyzer.dumps.reading import META_FIELDS
from analyzer.errors import ResourceError, UsageError
from analyzer.records import Sampler, Trace

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
NAMES = sorted(p.name for p in SAMPLES.iterdir())


def bare(trace):
    """A trace without the place it was read from."""
    return replace(trace, origin="", meta={k: v for k, v in trace.meta.items() if k != "row"})


def again(traces, path):
    convert.write(traces, path)
    back, ledger = dumps.read_dumps([str(path)])
    assert ledger.files[0]["format"] == ("canonical-parquet" if path.suffix == ".parquet" else "canonical")
    return back


@pytest.mark.parametrize("ending", convert.ENDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_every_sample_comes_back(name, ending, tmp_path):
    specs = [str(SAMPLES / name)]
    if name in ("evalscope", "lm-eval", "verl"):  # folders of which each is a source
        specs = [f"{name}-{p.name}={p}" for p in (SAMPLES / name).iterdir()]
    before, ledger = dumps.read_dumps(specs)
    again_ledger = convert.convert(specs, tmp_path / f"out{ending}")
    assert again_ledger.as_json() == ledger.as_json()
    after, _ = dumps.read_dumps([str(tmp_path / f"out{ending}")])
    assert list(map(bare, after)) == list(map(bare, before))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
word = text.filter(lambda s: s.strip())
messages = st.lists(st.fixed_dictionaries({"role": word, "content": text}), min_size=1, max_size=3)
maybe = st.none()
traces = st.lists(
    st.builds(
        Trace,
        source=st.sampled_from(["base", "grpo-300"]),
        problem=word,
        sample=st.integers(0, 2**60),
        response=text,
        prompt=maybe | text | messages,
        question=maybe | word,
        step=maybe | st.integers(0, 10**9),
        prompt_ids=maybe | st.lists(st.integers(0, 2**31 - 1)).map(tuple),
        response_ids=maybe | st.lists(st.integers(0, 2**31 - 1), min_size=1).map(tuple),
        correct=maybe | st.booleans(),
        finish=st.sampled_from([None, "stop", "length"]),
        answer=maybe | text,
        group=maybe | word,
        sampler=st.sampled_from([None, Sampler(), Sampler(0.6, 0.95, 20, 0.1)]),
        meta=st.dictionaries(
            # the reader's own entries have forms of their own (a stop reason is text)
            word.filter(lambda key: key not in META_FIELDS),
            maybe | text | st.integers(-(2**53), 2**53) | st.lists(text, max_size=2),
            max_size=2,
        ),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda t: (t.source, t.problem, t.step, t.sample),
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(traces)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_any_traces_come_back(tmp_path_factory, ending, given_traces):
    path = tmp_path_factory.mktemp("c") / f"out{ending}"
    for before, after in zip(given_traces, again(given_traces, path), strict=True):
        assert bare(after) == bare(before)


@pytest.mark.parametrize("ending", convert.ENDINGS)
def test_numbers_of_rows_come_back(tmp_path, ending):
    base = {1.0: (-0.1, -math.inf, math.nan), 0.6: (-1e-9, -math.inf, -20.25)}
    ids = {"response_ids": (5, 6, 7), "response_logprobs": (-0.3, math.nan, math.nan), "base_logprobs": base}
    rows = [
        Trace("rl", "p", 0, "a", **ids, logprobs_temperature=0.6),
        Trace("rl", "p", 1, "b", **ids, meta={"response_mask": [1, 1, 0]}),
        Trace("rl", "p", 2, "c", response_ids=(5,), base_logprobs={1.0: (-1.0,)}),
        Trace("rl", "p", 3, "d"),
        Trace("rl", "p", 4, "e", response_ids=(5, 6, 7), policy_logprobs={"a": base, "b": {1.0: (-1.0, -2.0, -3.0)}}),
    ]
    rows[1] = replace(rows[1], base_logprobs={t: (*law[:2], math.nan) for t, law in base.items()})
    assert repr(list(map(bare, again(rows, tmp_path / f"out{ending}")))) == repr(rows)
    assert repr([bare(t) for t in dumps.read_dumps(frames.specs({"rl": rows}, tmp_path))[0]]) == repr(rows)


def test_numbers_of_a_table_are_read(tmp_path):
    row = {"problem": "p", "sample": 0, "prompt": "q", "response": "a b", "response_ids": np.array([5, 6])}
    row |= {"response_logprobs": np.array([-1, np.nan]), "response_mask": np.array([True, True])}
    frame = pd.DataFrame([row | {"base_logprobs": {1.0: np.array([np.nan, -np.inf])}}])
    (trace,) = dumps.read_dumps(frames.specs({"rl": frame}, tmp_path))[0]
    assert repr((trace.response_logprobs, trace.base_logprobs)) == "((-1.0, nan), {1.0: (nan, -inf)})"


def test_nothing_is_written_over_and_the_ending_decides(tmp_path):
    spec = [str(SAMPLES / "canonical.jsonl")]
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="is there already and is not written over"):
        convert.convert(spec, tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="expected one of .jsonl, .jsonl.gz, .jsonl.zst, .parquet"):
        convert.convert(spec, tmp_path / "a.csv")
    with pytest.raises(ResourceError, match="can't be written"):
        convert.convert(spec, tmp_path / "no/such/folder.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
