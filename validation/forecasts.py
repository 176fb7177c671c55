"""pass@k beyond the draws at hand (part of V9): what 16 times the draws show lies in the interval, whatever law the
problems' chances have. The form of `stats/forecast` was fixed before these worlds were run; none set a number of it."""

from __future__ import annotations

import numpy as np

from analyzer.stats import bounded, forecast, passk
from validation.checks import Gate, share

PROBLEMS, BEYOND = 69, 16
WORLDS = {
    "Beta(.2, .6)": lambda rng, n: rng.beta(0.2, 0.6, n),
    "Beta(.3, 6)": lambda rng, n: rng.beta(0.3, 6, n),
    "Beta(.5, 2), 30 % never": lambda rng, n: np.where(rng.random(n) < 0.3, 0, rng.beta(0.5, 2, n)),
    "lognormal(-3, 2.5)": lambda rng, n: np.minimum(1, np.exp(rng.normal(-3, 2.5, n))),
    "half Beta(5, 5), half Beta(.5, 40)": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.beta(5, 5, n), rng.beta(0.5, 40, n)
    ),
    "u^6": lambda rng, n: rng.random(n) ** 6,
    "half never, half always": lambda rng, n: (rng.random(n) < 0.5).astype(float),
    "all at 1 %": lambda rng, n: np.full(n, 0.01),
}


def gate_forecast(rng: np.random.Generator, runs: int) -> Gate:
    """Coverage of the 95 % interval of pass@k at 16 times the draws, from 64 and from 8 draws a problem."""
    checks = []
    for n in (64, 8):
        hits = naive = 0
        for name, world in WORLDS.items():
            here = 0
            for run in range(runs):
                chance_P = world(rng, PROBLEMS)
                c_P, n_P = rng.binomial(n, chance_P), np.full(PROBLEMS, n)
                shown = float((rng.binomial(BEYOND * n, chance_P) > 0).mean())
                drawn_SP = forecast.chances(forecast.laws(n_P, c_P, seed=run), n_P, c_P, seed=run)
                low, high = np.quantile(forecast.solved(drawn_SP, np.array([BEYOND * n]), seed=run), [0.025, 0.975])
                here += low <= shown <= high
                at_n = bounded.bounds(passk.pass_at_k(n_P, c_P, np.array([n])), seed=run)
                naive += at_n[0][0] <= shown <= at_n[1][0]
            hits += here
            what = f"interval of pass@{BEYOND * n:,} from {n} draws on {PROBLEMS} problems, chances {name}"
            checks.append(share("V9", what, here, runs, at_least=0.85))
        what = f"interval of pass@{BEYOND * n:,} from {n} draws on {PROBLEMS} problems, all worlds"
        mutant = (f"the interval of pass@{n}", naive)
        checks.append(share("V9", what, hits, runs * len(WORLDS), at_least=0.9, mutant=mutant))
    return Gate(checks, {})
