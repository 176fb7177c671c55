"""The e-value has mean 1 under the base at any stopping time: by enumeration, not by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analyzer.stats import evalue


def model(prefix: tuple[int, ...]) -> np.ndarray:
    """Next-token probabilities over {0, 1, end} given the prefix; uneven, and changing with it."""
    logits = np.array([0.3 * len(prefix), sum(prefix) - 1.0, -1.0 + 0.7 * len(prefix)])
    return np.exp(logits) / np.exp(logits).sum()


def enumerate_world(longest: int) -> list[tuple[float, float]]:
    """(probability, log e) of every trace: ends at token 2, or is cut off after `longest` tokens."""
    out = []

    def walk(prefix: tuple[int, ...], p: float, s: list[float], h: list[float]) -> None:
        if (prefix and prefix[-1] == 2) or len(prefix) == longest:
            out.append((p, evalue.log_e(np.array(s), np.array(h))))
            return
        dist = model(prefix)
        renyi = 2 * np.log(np.sqrt(dist).sum())
        for token, q in enumerate(dist):
            walk((*prefix, token), p * q, [*s, -np.log(q)], [*h, renyi])

    walk((), 1.0, [], [])
    return out


@pytest.mark.parametrize("longest", [1, 3, 7])
def test_mean_one_at_the_end_token_and_at_a_length_limit(longest):
    world = enumerate_world(longest)
    assert sum(p for p, _ in world) == pytest.approx(1, abs=1e-12)
    assert sum(p * np.exp(e) for p, e in world) == pytest.approx(1, abs=1e-12)


def test_p_value_never_rejects_too_often_at_any_budget():
    p, e = np.array(enumerate_world(8)).T
    for level, k in itertools.product((0.01, 0.05, 0.2, 0.5), (1, 4, 16)):
        tilted = p * np.where(np.arange(len(p)) % 3 == 0, 1.0, 0.0)
        q = np.minimum(tilted / tilted.sum(), k * p)  # some mass within reach k
        assert q[evalue.p_value(e, k) <= level].sum() <= level + 1e-12
        assert p[evalue.p_value(e, 1) <= level].sum() <= level + 1e-12


def test_without_the_end_token_the_mean_is_not_one():
    """Why the docstring asks for the end token: dropping its factor breaks the martingale."""
    total = 0.0
    for length in range(8):
        for words in itertools.product((0, 1), repeat=length):
            p, s, h = 1.0, [], []
            for t in range(length):
                dist = model(words[:t])
                p *= dist[words[t]]
                s.append(-np.log(dist[words[t]]))
                h.append(2 * np.log(np.sqrt(dist).sum()))
            total += p * model(words)[2] * np.exp(evalue.log_e(np.array(s), np.array(h)))
    assert abs(total - 1) > 0.05


def test_p_value_form():
    got = evalue.p_value(np.array([-3.0, 0.0, np.log(100.0), np.nan, np.inf]), 4)
    assert got[:3] == pytest.approx([1, 1, 0.04]) and np.isnan(got[3]) and got[4] == 0
