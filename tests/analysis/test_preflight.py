"""The preflight on the known world: clean inputs pass, every spoilt one fails its own check, and A/A never alarms."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analysis import primary
from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import engine
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.records import Result, Sampler, Tables

spec = importlib.util.spec_from_file_location("known_world", Path(__file__).with_name("known_world.py"))
known_world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(known_world)

GATES = {"base", "prompts", "engine", "tokens", "policy", "declared", "A/A"}
SILENT = SimpleNamespace(skeletons=lambda tables: None, certifying=lambda *given: Result("strategy", ""))
ENGINE = {"dtype": "float32", "device": "cpu", "eos": None, "path": "shared"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Strategies are most of the cost and have no part in what these tests look at; the A/A tests put them back."""
    monkeypatch.setattr(preflight, "strategy", SILENT)


def generated(world: Tables, *, sd: float = 0.0, seed: int = 0) -> Tables:
    """The world with generation-time log-probs that miss the scored ones by N(0, sd^2) per token."""
    models = {s: m for s, m in world.policies.items()}
    own = pd.concat([world.scores.query("model == @m and source == @s") for s, m in models.items()])
    noise = np.random.default_rng(seed).normal(0, sd * np.sqrt(known_world.LENGTH), len(own))
    columns = own[["key"]].assign(logprob_generated=own["logprob"] + noise, n_generated=own["n_tokens"])
    traces = world.traces.merge(columns, on="key", how="left")
    return replace(world, traces=traces.assign(n_generated=traces["n_generated"].fillna(0)))


@pytest.fixture(scope="module")
def world() -> Tables:
    world = known_world.make_world()
    engines = {m: known | ENGINE for m, known in world.engines.items()}
    return replace(generated(world, sd=1e-6), engines=engines)


@pytest.fixture(scope="module")
def result(world):
    return preflight.run(world, seed=1, draws=200)


def failed(result: Result) -> set[tuple[str, str]]:
    table = result.tables["checks"]
    return {(r["check"], r["source"]) for r in table[table["passed"].eq(False)].to_dict("records")}


def test_a_clean_run_passes(result):
    table = result.tables["checks"]
    rows_bring_none, one_prompt = {"agreed", "laws", "redrawn"}, {"seams"}
    assert not failed(result) and set(table["check"]) == set(preflight.WORDS) - rows_bring_none - one_prompt
    assert set(table.loc[table["gates"], "check"]) == GATES
    assert result.estimates["k_min"].value == pytest.approx(1, abs=1e-3)
    assert list(table.columns) == ["check", "source", "value", "limit", "passed", "gates", "note"]
    open_ = table[table["passed"].isna()]
    # the teacher's model is unknown
    assert set(map(tuple, open_[["check", "source"]].values)) == {("engine floor", "teacher")}
    assert any("Could not be checked" in n for n in result.notes)
    assert result.estimates["rlvr.truncated"].value == 0 < result.estimates["rlvr.truncated"].high
    assert result.estimates["rlvr.masked_share"].value == 0


def spoil(world: Tables, where: str, **columns) -> Tables:
    rows = world.scores.eval(where)
    return replace(world, scores=world.scores.assign(**{k: f(world.scores, rows) for k, f in columns.items()}))


def lift(frame: pd.DataFrame, rows: pd.Series) -> pd.Series:
    return frame["log_e"].where(~rows, frame["log_e"].fillna(0) + 30)


