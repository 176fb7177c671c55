"""V7: cluster reach, clusters from one half of the traces, counts from the other; and what unsplit data do."""

from __future__ import annotations

import numpy as np

from analyzer.stats import budget, cluster_reach
from validation import worlds
from validation.change import bigrams
from validation.checks import Gate, number, share

PROBLEMS, TRACES, UNITS = 30, 32, 60


def _counts(member_NC: np.ndarray, problem_N: np.ndarray) -> np.ndarray:
    """Traces by unit and problem, int [C, P]."""
    out = np.zeros((member_NC.shape[1], PROBLEMS), int)
    for p in range(PROBLEMS):
        out[:, p] = member_NC[problem_N == p].sum(0)
    return out


def _reach(
    base: worlds.Draws, source: worlds.Draws, members: list[np.ndarray], keep: list[np.ndarray], k: float
) -> np.ndarray:
    """p-values of all units from the kept traces of both arms."""
    a, b = (_counts(m[at], d.problem[at]) for m, d, at in zip(members, (base, source), keep))
    n_p, n_q = (np.bincount(d.problem[at], minlength=PROBLEMS) for d, at in zip((base, source), keep))
    return cluster_reach.p_values(b, n_q, a, n_p, k)


def gate_clusters(rng: np.random.Generator, runs: int) -> Gate:
    """The unit that stands out on one half, tested on the other: size at k = 1, tilts silent, a teacher seen."""
    split = unsplit = tilted = tilted_free = seen = 0
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        base, again = worlds.draw(world, rng, TRACES), worlds.draw(world, rng, TRACES)
        tilt = worlds.draw(world, rng, TRACES, weights=worlds.tilt(world, 0.2))
        teacher = worlds.draw(world, rng, TRACES, weights=worlds.teacher(world, 0.3))
        x = {name: bigrams(d) > 0 for name, d in (("base", base), ("again", again))}
        top = np.argsort(-sum(v.sum(0) for v in x.values()), kind="stable")[:UNITS]
        half = [cluster_reach.held_out(d.problem, seed=run) for d in (base, again)]
        members = [x["base"][:, top], x["again"][:, top]]
        # k = 1 and equal arms: every unit is at the edge of its null
        chosen = _reach(base, again, members, [~h for h in half], 1).argmin()
        split += _reach(base, again, [m[:, [chosen]] for m in members], half, 1)[0] <= 0.05
        whole = [np.ones(len(h), bool) for h in half]
        unsplit += _reach(base, again, members, whole, 1).min() <= 0.05
        for name, draws in (("tilt", tilt), ("teacher", teacher)):
            # the strategies, and last but one "correct": what a tilt makes more of than anything else
            members = [np.eye(worlds.STRATEGIES, dtype=bool)[d.strategy] for d in (base, draws)]
            members = [np.insert(m, -1, d.correct, axis=1) for m, d in zip(members, (base, draws), strict=True)]
            keep = [cluster_reach.held_out(d.problem, seed=run) for d in (base, draws)]
            p = budget.holm(_reach(base, draws, members, keep, 10 if name == "tilt" else 4))
            if name == "tilt":
                tilted += not (p <= 0.05).any()
                every = [np.ones(len(m), bool) for m in members]
                tilted_free += not (budget.holm(_reach(base, draws, members, every, 1)) <= 0.05).any()
            else:
                seen += p[-1] <= 0.05
    checks = [
        share(
            "V7",
            f"equal arms, k = 1: the unit of {UNITS} chosen on one half rejects at .05 on the other",
            split,
            runs,
            at_most=0.05,
            mutant=("chosen and tested on the same traces", unsplit),
        ),
        share(
            "V7",
            "tilt .2 at k = 10 >= 1 / pass rate, true strategies and correct traces as clusters: none flagged",
            tilted,
            runs,
            at_least=0.95,
            mutant=("the same at k = 1: change read as leaving", tilted_free),
        ),
        share(
            "V7",
            "teacher .3 at k = 4, true strategies as clusters: the novel one is flagged",
            seen,
            runs,
            at_least=0.95,
        ),
    ]
    return Gate([*checks, *_convolved(rng, 40 * runs)], {})


def _convolved(rng: np.random.Generator, runs: int) -> list:
    """Unequal counts by problem: size at the boundary, and the zero-hit power against the exact binomial."""
    n_p, n_q, k = rng.integers(8, 64, PROBLEMS), rng.integers(8, 64, PROBLEMS), 4.0
    rate = rng.uniform(0.002, 0.03, PROBLEMS)
    many = min(runs, 4000)
    a = rng.binomial(n_p, rate, (many, PROBLEMS))
    b = rng.binomial(n_q, k * rate, (many, PROBLEMS))
    hits = int((cluster_reach.p_values(b, n_q, a, n_p, k) <= 0.05).sum())
    wrong = int((cluster_reach.p_values(b, n_q, a, n_p, 1.0) <= 0.05).sum())
    what = "boundary Q(C) = k P(C) in every problem, 8 to 63 traces a problem, k = 4: size at .05"
    checks = [share("V7", what, hits, many, at_most=0.05, mutant=("k = 1", wrong))]
    equal = np.full(PROBLEMS, 32)
    b = rng.binomial(32, 0.02, (many, PROBLEMS))
    zero = np.zeros_like(b)
    power = float((cluster_reach.p_values(b, equal, zero, equal, 4.0) <= 0.05).mean())
    least = next(i for i in range(1, 999) if (4 / 5) ** i <= 0.05)
    exact = float(1 - _binomial_below(least, 32 * PROBLEMS, 0.02))
    what = f"power on a clean cluster of share .02 without a base trace, k = 4, minus the exact binomial {exact:.3f}"
    noise = 4 * np.sqrt(exact * (1 - exact) / many)
    claim = "0 +- .02 or 4 standard errors"
    checks.append(number("V7", what, power - exact, -max(0.02, noise), max(0.02, noise), many, claim=claim))
    return checks


def _binomial_below(least: int, n: int, p: float) -> float:
    from scipy.stats import binom

    return float(binom.cdf(least - 1, n, p))
