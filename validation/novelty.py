"""V5 and V6: the size of the novelty tests, their false discoveries, their power, and what a budget does to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

from analyzer.stats import conformal, evalue
from validation import worlds
from validation.checks import Gate, ecdf, number, share

PROBLEMS, NOVEL, Q = 30, 0.1, 0.1


def _naive(base: np.ndarray, problem: np.ndarray, test: np.ndarray, test_problem: np.ndarray) -> tuple[np.ndarray, ...]:
    """The mutant: each base trace standardised by a mean and spread that it took part in."""
    m, n = problem.max() + 1, np.bincount(problem)
    mean = np.bincount(problem, weights=base, minlength=m) / n
    sd = np.sqrt(np.bincount(problem, weights=(base - mean[problem]) ** 2, minlength=m) / (n - 1))
    return (base - mean[problem]) / sd[problem], (test - mean[test_problem]) / sd[test_problem]


def gate_conformal(rng: np.random.Generator, runs: int) -> Gate:
    """Size and false discovery rate of leave-one-out pooling, 30 problems that differ in location and scale."""
    checks, curves = [], []
    for n in (16, 64):
        found: dict[str, dict[str, list[float]]] = {}
        null_p: list[float] = []
        for _ in range(runs):
            loc, scale = rng.normal(0, 2, PROBLEMS), np.exp(rng.normal(0, 0.5, PROBLEMS))
            unit = np.repeat(np.arange(PROBLEMS), n)
            base, test = (loc[unit] + scale[unit] * rng.normal(size=len(unit)) for _ in range(2))
            novel = rng.random(len(unit)) < NOVEL
            shifted = test + 4 * scale[unit] * novel
            for method, how in (("leave-one-out", conformal.standardise), ("naive", _naive)):
                calibration, null = how(base, unit, test, unit)
                p = conformal.p_values(calibration, null)
                q = conformal.p_values(calibration, how(base, unit, shifted, unit)[1])
                flags = conformal.discoveries(q, q=Q)
                row = found.setdefault(method, {"size": [], "fdp": [], "power": []})
                row["size"].append(float((p <= 0.05).mean()))
                row["fdp"].append(float((flags & ~novel).sum() / max(1, flags.sum())))
                row["power"].append(float(flags[novel].mean()) if novel.any() else np.nan)
                if method == "leave-one-out":
                    null_p.append(float(p[0]))
        loo, naive = found["leave-one-out"], found["naive"]
        what = f"null P(p <= .05), leave-one-out pool, n = {n}"
        checks.append(number("V5", what, np.mean(loo["size"]), 0.03, 0.07, runs))
        noise = 2 * np.std(loo["fdp"]) / np.sqrt(runs)
        what = f"false discovery rate at q = .1, n = {n}, a tenth of the traces shifted by 4 sd"
        mutant = ("naive standardising", float(np.mean(naive["fdp"]))) if n == 16 else None
        # a tenth of novel traces: BH keeps .9 q, so 2 standard errors above q leave room for 1e-4
        claim = "<= 0.1 + 2 standard errors"
        checks.append(number("V5", what, np.mean(loo["fdp"]), 0, Q + noise, runs, claim=claim, mutant=mutant))
        checks.append(number("V5", f"power of the same, n = {n}", np.mean(loo["power"]), 0.55, 1.0, runs))
        curves += ecdf(f"conformal, n = {n}", null_p)
    scores, powers = _scores(rng, max(10, runs // 10))
    what = "power on teacher .2 (64 base, 16 source traces a problem), largest window of 8, q = .1"
    mutant = ("sum of log-probs instead of a mean", scores["sum of log-probs"])
    checks.append(number("V5", what, scores["largest window"], 0.55, 1.0, max(10, runs // 10), mutant=mutant))
    return Gate(checks, {"ecdf": curves, "power": powers})


def _scores(rng: np.random.Generator, runs: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Share of the novel traces that each score flags at q = .1, by lambda; the first dict is lambda = .2."""
    columns = {"mean": "nll_mean", "largest window": "window_max", "worst fifth": "cvar20", "excess z": "excess_z"}
    rows, at = [], {}
    for lam in (0.05, 0.1, 0.2, 0.4):
        found: dict[str, list[float]] = {}
        for _ in range(runs):
            world = worlds.make(rng, PROBLEMS)
            base = worlds.draw(world, rng, 64)
            source = worlds.draw(world, rng, 16, weights=worlds.teacher(world, lam))
            novel = source.strategy == worlds.STRATEGIES - 1
            here, there = worlds.summaries(base), worlds.summaries(source)
            values = {name: (here[c], there[c]) for name, c in columns.items()}
            values["sum of log-probs"] = (-here["logprob"], -there["logprob"])
            for name, (own, test) in values.items():
                z, z_test = conformal.standardise(own, base.problem, test, source.problem)
                flags = conformal.discoveries(conformal.p_values(z, z_test), q=Q)
                found.setdefault(name, []).append(float(flags[novel].mean()) if novel.any() else np.nan)
            flags = conformal.discoveries(evalue.p_value(there["log_e"]), q=Q)
            found.setdefault("e-value", []).append(float(flags[novel].mean()) if novel.any() else np.nan)
        means = {name: float(np.nanmean(v)) for name, v in found.items()}
        rows += [{"test": name, "lambda": lam, "power": v, "runs": runs} for name, v in means.items()]
        at[lam] = means
    return at[0.2], rows


