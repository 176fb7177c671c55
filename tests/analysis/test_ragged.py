"""Many traces at once give the numbers that `summarise` gives one by one, whatever is missing, infinite or repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.analysis.data import ragged
from analyzer.analysis.data.summaries import SUMMARY_COLUMNS, copied, summarise
from analyzer.records import NOVEL_COLUMNS, Sampler

NAMES = (
    "logprob", "rank", "entropy", "varentropy", "renyi_half",
    "mass_above_s", "logprob_s", "entropy_s", "varentropy_s", "logprob_source", *NOVEL_COLUMNS,
)  # fmt: skip
SAMPLERS = (None, Sampler(), Sampler(0.6, 0.95), Sampler(0.6, 0.95, 5), Sampler(0.7))


def draw(rng) -> tuple[list[dict], list[np.ndarray]]:
    """Traces of a small vocabulary (so that n-grams repeat), with unknown columns, unknown tokens and infinities."""
    have = [name for name in NAMES if rng.random() < 0.8]
    traces, prompts = [], []
    for _ in range(rng.integers(1, 12)):
        n = int(rng.choice([0, 1, 3, 8, 9, 30, 90]))
        trace = {"token": rng.integers(0, rng.choice([2, 3, 50]), n).astype(np.int32)}
        for name in have:
            if rng.random() < 0.15:
                continue  # this trace lacks it
            values = rng.exponential(size=n).astype(np.float32)
            if name in ("logprob", "logprob_s", "logprob_source"):
                values = -values
                values[rng.random(n) < rng.choice([0, 0, 0.05])] = -np.inf
            if name == "mass_above_s":
                values = rng.choice([0.2, 0.9495, 0.95, 0.9515], n).astype(np.float32)
            if name == "varentropy" and rng.random() < 0.2:
                values[:] = 0
            if name == "rank":
                values = rng.integers(0 if rng.random() < 0.1 else 1, 9, n).astype(np.int32)
            elif rng.random() < 0.05 and n:
                values[rng.integers(n)] = np.nan
            trace[name] = values
        traces.append(trace)
        prompts.append(rng.integers(0, 3, rng.integers(0, 20)).astype(np.int32))
    return traces, prompts


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_all_numbers_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    traces, prompts = draw(rng)
    sampler = SAMPLERS[rng.integers(len(SAMPLERS))]
    window, ngram = int(rng.choice([1, 3, 8])), int(rng.choice([1, 2, 8]))
    length = np.array([len(t["token"]) for t in traces])
    names = {name for t in traces for name in t}
    missing = {name: 0 if name == "rank" else np.nan for name in names}
    columns = {
        name: np.concatenate(
            [t.get(name, np.full(n, missing[name], np.float32)) for t, n in zip(traces, length, strict=True)]
        )
        for name in names
    }
    columns["token"] = columns["token"].astype(np.int32)
    heat = rng.choice([1.0, 1.2], len(length))
    how = {"sampler": sampler, "window": window, "ngram": ngram}
    found = ragged.summarise_many(length, columns, prompts=prompts, hottest=heat, **how)
    assert list(found) == list(SUMMARY_COLUMNS)
    with np.errstate(invalid="ignore"):
        wanted = [summarise(t, prompt_ids=p, hottest=h, **how) for t, p, h in zip(traces, prompts, heat, strict=True)]
    for name, values in found.items():
        assert values.tolist() == pytest.approx([w[name] for w in wanted], rel=1e-9, abs=1e-9, nan_ok=True), name


def test_n_grams_that_share_a_hash_are_told_apart(monkeypatch):
    """With all factors equal the hash is a sum: every order of the same tokens collides."""
    monkeypatch.setattr(ragged, "FACTORS", np.ones(64, np.uint64))
    monkeypatch.setattr(ragged, "CHUNK", 64)
    rng = np.random.default_rng(3)
    for _ in range(100):
        length = rng.integers(1, 40, 5)
        tokens = [rng.integers(0, 3, n).astype(np.int32) for n in length]
        prompts = [rng.integers(0, 3, rng.integers(0, 9)).astype(np.int32) for _ in length]
        found = ragged.copied_many(np.concatenate(tokens), length, prompts, 3)
        wanted = np.concatenate([copied(t, p, 3) for t, p in zip(tokens, prompts, strict=True)])
        assert (found == wanted).all()


def test_counts_are_whole_numbers_where_all_are_known():
    columns = {"token": np.arange(5, dtype=np.int32), "rank": np.ones(5, np.int32)}
    found = ragged.summarise_many(np.array([2, 3]), columns, prompts=[np.empty(0, np.int32)] * 2)
    assert found["n_rank1"].dtype == found["n_copied"].dtype == np.int64 and found["exits"].dtype == np.float64
    assert ragged.summarise_many(np.array([], int), {}, prompts=[])["n_tokens"].shape == (0,)
