"""V8 and V10 at the strategy level, with every analysis that the verdict reads: few runs, since the level is slow."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.analysis.data import features
from analyzer.analysis.strategy import change
from analyzer.analysis.strategy import run as strategy
from analyzer.records import Tables
from validation import worlds
from validation.checks import Gate, share
from validation.verdicts import BUDGET, PROBLEMS, READ, TRACES, read, results

TESTED = 4  # the budget at which a strategy is certified
SOURCES = ("base again", "tilt .2", "teacher .5")


def gate_strategy(rng: np.random.Generator, runs: int) -> Gate:
    """A second draw of the base and a tilt are never outside at the strategy level; a novel strategy is certified."""
    alarms = 0
    outside = dict.fromkeys(SOURCES, 0)
    certified = dict.fromkeys(SOURCES, 0)
    changed = dict.fromkeys(SOURCES, 0)
    for run in range(runs):
        world = worlds.make(rng, PROBLEMS)
        drawn = {"base": worlds.draw(world, rng, TRACES), "base again": worlds.draw(world, rng, TRACES)}
        drawn["tilt .2"] = worlds.draw(world, rng, TRACES, weights=worlds.tilt(world, 0.2))
        drawn["teacher .5"] = worlds.draw(world, rng, TRACES, weights=worlds.teacher(world, 0.5))
        tables = worlds.tables(drawn)
        found = results(tables, READ, run, (TESTED, BUDGET))
        for source, levels in read(found, tables).items():
            outside[source] += levels["skeleton"] == "outside"
        test = found["strategy"].tables["strategy_test"]
        moved = _moved(tables, run)
        preflight = found["preflight"].tables["checks"]
        alarms += bool((preflight.loc[preflight["check"] == "A/A", "passed"] == False).any())  # noqa: E712 - None is open
        for name in SOURCES:
            mine = test[(test["source"] == name) & (test["representation"] == "skeleton") & (test["k"] == TESTED)]
            certified[name] += bool(mine["certified"].any())
            changed[name] += moved[name] <= 0.05
    checks = []
    for name in ("base again", "tilt .2"):
        mutant = ("energy test p <= .05 read as leaving", changed[name]) if name == "tilt .2" else None
        what = f"{name}: outside at any level of the method, budget 64"
        checks.append(share("V10", what, outside[name], runs, at_most=0.05, mutant=mutant))
    what = f"base again: strategy cluster certified at k = {TESTED}"
    checks.append(share("V8", what, certified["base again"], runs, at_most=0.05))
    what = f"teacher .5: strategy cluster of skeletons certified at k = {TESTED} (64 traces per problem and arm)"
    checks.append(share("V10", what, certified["teacher .5"], runs, at_least=0.9))
    checks.append(
        share("V8", "A/A of the preflight, all levels: alarm on the base's halves", alarms, runs, at_most=0.05)
    )
    return Gate(checks, {})


def _moved(tables: Tables, seed: int) -> dict[str, float]:
    """Source -> p of the energy test of skeletons, all traces."""
    rows, _ = strategy.prepared(tables)
    counts, none = features.word_counts(rows["response"]), np.empty((0, 0))
    options = {"at_most": strategy.AT_MOST, "permutations": strategy.permutation.PERMUTATIONS, "seed": seed}
    found = pd.DataFrame(change.tables(tables, rows, counts, [], none, list(SOURCES), **options)[0])
    wanted = {"representation": "skeleton", "statistic": "energy", "conditioned": "all"}
    for column, value in wanted.items():
        found = found[found[column] == value]
    return dict(zip(found["source"], found["p"], strict=True))
