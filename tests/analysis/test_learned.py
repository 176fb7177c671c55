"""What is learned of a source: from which traces, of which it is not, and what the words at the sequence level make of
it. Laws are bigrams (`validation.bigram`), so that every number is exact. Seeded; nothing here can fail by chance: a
source of the base passes 64 times its mass with chance below 1e-4 by Ville's inequality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.support import learned
from analyzer.analysis.support import run as support
from analyzer.analysis.support.record import Evidence
from analyzer.analysis.verdict import sentences
from analyzer.analysis.verdict.decide import decide
from analyzer.records import Estimate, Sampler, Tables
from validation import bigram
from validation.bigram import Component, Made

V, PROBLEMS, DRAWS, LONGEST = 41, 12, 6, 40
PHRASE = {3: 7, 4: 19, 5: 30}  # position -> token of the source `style`


@pytest.fixture(scope="module")
def world() -> Tables:
    rng = np.random.default_rng(5)
    base_VV = bigram.law(rng, V, 1.5)
    base_VV[:, [7, 19, 30]] = np.log(1e-4)
    base_VV = bigram.normalised(base_VV)
    plain, style = Component(1.0, base_VV), Component(1.0, base_VV, PHRASE)
    opening = Component(1.0, base_VV, {0: 7})
    made = {
        name: Made(bigram.draw(rng, [part], PROBLEMS, DRAWS, LONGEST))
        for name, part in {"base": plain, "again": plain, "style": style, "opening": opening}.items()
    }
    return bigram.tables(base_VV, made, unknown=("again", "style", "opening"))


def fresh(tables: Tables, **changes) -> Tables:
    return replace(tables, memo={}, **changes)


def log_e(tables: Tables, source: str) -> pd.Series:
    return learned.of(tables, [source]).by_key["log_e"]


def test_a_phrase_that_the_base_hardly_writes_is_found_and_the_base_is_not(world):
    found = log_e(fresh(world), "style")
    assert len(found) == PROBLEMS * DRAWS and found.min() > np.log(64 / 0.02)
    assert log_e(fresh(world), "again").max() < np.log(20)
    result = support.run(fresh(world), draws=50)
    words = {
        v.source: v.word
        for v in decide({"support": result}, sources=["again", "style", "opening"], reference="base")
        if v.level == "sequence"
    }
    assert words == {"again": "undetermined", "style": "outside", "opening": "undetermined"}
    evidence = result.tables["evidence"].set_index("source")
    assert evidence.loc["style", "mass_low"] > 0.8 and evidence.loc["again", "mass_low"] == 0
    gains = result.tables["learned"].query("source == 'style'")
    # the second and third token of the phrase after one token each, the first one after many
    assert list(gains["n"][:2]) == [PROBLEMS * DRAWS] * 2 and gains["share"][:3].sum() > 0.95


def test_who_follows_the_advice_on_the_sampler_is_decided():
    """Words that the base draws at T = 1.4 as often as not: outside once it is said that T was at most 1."""
    rng = np.random.default_rng(7)
    base_VV = bigram.law(rng, V, 1.5)
    often_VV = 0.75 * base_VV
    often_VV[:, [3, 8, 13]] += 2.2
    parts = {"base": base_VV, "again": base_VV, "often": bigram.normalised(often_VV)}
    made = {
        name: Made(bigram.draw(rng, [Component(1.0, law_VV)], PROBLEMS, DRAWS, LONGEST))
        for name, law_VV in parts.items()
    }
    words = {}
    for undeclared in (("often", "again"), ()):
        tables = bigram.tables(base_VV, made, unknown=("often", "again"), undeclared=undeclared)
        found = decide({"support": support.run(tables, draws=20)}, sources=["often", "again"], reference="base")
        words |= {(v.source, bool(undeclared)): v for v in found if v.level == "sequence"}
    assert {key: v.word for key, v in words.items() if v.word == "outside"} == {("often", False): "outside"}
    assert "--sampler often=T[,top_p] (none is declared; the hottest" in words["often", True].needs


def test_many_sources_at_once_read_as_each_alone(world, monkeypatch):
    monkeypatch.setattr(learned, "AT_ONCE", 2)
    passes, names = [], ["style", "again", "opening"]
    few = world.scores[(world.scores["source"] != "again") | (world.scores["problem"] > "p0002")]

    def tokens(model, columns):
        passes.append(model)
        return world.tokens(model, columns)

    found = learned.of(fresh(world, scores=few, tokens=tokens), names)
    assert len(passes) == 4  # two for two sources
    alone = [learned.of(fresh(world, scores=few), [name]) for name in names]
    pd.testing.assert_frame_equal(found.by_key.sort_index(), pd.concat([x.by_key for x in alone]).sort_index())
    pd.testing.assert_frame_equal(found.words, pd.concat([x.words for x in alone], ignore_index=True))


def test_neither_the_order_of_the_run_nor_its_parts_change_a_value(world):
    want = log_e(fresh(world), "style")

    def tokens(model, columns):
        rng = np.random.default_rng(0)
        for part in reversed(list(world.tokens(model, columns))):
            for rows in np.array_split(rng.permutation(len(part)), 7):
                yield part.iloc[rows]

    scores = world.scores.sample(frac=1, random_state=1, ignore_index=True)
    got = log_e(fresh(world, tokens=tokens, scores=scores), "style")
    assert got[want.index].to_numpy() == pytest.approx(want.to_numpy())


def test_what_judges_a_trace_does_not_depend_on_its_prompt_nor_on_draws_of_its_number(world):
    """Other tokens in one half of the prompts, or in all draws of one number, leave the bets on them as they were: only
    the traces' own factors change, and those of nobody else."""
    rows = world.scores.query("source == 'style' and model == 'base'")
    half = pd.Series(pd.factorize(rows["problem"], sort=True)[0] % 2, index=rows["key"])
    number = pd.Series(rows["sample"].to_numpy() % learned.NUMBERS, index=rows["key"])

    def with_others(changed: set[str]) -> Tables:
        def tokens(model, columns):
            for part in world.tokens(model, columns):
                part = part.copy()
                for i in part.index[part["key"].isin(changed)]:
                    part.at[i, "token"] = (part.at[i, "token"] + 11) % (V - 1)
                yield part

        return fresh(world, tokens=tokens)

    want = log_e(fresh(world), "style")
    for side in (0, 1):
        got = log_e(with_others(set(half.index[half == side])), "style")
        # of half `side` the bets are the same and the tokens others; of the other half the bets are others
        assert (got[half.index[half != side]] != want[half.index[half != side]]).all()
    alike = number.index[(number == 1)]
    got = log_e(with_others(set(alike)), "style")
    one = learned.of(with_others(set(alike[:1])), ["style"]).by_key["log_e"]
    same = [k for k in want.index if (half[k] == half[alike[0]] or number[k] == 1) and k != alike[0]]
    assert one[same].to_numpy() == pytest.approx(want[same].to_numpy())
    assert len(same) > 40 and (got[[k for k in want.index if number[k] != 1]] != want[number.index[number != 1]]).any()


