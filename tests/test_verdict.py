"""The rules of the verdict on hand-made results: every word, every level, propagation, headline, what would decide."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analyzer.records import Estimate, Result
from analyzer.verdict import decide

NO_POLICY = Estimate(math.nan, note="the model that produced s is not known; give --policy s=MODEL")


def est(value: float, low: float, high: float, n: int = 4096) -> Estimate:
    return Estimate(value, low, high, n, "test")


ZERO, LARGE = est(0, 0, 0.001), est(0.6, 0.5, 0.7)


def support(
    reach: Estimate | None,
    plain: Estimate = ZERO,
    strict: Estimate = ZERO,
    *,
    side: str = "low",
    veto: float = 0.0,
    **more,
) -> Result:
    row = {
        "source": "s",
        "n": 4096,
        "problems": 64,
        "log_ratio_median": 3.0 if reach is not None else math.nan,
        "z_median": -0.5,
        "z_reference_median": 0.0,
        "side": side,
        "conformal_share": veto,
        "conformal_low": veto,
        "conformal_high": veto,
        "flagged_groups": "",
        "cut_share": 0.0,
        "k_min": 1.0,
        "certify": 1 if reach is not None else 4,
        "p_outside": 0.0005,
        "carrier": "",
        "carried": "",
    } | more
    estimates = {"s.novel@1": plain, "s.novel@4": strict, "s.reach@64": NO_POLICY if reach is None else reach}
    return Result("support", "", estimates, {"evidence": pd.DataFrame([row])})


def boundary(p: float = 1.0, factor: float = math.nan) -> Result:
    rows = [
        {
            "source": "s",
            "step": None,
            "group": "mul",
            "k": 64,
            "problems": 12,
            "c_source": 172,
            "n_source": 3072,
            "c_reference": 0,
            "n_reference": 3072,
            "source_only": 11,
            "reference_only": 0,
            "p": p / 2,
            "factor": factor,
            "p_holm": p,
        }
    ]
    return Result("boundary", "", {}, {"answer_test": pd.DataFrame(rows)})


def by_level(results: dict[str, Result], **options) -> dict:
    return {v.level: v for v in decide(results, sources=["base", "s"], reference="base", **options)}


def words(results: dict[str, Result], **options) -> tuple[str, str, str]:
    got = by_level(results, **options)
    return tuple(got[level].word for level in ("sequence", "strategy", "answer"))


def headline(results: dict[str, Result]) -> str:
    (head,) = [v for v in decide(results, sources=["s"], reference="base") if v.headline]
    return head.level


U = "undetermined"


@pytest.mark.parametrize(
    ("case", "want"),
    [
        (support(est(0, 0, 0.019)), "inside"),
        (support(est(0.001, 0, 0.021)), U),  # not shown to be within the tolerance, not shown to be beyond it
        (support(est(0.015, 0.01, 0.03)), U),
        (support(LARGE), "sharpened"),
        (support(LARGE, side="neutral"), "sharpened"),
        (support(LARGE, side="high"), U),
        (support(LARGE, side="unknown"), U),
        (support(LARGE, est(0.005, 0, 0.03)), U),  # novelty not excluded
        (support(LARGE, veto=0.2), U),  # the secondary test disagrees
        (support(LARGE, LARGE, ZERO), "outside"),
        (support(LARGE, LARGE, LARGE, side="low"), "outside"),
        (support(LARGE, est(0.015, 0.011, 0.02)), "outside"),  # lower bound above tau / 2
        (
            support(est(0.03, 0.015, 0.05), LARGE, LARGE),
            U,
        ),  # flagged, but reach is not shown to be beyond the tolerance
        (support(None), U),
        (support(None, LARGE, est(0.02, 0.009, 0.04)), U),
        (support(None, LARGE, est(0.03, 0.011, 0.05)), "outside"),
        (support(est(math.nan, math.nan, math.nan)), U),
        (support(est(0.6, math.nan, math.nan)), U),
    ],
    ids=str,
)
def test_sequence_words(case, want):
    assert words({"support": case})[0] == want


def test_reference_gets_no_verdict_and_each_source_one_headline():
    got = decide({"support": support(LARGE)}, sources=["base", "s", "t"], reference="base")
    assert [(v.source, v.level) for v in got] == [
        (s, level) for s in ("s", "t") for level in ("sequence", "strategy", "answer")
    ]
    assert all(sum(v.headline for v in got if v.source == s) == 1 for s in ("s", "t")) and {v.budget for v in got} == {
        64
    }


def test_inside_holds_at_coarser_levels():
    results = {"support": support(ZERO), "boundary": boundary()}
    assert words(results) == ("inside",) * 3 and headline(results) == "sequence"
    assert "inside at the strategy level, and coarsening only lowers the excess" in by_level(results)["answer"].why
    assert by_level(results)["strategy"].needs is None and by_level(results)["answer"].needs is None


def test_without_an_event_inside_speaks_of_these_problems():
    got = by_level({"support": support(ZERO)})["sequence"]
    assert "no trace beyond 64 draws: the bound 0.001 is for these 64 problems, not for new ones" in got.why
    assert got.needs.startswith("a new problem on which it departs (for new problems the bound is 0.046; 149 problems")
    many = by_level({"support": support(ZERO, problems=149)})["sequence"]
    assert many.needs is None and any(w.endswith("149 problems, and for new ones 0.020") for w in many.why)
    some = by_level({"support": support(est(0.001, 0, 0.01))})["sequence"]
    assert some.word == "inside" and some.needs is None and not any("new ones" in w for w in some.why)


def test_outside_holds_at_finer_levels_and_the_contradiction_is_printed():
    results = {"support": support(LARGE), "boundary": boundary(1e-6)}
    assert words(results) == ("outside",) * 3 and headline(results) == "answer"
    assert any(
        w.startswith("contradiction: by its own numbers sharpened at the sequence level")
        for w in by_level(results)["sequence"].why
    )
    assert words({"support": support(ZERO), "boundary": boundary(1e-6)}) == ("outside",) * 3
    # alone among three levels: Holm asks for .05 / 3
    assert (
        words({"boundary": boundary(0.0166)}) == ("outside",) * 3 and words({"boundary": boundary(0.0167)}) == (U,) * 3
    )


def test_outside_by_its_tokens_says_nothing_about_coarser_levels():
    results = {"support": support(LARGE, LARGE, LARGE, flagged_groups="mul 62 of 768"), "boundary": boundary(0.4, 1.6)}
    assert words(results) == ("outside", U, U) and headline(results) == "sequence"
    got = by_level(results)
    assert got["sequence"].why[-1] == "by level: wording outside, steps undetermined, answers undetermined"
    line = "beyond reach and of high surprisal (p = 0.0005, Holm over levels 0.0015; flagged: mul 62 of 768)"
    assert line in got["sequence"].why
    assert (
        got["answer"].needs == "about 1.6 times the samples per problem in group mul on both sides, if the rates stay"
    )
    assert got["answer"].why[0] == "group mul: 172 of 3,072 correct against 0 of 3,072 (p = 0.2, Holm 0.4)"


def test_why_names_the_numbers():
    why = by_level({"support": support(LARGE, cut_share=0.1)})["sequence"].why
    assert "E_64 = 0.600 [0.500, 0.700] over 4,096 traces" in why
    assert "flagged as novel: 0.0 % [0.0, 0.1] at k=1, 0.0 % [0.0, 0.1] at k=4 (n = 4,096)" in why
    assert (
        "excess surprisal z: median -0.50, reference 0.00; side low" in why
        and "log-ratio: median 3.00 nats (budget: 4.16)" in why
    )
    assert "10.0% of the traces are cut off at the length limit; this speaks of their sampled part" in why


def test_needs_say_what_would_decide():
    assert by_level({})["sequence"].needs == "--base MODEL" and words({}) == (U,) * 3
    assert (
        by_level({"support": support(None)})["sequence"].needs
        == "--policy s=MODEL (log q decides between inside and sharpened)"
    )
    assert (
        by_level({"support": support(est(0, 0, 0.04, 100))})["sequence"].needs
        == "about 2 times the problems or traces (100 now), if E_64 stays at 0.000"
    )
    assert "conformal" in " ".join(by_level({"support": support(LARGE, veto=0.2)})["sequence"].why)
    assert "disagree" in by_level({"support": support(LARGE, veto=0.2)})["sequence"].needs
    assert "correctness of s and the reference" in by_level({"support": support(LARGE)})["answer"].needs
    assert "no group exceeds 64 times" in by_level({"boundary": boundary(1.0)})["answer"].needs


def test_only_the_last_step_is_tested_at_the_answer_level():
    early, late = (boundary(p).tables["answer_test"].assign(step=s) for p, s in ((1e-9, 100), (1.0, 300)))
    result = Result("boundary", "", {}, {"answer_test": pd.concat([late, early], ignore_index=True)})
    assert words({"boundary": result}) == (U, U, U)
    late.loc[:, "p_holm"] = 1e-9
    assert words({"boundary": Result("boundary", "", {}, {"answer_test": pd.concat([early, late])})})[2] == "outside"


def test_clusters_are_named_and_certify_nothing():
    clusters = Result("clusters", "", {"s.novel_cluster_mass": est(0.9, 0.8, 1.0)})
    got = by_level({"support": support(LARGE), "clusters": clusters})["strategy"]
    assert got.word == U and "90.0 % [80.0, 100.0]" in got.why[0] and "descriptive" in got.why[0] and got.needs


def test_tolerance_and_budget_are_the_callers():
    case = {"support": support(est(0.03, 0.025, 0.04))}
    assert words(case)[0] == "sharpened" and words(case, tau=0.05)[0] == "inside"
    assert words(case, budget=16)[0] == U  # no estimate at that budget


def test_a_wider_interval_never_makes_a_verdict_firmer():
    """Widening every interval may only move a word to undetermined."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        center, share = rng.choice([0, 0.01, 0.02, 0.1, 0.6]), rng.choice([0, 0.01, 0.05, 0.5])
        narrow, wide = rng.random() * 0.02, rng.random() * 0.4 + 0.02

        def make(half: float, x: float) -> Estimate:
            return est(x, max(0, x - half), min(1, x + half))

        side = rng.choice(["low", "high"])
        tight = words({"support": support(make(narrow, center), make(narrow, share), make(narrow, share), side=side)})[
            0
        ]
        loose = words({"support": support(make(wide, center), make(wide, share), make(wide, share), side=side)})[0]
        assert loose in (tight, U)


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


