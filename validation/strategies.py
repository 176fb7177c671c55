"""V8 and V10 at the strategy level, with every analysis that the verdict reads: few runs, since the level is slow."""

from __future__ import annotations

import numpy as np

from analyzer.analysis.questions import ANALYSES
from analyzer.analysis.verdict.decide import decide
from validation import worlds
from validation.checks import Gate, share
from validation.verdicts import BUDGET, PROBLEMS, READ, TRACES

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
        results = {name: ANALYSES[name].run(tables, budget=BUDGET, seed=run) for name in READ}
        for v in decide(results, sources=tables.sources, reference="base", budget=BUDGET):
            if v.level == "skeleton":
                outside[v.source] += v.word == "outside"
        test, change = (results["strategy"].tables[name] for name in ("strategy_test", "change"))
        preflight = results["preflight"].tables["checks"]
        alarms += bool((preflight.loc[preflight["check"] == "A/A", "passed"] == False).any())  # noqa: E712 - None is open
        for name in SOURCES:
            mine = test[(test["source"] == name) & (test["representation"] == "skeleton") & (test["k"] == 4)]
            certified[name] += bool(mine["certified"].any())
            energy = change[(change["source"] == name) & (change["representation"] == "skeleton")]
            energy = energy[(energy["statistic"] == "energy") & (energy["conditioned"] == "all")]
            changed[name] += bool((energy["p"] <= 0.05).any())
    checks = []
    for name in ("base again", "tilt .2"):
        mutant = ("energy test p <= .05 read as leaving", changed[name]) if name == "tilt .2" else None
        what = f"{name}: outside at any level of the method, budget 64"
        checks.append(share("V10", what, outside[name], runs, at_most=0.05, mutant=mutant))
    what = "base again: strategy cluster certified at k = 4"
    checks.append(share("V8", what, certified["base again"], runs, at_most=0.05))
    what = "teacher .5: strategy cluster of skeletons certified at k = 4 (64 traces per problem and arm)"
    checks.append(share("V10", what, certified["teacher .5"], runs, at_least=0.9))
    checks.append(
        share("V8", "A/A of the preflight, all levels: alarm on the base's halves", alarms, runs, at_most=0.05)
    )
    return Gate(checks, {})
