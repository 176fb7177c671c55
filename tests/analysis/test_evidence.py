"""What the words rest on: rows of `evidence` on worlds whose numbers are known, and the bounds in them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from analyzer.analysis.support import cooling, evidence, laws, local
from analyzer.analysis.support import run as support
from analyzer.records import HURDLED, Sampler, Tables
from analyzer.stats import bounds
from validation import bigram as B

V, K = 20, 64
WARM = Sampler(0.6)


def world(make, *, problems: int = 8, n: int = 12, longest: int = 60, reference: Sampler = B.PLAIN, seed: int = 0):
    """Tables of base and source "s"; make(base law) -> (components, sampler, same weights, law of its model)."""
    rng = np.random.default_rng(seed)
    base = B.law(rng, V, 1.2)
    parts, sampler, same, law = make(base)
    draws = [B.draw(rng, c, problems, n, longest) for c in ([B.Component(1, B.sampled(base, reference))], parts)]
    made = {"base": B.Made(draws[0], reference), "s": B.Made(draws[1], sampler, same, {}, law)}
    return B.tables(base, made, reference_sampler=reference)


def cooled(t: float):
    return lambda base: ([B.Component(1, B.sampled(base, Sampler(t)))], B.PLAIN, False, B.sampled(base, Sampler(t)))


def other(base: np.ndarray):
    law = B.normalised(base + 0.4 * np.random.default_rng(9).normal(size=base.shape))
    return [B.Component(1, law)], B.PLAIN, False, law


def measured(tables: Tables) -> pd.DataFrame:
    found = local.measured(tables, K).frame
    mine = found[found["source"] == "s"]
    return mine.drop(columns=[c for c in mine if c.startswith(("p:", "body:")) and mine[c].isna().all()])


def row(tables: Tables, *, omitted: float = 0.0, drop: pd.Series | None = None, rows=None) -> dict:
    base = tables.scores[tables.scores["model"] == "base"].set_index("key")
    if drop is None:
        drop = base["entropy_mean"] * base["n_tokens"] + base["logprob"]
    rows = measured(tables) if rows is None else rows
    variance = base["varentropy_mean"] * base["n_tokens"] if len(drop) else drop
    return evidence.row(tables, rows, "s", budget=K, omitted=omitted, drop_N=drop, variance_N=variance)


def flatter(base: np.ndarray):
    """Hotter weights, sampled at T = .6 as the reference is: cooler than T = 1, hotter than the reference."""
    law = B.normalised(base / 1.2)
    return [B.Component(1, B.sampled(law, WARM))], WARM, False, law


def cut(law: np.ndarray, sampler: Sampler):
    return [B.Component(1, B.sampled(law, sampler))]


def test_a_sampler_that_both_share_is_no_sharpening():
    """T = .72 explains all of the divergence from T = 1, and no temperature up to .6 any of that from the reference."""
    got = row(world(flatter, reference=WARM, longest=300))
    assert got["s"] > 0.99 and got["s_low_half"] < 0 and got["drop_low"] > 0.02 and got["beyond_low"] > 0.02
    assert got["s_reference"] < 0.05 and got["r_low_half"] > 0 > got["r_high_half"]  # T = .72 is above .6
    cooler = row(
        world(lambda base: (*cooled(0.4)(base)[:1], B.PLAIN, False, B.sampled(base, Sampler(0.4))), reference=WARM)
    )
    assert cooler["s_reference"] > 0.99 and cooler["r_low_half"] < 0
    nucleus = Sampler(0.6, 0.9)  # both cut, and the source writes what the reference never could
    shared = row(world(lambda base: (cut(other(base)[3], nucleus), nucleus, False, other(base)[3]), reference=nucleus))
    assert shared["r_high_half"] > 0 and not shared["s_reference"] > 0.5 and shared["same_sampler"]
    cold = row(
        world(
            lambda base: (cut(B.sampled(base, WARM), nucleus), nucleus, False, B.sampled(base, WARM)), reference=nucleus
        )
    )
    assert cold["r_low_half"] < 0 and cold["s_reference"] > 0.5
    unstored = row(world(other, reference=Sampler(0.7, 0.9)))  # no law at T = .7 is stored, and the ratio is infinite
    assert math.isnan(unstored["s_reference"]) and math.isnan(unstored["r_high_half"])
    assert "r_low_half" not in row(world(other))


def test_several_temperatures_are_beyond_no_law_at_once():
    """Half the traces at T = 1, half at .2: no single temperature explains most of it, each trace has one that does."""

    def mixed(base):
        parts = [B.Component(0.5, base), B.Component(0.5, B.sampled(base, Sampler(0.2)))]
        return parts, B.PLAIN, False, base

    got = row(world(mixed, longest=300, n=24))
    assert got["beyond_low"] > 0.02 and got["every_low"] <= 0.02


def test_the_temperature_that_alone_does_it_is_found():
    """A policy that is the base at T = .25, 3,000 tokens: a grid of temperatures is too coarse to say so."""
    for t in (0.15, 0.25):
        got = row(world(cooled(t), longest=3000, n=4))
        assert got["s"] > 0.99 and got["left_low"] <= 0.02 and got["best"] == f"T={t}"


def test_the_bounds_are_those_of_the_excess_of_each_trace():
    tables = world(lambda base: other(base)[:1] + (WARM, False, other(base)[3]), reference=Sampler(0.8))
    rows, got = measured(tables), row(tables)
    held = ["T=1", laws.REFERENCE, laws.SOURCE]
    assert got["laws"] == "; ".join(held) and got["missing_laws"] == "" and got["n"] == 96 and got["problems"] == 8
    excess = {n: evidence.of_trace(rows, n, K) for n in held}
    for name, values in excess.items():
        nats = (rows["log_q"] - rows[f"p:{name}"]).to_numpy()
        np.testing.assert_allclose(values, np.maximum(0, 1 - K * np.exp(-nats)))
        assert got[f"high[{name}]"] == bounds.upper(values, alpha=0.05 / 3)  # the error is split over three laws
        assert got[f"low[{name}]"] == bounds.lower(values, alpha=0.05)
    assert got["inside_high"] == min(got[f"high[{n}]"] for n in held)  # one law is enough for inside,
    assert got["beyond_low"] == min(got[f"low[{n}]"] for n in held)  # beyond is beyond all of them
    bodies = [bounds.lower(evidence.of_trace(rows, n, K, part="body")) for n in held]
    assert got["body_low"] == min(bodies) < max(bodies)
    every = evidence.of_envelope(rows, [c[2:] for c in rows if c.startswith("p:")], K)
    assert (every <= np.min([*excess.values()], axis=0) + 1e-12).all()
    assert got["every_low"] == bounds.lower(every) and got["every_value"] == every.mean()
    shares = [rows[f"share{w}@64"].to_numpy() for w in (1, 4)]
    assert got["share_low"] == max(bounds.lower(x, alpha=0.025) for x in shares)  # the better of two: half the error
    assert got["share_high"] == max(bounds.upper(x) for x in shares)
    p = [bounds.p_above(x, HURDLED) for x in shares]
    assert got["p_outside"] == max(min(1.0, 2 * min(p)), bounds.p_above(every, 0.02))


def test_where_no_cool_law_is_known_a_token_must_be_far():
    """A budget of 2 asks for 4,096 tries of a single token, as 64 does; each is among the budgets that are measured."""
    assert [evidence.far(k) for k in (1, 2, 64, 100)] == [4096, 4096, 4096, 10_000]
    assert all(float(evidence.far(k)) in local.budgets(k) for k in (1, 2, 3, 32, 64, 100, 1000))


@pytest.mark.parametrize("share", [0.005, 0.2])
def test_a_share_without_log_ratios_is_counted_against_every_bound(share):
    tables = world(other)
    full, less = row(tables), row(tables, omitted=share)
    for name in ("inside_high", "share_high"):
        assert less[name] == pytest.approx(min(1.0, full[name] * (1 - share) + share)) and less[name] >= full[name]
    for name in ("beyond_low", "every_low", "share_low"):
        assert less[name] == pytest.approx(full[name] * (1 - share))
    assert less["p_outside"] >= full["p_outside"]
    assert less["inside_value"] == full["inside_value"] and less["s"] == full["s"]


@pytest.mark.parametrize("t", [0.8, 0.6, 0.5, 0.4])
def test_a_cooled_law_is_explained_by_its_temperature(t):
    """At a known temperature every log-ratio is 0: s = 1 exactly, but for a neighbour that the draws happen to like as
    much; between two of them a spline knows it to .001 nats a token."""
    tables = world(cooled(t))
    got = row(tables)
    assert float(got["best"].removeprefix("T=")) == pytest.approx(t, abs=0.05)
    assert got["s"] == pytest.approx(1, abs=0.02) and got["s"] <= 1
    assert got["s_low_half"] < 0 and got["left"] == 0 and got["left_high"] == bounds.upper(np.zeros(96))
    assert got["drop"] > 0.02 and got["coolest"] == pytest.approx(0.1)
    mine = measured(tables)
    ratio = (mine["log_q"] - mine["p:T=1"]).to_numpy()
    assert got["kl"] == pytest.approx(ratio.mean())
    # its reference bound: the half-way test is on log-ratios at T less half of those at 1
    exact = {n: (mine["log_q"] - mine[f"p:{n}"]).to_numpy() for n in ("T=0.8", "T=0.6", "T=0.4", "T=0.2", "T=0.1")}
    halves = [bounds.mean(x - 0.5 * ratio, mine["problem"].to_numpy()) for x in exact.values()]
    # with more temperatures between the known ones the best can only be better, at a higher price for the choice
    assert got["s_high_half"] <= min(m.low() for m in halves) + 1e-9


def flat_tail(beside: float, size: int) -> np.ndarray:
    """Log-probs of a peak with a flat tail: `beside` the peak lie `size` tokens of equal chance."""
    return np.log(np.r_[1 - beside, np.full(size, beside / size)])


def at_temperatures(logp: np.ndarray, *temperatures: float) -> dict[float, float]:
    """T -> T log sum_v p_v^(1/T)."""
    return {t: t * float(np.logaddexp.reduce(logp / t)) for t in temperatures}


HELD = (1, 0.8, 0.6, 0.4, 0.2, 0.1)


@pytest.mark.parametrize("law", [(0.05, 100_000), (0.01, 100_000), (0.02, 1000), (0.2, 1000)])
@pytest.mark.parametrize("t", [0.97, 0.95, 0.9, 0.85])
def test_next_to_one_slope_and_curvature_are_entropy_and_variance(law, t):
    """What the interpolation of log p_T is off by, as a part of KL(P_T||P_1), which s is a share of: under .04, where
    it was up to .25 without the variance, and a source of s = .43 was sharpened."""
    logp = flat_tail(*law)
    p, free = np.exp(logp), at_temperatures(logp, *HELD, t)
    entropy, one = float(-(p * logp).sum()), -1.3
    rows = pd.DataFrame({f"p:T={x:g}": [(one - free[x]) / x] for x in HELD})
    every = sorted(c[2:] for c in rows)
    cool = logp / t - np.logaddexp.reduce(logp / t)
    divergence = float((np.exp(cool) * (cool - logp)).sum())

    def error(*known: float) -> float:
        at = cooling.cooled(rows, every, "p", np.array(known)[:, None], np.array([t]))[1]
        return abs(float(at[0, 0]) - (one - free[t]) / t) / divergence

    variance = float((p * (logp + entropy) ** 2).sum())
    assert error(entropy, variance) < 0.04 and error(entropy, variance) <= error(entropy, math.nan) + 0.01
    assert error(entropy, math.nan) < error(math.nan, math.nan)


def test_the_variance_decides_between_words_where_a_tail_freezes_out():
    """s = .43 by the exact laws: the policy is the base at T = .97 with one half of the tail four times as likely as
    the other. A spline from six temperatures and the entropy sees s = .57, and enough traces made it sharpened."""
    beside, size, tilt = 0.01, 100_000, 0.8
    logp = flat_tail(beside, size)
    cool = logp / 0.97 - np.logaddexp.reduce(logp / 0.97)
    in_tail = 1 - math.exp(cool[0])
    log_q = {"peak": cool[0], "more": cool[1] + math.log(2 * tilt), "less": cool[1] + math.log(2 * (1 - tilt))}
    chance = {"peak": 1 - in_tail, "more": in_tail * tilt, "less": in_tail * (1 - tilt)}
    free = at_temperatures(logp, *HELD)
    # one trace that holds every kind of token as often as the policy writes it, in each of ten problems twice
    of = {k: logp[0] if k == "peak" else logp[1] for k in chance}
    columns = {"log_q": 1e4 * sum(chance[k] * log_q[k] for k in chance), "n": 10_000.0}
    columns |= {f"p:T={t:g}": 1e4 * sum(chance[k] * (of[k] - free[t]) / t for k in chance) for t in HELD}
    rows = pd.DataFrame([columns] * 20).assign(problem=np.repeat(np.arange(10), 2))
    rows = rows.assign(body_q=rows["log_q"], **{f"body:{c[2:]}": rows[c] for c in rows if c.startswith("p:")})
    p = np.exp(logp)
    entropy = float(-(p * logp).sum())
    variance = float((p * (logp + entropy) ** 2).sum())
    every, problem = sorted(c[2:] for c in rows if c.startswith("p:")), rows["problem"].to_numpy()
    known = np.full((20, 2), [1e4 * entropy, 1e4 * variance]).T
    got = evidence._temperature(rows, problem, every, K, known)
    assert got["s"] == pytest.approx(0.43, abs=0.02) and got["s_high_half"] > 0
    # rows without entropies: what lies between .8 and 1 is not known, and no half is shown
    bare = evidence._temperature(rows, problem, every, K, np.full((2, 20), math.nan))
    assert bare["s_low_half"] > 0 > bare["s_high_half"] and bare["s_low"] <= 0.43 <= bare["s_high"]
    assert bare["s_unsure"] > abs(bare["s"] - 0.5)


def test_rounding_is_no_divergence_that_a_temperature_explains():
    """The base itself through other files: ratios of 1e-5 nats a trace, of which T = 1 "explained" 100 %."""
    tables = world(lambda base: ([B.Component(1, base)], B.PLAIN, False, base))
    mine = measured(tables)
    off = 1e-5 * (1 + np.random.default_rng(0).random(len(mine)))
    got = row(tables, rows=mine.assign(log_q=mine["log_q"] + off, body_q=mine["body_q"] + off))
    assert math.isnan(got["s"]) and got["best"] == "" and got["kl"] > 0 and got["inside_value"] == 0


def test_without_entropies_the_doubt_lies_between_known_temperatures_alone():
    every, none = ["T=1", "T=0.8", "T=0.6", "T=0.4"], np.full((2, 3), math.nan)
    wanted = np.array([1.0, 0.9, 0.8, 0.7, 0.4])
    assert cooling.unsure(wanted, every, none).tolist() == pytest.approx([0, 0.016, 0, 0.016, 0])
    assert cooling.unsure(wanted, [*every, "T=0.9", "T=0.95"], none)[:2].tolist() == [0, 0]
    nearer = cooling.unsure(np.array([0.97]), [*every, "T=0.95"], none)
    assert nearer[0] == pytest.approx(0.016 / 32)
    assert not cooling.unsure(wanted, every, np.ones((2, 3))).any()


def test_s_is_one_less_the_least_of_the_divergences_by_hand():
    tables = world(other)
    got, mine = row(tables), measured(tables)
    at_one = (mine["log_q"] - mine["p:T=1"]).mean()
    known = {t: (mine["log_q"] - mine[f"p:T={t}"]).mean() for t in (0.8, 0.6, 0.4, 0.2, 0.1)}
    assert got["kl"] == pytest.approx(at_one) and got["s"] >= 1 - min(at_one, *known.values()) / at_one - 1e-9
    assert got["s"] == pytest.approx(max(0.0, 1 - min(at_one, *known.values()) / at_one), abs=0.05)
    assert got["s_high_half"] > 0 and 0 <= got["s_low"] <= got["s"] <= got["s_high"] <= 1
    # against the exact divergences of the two laws over the states visited
    few = replace(tables, engines={m: e | {"powers": []} for m, e in tables.engines.items()}, memo={})
    none = row(few)
    assert math.isnan(none["s"]) and none["kl"] == pytest.approx(got["kl"]) and none["coolest"] == 1
    # the base itself: no divergence, nothing to explain
    same = world(lambda base: ([B.Component(1, base)], B.PLAIN, False, base))
    assert math.isnan(row(same)["s"]) and row(same)["inside_value"] == 0 == row(same)["inside_events"]


def test_without_a_law_that_counts_nothing_is_said():
    """Rows that bring base log-probs at T = .8 alone, both samplers plain: none of the laws of inside is known."""
    tables = world(other)
    rows = measured(tables)
    bare = rows.drop(columns=[c for c in rows if c.startswith(("p:", "body:")) and not c.endswith("T=0.8")])
    got = row(tables, rows=bare)
    assert got == {"source": "s", "no_log_q": "log-probs under the base are not known at T=1"}


def test_a_missing_law_is_named_and_bars_nothing_of_the_others():
    tables = world(lambda base: other(base)[:1] + (WARM, False, other(base)[3]), reference=Sampler(0.8))
    rows = measured(tables)
    got = row(tables, rows=rows.drop(columns=[f"p:{laws.REFERENCE}", f"body:{laws.REFERENCE}"]))
    assert got["missing_laws"] == laws.REFERENCE and got["laws"] == f"T=1; {laws.SOURCE}"
    whole = row(tables)
    assert got["high[T=1]"] <= whole["high[T=1]"]  # the error is split over fewer laws


def test_drop_is_entropy_less_surprisal_and_where_that_is_unknown_a_lower_bound():
    """log p_T is concave in 1/T: the slope from 1 to any higher 1/T is at most the drop, trace by trace."""
    for make in (cooled(0.6), other):
        tables = world(make)
        got, unknown = row(tables), row(tables, drop=pd.Series(dtype=float))
        base = tables.scores.query("model == 'base' and source == 's'")
        drop = base["entropy_mean"] + base["logprob"] / base["n_tokens"]
        assert got["drop"] == pytest.approx(drop.mean(), abs=1e-4)
        assert unknown["drop_least"] <= got["drop"] + 1e-6 and unknown["drop_low"] <= got["drop_low"] + 0.01
        assert got["drop_low"] < got["drop"]
        assert math.isnan(unknown["drop"]) and math.isnan(got["drop_least"])  # a bound is not printed as the value
    few = replace(tables, engines={m: e | {"powers": []} for m, e in tables.engines.items()}, memo={})
    assert math.isnan(row(few, drop=pd.Series(dtype=float))["drop_least"])


def test_a_true_law_hardly_ever_lies_three_nats_below():
    """P_Q(l <= -3) <= e^-3 for a true q: 40 sources, p of the binomial below .01 in each with probability at most .01
    (P of more than 5: 5e-6); a q that is not the one that wrote is refused."""
    refused = 0
    for seed in range(40):
        tables = world(other, problems=4, n=8, seed=seed)
        refused += row(tables)["improbable_p"] < evidence.IMPROBABLE
    assert refused <= 5
    got, rows = row(world(other)), measured(world(other))
    nats = (rows["log_q"] - rows["p:T=1"]).to_numpy()
    assert got["improbable_p"] == pytest.approx(min(1.0, binom.sf((nats <= -3).sum() - 1, 96, math.exp(-3))))
    wrong = rows.assign(log_q=rows["log_q"] - 8)
    bad = row(world(other), rows=wrong)
    assert bad["improbable_p"] < 1e-6 and bad["law"] == "T=1" and bad["improbable"] > 0.3


def test_rounding_is_no_event_and_unknown_tokens_are_counted():
    tables = world(lambda base: ([B.Component(1, base)], B.PLAIN, False, base))
    rows = measured(tables)
    near = rows.assign(log_q=rows["p:T=1"] + 9e-4)
    assert evidence.of_trace(near, "T=1", 1).max() == 0
    assert evidence.of_trace(rows.assign(log_q=rows["p:T=1"] + 2e-3), "T=1", 1).min() > 0
    unknown = rows["unknown"].mask(np.arange(len(rows)) < 3, 2)
    assert row(tables, rows=rows.assign(unknown=unknown))["unknown"] == 3


def test_rows_of_the_table_survive_a_run_and_name_their_words():
    tables = world(other, problems=10, n=16)
    result = support.run(tables, budget=K, draws=50)
    got = result.tables["evidence"].set_index("source").loc["s"]
    want = row(tables)
    for name in ("inside_high", "beyond_low", "every_low", "share_high", "s", "drop_low", "p_outside", "kl"):
        assert got[name] == pytest.approx(want[name]), name
    spans = result.tables["spans"].query("source == 's' and k == 64").set_index("span")
    assert spans.loc[1, "excess"] == pytest.approx(got["hurdles1"]) and spans.loc[4, "share"] == got["share4"]
    by_law = result.tables["laws"].query("source == 's'")
    assert {32, 64, 128} == set(by_law["k"]) and "T=1" in set(by_law["law"])
    for _, part in by_law.groupby("law"):
        assert part.sort_values("k")["excess"].is_monotonic_decreasing
        low, value, high = (part[name].to_numpy() for name in ("given_low", "excess", "given_high"))
        assert (low <= value + 1e-9).all() and (value <= high + 1e-9).all()
