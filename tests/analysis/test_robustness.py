"""Words under variations on the known world, where the truth of every source is built in; mutants must be seen."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analysis import robustness, variations
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.contained import run as contained
from analyzer.analysis.data.summaries import summarise
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import engine, local
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.api import pipeline
from analyzer.cli import flags
from analyzer.cli.commands import build_parser
from analyzer.errors import UsageError
from analyzer.pages import methods
from analyzer.records import METHOD, Result, Sampler, Tables
from analyzer.runs.store import Run


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DRAWS = 200
OPTIONS = {"seed": 1, "draws": DRAWS}
SOURCES = ("again", "rlvr", "distill", "teacher")
WORDS = dict(zip(SOURCES, ("inside", "sharpened", "outside", "outside"), strict=True))
SCORING = set(variations.TO_SCORE)


def labelled(tables: Tables, correct: np.ndarray) -> Tables:
    """The tables with these labels, by row of `traces`."""
    right = pd.Series(pd.array(correct, dtype="boolean"), index=tables.traces["key"])
    return replace(
        tables,
        traces=tables.traces.assign(correct=right.to_numpy()),
        scores=tables.scores.assign(correct=tables.scores["key"].map(right).astype("boolean")),
    )


def only(tables: Tables, *sources: str) -> Tables:
    return variations.kept(tables, tables.traces["source"].isin(["base", *sources]).to_numpy())


def varied(tables: Tables, main: dict[str, Result]) -> Result:
    verdicts = decide(main, sources=tables.sources, reference=tables.reference)
    return robustness.run(tables, main, verdicts, **OPTIONS)


def words(result: Result, variation: str, level: str | None = None) -> dict[str, str]:
    table = result.tables["levels" if level else "headlines"]
    table = table[(table["variation"] == variation) & ((table["level"] == level) if level else True)]
    return dict(zip(table["source"], table["word"], strict=True))


@pytest.fixture(scope="module")
def world() -> Tables:
    """The known world; a trace is wrong where it is of the foreign kind, told by its "*"."""
    tables = _load("known_world").make_world()
    few = tables.traces["source"].isin(["base", *SOURCES]) & (tables.traces["problem"] < "p16")
    tables = variations.kept(tables, few.to_numpy())
    texts = tables.text_of(tables.traces["key"])
    return labelled(tables, np.array(["*" not in texts[key] for key in tables.traces["key"]]))


@pytest.fixture(scope="module")
def main(world) -> dict[str, Result]:
    return {"support": support.run(world, **OPTIONS), "boundary": boundary.run(world, seed=1, draws=50)}


@pytest.fixture(scope="module")
def found(world, main) -> Result:
    return varied(world, main)


def test_as_run_is_the_run(found):
    table = found.tables["levels"]
    assert not table.loc[table["variation"] == variations.AS_RUN, "differs"].any()
    assert words(found, variations.AS_RUN) == WORDS


def test_known_sources_keep_their_words(found):
    """What is inside stays inside, and what leaves everywhere leaves under every cut of the traces."""
    checked = found.tables["cases"].query("checked")["variation"]
    assert len(checked) >= 9
    for variation in checked:
        got = words(found, variation)
        assert got["again"] == "inside", variation
        assert got["teacher"] == ("not checked" if variation == "correct traces only" else "outside"), variation
    for variation in ("longest tenth dropped", "shortest tenth dropped", "another seed", "even samples only"):
        assert words(found, variation, "sequence")["distill"] == "outside"
        assert words(found, variation)["rlvr"] == "sharpened"


def test_novelty_in_wrong_traces_alone_is_seen(found, world):
    """All foreign traces of distill are wrong: its correct ones are base draws. The mutant labels turn that round."""
    assert words(found, "correct traces only", "sequence")["distill"] == "inside"
    heads = found.tables["headlines"].query("source == 'distill' and variation == 'correct traces only'").iloc[0]
    assert heads["differs"] and heads["main"] == "outside"
    e = found.estimates["distill.words_kept"]
    assert e.value < 1 and "correct traces only: inside" in e.note
    assert any("distill: inside (correct traces only)" in note for note in found.notes)
    two = only(world, "distill")
    two = labelled(two, ~variations.correct(two) | (two.traces["source"] == "base").to_numpy())
    turned = varied(two, {"support": support.run(two, **OPTIONS)})
    assert words(turned, "correct traces only", "sequence")["distill"] == "outside"


def test_a_source_without_a_trace_left_is_not_checked(found):
    head = found.tables["headlines"].query("source == 'teacher' and variation == 'correct traces only'").iloc[0]
    assert head["word"] == "not checked" and head["differs"] is None and head["note"]


def test_what_needs_scoring_has_a_row_with_the_command(found):
    cases = found.tables["cases"]
    open_ = set(cases.loc[~cases["checked"], "variation"])
    assert open_ >= SCORING and "without the closing token" in open_  # this world has no tokens
    assert set(found.tables["headlines"].query("word == 'not checked' and source == ''")["variation"]) == open_
    for row in cases[cases["variation"].isin(SCORING)].to_dict("records"):
        assert "analyzer report" in row["note"] and "-o OTHER" in row["note"]
        assert any(note.startswith("Not checked: ") and row["variation"] in note for note in found.notes)


def test_tolerances_are_those_of_decide(found, main, world):
    for name, tau in (("tolerance doubled", 0.04), ("tolerance halved", 0.01)):
        want = decide(main, sources=world.sources, reference="base", tau=tau)
        assert words(found, name) == {v.source: v.word for v in want if v.headline}


def test_without_labels_or_scores_it_is_said(world):
    bare = replace(
        world,
        traces=world.traces.assign(correct=pd.array([None] * len(world.traces), dtype="boolean")),
        scores=world.scores.iloc[:0],
        base=None,
        policies={},
    )
    result = robustness.run(bare, {}, decide({}, sources=bare.sources, reference="base"), **OPTIONS)
    notes = dict(zip(result.tables["cases"]["variation"], result.tables["cases"]["note"], strict=True))
    assert "no trace is known to be correct" in notes["correct traces only"]
    assert "--base MODEL" in notes["without the closing token"]
    with pytest.raises(UsageError, match="one source"):
        robustness.run(variations.kept(bare, (bare.traces["source"] == "base").to_numpy()), {}, [])


def test_what_a_variation_computes_is_what_the_analyses_compute(world):
    """Of parts of the traces, with skeletons and classes made once of all of them; without what no word is made of."""
    two = only(world, "distill", "rlvr")
    skeletons, classes = strategy.skeletons(two), contained.classes(two)
    for part in (two, variations.kept(two, variations.halves(two) == 0)):
        whole = strategy.run(part, seed=1, permutations=1, at_most=0).tables["strategy_test"]
        whole = whole[whole["representation"].isin(METHOD) & (whole["k"] == 64)].reset_index(drop=True)
        got = strategy.certifying(part, skeletons, [64], 1).tables["strategy_test"]
        pd.testing.assert_frame_equal(got, whole)
        whole = boundary.run(part, draws=50).tables["answer_test"]
        pd.testing.assert_frame_equal(boundary.certifying(part, 64).tables["answer_test"], whole)
        whole = contained.run(part).tables["levels"]
        drawn = ["low", "high", "method"]
        got = contained.bounds(part, classes, 64).tables["levels"]
        pd.testing.assert_frame_equal(got.drop(columns=drawn), whole.drop(columns=drawn))


def test_long_texts_are_no_copies_in_a_variation(make_tables):
    """Each draw a long text of its own: the reference's draws count one by one, as they do in the run."""
    rows = [
        {"source": s, "problem": f"p{p}", "sample": i, "correct": right, "answer": f"{p}" if right else f"no {i}"}
        | {"finish": "stop", "response": f"{s} {p} {i} " + "word " * 50}
        for s, right in (("base", False), ("new", True))
        for p in range(6)
        for i in range(16)
    ]
    tables = make_tables(rows, base=None)
    main = {"boundary": boundary.run(tables, budget=4, draws=50)}
    verdicts = decide(main, sources=tables.sources, reference="base", budget=4)
    result = robustness.run(tables, main, verdicts, budget=4, draws=50)
    for variation in (variations.AS_RUN, "longest tenth dropped", "even samples only"):
        assert words(result, variation, "correct") == {"new": "outside"}, variation


