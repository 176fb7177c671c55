"""The places of hurdles: what kind of token they are, which come first, and the text that stands there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.support import hurdles, local
from analyzer.analysis.support import run as support
from validation import bigram as B

spec = importlib.util.spec_from_file_location("known_world", Path(__file__).with_name("known_world.py"))
known_world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(known_world)
K = 64


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("17", "number"), (" 3.5", "number"), ("x2", "number"), ("½x1", "number"),
        ("+", "operator"), (" =", "operator"), ("<=", "operator"), ("\\times", "operator"), (" \\frac", "operator"),
        ("≠", "operator"), ("√", "operator"), ("-", "operator"), ("/", "operator"),
        ("\n\n", "format"), (" ", "format"), (".", "format"), ("**", "format"), ("```", "format"),
        ("<|im_end|>", "format"), ("</think>", "format"), ("\\boxed", "format"), ("(", "format"), ("#", "format"),
        ("So", "connective"), (" wait", "connective"), ("Therefore", "connective"), ("HMM", "connective"),
        ("banana", "other"), (" der", "other"), ("答", "other"), ("soup", "other"),
    ],
)  # fmt: skip
def test_kinds_of_tokens_by_their_text(text, kind):
    assert hurdles.kind(text, hurdles.OPENING) == kind and hurdles.kind(text, 500) == kind
    assert hurdles.kind(text, hurdles.OPENING - 1) == "opening" == hurdles.kind(text, 0)
    assert kind in hurdles.KINDS


def test_a_token_without_a_text_has_no_kind():
    assert hurdles.kind("", 500) == "unknown" in hurdles.KINDS


@pytest.fixture(scope="module")
def known():
    world = known_world.make_world()
    return world, support.run(world, seed=1, draws=100)


def test_places_show_the_text_that_stands_there_and_what_the_base_would_rather_write(known):
    world, result = known
    places, texts = result.tables["hurdles"], world.text_of(world.traces["key"])
    assert set(places["source"]) == {"distill"} and list(places.columns) == hurdles.COLUMNS
    assert places["nats"].is_monotonic_decreasing and (places["nats"] > np.log(K)).all()
    assert places.groupby("key").size().max() <= local.PLACES and places["key"].nunique() <= local.LISTED
    for row in places.head(60).to_dict("records"):
        words = texts[row["key"]].split(" ")
        assert row["text"].strip() == words[row["position"]]
        so_far = " ".join(words[: row["position"]])
        assert row["before"].strip() == so_far[-hurdles.CONTEXT :].strip() or so_far.endswith(row["before"].strip())
        assert row["kind"] == hurdles.kind(row["text"], row["position"])
        assert row["tokens"] in (1, 4) and row["log_q"] > row["log_p"]
        named = row["likelier"].split("; ")
        assert len(named) == 3 and "'* '" not in row["likelier"]  # what the base gives 1e-4
        chances = [float(x.rsplit(" ", 1)[1]) for x in named]
        assert chances == sorted(chances, reverse=True) and chances[0] > np.exp(row["log_p"])
    stars = places[places["text"].str.strip() == "*"]
    assert len(stars) > 0.9 * len(places) and (stars["rank"] == known_world.VOCAB).all()


def test_kinds_share_the_expected_hurdles_by_place_and_text(known):
    world, result = known
    table = result.tables["hurdle_kinds"].query("source == 'distill'")
    e = result.estimates["distill.hurdles@64"]
    for by in ("kind", "tenth"):
        part = table[table["by"] == by]
        assert part["share"].sum() == pytest.approx(1)
        assert part["hurdles"].sum() == pytest.approx(e.value * e.n, rel=1e-3)  # of the span that finds more
    kinds = table[table["by"] == "kind"].set_index("name")
    # foreign tokens come all along the trace: four of fourteen places are its opening, whatever the token
    assert kinds.loc["opening", "share"] == pytest.approx(4 / 14, abs=0.06) and kinds.loc["operator", "share"] > 0.6
    said = hurdles.carried(result.tables["hurdle_kinds"], "distill")
    assert said.startswith("operator 7") and "('* '" in said and ", opening 2" in said
    assert hurdles.carried(result.tables["hurdle_kinds"], "rlvr") == ""


def planted(script: dict[int, int], *, share: float = 0.5, longest: int = 120):
    rng = np.random.default_rng(5)
    base = B.law(rng, 40, 1.5)
    base[:, 37] = np.log(1e-7)
    base = B.normalised(base)
    draws = [
        B.draw(rng, parts, 8, 16, longest)
        for parts in ([B.Component(1, base)], [B.Component(1 - share, base), B.Component(share, base, script)])
    ]
    return B.tables(base, {"base": B.Made(draws[0]), "s": B.Made(draws[1])}), draws[1]


def test_a_planted_step_is_listed_first_in_every_trace_that_holds_it():
    tables, draws = planted({50: 37, 51: 37, 90: 37})
    found = local.measured(tables, K)
    keys = set(tables.traces["key"])
    out = hurdles.tables_of(tables, found, ["s"], keys)
    places = out["hurdles"]
    assert set(places["key"]) == set(np.array(tables.traces.query("source == 's'")["key"])[draws.component == 1])
    first = places.drop_duplicates("key")
    assert first["position"].isin([50, 51]).mean() >= 0.95 and (first["nats"] > 20).mean() >= 0.95
    second = places[places.duplicated("key")]
    assert len(second) and set(places["position"]) <= {50, 51, 90}  # places of one trace are four tokens apart
    gaps = places.groupby("key")["position"].agg(lambda p: np.diff(np.sort(p)).min(initial=99))
    assert (gaps >= 4).all() and (places["text"] == "#37").all()  # without a text the id is shown
    stretches = out["stretches"]
    assert set(stretches["key"]) <= set(places["key"]) and (stretches["tokens"] == 32).all()
    assert len(stretches) == min(hurdles.STRETCHES, places["key"].nunique())
    assert ((stretches["position"] <= 50) & (stretches["position"] + 32 > 51)).mean() >= 0.95
    tenths = out["hurdle_kinds"].query("by == 'tenth'").set_index("name")["share"]
    assert tenths["5"] + tenths["8"] > 0.95
    weights = found.carriers.query("source == 's'").groupby(["width", "token"])["weight"].sum()
    assert weights.loc[(1, 37)] == pytest.approx(3 * (draws.component == 1).sum(), rel=0.01)
    # parts of the traces, other sources and nothing at all
    some = set(places["key"].head(3))
    assert set(hurdles.tables_of(tables, found, ["s"], some)["hurdles"]["key"]) == some
    none = hurdles.tables_of(tables, found, ["base"], keys)
    assert [len(t) for t in none.values()] == [0, 0, 0] and list(none["hurdles"].columns) == hurdles.COLUMNS


def test_novelty_thinner_than_a_span_is_a_stretch_without_a_hurdle():
    """Forty tokens at a base probability of about a third each: no step is one, 32 in a row are."""
    rng = np.random.default_rng(0)
    base, tokens = B.law(rng, 60, 1.5), rng.permutation(58)[:40]
    for u, v in zip(tokens, tokens[1:], strict=False):
        base[u] = np.log1p(-0.36) + B.normalised(np.where(np.arange(60) == v, -np.inf, base[u])[None])[0]
        base[u, v] = np.log(0.36)
    base = B.normalised(base)
    script = {20 + i: int(t) for i, t in enumerate(tokens)}
    draws = [B.draw(rng, [B.Component(1, base, s)], 4, 8, 80) for s in ({}, script)]
    tables = B.tables(base, {"base": B.Made(draws[0]), "s": B.Made(draws[1])})
    out = hurdles.tables_of(tables, local.measured(tables, K), ["s"], set(tables.traces["key"]))
    assert out["hurdles"]["position"].isin([20]).all()  # but for its first token, which the base need not expect
    assert len(out["stretches"]) == 32 and out["stretches"]["position"].between(15, 28).all()
    assert out["stretches"]["nats"].is_monotonic_decreasing


def test_nothing_is_carried_by_nothing():
    assert hurdles.carried(pd.DataFrame(columns=hurdles.KIND_COLUMNS), "s") == ""
    kinds = [("number", 0.6, "'17'"), ("other", 0.36, ""), ("format", 0.04, "'.'")]
    rows = [{"source": "s", "by": "kind", "name": n, "hurdles": x, "share": x, "example": e} for n, x, e in kinds]
    assert hurdles.carried(pd.DataFrame(rows), "s") == "number 60% ('17'), other 36%"
