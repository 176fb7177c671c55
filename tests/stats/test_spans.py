"""Spans against a loop that writes the definitions out; closed forms of hurdles and of the prefix curve."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.stats import spans


def excess(nats: float, k: float) -> float:
    return max(0.0, 1 - k * np.exp(-nats))


def slow(q_T, laws, ended: bool, ks, places, curves) -> dict:
    """One trace, by the definitions."""
    m = len(q_T) - ended

    def nats(a: int, b: int, whose=None) -> float:
        chosen = laws if whose is None else [laws[i] for i in whose]
        return q_T[a:b].sum() - max(p[a:b].sum() for p in chosen)

    hurdles, shares = np.zeros((2, len(ks))), np.zeros((2, len(ks)))
    for j, k in enumerate(ks):
        found = [excess(nats(t, t + 1), k) for t in range(m)]
        hurdles[0, j], shares[0, j] = sum(found), 1 - np.prod([1 - x for x in found])
        by_offset = []
        for offset in range(spans.SPAN):
            edges = sorted({0, *range(offset, m, spans.SPAN), m})
            by_offset.append([excess(nats(a, b), k) for a, b in zip(edges, edges[1:], strict=False)])
        hurdles[1, j] = np.mean([sum(found) for found in by_offset])
        shares[1, j] = np.mean([1 - np.prod([1 - x for x in found]) for found in by_offset])
    last = max(1, m - spans.STRETCH + 1)
    return {
        "hurdles_2NK": hurdles,
        "share_2NK": shares,
        "prefix_CWN": np.array([[nats(0, min(w, m), c) for w in places] for c in curves]),
        "q_N": q_T.sum(),
        "p_LN": np.array([p.sum() for p in laws]),
        "body_q_N": q_T[:m].sum(),
        "body_p_LN": np.array([p[:m].sum() for p in laws]),
        "stretch_N": max(nats(t, min(m, t + spans.STRETCH)) for t in range(last)) if m else 0.0,
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("law_count", [1, 3])
def test_measure_is_the_definition(seed, law_count):
    rng = np.random.default_rng(seed)
    n = np.r_[1, 1, 2, 3, 4, 5, spans.STRETCH, spans.STRETCH + 1, 90, rng.integers(1, 80, 6)]
    q = -rng.exponential(1, n.sum()).astype(np.float32)
    laws = [(q - rng.normal(0.3, 1.5, n.sum())).astype(np.float32) for _ in range(law_count)]
    ended, ks, places = rng.random(len(n)) < 0.5, (2.0, 4.0, 64.0), spans.places(int(n.max()))
    curves = [[0], list(range(law_count))]
    found = spans.measure(q, laws, n, ended, ks, places, curves)
    for i, (at, size) in enumerate(zip(n.cumsum() - n, n, strict=True)):
        own = slice(at, at + size)
        want = slow(
            q[own].astype(float), [p[own].astype(float) for p in laws], bool(ended[i]), ks, places.tolist(), curves
        )
        for name, value in want.items():
            got = getattr(found, name)
            got = got[i] if got.ndim == 1 else got[:, i] if name.startswith(("hurdles", "share")) else got[..., i]
            np.testing.assert_allclose(got, value, atol=2e-4, err_msg=f"{name} of trace {i}")
    assert (found.unknown_N == 0).all()
    # every span beyond the smallest budget is told, with the token of the largest l of its own
    assert len(found.spot_l) and (found.spot_l > np.log(2)).all() and (found.spot_at >= 0).all()
    assert (found.spot_at < (n - ended)[found.spot_trace]).all()


def test_a_trace_does_not_depend_on_its_company():
    rng = np.random.default_rng(7)
    n = rng.integers(1, 50, 20)
    q = -rng.exponential(1, n.sum()).astype(np.float32)
    p = (q - rng.normal(0.2, 1.5, n.sum())).astype(np.float32)
    ended, places = rng.random(20) < 0.5, spans.places(50)
    whole = spans.measure(q, [p], n, ended, (4.0,), places, [[0]])
    order = rng.permutation(20)
    pieces = [np.arange(a, a + s) for a, s in zip(n.cumsum() - n, n, strict=True)]
    at = np.concatenate([pieces[i] for i in order])
    mixed = spans.measure(q[at], [p[at]], n[order], ended[order], (4.0,), places, [[0]])
    for name in ("q_N", "end_N", "stretch_N", "unknown_N"):
        np.testing.assert_allclose(getattr(mixed, name), getattr(whole, name)[order], atol=1e-4)
    np.testing.assert_allclose(mixed.hurdles_2NK, whole.hurdles_2NK[:, order], atol=1e-6)
    np.testing.assert_allclose(mixed.prefix_CWN, whole.prefix_CWN[..., order], atol=1e-4)


def test_impossible_under_every_law_is_a_hurdle_and_under_one_is_none():
    q = np.zeros(6, np.float32)
    never = np.where(np.arange(6) == 3, -np.inf, 0).astype(np.float32)
    one = spans.measure(q, [never], np.array([6]), np.array([False]), (64.0,), spans.places(6), [[0]])
    assert one.hurdles_2NK[:, 0, 0].tolist() == [1, 1] and one.share_2NK[:, 0, 0].tolist() == [1, 1]
    both = spans.measure(q, [never, q], np.array([6]), np.array([False]), (64.0,), spans.places(6), [[0], [0, 1]])
    assert both.hurdles_2NK.max() == 0 and both.p_LN[0, 0] <= spans.IMPOSSIBLE and both.p_LN[1, 0] == 0
    assert (both.prefix_CWN[0, :, 0] > 9000).tolist() == [False] * 3 + [True] * 3


def test_an_unknown_token_counts_for_neither_side_and_is_counted():
    q = np.full(5, -1, np.float32)
    p = q - np.array([0, 9, 0, 0, 0], np.float32)
    p[1] = np.nan
    found = spans.measure(q, [p], np.array([5]), np.array([False]), (64.0,), spans.places(5), [[0]])
    assert found.hurdles_2NK.max() == 0 and found.unknown_N.tolist() == [1] and found.q_N[0] == found.p_LN[0, 0] == -4


def test_the_end_token_is_no_hurdle():
    q, n = np.zeros(4, np.float32), np.array([4])
    p = np.array([0, 0, 0, -9], np.float32)
    found = spans.measure(q, [p], n, np.array([True]), (64.0,), spans.places(4), [[0]])
    assert found.hurdles_2NK.max() == 0 and found.end_N[0] == 9
    assert found.body_p_LN[0, 0] == 0 and found.p_LN[0, 0] == -9
    assert spans.measure(q, [p], n, np.array([False]), (64.0,), spans.places(4), [[0]]).hurdles_2NK.min() > 0.99


def test_places_hold_every_early_token_and_the_last():
    places = spans.places(5000)
    assert places[: spans.FINE].tolist() == list(range(1, spans.FINE + 1)) and places[-1] == 5000
    assert (np.diff(places) > 0).all() and (places[1:] / places[:-1])[spans.FINE :].max() < 1.07
    assert spans.places(1).tolist() == [1]