def gate_budget(rng: np.random.Generator, runs: int) -> Gate:
    """V6: k-inflation and the e-value where dQ/dP <= k exactly (the most surprising of k draws), and their power."""
    checks = []
    quiet: dict[tuple[str, str, int], int] = {}
    flagged: list[float] = []
    for _ in range(runs):
        world = worlds.make(rng, PROBLEMS)
        base = worlds.draw(world, rng, 32)
        own = worlds.summaries(base)
        sources = {"tilt .2": (worlds.draw(world, rng, 16, weights=worlds.tilt(world, 0.2)), 16)}
        # 6 of them a problem are enough that an uninflated p flags some
        sources |= {f"best of {k}": (_most_surprising(world, rng, k, 6), k) for k in (4, 16)}
        for name, (draws, k) in sources.items():
            there = worlds.summaries(draws)
            z, z_test = conformal.standardise(own["nll_mean"], base.problem, there["nll_mean"], draws.problem)
            p = conformal.p_values(z, z_test)
            e = there["log_e"]
            for test, p_k in (("conformal", conformal.inflate(p, k)), ("e-value", evalue.p_value(e, k))):
                key = (name, test, k)
                quiet[key] = quiet.get(key, 0) + (not conformal.discoveries(p_k, q=Q).any())
            key = (name, "not inflated", k)
            quiet[key] = quiet.get(key, 0) + (not conformal.discoveries(p, q=Q).any())
        source = worlds.draw(world, rng, 16, weights=worlds.teacher(world, 0.5))
        z, z_test = conformal.standardise(
            own["nll_mean"], base.problem, worlds.summaries(source)["nll_mean"], source.problem
        )
        flagged.append(float(conformal.discoveries(conformal.inflate(conformal.p_values(z, z_test), 4), q=Q).mean()))
    for (name, test, k), hits in quiet.items():
        if test == "not inflated":
            continue
        mutant = (
            ("k not inflated", quiet[name, "not inflated", k]) if (name, test) == ("best of 16", "conformal") else None
        )
        what = f"{name} (dQ/dP <= {k}): no trace flagged at budget {k}, {test}, q = .1"
        checks.append(share("V6", what, hits, runs, at_least=0.9, mutant=mutant))
    what = "teacher .5: share of traces flagged at k = 4, conformal (32 base, 16 source traces a problem)"
    checks.append(number("V6", what, np.mean(flagged), 0.2, 1.0, runs))
    e_checks, rows = _e_values(rng, max(20_000, 40 * runs))
    return Gate([*checks, *e_checks], {"ecdf": rows})


def _most_surprising(world: worlds.World, rng: np.random.Generator, k: int, n: int) -> worlds.Draws:
    """Of every k base draws the one of the largest mean surprisal, n per problem: the law has dQ/dP <= k."""
    draws = worlds.draw(world, rng, n * k)
    score = (-draws.log_p / draws.length).reshape(-1, k)
    return worlds.take(draws, np.arange(len(score)) * k + score.argmax(1))


def _e_values(rng: np.random.Generator, traces: int) -> tuple[list, list[dict[str, Any]]]:
    """The martingale property step by step, the size, the power, and z read as N(0, 1)."""
    world = worlds.make(rng, 200)
    n = max(1, traces // 200)
    base = worlds.draw(world, rng, n)
    inside = base.tokens >= 0
    step = np.exp(0.5 * (-base.columns["logprob"] - base.columns["renyi_half"]))[inside]
    noise = 4 * step.std() / np.sqrt(len(step))
    whole = np.exp(-base.columns["logprob"] - base.columns["renyi_half"])[inside]
    what = f"mean of the e-value's factor given the past, minus 1 ({len(step):,} tokens)"
    claim = "0 +- 4 standard errors"
    mutant = ("the half forgotten: exp(s - h)", float(whole.mean() - 1))
    checks = [number("V6", what, step.mean() - 1, -noise, noise, base.length.size, claim=claim, mutant=mutant)]
    columns = worlds.summaries(base)
    p, z = evalue.p_value(columns["log_e"]), norm.sf(columns["excess_z"])
    total = len(p)
    for a in (0.05, 0.01):
        mutant = ("z read as N(0, 1)", int((z <= a).sum())) if a == 0.01 else None
        what = f"base traces: P(p <= {a:g}) of the e-value"
        checks.append(share("V6", what, int((p <= a).sum()), total, at_most=a, mutant=mutant))
    powers, count = [], 0
    for _ in range(20):  # one world's power has a standard deviation of .06
        other = worlds.make(rng, 50)
        source = worlds.draw(other, rng, 20, weights=worlds.teacher(other, 0.2))
        novel = source.strategy == worlds.STRATEGIES - 1
        powers.append(float((evalue.p_value(worlds.summaries(source)["log_e"])[novel] <= 0.05).mean()))
        count += int(novel.sum())
    what = "power of the e-value on novel traces of some 20 tokens, p <= .05, mean of 20 worlds"
    checks.append(number("V6", what, np.mean(powers), 0.7, 1.0, count))
    rows = ecdf("e-value", p[:: max(1, total // 2000)]) + ecdf("z as N(0, 1)", z[:: max(1, total // 2000)])
    return checks, rows
