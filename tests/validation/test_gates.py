"""The fast half of the validation suite: seeded, every band at a false-alarm rate of at most 1e-4 per check.

V11 (the two worlds) and the strategy level are left to the full suite, `python -m validation`.
"""

from __future__ import annotations

from functools import cache

import pytest

from validation import checks, suite

SEED = 20260
FAST = [name for name, task in suite.TASKS.items() if task.fast]


@cache
def gate(name: str) -> checks.Gate:
    return suite.run_task(name, SEED, fast=True)[1]


@pytest.mark.parametrize("name", FAST)
def test_gates_pass(name):
    failed = [c for c in gate(name).checks if not c.passed]
    assert not failed, "\n".join(
        f"{c.name} {c.what}: {c.measured:.4g} not in [{c.low:.4g}, {c.high:.4g}]" for c in failed
    )


@pytest.mark.parametrize("name", FAST)
def test_mutants_are_caught(name):
    escaped = [c for c in gate(name).checks if c.mutant is not None and not c.mutant.caught]
    assert not escaped, "\n".join(
        f"{c.name} {c.what}: mutant {c.mutant.what} at {c.mutant.measured:.4g}" for c in escaped
    )


@pytest.mark.parametrize("name", ["statsmodels", "prdc"])
def test_independent_implementations_agree(name):
    pytest.importorskip(name, reason=f"{name} is not installed (extra `oracles`)")
    mine = [c for c in gate("oracles").checks if name in c.what]
    assert mine and all(c.passed for c in mine)


def test_every_gate_has_a_mutant_and_every_task_a_check():
    found = [c for name in FAST for c in gate(name).checks]
    assert {c.name for c in found} == {c.name for c in found if c.mutant is not None}
    assert {c.name for c in found} == set(suite.NAMES) - {"V11"} - suite.APART
    assert all(c.name in suite.TASKS[name].serves for name in FAST for c in gate(name).checks)
