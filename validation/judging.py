"""CoT-Pass@k from a judge who errs (part of V9): the corrected interval covers, the naive one does not.

Problems differ in their chance of a correct answer and, of a correct one, of valid reasoning. The judge calls 80 % of
the valid chains valid and 70 % of the invalid ones invalid; a person has read 100 of the correct ones.
"""

from __future__ import annotations

import numpy as np

from analyzer.stats import bounded, chains, passk
from validation.checks import Gate, share

SE, SP, READ = 0.8, 0.7, 100
K = np.array([1, 2, 4, 8])
# problems, draws, Beta law of P(correct), Beta law of P(valid | correct)
WORLDS = {
    "even": (60, 16, (0.6, 1), (2, 2)),
    "hard": (60, 32, (1, 9), (1, 1)),
    "lucky": (60, 16, (2, 1), (0.5, 3)),
    "few": (30, 64, (0.6, 1), (2, 2)),
}


def gate_chains(rng: np.random.Generator, runs: int) -> Gate:
    """Coverage of CoT-Pass@k for problems such as these, in worlds of four shapes."""
    checks = []
    for name, (problems, n, right, sound) in WORLDS.items():
        covered = naive = 0
        for run in range(runs):
            right_P, sound_P = rng.beta(*right, problems), rng.beta(*sound, problems)
            c_P = rng.binomial(n, right_P)
            d_P = rng.binomial(c_P, sound_P)
            yes_P = rng.binomial(d_P, SE) + rng.binomial(c_P - d_P, 1 - SP)
            valid = int(rng.hypergeometric(d_P.sum(), (c_P - d_P).sum(), min(READ, c_P.sum())))
            invalid = min(READ, int(c_P.sum())) - valid
            judged = int(rng.binomial(valid, SE)), valid, int(rng.binomial(invalid, SP)), invalid
            found = chains.interval(np.full(problems, n), c_P, yes_P, K, judged, seed=run, draws=200)
            low_K, high_K = bounded.bounds(passk.pass_at_k(np.full(problems, n), yes_P, K), seed=run)[:2]
            k = run % len(K)  # one k a run, so that runs are independent
            truth = _truth(right, sound, int(K[k]))
            covered += found[k].low <= truth <= found[k].high
            naive += low_K[k] <= truth <= high_K[k]
        what = f"CoT-Pass@k, k = 1 to 8, {name}, {problems} problems x {n}: coverage without the judge's errors"
        mutant = ("with them in it", naive) if name == "lucky" else None
        checks.append(share("V9", what, covered, runs, at_least=0.93, mutant=mutant))
    return Gate(checks, {})


def _truth(right: tuple[float, float], sound: tuple[float, float], k: int) -> float:
    """1 - E (1 - X Y)^k of independent Beta variables, summed over moments."""
    from math import comb

    def moments(a: float, b: float) -> np.ndarray:
        return np.cumprod([1.0, *((a + j) / (a + b + j) for j in range(k))])

    terms = [comb(k, j) * (-1) ** j for j in range(k + 1)]
    return float(1 - np.dot(terms, moments(*right) * moments(*sound)))
