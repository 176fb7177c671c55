"""The worlds, the bands, the resampling, the page and the command: everything of the suite that is not a gate."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.data.summaries import SUMMARY_COLUMNS, summarise
from analyzer.errors import UsageError
from analyzer.stats import reach
from validation import __main__ as command
from validation import checks, miniature, pages, suite, worlds


def world(problems: int = 6, seed: int = 0) -> worlds.World:
    return worlds.make(np.random.default_rng(seed), problems)


def test_exact_probabilities_sum_to_one_over_all_first_tokens():
    """E_P[q / p] = 1 for every mixture: the mean weight of base draws, within 5 standard errors (1e-6)."""
    w = world(4)
    rng = np.random.default_rng(1)
    drawn = worlds.draw(w, rng, 4000, weights=worlds.teacher(w, 0.5))
    ratio = np.exp(drawn.log_p - drawn.log_q)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))


def test_every_bounded_world_keeps_its_ratio():
    w, rng = world(20), np.random.default_rng(2)
    least = w.pass_rate.min()
    for weights, bound in (
        (worlds.tilt(w, 0.2), 1 / least),
        (worlds.correct_only(w), 1 / least),
        (worlds.best_of(w, 16), 16),
        (worlds.teacher(w, 0.3), np.inf),
    ):
        drawn = worlds.draw(w, rng, 50, weights=weights)
        assert np.allclose(weights.sum(1), 1) and (drawn.log_q - drawn.log_p).max() <= np.log(bound) + 1e-9
    assert np.nanmean(reach.excess(drawn.log_q - drawn.log_p, 64)) > 0.2


def test_temperature_keeps_log_p_and_lowers_surprisal():
    w, rng = world(), np.random.default_rng(3)
    plain, cool = worlds.draw(w, rng, 200), worlds.draw(w, rng, 200, temperature=0.5)
    assert np.allclose(plain.log_p, plain.log_q)
    assert cool.log_p.mean() > plain.log_p.mean() and cool.log_q.mean() > cool.log_p.mean()


def test_lengths_vary_and_the_longer_source_is_longer():
    w, rng = world(), np.random.default_rng(4)
    plain, longer = worlds.draw(w, rng, 100), worlds.draw(w, rng, 100, stop=worlds.longer(w))
    assert plain.length.min() >= worlds.SHORTEST and plain.length.std() > 2
    assert longer.length.mean() > plain.length.mean() + 1
    assert (plain.tokens[np.arange(len(plain.length)), plain.length - 1] == worlds.END).all()


def test_summaries_are_those_of_the_package():
    """Equal to `summarise` on the same token columns, where nothing is copied (no 30-gram repeats in 28 tokens)."""
    w = world()
    drawn = worlds.draw(w, np.random.default_rng(5), 5, weights=worlds.teacher(w, 0.5))
    ours = worlds.summaries(drawn)
    for i in range(len(drawn.length)):
        n = drawn.length[i]
        columns = {name: value[i, :n] for name, value in drawn.columns.items()} | {"token": drawn.tokens[i, :n]}
        found = summarise(columns, ngram=30)
        for name, value in found.items():
            if not np.isnan(value):
                assert ours[name][i] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_tables_have_the_columns_of_a_run():
    w = world()
    rng = np.random.default_rng(6)
    found = worlds.tables({"base": worlds.draw(w, rng, 3), "s": worlds.draw(w, rng, 2)}, unknown=("s",))
    assert found.sources == ["base", "s"] and set(SUMMARY_COLUMNS) <= set(found.scores.columns)
    assert found.policies == {"base": "base"} and "s" not in found.samplers and found.samplers["base"].is_plain
    assert found.traces["key"].is_unique and len(found.traces) == 30


def test_bands_hold_true_claims():
    for p, runs in ((0.05, 200), (0.9, 40), (0.5, 1000)):
        low, high = checks.band(p, p, runs)
        hits = np.random.default_rng(0).binomial(runs, p, 100_000) / runs
        assert ((hits < low) | (hits > high)).mean() < 4e-4 and low < p < high
    assert checks.band(0, 0, 50) == (0, 0) and checks.band(0, 1, 50) == (0, 1)


def test_short_of_the_claim_but_inside_the_band_is_marked():
    assert (
        checks.share("V4", "x", 93, 100, at_least=0.95).noise and checks.share("V4", "x", 93, 100, at_least=0.95).passed
    )
    for hits, claim in ((96, {"at_least": 0.95}), (5, {"at_least": 0.05, "at_most": 0.05}), (10, {"at_least": 0.95})):
        assert not checks.share("V4", "x", hits, 100, **claim).noise


def test_a_check_without_a_value_fails_and_a_mutant_without_a_value_escapes():
    assert not checks.number("V0", "x", np.nan, 0, 1, 1).passed
    assert not checks.number("V0", "x", 0.5, 0, 1, 1, mutant=("m", np.nan)).mutant.caught
    good = checks.number("V0", "x", 0.5, 0, 1, 1, mutant=("m", 2))
    assert good.mutant.caught and checks.passed([checks.Gate([good], {})])
    assert not checks.passed([checks.Gate([good._replace(mutant=None)], {})])  # a gate without a mutant proves nothing
    assert not checks.passed([checks.Gate([good, good._replace(passed=False)], {})])


def test_resampling_keeps_three_quarters_and_no_trace_twice():
    w = world(8)
    rng = np.random.default_rng(7)
    tables = worlds.tables({"base": worlds.draw(w, rng, 12), "s": worlds.draw(w, rng, 8)})
    part = miniature.resampled(tables, rng)
    sizes = part.traces.groupby(["source", "problem"]).size()
    assert part.traces["problem"].nunique() == 6 and set(sizes["base"]) == {9} and set(sizes["s"]) == {6}
    assert set(part.scores["key"]) == set(part.traces["key"]) and part.traces["key"].is_unique


def test_truths_are_read_and_allowed_words_only(tmp_path):
    rows = {
        "base": {"truth": {"sequence": ["inside"]}},
        "s": {"truth": {"sequence": ["outside"], "answer": ["inside"]}},
    }
    (tmp_path / "truths.json").write_text(json.dumps({"sources": rows}))
    assert miniature.truths(tmp_path) == {"s": {"sequence": ("outside",), "answer": ("inside",)}}
    with pytest.raises(UsageError, match="truths.json"):
        miniature.truths(tmp_path / "none")


def test_unknown_gates_are_named():
    with pytest.raises(UsageError, match="V16"):
        suite.chosen(["V16"], fast=True)
    assert set(suite.chosen(["V0"], fast=True)) == {"closed forms"}
    worlds_of = {fast: {t.world for t in suite.chosen(None, fast=fast).values()} for fast in (False, True)}
    assert worlds_of == {False: {"", "miniature", "second"}, True: {""}}


def test_gates_do_not_depend_on_which_others_run():
    alone = suite.run_task("closed forms", 3, fast=True)[1]
    among = {name: gate for name, gate, _ in suite.run_all(["oracles", "closed forms"], 3, fast=True, workers=1)}
    assert among["closed forms"].checks == alone.checks


def test_the_page_shows_failures_and_escaped_mutants(tmp_path):
    good = checks.share("V1", "size", 5, 100, at_least=0.05, at_most=0.05, mutant=("wrong|way", 90))
    bad = checks.number("V4", "bias", 0.5, 0, 0.01, 10, mutant=("harmless", 0.0))
    gate = checks.Gate([good, bad], {"ecdf": checks.ecdf("t", np.linspace(0.01, 1, 100))})
    meta = {"seed": 1, "suite": "fast", "command": "c", "versions": {"python": "3"}}
    meta["spent"] = {"size": 1.5}
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "recorded.md").write_text("## Measured once\n\nby hand\n")
    rows = [
        {"source": "s", "level": "sequence", "truth": "inside or sharpened", "whole": "outside", "word": w}
        for w in ("inside", "sharpened", "outside")
    ]
    gate.curves["second"] = [r | {"count": 2, "runs": 6} for r in rows]
    paths = pages.write([gate], tmp_path, meta=meta | {"missing": ["V11: not here"]})
    text = (tmp_path / "validation.md").read_text()
    assert "2 checks, 1 passed; 2 mutants, 1 escaped" in text and "**Not run:** V11" in text
    assert "- V4: bias: 0.5, band [0, 0.01]" in text and "mutant 'harmless' escaped" in text and "wrong\\|way" in text
    assert {p.name for p in paths} == {
        "validation.md",
        "gates.csv",
        *(f"{n}.{x}" for n in ("ecdf", "second") for x in ("svg", "csv")),
    }
    assert "| s | sequence | inside or sharpened | **outside** | 2 | 2 |  | **2** |  | 6 |" in text
    assert text.endswith("## Measured once\n\nby hand\n") and "size 2." in text
    assert len(pd.read_csv(tmp_path / "validation" / "gates.csv")) == 2
    assert str(tmp_path) not in text and not (tmp_path / "validation" / "ecdf.pdf").exists()


def test_command_returns_the_outcome(tmp_path, capsys):
    assert command.main(["--fast", "--gates", "V0", "--workers", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("pass V0") == 11 and "all passed: 11 checks" in out
    assert (tmp_path / "validation.md").exists()
    assert command.main(["--gates", "V99"]) == 2


def test_a_task_that_breaks_off_fails_and_stops_no_other(monkeypatch, capsys):
    def broken(rng, runs):
        raise KeyError("sample")

    first, second = "solved sets", "budget test"
    monkeypatch.setitem(suite.TASKS, first, suite.TASKS[first]._replace(function=broken))
    done = {name: gate for name, gate, _ in suite.run_all([first, second], 0, fast=True, workers=1)}
    [check] = done[first].checks
    assert not check.passed and check.name == suite.TASKS[first].serves[0] and "KeyError: 'sample'" in check.what
    assert not checks.passed(list(done.values())) and done[second].checks
    assert "KeyError" in capsys.readouterr().err
