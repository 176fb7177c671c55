"""V0: closed forms, exact up to rounding, on worlds small enough to enumerate."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
from scipy.stats import binom

from analyzer.records import NOVEL_POWERS
from analyzer.stats import bootstrap, budget, conformal, evalue, passk, reach
from validation.checks import Gate, GateResult, number

EXACT = 1e-10
GRIDS = ((2, 0), (2, 1), (4, 0))  # windows short enough for traces of eight tokens
LAWS = np.array([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.4, 0.35, 0.25]])  # next token by last token; 2 ends a trace


def enumerated(longest: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All traces of a 3-token world: probability, log e, correct (an odd number of tokens 0); cut at `longest`. e is of
    two kinds [2, N]: the e-value with windows of GRIDS, and the mean over the first of these, divided by their number.
    """
    logs, p_of = np.log(LAWS), {"renyi_half": 2 * np.log(np.sqrt(LAWS).sum(1))}
    p_of |= {f"power_{a:g}": np.log((LAWS**a).sum(1)) for a in NOVEL_POWERS}
    found = []
    for n in range(1, longest + 1):
        for body in product((0, 1), repeat=n - 1):
            for last in (2,) if n < longest else (0, 1, 2):
                trace = np.array((*body, last))
                state = np.array((2, *body))
                columns = {name: values[state] for name, values in p_of.items()} | {"logprob": logs[state, trace]}
                d = -0.5 * (columns["logprob"] + columns["renyi_half"])
                width = GRIDS[0][0]
                divided = np.mean([np.exp(d[at : at + width].sum()) for at in range(0, n, width)])
                both = (evalue.log_e(columns, grids=GRIDS), np.log(divided))
                found.append((np.exp(columns["logprob"].sum()), both, (trace == 0).sum() % 2 == 1))
    p, log_e, right = map(np.array, zip(*found, strict=True))
    return p, log_e.T, right.astype(bool)


def gate_closed_forms(rng: np.random.Generator, runs: int) -> Gate:
    """E_k of tilts, teachers and best-of-k, data processing, pass@k, conformal ranks, e-value, conditional binomial.

    runs: random coarsenings for the data processing inequality.
    """
    p, (log_e, divided), right = enumerated()
    checks = [_small("sum of p over all traces of the 3-token world, minus 1", p.sum() - 1, len(p))]
    pi, ks = p[right].sum(), (1, 1.5, 2, 4, 16)
    worst, cover = 0.0, 0.0
    for b in (0.2, 0.5, 1.0, 3.0):
        q = p * np.exp(right / b)
        z = 1 - pi + pi * np.exp(1 / b)
        worst = max(worst, abs(q.sum() - z))
        q, rho1, rho0 = q / z, np.exp(1 / b) / z, 1 / z
        for k in ks:
            closed = pi * rho1 * max(0.0, 1 - k / rho1) + (1 - pi * rho1) * max(0.0, 1 - k / rho0)
            # the sample form E_Q[...] with exact weights; the sup form sum (q - k p)+ must agree too
            sample = float(q @ reach.excess(np.log(q / p), k))
            worst = max(worst, abs(sample - closed), abs(np.maximum(q - k * p, 0).sum() - closed))
            cover = max(cover, abs(float(q @ (np.log(q / p) >= np.log(k))) - closed))
    mutant = ("coverage Cov_k printed as E_k", cover)
    checks.append(
        _small("tilts: normaliser, E_k by samples, by sup and in closed form, largest difference", worst, 20, mutant)
    )
    novel = np.zeros(len(p) + 3)
    novel[-3:] = 1 / 3  # three traces that the base never writes
    wide = np.append(p, np.zeros(3))
    worst = 0.0
    for lam, k in product((0.05, 0.3, 1.0), (1, 4, 64)):
        q = (1 - lam) * wide + lam * novel
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(wide > 0, np.log(q) - np.log(wide), np.inf)
        worst = max(worst, abs(float(q @ reach.excess(ratio, k)) - lam))
    checks.append(_small("teacher off the support: E_k = lambda at every k", worst, 9))
    order = np.argsort(log_e)
    above = np.cumsum(p[order])
    worst = 0.0
    for k in (2, 4, 16):  # the most surprising of k draws
        q = np.empty(len(p))
        q[order] = above**k - (above - p[order]) ** k
        worst = max(worst, float(q @ reach.excess(np.log(q / p), k)))
    checks.append(_small("best of k by any score: E_k = 0", worst, 3))
    excess = 0.0
    q = 0.6 * p * np.exp(right / 0.2) / (p @ np.exp(right / 0.2)) + 0.4 * rng.dirichlet(np.ones(len(p)))
    for _ in range(runs):
        label = rng.integers(0, rng.integers(2, 20), len(p))
        fine = float(q @ reach.excess(np.log(q / p), 2))
        a, b = np.bincount(label, weights=p), np.bincount(label, weights=q)
        with np.errstate(divide="ignore"):
            excess = max(excess, float(b @ np.where(b > 0, reach.excess(np.log(b) - np.log(a), 2), 0)) - fine)
    checks.append(_small("data processing: E_2 of a coarsening minus E_2, largest", max(0.0, excess), runs))
    return Gate([*checks, *_counting(), *_evidence(p, log_e, divided), _rare_bound()], {})