def spoilt(world: Tables) -> dict[tuple[str, str], Tables]:
    """Check and source -> a world in which exactly that check fails."""
    other_dtype = world.engines | {"policy-rlvr": world.engines["policy-rlvr"] | {"dtype": "bfloat16"}}
    said = world.traces["logprob_generated"].mask(world.traces["source"] == "rlvr")
    silent = world.traces.assign(logprob_generated=said)
    cut = world.traces["finish"].mask(world.traces.eval("source == 'cool' and sample < 5"), "length")
    return {
        ("engine", "rlvr"): replace(world, engines=other_dtype),
        ("tokens", "rlvr"): spoil(
            world,
            "model == 'policy-rlvr' and source == 'rlvr' and sample == 0",
            n_tokens=lambda f, rows: f["n_tokens"] + rows,
        ),
        ("prompts", "cool"): spoil(
            world,
            "source == 'cool' and problem == 'p03'",
            prompt_hash=lambda f, rows: f["prompt_hash"].mask(rows, "other"),
        ),
        ("base", ""): spoil(world, "model == 'base' and source == 'base' and sample < 3", log_e=lift),
        ("policy", "rlvr"): spoil(world, "model == 'policy-rlvr' and source == 'rlvr' and sample < 3", log_e=lift),
        # wrong towards low surprisal, which no e-value sees: the sharp policy's traces said to be the base's
        ("declared", "rlvr"): replace(world, policies=world.policies | {"rlvr": "base"}, traces=silent),
        ("declared", "distill"): spoil(
            world,
            "model == 'policy-distill' and source == 'distill'",
            excess_s=lambda f, rows: f["excess_s"].where(~rows, f["excess_s"] + 0.3 * f["variance_s"]),
        ),
        ("sampler", "rlvr"): spoil(
            world,
            "model == 'policy-rlvr' and source == 'rlvr' and sample < 3",
            logprob_s=lambda f, rows: f["logprob_s"].mask(rows, -np.inf),
        ),
        ("truncated", "cool"): replace(world, traces=world.traces.assign(finish=cut)),
        ("masked", "cool"): spoil(world, "source == 'cool'", n_copied=lambda f, rows: f["n_copied"].mask(rows, 2)),
    }


@pytest.mark.parametrize(
    "name",
    [
        ("engine", "rlvr"),
        ("tokens", "rlvr"),
        ("prompts", "cool"),
        ("base", ""),
        ("policy", "rlvr"),
        ("declared", "rlvr"),
        ("declared", "distill"),
        ("sampler", "rlvr"),
        ("truncated", "cool"),
        ("masked", "cool"),
    ],
    ids="-".join,
)
def test_each_check_finds_its_own_fault(world, name):
    found = preflight.run(spoilt(world)[name], draws=50)
    # a foreign reference is foreign in both halves, and its novelty certifies "outside"
    assert failed(found) == {name} | ({("A/A", "")} if name[0] == "base" else set())
    row = next(r for r in found.tables["checks"].to_dict("records") if (r["check"], r["source"]) == name)
    assert row["gates"] == (name[0] in GATES) and abs(row["value"]) > row["limit"]
    assert any(preflight.WORDS[name[0]] in note for note in found.notes)
    verdicts = decide(
        {"preflight": found, "support": support.run(world, draws=100)}, sources=world.sources, reference="base"
    )
    open_ = {v.source for v in verdicts if v.headline and v.why[0].startswith("no verdict")}
    everyone = {"again", "cool", "rlvr", "distill", "teacher"}
    assert open_ == (set() if name[0] not in GATES else {name[1]} if name[1] else everyone)
    assert all(v.word == "undetermined" for v in verdicts if v.source in open_)


def declared(excess: list[float], variance: list[float], *, sampler: bool = True) -> dict:
    under = pd.DataFrame({"excess_s": excess, "variance_s": variance})
    return preflight._declared(under, "s", "policy-s", sampler)


