"""Planning is pure: every trace once, budgets kept, independent of the order given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analyzer.plan import batches, choose
from analyzer.records import Trace


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_item_once_within_the_budget(lengths, budget):
    cut = batches(lengths, budget)
    assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
    for batch in cut:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


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
    assert {t.key for t in chosen} | {t.key for t in over} == {t.key for t in traces}
    for s in "ab":
        for p in "xy":
            numbers = sorted(t.sample for t in traces if (t.source, t.problem) == (s, p))
            assert sorted(t.sample for t in chosen if (t.source, t.problem) == (s, p)) == numbers[:at_most]


def test_no_limit_chooses_all_in_order():
    traces = [Trace("a", "x", n, "") for n in (3, 1, 2)]
    assert choose(traces, None) == (traces, [])
