"""The laws that a trace is held against: which of them count, and that columns and rows tell the same of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.support import brought, laws, local
from analyzer.analysis.support import run as support
from analyzer.records import POWERS, Sampler, Tables
from validation import bigram as B

PLAIN, WARM, CUT = Sampler(), Sampler(0.6), Sampler(0.6, 0.95)
V, PROBLEMS, N, LONGEST = 12, 4, 3, 20


def made(sources: dict[str, tuple[Sampler, bool]], reference: Sampler = PLAIN, *, seed: int = 0, stop=0.05) -> Tables:
    """A small world: source -> its sampler, and whether it is the base's own weights; the others are perturbed."""
    rng = np.random.default_rng(seed)
    base = B.law(rng, V, 1.5, stop=stop)
    other = B.normalised(base + np.where(np.isfinite(base), 0.5 * rng.normal(size=base.shape), 0.0))
    found = {"base": B.Made(B.draw(rng, [B.Component(1, B.sampled(base, reference))], PROBLEMS, N, LONGEST), reference)}
    for name, (sampler, same) in sources.items():
        own = base if same else other
        d = B.draw(rng, [B.Component(1, B.sampled(own, sampler))], PROBLEMS, N, LONGEST)
        found[name] = B.Made(d, sampler, same, {}, own)
    return B.tables(base, found, reference_sampler=reference)


def by_key(parts) -> dict[str, tuple]:
    """key -> its token ids, log q and laws, cut out of the parts."""
    out = {}
    for p in parts:
        ends = p.lengths_N.cumsum()
        for i, key in enumerate(p.key_N):
            own = slice(ends[i] - p.lengths_N[i], ends[i])
            out[key] = (p.token_T[own], p.q_T[own], {n: v[own] for n, v in p.laws.items()}, bool(p.ended_N[i]))
    return out


def same(a: dict[str, tuple], b: dict[str, tuple], names=None, atol=0.0) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key][0], b[key][0]) and a[key][3] == b[key][3]
        np.testing.assert_allclose(a[key][1], b[key][1], atol=atol)
        for name in names or a[key][2]:
            np.testing.assert_allclose(a[key][2][name], b[key][2][name], atol=atol, err_msg=name)


@pytest.mark.parametrize(("here", "there"), list(itertools.product([PLAIN, WARM, CUT, None], repeat=2)))
@pytest.mark.parametrize("weights", ["same", "other", "base"])
def test_the_laws_that_count(here, there, weights):
    """T = 1 always; the reference's sampler where it is another; the source's where it is another than both and not
    its own law under another name."""
    policy = "base" if weights == "base" else "policy-s"
    samplers = {k: v for k, v in (("base", there), ("s", here)) if v is not None}
    engines = {"base": {"fingerprint": "x"}, "policy-s": {"fingerprint": "x" if weights == "same" else "y"}}
    empty = pd.DataFrame(columns=["key", "source"])
    tables = Tables(
        empty, empty, lambda m, c: iter(()), "base", "base", {"base": "base", "s": policy}, samplers, engines
    )
    assert laws.same_weights(tables, "s") == (weights != "other")
    want = ["T=1"]
    if there not in (None, PLAIN):
        want.append(laws.REFERENCE)
    if here not in (None, PLAIN, there) and weights == "other":
        want.append(laws.SOURCE)
    assert laws.counted(tables, "s") == want


def test_weights_of_unknown_models_are_not_the_bases():
    tables = made({"s": (PLAIN, False)})
    assert not laws.same_weights(replace(tables, engines={}), "s") and laws.same_weights(tables, "base")
    assert not laws.same_weights(tables, "nobody") and not laws.same_weights(replace(tables, base=None), "base")


def test_names_of_temperatures_and_their_exponents():
    assert [laws.temperature(a) for a in (1.0, *POWERS)] == ["T=1", "T=0.8", "T=0.6", "T=0.4", "T=0.2", "T=0.1"]
    for a in POWERS:
        assert laws.exponent(laws.temperature(a)) == pytest.approx(a, rel=1e-3)
    assert laws.exponent(laws.REFERENCE) == laws.exponent(laws.SOURCE) == 0