def test_a_declaration_is_held_to_the_surprisal_from_both_sides():
    """z = sum(excess) / sqrt(sum(variance)) over all traces, against 2.81; excess / variance: how far off 1 / T is."""
    for sign in (-1, 1):
        row = declared([sign * 3.0] * 25, [4.0] * 25)  # 75 / 10
        assert row["value"] == pytest.approx(sign * 7.5) and row["passed"] is False and row["limit"] == 2.81
        assert f"as if 1 / T were off by {-0.75 * sign:+.3f}" in row["note"]
        assert f"surprisal {'too low' if sign < 0 else 'too high'}" in row["note"] and "--policy s=MODEL" in row["note"]
    assert declared([-2.8] * 4, [4.0] * 4)["passed"] and not declared([-2.82] * 4, [4.0] * 4)["passed"]
    # one rare token makes a large z and a small t: no wrong declaration
    rare = declared([9.0, *[-0.05] * 39], [0.2] * 40)
    assert rare["passed"] and not declared([0.25] * 40, [0.2] * 40)["passed"]
    # a smaller deviation of 1 / T than SHIFT is precision, however many traces show it
    near, far = (declared([factor * engine.SHIFT * 100] * 1000, [100.0] * 1000) for factor in (0.95, 1.05))
    assert near["value"] > 2.81 and near["passed"] and not far["passed"]
    # what the sampler could not have drawn is another check's; unknown is not checked
    assert declared([np.inf, 2.0, 2.0, np.nan], [1.0, 2.0, 2.0, 1.0])["value"] == 2
    for row in (
        declared([np.nan] * 2, [1.0] * 2),
        declared([], []),
        declared([0.0] * 2, [0.0] * 2),
        declared([1.0], [1.0]),
    ):
        assert row["passed"] is None and "entropies under its own sampler are not known" in row["note"]
    assert "the sampler is not known" in declared([9.0], [1.0], sampler=False)["note"]


def test_true_declarations_pass_at_their_rate():
    """80 checks at .005 (problems differ, and so do their entropies): more than 4 alarms have a chance
    below 1e-4; so has a spread of z off 1 by more than .35."""
    found = []
    for seed in range(20):
        world = known_world.make_world(100 + seed)
        for source, policy in world.policies.items():
            if source == "again":
                continue
            under = world.scores.query("model == @policy and source == @source")
            found.append(preflight._declared(under, source, policy, True)["value"])
    assert len(found) == 80 and (np.abs(found) > engine.Z_MOST).sum() <= 4
    assert np.std(found) == pytest.approx(1, abs=0.35) and abs(np.mean(found)) < 4.5 / math.sqrt(80)


def test_an_alarm_on_the_base_itself_is_a_failed_gate(monkeypatch):
    """Half of the A/A traces made foreign after the split: the gate must be able to fail."""
    world = known_world.make_world()
    honest = preflight.halved

    def foreign_half(tables: Tables, *, seed: int) -> Tables:
        half = honest(tables, seed=seed)
        rows = half.scores["source"] != "base"
        return replace(
            half,
            scores=half.scores.assign(
                log_e=half.scores["log_e"] + 30 * rows, logprob=half.scores["logprob"] - 60 * rows
            ),
        )

    monkeypatch.setattr(preflight, "halved", foreign_half)
    found = preflight.run(world, draws=200)
    assert failed(found) == {("A/A", "")} and found.tables["a_a"].set_index("level").loc["sequence", "certified"]
    row = found.tables["checks"].iloc[-1]
    assert row["note"].endswith("against 384: sequence")


def test_a_a_never_alarms(monkeypatch):
    """20 worlds (strategies, the slow part, in every fifth): a false "outside" needs p <= .0167 for both E_64 > .02 and
    a novel share > .01 of draws of one model; the chance of any is far below 1e-4."""
    for seed in range(20):
        monkeypatch.setattr(preflight, "strategy", SILENT if seed % 5 else strategy)
        found = preflight.run(known_world.make_world(seed), seed=seed, draws=100)
        a_a = found.tables["a_a"]
        assert not a_a["certified"].any() and a_a.set_index("level").loc["sequence", "p"] == 1
        assert ("A/A", "") not in failed(found)


def test_halves_are_halves_by_problem_and_of_the_reference_alone(world):
    half = preflight.halved(world, seed=3)
    assert half.sources == ["base", "base (A/A)"] and set(half.scores["model"]) == {"base"}
    sizes = half.traces.groupby(["source", "problem"]).size()
    assert (sizes == known_world.SAMPLES / 2).all() and half.traces["key"].is_unique
    assert (half.scores.set_index("key")["source"] == half.traces.set_index("key")["source"]).all()
    again, other = preflight.halved(world, seed=3), preflight.halved(world, seed=4)
    assert (again.traces["source"] == half.traces["source"]).all()
    assert (other.traces["source"] != half.traces["source"]).any()


