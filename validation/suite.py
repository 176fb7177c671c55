"""The list of gates, how many runs each takes, and running them on a few processes."""

from __future__ import annotations

import math
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analyzer.errors import UsageError, nearest
from validation import (
    change,
    clusters,
    exact,
    forecasts,
    foreign,
    handing,
    judging,
    learned,
    lengths,
    miniature,
    novelty,
    oracles,
    outcomes,
    reaching,
    strategies,
    temperatures,
    text_bounds,
    texts,
    verdicts,
)
from validation.checks import Gate, number


class Task(NamedTuple):
    """A gate function, the gates (V numbers) that it serves, and its runs in the fast and in the full suite."""

    function: Callable[..., Gate]
    serves: tuple[str, ...]
    fast: int
    full: int
    options: dict[str, Any] = {}  # of the fast suite
    full_options: dict[str, Any] = {}
    world: str = ""  # folder of data/ whose scored dumps it reads


TASKS: dict[str, Task] = {
    "miniature": Task(miniature.gate_world, ("V11",), 0, 20, world="miniature"),
    "formats": Task(miniature.gate_formats, ("V11",), 0, 20, world="miniature"),
    "second": Task(miniature.gate_world, ("V11",), 0, 20, {}, {"strategies": 20}, world="second"),
    "strategy level": Task(strategies.gate_strategy, ("V8", "V10"), 0, 24),
    "confusion": Task(verdicts.gate_confusion, ("V10",), 8, 40),
    "half against half": Task(verdicts.gate_half_against_half, ("V8",), 6, 100),
    "words at real lengths": Task(lengths.gate_words, ("V13",), 2, 10, {"every": 6}),
    "places": Task(lengths.gate_places, ("V13",), 0, 5),
    "declarations": Task(lengths.gate_declared, ("V13",), 0, 60),
    "few problems": Task(lengths.gate_few, ("V13",), 100, 2000),
    "temperature share": Task(temperatures.gate_share, ("V13",), 30, 400),
    "texts": Task(texts.gate_texts, ("V14",), 7, 20, {"sizes": (16,), "drawn": (4,), "problems": 16}, {"times": 2}),
    "contained": Task(text_bounds.gate_bounds, ("V14",), 40, 400, {"sizes": (64,)}),
    "size": Task(change.gate_size, ("V1",), 80, 1000),
    "intervals": Task(outcomes.gate_intervals, ("V9",), 100, 1000, {"sizes": (30, 100)}),
    "levels": Task(outcomes.gate_levels, ("V9",), 60, 100, {"sizes": (3, 12), "drawn": (8,)}),
    "forecast": Task(forecasts.gate_forecast, ("V9",), 2, 20),
    "handover": Task(handing.gate_handover, ("V9",), 20, 400),
    "valid reasoning": Task(judging.gate_chains, ("V9",), 12, 200),
    "clusters": Task(clusters.gate_clusters, ("V7",), 24, 400),
    "unbalanced": Task(change.gate_unbalanced, ("V2",), 30, 600),
    "reach": Task(reaching.gate_reach, ("V4",), 100, 1000, {"problems": 200, "traces": 16}),
    "reweighting": Task(change.gate_reweighting, ("V3",), 30, 600),
    "budget": Task(novelty.gate_budget, ("V6",), 24, 400),
    "foreign tokens": Task(foreign.gate_foreign, ("V6",), 5, 40, {"nats": (1.0,), "lengths": (1000,), "traces": 100}),
    "learned bets": Task(learned.gate_learned, ("V6",), 3, 40),
    "power": Task(change.gate_power, ("V1",), 4, 60),
    "invariance": Task(verdicts.gate_invariance, ("V10",), 1, 8),
    "conformal": Task(novelty.gate_conformal, ("V5",), 60, 600),
    "solved sets": Task(outcomes.gate_solved_sets, ("V8",), 200, 4000),
    "budget test": Task(outcomes.gate_budget_test, ("V7",), 200, 2000),
    "closed forms": Task(exact.gate_closed_forms, ("V0",), 200, 2000),
    "large studies": Task(lengths.gate_grid, ("V15",), 0, 4),
    "many draws of texts": Task(texts.gate_many, ("V15",), 0, 10),
    "contained at every size": Task(text_bounds.gate_wide, ("V15",), 0, 60),
    "copied draws of texts": Task(texts.gate_copies, ("V14",), 0, 40),
    "oracles": Task(oracles.gate_oracles, ("V12",), 20, 200),
}
NAMES = tuple(f"V{i}" for i in range(16))
APART = {"V15"}  # takes half an hour and 5 GB: run where it is named


def chosen(gates: list[str] | None, *, fast: bool) -> dict[str, Task]:
    """The tasks that serve the wanted gates; by default all that have runs, but those APART.

    Raises UsageError for an unknown name.
    """
    for name in gates or ():
        if name not in NAMES:
            raise UsageError(f"gate {name!r} is unknown{nearest(name, NAMES)}; allowed: {', '.join(NAMES)}")
    return {
        name: task
        for name, task in TASKS.items()
        if set(task.serves) & (set(gates) if gates else set(NAMES) - APART) and (task.fast if fast else task.full)
    }


def run_task(
    name: str, seed: int, *, fast: bool, runs: Path | None = None, data: Path | None = None
) -> tuple[str, Gate, float]:
    """One task with a generator of its own, so that no gate's numbers depend on which others run: name, Gate,
    seconds of processor time (they don't depend on what else the machine does).

    runs, data: folders that hold, by the name of a world, its scored run and its dumps and truths.
    """
    task = TASKS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    options = dict(task.options if fast else task.full_options)
    if task.world:
        options |= {"run": runs / task.world, "folder": data / task.world}
    since = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy in settings made to be extreme; a wrong number fails its band
        try:
            gate = task.function(rng, task.fast if fast else task.full, **options)
        except Exception as error:  # a fault in one task must not take the others' minutes with it
            traceback.print_exc()
            what = f"{name} broke off ({type(error).__name__}: {error})"
            gate = Gate([number(task.serves[0], what, math.nan, 0.0, 1.0, 0)], {})
    return name, gate, time.process_time() - since


def run_all(
    names: list[str], seed: int, *, fast: bool, workers: int, runs: Path | None = None, data: Path | None = None
) -> Iterator[tuple[str, Gate, float]]:
    """The tasks in the given order (the longest first), as they end; workers = 1 stays in this process."""
    more = {"fast": fast, "runs": runs, "data": data}
    if workers == 1:
        for name in names:
            yield run_task(name, seed, **more)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(run_task, name, seed, **more) for name in names]
        for job in as_completed(jobs):
            yield job.result()
