"""V9, and the outcome half of V7 and V8: pass@k differences, the crossing budget, solved sets under one model.

The population is a bank of problems with known pass rates; a run draws its problems from the bank with replacement, so
the bank's mean is the truth that the interval must cover.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from analyzer.stats import bands, bootstrap, bounded, budget, coverage, passk
from validation.checks import Gate, GateResult, number, share

BANK, DRAWN, BUDGET = 4000, 64, 64
GRID = np.array([1, 2, 4, 8, 16, 32])


def bank(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pass rates of the reference and of a source that is better at k = 1 and loses a tenth of the problems: [BANK]."""
    reference = rng.beta(0.35, 1.2, BANK)
    source = reference ** rng.uniform(0.5, 0.8, BANK)
    return reference, np.where(rng.random(BANK) < 0.25, 0.05 * reference, source)


def gate_intervals(rng: np.random.Generator, runs: int, *, sizes: tuple[int, ...] = (30, 100, 500)) -> Gate:
    """Coverage of the paired difference of pass@k, of its simultaneous band, and of the crossing budget k*."""
    p_ref, p_src = bank(rng)
    k_K = GRID.astype(float)
    truth_K = ((1 - p_ref[:, None]) ** k_K - (1 - p_src[:, None]) ** k_K).mean(0)
    level_truth = float((1 - (1 - p_ref) ** GRID[-1]).mean())
    k_star = float(passk.crossover(GRID, truth_K[None])[0])  # interpolated on the grid, as the estimate is
    checks: list[GateResult] = []
    rows: list[dict[str, Any]] = []
    for m in sizes:
        hits = np.zeros(len(GRID))
        traces, whole, star, level, plug = 0, 0, 0, [], []
        w_BP = bootstrap.weights(m, draws=2000, seed=1)
        for _ in range(runs):
            at = rng.integers(0, BANK, m)
            c_ref, c_src = rng.binomial(DRAWN, p_ref[at]), rng.binomial(DRAWN, p_src[at])
            n_P = np.full(m, DRAWN)
            gap_PK = passk.pass_at_k(n_P, c_src, GRID) - passk.pass_at_k(n_P, c_ref, GRID)
            gap_BK = bootstrap.column_means(gap_PK, w_BP)
            ends = np.array([bootstrap.quantiles(gap_BK[:, j], m) for j in range(len(GRID))])
            hits += (ends[:, 0] <= truth_K) & (truth_K <= ends[:, 1])
            low, high = bands.simultaneous(gap_PK, w_BP)
            whole += bool(((low <= truth_K) & (truth_K <= high)).all())
            level.append(passk.pass_at_k(n_P, c_ref, GRID)[:, -1].mean() - level_truth)
            plug.append((1 - (1 - c_ref / DRAWN) ** GRID[-1]).mean() - level_truth)
            # mutant: traces resampled within their problems, the problems held fixed
            again = rng.binomial(DRAWN, c_src / DRAWN, (200, m)), rng.binomial(DRAWN, c_ref / DRAWN, (200, m))
            fixed = passk.pass_at_k(np.full(200 * m, DRAWN), again[0].ravel(), GRID[:1])
            fixed = fixed - passk.pass_at_k(np.full(200 * m, DRAWN), again[1].ravel(), GRID[:1])
            ends = np.quantile(fixed.reshape(200, m).mean(1), [0.025, 0.975])
            traces += ends[0] <= truth_K[0] <= ends[1]
            at_B = passk.crossover(GRID, gap_BK)
            low, high = bootstrap.quantiles(at_B, m)
            star += low <= k_star <= high
        least = 0.9 if m < 50 else 0.92
        j = int(hits.argmin())
        what = f"paired difference of pass@k, {m} problems: lowest coverage over k = 1 ... 32 (k = {GRID[j]})"
        mutant = ("bootstrap of traces within fixed problems (k = 1)", traces) if m == 100 else None
        checks.append(share("V9", what, hits.min(), runs, at_least=least, at_most=0.99, mutant=mutant))
        if m == max(sizes):
            what = f"bias of pass@32 from 64 draws, {m} problems"
            noise = 4 * np.std(level) / np.sqrt(runs)
            mutant = ("1 - (1 - c/n)^k", np.mean(plug))
            claim = "0 +- 4 standard errors"
            checks.append(number("V9", what, np.mean(level), -noise, noise, runs, claim=claim, mutant=mutant))
        what = f"simultaneous band covers all of k = 1 ... 32, {m} problems"
        checks.append(share("V9", what, whole, runs, at_least=0.9 if m < 50 else 0.92, at_most=0.99))
        what = f"crossing budget k* = {k_star:.1f}, {m} problems"
        checks.append(share("V9", what, star, runs, at_least=0.9))
        for k, value, truth in zip(GRID, hits, truth_K, strict=True):
            name = f"difference of pass@{k}"
            rows.append(
                {"interval": name, "setting": f"{m} problems", "coverage": value / runs, "truth": truth, "runs": runs}
            )
        name = "crossing budget k*"
        rows.append(
            {"interval": name, "setting": f"{m} problems", "coverage": star / runs, "truth": k_star, "runs": runs}
        )
    return Gate(checks, {"coverage": rows})