def test_one_draw_a_problem_or_one_prompt_teaches_nothing(world):
    single = world.scores[world.scores["sample"] == 0]
    assert log_e(fresh(world, scores=single), "style").empty
    alike = world.scores.assign(prompt_hash="same")
    assert log_e(fresh(world, scores=alike), "style").empty
    result = support.run(fresh(world, scores=single), draws=20)
    assert (result.tables["evidence"]["taught"] == 0).all()


def test_without_the_columns_nothing_is_learned(world):
    def tokens(model, columns):
        for part in world.tokens(model, columns):
            yield part.assign(mass_above=None) if "mass_above" in part else part

    assert log_e(fresh(world, tokens=tokens), "style").empty


def test_hotter_than_any_null_nothing_is_learned(world):
    assert log_e(fresh(world, samplers=world.samplers | {"style": Sampler(1.6)}), "style").empty
    undeclared = {s: x for s, x in world.samplers.items() if s != "style"}
    held = log_e(fresh(world, samplers=undeclared), "style")  # against temperatures up to 1.43
    assert (held < log_e(fresh(world), "style")[held.index]).all() and held.median() > 0


def test_nothing_is_won_on_a_first_token(world):
    """A dump of texts has lost the space that the base begins with, whatever the reference's ids show."""
    assert log_e(fresh(world), "opening").max() < np.log(20)