def _counting() -> list[GateResult]:
    """pass@k against exact fractions; the conditional binomial against its sum."""
    worst, plug_in, n_K = 0.0, 0.0, 0
    for n in (1, 4, 16, 64):
        for c in range(n + 1):
            k_K = np.array(sorted({1, 2, n // 2, n} & set(range(1, n + 1))))
            found = passk.pass_at_k(np.array([n]), np.array([c]), k_K)[0]
            truth = np.array([1 - comb(n - c, int(k)) / comb(n, int(k)) for k in k_K])
            worst = max(worst, float(np.abs(found - truth).max()))
            plug_in = max(plug_in, float(np.abs(1 - (1 - c / n) ** k_K - truth).max()))
            n_K += len(k_K)
    mutant = ("1 - (1 - c/n)^k", plug_in)
    checks = [_small("pass@k against exact fractions, largest difference", worst, n_K, mutant)]
    c, d, nq, np_, k = 7, 5, 64, 256, 4
    share = k * nq / (k * nq + np_)
    exact = sum(comb(c + d, i) * share**i * (1 - share) ** (c + d - i) for i in range(c, c + d + 1))
    found = float(budget.p_value(c, nq, d, np_, k))
    checks.append(_small("conditional binomial against its sum", abs(found - exact), 1))
    return checks


def _evidence(p: np.ndarray, log_e: np.ndarray, divided: np.ndarray) -> list[GateResult]:
    """The e-value's mean over all traces, and the conformal p-value over all ranks."""
    mutant = ("the windows' mean, divided by their random number", abs(float(p @ np.exp(divided)) - 1))
    checks = [
        _small(
            "mean of the e-value over all traces, stopped by the end token, minus 1",
            p @ np.exp(log_e) - 1,
            len(p),
            mutant,
        )
    ]
    size = max(float(p[log_e >= -np.log(a)].sum() / a) for a in (0.5, 0.2, 0.05, 0.01))
    checks.append(number("V0", "P(p <= a) / a of the e-value over all traces, largest over a", size, 0, 1 + EXACT, 4))
    n = 19
    ranks = conformal.p_values(np.arange(n) + 0.5, np.arange(n + 1.0))
    naive = (np.arange(n, -1, -1)) / n
    even = np.arange(n + 1, 0, -1) / (n + 1)
    mutant = ("#{calibration >= score} / n, which can be 0", float(np.abs(naive - even).max()))
    checks.append(_small("conformal p over the n + 1 ranks: 1/(n+1) ... 1", np.abs(ranks - even).max(), n + 1, mutant))
    return checks


def _rare_bound() -> GateResult:
    """Chance that the bound of rare values misses the mean, summed over the binomial, for laws on two values y < z."""
    worst, wald, laws = 0.0, 0.0, 0
    values = (0.0, 0.01, 0.1, 0.3, 0.6, 0.9, 1.0)
    share = np.linspace(0.0025, 0.9975, 400)
    for n in (8, 60):
        j = np.arange(n + 1)
        chance = binom.pmf(j, n, share[:, None])
        for y, z in combinations(values, 2):
            drawn = [np.repeat([y, z], [n - i, i]) for i in j]
            mean = (y + share * (z - y))[:, None]
            upper = np.array([bootstrap.rare_upper(x) for x in drawn])
            normal = np.array([x.mean() + 1.645 * x.std() / np.sqrt(n) for x in drawn])
            worst = max(worst, float((chance * (upper < mean - 1e-12)).sum(1).max()))
            wald = max(wald, float((chance * (normal < mean - 1e-12)).sum(1).max()))
            laws += len(share)
    what = "bound of rare values (Stringer), 8 and 60 draws of every law on two values: largest chance to miss the mean"
    return number("V0", what, worst, 0, 0.05 + EXACT, laws, claim="<= 0.05", mutant=("mean + 1.645 se", wald))


def _small(what: str, value: float, runs: int, mutant: tuple[str, float] | None = None) -> GateResult:
    return number("V0", what, abs(float(value)), 0.0, EXACT, runs, mutant=mutant)
