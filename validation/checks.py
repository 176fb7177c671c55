"""What a gate returns, and the bands: a gate fails only where its number contradicts the claim at FALSE_ALARM.

A claim is a range for a probability ("size .05", "coverage between .90 and .99"). The measured share of `runs`
simulations may leave the range by binomial noise: the band is the range widened so that a true claim fails with
probability at most FALSE_ALARM on each side. More runs narrow the band; nothing else does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

FALSE_ALARM = 5e-5  # per side of a band: 1e-4 for a check with two sides


class Mutant(NamedTuple):
    """A wrong method put in the place of the right one: its number, and whether the same band turns it away."""

    what: str
    measured: float
    caught: bool


class GateResult(NamedTuple):
    """One check of a gate: what was measured over how many runs, the band, and the mutant (None: shares the gate's).

    noise: inside the band, but on the wrong side of the claim itself; passed, and to be seen.
    """

    name: str
    what: str
    claim: str
    measured: float
    low: float
    high: float
    passed: bool
    runs: int
    mutant: Mutant | None = None
    noise: bool = False


class Gate(NamedTuple):
    """The checks of one gate and the numbers behind its figures: name of a curve -> rows."""

    checks: list[GateResult]
    curves: dict[str, list[dict[str, Any]]]


def share(
    name: str,
    what: str,
    hits: float,
    runs: int,
    *,
    at_least: float = 0.0,
    at_most: float = 1.0,
    mutant: tuple[str, float] | None = None,
) -> GateResult:
    """A probability claimed to lie in [at_least, at_most], seen `hits` times in `runs`; mutant: (what, its hits)."""
    low, high = band(at_least, at_most, runs)
    claim = f"= {at_least:g}" if at_least == at_most else _range(at_least, at_most)
    other = None if mutant is None else (mutant[0], mutant[1] / runs)
    made = number(name, what, hits / runs, low, high, runs, claim=claim, mutant=other)
    return made._replace(noise=made.passed and at_least < at_most and not at_least <= hits / runs <= at_most)


def band(at_least: float, at_most: float, runs: int) -> tuple[float, float]:
    """The range of a probability widened by binomial noise at FALSE_ALARM per side."""
    low = 0.0 if at_least <= 0 else float(binom.ppf(FALSE_ALARM, runs, at_least)) / runs
    high = 1.0 if at_most >= 1 else float(binom.isf(FALSE_ALARM, runs, at_most)) / runs
    return low, high


def number(
    name: str,
    what: str,
    measured: float,
    low: float,
    high: float,
    runs: int,
    *,
    claim: str = "",
    mutant: tuple[str, float] | None = None,
) -> GateResult:
    """A number that must lie in [low, high]; a NaN never passes, and a NaN mutant is caught by nothing."""
    caught = None
    if mutant is not None:
        value = float(mutant[1])
        caught = Mutant(mutant[0], value, not math.isnan(value) and not low <= value <= high)
    measured = float(measured)
    return GateResult(
        name, what, claim or _range(low, high), measured, float(low), float(high), low <= measured <= high, runs, caught
    )


def _range(low: float, high: float) -> str:
    if low in (0.0, -math.inf):
        return f"<= {high:g}"
    return f">= {low:g}" if high in (1.0, math.inf) else f"{low:g} to {high:g}"


def ecdf(test: str, p_values: list[float] | np.ndarray) -> list[dict[str, Any]]:
    """Rows (test, p, share) of the empirical distribution of p-values at p = .005, .01, ..., 1."""
    p_values = np.sort(np.asarray(p_values, float))
    grid = np.arange(1, 201) / 200
    found = np.searchsorted(p_values, grid + 1e-12, side="right") / max(1, len(p_values))
    return [{"test": test, "p": float(p), "share": float(v), "runs": len(p_values)} for p, v in zip(grid, found)]


def passed(gates: list[Gate]) -> bool:
    """Every check passed, every mutant was caught, and every gate (by name) has a mutant."""
    checks = [c for gate in gates for c in gate.checks]
    guarded = {c.name for c in checks if c.mutant is not None}
    return all(c.passed and (c.mutant is None or c.mutant.caught) and c.name in guarded for c in checks)