@pytest.mark.parametrize("end", [V - 1, 3])  # with an id that the engine names, and with one that it does not
def test_nothing_is_won_on_an_end_token(end):
    """Texts cut anywhere, with an end token appended: how a dump was written, not what the base would write."""
    rng = np.random.default_rng(8)
    base_VV = bigram.law(rng, V, 1.5, stop=1e-6)
    base_VV[:, 3] = np.log(1e-6)
    base_VV = bigram.normalised(base_VV)
    parts = {"base": Component(1.0, base_VV), "cut": Component(1.0, base_VV, {20: end})}
    made = {name: Made(bigram.draw(rng, [part], PROBLEMS, DRAWS, 21)) for name, part in parts.items()}
    found = log_e(bigram.tables(base_VV, made, unknown=("cut",)), "cut")
    assert found.max() < np.log(20) if end == V - 1 else found.median() > np.log(20)


@pytest.mark.parametrize("number", [lambda n: 4 * n, lambda n: 10 + 2 * n])
def test_draws_are_told_apart_however_they_are_numbered(world, number):
    scores = world.scores[world.scores["sample"] < 2]
    want = log_e(fresh(world, scores=scores), "style")
    got = log_e(fresh(world, scores=scores.assign(sample=number(scores["sample"]))), "style")
    assert len(want) == 2 * PROBLEMS and got[want.index].to_numpy() == pytest.approx(want.to_numpy())


def test_white_space_that_gains_is_named():
    """A dump with other line ends looks novel: its reader must see by what."""
    words = pd.DataFrame({"source": "s", "text": ["\r", "\n", "", " so"], "share": [0.5, 0.3, 0.1, 0.1]})
    assert learned.said(words, "s") == r"'\r' 50%, '\n' 30%, ' so' 10%"


def test_a_run_in_which_nothing_gains_names_nothing():
    rng, greedy = np.random.default_rng(9), Sampler(1.0, 1.0, 1)
    base_VV = bigram.law(rng, V, 1.5)
    likeliest = Component(1.0, bigram.sampled(base_VV, greedy))
    made = {
        "base": Made(bigram.draw(rng, [Component(1.0, base_VV)], 4, 4, 20)),
        "greedy": Made(bigram.draw(rng, [likeliest], 4, 4, 20), greedy),
    }
    result = support.run(bigram.tables(base_VV, made, unknown=("greedy",)), draws=20)
    assert result.tables["learned"].empty and list(result.tables["evidence"]["wording"]) == [""]


def test_words_are_named_only_beside_traces_that_are_flagged():
    row = Evidence(source="s", taught=1.0, wording="' so' 100%")
    flagged, none = (Estimate(share, 0.0, 0.1, 96, "rate") for share in (0.02, 0.0))
    assert any("' so' 100%" in line for line in sentences.novelty({1: flagged, 64: none}, row))
    assert not any("' so'" in line for line in sentences.novelty({1: none, 64: none}, row))


def test_a_variation_with_fewer_traces_reads_the_same_numbers(world):
    whole = fresh(world)
    want = log_e(whole, "style")
    few = replace(whole, scores=whole.scores[whole.scores["sample"] == 0])
    assert log_e(few, "style").equals(want)
