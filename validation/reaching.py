"""V4: is E_k the number that it claims to be, and does its interval cover?

Truth without error: a bank of problems and traces is drawn once, its mean E_k is the truth, and every run draws its
problems and traces from the bank with replacement, so that the bank is the population.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from analyzer.stats import bootstrap, reach
from validation import worlds
from validation.checks import Gate, GateResult, number, share

PROBLEMS, TRACES = 30, 16  # of a run
BUDGETS = (4, 16, 256)
GRID = (1, 4, 16, 64, 256, 1024, 4096)
WORLDS = ("base", "tilt 1", "tilt .2", "correct", "temp .9", "temp .8", "temp .5")
LAMBDAS = {"teacher .05": 0.05, "teacher .15": 0.15, "teacher .5": 0.5}
MIXED = "teacher by problem"
RARE = "teacher in an eighth of the problems"  # E_k = .04, all of it in few problems: "inside" would be wrong
RARER = "teacher in a thirtieth of the problems"  # E_k = .03: thirty problems often hold none of them


def bank(rng: np.random.Generator, problems: int, traces: int) -> dict[str, np.ndarray]:
    """World -> log-ratios [problems, traces]; "cooled, log q at T=1" is what a forgotten sampler makes of temp .5."""
    world = worlds.make(rng, problems)
    weights = {"base": world.weights, "tilt 1": worlds.tilt(world, 1), "tilt .2": worlds.tilt(world, 0.2)}
    weights["correct"] = worlds.correct_only(world)
    weights |= {name: worlds.teacher(world, value) for name, value in LAMBDAS.items()}
    # half of the problems from a teacher who departs on .6 of the traces: what a trace-level interval can't see
    weights[MIXED] = worlds.teacher(world, np.where(rng.random(problems) < 0.5, 0.6, 0.0))
    weights[RARE] = worlds.teacher(world, np.where(rng.permutation(problems) < problems / 8, 0.35, 0.0))
    weights[RARER] = worlds.teacher(world, np.where(rng.permutation(problems) < problems / 30, 0.95, 0.0))
    out = {}
    for name, w in weights.items():
        draws = worlds.draw(world, rng, traces, weights=w)
        out[name] = (draws.log_q - draws.log_p).reshape(problems, traces)
    for name, temperature in (("temp .9", 0.9), ("temp .8", 0.8), ("temp .5", 0.5)):
        draws = worlds.draw(world, rng, traces, temperature=temperature)
        out[name] = (draws.log_q - draws.log_p).reshape(problems, traces)
    return out


def gate_reach(rng: np.random.Generator, runs: int, *, problems: int = 600, traces: int = 24) -> Gate:
    """Bias of E_k at k = 4, 16, 256 over all worlds, coverage of its interval, the bounds that the verdict reads."""
    population = bank(rng, problems, traces)
    names = [*WORLDS, *LAMBDAS, MIXED, RARE, RARER]
    by_problem = {w: reach.excess(population[w], 64).mean(1) for w in (RARE, RARER)}  # E_64 of every problem
    unit = np.repeat(np.arange(PROBLEMS), TRACES)
    truth = {(w, k): float(np.nanmean(reach.excess(population[w].ravel(), k))) for w in names for k in GRID}
    value = {key: np.empty(runs) for key in truth}
    covered = dict.fromkeys(truth, 0)
    iid = dict.fromkeys(((MIXED, k) for k in GRID), 0)
    new, given = dict.fromkeys((RARE, RARER), 0), dict.fromkeys((RARE, RARER), 0)
    low, high = {name: np.empty(runs) for name in names}, {name: np.empty(runs) for name in names}
    for run in range(runs):
        p = rng.integers(0, problems, PROBLEMS)[:, None]
        t = rng.integers(0, traces, (PROBLEMS, TRACES))
        for name in names:
            ratios = population[name][p, t].ravel()
            for k, found in reach.curve(ratios, unit, GRID).items():
                value[name, k][run] = found.value
                covered[name, k] += found.low <= truth[name, k] <= found.high
                if name in new and k == 64:
                    new[name] += found.high <= 0.02
                    given[name] += found.high <= 0.02 < by_problem[name][p].mean()
                if k == 16:
                    low[name][run], high[name][run] = found.low, found.high
            if name == MIXED:
                for k, found in reach.curve(ratios, np.arange(len(ratios)), GRID).items():
                    iid[name, k] += found.low <= truth[name, k] <= found.high
    bias = {(w, k): value[w, k].mean() - truth[w, k] for w in names for k in BUDGETS}
    worst = max(bias, key=lambda key: abs(bias[key]))
    what = f"largest |bias| of E_k over {len(names)} worlds and k = 4, 16, 256 ({worst[0]}, k = {worst[1]})"
    noise = 4 * value[worst].std() / np.sqrt(runs)
    # log q at T=1 of a cooled source is its log p: E_k becomes 0
    mutant = ("log q at T=1 for the cooled source temp .5", abs(truth["temp .5", 16]))
    claim = "<= 0.01 + 4 standard errors"
    checks = [number("V4", what, abs(bias[worst]), 0.0, 0.01 + noise, runs, claim=claim, mutant=mutant)]
    inner = [key for key in covered if 0.05 <= truth[key] <= 0.95 and key[1] in BUDGETS]
    for key, word in ((min(inner, key=covered.get), "lowest"), (max(inner, key=covered.get), "highest")):
        what = f"coverage of E_k's 95 % interval, {word} of {len(inner)} settings ({key[0]}, k = {key[1]})"
        checks.append(share("V4", what, covered[key], runs, at_least=0.9, at_most=0.99))
    what = f"coverage of E_16's 95 % interval, {MIXED}"
    mutant = ("bootstrap of traces instead of problems", iid[MIXED, 16])
    checks.append(share("V4", what, covered[MIXED, 16], runs, at_least=0.9, at_most=0.99, mutant=mutant))
    rare = [key for key in covered if 0 < truth[key] < 0.05 and key[0] not in new]
    key = min(rare, key=covered.get)
    what = f"coverage where E_k is rare (0 < E_k < .05), lowest of {len(rare)} settings ({key[0]}, k = {key[1]})"
    checks.append(share("V4", what, covered[key], runs, at_least=0.9))
    what = f"{RARE} (E_64 = {truth[RARE, 64]:.3f}): upper bound of E_64 <= .02, which would be read as inside"
    checks.append(share("V4", what, new[RARE], runs, at_most=0.05))
    for name in (RARE, RARER):
        what = f"{name}: the same, where E_64 of the 30 problems drawn is above .02"
        checks.append(share("V4", what, given[name], runs, at_most=0.05))
    none = float((by_problem[RARER] < 0.02).mean()) ** PROBLEMS
    what = (
        f"{RARER} (E_64 = {truth[RARER, 64]:.3f}): the same for the population, no better than (29/30)^30 = {none:.2f}"
    )
    checks.append(share("V4", what, new[RARER], runs, at_least=none, at_most=none))
    what = "tilt .2 (ratio at most 1 / pass rate): upper bound of E_16 <= .02"
    below = int((high["tilt .2"] <= 0.02).sum())
    checks.append(
        share("V4", what, below, runs, at_least=0.95, mutant=("temp .5", int((high["temp .5"] <= 0.02).sum())))
    )
    for name, lam in LAMBDAS.items():
        # of the bank's E_16, not of lambda: at .05 a bank's novel traces vary by a tenth, and the power with them
        third = truth[name, 16] / 3
        what = f"{name}: lower bound of E_16 above a third of E_16 = {truth[name, 16]:.3f}"
        mutant = ("base", int((low["base"] > third).sum()))
        least = 0.9 if lam > 0.1 else 0.7  # .05 of 480 traces are 24, in some 15 problems
        checks.append(share("V4", what, int((low[name] > third).sum()), runs, at_least=least, mutant=mutant))
    curves = [
        {
            "world": w,
            "k": k,
            "true": truth[w, k],
            "mean": value[w, k].mean(),
            "low": float(np.quantile(value[w, k], 0.025)),
            "high": float(np.quantile(value[w, k], 0.975)),
        }
        for w in names
        for k in GRID
    ]
    coverage = [
        {"interval": f"E_{k}", "setting": w, "coverage": covered[w, k] / runs, "truth": truth[w, k], "runs": runs}
        for w, k in covered
        if truth[w, k] > 0 and k in BUDGETS
    ]
    more, rows = _rare(rng, runs)
    return Gate([*checks, *more], {"reach": curves, "coverage": [*coverage, *rows]})


def _rare(rng: np.random.Generator, runs: int) -> tuple[list[GateResult], list[dict[str, Any]]]:
    """The bound where hardly any value is above 0, for a given set of problems: does it hold, is it sharp?"""
    n, unit = PROBLEMS * TRACES, np.repeat(np.arange(PROBLEMS), TRACES)
    edge = 1 - 0.05 ** (1 / n)  # no event among n in one run of twenty
    three = np.where(unit < 3, 10 * edge, 0.0)

    def event(rate: float | np.ndarray) -> np.ndarray:
        return rng.random(n) < rate

    laws: dict[str, tuple[float, Callable[[], np.ndarray]]] = {
        "events at .002": (0.002, lambda: event(0.002)),
        "events at the edge of the rule of three": (edge * (1 - 1e-9), lambda: event(edge)),
        "the same, all in three problems": (three.mean() * (1 - 1e-9), lambda: event(three)),
        "events at .01": (0.01, lambda: event(0.01)),
        "uniform values at .02": (0.01, lambda: event(0.02) * rng.random(n)),
        "values of .01 everywhere": (0.01, lambda: np.full(n, 0.01)),
        "one in a hundred 1, a tenth .02": (0.01 + 0.99 * 0.002, lambda: np.where(event(0.01), 1, 0.02 * event(0.1))),
    }
    covered, plain = dict.fromkeys(laws, 0), dict.fromkeys(laws, 0)
    sharp = counted = 0
    for _ in range(runs):
        for name, (truth, drawn) in laws.items():
            values = drawn().astype(float)
            covered[name] += bootstrap.rare_upper(values) >= truth
            plain[name] += bootstrap.mean(values, unit, draws=200).high >= truth
        barely = np.zeros(n)
        barely[rng.permutation(n)[:9]] = rng.uniform(0, 0.02, 9)
        sharp += bootstrap.rate(barely, unit).high <= 0.02
        counted += bootstrap.share_upper(9, n) <= 0.02
    key = min(covered, key=covered.get)
    what = f"upper bound of rare values, given problems: lowest coverage of {len(laws)} laws ({key})"
    mutant = ("percentile bootstrap alone, events at .002", plain["events at .002"])
    checks = [share("V4", what, covered[key], runs, at_least=0.95, mutant=mutant)]
    what = "nine of 480 traces barely beyond the budget (excess below .02): upper bound <= .02"
    mutant = ("each trace above 0 counted as 1", counted)
    checks.append(share("V4", what, sharp, runs, at_least=0.95, mutant=mutant))
    rows = [
        {"interval": "rare bound", "setting": w, "coverage": covered[w] / runs, "truth": laws[w][0], "runs": runs}
        for w in laws
    ]
    return checks, rows
