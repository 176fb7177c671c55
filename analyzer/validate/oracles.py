"""V12: numbers of independent implementations, where those are installed (they are no dependency of the package)."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from scipy.stats import energy_distance, permutation_test

from analyzer.stats import budget, conformal, kernels, permutation
from analyzer.validate.checks import Gate, GateResult, number


def gate_oracles(rng: np.random.Generator, runs: int) -> Gate:
    """scipy always; statsmodels where it can be imported. Exact up to rounding."""
    worst = wrong = 0.0
    for _ in range(runs):
        x, y = rng.normal(size=12), rng.normal(0.5, size=9)
        both, label = np.append(x, y), np.arange(21) >= 12
        s = np.where(label, 1 / 9, -1 / 12)
        distance = np.abs(both[:, None] - both[None, :])
        ours = float(s @ kernels.energy(distance) @ s)
        # scipy's is the square root of 2 int (F - G)^2, the same number in one dimension
        worst = max(worst, abs(ours - energy_distance(x, y) ** 2))
        wrong = max(wrong, abs(float(s @ -(distance**2) @ s) - energy_distance(x, y) ** 2))
    mutant = ("squared distances in the kernel", wrong)
    checks = [_equal("s'(-D)s against scipy's energy distance squared, largest difference", worst, runs, mutant)]
    n = 40
    label = rng.random(n) < 0.4
    adjacency = kernels.nearest(kernels.distances((lambda v: v @ v.T)(rng.normal(size=(n, 5)))), 5)
    b, a = int(label.sum()), int((~label).sum())
    totals = permutation.quadratic(permutation.signs(label, 4000, 1), adjacency)[1:]
    weight = np.sqrt(a * b / n)
    same, other = (a * (a - 1), b * (b - 1)), 2 * a * b
    edges = adjacency.sum()
    expected = weight**2 * edges / (n * (n - 1)) * (same[0] / a**2 + same[1] / b**2 - other / (a * b))
    noise = 4 * totals.std() / np.sqrt(len(totals))
    what = "permuted mean of the nearest-neighbour statistic against its closed form"
    checks.append(
        number("V12", what, totals.mean() - expected, -noise, noise, len(totals), claim="0 +- 4 standard errors")
    )
    value = rng.normal(size=n) + 0.5 * label
    ours = permutation.test([permutation.Block(label, {}, {"v": value})], permutations=9999, seed=2)["v"].p
    theirs = permutation_test(
        (value[label], value[~label]),
        lambda u, v, axis: np.abs(u.mean(axis) - v.mean(axis)),
        n_resamples=9999,
        vectorized=True,
        alternative="greater",
        rng=np.random.default_rng(3),
    ).pvalue
    noise = 5 * np.sqrt(2 * max(theirs, 1e-3) / 9999)
    what = f"p of a difference of means against scipy's permutation test ({theirs:.4f})"
    checks.append(number("V12", what, ours - theirs, -noise, noise, 9999, claim="0 +- 5 standard errors"))
    return Gate([*checks, *_statsmodels(rng, runs)], {})


def _statsmodels(rng: np.random.Generator, runs: int) -> list[GateResult]:
    if find_spec("statsmodels") is None:
        return []
    from statsmodels.stats.multitest import multipletests

    fdr = holm = 0.0
    for _ in range(runs):
        p = rng.random(50) ** 3
        fdr = max(fdr, float((multipletests(p, 0.1, "fdr_bh")[0] != conformal.discoveries(p, q=0.1)).sum()))
        holm = max(holm, float(np.abs(multipletests(p, 0.05, "holm")[1] - budget.holm(p)).max()))
    checks = [_equal("Benjamini-Hochberg flags against statsmodels, largest number that differ", fdr, runs)]
    return [*checks, _equal("Holm's adjusted p against statsmodels, largest difference", holm, runs)]


def _equal(what: str, value: float, runs: int, mutant: tuple[str, float] | None = None) -> GateResult:
    return number("V12", what, value, 0.0, 1e-10, runs, mutant=mutant)
