"""Pure planning, without torch: which traces are scored, in which order, in which batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analyzer.records import Trace


def choose(traces: Sequence[Trace], at_most: int | None) -> tuple[list[Trace], list[Trace]]:
    """Split traces into (to score, over the limit): the first `at_most` by sample number per source, problem and step.

    The choice depends on sample numbers only, so that a longer dump scores a superset. None: all are scored.
    """
    if at_most is None:
        return list(traces), []
    seen: Counter = Counter()
    chosen, over = [], []
    for trace in sorted(traces, key=lambda t: (t.source, t.problem, -1 if t.step is None else t.step, t.sample)):
        cell = (trace.source, trace.problem, trace.step)
        seen[cell] += 1
        (chosen if seen[cell] <= at_most else over).append(trace)
    return chosen, over


def batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices cut into batches of similar length with (longest in batch) x (batch size) <= token_budget.

    Shortest first, ties by position; an item longer than the budget gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    cut: list[list[int]] = []
    for i in order:
        if cut and lengths[i] * (len(cut[-1]) + 1) <= token_budget:
            cut[-1].append(i)
        else:
            cut.append([i])
    return cut
