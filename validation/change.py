"""V1 to V3: permutation tests of "changed at all" and of "only reweighted": size, power, ways to get them wrong.

Representation: bigram counts of a trace, square roots, rows of length 1, computed without labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import kstest

from analyzer.stats import kernels, permutation
from validation import worlds
from validation.checks import Gate, ecdf, number, share

PROBLEMS, TRACES, PERMUTATIONS, ALPHA = 30, 16, 199, 0.05
MANY = 48  # traces per arm where the counts of correct ones shall differ much between problems
NAMES = ("energy", "nearest", "tree", "occupancy", "surprisal")


def bigrams(draws: worlds.Draws) -> np.ndarray:
    """Square roots of bigram counts in rows of length 1: float [N, 169]."""
    width = worlds.TOKENS + 1
    first, second = draws.tokens[:, :-1], draws.tokens[:, 1:]
    pair = np.where((first >= 0) & (second >= 0), first * width + second, width * width)
    flat = (np.arange(len(pair))[:, None] * (width * width + 1) + pair).ravel()
    counts = np.bincount(flat, minlength=len(pair) * (width * width + 1)).reshape(len(pair), -1)[:, :-1]
    x = np.sqrt(counts)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def blocks(
    base: worlds.Draws, source: worlds.Draws, *, correct: bool = False, names: tuple[str, ...] = NAMES
) -> Iterator[permutation.Block]:
    """One block per problem, of the correct traces only where `correct`; problems without two per arm are left out."""
    surprisal = [-d.log_p / d.length for d in (base, source)]
    for p in range(int(base.problem.max()) + 1):
        at = [np.flatnonzero((d.problem == p) & (d.correct | (not correct))) for d in (base, source)]
        if min(map(len, at)) < 2:
            continue
        both = worlds.Draws(*(_joined(a, b, *at) for a, b in zip(base, source, strict=True)))
        label = np.arange(len(both.problem)) >= len(at[0])
        # rows in an order that no label touches: the tree breaks ties by position
        order = np.lexsort((*both.tokens.T[::-1], both.length))
        x = bigrams(worlds.take(both, order))
        distance = kernels.distances(x @ x.T)
        made: dict[str, np.ndarray] = {}
        if "energy" in names:
            made["energy"] = kernels.energy(distance)
        if "nearest" in names:
            made["nearest"] = kernels.nearest(distance)
        if "tree" in names:
            made["tree"] = kernels.tree(distance)
        if "occupancy" in names:
            made["occupancy"] = kernels.occupancy(kernels.clusters(distance, 6))
        value = np.concatenate([surprisal[0][at[0]], surprisal[1][at[1]]])[order]
        yield permutation.Block(
            label[order], made, {"surprisal": value, "one-class": _one_class(distance, label[order])}, p
        )


def _one_class(distance: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Mutant: distance to the nearest base trace, where a base trace is its own nearest one."""
    return distance[:, ~source].min(1)


def _joined(a: Any, b: Any, at_a: np.ndarray, at_b: np.ndarray) -> Any:
    if isinstance(a, dict):
        return {name: np.concatenate([a[name][at_a], b[name][at_b]]) for name in a}
    return np.concatenate([a[at_a], b[at_b]])


def gate_size(rng: np.random.Generator, runs: int) -> Gate:
    """V1: every statistic under equality, 30 problems, 16 traces per arm; the p-values are uniform."""
    found: dict[str, list[float]] = {name: [] for name in (*NAMES, "one-class")}
    family, single = 0, 0
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        base, source = worlds.draw(world, rng, TRACES), worlds.draw(world, rng, TRACES)
        made = list(blocks(base, source))
        for name, result in permutation.test(made, permutations=PERMUTATIONS, seed=run).items():
            found[name].append(result.p)
        adjusted, alone = _units(base, source, run)
        family += adjusted.min() <= ALPHA
        single += alone.min() <= ALPHA
    checks = []
    for name in NAMES:
        p = np.array(found[name])
        mutant = (
            ("one-class radius fitted on the base alone", _below(found["one-class"])) if name == "nearest" else None
        )
        what = f"size at .05, {name}, {PROBLEMS} problems, {TRACES} traces per arm"
        checks.append(share("V1", what, _below(p), runs, at_least=ALPHA, at_most=ALPHA, mutant=mutant))
        # p is discrete and, with ties broken against rejection, at most uniform: jitter within its step
        jittered = p - rng.random(len(p)) / (PERMUTATIONS + 1)
        checks.append(
            number(
                "V1", f"Kolmogorov-Smirnov p of the p-values, {name}", kstest(jittered, "uniform").pvalue, 1e-4, 1, runs
            )
        )
    what = "family-wise error of max-T over 40 units at .05"
    checks.append(share("V1", what, family, runs, at_most=ALPHA, mutant=("units not adjusted", single)))
    return Gate(checks, {"ecdf": [row for name in NAMES for row in ecdf(name, found[name])]})


def _below(p: Any) -> int:
    return int((np.asarray(p) <= ALPHA + 1e-12).sum())


