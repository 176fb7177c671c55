"""Planning is pure: every trace once, budgets kept, every token sees its own past, independent of the order given."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyzer.records import Trace
from analyzer.scoring.plan import choose, packs, units

# few ids, so that responses begin alike and some are the beginning of others
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple)
PROMPTS = st.sampled_from([(7,), (7, 8), (9, 9, 9, 9, 9), (9, 9, 9, 9, 5, 5), (9, 9, 9, 9)])
PAIRS = st.lists(st.tuples(PROMPTS, IDS), unique=True, min_size=1, max_size=25)


def pasts(pairs, budget, **options):
    """Pair -> for each response token (the ids and positions that it sees, itself included; what predicts it)."""
    kept: list[list[tuple[int, int]]] = []
    found = {n: [] for n in range(len(pairs))}
    for pack in packs(pairs, budget, **options):
        del kept[pack.depth :]
        before = [token for entry in kept for token in entry]
        seen: list[list[tuple[int, int]]] = []
        for s in pack.segments:
            own = list(zip(pack.ids_N[s.start : s.stop].tolist(), pack.position_N[s.start : s.stop].tolist()))
            above = before if s.parent < 0 else seen[s.parent]
            seen.append(above + own)
            parent_end = pack.segments[s.parent].end if s.parent >= 0 else len(pack.ids_N)
            assert s.start < s.stop <= s.end <= parent_end
        of_token = [(n, t - s.start) for n, s in enumerate(pack.segments) for t in range(s.start, s.stop)]
        for piece in pack.pieces:
            for a, b in piece.ranges:
                for t in range(a, b):
                    n, at = of_token[t]
                    s = pack.segments[n]
                    past = seen[n][: len(seen[n]) - (s.stop - s.start) + at + 1]
                    by = pack.before_N[t]
                    said = kept[-1][-1] if by == -1 else (int(pack.ids_N[by]), int(pack.position_N[by]))
                    found[piece.trace].append((past, said))
        if pack.keep:
            assert len(pack.segments) == 1
            kept.append([token for s in seen[:1] for token in s[len(before) :]])
        assert len(pack.ids_N) <= budget or len(pack.pieces) == 0
    return found


@given(PAIRS, st.integers(1, 40), st.sampled_from([0.0, 2.5, math.inf]))
def test_every_token_sees_its_prompt_and_its_own_past(pairs, budget, cost):
    for n, tokens in pasts(pairs, budget, segment_cost=cost).items():
        prompt, response = pairs[n]
        whole = list(zip(prompt + response, range(len(prompt + response))))
        assert len(tokens) == len(response)
        for i, (past, said) in enumerate(tokens):
            assert past == whole[: len(prompt) + i + 1]
            assert said == whole[len(prompt) + i - 1]


@given(PAIRS, st.integers(1, 40), st.randoms())
def test_the_order_of_the_pairs_changes_nothing(pairs, budget, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)

    def laid_out(some):
        return [
            (p.ids_N.tolist(), p.before_N.tolist(), p.segments, [(some[x.trace], x.ranges, x.last) for x in p.pieces])
            for p in packs(some, budget)
        ]

    assert laid_out(pairs) == laid_out(shuffled)


def test_prompts_are_computed_once_and_like_beginnings_where_that_pays():
    rng = np.random.default_rng(0)
    prompt = tuple(range(50))
    apart = [(prompt, tuple(rng.integers(0, 1000, 20).tolist())) for _ in range(8)]
    assert sum(len(p.ids_N) for p in packs(apart, 10_000)) == 50 + 8 * 20
    alike = [(prompt, tuple(range(16)) + tuple(rng.integers(0, 1000, 8).tolist())) for _ in range(8)]
    [pack] = packs(alike, 10_000)
    assert len(pack.ids_N) == 50 + 16 + 8 * 8
    fewshot = [(tuple(range(40)) + (n,), (1, 2, 3)) for n in range(5)]
    assert sum(len(p.ids_N) for p in packs(fewshot, 10_000)) == 40 + 5 * 4
    # what is saved must pay for the calls of its segments
    assert sum(len(p.ids_N) for p in packs(alike, 10_000, segment_cost=16.0)) == 50 + 8 * 24
    # a budget below the prompt keeps it, and streams the responses
    streamed = list(packs(apart, 45))
    assert sum(len(p.ids_N) for p in streamed) == 50 + 8 * 20 and [p.keep for p in streamed[:3]] == [True, True, False]


@given(PAIRS, st.integers(1, 60), st.integers(1, 9), st.randoms())
def test_units_hold_every_pair_once_within_their_limits_whatever_the_order(pairs, tokens, traces, random):
    cut = units(pairs, tokens=tokens, traces=traces)
    assert sorted(i for unit in cut for i in unit) == list(range(len(pairs)))
    for unit in cut:
        size = sum(len(pairs[i][1]) for i in unit) + sum(len(p) for p in {pairs[i][0] for i in unit})
        assert len(unit) == 1 or (size <= tokens and len(unit) <= traces)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    again = units(shuffled, tokens=tokens, traces=traces)
    assert [[pairs[i] for i in u] for u in cut] == [[shuffled[i] for i in u] for u in again]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 9)), unique=True),
    st.integers(1, 5),
    st.randoms(),
)
def test_choosing_takes_the_first_samples_of_every_cell(cells, at_most, random):
    traces = [Trace(s, p, n, "") for s, p, n in cells]
    shuffled = list(traces)
    random.shuffle(shuffled)
    chosen, over = choose(shuffled, at_most)
    assert Counter(t.key for t in chosen + over) == Counter(t.key for t in traces)
    for s in "ab":
        for p in "xy":
            numbers = sorted(t.sample for t in traces if (t.source, t.problem) == (s, p))
            assert sorted(t.sample for t in chosen if (t.source, t.problem) == (s, p)) == numbers[:at_most]


def test_no_limit_chooses_all_in_order():
    traces = [Trace("a", "x", n, "") for n in (3, 1, 2)]
    assert choose(traces, None) == (traces, [])
