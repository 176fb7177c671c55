"""Boundary on hand-made traces: counts in, the papers' numbers out, and what is said where there is no number."""

from __future__ import annotations

import json
import math

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.boundary import answers
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.data.tables import in_memory
from analyzer.analysis.verdict.decide import decide
from analyzer.records import Result, Tables
from analyzer.stats import passk
from analyzer.stats.coverage import CELLS


def traces(
    source: str,
    counts: dict[str, tuple[int, int]],
    *,
    group: dict[str, str] | None = None,
    step: int | None = None,
    unknown: int = 0,
) -> pd.DataFrame:
    """counts: problem -> (n, c); the first c samples are correct ("right PROBLEM"); `unknown` more lack `correct`."""
    rows = []
    for problem, (n, c) in counts.items():
        for sample in range(n + unknown):
            correct = None if sample >= n else sample < c
            rows.append(
                {
                    "key": f"{source}/{problem}/{sample}" + ("" if step is None else f"@{step}"),
                    "source": source,
                    "problem": problem,
                    "step": step,
                    "sample": sample,
                    "correct": correct,
                    "score": None,
                    "finish": "stop",
                    "answer": f"right {problem}" if correct else None if sample % 2 else f"no {sample}",
                    "group": (group or {}).get(problem),
                    "response": f"text {sample % 10}",
                    "prompt": "q",
                }
            )
    return pd.DataFrame(rows).astype({"step": "Int64", "correct": "boolean"})