def _units(base: worlds.Draws, source: worlds.Draws, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p-values of the 40 most frequent bigrams (pooled), and each unit's own."""
    x, y = bigrams(base) > 0, bigrams(source) > 0
    top = np.argsort(-(x.sum(0) + y.sum(0)), kind="stable")[:40]
    parts = []
    for p in range(PROBLEMS):
        member = np.concatenate([x[base.problem == p][:, top], y[source.problem == p][:, top]])
        parts.append((np.arange(len(member)) >= (base.problem == p).sum(), member, p))
    adjusted = permutation.max_t(parts, permutations=PERMUTATIONS, seed=seed)
    total = sum(permutation.signs(s, PERMUTATIONS, seed, mark) @ m.astype(float) for s, m, mark in parts)
    alone = (1 + (total[1:] >= total[0] - 1e-9).sum(0)) / (PERMUTATIONS + 1)
    return adjusted, alone


def gate_unbalanced(rng: np.random.Generator, runs: int) -> Gate:
    """V2: correct traces only, 48 drawn per arm, so that counts differ by arm and problem; the null holds exactly."""
    found, everywhere = [], []
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        base = worlds.draw(world, rng, MANY)
        source = worlds.draw(world, rng, MANY, weights=worlds.tilt(world, 0.2))
        made = list(blocks(base, source, correct=True, names=("energy",)))
        found.append(permutation.test(made, permutations=PERMUTATIONS, seed=run)["energy"].p)
        everywhere.append(_global(made, rng))
    what = "correct traces of tilt .2 against the base's, unequal counts, energy: size at .05"
    mutant = ("labels permuted across problems", _below(everywhere))
    checks = [share("V2", what, _below(found), runs, at_least=ALPHA, at_most=ALPHA, mutant=mutant)]
    what = "that mutant rejects a true null in more than a fifth of the runs"
    checks.append(share("V2", what, _below(everywhere), runs, at_least=0.2))
    rows = ecdf("energy, correct of tilt .2", found) + ecdf("global permutation", everywhere)
    return Gate(checks, {"ecdf": rows})


def _global(made: list[permutation.Block], rng: np.random.Generator) -> float:
    """Mutant: the prompt-masked statistic with labels permuted over all traces at once (fits an iid design)."""
    label = np.concatenate([b.source_N for b in made])
    y = np.tile(label, (PERMUTATIONS + 1, 1))
    rng.permuted(y[1:], axis=1, out=y[1:])
    s_BN = np.where(y, 1 / label.sum(), -1 / (~label).sum())
    totals, at = np.zeros(PERMUTATIONS + 1), 0
    for b in made:
        distance, n = -b.kernels["energy"], len(b.source_N)
        # a bounded kernel of the same distances, as MMD takes
        kernel = np.exp(-(distance**2) / (2 * np.median(distance[distance > 0]) ** 2))
        totals += permutation.quadratic(s_BN[:, at : at + n], kernel)
        at += n
    return permutation.p_value(totals)


def gate_reweighting(rng: np.random.Generator, runs: int) -> Gate:
    """V3: "only reweighted" on correct traces, 16 drawn per arm: size under tilts, power against teachers."""
    cases = {"tilt 1": 1.0, "tilt .2": 0.2}
    teachers = {"teacher .15": 0.15, "teacher .3": 0.3}
    names = ("energy", "surprisal")
    found: dict[tuple[str, str], list[float]] = {(c, n): [] for c in (*cases, *teachers) for n in names}
    unsplit = []
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        base = worlds.draw(world, rng, TRACES)
        weights = {name: worlds.tilt(world, b) for name, b in cases.items()}
        weights |= {name: worlds.teacher(world, lam) for name, lam in teachers.items()}
        for name, w in weights.items():
            source = worlds.draw(world, rng, TRACES, weights=w)
            made = blocks(base, source, correct=True, names=("energy",))
            result = permutation.test(made, permutations=PERMUTATIONS, seed=run)
            for statistic in names:
                found[name, statistic].append(result[statistic].p)
            if name == "tilt .2":
                made = blocks(base, source, names=("energy",))
                unsplit.append(permutation.test(made, permutations=PERMUTATIONS, seed=run)["energy"].p)
    checks = []
    for name in cases:
        for statistic in names:
            wrong = (name, statistic) == ("tilt .2", "energy")
            mutant = ("all traces instead of the correct ones", _below(unsplit)) if wrong else None
            what = f"correct traces of {name} against the base's, {statistic}: size at .05"
            hits = _below(found[name, statistic])
            checks.append(share("V3", what, hits, runs, at_least=ALPHA, at_most=ALPHA, mutant=mutant))
    for name, statistic, least in (
        ("teacher .3", "energy", 0.9),
        ("teacher .3", "surprisal", 0.95),
        ("teacher .15", "surprisal", 0.9),
    ):
        what = f"correct traces of {name}, {statistic}: power at .05"
        checks.append(share("V3", what, _below(found[name, statistic]), runs, at_least=least))
    rows = [row for (c, n), p in found.items() if c in cases for row in ecdf(f"{n}, correct of {c}", p)]
    return Gate(checks, {"ecdf": rows})


def gate_power(rng: np.random.Generator, runs: int) -> Gate:
    """V1: power of the tests of change over the share of a teacher; they see a tilt too, which has not left."""
    rows, tilted = [], 0
    for lam in (0.05, 0.1, 0.2, 0.4):
        found: dict[str, list[float]] = {name: [] for name in NAMES}
        for run in range(runs):
            world = worlds.make(rng, PROBLEMS)
            base = worlds.draw(world, rng, TRACES)
            source = worlds.draw(world, rng, TRACES, weights=worlds.teacher(world, lam))
            for name, result in permutation.test(blocks(base, source), permutations=PERMUTATIONS, seed=run).items():
                if name in found:
                    found[name].append(result.p)
            if lam == 0.05:
                tilt = worlds.draw(world, rng, TRACES, weights=worlds.tilt(world, 0.2))
                result = permutation.test(blocks(base, tilt, names=("energy",)), permutations=PERMUTATIONS, seed=run)
                tilted += result["energy"].p <= ALPHA
        rows += [{"test": n, "lambda": lam, "power": _below(p) / runs, "runs": runs} for n, p in found.items()]
    what = "tilt .2, inside by construction: the energy test sees a change (and must never be read as leaving)"
    return Gate([share("V1", what, tilted, runs, at_least=0.8)], {"power": rows})
