"""The rules of the verdict on hand-made results: levels, propagation, headline, gates, what would decide. The words of
the sequence level have tests of their own (test_sequence)."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_evidence import est, support

from analyzer.analysis.verdict.decide import decide
from analyzer.records import LEVELS, METHOD, Result


def boundary(p: float = 1.0, factor: float = math.nan, c_reference: int = 0) -> Result:
    rows = [
        {
            "source": "s",
            "step": None,
            "group": "mul",
            "k": 64,
            "problems": 12,
            "c_source": 172,
            "n_source": 3072,
            "c_reference": c_reference,
            "n_reference": 3072,
            "source_only": 11,
            "reference_only": 0,
            "p": p / 2,
            "factor": factor,
            "p_holm": p,
            "guess": 0.0,
            "guessable": 0,
            "guessed": False,
        }
    ]
    return Result("boundary", "", {}, {"answer_test": pd.DataFrame(rows)})


def by_level(results: dict[str, Result], **options) -> dict:
    return {v.level: v for v in decide(results, sources=["base", "s"], reference="base", **options)}


def words(results: dict[str, Result], **options) -> tuple[str, str, str]:
    """At the sequence, the skeleton and the correct level: the ends of the two branches."""
    got = by_level(results, **options)
    assert all(got[level].word == "outside" for level in ("answer",)) == (got["correct"].word == "outside")
    return tuple(got[level].word for level in ("sequence", "skeleton", "correct"))


def contained(level: str, miss_high: float = 0.01, **more) -> Result:
    row = {"source": "s", "level": level, "k": 64, "contained": 0.995, "own": 0.74, "miss_high": miss_high, "note": ""}
    row |= {"p_inside": 0.01 if miss_high <= 0.02 else 0.3, "best": 0.001, "draws_needed": 256.0} | more
    return Result("contained", "", {}, {"levels": pd.DataFrame([row])})


def test_unread_draws_and_possible_guesses_say_what_would_decide():
    """A count that would do, and what stops it: no draw that can be read, a favourite error, no answers at all."""

    def row(**more):
        table = boundary(1.0).tables["answer_test"]
        more = {"p_count": 1e-9, "p_blind": 0.4, "answered": True, "top_right": 90, "top_wrong": 80} | more
        return {"boundary": Result("boundary", "", {}, {"answer_test": table.assign(**more)})}

    got = by_level(row())["correct"]
    assert got.word == "undetermined" and "comes up more often than any wrong one" in got.needs
    assert any("most frequent right answer 90 times against 80" in line for line in got.why)
    got = by_level(row(answered=False, top_right=7, top_wrong=5))["correct"]
    assert "answers of both sides" in got.needs and any("7 of 12 problems" in line for line in got.why)
    unread = row(problems=0, unread_reference=1.0, unread_source=0.0, unread_problems=12)
    got = by_level(unread)["correct"]
    assert got.needs == "draws of the reference whose answer can be read"
    assert any("such draws of the reference do not count (12 problems without another)" in line for line in got.why)
    sure = boundary(1e-9).tables["answer_test"].assign(answered=False, top_right=12, top_wrong=0, p_blind=0.0)
    got = by_level({"boundary": Result("boundary", "", {}, {"answer_test": sure})})["correct"]
    assert got.word == "outside" and any("no answers in the dumps" in line for line in got.why)


def test_from_texts_alone_the_headline_says_what_the_levels_need():
    """Nothing scored: what decides is more draws of the reference, not only a model."""
    less = contained("skeleton", 0.05, k=8)
    head = by_level({"contained": less})["sequence"]
    assert head.headline and head.word == U
    assert "at the skeleton level" in head.needs and "256 draws of the reference a problem (k = 64)" in head.needs


def test_prompts_that_were_not_compared_stand_in_the_second_reason():
    def checks(passed):
        row = {"check": "prompts", "source": "s", "value": math.nan, "limit": 0.0, "passed": passed, "gates": True}
        return Result("preflight", "", {}, {"checks": pd.DataFrame([row | {"note": ""}], dtype=object)})

    for passed, said in ((None, True), (True, False)):
        got = by_level({"boundary": boundary(1e-6), "preflight": checks(passed)})["correct"]
        assert got.word == "outside" and got.why[1].startswith("prompts could not be compared") == said


def headline(results: dict[str, Result]) -> str:
    (head,) = [v for v in decide(results, sources=["s"], reference="base") if v.headline]
    return head.level


U = "undetermined"


def test_reference_gets_no_verdict_and_each_source_one_headline():
    got = decide({"support": support("sharpened")}, sources=["base", "s", "t"], reference="base")
    assert [(v.source, v.level) for v in got] == [(s, level) for s in ("s", "t") for level in LEVELS]
    assert all(sum(v.headline for v in got if v.source == s) == 1 for s in ("s", "t")) and {v.budget for v in got} == {
        64
    }


def test_inside_holds_at_coarser_levels():
    results = {"support": support("inside"), "boundary": boundary()}
    assert words(results) == ("inside",) * 3 and headline(results) == "sequence"
    got = by_level(results)
    assert (
        "inside at the answer level, and coarsening only lowers the excess, whatever the shares above"
        in got["correct"].why
    )
    line = "inside at the steps level, and coarsening only lowers the excess, whatever the shares above"
    assert line in got["kinds"].why
    assert all(v.word == "inside" and v.needs is None for v in got.values())


@pytest.mark.parametrize(
    ("level", "inside"),
    [("skeleton", ("skeleton", "steps", "kinds")), ("steps", ("steps", "kinds")), ("kinds", ("kinds",))]
    + [("answer", ("answer", "correct")), ("correct", ("correct",))],
)
def test_what_k_draws_contain_certifies_its_level_and_the_coarser_ones_of_its_branch(level, inside):
    got = by_level({"contained": contained(level)})
    assert {name for name, v in got.items() if v.word == "inside"} == set(inside)
    head = level if level in METHOD else "sequence"  # inside at an outcome heads no page
    assert (
        got[head].headline
        and "64 draws of the reference contain the like of 99.5% of its traces (74.0%" in got[level].why[0]
    )
    known = by_level({"contained": contained(level), "support": support("reweighted")})
    assert known["sequence"].headline and known[level].word == "inside"  # the sequence has a word of its own
    for row in (contained(level, 0.021), contained(level, p_inside=math.nan), contained(level, contained=math.nan)):
        assert {v.word for v in by_level({"contained": row}).values()} == {U}
    less = by_level({"contained": contained(level, 0.05, k=8, draws_needed=72.0)})[level]
    assert less.word == U and "72 draws of the reference a problem (k = 64), if they contain it all" in less.needs
    alone = by_level({"contained": contained(level, 0.05, own=math.nan)})[level]  # the reference has nothing to read
    assert "of its traces; they miss" in alone.why[0] and "nan" not in " ".join(alone.why)
    none = by_level({"contained": contained("answer", contained=math.nan, note="no answer in the dump")})["answer"]
    assert (
        none.needs == "answers of both sides (field answer)"
    )  # and not a coarser level: there is one with labels alone
    few = by_level({"contained": contained(level, 0.05, best=0.03, draws_needed=128.0)})[level]
    assert "128 draws of the reference a problem" in few.needs


def test_outside_at_one_branch_says_nothing_of_the_other():
    got = by_level({"contained": contained("kinds"), "boundary": boundary(1e-6)})
    assert {name: v.word for name, v in got.items()} == {
        "sequence": "outside",
        "skeleton": U,
        "steps": U,
        "kinds": "inside",
        "answer": "outside",
        "correct": "outside",
    }
    assert got["correct"].headline
    both = by_level({"contained": contained("steps"), "strategy": strategy(representation="kinds")})
    assert both["steps"].word == both["kinds"].word == both["sequence"].word == "outside" and both["kinds"].headline
    assert any(w.startswith("contradiction: by its own numbers inside at the steps level") for w in both["steps"].why)


def test_a_level_that_guesses_reach_cannot_decide():
    table = boundary(1e-9).tables["answer_test"].assign(guessed=True, guess=0.25, guessable=12)
    results = {"boundary": Result("boundary", "", {}, {"answer_test": table}), "contained": contained("correct")}
    for level in ("answer", "correct"):
        got = by_level({"boundary": results["boundary"], "contained": contained(level)})[level]
        assert got.word == U and "64 guesses without reading the question hit (25% each)" in got.why[0]


def test_outside_holds_at_finer_levels_and_the_contradiction_is_printed():
    for word in ("inside", "sharpened", "reweighted"):
        results = {"support": support(word), "boundary": boundary(1e-6)}
        assert words(results) == ("outside", "inside" if word == "inside" else U, "outside")
        assert headline(results) == "correct"
        line = f"contradiction: by its own numbers {word} at the sequence level"
        assert any(w.startswith(line) for w in by_level(results)["sequence"].why)
    # alone among five levels that are tested: Holm asks for .05 / 5
    assert words({"boundary": boundary(0.0099)}) == ("outside", U, "outside")
    assert words({"boundary": boundary(0.0101)}) == (U,) * 3


def test_outside_by_its_tokens_says_nothing_about_coarser_levels():
    results = {"support": support("outside"), "boundary": boundary(0.4, 1.6)}
    assert words(results) == ("outside", U, U) and headline(results) == "sequence"
    got = by_level(results)
    by = "sequence outside, skeleton undetermined, steps undetermined, kinds undetermined, answer undetermined"
    assert got["sequence"].why[-1] == f"by level: {by}, correct undetermined"
    assert got["sequence"].why[0].endswith("(p = 0.0005, Holm over levels 0.0025)")
    needs = "about 1.6 times the samples per problem in group mul on both sides, which decide in 80% of such cases"
    assert got["correct"].needs == needs
    assert (
        got["correct"].why[0] == "problems of group 'mul': 172 of 3,072 correct against 0 of 3,072 (p = 0.2, Holm 0.4)"
    )


def test_needs_say_what_would_decide():
    assert by_level({})["sequence"].needs == "--base MODEL" and words({}) == (U,) * 3
    assert "correctness of s and the reference" in by_level({"support": support("sharpened")})["correct"].needs
    assert "no group exceeds 64 times" in by_level({"boundary": boundary(c_reference=3)})["correct"].why[-1]
    assert "no number of draws up to 100 times" in by_level({"boundary": boundary()})["correct"].why[-1]


def test_only_the_last_step_is_tested_at_the_correct_level():
    early, late = (boundary(p).tables["answer_test"].assign(step=s) for p, s in ((1e-9, 100), (1.0, 300)))
    result = Result("boundary", "", {}, {"answer_test": pd.concat([late, early], ignore_index=True)})
    assert words({"boundary": result}) == (U, U, U)
    late.loc[:, "p_holm"] = 1e-9
    assert words({"boundary": Result("boundary", "", {}, {"answer_test": pd.concat([early, late])})})[2] == "outside"


def test_clusters_are_named_and_certify_nothing():
    clusters = Result("clusters", "", {"s.novel_cluster_mass": est(0.9, 0.8, 1.0)})
    got = by_level({"support": support("sharpened"), "clusters": clusters})["skeleton"]
    assert got.word == U and "90.0 % [80.0, 100.0]" in got.why[0] and "descriptive" in got.why[0] and got.needs


def strategy(p: float = 0.001, *, certified: bool = True, representation: str = "skeleton", **more) -> Result:
    row = {
        "source": "s",
        "representation": representation,
        "k": 64,
        "units": 12,
        "best_cluster": 3,
        "share_source": 0.3,
        "share_reference": 0.0,
        "n_source": 2048,
        "n_reference": 2048,
        "p": p,
        "certified": certified,
        "exemplar": "N * N = N",
        "factor": math.nan,
    } | more
    estimates = {"s.strategy_mass": est(0.25, 0.2, 0.3), "s.changed_p": est(0.001, math.nan, math.nan)}
    return Result("strategy", "", estimates, {"strategy_test": pd.DataFrame([row])})


def test_groups_of_traces_certify_the_levels_of_the_method():
    got = by_level({"support": support("sharpened"), "strategy": strategy()})
    assert [v.word for v in got.values()] == ["outside", "outside", U, U, U, U]
    why = " ".join(got["skeleton"].why)
    assert got["skeleton"].headline and "“N * N = N”" in why and "25.0% of s in such groups" in why
    assert any(w.startswith("contradiction: by its own numbers sharpened") for w in got["sequence"].why)
    assert (
        "steps differ, and with them the very tokens" in got["skeleton"].why
        and "a distribution shift is not support expansion" in why
    )
    for level, outside in (("steps", 3), ("kinds", 4)):
        got = by_level({"strategy": strategy(representation=level)})
        assert [v.word for v in got.values()] == ["outside"] * outside + [U] * (6 - outside) and got[level].headline


@pytest.mark.parametrize(
    ("case", "needs"),
    [
        (strategy(representation="tfidf"), "at least two traces a problem"),  # wording alone certifies nothing here
        (strategy(representation="hidden"), "at least two traces a problem"),
        (strategy(0.2, certified=False, factor=2.5), "about 2.5 times the traces per problem"),
        (strategy(0.2, certified=False), "a coarser level"),
        (strategy(0.02, factor=1.2), "about 1.2 times"),  # certified by itself, not over five levels
        (strategy(0.02, factor=0.9), "about 1.1 times"),
        (strategy(k=16), "at least two traces"),  # another budget
    ],
)
def test_everything_else_leaves_the_skeletons_open(case, needs):
    got = by_level({"strategy": case})["skeleton"]
    assert got.word == U and needs in got.needs


def test_the_coarsest_level_of_a_branch_does_not_point_to_a_coarser_one():
    got = by_level({"strategy": strategy(0.2, certified=False, representation="kinds")})
    assert got["kinds"].needs == "no number of draws like these: no level of its branch is coarser"


def test_holm_over_the_levels():
    novel = support("outside", p_outside=0.02)
    assert words({"support": novel})[0] == U
    assert "not certified across the levels: Holm 0.1" in by_level({"support": novel})["sequence"].why
    assert words({"support": novel, "boundary": boundary(1e-6)})[0] == "outside"
    assert words({"support": novel, "strategy": strategy()}) == ("outside", "outside", U)
    assert words({"support": support("outside", p_outside=math.nan)})[0] == U


def preflight(check: str, *, source: str = "", passed: bool | None = False, gates: bool = True) -> Result:
    row = {"check": check, "source": source, "value": 0.5, "limit": 0.0, "passed": passed, "gates": gates}
    return Result("preflight", "", {}, {"checks": pd.DataFrame([row | {"note": "half of them; check --template"}])})


@pytest.mark.parametrize("check", ["engine", "tokens", "prompts", "base", "policy", "declared", "A/A"])
def test_a_failed_gate_gives_no_verdict_and_says_which(check):
    evidence = {"support": support("outside"), "strategy": strategy(), "boundary": boundary(1e-9)}
    assert words(evidence) == ("outside",) * 3
    for source in ("", "s", "base"):
        results = evidence | {"preflight": preflight(check, source=source)}
        got = by_level(results)
        assert words(results) == (U,) * 3 and got["sequence"].headline
        assert got["correct"].why[0] == "no verdict: a check before the tests failed"
        assert "0.5, limit 0; half of them; check --template" in got["correct"].why[1]
        assert got["sequence"].needs == f"inputs that pass the preflight: {check} (check --template)"


def test_what_does_not_gate_changes_no_word():
    evidence = {"support": support("inside"), "boundary": boundary()}
    for first in (
        preflight("truncated", source="s", gates=False),
        preflight("policy", source="other"),
        preflight("policy", source="s", passed=None),
        preflight("policy", source="s", passed=True),
        Result("preflight", "", {}, {"checks": pd.DataFrame(columns=["check"])}),
    ):
        assert words(evidence | {"preflight": first}) == ("inside",) * 3
        again = Result.from_json("preflight", first.as_json())
        assert words(evidence | {"preflight": again}) == ("inside",) * 3


def test_answers_do_not_rest_on_log_probs():
    assert words({"support": support("inside", k_min=180.0), "boundary": boundary(1e-9)})[2] == "outside"
    assert words({"support": support("inside", k_min=180.0), "boundary": boundary()}) == (U,) * 3


@pytest.mark.parametrize(
    ("carrier", "said"), [("word", "wording"), ("number", "numbers"), ("sign", "operators and signs"), ("", "token")]
)
def test_why_says_whether_wording_steps_or_answers_differ(carrier, said):
    more = {"carrier": carrier, "carried": "words 90% (20% of tokens); most by 'indeed' 30%"}
    case = support("outside", **more)
    why = by_level({"support": case})["sequence"].why
    assert "novelty carried by words 90% (20% of tokens); most by 'indeed' 30%" in why
    assert any(w.startswith(f"differs in its {said}") and "not shown" in w for w in why)
    both = by_level({"support": case, "boundary": boundary(1e-9)})["correct"].why
    assert "answers differ, and with them the very tokens" in both
    assert not any("carried" in w for w in by_level({"support": support("sharpened", carried="words")})["sequence"].why)