def test_parts_hold_the_exact_laws_of_the_world():
    """Every temperature, the reference's and the source's sampler, token by token, from the law's own table."""
    tables = made({"s": (CUT, False), "again": (WARM, True), "cool": (CUT, True)}, WARM)
    rng = np.random.default_rng(0)
    base = B.law(rng, V, 1.5, stop=0.05)
    found = by_key(laws.parts(tables))
    assert len(found) == 4 * PROBLEMS * N
    for key, (token, q, known, ended) in found.items():
        source, problem = key.split("/")[:2]
        before = np.r_[int(problem[1:]) % (V - 1), token[:-1]]
        want = {laws.temperature(a): B.sampled(base, Sampler(1 / a)) for a in (1.0, *POWERS)}
        want[laws.REFERENCE] = B.sampled(base, WARM)
        if source in ("s", "cool"):
            want[laws.SOURCE] = B.sampled(base, CUT)
        assert set(known) == set(want)
        for name, law in want.items():
            np.testing.assert_allclose(known[name], law[before, token], atol=2e-5, err_msg=f"{key} {name}")
        assert ended == (token[-1] == V - 1)
        if source in ("base", "again"):  # the base's own weights with the reference's sampler
            np.testing.assert_allclose(q, known[laws.REFERENCE], atol=0)


def test_old_runs_without_temperatures_keep_what_they_know():
    tables = made({"s": (CUT, False)}, WARM)
    old = replace(tables, engines={m: {k: v for k, v in e.items() if k != "powers"} for m, e in tables.engines.items()})
    found = by_key(laws.parts(old))
    assert {frozenset(known) for key, (_, _, known, _) in found.items() if key.startswith("s/")} == {
        frozenset(["T=1", laws.REFERENCE, laws.SOURCE])
    }
    names = ["T=1", laws.REFERENCE]
    same({k: v for k, v in found.items()}, by_key(laws.parts(tables)), names)
    nothing = replace(tables, engines={m: e | {"powers": None} for m, e in tables.engines.items()})
    same(by_key(laws.parts(nothing)), found)


def test_a_column_that_some_traces_lack_is_no_law_of_them():
    tables = made({"s": (PLAIN, False)})

    def holed(model, columns):
        for part in tables.tokens(model, columns):
            if "power_2.5" in columns:
                values = [None if k.endswith("/0") else v for k, v in zip(part["key"], part["power_2.5"], strict=True)]
                part = part.assign(**{"power_2.5": pd.Series(values, dtype=object, index=part.index)})
            yield part

    for p in laws.parts(replace(tables, tokens=holed)):
        assert "T=0.4" not in p.laws and {"T=1", "T=0.8", "T=0.2"} <= set(p.laws)


def test_a_source_whose_tokens_are_missing_has_no_part():
    tables = made({"s": (PLAIN, False), "t": (PLAIN, False)})

    def without(model, columns):
        for part in tables.tokens(model, columns):
            if model == "policy-s":
                part = part.assign(**{c: None for c in columns})
            yield part

    found = by_key(laws.parts(replace(tables, tokens=without)))
    assert {k.split("/")[0] for k in found} == {"base", "t"}
    gone = (tables.scores["model"] == "policy-t") & (tables.scores["sample"] == 0)
    some = replace(tables, scores=tables.scores[~gone])
    mine = [k for k in by_key(laws.parts(some)) if k.startswith("t/")]
    assert len(mine) == PROBLEMS * (N - 1)
    # tokens that the two count differently are no ratio
    other = tables.scores.assign(n_tokens=tables.scores["n_tokens"] + (tables.scores["model"] == "policy-t"))
    assert not any(k.startswith("t/") for k in by_key(laws.parts(replace(tables, scores=other))))


def test_portions_change_nothing(monkeypatch):
    tables = made({"s": (CUT, False), "t": (PLAIN, False), "cool": (CUT, True)}, WARM)
    whole = by_key(laws.parts(tables))
    for held, batch in ((1, 4096), (60, 4096), (1 << 28, 1), (37, 2)):
        monkeypatch.setattr(laws, "HELD", held)
        monkeypatch.setattr(laws, "BATCH", batch)
        parts = list(laws.parts(tables))
        assert sum(len(p.key_N) for p in parts) == len(whole)
        same(by_key(parts), whole)