def test_skeletons_certify_the_strategy_level():
    got = by_level({"support": support(LARGE), "strategy": strategy()})
    assert [got[level].word for level in ("sequence", "strategy", "answer")] == ["outside", "outside", U]
    assert got["strategy"].headline and "'N * N = N'" in " ".join(got["strategy"].why)
    assert "25.0% of s in such clusters" in " ".join(got["strategy"].why)
    assert any(w.startswith("contradiction: by its own numbers sharpened") for w in got["sequence"].why)
    assert "steps differ, and with them wording; answers are not shown to differ" in got["strategy"].why
    assert "a change is not a leaving" in " ".join(got["strategy"].why)


@pytest.mark.parametrize(
    ("case", "needs"),
    [
        (strategy(representation="tfidf"), "at least two traces per problem"),  # wording alone certifies nothing here
        (strategy(representation="hidden"), "at least two traces per problem"),
        (strategy(0.2, certified=False, factor=2.5), "about 2.5 times the traces per problem"),
        (strategy(0.2, certified=False), "no kind of solution exceeds 64 times the reference's share"),
        (strategy(0.02, factor=1.2), "about 1.2 times"),  # certified by itself, not over three levels
        (strategy(k=16), "at least two traces"),  # another budget
    ],
)
def test_everything_else_leaves_the_strategy_level_open(case, needs):
    got = by_level({"strategy": case})["strategy"]
    assert got.word == U and needs in got.needs


