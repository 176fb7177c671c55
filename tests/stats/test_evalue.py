"""The e-value has mean 1 under the base at any stopping time: by enumeration, not by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analyzer.stats import evalue


def model(prefix: tuple[int, ...]) -> np.ndarray:
    """Next-token probabilities over {0, 1, end} given the prefix; uneven, and changing with it."""
    logits = np.array([0.3 * len(prefix), sum(prefix) - 1.0, -1.0 + 0.7 * len(prefix)])
    return np.exp(logits) / np.exp(logits).sum()


SMALL = ((2, 0), (2, 1), (4, 0), (4, 3))  # windows so short that a trace of seven tokens has several


def log_e(columns: dict[str, np.ndarray], hottest: float = 1.0) -> float:
    return evalue.log_e(columns, hottest, SMALL)


def columns_of(trace: tuple[int, ...], names: tuple[float, ...] = evalue.EXPONENTS) -> dict[str, np.ndarray]:
    """What a scorer tells of a trace."""
    dists = [model(trace[:t]) for t in range(len(trace))]
    out = {"logprob": np.array([np.log(d[v]) for d, v in zip(dists, trace, strict=True)])}
    out["renyi_half"] = np.array([2 * np.log(np.sqrt(d).sum()) for d in dists])
    return out | {f"power_{b:g}": np.array([np.log((d**b).sum()) for d in dists]) for b in names if b != 0.5}


def drawn(exponent: float, top_k: int, prefix: tuple[int, ...]) -> np.ndarray:
    """The law of the next token at temperature 1 / exponent, cut to the likeliest tokens (0: all)."""
    p = model(prefix) ** exponent
    if top_k:
        p[np.argsort(-p)[top_k:]] = 0
    return p / p.sum()


def enumerate_world(longest: int, exponent: float = 1.0, top_k: int = 0) -> list:
    """(probability, trace) of every trace: ends at token 2, or is cut off after `longest` tokens."""
    out = []

    def walk(prefix: tuple[int, ...], p: float) -> None:
        if (prefix and prefix[-1] == 2) or len(prefix) == longest:
            out.append((p, prefix))
            return
        for token, q in enumerate(drawn(exponent, top_k, prefix)):
            if q > 0:
                walk((*prefix, token), p * q)

    walk((), 1.0)
    return out


@pytest.mark.parametrize("names", [evalue.EXPONENTS, ()])
@pytest.mark.parametrize("longest", [1, 3, 7])
def test_mean_one_at_the_end_token_and_at_a_length_limit(longest, names):
    world = enumerate_world(longest)
    assert sum(p for p, _ in world) == pytest.approx(1, abs=1e-12)
    assert sum(p * math.exp(log_e(columns_of(t, names))) for p, t in world) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("hottest", [1.0, 1.05, 1 / 0.9, 1.25, 1.4])
def test_the_null_covers_every_cooler_or_cut_sampler_and_is_exact_at_its_own_temperature(hottest):
    a = evalue.null_exponent(hottest)
    for exponent, top_k in itertools.product((a, 1 / hottest, 1.0, 1.3, 3.0), (0, 2, 1)):
        world = enumerate_world(6, exponent, top_k)
        mean = sum(p * math.exp(log_e(columns_of(t), hottest)) for p, t in world)
        assert mean <= 1 + 1e-12
        if (exponent, top_k) == (a, 0):
            assert mean == pytest.approx(1, abs=1e-12)
    hotter = enumerate_world(6, 0.4)
    assert sum(p * math.exp(log_e(columns_of(t), hottest)) for p, t in hotter) > 1.001


def test_which_null_covers_a_temperature():
    got = [evalue.null_exponent(t) for t in (0.6, 1.0, 1.02, 1 / 0.95, 1.1, 1.25, 1.3, 1.42)]
    assert got == [1, 1, 0.95, 0.95, 0.9, 0.8, 0.7, 0.7] and math.isnan(evalue.null_exponent(1.5))
    hot = columns_of((0, 1, 2))
    assert math.isnan(evalue.log_e(hot, 1.5)) and math.isnan(evalue.log_e(columns_of((0, 1, 2), ()), 1.1))


def test_dividing_by_the_number_of_windows_is_no_e_value():
    """The mean over the windows of a trace: traces that stop where a window went well have few of them."""
    total = 0.0
    for p, trace in enumerate_world(8):
        c = columns_of(trace)
        d_T = 0.5 * (-c["logprob"] - c["renyi_half"])
        total += p * np.mean([np.exp(d_T[at : at + 2].sum()) for at in range(0, len(trace), 2)])
    assert total > 1.02


@pytest.mark.parametrize("names", [evalue.EXPONENTS, ()])
def test_many_traces_at_once_are_the_definition(names):
    """Lengths around the windows' ends; an unknown column of one trace, an impossible token, a trace without tokens."""
    rng = np.random.default_rng(0)
    lengths = np.array([1, 7, 8, 9, 16, 0, 17, 24, 40, 64, 65, 96, 97, 300, 31])
    columns = {"logprob": -rng.exponential(2, lengths.sum()), "renyi_half": rng.uniform(0, 3, lengths.sum())}
    columns |= {f"power_{b:g}": (1 - b) * columns["renyi_half"] * 0.8 for b in names if b != 0.5}
    ends = lengths.cumsum()
    columns["logprob"][ends[3] - 2] = -np.inf
    columns["renyi_half"][ends[8] - 1] = np.nan
    if names:
        columns["power_0.8"][ends[10] - 1] = np.nan
    heat = np.where(np.arange(len(lengths)) % 3 == 0, 1.2, 1.0)
    got = evalue.log_e_many(columns, lengths, heat)
    for i, (end, n) in enumerate(zip(ends, lengths, strict=True)):
        mine = {c: x[end - n : end] for c, x in columns.items()}
        want = evalue.log_e(mine, heat[i]) if n else math.nan
        assert got[i] == pytest.approx(want, rel=1e-9, abs=1e-12, nan_ok=True), (i, n)
    assert math.isnan(got[5]) and math.isnan(got[8])
    assert got[3] == np.inf if names else math.isnan(got[3])
    if names:  # one column is unknown: the square roots alone
        one = slice(ends[10] - 65, ends[10])
        assert got[10] == pytest.approx(evalue.log_e({c: columns[c][one] for c in ("logprob", "renyi_half")}))


