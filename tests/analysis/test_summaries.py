"""Per-trace numbers against closed forms, a slow oracle of the copy mask, and exact laws on a Markov chain."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.analysis.data.summaries import SUMMARY_COLUMNS, among, copied, summarise
from analyzer.errors import UsageError
from analyzer.records import Sampler

ROWS = np.array([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]])  # each row the same numbers: V_t is constant


def oracle(ids, prompt, n) -> list[bool]:
    """The definition, word by word: quadratic."""
    whole = [*prompt, *ids]
    marks = [False] * len(whole)
    for i in range(len(whole) - n + 1):
        ends_inside = i + n - 1 >= len(prompt)
        if ends_inside and any(whole[j : j + n] == whole[i : i + n] for j in range(i)):
            for t in range(i, i + n):
                marks[t] = True
    return marks[len(prompt) :]


def chain_columns(tokens, rows=ROWS) -> dict[str, np.ndarray]:
    """Core columns of a Markov chain that starts in state 0; float64, exact."""
    p = rows[[0, *tokens[:-1]]] if len(tokens) else rows[:0]
    own = p[np.arange(len(tokens)), tokens]
    entropy = -(p * np.log(p)).sum(1)
    return {
        "token": np.array(tokens),
        "logprob": np.log(own),
        "rank": 1 + (p > own[:, None]).sum(1),
        "entropy": entropy,
        "varentropy": (p * np.log(p) ** 2).sum(1) - entropy**2,
        "renyi_half": 2 * np.log(np.sqrt(p).sum(1)),
    }


def draw_chain(rng, traces, length, rows=ROWS) -> np.ndarray:
    """[traces, length] states."""
    out, state = np.empty((traces, length), int), np.zeros(traces, int)
    for t in range(length):
        state = (rng.random(traces)[:, None] > rows.cumsum(1)[state]).sum(1)
        out[:, t] = state
    return out


def test_closed_forms_by_hand():
    s = np.array([1.0, 0, 2, 0, 0, 4, 0, 0, 0, 3])
    columns = {
        "token": np.arange(10),
        "logprob": -s,
        "rank": np.array([1, 2, 3, 4, 5, 6, 1, 1, 1, 9]),
        "entropy": np.full(10, 0.5),
        "varentropy": np.full(10, 0.4),
        "renyi_half": np.full(10, 0.8),
    }
    out = summarise(columns, sampler=Sampler())
    whole, cut = (
        math.exp(0.5 * (10 - 8)),
        [math.exp(0.5 * (x - 0.8 * n)) for x, n in ((s[:8].sum(), 8), (s[8:].sum(), 2))],
    )
    bets = [3 * (1 - x + x * whole) + (1 - x + x * cut[0]) * (1 - x + x * cut[1]) for x in (0.1, 0.01, 0.001)]
    e_by_hand = math.log(0.75 * whole + 0.25 * sum(bets) / 12)  # three windows hold all ten tokens, one is of 8 and 2
    assert (
        out["n_tokens"] == 10 and out["logprob"] == -10 and out["nll_mean"] == 1 and out["ppl"] == pytest.approx(math.e)
    )
    assert (
        out["entropy_mean"] == 0.5
        and out["excess_z"] == pytest.approx((10 - 5) / 2)
        and out["log_e"] == pytest.approx(e_by_hand)
    )
    assert out["surprisal_max"] == 4 and out["logprob_min"] == -4 and out["cvar20"] == 3.5
    assert out["window_max"] == pytest.approx(9 / 8)  # tokens 2..9: 2 + 4 + 3
    assert [out[k] for k in ("rank_max", "n_rank1", "n_rank2_3", "n_rank_gt3", "n_top5")] == [9, 4, 2, 4, 8]
    assert out["logprob_s"] == -10 and out["exits"] == 0 and out["first_exit"] == -1 and out["near_boundary"] == 0
    assert out["n_copied"] == 0 and out["z_masked"] == out["excess_z"] and out["cvar20_masked"] == out["cvar20"]
    assert list(out) == list(SUMMARY_COLUMNS)


def test_masked_numbers_are_those_of_the_tokens_left():
    prompt, response = [1, 2, 3], [9, 1, 2, 3, 7, 8]
    s = np.array([5.0, 1, 0.1, 0.1, 2, 3])
    columns = {"token": np.array(response), "logprob": -s, "entropy": np.full(6, 0.2), "varentropy": np.full(6, 0.5)}
    out = summarise(columns, prompt_ids=prompt, ngram=3, window=2)
    assert out["n_copied"] == 3 and out["nll_masked_mean"] == pytest.approx(10 / 3)
    assert out["z_masked"] == pytest.approx((10 - 0.6) / math.sqrt(1.5))
    assert out["window_max_masked"] == 3.5 and out["window_max"] == pytest.approx(3)  # closed up: 5, 2, 3 against 5, 1
    assert out["cvar20_masked"] == 5
    all_copied = summarise({"token": np.array([1, 2, 3]), "logprob": -np.ones(3)}, prompt_ids=prompt, ngram=3)
    assert all_copied["n_copied"] == 3 and math.isnan(all_copied["nll_masked_mean"]) and all_copied["nll_mean"] == 1


def test_exits_and_the_top_p_boundary():
    columns = {
        "token": np.arange(4),
        "logprob": -np.ones(4),
        "logprob_s": np.array([-1, -np.inf, -1, -np.inf]),
        "mass_above_s": np.array([0.945, 0.9505, 0.9495, 0.99]),
    }
    out = summarise(columns, sampler=Sampler(0.6, 0.95))
    assert out["logprob_s"] == -math.inf and out["exits"] == 2 and out["first_exit"] == 1 and out["near_boundary"] == 2
    assert math.isnan(summarise(columns, sampler=Sampler(0.6, 0.95, top_k=5))["near_boundary"])
    assert math.isnan(summarise({k: columns[k] for k in ("token", "logprob")}, sampler=Sampler(0.6))["logprob_s"])


def test_excess_under_the_sampler_and_the_log_prob_by_the_source():
    columns = {
        "token": np.arange(3),
        "logprob": np.array([-1.0, -2, -3]),
        "entropy": np.full(3, 0.5),
        "varentropy": np.full(3, 0.25),
        "logprob_s": np.array([-0.5, -1, -1.5]),
        "entropy_s": np.full(3, 0.1),
        "varentropy_s": np.full(3, 0.2),
        "logprob_source": np.array([-1.0, -0.25, -0.25]),
    }
    out = summarise(columns, sampler=Sampler(0.6))
    assert out["excess_s"] == pytest.approx(3 - 0.3) and out["variance_s"] == pytest.approx(0.6)
    assert out["logprob_source"] == -1.5
    never = summarise(columns | {f"logprob_{of}": np.array([-1, -np.inf, -1]) for of in ("s", "source")})
    assert never["excess_s"] == math.inf and never["logprob_source"] == -math.inf and never["variance_s"] > 0
    core = {k: columns[k] for k in ("token", "logprob", "entropy", "varentropy")}
    plain = summarise(core, sampler=Sampler())
    assert plain["excess_s"] == pytest.approx(6 - 1.5) and plain["variance_s"] == 0.75
    assert math.isnan(plain["logprob_source"])
    for sampler in (None, Sampler(0.6)):
        assert all(math.isnan(summarise(core, sampler=sampler)[k]) for k in ("excess_s", "variance_s"))
    half = summarise(columns | {"entropy_s": np.array([0.1, np.nan, 0.1])}, sampler=Sampler())
    assert math.isnan(half["excess_s"]) and half["variance_s"] == pytest.approx(0.6)


def test_unknown_is_nan_and_never_zero():
    bare = summarise({"token": np.array([4, 5])})
    assert bare["n_tokens"] == 2 and bare["n_copied"] == 0
    assert all(math.isnan(v) for k, v in bare.items() if k not in ("n_tokens", "n_copied"))
    nothing = {
        "token": np.array([4, 5]),
        **{
            k: np.full(2, np.nan)
            for k in ("logprob", "entropy", "varentropy", "renyi_half", "mass_above_s", "logprob_s", "logprob_source")
        },
        "rank": np.zeros(2, np.int32),
    }
    unknown = summarise(nothing, sampler=Sampler(0.6, 0.95))
    assert all(math.isnan(v) for k, v in unknown.items() if k not in ("n_tokens", "n_copied"))
    half = summarise({"token": np.array([4, 5]), "logprob": np.array([-1.0, np.nan])})
    assert math.isnan(half["logprob"]) and math.isnan(half["surprisal_max"])
    empty = summarise({k: np.zeros(0) for k in ("token", "logprob", "rank", "entropy")})
    assert empty["n_tokens"] == 0 and all(math.isnan(v) for k, v in empty.items() if k != "n_tokens")


def test_edges_of_the_numbers():
    certain = summarise(
        {"token": np.arange(3), "logprob": np.zeros(3), "entropy": np.zeros(3), "varentropy": np.zeros(3)}
    )
    assert certain["ppl"] == 1 and math.isnan(certain["excess_z"])
    assert all(math.copysign(1, certain[k]) == 1 for k in ("nll_mean", "logprob", "surprisal_max", "cvar20"))
    endless = summarise({"token": np.arange(12), "logprob": np.r_[-np.inf, -np.ones(11)]})
    assert endless["logprob"] == -math.inf and endless["window_max"] == math.inf and endless["ppl"] == math.inf
    with pytest.raises(UsageError, match="at least 1 token"):
        summarise({"token": np.arange(3)}, ngram=0)


@given(st.lists(st.integers(0, 2), max_size=25), st.lists(st.integers(0, 2), max_size=12), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_copied_equals_the_slow_definition(ids, prompt, n):
    assert copied(ids, prompt, n).tolist() == oracle(ids, prompt, n)


def test_copied_straddles_the_prompt_and_marks_loops():
    assert copied([3, 9, 1, 2, 3], [1, 2], 3).tolist() == [False, False, True, True, True]
    assert copied([2, 7], [1, 2, 1], 2).tolist() == [True, False]  # the n-gram (1, 2) begins in the prompt
    assert copied([5] * 6, [], 2).tolist() == [False] + [True] * 5  # the first is no repetition
    assert copied([], [1, 2], 2).tolist() == []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_windows_and_tails_equal_their_loops(tokens, window):
    columns = chain_columns(tokens)
    s = -columns["logprob"]
    out = summarise(columns, window=window)
    windows = [s[i : i + window].mean() for i in range(len(s) - window + 1)]
    assert out["window_max"] == pytest.approx(max(windows, default=s.mean()))
    assert out["cvar20"] == pytest.approx(np.sort(s)[::-1][: math.ceil(len(s) / 5)].mean())
    assert out["n_rank1"] + out["n_rank2_3"] + out["n_rank_gt3"] == out["n_tokens"]


def test_e_value_has_mean_one_and_excess_has_mean_zero_exactly():
    """All 3^5 traces of a chain with unequal rows, weighted by their probability: no sampling, no false alarm."""
    rows = np.array([[0.8, 0.15, 0.05], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]])
    total = mean_e = mean_excess = 0.0
    for tokens in itertools.product(range(3), repeat=5):
        columns = chain_columns(tokens, rows)
        out = summarise(columns)
        p = math.exp(out["logprob"])
        total, mean_e = total + p, mean_e + p * math.exp(out["log_e"])
        mean_excess += p * out["excess_z"] * math.sqrt(columns["varentropy"].sum())
    assert (
        total == pytest.approx(1, abs=1e-12)
        and mean_e == pytest.approx(1, abs=1e-12)
        and mean_excess == pytest.approx(0, abs=1e-12)
    )


def test_sampled_chain_has_standard_z_and_e_of_mean_one():
    """z: mean 0 and variance 1 hold exactly as V_t is constant; 5 standard errors, false-alarm rate about 1e-6. e: its
    factors are bounded (variance .56, largest value 14 at 4 tokens), Bernstein at .08 with 5,000 traces: below 1e-7."""
    rng = np.random.default_rng(7)
    z = np.array([summarise(chain_columns(t))["excess_z"] for t in draw_chain(rng, 2000, 60)])
    assert abs(z.mean()) < 5 / math.sqrt(2000) and abs(z.var() - 1) < 5 * math.sqrt(2.2 / 2000)
    e = np.exp([summarise(chain_columns(t))["log_e"] for t in draw_chain(rng, 5000, 4)])
    assert abs(e.mean() - 1) < 0.08


def test_order_of_the_prompt_ids_type_does_not_matter():
    tokens = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    a = summarise(chain_columns(tokens), prompt_ids=[0, 1], ngram=2)
    b = summarise(chain_columns(tokens), prompt_ids=np.array([0, 1], np.int64), ngram=2)
    assert {k: v for k, v in a.items() if v == v} == {k: v for k, v in b.items() if v == v} and a["n_copied"] == 8


def test_among_is_membership():
    keys = pd.Series(["a", "b", None, "b"])
    assert among(keys, {"b", "c"}).tolist() == [False, True, False, True]
    assert among(keys[:0], {"b"}).dtype == bool


def test_a_plain_sampler_is_the_model_itself_where_its_column_is_unknown():
    columns = {"token": np.array([1, 2]), "logprob": np.array([-1.0, -2.0]), "logprob_s": np.full(2, np.nan)}
    assert summarise(columns, sampler=Sampler())["logprob_s"] == -3
    assert math.isnan(summarise(columns, sampler=Sampler(0.5))["logprob_s"])
    half = columns | {"logprob_s": np.array([-1.0, np.nan])}
    assert math.isnan(summarise(half, sampler=Sampler())["logprob_s"])