def rows_of(tables: Tables, *, temperatures=(1.0, *(1 / a for a in POWERS)), masks=None) -> Tables:
    """The same numbers as rows bring them, and no model: policies' log q and base log-probs by temperature."""
    frames = []
    for p in laws.parts(tables):
        ends = p.lengths_N.cumsum()
        head = tables.traces.set_index("key")
        for i, key in enumerate(p.key_N):
            own = slice(ends[i] - p.lengths_N[i], ends[i])
            row = {"key": key, "source": p.source, "problem": p.problem_N[i], "finish": head.at[key, "finish"]}
            row |= {"token": p.token_T[own], "logprob_q": p.q_T[own], "logprobs_temperature": np.nan}
            row["laws"] = {t: p.laws[laws.temperature(1 / t)][own] for t in temperatures}
            row["written"] = None if masks is None else masks(key, len(p.token_T[own]))
            frames.append(row)
    frame = pd.DataFrame(frames)
    numbers = lambda: iter([frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :]])  # noqa: E731
    scores = tables.scores.iloc[:0]
    return replace(tables, base=None, policies={}, engines={}, scores=scores, numbers=numbers, memo={})


@pytest.mark.parametrize(("here", "there"), [(PLAIN, PLAIN), (WARM, WARM), (PLAIN, WARM), (WARM, PLAIN)])
def test_rows_that_bring_the_same_numbers_make_the_same_parts(here, there):
    tables = made({"s": (here, False)}, there, stop=0.3)
    rows = rows_of(tables)
    assert all(k.brought and not k.reason for k in laws.known(rows).values())
    one, two = by_key(laws.parts(tables)), by_key(laws.parts(rows))
    assert brought.ends(rows).ids == {V - 1}
    same(one, two, ["T=1", "T=0.6"])
    for key, (_, _, known, _) in two.items():  # a sampler that both share may be named twice
        assert known.keys() - {laws.SOURCE} == one[key][2].keys() - {laws.SOURCE}
        for name in known.keys() & one[key][2].keys():
            np.testing.assert_allclose(known[name], one[key][2][name], atol=2e-5, err_msg=name)
    mine, theirs = (local.measured(t, 8).frame.sort_index() for t in (tables, rows))
    for name in ("log_q", "p:T=1", "hurdles1@8", "share4@8", "n", "ended"):
        np.testing.assert_allclose(mine[name].astype(float), theirs.loc[mine.index, name].astype(float), atol=1e-4)


def test_the_last_step_alone_is_taken_of_rows_too():
    tables = rows_of(made({"s": (PLAIN, False)}))
    late = tables.traces["sample"] > 0
    step = pd.array(np.where(late, 20, 10), dtype="Int64")
    stepped = replace(tables, traces=tables.traces.assign(step=step), memo={})
    assert {k.split("/")[2] for k in by_key(laws.parts(stepped))} == {"1", "2"}


def test_a_temperature_that_some_trace_lacks_is_no_law_of_its_source():
    tables = rows_of(made({"s": (PLAIN, False)}))
    frames = list(tables.numbers())
    first = frames[-1].index[-1]
    held = pd.concat(frames)
    held.at[first, "laws"] = {t: v for t, v in held.at[first, "laws"].items() if abs(t - 0.4) > 1e-9}
    found = by_key(laws.parts(replace(tables, numbers=lambda: iter([held]), memo={})))
    source = held.at[first, "source"]
    for key, (_, _, known, _) in found.items():
        assert ("T=0.4" in known) == (not key.startswith(f"{source}/")) and "T=0.2" in known