def test_holm_over_the_levels():
    novel = support(LARGE, LARGE, LARGE, p_outside=0.02)
    assert words({"support": novel})[0] == U
    got = by_level({"support": novel})["sequence"]
    assert "novelty is not certified across the levels: p = 0.02, Holm over levels 0.06" in got.why
    assert words({"support": novel, "boundary": boundary(1e-6)})[0] == "outside"
    assert words({"support": novel, "strategy": strategy()}) == ("outside", "outside", U)
    assert words({"support": support(LARGE, LARGE, LARGE, p_outside=math.nan)})[0] == U


def preflight(check: str, *, source: str = "", passed: bool | None = False, gates: bool = True) -> Result:
    row = {"check": check, "source": source, "value": 0.5, "limit": 0.0, "passed": passed, "gates": gates}
    return Result("preflight", "", {}, {"checks": pd.DataFrame([row | {"note": "half of them; check --template"}])})


@pytest.mark.parametrize("check", ["engine", "tokens", "prompts", "base", "policy", "A/A"])
def test_a_failed_gate_gives_no_verdict_and_says_which(check):
    evidence = {"support": support(LARGE, LARGE, LARGE), "strategy": strategy(), "boundary": boundary(1e-9)}
    assert words(evidence) == ("outside",) * 3
    for source in ("", "s", "base"):
        results = evidence | {"preflight": preflight(check, source=source)}
        got = by_level(results)
        assert words(results) == (U,) * 3 and got["sequence"].headline
        assert got["answer"].why[0] == "no verdict: a check before the tests failed"
        assert "0.5, limit 0; half of them; check --template" in got["answer"].why[1]
        assert got["sequence"].needs == f"inputs that pass the preflight: {check} (check --template)"