def answered(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with an answer in every row."""
    return frame.assign(answer=frame["answer"].fillna("no " + frame["sample"].astype(str)))


def tables(*frames: pd.DataFrame, reference: str = "base") -> Tables:
    return Tables(
        **in_memory(pd.concat(frames, ignore_index=True)),
        scores=pd.DataFrame(),
        tokens=lambda model, columns: iter(()),
        reference=reference,
    )


FIG_5 = {"base": [93, 52, 17, 23, 16, 19, 13, 7, 10, 11, 8, 3], "rl": [113, 33, 12, 9, 7, 4, 5, 6, 6, 9, 21, 47]}
INSIDE = [0, 6, 19, 32, 45, 58, 70, 83, 96, 109, 122, 128]


@pytest.fixture(scope="module")
def minerva() -> Result:
    """272 problems, n = 128, with the accuracy histograms of Yue et al., Fig. 5."""
    frames = [traces(s, {f"p{i}": (128, c) for i, c in enumerate(np.repeat(INSIDE, h))}) for s, h in FIG_5.items()]
    return boundary.run(tables(*frames), draws=300)


def test_figure_5_from_traces(minerva):
    table = minerva.tables["histogram"]
    for source, counts in FIG_5.items():
        part = table[table["source"] == source]
        assert (
            part["problems"].tolist() == counts
            and part["bin"].tolist() == list(passk.BINS)
            and (part["n"] == 272).all()
        )
    assert minerva.estimates["base.pass@128"].value == pytest.approx(0.658, abs=5e-4) and minerva.estimates[
        "rl.pass@128"
    ].value == pytest.approx(0.585, abs=5e-4)


def test_pass_keys_intervals_and_monotony(minerva):
    keys = [k for k in minerva.estimates if k.startswith("rl.pass@")]
    assert keys == [f"rl.pass@{k}" for k in (1, 2, 4, 8, 16, 32, 64, 128)]
    values = [minerva.estimates[k].value for k in keys]
    assert np.all(np.diff(values) >= 0)
    assert all(e.low <= e.value <= e.high and e.n == 272 for k, e in minerva.estimates.items() if "pass@" in k)
    assert minerva.estimates["rl.pass@1"].value == pytest.approx(np.repeat(INSIDE, FIG_5["rl"]).mean() / 128)


def test_crossover_of_curves_that_cross(minerva):
    estimate = minerva.estimates["rl.crossover_k"]
    paired = minerva.tables["paired"]
    above = paired[paired["difference"] > 0]["k"].max()
    assert above <= estimate.value <= 2 * above and estimate.low <= estimate.value <= estimate.high
    assert estimate.note.startswith("P(no crossing up to k = 128) = 0.")


AIME_BASE = {0, 1, 4, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 19, *range(22, 30)}


def test_aime24_coverage_from_traces():
    base = traces("base", {str(i): (16, 2 * (i in AIME_BASE)) for i in range(30)})
    rl = traces("rl", {str(i): (16, 3 * (i in AIME_BASE - {4, 11, 17, 19})) for i in range(30)})
    result = boundary.run(tables(base, rl), draws=300)
    got = {k: round(100 * result.estimates[f"rl.coverage.{k}"].value, 1) for k in CELLS}
    assert got == {"both": 63.3, "reference_only": 13.3, "source_only": 0.0, "neither": 23.3}
    assert (
        round(result.estimates["rl.srr"].value, 3),
        result.estimates["rl.ndr"].value,
        round(result.estimates["rl.nscr"].value, 3),
    ) == (0.826, 0, -0.174)
    row = result.tables["coverage"].set_index("source").loc["rl"]
    assert (row["both"], row["reference_only"], row["source_only"], row["neither"], row["k"]) == (19, 4, 0, 7, 16)
    assert row["eps"] == pytest.approx(-math.log(0.05) / 16)


def test_a_zero_count_has_an_upper_bound_above_zero():
    base, rl = (
        traces("base", {str(i): (8, 4) for i in range(30)}),
        traces("rl", {str(i): (8, 8 * (i > 2)) for i in range(30)}),
    )
    e = boundary.run(tables(base, rl), draws=200).estimates
    assert e["rl.coverage.source_only"].value == 0 and e["rl.coverage.source_only"].high == pytest.approx(
        1 - 0.05 ** (1 / 30)
    )
    assert e["rl.ndr"].value == 0 and e["rl.ndr"].high == pytest.approx(1 - 0.05 ** (1 / 27))
    assert e["base.pass@8"].value == 1 == e["base.pass@8"].high
    assert e["base.pass@8"].low == pytest.approx(0.025 ** (1 / 30), abs=0.01)  # the quantile is drawn
    none = boundary.run(tables(traces("base", {str(i): (8, 0) for i in range(30)})), draws=200).estimates["base.pass@1"]
    assert none.value == none.low == 0 and none.high == pytest.approx(1 - 0.025 ** (1 / 30), abs=0.01)


def test_delta_se_is_reference_at_k_minus_source_at_1():
    base, rl = (
        traces("base", {str(i): (300, i) for i in range(20)}),
        traces("rl", {str(i): (300, 90) for i in range(20)}),
    )
    estimate = boundary.run(tables(base, rl), draws=200).estimates["rl.delta_se"]
    at_256 = passk.pass_at_k(np.full(20, 300), np.arange(20), np.array([256])).mean()
    assert estimate.value == pytest.approx(at_256 - 0.3) and estimate.note == "reference pass@256 - source pass@1"
    short = boundary.run(
        tables(traces("base", {"a": (8, 1), "b": (8, 2)}), traces("rl", {"a": (8, 1), "b": (8, 2)})), draws=50
    )
    assert "k is below 256" in short.estimates["rl.delta_se"].note


def test_no_crossing_is_nan_with_the_reason():
    base = traces("base", {str(i): (8, 2 * (i > 4)) for i in range(20)})
    result = boundary.run(
        tables(
            base,
            traces("rl", {str(i): (8, 2 + i % 5) for i in range(20)}),
            traces("worse", {str(i): (8, i > 4) for i in range(20)}),
        ),
        draws=200,
    )
    up, down = result.estimates["rl.crossover_k"], result.estimates["worse.crossover_k"]
    assert math.isnan(up.value) and up.note.startswith("no crossing up to k = 8; P(no crossing")
    assert math.isnan(down.value) and down.note.startswith("the source does not lead at k = 1")


def test_joined_and_row_level_accuracies_stand_side_by_side():
    base = traces("base", {"a": (4, 4), "b": (8, 0), "only base": (4, 4)})
    rl = traces("rl", {"a": (4, 2), "b": (4, 0), "only rl": (4, 4)})
    result = boundary.run(tables(base, rl), draws=50)
    table = result.tables["accuracy"].set_index("source")
    assert table.loc["rl", "accuracy_rows"] == pytest.approx(0.5) and table.loc[
        "rl", "accuracy_joined"
    ] == pytest.approx(0.25)
    assert table.loc["base", "accuracy_rows"] == pytest.approx(0.5) and table.loc[
        "base", "accuracy_joined"
    ] == pytest.approx(0.5)
    assert result.estimates["rl.pass@1"].value == pytest.approx(0.25) and result.estimates["rl.pass@1"].n == 2
    assert result.tables["curves"]["k"].max() == 4 and any("4 to 8 draws per problem" in n for n in result.notes)


def test_unknown_correctness_counts_nowhere():
    base = traces("base", {"a": (4, 2), "b": (4, 1)}, unknown=2)
    mute = traces("mute", {"a": (0, 0), "b": (0, 0)}, unknown=3)
    result = boundary.run(tables(base, mute), draws=50)
    assert result.estimates["base.pass@1"].value == pytest.approx(3 / 8)
    assert (
        math.isnan(result.estimates["mute.pass@1"].value)
        and result.estimates["mute.pass@1"].note == "no row of mute says whether it is correct"
    )
    assert "mute: 6 of 6 rows do not say whether they are correct; it has no pass@k." in result.notes
    assert "base: 4 of 12 rows do not say whether they are correct and count nowhere here." in result.notes


def test_a_reference_without_correctness_compares_nothing():
    result = boundary.run(
        tables(traces("base", {"a": (0, 0)}, unknown=3), traces("rl", {"a": (4, 1), "b": (4, 2)})), draws=50
    )
    assert (
        result.estimates["rl.srr"].note == "the reference says nothing about correctness"
        and result.estimates["rl.pass@4"].value == 1
    )
    apart = boundary.run(tables(traces("base", {"z": (4, 1)}), traces("rl", {"a": (4, 1)})), draws=50)
    assert apart.estimates["rl.crossover_k"].note == "no problem in common with the reference"


def test_steps_have_their_own_curves_and_the_last_one_is_the_estimate():
    base = traces("base", {str(i): (8, 1) for i in range(12)})
    steps = [traces("rl", {str(i): (8, c) for i in range(12)}, step=s) for s, c in ((300, 6), (100, 3), (20, 2))]
    result = boundary.run(tables(base, *steps), draws=50)
    curves = result.tables["curves"].query("source == 'rl' and k == 1")
    assert curves["step"].tolist() == [20, 100, 300] and curves["pass"].tolist() == pytest.approx([2 / 8, 3 / 8, 6 / 8])
    assert result.estimates["rl.pass@1"].value == pytest.approx(6 / 8) and any(
        "training steps; the estimates are those of the last (300)" in n for n in result.notes
    )
    assert result.tables["answer_test"].query("not chosen")["step"].tolist() == [20, 100, 300]


def test_answer_test_by_group_at_the_budget():
    group = {f"{g}{i}": g for g in ("easy", "never") for i in range(12)}
    base = traces("base", {p: (64, 20 if g == "easy" else 0) for p, g in group.items()}, group=group)
    new = traces("new", {p: (64, 30) for p in group}, group=group)
    result = boundary.run(tables(answered(base), new), budget=16, draws=50)
    table = result.tables["answer_test"].set_index("group")
    assert table.loc["never", "p_holm"] < 1e-6 and table.loc["easy", "p_holm"] == 1 and (table["k"] == 16).all()
    assert (
        table.loc["never", "source_only"] == 12
        and table.loc["never", "c_reference"] == 0
        and math.isnan(table.loc["easy", "factor"])
    )
    groups = result.tables["groups"].query("source == 'base' and k == 1").set_index("group")["pass"]
    assert groups.to_dict() == pytest.approx({"easy": 20 / 64, "never": 0})


def test_a_problem_that_guesses_solve_is_no_evidence():
    """Four options: the base answers in one draw of a hundred, the source guesses. k = 4 guesses hit on average."""
    gold = {str(i): "ABCD"[i % 4] for i in range(40)}
    rng, frames = np.random.default_rng(0), []
    for source, answered in (("base", 0.01), ("new", 1.0)):
        frame = traces(source, {p: (64, 0) for p in gold})
        said = pd.Series(rng.choice(list("ABCD"), len(frame))).where(rng.random(len(frame)) < answered)
        right = said == frame["problem"].map(gold)
        frames.append(frame.assign(answer=said, correct=right.astype("boolean")))
    found = boundary.run(tables(*frames), budget=16, draws=50).tables["answer_test"]
    assert (found["p_holm"] == 1).all() and found["guessed"].iloc[0]
    assert found["guessable"].iloc[0] + found["unread_problems"].iloc[0] == 40 and found["guessable"].iloc[0] > 9
    assert found["unread_reference"].iloc[0] > 0.98 and found["unread_source"].iloc[0] == 0
    blind = boundary.run(tables(*(f.assign(answer=None) for f in frames)), budget=16, draws=50).tables["answer_test"]
    assert blind["p_count"].min() < 1e-6 and not blind["answered"].any()  # answers unknown: half may be guessed
    assert (blind["p"] == 1).all() or blind["p_blind"].min() > 0.99


def test_draws_without_an_answer_are_neither_hits_nor_misses():
    """20 draws a problem: "a" is never read, of "b" half are, 2 of them right; unread right draws count."""
    rows = [("a", None, False)] * 20 + [("b", None, False)] * 10 + [("b", "1", True)] * 2 + [("b", "2", False)] * 8
    base = traces("base", {p: (20, 0) for p in "ab"})
    base = base.assign(answer=[a for _, a, _ in rows], correct=pd.array([c for *_, c in rows], dtype="boolean"))
    row = boundary.run(tables(base, traces("new", {p: (10, 5) for p in "ab"})), budget=4, draws=50)
    row = row.tables["answer_test"].iloc[0]
    assert (row["c_reference"], row["n_reference"], row["problems"], row["unread_problems"]) == (2, 10, 1, 1)
    assert answers.read(base).sum() == 10 and answers.read(base.assign(answer=None)).all()
    assert not answers.read(base.assign(answer=None, correct=False)).any()


def test_a_guesser_gives_no_answer_more_often_than_the_others():
    """The most frequent right answer against the most frequent wrong one, by draws; without answers by problems."""
    new = traces("new", {"a": (4, 3), "b": (4, 0)}).assign(answer=["1", "1", "2", "7", "3", "3", None, "4"])
    assert answers.tops(new).loc[["a", "b"]].to_numpy().tolist() == [[2, 1], [0, 2]]
    part = pd.DataFrame({"n": 8, "c": [8] * 9 + [0]}, index=list("abcdefghij"))
    assert answers.blind(part, False, True)["p_blind"] == pytest.approx(11 / 1024)
    assert answers.blind(part, True, True)["p_blind"] == answers.blind(part, False, False)["p_blind"] == 1
    known = part.assign(top_right=part["c"], top_wrong=1)
    assert answers.blind(known, True, False)["p_blind"] < 1e-12


def test_of_two_graders_the_milder_one_counts_for_the_reference():
    """Both sides give the same answers; the source's grader accepts them, the reference's does not."""
    base, new = (traces(s, {str(i): (64, 16) for i in range(20)}) for s in ("base", "new"))
    strict = base.assign(correct=pd.array([False] * len(base), dtype="boolean"))
    result = boundary.run(tables(strict, new), budget=4, draws=50)
    found = result.tables["answer_test"].iloc[0]
    assert found["c_reference"] == 20 * 16 and found["p"] == 1 and found["raised"] == 20 * 16
    words = decide({"boundary": result}, sources=["new"], reference="base", budget=4)
    why = next(v.why for v in words if v.level == "correct")
    assert any(line.startswith("320 draws of the reference labelled wrong count as correct here") for line in why)
    other = strict.assign(answer="something else")
    assert boundary.run(tables(other, new), budget=4, draws=50).tables["answer_test"].iloc[0]["p"] < 1e-6


def test_unequal_draws_do_not_fake_an_excess():
    """One problem with a single reference draw must not turn 63 source draws into evidence at k = 1."""
    base = traces("base", {str(i): (64, 20) for i in range(9)} | {"thin": (1, 0)})
    new = traces("new", {str(i): (64, 20) for i in range(9)} | {"thin": (64, 64)})
    row = boundary.run(tables(*map(answered, (base, new))), budget=1, draws=50).tables["answer_test"].iloc[0]
    assert row["problems"] == 9 and row["p_count"] > 0.3


def test_the_largest_ratio_of_draws_enters_the_test():
    counts = {str(i): 64 if i < 6 else 40 for i in range(10)}
    base, new = traces("base", {p: (n, 0) for p, n in counts.items()}), traces("new", {p: (64, 1) for p in counts})
    row = boundary.run(tables(answered(base), new), budget=4, draws=50).tables["answer_test"].iloc[0]
    share = 4 * 64 / (4 * 64 + 40)  # of the problems with 40 reference draws, not of the pooled counts
    assert row["problems"] == 10 and row["p_count"] == pytest.approx(share**10)


def test_identical_sources_have_an_a_a_row_beside_them():
    rng = np.random.default_rng(0)
    counts = {str(i): (64, int(rng.binomial(64, p))) for i, p in enumerate(rng.beta(0.25, 1.5, 40))}
    table = boundary.run(tables(traces("base", counts), traces("again", counts)), draws=50).tables["coverage"]
    a_a = table[table["source"] == "base (A/A halves)"].iloc[0]
    assert a_a["k"] == 32 and a_a["n"] == 40 and a_a[list(CELLS)].sum() == pytest.approx(40)


def test_diversity_counts_repeats_answers_and_missing_answers():
    row = boundary.run(tables(traces("base", {"a": (20, 4), "b": (20, 4)})), draws=50).tables["diversity"].iloc[0]
    assert row["distinct_responses"] == pytest.approx(10) and row["repeats"] == 0.5 and row["draws"] == 20
    # per problem: "7" four times, "no answer" eight times, eight others once
    want = -(4 / 20 * math.log(4 / 20) + 8 / 20 * math.log(8 / 20) + 8 / 20 * math.log(1 / 20))
    assert row["answer_entropy"] == pytest.approx(want) and row["distinct_answers"] == pytest.approx(10)
    bare = traces("base", {"a": (4, 1)}).assign(answer=None)
    assert boundary.run(tables(bare), draws=50).tables["diversity"].iloc[0]["note"] == "no answer in the dump"


def test_order_and_names_of_problems_do_not_matter(minerva):
    frames = [
        traces(s, {f"q{999 - i}": (128, c) for i, c in enumerate(np.repeat(INSIDE, h))}).sample(frac=1, random_state=1)
        for s, h in FIG_5.items()
    ]
    other = boundary.run(tables(*frames), draws=300)
    for key in ("rl.pass@4", "rl.crossover_k", "rl.srr", "rl.delta_se"):
        assert other.estimates[key].value == pytest.approx(minerva.estimates[key].value)


def test_paired_intervals_are_narrower_than_unpaired_ones(minerva):
    """Pairing by problem must matter where difficulty is shared: the mutant that resamples the arms apart is wider."""
    at_1 = minerva.tables["paired"].iloc[0]
    base, rl = minerva.estimates["base.pass@1"], minerva.estimates["rl.pass@1"]
    apart = math.hypot(base.high - base.low, rl.high - rl.low)
    assert at_1["high"] - at_1["low"] < 0.7 * apart


def test_figures_draw_and_survive_json(minerva):
    again = Result.from_json("boundary", json.loads(json.dumps(minerva.as_json(), allow_nan=False)))
    for result in (minerva, again):
        for spec in boundary.FIGURES.values():
            ax = matplotlib.figure.Figure().add_subplot()
            assert spec.draw(result, ax) is ax and {t.get_text() for t in ax.get_legend().get_texts()} == {"base", "rl"}
            assert "n = 272" in spec.caption(result)
    mute = boundary.run(tables(traces("mute", {"a": (0, 0)}, unknown=3), reference="mute"), draws=50)
    for spec in boundary.FIGURES.values():
        assert spec.draw(mute, matplotlib.figure.Figure().add_subplot()).texts and spec.caption(mute)


@pytest.mark.parametrize(
    ("name", "source", "rows", "best"),
    [("original_to_graphs", "base", 0.139, 0.228), ("games_qwen_3b_500_to_graphs", "games", 0.183, 0.251)],
)
def test_real_dump(shared, name, source, rows, best):
    """reasoning-gym graphs: row-level pass@1, and joined pass@3 over 495 distinct questions (five occur twice)."""
    data = json.loads((shared / "dumps" / "reasoning-gym-rl" / f"{name}.json").read_text())
    found, stack = [], [data]
    while stack:
        node = stack.pop()
        if isinstance(node, dict) and "completions" in node:
            found += [(node["question"], c.get("score", 0) >= 1) for c in node["completions"]]
        elif isinstance(node, (dict, list)):
            stack += node.values() if isinstance(node, dict) else node
    frame = pd.DataFrame(found, columns=["problem", "correct"])
    frame = frame.assign(
        key=range(len(frame)), source=source, step=pd.NA, sample=range(len(frame)), answer=None, group=None, response=""
    ).astype({"step": "Int64", "correct": "boolean"})
    result = boundary.run(tables(frame, reference=source), draws=50)
    assert round(result.tables["accuracy"]["accuracy_rows"].iloc[0], 3) == rows
    assert (
        round(result.estimates[f"{source}.pass@3"].value, 3) == best and result.estimates[f"{source}.pass@3"].n == 495
    )


def test_problems_chosen_on_one_half_are_tested_on_the_other():
    """12 problems, no groups: 4 new ones drown in the pool, and stand out where one half of the draws chooses them."""
    base = traces("base", {str(i): (64, 0 if i < 4 else 30) for i in range(12)})
    new = traces("new", {str(i): (64, 50 if i < 4 else 30) for i in range(12)})
    table = boundary.run(tables(*map(answered, (base, new))), budget=8, draws=50).tables["answer_test"]
    table = table.set_index("group")
    chosen = table.loc["chosen on the other half"]
    assert chosen["problems"] == 4 and chosen["n_source"] == 4 * 32 and chosen["chosen"]
    # the first 50 samples are right: 25 of the 32 even ones, 25 of the 32 odd ones
    assert chosen["c_source"] == 100 and chosen["p"] == pytest.approx((8 / 9) ** 100)
    assert table.loc["all", "p"] > 0.9 and chosen["p_holm"] == pytest.approx(2 * chosen["p"])


def test_choosing_on_the_tested_half_would_alarm():
    """Equal models, each problem with a rate of 1/32: choosing where the reference has no hit and testing on the same
    draws rejects k = 1 far too often; on the other half it does not. 60 runs; P(more than 10 of 60 at size .05) < 2e-4
    for the exact test, whose size is below .03 here."""
    rng, alarms, names = np.random.default_rng(0), np.zeros(2), [f"p{i}" for i in range(60)]

    def counts(n: int) -> pd.DataFrame:
        own, ref = (pd.DataFrame({"n": n, "c": rng.binomial(n, 1 / 32, 60), "group": "all"}, names) for _ in range(2))
        return own.join(ref.add_suffix("_ref")).assign(guess=0.0, top_right=n, top_wrong=0)

    for _ in range(60):
        first, second = counts(16), counts(16)
        both = first.assign(**{c: first[c] + second[c] for c in ("n", "c", "n_ref", "c_ref")})
        alarms[0] += answers.budget_test(both, 1, first, second)[1]["p"] <= 0.05
        same = both[(both["c_ref"] == 0) & (both["c"] > 0)]
        alarms[1] += answers.budget_test(same, 1)[0]["p"] <= 0.05
    assert alarms[0] <= 10 and alarms[1] >= 50


def test_the_band_says_where_curves_may_cross(minerva):
    paired = minerva.tables["paired"]
    assert (paired["band_low"] <= paired["low"] + 1e-9).all() and (paired["band_high"] >= paired["high"] - 1e-9).all()
    inside = (paired["band_low"] <= 0) & (paired["band_high"] >= 0)
    assert (paired["may_cross"] == inside).all() and not inside.iloc[0]
    # on this grid the band jumps over 0: ahead up to some k, behind from the next one
    ahead = paired.loc[paired["band_low"] > 0, "k"].max()
    assert minerva.estimates["rl.crossover_k"].note.endswith(f"k = between {ahead} and {2 * ahead}")
    few = [traces(s, {f"p{i}": (128, c) for i, c in enumerate(np.repeat(INSIDE, h)[::8])}) for s, h in FIG_5.items()]
    small = boundary.run(tables(*few), draws=300)
    paired = small.tables["paired"]
    named = ", ".join(map(str, paired.loc[paired["may_cross"], "k"]))
    assert paired["may_cross"].sum() >= 2 and small.estimates["rl.crossover_k"].note.endswith(f"k = {named}")
    curves = minerva.tables["curves"]
    assert ((curves["band_low"] <= curves["pass"]) & (curves["pass"] <= curves["band_high"])).all()


def test_unseen_answers_and_answers_new_to_the_reference():
    base, new = traces("base", {"a": (20, 4), "b": (20, 4)}), traces("new", {"a": (20, 10), "b": (20, 10)})
    result = boundary.run(tables(base, new), draws=50)
    table = result.tables["unseen"].set_index("source")
    # base, per problem: "7" four times, no answer eight times, eight answers once
    assert table.loc["base", "mass"] == pytest.approx(8 / 20) == result.estimates["base.unseen_answers"].value
    assert table.loc["new", "mass"] == pytest.approx(5 / 20) and table.loc["new", "new_to_reference"] == 0
    other = boundary.run(tables(base, new.assign(answer="99")), draws=50).tables["unseen"].set_index("source")
    assert other.loc["new", "new_to_reference"] == 1 and other.loc["new", "mass"] == 0
    assert math.isnan(other.loc["base", "new_to_reference"])
    mute = boundary.run(tables(base.assign(answer=None)), draws=50)
    assert mute.estimates["base.unseen_answers"].note == "no answer in the dump"


def test_luck_stands_beside_pass_at_k():
    base = traces("base", {"often": (64, 32), "rare": (64, 2), "never": (64, 0)})
    guesses = base.assign(answer=np.where(base["correct"].astype(bool), "7", "12"))
    table = boundary.run(tables(guesses), draws=100).tables["luck"].set_index("k")
    assert table.loc[1, "lucky"] == pytest.approx(np.mean([0.5, 62 / 64, 1])) and (table["problems"] == 3).all()
    assert (np.diff(table["lucky"]) >= 0).all() and table.loc[64, "lucky"] == pytest.approx(1)
    # "rare": right in 3 % of the reference's draws, so a hit may be a guess
    assert (table["guessable"] == 1).all() and (table["problems_filtered"] == 2).all()
    assert table.loc[1, "pass_filtered"] == pytest.approx(0.25) and table.loc[64, "pass_filtered"] == 0.5
    # of a source that repeats one error for ever, luck is still what the reference's errors say
    stuck = traces("stuck", {"often": (64, 0), "rare": (64, 0), "never": (64, 0)}).assign(answer="3")
    both = boundary.run(tables(base, stuck), draws=100).tables["luck"].query("source == 'stuck' and k == 1").iloc[0]
    assert both["lucky"] == pytest.approx(1 / 64) and both["pass"] == 0
    spread = boundary.run(tables(base), draws=100).tables["luck"].set_index("k")
    assert spread.loc[1, "lucky"] == pytest.approx(1 / 64)  # wrong answers all different


def test_cover_at_tau_falls_with_tau(minerva):
    table = minerva.tables["cover"]
    for source, counts in FIG_5.items():
        part = table[table["source"] == source].set_index("tau")
        assert part.index.tolist() == [0.05, 0.1, 0.25, 0.5, 0.9] and (np.diff(part["cover"]) <= 0).all()
        c = np.repeat(INSIDE, counts)
        assert part.loc[0.5, "cover"] == pytest.approx((c >= 64).mean()) and (part["draws"] == 128).all()
        assert ((part["low"] <= part["cover"]) & (part["cover"] <= part["high"])).all()


def test_how_many_problems_an_interval_needs():
    """Means and ratios from five problems on, shares from three, unless all problems say the same; values from one."""
    for m in range(1, 6):
        base = traces("base", {str(i): (8, 2 + i % 3) for i in range(m)})
        rl = traces("rl", {str(i): (8, 6 - 2 * (i % 2)) for i in range(m)})
        e = boundary.run(tables(base, rl), draws=100).estimates
        for key, least in (("rl.pass@1", 3), ("rl.delta_se", 5)):
            assert math.isnan(e[key].low) == math.isnan(e[key].high) == (m < least), (m, key)
            assert math.isfinite(e[key].value)
        if m > 1:  # one problem is left unsolved
            less = traces("less", {str(i): (8, 8 * (i > 0)) for i in range(m)})
            cross = boundary.run(tables(base, less), draws=100).estimates["less.crossover_k"]
            assert math.isfinite(cross.value) and math.isnan(cross.low) == (m < 5)
        unseen = e["rl.unseen_answers"]  # a share of each problem's draws
        assert math.isnan(unseen.low) == math.isnan(unseen.high) == (m < 3)
        both = e["rl.coverage.both"]  # every problem is solved by both: Clopper-Pearson's bound, whatever their number
        assert (both.value, both.high) == (1, 1) and both.low == pytest.approx(0.05 ** (1 / m))


def test_three_sources_stand_on_the_problems_that_all_have():
    """a and b are equal where all three have draws; b also has problems that anyone solves, a ones that nobody does."""
    base = traces("base", {str(i): (4, 1) for i in range(12)})
    a = traces("a", {str(i): (4, 2 if i < 8 else 0) for i in range(10)})
    b = traces("b", {str(i): (4, 2 if i < 8 else 4) for i in [*range(8), 10, 11]})
    result = boundary.run(tables(base, a, b), draws=50)
    at_1 = {s: result.estimates[f"{s}.pass@1"] for s in ("base", "a", "b")}
    assert [e.value for e in at_1.values()] == pytest.approx([0.25, 0.5, 0.5]) and {e.n for e in at_1.values()} == {8}
    assert at_1["a"].note == "over the 8 of its 10 problems that all compared sources have"
    assert (result.tables["curves"]["problems"] == 8).all() and (result.tables["histogram"]["n"] == 8).all()
    assert (result.tables["paired"]["problems"] == 8).all() and result.estimates["b.coverage.both"].n == 8
    accuracy = result.tables["accuracy"].set_index("source")
    assert accuracy["rows_joined"].tolist() == [32, 32, 32] and accuracy["correct_joined"].tolist() == [8, 16, 16]
    # a word rests on all that a source shares with the reference
    assert result.tables["answer_test"].query("group == 'all'").set_index("source")["problems"].to_dict() == {
        "a": 10,
        "b": 10,
    }
    assert any(n.startswith("b: pass@k is over the 8 of its 10 problems") for n in result.notes)


def test_pairs_where_no_problem_is_in_all_and_own_problems_where_none_is_shared():
    base = traces("base", {str(i): (4, 1) for i in range(8)})
    a, b = traces("a", {str(i): (4, 2) for i in range(3)}), traces("b", {str(i): (4, 3) for i in range(3, 9)})
    far = traces("far", {"x": (4, 4), "y": (4, 2)})
    result = boundary.run(tables(base, a, b, far), draws=50)
    assert {s: result.estimates[f"{s}.pass@4"].n for s in ("base", "a", "b", "far")} == {
        "base": 8,
        "a": 3,
        "b": 5,
        "far": 2,
    }
    assert (
        result.estimates["far.pass@1"].value == 0.75
        and "none is shared with base" in result.estimates["far.pass@1"].note
    )
    assert result.estimates["b.pass@1"].note == "over the 5 of its 6 problems that are shared with base"
    assert result.tables["accuracy"].set_index("source")["basis"].to_dict() == {
        "base": "pair",
        "a": "pair",
        "b": "pair",
        "far": "own",
    }


def test_at_every_k_the_curves_side_by_side_are_over_the_same_problems():
    """One problem of 20 has two draws of rl, another two of base: at k = 4 both curves leave both out."""
    base = traces("base", {str(i): (2 if i == 0 else 8, 1) for i in range(20)})
    rl = traces("rl", {str(i): (2 if i == 1 else 8, 1) for i in range(20)})
    one = traces("one", {str(i): (1, 1) for i in range(20)})  # greedy: says nothing of k > 1
    curves_ = boundary.run(tables(base, rl, one), draws=50).tables["curves"]
    found = curves_.groupby("k")["problems"].agg(["min", "max"])
    assert found.index.tolist() == [1, 2, 4, 8] and (found["min"] == found["max"]).all()
    assert found["min"].tolist() == [20, 20, 18, 18] and (curves_["of"] == 20).all()


def test_earlier_steps_on_other_problems_keep_their_curves():
    """A trainer's log draws new problems at each step: the base is compared on those of the last one."""
    base = traces("base", {str(i): (4, 1) for i in range(12)})
    steps = [traces("rl", {str(i): (4, 2) for i in range(5 * k, 5 * k + 5)}, step=k) for k in (0, 1)]
    result = boundary.run(tables(base, *steps), draws=50)
    problems = result.tables["curves"].query("k == 1")[["source", "step", "problems"]].astype({"step": "object"})
    assert problems.fillna(-1).to_numpy().tolist() == [["base", -1, 5], ["rl", 0, 5], ["rl", 1, 5]]
    assert result.estimates["base.pass@1"].note == "over the 5 of its 12 problems that all compared sources have"


def test_a_tie_is_no_crossing():
    """Both solve eight of ten within four draws; rl is ahead at k = 1, 2, 3 and equal at 4, in every resample."""
    base = traces("base", {str(i): (4, int(i < 8)) for i in range(10)})
    rl = traces("rl", {str(i): (4, 3 * (i < 8)) for i in range(10)})
    tie = boundary.run(tables(base, rl), draws=300).estimates["rl.crossover_k"]
    assert math.isnan(tie.value) and tie.note.startswith(
        "no crossing up to k = 4, the curves meet at k = 4 = n; P(no crossing up to k = 4) = 1.00, "
        "P(reference strictly ahead) = 0.00"
    )


def test_a_crossing_between_the_powers_of_two_is_seen():
    """8 draws: rl is ahead at k = 1, 2, 4 and 8 and behind at 5 alone (checked on the curves)."""
    ours, theirs = [8] * 4 + [1] * 5, [2] * 8 + [0]
    base, rl = (traces(s, {str(i): (8, c) for i, c in enumerate(cs)}) for s, cs in (("base", theirs), ("rl", ours)))
    gap = (passk.every(np.full(9, 8), ours, 8) - passk.every(np.full(9, 8), theirs, 8)).mean(axis=0)
    assert (gap[[0, 1, 2, 3, 5, 6, 7]] > 0).all() and gap[4] < 0
    assert 4 <= boundary.run(tables(base, rl), draws=100).estimates["rl.crossover_k"].value <= 5


def test_bands_of_pass_at_k_rise_with_k_and_do_not_flare():
    """12 problems, 8 draws: almost all are solved at k = 4 and all at k = 8; one problem in five may be hard."""
    counts = {str(i): (8, c) for i, c in enumerate([8] * 10 + [3, 2])}
    curve = boundary.run(tables(traces("base", counts)), draws=50).tables["curves"]
    for low, high in (("low", "high"), ("band_low", "band_high")):
        assert (np.diff(curve[low]) >= 0).all() and (np.diff(curve[high]) >= 0).all()
        assert (curve[low] <= curve["pass"]).all() and (curve["pass"] <= curve[high]).all()
        widths = curve[high] - curve[low]
        assert (np.diff(widths) <= 0.01).all()
    assert (curve["method"] == curve["method"].iloc[0]).all() and curve["low"].iloc[-1] < 0.75
