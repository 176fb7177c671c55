"""V12: numbers of independent implementations: scipy always; statsmodels and prdc where they are installed.

The latter two are no dependency of the package (extra `oracles`); `missing` names those that are not there.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from scipy.stats import binomtest, energy_distance, false_discovery_control, permutation_test

from analyzer.stats import bootstrap, budget, conformal, kernels, permutation
from validation.checks import Gate, GateResult, number


def missing() -> list[str]:
    """The independent implementations that are not installed."""
    return [name for name in ("statsmodels", "prdc") if find_spec(name) is None]


def gate_oracles(rng: np.random.Generator, runs: int) -> Gate:
    """Statistics, p-values, bounds and neighbourhoods against other people's code; exact up to rounding or noise."""
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
    upper = wrong = 0.0
    for events, of in [(0, 64), (1, 480), (7, 300), (60, 61), *rng.integers(0, 50, (runs, 2)) + [0, 50]]:
        theirs = binomtest(int(events), int(of), alternative="less").proportion_ci(0.95).high
        upper = max(upper, abs(bootstrap.share_upper(events, of) - theirs))
        p = events / of
        wrong = max(wrong, abs(p + 1.645 * np.sqrt(p * (1 - p) / of) - theirs))
    mutant = ("Wald's interval", wrong)
    what = "Clopper-Pearson bound against scipy's, largest difference"
    checks.append(number("V12", what, upper, 0.0, 1e-8, runs + 4, mutant=mutant))
    return Gate([*checks, *_scipy(rng, runs), *_statsmodels(rng, runs), *_prdc(rng, runs)], {})


def _scipy(rng: np.random.Generator, runs: int) -> list[GateResult]:
    differ = 0.0
    for _ in range(runs):
        p = rng.random(50) ** 3
        differ = max(differ, float((conformal.discoveries(p, q=0.1) != (false_discovery_control(p) <= 0.1)).sum()))
    return [_equal("Benjamini-Hochberg flags against scipy, largest number that differ", differ, runs)]


def _statsmodels(rng: np.random.Generator, runs: int) -> list[GateResult]:
    if "statsmodels" in missing():
        return []
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    fdr = holm = upper = 0.0
    for _ in range(runs):
        p = rng.random(50) ** 3
        fdr = max(fdr, float((multipletests(p, 0.1, "fdr_bh")[0] != conformal.discoveries(p, q=0.1)).sum()))
        holm = max(holm, float(np.abs(multipletests(p, 0.05, "holm")[1] - budget.holm(p)).max()))
        events, of = int(rng.integers(0, 40)), int(rng.integers(40, 400))
        theirs = proportion_confint(events, of, alpha=0.1, method="beta")[1]  # two-sided 90 %: the same upper end
        upper = max(upper, abs(float(bootstrap.share_upper(events, of) - theirs)))
    checks = [_equal("Benjamini-Hochberg flags against statsmodels, largest number that differ", fdr, runs)]
    checks.append(_equal("Holm's adjusted p against statsmodels, largest difference", holm, runs))
    what = "Clopper-Pearson bound against statsmodels, largest difference"
    return [*checks, number("V12", what, upper, 0.0, 1e-8, runs)]


def _prdc(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """prdc's radius of the k nearest is the edge of our neighbourhoods; its four metrics have no counterpart here."""
    if "prdc" in missing():
        return []
    from prdc.prdc import compute_nearest_neighbour_distances

    differ = 0
    for _ in range(min(runs, 20)):
        x = rng.normal(size=(60, 6))
        distance = kernels.distances(x @ x.T)
        radius = compute_nearest_neighbour_distances(x, 5)
        within = distance <= radius[:, None] + 1e-9
        np.fill_diagonal(within, False)
        theirs = (within.astype(float) + within.T) / 2
        differ = max(differ, int((np.abs(kernels.nearest(distance, 5) - theirs) > 1e-9).sum()))
    return [_equal("five nearest neighbours against prdc's radii, entries that differ", differ, min(runs, 20))]


def _equal(what: str, value: float, runs: int, mutant: tuple[str, float] | None = None) -> GateResult:
    return number("V12", what, value, 0.0, 1e-10, runs, mutant=mutant)
