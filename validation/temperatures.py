"""V13: the interval of s, the share of the divergence that one temperature explains, where problems differ in theirs.

Tokens are drawn independently from one law of 60 tokens at the temperature of their problem, so that every divergence
is known: KL(Q_j || P_b) = n (log Z(b) - log Z(b_j) - (b - b_j) m(b_j)) with b = 1/T, log Z(b) = log sum_v p_v^b and its
slope m.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.analysis.support import cooling, evidence, laws
from analyzer.records import POWERS
from analyzer.stats import bounds
from validation.checks import Gate, GateResult, share

TOKENS, BUDGET, ROUNDING = 100, 64, 0.002
LOG_P = -1.5 * np.log(np.arange(1, 61))
LOG_P = LOG_P - np.log(np.exp(LOG_P).sum())
FINE = np.geomspace(0.1, 1, 400)  # temperatures among which the true best one is looked for
DIFFER = {
    "evenly in .4 to 1": lambda rng, n: rng.uniform(0.4, 1, n),
    "evenly in .6 to .8": lambda rng, n: rng.uniform(0.6, 0.8, n),
    "half .5, half 1": lambda rng, n: np.where(rng.random(n) < 0.5, 0.5, 0.999),
    "a tenth .3, else .9": lambda rng, n: np.where(rng.random(n) < 0.1, 0.3, 0.9),
}


def _log_z(b: np.ndarray) -> np.ndarray:
    return np.log(np.exp(np.multiply.outer(b, LOG_P)).sum(-1))


def true_share(temperature_P: np.ndarray) -> float:
    """s of these problems, each with as many traces."""
    b_P = 1 / temperature_P
    w_PV = np.exp(b_P[:, None] * LOG_P - _log_z(b_P)[:, None])
    slope_P = w_PV @ LOG_P
    b_G = 1 / FINE[:, None]
    kl_G = (_log_z(b_G) - _log_z(b_P) - (b_G - b_P) * slope_P).mean(1)
    return float(1 - kl_G.min() / kl_G[-1])


def drawn(rng: np.random.Generator, temperature_P: np.ndarray, traces: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows as `evidence` reads them, and entropy and variance of the surprisal of whole traces at T = 1 [2, N]."""
    problem = np.repeat(np.arange(len(temperature_P)), traces)
    b_N = 1 / temperature_P[problem]
    w_PV = np.exp(LOG_P / temperature_P[:, None] - _log_z(1 / temperature_P)[:, None])
    sum_N = np.concatenate([rng.choice(LOG_P, (traces, TOKENS), p=w_V / w_V.sum()).sum(1) for w_V in w_PV])
    out = {"problem": problem, "n": TOKENS, "log_q": b_N * sum_N - TOKENS * _log_z(b_N)}
    for b in (1.0, *POWERS):
        out[f"p:{laws.temperature(b)}"] = b * sum_N - TOKENS * float(_log_z(np.array(b)))
    rows = pd.DataFrame(out)
    rows = rows.assign(body_q=rows["log_q"], **{f"body:{c[2:]}": rows[c] for c in rows if c.startswith("p:")})
    mean = float(np.exp(LOG_P) @ LOG_P)
    variance = float(np.exp(LOG_P) @ (LOG_P - mean) ** 2)
    return rows, np.full((len(rows), 2), [-TOKENS * mean, TOKENS * variance]).T


def gate_share(rng: np.random.Generator, runs: int) -> Gate:
    """Coverage of its interval for the given problems, 3 to 30 of them with 2 or 8 traces each. The mutant takes
    problems for the unit, as if those at hand told of the cool ones that were not drawn."""
    checks: list[GateResult] = []
    every = [laws.temperature(b) for b in (1.0, *POWERS)]
    for name, temperatures in DIFFER.items():
        wide = true_share(temperatures(np.random.default_rng(0), 5000))
        for problems in (3, 10, 30):
            hits = before = told = 0
            for _ in range(runs):
                temperature_P = temperatures(rng, problems)
                rows, at_one_2N = drawn(rng, temperature_P, int(rng.choice([2, 8])))
                found = evidence._temperature(rows, rows["problem"].to_numpy(), every, BUDGET, at_one_2N)
                if not found["best"]:  # no divergence seen: no s
                    continue
                true, told = true_share(temperature_P), told + 1
                hits += found["s_low"] - ROUNDING <= true <= found["s_high"] + ROUNDING
                s, plain = found["s"], (rows["log_q"] - rows[f"p:{laws.PLAIN}"]).to_numpy()
                best = cooling.cooled(rows, every, "p", at_one_2N, np.array([float(found["best"][2:])]))[1][0]
                around = bounds.between(rows["log_q"].to_numpy() - best - (1 - s) * plain, rows["problem"].to_numpy())
                half = (around.high(0.025) - around.value) / plain.mean()
                before += s - half <= wide <= s + half
            mutant = None
            if problems == 3 and name.startswith("a tenth"):
                mutant = ("problems as the unit, for problems such as these", before)
            what = f"{problems} problems, temperatures {name}: coverage of the interval of s, the given problems"
            checks.append(share("V13", what, hits, told, at_least=0.9, mutant=mutant))
    return Gate(checks, {})
