"""Hurdles, prefix curve and horizon on bigram worlds whose numbers have closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis import variations
from analyzer.analysis.support import laws, local
from analyzer.analysis.support import run as support
from analyzer.records import Sampler, Tables
from analyzer.stats import reach
from validation import bigram as B

V, K = 30, 64
RARE = V - 2  # the token of base probability 1e-6
PLANTED = 1e-6


def rare_base(seed: int = 0, *, stop: float = 0.0) -> np.ndarray:
    base = B.law(np.random.default_rng(seed), V, 1.5, stop=stop)
    base[:, RARE] = -np.inf
    base = B.normalised(base) + np.log1p(-PLANTED)
    base[:, RARE] = np.log(PLANTED)
    return base


def planted(share: float, *, problems: int = 12, n: int = 20, longest: int = 60, at: int = 25, seed: int = 1) -> Tables:
    """The base, and a source that writes the rare token at one place in a share of its traces."""
    rng, base = np.random.default_rng(seed), rare_base()
    parts = [B.Component(1 - share, base), B.Component(share, base, {at: RARE})] if share < 1 else [
        B.Component(1, base, {at: RARE})
    ]  # fmt: skip
    sources = {"base": B.Made(B.draw(rng, [B.Component(1, base)], problems, n, longest))}
    return B.tables(base, sources | {"s": B.Made(B.draw(rng, parts, problems, n, longest))})


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_planted_token_is_one_hurdle_of_its_trace(share):
    """At the place q = share and p = 1e-6 / Z: the excess is 1 - k p / q in every trace that holds it, 0 in the others,
    and behind it (where the mixture knows its component) nothing more."""
    tables = planted(share)
    rows = local.measured(tables, K).frame
    mine = rows[rows["source"] == "s"]
    p = np.exp(rare_base()[0, RARE])
    tokens = pd.concat(list(tables.tokens("base", ["token"])))
    holds = {key for key, token in zip(tokens["key"], tokens["token"], strict=True) if token[25] == RARE}
    hit = mine["key"].isin(holds).to_numpy()
    assert hit.mean() == 1 if share == 1 else hit.mean() == pytest.approx(0.25, abs=0.11)  # 240 draws: within 4 sd
    want = 1 - K * p / share
    assert mine.loc[hit, "hurdles1@64"].to_numpy() == pytest.approx(np.full(hit.sum(), want), abs=1e-4)
    assert mine.loc[hit, "share1@64"].to_numpy() == pytest.approx(np.full(hit.sum(), want), abs=1e-4)
    for name in ("hurdles1@64", "share1@64", "hurdles4@64", "share4@64"):
        assert (mine.loc[~hit, name] == 0).all() and (rows.loc[rows["source"] == "base", name] == 0).all()
    # four offsets, each with one span that holds the token: its neighbours carry the base's own l = 0 under T = 1, and
    # a cooler law may be likelier over the span, never by more than the token's own distance
    assert (mine.loc[hit, "share4@64"] <= 1).all() and mine.loc[hit, "share4@64"].mean() > 0.99
    assert (mine["unknown"] == 0).all() and (mine["n"] == 60).all()


def test_whole_traces_and_beginnings_are_sums_of_the_tokens():
    """Under T = 1 the whole log-ratio of a planted trace is log 1/p (q = 1 there, equal elsewhere)."""
    found = local.measured(planted(1.0), K)
    mine = found.frame[found.frame["source"] == "s"]
    nats = (mine["log_q"] - mine["p:T=1"]).to_numpy()
    assert nats == pytest.approx(np.full(len(nats), -rare_base()[0, RARE]), abs=1e-3)
    curve = found.curves["s"]
    assert curve.names == ["T=1", "all laws"] and curve.place_W[-1] == 60 and curve.n_P.tolist() == [20] * 12
    value, low, high = local.band(curve, 0)
    step = dict(zip(curve.place_W.tolist(), value, strict=True))
    want = float(reach.excess(np.array([-rare_base()[0, RARE]]), K)[0])
    assert step[25] == pytest.approx(0, abs=1e-6) and step[26] == pytest.approx(want, abs=1e-4)
    assert step[60] == pytest.approx(want, abs=1e-4) and (low <= value).all() and (value <= high).all()
    e = local.horizon(curve, 0)
    assert 25 < e.value < 26 and e.n == 240
    # the reference has none, and is told why
    none = local.horizon(found.curves["base"], 0)
    assert math.isnan(none.value)
    assert none.note == "half is not reached: the mass beyond the base under every law ends at 0.000"


@pytest.mark.parametrize(("p", "width"), [(0.5, 1), (0.2, 3), (0.02, 4)])
def test_forks_taken_one_way_reach_a_half_where_their_product_says(p, width):
    """A base that forks at every `width`th token, p one way; the source always goes that way: l grows by log 1/p at
    each fork, 1 - k p^j passes a half at j = log(2 k) / log(1/p) forks, and no fork of its own is a hurdle."""
    x, y, body = 0, 1, list(range(2, 2 + width - 1))  # x or y at the fork, then tokens without a choice
    base = np.full((V, V), -np.inf)
    after = body[0] if body else None
    for token in (x, y):
        base[token, after if body else x] = 0.0 if body else math.log(p)
        if not body:
            base[token, y] = math.log1p(-p)
    for a, b in zip(body, body[1:], strict=False):
        base[a, b] = 0.0
    if body:
        base[body[-1], x], base[body[-1], y] = math.log(p), math.log1p(-p)
    for other in range(V):
        if not np.isfinite(base[other]).any():
            base[other, x], base[other, y] = math.log(p), math.log1p(-p)
    one_way = base.copy()
    for row in range(V):
        if np.isfinite(base[row, y]):
            one_way[row, x], one_way[row, y] = 0.0, -np.inf
    start = V - 2  # every prompt stands before a fork
    rng, longest = np.random.default_rng(0), 60
    draws = {s: B.draw(rng, [B.Component(1, law)], 5, 4, longest) for s, law in (("base", base), ("s", one_way))}
    draws = {s: d._replace(start=np.full_like(d.start, start)) for s, d in draws.items()}
    # drawn again from the common start
    first = {"base": base, "s": one_way}
    for s, law in first.items():
        d = draws[s]
        tokens = d.tokens.copy()
        state = d.start.copy()
        for t in range(longest):
            u = rng.random(len(state))
            tokens[:, t] = (np.exp(law).cumsum(1)[state] <= u[:, None]).sum(1)
            state = tokens[:, t]
        log_q = B.mixture([B.Component(1, law)], tokens, d.start)
        draws[s] = d._replace(tokens=tokens, log_q=log_q, length=np.full(len(tokens), longest))
    tables = B.tables(base, {"base": B.Made(draws["base"]), "s": B.Made(draws["s"], law_VV=one_way)})
    found = local.measured(tables, K)
    mine = found.frame[found.frame["source"] == "s"]
    forks = math.ceil(longest / width)
    nats = (mine["log_q"] - mine["p:T=1"]).to_numpy()
    assert nats == pytest.approx(np.full(len(nats), forks * math.log(1 / p)), rel=1e-4)
    hurdle = max(0.0, 1 - K * p)
    assert mine["hurdles1@64"].to_numpy() == pytest.approx(np.full(len(nats), 0.0 if hurdle == 0 else forks * hurdle))
    need = math.log(2 * K) / math.log(1 / p)  # forks until 1 - K p^j >= 1/2
    value = local.horizon(found.curves["s"], 0).value
    before = (math.ceil(need - 1e-9) - 1) * width  # tokens before the fork that passes it
    assert before <= value <= before + 1, (value, before)


def split(tables: Tables, sizes: list[int]) -> Tables:
    """The stream in other pieces, and its sources in the other order."""

    def tokens(model, columns):
        for part in reversed(list(tables.tokens(model, columns))):
            at = 0
            for size in sizes * (len(part) // min(sizes) + 1):
                if at < len(part):
                    yield part.iloc[at : at + size]
                at += size

    return replace(tables, tokens=tokens, memo={})


def test_order_and_pieces_of_the_stream_change_nothing(monkeypatch):
    tables = planted(0.5)
    whole = local.measured(tables, K)
    monkeypatch.setattr(laws, "BATCH", 7)
    other = local.measured(split(tables, [1, 5, 3]), K)
    names = [c for c in whole.frame if c not in ("key", "source", "problem")]
    a, b = whole.frame[names].astype(float).sort_index(), other.frame[names].astype(float)
    np.testing.assert_allclose(b.loc[a.index], a, atol=2e-4)
    for source, curve in whole.curves.items():
        mine = other.curves[source]
        order = [mine.problems.index(p) for p in curve.problems]
        np.testing.assert_allclose(mine.sum_CPW[:, order], curve.sum_CPW, atol=1e-3)
        assert (mine.n_P[order] == curve.n_P).all()
    spots = [x.spots.sort_values(["key", "at", "width"])[["key", "at", "width", "token"]] for x in (whole, other)]
    assert spots[0].to_numpy().tolist() == spots[1].to_numpy().tolist() and len(spots[0])
    weights = [x.carriers.groupby(local.CARRIER)["weight"].sum() for x in (whole, other)]
    np.testing.assert_allclose(*weights, atol=1e-3)
    for at in whole.deciles:
        np.testing.assert_allclose(whole.deciles[at], other.deciles[at], atol=1e-3)


def test_a_trace_does_not_depend_on_its_company():
    tables = planted(0.5)
    whole = local.measured(tables, K).frame
    few = tables.traces["sample"] < 3
    keys = set(tables.traces.loc[few, "key"])
    part = replace(tables, traces=tables.traces[few], scores=tables.scores[tables.scores["key"].isin(keys)], memo={})
    alone = local.measured(part, K).frame
    assert set(alone["key"]) == keys
    numbers = [c for c in alone if c not in ("key", "source", "problem")]
    np.testing.assert_allclose(alone[numbers].astype(float), whole.loc[alone.index, numbers].astype(float), atol=2e-4)


def test_what_was_measured_is_kept_for_every_part_of_its_traces_and_for_no_other():
    tables = planted(0.5)
    whole = local.measured(tables, K)
    assert local.measured(tables, K) is whole and local.measured(tables, 16) is not whole
    half = replace(tables, traces=tables.traces[tables.traces["sample"] % 2 == 0])
    assert local.measured(half, K) is whole
    label = tables.traces["source"].mask((tables.traces["source"] == "base") & (tables.traces["sample"] > 9), "A/A")
    more = {"policies": tables.policies | {"A/A": "base"}, "samplers": tables.samplers | {"A/A": Sampler()}}
    assert local.measured(replace(tables, traces=tables.traces.assign(source=label), **more), K) is whole
    # tables that had less at first, or that say something else of a source, are measured again
    fresh = replace(half, memo={})
    first = local.measured(fresh, K)
    assert local.measured(replace(tables, memo=fresh.memo), K) is not first
    for change in (
        {"samplers": tables.samplers | {"s": Sampler(0.6)}},
        {"samplers": tables.samplers | {"base": Sampler(0.6)}},
        {"policies": {"base": "base"}},
    ):
        assert local.measured(replace(tables, **change), K) is not whole
        local.measured(tables, K)
        whole = local.measured(tables, K)


def test_the_end_token_counts_for_whole_traces_and_for_no_hurdle():
    """A source that stops ten times as early, its words the base's: hurdle-free, and without its end tokens nothing."""
    rng, base = np.random.default_rng(3), B.law(np.random.default_rng(0), V, 1.5, stop=0.0005)
    early = base.copy()
    early[:, :-1] += np.log(0.9 / 0.9995)
    early[:, -1] = np.log(0.1)
    sources = {"base": B.Made(B.draw(rng, [B.Component(1, base)], 6, 20, 80))}
    sources["s"] = B.Made(B.draw(rng, [B.Component(1, early)], 6, 20, 80), law_VV=early)
    tables = B.tables(base, sources)
    found = local.measured(tables, K)
    mine = found.frame[found.frame["source"] == "s"]
    ended = mine["ended"].to_numpy(bool)
    # ten times .9 per token before the end, then 200 times as likely an end, against T = 1
    nats = (mine["log_q"] - mine["p:T=1"]).to_numpy()
    assert nats == pytest.approx(mine["n"].to_numpy() * math.log(0.9 / 0.9995) + ended * math.log(200), abs=2e-3)
    assert mine.loc[ended, "end"].to_numpy() == pytest.approx(np.full(ended.sum(), math.log(200)), abs=1e-4)
    for name in ("hurdles1@64", "hurdles4@64", "share1@64", "share4@64"):
        assert (mine[name] == 0).all()
    without = local.without_end(found).frame
    body = without[without["source"] == "s"]
    assert not body["ended"].any() and body["end"].isna().all()
    assert (body["log_q"] - body["p:T=1"]).to_numpy() == pytest.approx(nats - ended * math.log(200), abs=2e-3)
    case = variations.without_end(variations.last(tables), tables.tokens)[0]
    assert local.measured(replace(case, memo={f"local@{K}": local.without_end(found)}), K).frame["ended"].sum() == 0
    result = support.run(tables, budget=K, draws=50)
    shorter, _ = variations.without_end(variations.last(tables), _with_offsets(tables))
    again = support.run(shorter, budget=K, draws=50)
    assert result.estimates["s.beyond@64"].value > 0.05 > again.estimates["s.beyond@64"].value