def test_what_does_not_gate_changes_no_word():
    evidence = {"support": support(ZERO), "boundary": boundary()}
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


def test_a_budget_below_the_engine_floor_is_undetermined():
    for reach in (ZERO, LARGE, None):
        got = by_level({"support": support(reach, LARGE, LARGE, k_min=180.0)})["sequence"]
        assert got.word == U and "k_min = 180 > 64" in got.why[0] and got.needs.startswith("--budget 180")
    assert words({"support": support(ZERO, k_min=60.0)})[0] == "inside"
    # answers don't rest on log-probs
    assert words({"support": support(ZERO, k_min=180.0), "boundary": boundary(1e-9)})[2] == "outside"


def test_above_the_engine_floor_the_next_budget_of_novelty_counts():
    case = support(None, LARGE, LARGE, k_min=20.0, certify=64)
    case.estimates["s.novel@64"] = ZERO
    assert words({"support": case})[0] == U
    case.estimates["s.novel@64"] = LARGE
    got = by_level({"support": case})["sequence"]
    assert got.word == "outside" and any("novelty certified at k=64" in w for w in got.why)


@pytest.mark.parametrize(
    ("carrier", "said"), [("word", "wording"), ("number", "numbers"), ("sign", "operators and signs"), ("", "token")]
)
def test_why_says_whether_wording_steps_or_answers_differ(carrier, said):
    case = support(LARGE, LARGE, LARGE, carrier=carrier, carried="words 90% (20% of tokens); most by 'indeed' 30%")
    why = by_level({"support": case})["sequence"].why
    assert "novelty carried by words 90% (20% of tokens); most by 'indeed' 30%" in why
    assert any(w.startswith(f"differs in its {said}") and "not shown" in w for w in why)
    both = by_level({"support": case, "boundary": boundary(1e-9)})["answer"].why
    assert "answers differ, and with them steps and wording" in both
    assert not any("carried" in w for w in by_level({"support": support(LARGE, carried="words")})["sequence"].why)


def test_exits_beside_reach_are_a_printed_contradiction():
    case = support(ZERO)
    case.estimates["s.sampler_inside"], case.estimates["base.sampler_inside"] = est(0.5, 0.4, 0.6), est(1.0, 0.99, 1.0)
    got = by_level({"support": case})["sequence"]
    assert got.word == "inside" and any(w.startswith("contradiction: within reach at T=1") for w in got.why)
    case.estimates["s.sampler_inside"] = Estimate(0.5, 0.4, 0.6, 10, "", "drawn with another sampler")
    assert not any("contradiction" in w for w in by_level({"support": case})["sequence"].why)