@pytest.mark.parametrize("sd", [0.05, 0.5, 2.0])
def test_engine_noise_raises_the_floor_and_never_convicts(world, sd):
    """l0 ~ N(0, sd^2 T): q99 of |l0| = 2.58 sd sqrt(T); with 4,600 traces its error is below a tenth."""
    noisy = replace(generated(known_world.make_world(), sd=sd), engines=world.engines)
    found = preflight.run(noisy, draws=50)
    want = math.exp(2.576 * sd * math.sqrt(known_world.LENGTH))
    assert math.log(found.estimates["k_min"].value) == pytest.approx(math.log(want), rel=0.12)
    # the same noise in the scores of the policies, where it can fake a reach
    rng = np.random.default_rng(1)
    rows = noisy.scores["model"] != "base"
    shift = rows * rng.normal(0, sd * math.sqrt(known_world.LENGTH), len(rows))
    spoilt = replace(noisy, scores=noisy.scores.assign(logprob_s=noisy.scores["logprob_s"] + shift))
    reach = support.run(spoilt, draws=200)
    floor = engine.k_min(engine.floors(spoilt), "base", "cool")
    for row in reach.tables["reach"].query("source == 'cool'").to_dict("records"):
        assert math.isnan(row["share"]) == engine.below(row["k"], floor)
        assert not math.isnan(row["share"]) or "below the engine floor" in row["note"]
    words = {
        v.source: v.word
        for v in decide({"preflight": found, "support": reach}, sources=["again", "cool"], reference="base")
        if v.level == "sequence"
    }
    assert "outside" not in words.values()
    if floor > 64 * engine.SLACK:
        assert words["cool"] == "undetermined"


def test_the_floor_needs_the_same_tokens(world):
    longer = replace(world, traces=world.traces.assign(n_generated=world.traces["n_generated"] + 1))
    table = engine.floors(longer)
    assert table["k_min"].isna().all() and "counts other tokens" in table["note"].iloc[0]
    assert math.isnan(preflight.run(longer, draws=50).estimates["k_min"].value)
    assert not engine.below(64, math.nan)


def test_without_a_model_what_can_be_checked_is(world):
    bare = replace(world, scores=world.scores.iloc[:0], base=None, policies={})
    found = preflight.run(bare, draws=50)
    table = found.tables["checks"].set_index(["check", "source"])["passed"]
    assert table["truncated", "rlvr"] is True and table["base", ""] is None
    assert not failed(found)


def test_names_and_order_change_no_check(world, result):
    order = np.random.default_rng(0).permutation(len(world.traces))
    rename = {p: "z" + p[::-1] for p in world.traces["problem"].unique()}
    other = replace(
        world,
        traces=world.traces.iloc[order].assign(problem=lambda f: f["problem"].map(rename)),
        scores=world.scores.sample(frac=1, random_state=1).assign(problem=lambda f: f["problem"].map(rename)),
    )
    again = preflight.run(other, seed=1, draws=200).tables["checks"]
    columns = ["check", "source", "passed", "gates"]
    a, b = (t[columns].sort_values(columns[:2]).values.tolist() for t in (again, result.tables["checks"]))
    assert a == b


def test_hot_samplers_are_not_checked(world):
    hot = replace(world, samplers=world.samplers | {"rlvr": Sampler(1.5)})
    table = preflight.run(hot, draws=50).tables["checks"].set_index(["check", "source"])["passed"]
    assert table["policy", "rlvr"] is None and table["policy", "cool"] is True


def test_survives_json_and_draws(result):
    again = Result.from_json("preflight", json.loads(json.dumps(result.as_json(), allow_nan=False)))
    for found in (result, again):
        for figure in preflight.FIGURES.values():
            ax = matplotlib.figure.Figure().add_subplot()
            assert figure.draw(found, ax) is ax and "n = 4,608 traces" in figure.caption(found)
    assert (
        failed(again) == set()
        and again.tables["checks"]["passed"].isna().sum() == result.tables["checks"]["passed"].isna().sum()
    )


def test_primary_endpoints_of_missing_analyses_count_as_one():
    found = primary.endpoints({}, "s", 64)
    assert all(math.isnan(e.p) and e.p_holm == 1 and not e.certified for e in found.values())