def _with_offsets(tables: Tables):
    """The stream as of a scorer that appended the end token itself."""
    for engine in tables.engines.values():
        engine["eos"] = V - 1
    return tables.tokens


def test_a_curve_of_few_problems_has_no_band_and_a_late_end_is_said():
    place = np.array([1, 2, 4])
    two = local.Curve(place, ["a", "b"], np.array([2, 2]), np.array([[[0, 0.4, 2.0], [0, 0.4, 2.0]]]), ["T=1"])
    value, low, _ = local.band(two, 0)
    assert value.tolist() == [0, 0.2, 1] and np.isnan(low).all()
    e = local.horizon(two, 0)
    assert e.value == pytest.approx(2 + 2 * 0.3 / 0.8) and math.isnan(e.low) and math.isnan(e.high)
    assert e.note == "2 problems: no interval, 3 are needed"
    sums = np.array([[[0, 0, 0.0], [0, 2, 2.0], [0, 2, 2.0]]])
    three = local.Curve(place, list("abc"), np.array([2, 2, 2]), sums, ["T=1"])
    late = local.horizon(three, 0)
    assert late.note == "its upper end is beyond the traces" and 1 < late.value < 2 and late.low <= late.value
    assert local.crossing(place, np.array([0.6, 0.7, 0.8])) == 1 and local.crossing(place, np.zeros(3)) == math.inf


def test_the_budgets_of_hurdles_hold_half_and_twice_the_one_in_question():
    assert {32, 64, 128} <= set(local.budgets(64)) and {5, 10, 20} <= set(local.budgets(10))
    assert local.budgets(1)[:2] == (1, 2) and local.budgets(2)[0] == 2  # at 1 every larger q is a hurdle
