"""Support on the hand-made world of `known_world`, where p and q are known."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.data import tables as tables_module
from analyzer.analysis.support import record
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.errors import UsageError
from analyzer.records import Sampler, Tables

spec = importlib.util.spec_from_file_location("known_world", Path(__file__).with_name("known_world.py"))
known_world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(known_world)
make_world, PROBLEMS, SAMPLES, LENGTH = (
    known_world.make_world,
    known_world.PROBLEMS,
    known_world.SAMPLES,
    known_world.LENGTH,
)


@pytest.fixture(scope="module")
def world() -> Tables:
    return make_world()


@pytest.fixture(scope="module")
def result(world: Tables):
    return support.run(world, seed=1, draws=500)


def words(result, sources=("again", "cool", "rlvr", "distill", "teacher")) -> dict[str, str]:
    return {
        v.source: v.word
        for v in decide({"support": result}, sources=list(sources), reference="base")
        if v.level == "sequence"
    }


def test_every_word_of_the_known_world(result):
    assert words(result) == {
        "again": "inside",
        "cool": "inside",
        "rlvr": "sharpened",
        "distill": "outside",
        "teacher": "outside",
    }


def changed(world: Tables, mask_on: str, change) -> Tables:
    """The world with the rows of one source (any model) passed through `change`."""
    mine = world.scores["source"] == mask_on
    parts = [world.scores[~mine], change(world.scores[mine].copy())]
    return replace(world, scores=pd.concat(parts, ignore_index=True))


def test_reach_is_the_mean_of_the_definition(world, result):
    q = world.scores[world.scores["model"] == "policy-rlvr"].set_index("key")
    p = world.scores[(world.scores["model"] == "base") & (world.scores["source"] == "rlvr")].set_index("key")
    ratio = (q["logprob_s"].reindex(p.index) - p["logprob"]).to_numpy()
    for k in (1, 16, 64, 4096):
        assert result.estimates[f"rlvr.reach@{k}"].value == pytest.approx(
            np.mean(np.maximum(0, 1 - k * np.exp(-ratio)))
        )
    back = world.scores[world.scores["source"] == "base"].set_index(["model", "key"])
    lost = back.loc["base", "logprob_s"] - back.loc["policy-rlvr", "logprob"]
    assert result.estimates["rlvr.lost@64"].value == pytest.approx(np.mean(np.maximum(0, 1 - 64 * np.exp(-lost))))


def test_reach_tells_the_worlds_apart(result):
    value = {k: e.value for k, e in result.estimates.items()}
    assert value["again.reach@64"] == 0 and value["cool.reach@64"] == 0 and value["cool.reach@4"] < 0.05
    assert value["rlvr.reach@64"] > 0.2 > value["rlvr.reach@4096"]  # sharpening is used up by a larger budget
    # a plateau at the mixture weight: 768 traces, sd of the share .018
    assert value["distill.reach@4096"] == pytest.approx(0.5, abs=0.07) and value["distill.reach@16"] == pytest.approx(
        0.5, abs=0.07
    )
    assert value["distill.lost@64"] == 0 and value["rlvr.lost@64"] > 0.5  # rlvr forgot, distill did not


def test_local_support_tells_the_worlds_apart(result):
    """distill: half of the traces are foreign, from their first tokens on; rlvr: beyond as a whole, no step is."""
    value = {k: e.value for k, e in result.estimates.items()}
    for source in ("again", "cool", "rlvr"):
        assert value[f"{source}.hurdles@64"] == value[f"{source}.hurdle_share@64"] == 0
        assert math.isnan(value[f"{source}.horizon@64"]) and value[f"{source}.beyond@64"] <= value[f"{source}.reach@64"]
    # 768 draws of a fair coin: within .07 with probability 1 - 1e-4; each foreign token is "*" in about half
    assert value["distill.hurdle_share@64"] == pytest.approx(0.5, abs=0.07)
    assert value["distill.hurdles@64"] > 0.5 * LENGTH * 0.3
    assert value["distill.hurdle_rate@64"] == pytest.approx(1000 * value["distill.hurdles@64"] / LENGTH)
    assert value["rlvr.temperature_share"] > 0.95 and value["distill.temperature_share"] < 0.05
    prefix = result.tables["prefix"].query("law == 'every law'").set_index(["source", "tokens"])["excess"]
    assert prefix["distill", 4] > 0.45 and prefix["rlvr", 4] < 0.01
    for (source, law), part in result.tables["prefix"].groupby(["source", "law"]):
        if source not in ("rlvr", "cool"):  # E_k(first w tokens) of a true law never falls: P(l) is a likelihood ratio
            assert (np.diff(part["excess"]) > -0.02).all(), (source, law)


def test_evidence_of_traces_that_left_their_own_sampler_is_of_the_rest(world):
    """What the declared sampler could not draw has no log q: it counts against every bound and into no mean."""

    def tokens(model, columns):
        for part in world.tokens(model, columns):
            if model == "policy-rlvr" and "logprob" in columns:
                hit = (part["source"] == "rlvr") & (part["sample"] == 0) & (part["problem"] < "p05")
                values = [
                    np.r_[-np.inf, v[1:]].astype(np.float32) if h else v
                    for v, h in zip(part["logprob"], hit, strict=True)
                ]
                part = part.assign(logprob=pd.Series(values, dtype=object, index=part.index))
            yield part

    def exit_(frame: pd.DataFrame) -> pd.DataFrame:
        hit = (frame["sample"] == 0) & (frame["problem"] < "p05") & (frame["model"] == "policy-rlvr")
        return frame.assign(logprob_s=np.where(hit, -np.inf, frame["logprob_s"]))

    left = replace(changed(world, "rlvr", exit_), tokens=tokens, memo={})
    got = support.run(left, draws=100).tables["evidence"].set_index("source").loc["rlvr"]
    whole = support.run(world, draws=100).tables["evidence"].set_index("source").loc["rlvr"]
    assert got["n"] == 763 and got["s"] == pytest.approx(whole["s"], abs=0.02) and got["kl"] > 0
    assert got["inside_high"] > whole["inside_high"] and got["beyond_low"] < whole["beyond_low"]
    assert got["share_high"] == pytest.approx(whole["share_high"] + 5 / 768, abs=1e-3)
    assert words(support.run(left, draws=100), ["rlvr"]) == {"rlvr": "sharpened"}


def test_lost_is_asked_of_the_policy_at_temperature_one(result):
    """The policy of cool is the base itself: at T=1 it has lost nothing, its own sampler would have."""
    assert result.estimates["cool.lost@1"].value == 0 and result.estimates["cool.reach@1"].value > 0.1


def test_novelty_is_inflated_by_the_budget(world):
    log_e = np.full(PROBLEMS * SAMPLES, np.log(50.0))  # p = .02 at k = 1, .08 at 4, .32 at 16
    even = changed(world, "again", lambda f: f.assign(log_e=log_e))
    novel = support.run(even, draws=100).tables["novel"].query("source == 'again' and test == 'e-value'")
    assert novel.set_index("k")["share"].to_dict() == {1: 1, 4: 1, 16: 0, 64: 0}


def test_every_curve_falls_with_k(result):
    for name in ("reach", "reach_sampler", "lost"):
        for _, part in result.tables[name].dropna(subset=["share"]).groupby("source"):
            assert (np.diff(part["share"]) <= 1e-12).all() and (np.diff(part["k"]) > 0).all()
            assert (part["low"] <= part["share"]).all() and (part["share"] <= part["high"]).all()


def test_tables_and_estimates_carry_their_n(result):
    for name, estimate in result.estimates.items():
        if math.isnan(estimate.value):
            assert estimate.note and math.isnan(estimate.high), name
            assert math.isnan(estimate.low) or ".horizon" in name, name  # where its band could pass a half is told
        elif math.isnan(estimate.high):
            assert ".horizon" in name and estimate.low <= estimate.value and "beyond the traces" in estimate.note
        else:
            assert estimate.n > 0 and estimate.method and estimate.low <= estimate.value <= estimate.high, name
    assert set(result.tables) == {
        *("reach", "reach_sampler", "lost", "novel", "membership", "evidence", "laws", "spans", "prefix", "hurdles"),
        *("hurdle_kinds", "stretches", "plane_counts", "plane", "top", "flagged_tokens", "flagged_windows"),
        "learned",
    }
    counts = result.tables["plane_counts"].set_index("source")
    regions = ["likely_side", "novel_side", "within_reach", "base_tail", "log_ratio_unknown"]
    assert (counts[regions].sum(axis=1) == counts["n"]).all() and counts.loc[
        "teacher", "log_ratio_unknown"
    ] == PROBLEMS * SAMPLES
    assert (
        counts.loc["rlvr", "likely_side"] > 300
        and counts.loc["rlvr", "novel_side"] < 10
        and counts.loc["distill", "novel_side"] > 300
    )


def test_flags_are_on_the_foreign_traces(result):
    novel = result.tables["novel"].set_index(["source", "test", "k"])["share"]
    for test in ("e-value", "conformal"):
        assert novel["distill", test, 1] == pytest.approx(0.5, abs=0.07) and novel["teacher", test, 4] == 1
        assert novel["base (A/A)", test, 1] <= 0.01 and novel["rlvr", test, 1] == 0
    top = result.tables["top"]
    assert (
        set(top["source"]) == {"distill", "teacher"}
        and (top["log_ratio"].dropna() > math.log(64)).all()
        and (top["p"] < 0.01).all()
    )


def test_without_log_q_only_outside_is_certified(world):
    blind = replace(world, policies={"base": "base"})
    result = support.run(blind, draws=200)
    assert words(result) == {
        "again": "undetermined",
        "cool": "undetermined",
        "rlvr": "undetermined",
        "distill": "outside",
        "teacher": "outside",
    }
    rank = result.tables["novel"].query("test == 'rank'").set_index(["source", "k"])
    # a share above all 32 draws: 1/33 of a source that is the base, 768 traces in clumps of 24: sd .01
    assert rank.loc[("again", 1), "share"] < 0.08 and rank.loc[("again", 1), "p"] > 1e-4
    assert rank.loc[("distill", 4), "low_share"] > 0.2 and rank.loc[("distill", 64), "low_share"] == 0
    evidence = result.tables["evidence"].set_index("source")
    assert evidence.loc["teacher", "ranked"] == "" and "another sampler" in evidence.loc["cool", "ranked"]
    assert np.isnan(evidence.loc["cool", "rank_low"]) and np.isnan(evidence.loc["distill", "rank_low"])  # 32 < 64 draws
    few = support.run(blind, budget=4, draws=50).tables["evidence"].set_index("source")
    assert few.loc["distill", "rank_low"] > 0.2 and few.loc["distill", "certify"] == 4
    assert (
        result.estimates["cool.reach@64"].note == "the model that produced cool is not known; give --policy cool=MODEL"
    )
    needs = {
        v.source: v.needs
        for v in decide({"support": result}, sources=["cool"], reference="base")
        if v.level == "sequence"
    }
    assert needs["cool"].startswith("--policy cool=MODEL (without log q only outside can be certified), or the texts")


def test_without_log_q_a_source_that_was_drawn_hot_is_not_outside(world):
    hot = replace(world, policies={"base": "base"}, samplers=world.samplers | {"distill": Sampler(1.3)})
    assert words(support.run(hot, draws=50))["distill"] == "undetermined"


def test_unknown_sampler_is_named(world):
    result = support.run(
        replace(world, samplers={s: v for s, v in world.samplers.items() if s not in ("rlvr", "base")}), draws=100
    )
    want = "the sampler of rlvr is not known; give --sampler rlvr=T[,top_p[,top_k[,min_p]]]"
    want += " (greedy responses have none: draw at a temperature above 0)"
    assert result.estimates["rlvr.reach@64"].note == want and result.estimates["rlvr.sampler_inside"].note == want
    assert "sampler of base is not known" in result.estimates["distill.lost@64"].note
    assert math.isfinite(result.estimates["distill.reach@64"].value)


def test_membership_counts_exits(world):
    def cut(frame: pd.DataFrame) -> pd.DataFrame:
        hit = (frame["sample"] < 8) & (frame["model"] == "base")
        return frame.assign(
            exits=np.where(hit, 2.0, frame["exits"]),
            first_exit=np.where(hit, 5, -1),
            logprob_s=np.where(hit, -np.inf, frame["logprob_s"]),
        )

    truncated = replace(changed(world, "rlvr", cut), samplers=world.samplers | {"base": Sampler(1.0, 0.99)})
    result = support.run(truncated, draws=200)
    row = result.tables["membership"].set_index("source").loc["rlvr"]
    assert row["inside"] == 0.75 == result.estimates["rlvr.sampler_inside"].value and row["first_exit_median"] == 5
    assert row["exits_per_1000"] == pytest.approx(1000 * 8 * 2 / (SAMPLES * LENGTH))
    assert (
        "another sampler" in result.estimates["rlvr.sampler_inside"].note
        and row["reference_sampler"] == "T=1, top-p 0.99"
    )
    beyond = result.tables["reach_sampler"].query("source == 'rlvr' and k == 4096").iloc[0]
    assert beyond["share"] >= 0.25  # l = +inf where the reference's sampler could never draw the token
    assert result.estimates["base.sampler_inside"].value == 1


@pytest.mark.parametrize("share", [1, 8])
def test_traces_outside_their_own_declared_sampler(world, share):
    """A few widen the interval; many contradict the declaration, and E_k = 0 must not come of it."""

    def exit_(frame: pd.DataFrame) -> pd.DataFrame:
        hit = (frame["sample"] < share) & ((frame["problem"] < "p05") | (share > 1)) & (frame["model"] == "policy-rlvr")
        return frame.assign(logprob_s=np.where(hit, -np.inf, frame["logprob_s"]))

    estimate = support.run(changed(world, "rlvr", exit_), draws=200).estimates["rlvr.reach@64"]
    if share > 1:
        assert math.isnan(estimate.value) and estimate.note.startswith(
            "25.0% of the traces of rlvr hold a token that its declared sampler could never draw"
        )
    else:
        assert estimate.n == 763 and estimate.note.startswith("0.65% of the traces left their own declared sampler")
        assert estimate.low < estimate.value < estimate.high


def test_another_tokenizer_has_no_log_ratio(world):
    other = changed(
        world, "distill", lambda f: f.assign(n_tokens=np.where(f["model"] == "base", f["n_tokens"], f["n_tokens"] + 1))
    )
    estimate = support.run(other, draws=100).estimates["distill.reach@64"]
    assert math.isnan(estimate.value) and "log-ratios need one tokenizer" in estimate.note


def test_few_traces_leave_it_open(world):
    keep = [world.traces, world.scores]
    traces, scores = (f[f["sample"] < 4] for f in keep)
    small = replace(world, traces=traces, scores=scores)  # what was measured of all is looked at in part
    found = support.run(small, draws=200)
    got = words(found)
    # 96 traces without an event: the bound is 3 / 96 > .02
    assert got["again"] == "undetermined" and got["teacher"] == "outside"
    heads = decide({"support": found}, sources=["again"], reference="base")
    needs = next(v.needs for v in heads if v.level == "sequence")
    assert needs == "149 traces without one beyond the budget would make it inside (96 now)"
    assert got["distill"] == "outside"


def test_invariance_under_shuffling_and_renaming(world, result):
    order = np.random.default_rng(0).permutation(len(world.scores))
    renamed = world.scores.iloc[order].assign(problem=lambda f: "z" + f["problem"].str[::-1])
    other = support.run(replace(world, scores=renamed), seed=1, draws=500)
    assert words(other) == words(result)
    for name, estimate in result.estimates.items():
        assert other.estimates[name].value == pytest.approx(estimate.value, nan_ok=True), name


def test_only_the_last_step_counts(world):
    early = (
        world.scores[world.scores["source"] == "teacher"]
        .assign(source="rlvr", step=100)
        .assign(key=lambda f: f["key"] + "@100")
    )
    late = changed(world, "rlvr", lambda f: f.assign(step=300))
    stepped = replace(
        late,
        scores=pd.concat([late.scores, early.astype({"step": "Int64"})], ignore_index=True),
        traces=pd.concat([late.scores[late.scores["model"] == "base"], early.astype({"step": "Int64"})]).assign(
            characters=0
        ),
    )
    result = support.run(stepped, draws=200)
    assert words(result)["rlvr"] == "sharpened" and result.estimates["rlvr.novel@1"].n == PROBLEMS * SAMPLES
    assert any("last training step" in note and "rlvr" in note for note in result.notes)


def test_other_draws_of_the_base_are_never_outside():
    """Four worlds without a policy for `again`: a false alarm (over .01 flagged) in any has a chance far below 1e-4."""
    for seed in range(2, 6):
        world = make_world(seed)
        result = support.run(replace(world, policies={"base": "base"}), seed=seed, draws=100)
        assert words(result, ["again"]) == {"again": "undetermined"}
        assert result.estimates["again.novel@1"].value <= 0.005


def test_results_survive_json(result):
    import json

    from analyzer.records import Result

    again = Result.from_json("support", json.loads(json.dumps(result.as_json(), allow_nan=False)))
    assert decide({"support": again}, sources=["rlvr", "teacher", "cool"], reference="base") == decide(
        {"support": result}, sources=["rlvr", "teacher", "cool"], reference="base"
    )


def test_no_base_is_refused(world):
    with pytest.raises(
        UsageError, match="support needs token probabilities under the base model, none was scored; give --base MODEL"
    ):
        support.run(replace(world, base=None))


@pytest.mark.parametrize("name", list(support.FIGURES))
def test_figures_draw_and_captions_state_n(result, name):
    import matplotlib.figure

    spec = support.FIGURES[name]
    ax = matplotlib.figure.Figure().add_subplot()
    assert spec.draw(result, ax) is ax and spec.table in result.tables
    named = {"distill"} if spec.table == "hurdle_kinds" else {"again", "rlvr", "distill"}  # who has hurdles at all
    assert {t.get_text() for t in ax.get_legend().get_texts()} >= named
    assert "n = 768" in spec.caption(result)


def test_a_source_that_declares_no_sampler_counts_as_hot(world):
    """What T = 1 declared convicts may be a hotter draw of the base: without its columns there is no word."""
    bare = replace(world, samplers={s: v for s, v in world.samplers.items() if s != "teacher"})
    (head,) = [
        v for v in decide({"support": support.run(bare, draws=50)}, sources=["teacher"], reference="base") if v.headline
    ]
    assert head.word == "undetermined" and any("no sampler of teacher is declared" in w for w in head.why)
    assert tables_module.hottest(bare.samplers, "base", "teacher") == pytest.approx(1 / 0.7)
    assert tables_module.hottest(world.samplers, "base", "teacher") == 1


def test_figures_of_a_run_without_policies(world):
    import matplotlib.figure

    from analyzer.records import Result

    result = support.run(replace(world, policies={}, samplers={}), draws=50)
    for source in (result, Result.from_json("support", result.as_json())):
        for spec in support.FIGURES.values():
            assert spec.draw(source, matplotlib.figure.Figure().add_subplot()).texts and spec.caption(source)


def test_a_wrong_policy_is_noticed_by_its_own_traces(world):
    """The base declared as the model that wrote the foreign traces: log q would equal log p and say "inside"."""
    samplers = world.samplers | {"teacher": Sampler()}
    wrong = replace(world, policies=world.policies | {"teacher": "base"}, samplers=samplers)
    found = support.run(wrong, draws=200)
    reach = found.estimates["teacher.reach@64"]
    assert math.isnan(reach.value)
    assert "are foreign to base, which is said to have written them; check --policy" in reach.note
    heads = {v.source: v for v in decide({"support": found}, sources=wrong.sources, reference="base") if v.headline}
    assert heads["teacher"].word != "inside"


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_base_gives_no_verdict_at_all(world, known):
    """Every source, the reference too, looks novel under the wrong model or template: that must not convict anyone."""
    scores = world.scores.copy()
    scores.loc[scores["model"] == "base", "log_e"] += 30
    unknown = {s: v for s, v in world.samplers.items() if s != "base"} if not known else world.samplers
    found = support.run(replace(world, scores=scores, samplers=unknown), draws=200)
    verdicts = decide({"support": found}, sources=world.sources, reference="base")
    assert {v.word for v in verdicts} == {"undetermined"}
    assert all("check --base and --template" in v.why[0] for v in verdicts if v.level == "sequence")


UNTOLD = ("log_e", "excess_z", "z_masked", "entropy_mean", "near_boundary", "rank_max", "n_rank1", "n_top5")


def test_what_a_server_does_not_tell_is_unknown_to_the_analyses_and_never_a_number(world):
    """The known world without what a server does not tell (entropies, lower temperatures): reach and hurdles stay,
    novelty, its regions and what a temperature explains go."""

    def tokens(model, columns):
        for part in world.tokens(model, columns):
            told = ("token", "logprob", "rank", "offset")
            yield part.assign(**{c: None for c in columns if c not in told})

    engines = {m: e | {"powers": []} for m, e in world.engines.items()}
    scores = world.scores.assign(**{c: np.nan for c in UNTOLD if c in world.scores})
    bare = replace(world, scores=scores, tokens=tokens, engines=engines, memo={})
    whole, result = (support.run(w, budget=16, draws=50) for w in (world, bare))
    for key, estimate in result.estimates.items():
        if "novel@" in key:
            assert np.isnan(estimate.value) and estimate.n == 0 and "not known of any trace" in estimate.note
        elif "temperature_share" in key:
            assert np.isnan(estimate.value) and "no lower temperatures" in estimate.note
        elif any(f".{name}@" in key for name in ("hurdles", "hurdle_share", "hurdle_rate")):
            assert estimate.value >= whole.estimates[key].value, key  # held against fewer laws
        elif ".horizon@" in key:
            assert not estimate.value > whole.estimates[key].value, key
        else:
            assert estimate.value == whole.estimates[key].value or np.isnan(whole.estimates[key].value), key
    counts = result.tables["plane_counts"]
    regions = ["likely_side", "novel_side", "within_reach", "base_tail", "high_z", "flagged"]
    assert (counts[regions] == 0).all().all() and (counts["z_unknown"] == counts["n"]).all()
    assert any("knows log-probs, no entropies" in note for note in result.notes)
    found = decide({"support": result}, sources=world.sources, reference="base", budget=16)
    verdicts = {v.source: v for v in found if v.level == "sequence"}
    # without lower temperatures cooling alone makes hurdles: only tokens beyond k^2 are more than that; of the teacher,
    # whose log q is not known, its ranks among the base's draws are left
    assert {source: v.word for source, v in verdicts.items()} == {
        **dict.fromkeys(("cool", "rlvr"), "undetermined"),
        **{"again": "inside", "distill": "outside", "teacher": "outside"},
    }
    assert any(w.startswith("novelty by rank certified at k=16") for w in verdicts["teacher"].why)
    for v in verdicts.values():
        assert "nan" not in " ".join(v.why)
    assert any("novelty was not tested" in why for why in verdicts["teacher"].why)
    assert "log-probs of the base at lower temperatures" in verdicts["rlvr"].needs


def by_rows(world: Tables, *, without: str = "", change=lambda rows: rows) -> Tables:
    """The world without a model: the reference's rows bring their own log-probs and those under every policy, at T = 1
    and at the policy's sampler's temperature. without: a source that is left out; change: of the frames of numbers."""

    def numbers():
        own = pd.concat(f[f["source"] == "base"] for f in world.tokens("base", ["token", "logprob"]))
        own = own.rename(columns={"logprob": "logprob_q"}).reset_index(drop=True)
        laws = [{} for _ in range(len(own))]
        for source, model in world.policies.items():
            if source in ("base", without):
                continue
            for frame in world.tokens(model, ["logprob", "logprob_s"]):
                if (frame["source"] != "base").any():
                    continue
                t = world.samplers[source].temperature
                for law, one, cool in zip(laws, frame["logprob"], frame["logprob_s"], strict=True):
                    law[source, 1.0] = one
                    law[source, t] = one if cool is None or t == 1 else cool
        own = own.assign(laws=laws, written=None, logprobs_temperature=math.nan, finish="stop")
        yield change(own)

    bare = {"base": None, "policies": {}, "engines": {}, "scores": world.scores.iloc[:0], "memo": {}}
    return replace(world, **bare, policy_numbers=numbers)


def test_lost_from_rows_is_lost_from_models(world, result):
    rows = support.run(by_rows(world), draws=20)
    known = [key for key in result.estimates if ".lost@" in key and math.isfinite(result.estimates[key].value)]
    assert {key.split(".")[0] for key in known} == {"again", "cool", "rlvr", "distill"}
    for key in known:
        one, two = result.estimates[key], rows.estimates[key]
        assert (two.value, two.low, two.high) == pytest.approx((one.value, one.low, one.high), abs=1e-5), key
        assert (two.n, two.method, two.note) == (one.n, one.method, "from the log-probs that the rows bring")
    assert len(rows.tables["lost"]) == len(known) and "teacher.lost@64" not in rows.estimates
    assert not any(".reach@" in key for key in rows.estimates)  # of that these rows say nothing


def test_a_model_is_asked_for_what_was_lost_before_the_rows_are(world, result):
    lies = replace(by_rows(world), base=world.base, policies=world.policies, engines=world.engines, scores=world.scores)
    found = support.run(replace(lies, memo={}), draws=20).estimates["rlvr.lost@64"]
    assert found == result.estimates["rlvr.lost@64"]


def test_what_rows_lack_counts_against_both_ends_of_what_was_lost(world):
    def silent(rows):
        rows = rows.drop(index=range(76))  # a tenth bring nothing
        return rows.assign(logprob_q=[np.where(i < 76 + 77, np.nan, q) for i, q in rows["logprob_q"].items()])

    found, whole = (
        support.run(by_rows(world, change=c), draws=20).estimates["rlvr.lost@64"] for c in (silent, lambda x: x)
    )
    gone = (76 + 77) / 768
    assert found.n == 768 - 76 - 77 and f"{gone:.2%} of the traces lack such a number of some token" in found.note
    assert found.low < whole.low - 0.5 * gone and found.high >= min(1, whole.high) - 1e-9


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("temperature", "the log-probs of base are at temperature 0.7 without truncation"),
        ("only T=0.8", "policy_logprobs of cool are not known under T=1; they are needed at T=1 and as both"),
        ("cut", "policy_logprobs of cool are not known under T=0.8, top-p 0.9"),
    ],
)
def test_what_was_lost_is_not_told_from_numbers_of_another_law(world, case, why):
    tables = by_rows(world)
    if case == "temperature":
        tables = by_rows(world, change=lambda rows: rows.assign(logprobs_temperature=0.7))
    elif case == "cut":
        tables = replace(tables, samplers=world.samplers | {"cool": Sampler(0.8, 0.9)})
    else:
        tables = by_rows(world, change=lambda rows: rows.assign(
            laws=[{law: q for law, q in held.items() if law != ("cool", 1.0)} for held in rows["laws"]]
        ))  # fmt: skip
    found = support.run(tables, draws=20).estimates["cool.lost@64"]
    assert math.isnan(found.value) and why in found.note


def test_every_field_of_the_record_is_a_column_of_the_table(result):
    """But those that only rows with numbers of their own, a reference with a sampler of its own, or a source without
    cool laws have."""
    of_rows = {"needs", "missing_needs", "silent", "every", "short", "end_unknown"}
    of_samplers = {"reference_temperature", "reference_cuts", "s_reference", "r_low_half", "r_high_half"}
    without_cool = {"far", "far_low"}
    missing = {f.name for f in fields(record.Evidence)} - set(result.tables["evidence"].columns)
    assert missing == of_rows | of_samplers | without_cool
    found = record.read(result, "rlvr")
    assert found.source == "rlvr" and found.n == 768 and found.share == max(found.share1, found.share4)
    assert record.read(result, "base") is None and record.read(None, "rlvr") is None