def test_a_failed_gate_stays_failed(world):
    checks = pd.DataFrame(
        [
            {
                "check": "prompts",
                "source": "rlvr",
                "value": 1.0,
                "limit": 0.0,
                "passed": False,
                "gates": True,
                "note": "another prompt",
            }
        ]
    )
    two = only(world, "rlvr")
    main = {"support": support.run(two, **OPTIONS), "preflight": Result("preflight", "", {}, {"checks": checks})}
    result = varied(two, main)
    assert words(result, "longest tenth dropped") == {"rlvr": "undetermined"}
    assert words(result, "another seed") == {"rlvr": "sharpened"}  # for which the checks are run again: they pass


def test_cuts_drop_no_more_than_a_tenth_of_a_source_and_halves_share_nothing(world):
    rng = np.random.default_rng(0)
    size = rng.choice([5, 6, 7, 50], len(world.traces), p=[0.3, 0.3, 0.3, 0.1])
    tables = replace(world, traces=world.traces.assign(characters=size))
    for longest in (True, False):
        keep = variations.length_cut(tables, longest=longest)
        dropped = pd.Series(~keep).groupby(tables.traces["source"].to_numpy()).mean()
        assert (dropped <= variations.TAIL).all()
        assert size[keep].max() == 50 if not longest else size[~keep].min(initial=50) == 50
    assert variations.length_cut(replace(tables, traces=tables.traces.assign(characters=1)), longest=True).all()
    half = variations.halves(world.traces.pipe(lambda t: replace(world, traces=t.sample(frac=1, random_state=0))))
    assert np.bincount(half).tolist() == [len(world.traces) // 2] * 2


def test_the_engine_floor_moves_by_the_factor(world):
    own = world.scores[world.scores["model"] == "base"].set_index("key")["logprob"]
    rng = np.random.default_rng(0)
    tables = replace(
        world,
        traces=world.traces.assign(
            logprob_generated=world.traces["key"].map(own) + rng.normal(0, 0.5, len(world.traces)),
            n_generated=world.traces["key"].map(world.scores.groupby("key")["n_tokens"].first()),
        ),
    )
    before, doubled, halved = (
        engine.floors(t).set_index("source")["k_min"].dropna()
        for t in (tables, variations.noise(tables, 2.0), variations.noise(tables, 0.5))
    )
    assert {"base", "again"} <= set(before.index)
    at = ["base", "again"]  # scored under the model that the noise was put on
    assert doubled[at].to_numpy() == pytest.approx(2 * before[at].to_numpy())
    assert halved[at].to_numpy() == pytest.approx(np.maximum(before[at].to_numpy() / 2, 1))


@pytest.fixture(scope="module")
def closed():
    """Six traces under base and a policy, token by token; four end in token 9 behind their text. Tables and columns."""
    build = _load("conftest").build
    rng, rows = np.random.default_rng(0), []
    for i in range(6):
        n = int(rng.integers(3, 9))
        models = {}
        for model in ("base", "policy-a"):
            s = rng.exponential(1.0, n)
            models[model] = {
                "token": np.r_[rng.integers(0, 9, n - 1), 9 if i < 4 else 3],
                "offset": np.arange(n) * 2 if i < 4 else np.arange(n),
                "logprob": -s,
                "entropy": rng.exponential(1.0, n),
                "varentropy": rng.exponential(1.0, n),
                "renyi_half": rng.exponential(1.0, n),
                "logprob_s": np.where(rng.random(n) < 0.2, -np.inf, -s) if model == "policy-a" else None,
            }
            models[model] = {k: v for k, v in models[model].items() if v is not None}
        text = "x " * (n - 1) if i < 4 else "y" * n  # of the open ones the last token has a text
        rows.append(
            {"source": "a" if i % 2 else "base", "problem": "p", "sample": i, "response": text, "models": models}
        )
    samplers = {"base": Sampler(), "a": Sampler(0.6)}
    return build(rows, policies={"base": "base", "a": "policy-a"}, samplers=samplers), rows


def test_without_the_closing_token_the_sums_are_those_of_the_rest(closed):
    tables, rows = closed
    shorter, counts = variations.without_end(variations.last(tables), tables.tokens)
    assert counts.to_dict() == {"base": 2, "a": 2}
    after = shorter.scores.set_index(["model", "key"])
    for row in rows:
        key = f"{row['source']}/p/{row['sample']}"
        for model, columns in row["models"].items():
            sampler = Sampler(0.6) if model == "policy-a" else Sampler()
            cut = {k: v[:-1] if columns["token"][-1] == 9 else v for k, v in columns.items()}
            want, got = summarise(cut, sampler=sampler), after.loc[(model, key)]
            names = ("n_tokens", "logprob", "nll_mean", "excess_z", "log_e", "nll_masked_mean", "logprob_s", "exits")
            for name in names:
                assert got[name] == pytest.approx(want[name], nan_ok=True), (key, model, name)


def test_without_a_policy_there_is_no_trace_to_hold_without_its_closing_token(closed):
    tables = replace(closed[0], policies={}, memo={})
    measured = local.measured(tables, 64)
    assert measured.frame.empty and "local@64" in tables.memo
    shorter, counts = variations.without_end(tables, tables.tokens)
    assert counts.to_dict() == {"base": 2, "a": 2} and local.measured(shorter, 64).frame.empty


def test_a_closing_id_is_told_by_its_id_where_the_scorer_appended_it(closed):
    tables, _ = closed
    engines = {"base": {"eos": 3}, "policy-a": {"eos": 3}}
    _, counts = variations.without_end(replace(tables, engines=engines), tables.tokens)
    assert counts.to_dict() == {"base": 1, "a": 1}


def test_the_figure_and_json(found):
    again = Result.from_json("robustness", json.loads(json.dumps(found.as_json(), allow_nan=False)))
    for result in (found, again):
        spec = robustness.FIGURES["words"]
        ax = matplotlib.figure.Figure(layout="constrained").add_subplot()
        assert spec.draw(result, ax) is ax and "(n = " in spec.caption(result)
        assert "distill under correct traces only" in spec.caption(result)


def test_the_grid_of_the_report_names_what_changed(found):
    grid = methods.varied({"analyses": {"robustness": json.loads(json.dumps(found.as_json()))}})
    rows = {row[0]: dict(zip(grid.columns, row, strict=True)) for row in grid.rows}
    assert list(rows) == list(variations.NAMES)
    assert rows["correct traces only"]["distill"] == "INSIDE (was outside)"
    assert rows["as run"] == {"variation": "as run", "traces": "2,560"} | WORDS
    assert set(rows["BOS"].values()) == {"BOS", "\N{EN DASH}", "not checked"}
    assert any(note.startswith("correct traces only: conditional on a correct answer") for note in grid.notes)


def test_it_can_be_left_out_and_the_report_says_so(tmp_path):
    for source, right in (("base", 0), ("rl", 1)):
        rows = [
            {"problem": f"p{p}", "sample": i, "prompt": "?", "response": f"{p} + {i}", "correct": bool((i + right) % 2)}
            for p in range(3)
            for i in range(4)
        ]
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / f"{s}.jsonl") for s in ("base", "rl")])
    arguments = build_parser().parse_args(["report", "x", "-o", "y", "--no-robustness"])
    options = flags.given(arguments, "report")
    assert options == {"robustness": False}
    done = pipeline.report(run, tmp_path / "out", **options)
    assert "robustness" not in done.results and "paired" in done.results
    assert {"analysis": "robustness", "why": "it was not asked for (--no-robustness)"} in done.left_out