def kinds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pass rates of problems, [BANK] each: from 0 to 1, alike, and with a few problems unlike the rest."""
    chance = rng.random(BANK)
    return {
        "skewed": rng.beta(0.35, 1.2, BANK),
        "even": chance,
        "all .3": np.full(BANK, 0.3),
        "one in twenty never": np.where(chance < 0.05, 0.0, 0.95),
        "one in ten ever": np.where(chance < 0.1, 0.9, 0.0),
        "hard and easy": np.where(chance < 0.3, 0.02, 0.95),
    }


def gate_levels(
    rng: np.random.Generator, runs: int, *, sizes: tuple[int, ...] = (3, 12, 64), drawn: tuple[int, ...] = (1, 8, 256)
) -> Gate:
    """Coverage of the interval and of the band of pass@k itself, at every k; two problems are refused."""
    checks, rows = [], []
    for m in sizes:
        worst, whole, resampled = {}, {}, {}
        w_BP = bootstrap.weights(m, draws=500, seed=1)
        for world, rate in kinds(rng).items():
            for n in drawn:
                k_K = passk.budgets(np.array([n]))
                truth_K = (1 - (1 - rate[:, None]) ** k_K).mean(0)
                hits, old, all_k = np.zeros(len(k_K)), np.zeros(len(k_K)), 0
                for _ in range(runs):
                    c = rng.binomial(n, rate[rng.integers(0, BANK, m)])
                    values_PK = passk.pass_at_k(np.full(m, n), c, k_K)
                    low, high, band_low, band_high = bounded.bounds(values_PK, seed=1)
                    hits += _within(low, truth_K, high)
                    all_k += bool(_within(band_low, truth_K, band_high).all())
                    if m >= bootstrap.FEW:
                        means = bootstrap.column_means(values_PK, w_BP)
                        ends = np.array([bootstrap.quantiles(column, m) for column in means.T])
                        old += _within(ends[:, 0], truth_K, ends[:, 1])
                worst[world, n], whole[world, n], resampled[world, n] = hits.min(), all_k, old.min()
                name = "pass@k itself, lowest over k"
                setting = f"{m} problems, {n} draws, {world}"
                rows.append({"interval": name, "setting": setting, "coverage": hits.min() / runs, "runs": runs})
        at = min(worst, key=worst.__getitem__)
        what = (
            f"pass@k itself, {m} problems: lowest coverage over k, draws and kinds of problems ({at[0]}, {at[1]} draws)"
        )
        mutant = ("percentiles of a bootstrap over problems", min(resampled.values())) if m == 12 else None
        checks.append(share("V9", what, worst[at], runs, at_least=0.9, at_most=0.99, mutant=mutant))
        what = f"simultaneous band of pass@k itself, {m} problems: lowest coverage over draws and kinds of problems"
        checks.append(share("V9", what, min(whole.values()), runs, at_least=0.9))
    refused = bool(np.isnan(bounded.bounds(np.ones((2, 1)))[0]).all())
    checks.append(number("V9", "two problems have no interval of pass@k", refused, 1, 1, 1, claim="refused"))
    return Gate(checks, {"levels of pass@k": rows})


def _within(low: np.ndarray, truth: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low <= truth + 1e-9) & (truth <= high + 1e-9)


def gate_solved_sets(rng: np.random.Generator, runs: int) -> Gate:
    """V8, solved sets: the level of SRR and NDR that one model shows against itself, McNemar, and best-of-16.

    McNemar is exact on equal models and wrong at a budget: it rejects a best-of-16 against its own base.
    """
    p = rng.beta(0.25, 1.5, 300)
    lost, levels, mc, best_mc, best_budget = [], [], 0, 0, 0
    for _ in range(runs):
        c = rng.binomial(128, p)
        n = np.full(len(p), 128)
        one, other, k = coverage.halves(n, c, seed=int(rng.integers(1 << 31)))
        lost.append(float((one * (1 - other)).mean()))
        a, b = (rng.binomial(DRAWN, p) > 0 for _ in range(2))
        gained, gone = int((b & ~a).sum()), int((a & ~b).sum())
        levels.append(gained / max(1, int(b.sum())))
        mc += _mcnemar(gained, gone) <= 0.05
        base, best = rng.binomial(DRAWN, p), rng.binomial(DRAWN, 1 - (1 - p) ** 16)
        best_mc += _mcnemar(int(((best > 0) & (base == 0)).sum()), int(((best == 0) & (base > 0)).sum())) <= 0.05
        best_budget += float(budget.p_value(best.sum(), best.size * DRAWN, base.sum(), base.size * DRAWN, 16)) <= 0.05
    a = 1 - (1 - p) ** DRAWN
    formula = float((a * (1 - a)).mean())
    what = f"A/A halves at k = {k}: share of problems solved by one half only, minus mean a (1 - a) = {formula:.3f}"
    checks = [
        number(
            "V8",
            what,
            np.mean(lost) - formula,
            -0.005,
            0.005,
            runs,
            mutant=("0: 'equal models lose nothing'", -formula),
        )
    ]
    what = "equal models: exact McNemar on solved sets rejects at .05"
    mutant = ("NDR > 0 read as expansion", int(np.sum(np.array(levels) > 0)))
    checks.append(share("V8", what, mc, runs, at_most=0.05, mutant=mutant))
    what = "best of 16 against its own base, conditional binomial at k = 16 rejects at .05"
    checks.append(share("V8", what, best_budget, runs, at_most=0.05, mutant=("McNemar on solved sets", best_mc)))
    return Gate(checks, {"levels": [{"ndr": v} for v in levels]})


def _mcnemar(gained: int, gone: int) -> float:
    return binomtest(gained, gained + gone).pvalue if gained + gone else 1.0


def gate_budget_test(rng: np.random.Generator, runs: int) -> Gate:
    """V7, the conditional binomial itself: size at the boundary Q(C) = k P(C), zero-hit power, the purity law."""
    checks, rows = [], []
    for n_p, n_q, k in ((64, 64, 4), (256, 64, 4), (1024, 64, 16)):
        many = 40 * runs
        for rate in (0.002, 0.01):
            c_p, c_q = rng.binomial(n_p, rate, many), rng.binomial(n_q, k * rate, many)
            hits = int((budget.p_value(c_q, n_q, c_p, n_p, k) <= 0.05).sum())
            free = int((budget.p_value(c_q, n_q, c_p, n_p, 1) <= 0.05).sum())
            what = f"boundary Q(C) = k P(C) = {k * rate:g}: size at .05 (n_P = {n_p}, n_Q = {n_q}, k = {k})"
            mutant = ("the test at k = 1", free) if rate == 0.01 and n_p > n_q else None
            checks.append(share("V7", what, hits, many, at_most=0.05, mutant=mutant))
        least = int(np.ceil(np.log(0.05) / np.log(k * n_q / (k * n_q + n_p))))
        what = f"hits needed against no base hit (n_P = {n_p}, n_Q = {n_q}, k = {k}; formula {least})"
        found = next(b for b in range(1, 200) if budget.p_value(b, n_q, 0, n_p, k) <= 0.05)
        checks.append(number("V7", what, found, least, least, 1, claim=f"= {least}"))
    for n_p, k in ((1024, 16), (256, 4)):
        for rho in (0.0, 0.01, 0.05):
            c_p, c_q = rng.binomial(n_p, rho, 40 * runs), rng.binomial(64, rho + 0.3 * (1 - rho), 40 * runs)
            power = float((budget.p_value(c_q, 64, c_p, n_p, k) <= 0.05 / 240).mean())
            rows.append({"n_reference": n_p, "n_source": 64, "k": k, "base mass in the cluster": rho, "power": power})
    power = {(r["n_reference"], r["base mass in the cluster"]): r["power"] for r in rows}
    for key, low, high in (
        ((1024, 0.0), 0.95, 1.0),
        ((1024, 0.01), 0.0, 0.1),
        ((256, 0.0), 0.95, 1.0),
        ((256, 0.05), 0.0, 0.05),
    ):
        what = (
            f"purity: power on a share of .3, base mass {key[1]:g} in the cluster (n_P = {key[0]}, Bonferroni over 240)"
        )
        checks.append(number("V7", what, power[key], low, high, 40 * runs))
    return Gate(checks, {"purity": rows})