def test_what_the_policy_did_not_write_is_left_out():
    """A masked token is no token of the trace, whatever stands there; unmasked unknown ones are counted. Places are
    those of the response as it stands."""

    def masks(key, n):
        return np.arange(n) != 1 if key.startswith("s/") and n > 1 else None

    world = made({"s": (PLAIN, False)})
    tables = rows_of(world, masks=masks)
    frame = pd.concat(list(tables.numbers())).reset_index(drop=True)

    def holed(values, written):
        return values if written is None else np.where(written, values, np.nan).astype(np.float32)

    frame["logprob_q"] = [holed(v, w) for v, w in zip(frame["logprob_q"], frame["written"], strict=True)]
    frame["laws"] = [{t: holed(v, w) for t, v in own.items()} for own, w in zip(frame["laws"], frame["written"])]
    masked = replace(tables, numbers=lambda: iter([frame]), memo={})
    whole = by_key(laws.parts(world))
    for key, (token, q, known, _) in by_key(laws.parts(masked)).items():
        kept = np.ones(len(whole[key][1]), bool)
        kept[1:2] = not key.startswith("s/")
        assert np.array_equal(token, whole[key][0][kept]) and np.array_equal(q, whole[key][1][kept])
        assert all(len(v) == kept.sum() for v in known.values())
    for p in laws.parts(masked):
        first = p.lengths_N.cumsum() - p.lengths_N
        assert p.position_T is None or set(p.position_T[first[p.lengths_N > 1] + 1]) == {2}
        assert (p.position_T is None) == (p.source == "base")
    assert (local.measured(masked, 8).frame["unknown"] == 0).all()
    bare = replace(masked, numbers=lambda: iter([frame.assign(written=None)]), memo={})
    unknown = local.measured(bare, 8).frame["unknown"]
    long = {k for k, v in whole.items() if k.startswith("s/") and len(v[0]) > 1}
    assert (unknown.loc[sorted(long)] == 1).all() and unknown.drop(sorted(long)).eq(0).all()


def test_a_trace_of_which_nothing_was_written_is_not_measured():
    tables = rows_of(
        made({"s": (PLAIN, False)}), masks=lambda key, n: np.zeros(n, bool) if key == "s/p0001/0" else None
    )
    found = by_key(laws.parts(tables))
    assert "s/p0001/0" not in found and len(found) == 2 * PROBLEMS * N - 1 and brought.said(tables)["s"].rows == 11
    nothing = rows_of(made({"s": (PLAIN, False)}), masks=lambda key, n: np.zeros(n, bool))
    assert laws.known(nothing)["s"].reason == "no row of s has a token that its policy wrote"


def ends(*rows: tuple[list[int], str | None], source: str = "base", more: pd.DataFrame | None = None) -> set[int]:
    frame = pd.DataFrame({"token": [np.array(t, np.int32) for t, _ in rows], "finish": [f for _, f in rows]})
    frame = pd.concat([frame.assign(source=source), more])
    empty = pd.DataFrame(columns=["key", "source"])
    tables = Tables(empty, empty, lambda m, c: iter(()), "base", numbers=lambda: iter([frame]))
    return set(brought.ends(tables).ids)


def test_the_end_token_is_told_by_where_it_stands():
    assert ends(([1, 2, 9], "stop"), ([3, 9], "stop")) == {9}
    assert ends(([1, 9], "stop"), ([3, 9, 4], "stop"), ([5, 9], "stop")) == {9}  # one inside does not take it away
    assert ends(([9, 9, 1, 9], "stop"), ([3, 9], "stop")) == set()  # as often inside as at the end
    assert ends(([1, 9], "stop"), ([3, 8], "stop"), ([3, 7], "stop")) == set()  # not half of them
    assert ends(([1, 9], "stop"), ([3, 8], "stop")) == {8, 9}  # two ways to end
    assert ends(([1, 9], "stop"), ([3, 9], "length")) == set()  # cut: its last token is one as any
    assert ends(([1, 9], "stop"), ([3, 4], "length"), ([5], "length")) == {9}
    assert ends(([], "stop"), ([9], "stop")) == {9} and ends() == set()
    assert ends(([1, 2, 9], "stop"), ([3, 9], "stop"), source="s") == {9}  # where the reference brings none
    other = pd.DataFrame({"token": [np.array([1, 8], np.int32)], "finish": ["stop"], "source": ["s"]})
    assert ends(([3, 9], "stop"), more=other) == {9}  # where it does, it decides
    assert ends(([3, 9], "stop"), *[([4, 5], None)] * 9) == {9}  # what is said to have stopped tells more
    assert ends(*[([3, 9], None)] * 2, *[([4, i], None) for i in range(5)]) == set()


