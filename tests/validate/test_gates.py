"""The fast half of the validation suite: seeded, every band at a false-alarm rate of at most 1e-4 per check.

V11 (the miniature) and the strategy level are left to the full suite, `python -m analyzer.validate`.
"""

from __future__ import annotations

from functools import cache

import pytest

from analyzer.validate import checks, suite

SEED = 20260
FAST = [name for name, task in suite.TASKS.items() if task.fast]
# The upper bound of E_k measures its design effect at a smaller budget, where a tilt has excess, so that a source of
# bounded ratio is not "inside" at 30 problems although no trace exceeds the budget. To be removed with the cause.
OPEN = ("tilt .2 (ratio at most", "tilt .2: inside", "best of 16: inside")


@cache
def gate(name: str) -> checks.Gate:
    return suite.run_task(name, SEED, fast=True)[1]


def known(check: checks.GateResult) -> bool:
    return check.what.startswith(OPEN)


@pytest.mark.parametrize("name", FAST)
def test_gates_pass(name):
    failed = [c for c in gate(name).checks if not c.passed and not known(c)]
    assert not failed, "\n".join(
        f"{c.name} {c.what}: {c.measured:.4g} not in [{c.low:.4g}, {c.high:.4g}]" for c in failed
    )


@pytest.mark.xfail(strict=True, reason="the bound of E_k is too wide for sources of bounded ratio")
@pytest.mark.parametrize("name", ["reach", "confusion"])
def test_bounded_ratios_are_inside(name):
    mine = [c for c in gate(name).checks if known(c)]
    assert mine and all(c.passed for c in mine)


@pytest.mark.parametrize("name", FAST)
def test_mutants_are_caught(name):
    escaped = [c for c in gate(name).checks if c.mutant is not None and not c.mutant.caught]
    assert not escaped, "\n".join(
        f"{c.name} {c.what}: mutant {c.mutant.what} at {c.mutant.measured:.4g}" for c in escaped
    )


def test_every_gate_has_a_mutant_and_every_task_a_check():
    found = [c for name in FAST for c in gate(name).checks]
    assert {c.name for c in found} == {c.name for c in found if c.mutant is not None}
    assert {c.name for c in found} == set(suite.NAMES) - {"V11"}
    assert all(c.name in suite.TASKS[name].serves for name in FAST for c in gate(name).checks)
