"""Token-level numbers by hand, against sorted tokens, and over any cut of the stream."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.tokens import run as tokens
from analyzer.analysis.tokens import sums as token_sums
from analyzer.errors import UsageError
from analyzer.records import Result


def row(source, problem, sample, models, **more):
    return {"source": source, "problem": problem, "sample": sample, "models": models, **more}


@pytest.fixture
def few(make_tables, make_columns):
    """One trace of the base and one of rlvr on each of two problems, ten tokens each; rlvr has its own model."""
    entropy = np.arange(10) / 10
    rows = []
    for p in "ab":
        ranks = [1, 1, 1, 1, 1, 1, 2, 3, 4, 6]
        rows.append(row("base", p, 0, {"base": make_columns([1.0] * 10, rank=ranks, entropy=entropy)}))
        s = [0.1] * 8 + [2.0, 4.0]
        columns = make_columns(s, rank=[1] * 8 + [2, 9], entropy=entropy, offset=np.arange(10) * 2)
        rows.append(
            row(
                "rlvr",
                p,
                0,
                {"base": columns, "policy-rlvr": make_columns([0.1] * 8 + [0.5, 0.5])},
                response="a b c d e f g h i j",
            )
        )
    return make_tables(rows, policies={"base": "base", "rlvr": "policy-rlvr"})


def test_rank_classes_by_hand(few):
    e = tokens.run(few, draws=50).estimates
    assert [e[f"base.{k}"].value for k in ("unshifted", "marginal", "shifted", "top5")] == pytest.approx(
        [0.6, 0.2, 0.2, 0.9]
    )
    assert [e[f"rlvr.{k}"].value for k in ("unshifted", "marginal", "shifted", "top5")] == pytest.approx(
        [0.8, 0.1, 0.1, 0.9]
    )
    # both problems are alike, and two problems have no interval of a ratio
    assert math.isnan(e["rlvr.shifted"].low) and math.isnan(e["rlvr.shifted"].high)
    assert "2 problems: no interval, 5 are needed" in e["rlvr.shifted"].method


def test_five_problems_have_an_interval(make_tables, make_columns):
    rows = [
        row(s, p, 0, {"base": make_columns([1.0] * 10, rank=[1] * 9 + [4])}) for s in ("base", "rlvr") for p in "abcde"
    ]
    e = tokens.run(make_tables(rows), draws=50).estimates["rlvr.shifted"]
    assert (e.low, e.value, e.high) == pytest.approx((0.1, 0.1, 0.1))  # all problems are alike
    four = tokens.run(make_tables([r for r in rows if r["problem"] != "e"]), draws=50).estimates["rlvr.shifted"]
    assert math.isnan(four.low) and four.value == pytest.approx(0.1)


def test_forking_positions_are_beyond_the_80th_percentile(few):
    result = tokens.run(few, draws=50)
    assert 0.7 < result.params["fork_entropy"] < 0.8 * 1.002  # eight of ten tokens at or below .7
    table = result.tables["forking"].set_index("source")
    assert table.loc["rlvr", "share_of_tokens"] == pytest.approx(0.2)
    assert table.loc["rlvr", "share_of_surprisal"] == pytest.approx(6.0 / 6.8)
    assert table.loc["rlvr", "share_of_off_rank1"] == 1 and table.loc["base", "share_of_off_rank1"] == pytest.approx(
        0.5
    )


def test_windows_have_position_and_text(few):
    table = tokens.run(few, draws=50).tables["windows"].set_index("key")
    worst = table.loc["rlvr/a/0"]
    assert worst["position"] == 2 and worst["peak_position"] == 9 and worst["text"] == "c d e f g h i j"
    assert worst["window_max"] == pytest.approx((6 * 0.1 + 6) / 8)
    assert worst["of_surprisal"] == pytest.approx(6.6 / 6.8)
    assert table.loc["base/a/0", "text"] == ""  # no offsets


def test_positions_by_hand(few):
    result = tokens.run(few, draws=50)
    table = result.tables["positions"].set_index(["source", "tenth"])
    assert table.loc[("rlvr", 9), "surprisal"] == 4 and table.loc[("rlvr", 0), "surprisal"] == pytest.approx(0.1)
    assert table.loc[("base", 3), "entropy"] == pytest.approx(0.3) and table.loc[("base", 3), "tokens"] == 2
    starts = result.tables["starts"].set_index(["source", "from"])
    assert starts.loc[("rlvr", 0), "surprisal"] == pytest.approx(0.1) and starts.loc[("rlvr", 8), "surprisal"] == 3
    assert starts.loc[("rlvr", 8), "tokens"] == 4


def test_delta_log_p_by_hand(few):
    result = tokens.run(few, draws=50)
    delta = result.tables["delta"].set_index("source").loc["rlvr"]
    assert delta["tokens"] == 20 and delta["mean"] == pytest.approx(0.5) and delta["q50"] == pytest.approx(0, abs=1e-6)
    assert delta["above_1"] == pytest.approx(0.2) and delta["below_minus_1"] == 0 and delta["tokens_omitted"] == 0
    top = result.tables["delta_tokens"].iloc[0]
    assert top["position"] == 9 and top["delta"] == pytest.approx(3.5) and top["rank"] == 9 and top["text"] == "j"


def test_delta_is_bounded_and_says_what_it_left_out(few, monkeypatch):
    monkeypatch.setattr(token_sums, "DELTA_TOKENS", 10)
    monkeypatch.setattr(tokens, "DELTA_TOKENS", 10)
    result = tokens.run(few, draws=50)
    assert result.tables["delta"]["tokens"].item() == 10 and result.tables["delta"]["tokens_omitted"].item() == 10
    assert "Delta log p is of the first 10 tokens; left out: rlvr 10." in result.notes


def test_excess_by_token_adds_up_to_the_difference(make_tables, make_world):
    tables = make_tables(make_world(1, sources={"base": 0.7, "rlvr": 1.4}))
    table = tokens.run(tables, draws=50).tables["excess_tokens"]
    nll = tables.scores.groupby("source").apply(
        lambda g: -g["logprob"].sum() / g["n_tokens"].sum(), include_groups=False
    )
    assert len(table) == 9  # every id has a positive part here, as rlvr is twice as surprising everywhere
    assert table["excess"].sum() == pytest.approx(nll["rlvr"] - nll["base"])
    assert table["of_source"].sum() == pytest.approx(1) and table["excess"].is_monotonic_decreasing


def test_spikes_equal_the_sorted_tokens(make_tables, make_world):
    rows = make_world(2, sources={"base": 1.0, "rlvr": 0.6}, problems=10, samples=20)
    table = tokens.run(make_tables(rows), draws=50).tables["spikes"].set_index(["source", "top"])
    for source in ("base", "rlvr"):
        s = np.sort(np.concatenate([-r["models"]["base"]["logprob"] for r in rows if r["source"] == source]))[::-1]
        for share in (0.01, 0.05):
            m = share * len(s)
            whole = s[: int(m)].sum() + (m - int(m)) * s[int(m)]
            assert table.loc[(source, share), "of_surprisal"] == pytest.approx(whole / s.sum(), rel=2e-3)
            assert table.loc[(source, share), "cvar"] == pytest.approx(whole / m, rel=2e-3)
            assert table.loc[(source, share), "from_nats"] == pytest.approx(s[int(m)], rel=2e-3)


def test_the_threshold_equals_the_quantile(make_tables, make_world):
    rows = make_world(3, sources={"base": 1.0, "rlvr": 3.0}, problems=10, samples=20)
    entropy = np.concatenate([r["models"]["base"]["entropy"] for r in rows if r["source"] == "base"])
    assert tokens.run(make_tables(rows), draws=50).params["fork_entropy"] == pytest.approx(
        np.quantile(entropy, 0.8), rel=5e-3
    )


def test_parts_of_the_stream_and_order_change_nothing(make_tables, make_world):
    rows = make_world(4, sources={"base": 1.0, "rlvr": 0.6}, problems=5, samples=4)
    whole = tokens.run(make_tables(rows, part=1000), draws=50)
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = [rows[i] for i in sorted(order, key=lambda i: rows[i]["source"] != "base")]
    for other in (make_tables(rows, part=1), make_tables(mixed, part=3)):
        found = tokens.run(other, draws=50)
        for name in ("ranks", "forking", "spikes", "positions", "starts", "excess_tokens"):
            pd.testing.assert_frame_equal(found.tables[name], whole.tables[name])
        assert set(found.tables["windows"]["key"]) == set(whole.tables["windows"]["key"])


def test_the_stream_is_read_twice_at_most(few):
    tokens.run(few, draws=50)
    models = [model for model, _ in few.tokens.reads]
    assert models.count("base") == 2 and models.count("policy-rlvr") == 1


def test_only_the_last_training_step_enters(make_tables, make_columns):
    rows = [row("base", "a", 0, {"base": make_columns([1.0] * 4)})]
    rows += [row("grpo", "a", 0, {"base": make_columns([1.0] * 4, rank=[r] * 4)}, step=s) for s, r in ((1, 9), (2, 1))]
    e = tokens.run(make_tables(rows), draws=50).estimates
    assert e["grpo.unshifted"].value == 1 and e["grpo.shifted"].value == 0


def test_what_a_backend_does_not_know_is_nan(make_tables):
    known = {"token": np.arange(4), "logprob": -np.ones(4)}
    rows = [row(s, p, 0, {"base": known}) for s in ("base", "rlvr") for p in "ab"]
    result = tokens.run(make_tables(rows), draws=50)
    assert (
        math.isnan(result.estimates["rlvr.shifted"].value)
        and "does not know ranks" in result.estimates["rlvr.shifted"].note
    )
    assert result.params["fork_entropy"] is None and result.tables["forking"]["share_of_tokens"].isna().all()
    assert result.tables["positions"]["entropy"].isna().all() and result.tables["positions"]["surprisal"].notna().any()
    assert any("No forking positions" in n for n in result.notes)
    assert json.dumps(result.as_json(), allow_nan=False)


def test_an_impossible_token_is_infinite_and_breaks_nothing(make_tables, make_columns):
    rows = [row(s, p, 0, {"base": make_columns([1.0, np.inf, 1.0])}) for s in ("base", "rlvr") for p in "ab"]
    result = tokens.run(make_tables(rows), draws=50)
    assert result.tables["spikes"]["from_nats"].max() >= 999 and result.estimates["rlvr.unshifted"].value == 1
    assert json.dumps(result.as_json(), allow_nan=False)


def test_without_scores_it_refuses(few):
    with pytest.raises(UsageError, match="tokens needs scores under a base model: --base MODEL"):
        tokens.run(replace(few, base=None))


def test_drawings_work_from_the_stored_result(few):
    result = tokens.run(few, draws=50)
    stored = Result.from_json("tokens", json.loads(json.dumps(result.as_json())))
    from matplotlib.figure import Figure as Canvas

    for name, spec in tokens.FIGURES.items():
        for found in (result, stored):
            ax = Canvas().add_subplot()
            assert spec.draw(found, ax) is ax and ax.get_xlabel(), name
        assert spec.caption(stored) == spec.caption(result) and "n = 20 tokens" in spec.caption(result)