def test_what_may_be_the_end_of_a_trace_is_its_end():
    last, finish = np.array([9, 5, 5, 5]), np.array(["length", "stop", None, "length"], object)
    assert brought.ended(last, finish, brought.Ends(frozenset([9]))).tolist() == [True, True, False, False]
    assert brought.ended(last, finish, brought.Ends(frozenset())).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("said", "sampler", "why"),
    [
        ({None}, WARM, ""),  # nothing said: with the sampler that is declared
        ({1.0}, PLAIN, ""),
        ({0.6}, WARM, ""),
        ({0.6, None}, WARM, ""),  # some say it, the others have them with the sampler
        ({float(np.float32(0.6))}, WARM, ""),  # through float32
        ({1.0}, WARM, "the log-probs of s are at temperature 1 without truncation, its traces were drawn with T=0.6"),
        ({0.6}, CUT, "drawn with T=0.6, top-p 0.95: no log q"),
        ({0.6, None}, CUT, "drawn with T=0.6, top-p 0.95: no log q"),
        ({1.0, 0.6}, WARM, "the log-probs of s are at several temperatures: 0.6, 1"),
        ({1.0, 0.6}, None, "at several temperatures (0.6, 1), and no sampler is declared"),
        ({1.0, None}, None, "at 1 in some rows and at an unknown temperature in others"),
        ({None}, None, "the sampler of s is not known; give --sampler s=T"),
    ],
)
def test_why_log_probs_of_rows_are_not_those_of_the_law_that_drew(said, sampler, why):
    found, needs = brought.why_not(brought.Said(frozenset(said), rows=1), sampler, "s")
    assert (why in found and needs) if why else found == needs == ""


@pytest.mark.parametrize(
    ("stated", "why", "needs"),
    [
        ({"temperature 0"}, "s was drawn at temperature 0 (greedily)", "s drawn again with a temperature above 0"),
        ({"temperature 0", "T=1"}, "s was drawn at temperature 0", "drawn again"),
        ({"top-p 0.5 without a temperature"}, "state top-p 0.5 without a temperature", "response_logprobs under it"),
        (
            {"T=1, repetition_penalty 1.6 (which no sampler here has)"},
            "state T=1, repetition_penalty 1.6 (which no sampler here has), so that its log-probs are not",
            "after that setting",
        ),
        ({"T=0.3", "T=0.4"}, "state several samplers (T=0.3; T=0.4)", "under a label of their own (LABEL=FILE)"),
        ({"T=1", ""}, "only some rows of s state a sampler (T=1)", "--sampler s=T"),
    ],
)
def test_a_sampler_that_is_stated_and_not_usable_leaves_nothing_to_assume(stated, why, needs):
    """At logprobs_temperature 1, which is taken for the sampler only where rows say nothing at all."""
    found = brought.why_not(brought.Said(frozenset([1.0]), frozenset(stated), rows=1), None, "s")
    assert why in found[0] and needs in found[1]
    tables = rows_of(made({"s": (PLAIN, False)}))
    frame = pd.concat(list(tables.numbers())).assign(logprobs_temperature=1.0)
    words = sorted(stated)
    said = frame.assign(stated=[words[i % len(words)] if s == "s" else "" for i, s in enumerate(frame["source"])])
    bare = replace(tables, samplers={}, numbers=lambda: iter([said]), memo={})
    assert laws.assumed(bare) == {"base": PLAIN} and laws.known(bare)["s"].reason == found[0]


def test_a_model_knows_more_than_rows():
    scored = made({"s": (PLAIN, False)})
    numbers = rows_of(scored).numbers
    both = replace(scored, numbers=numbers, memo={})
    assert laws.known(both)["s"] == laws.Known("", "policy-s")
    partly = replace(both, policies={"base": "base"}, memo={})
    assert laws.known(partly)["s"].brought and laws.known(partly)["base"] == laws.Known("", "base")
    same(by_key(laws.parts(partly)), by_key(laws.parts(scored)), ["T=1", "T=0.4"])
    unknown = laws.known(replace(scored, policies={"base": "base"}, memo={}))["s"].reason
    assert unknown == "the model that produced s is not known; give --policy s=MODEL"


def test_beside_a_scored_base_the_rows_own_numbers_make_the_word():
    """Base scored, no policy model: log q comes from the rows, and the row of evidence has all bounds."""
    scored = made({"s": (PLAIN, False)})
    partly = replace(scored, numbers=rows_of(scored).numbers, policies={"base": "base"}, memo={})
    evidence = (support.run(t, budget=8, draws=50).tables["evidence"] for t in (partly, scored))
    row, whole = (e.set_index("source").loc["s"] for e in evidence)
    assert row["no_log_q"] == whole["no_log_q"] == ""
    for name in ("inside_value", "inside_high", "beyond_low", "share_high"):
        assert row[name] == pytest.approx(whole[name], abs=1e-3)