def test_a_dozen_foreign_tokens_are_found_wherever_they_stand_in_a_long_trace():
    """5,000 ordinary tokens at h - H = .8 cost the whole trace hundreds of nats and the windows some."""
    n = 5000
    logprob, renyi = np.full(n, -1.0), np.full(n, 1.8)
    ordinary = evalue.log_e({"logprob": logprob, "renyi_half": renyi})
    assert -10 < ordinary < 0
    for at in (0, 5, 2500, n - 12):
        foreign = logprob.copy()
        foreign[at : at + 12] = -10.0
        assert evalue.log_e({"logprob": foreign, "renyi_half": renyi}) > 20
        assert 0.5 * (-foreign - renyi).sum() < -1000


def test_p_value_never_rejects_too_often_at_any_budget():
    world = enumerate_world(8)
    p, e = np.array([p for p, _ in world]), np.array([log_e(columns_of(t)) for _, t in world])
    for level, k in itertools.product((0.01, 0.05, 0.2, 0.5), (1, 4, 16)):
        tilted = p * np.where(np.arange(len(p)) % 3 == 0, 1.0, 0.0)
        q = np.minimum(tilted / tilted.sum(), k * p)  # some mass within reach k
        assert q[evalue.p_value(e, k) <= level].sum() <= level + 1e-12
        assert p[evalue.p_value(e, 1) <= level].sum() <= level + 1e-12


def test_without_the_end_token_the_mean_is_not_one():
    """Why the docstring asks for the end token: dropping its factor breaks the martingale."""
    total = 0.0
    for p, trace in enumerate_world(8):
        shorter = {c: x[:-1] for c, x in columns_of(trace).items()}
        total += p * math.exp(log_e(shorter)) if len(trace) > 1 else p
    assert abs(total - 1) > 0.01


def test_p_value_form():
    got = evalue.p_value(np.array([-3.0, 0.0, np.log(100.0), np.nan, np.inf]), 4)
    assert got[:3] == pytest.approx([1, 1, 0.04]) and np.isnan(got[3]) and got[4] == 0
