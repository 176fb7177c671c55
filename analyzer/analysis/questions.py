"""One question per file: `run(tables, *, budget, seed) -> Result`, `draw(result, ax)`, `FIGURES`.

ANALYSES is in the order of the report. Adding an analysis is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

import pandas as pd

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.chains import run as chains
from analyzer.analysis.clusters import run as clusters
from analyzer.analysis.contained import run as contained
from analyzer.analysis.handover import run as handover
from analyzer.analysis.perplexity import run as perplexity
from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.reliability import run as reliability
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import run as support
from analyzer.analysis.task_horizon import run as task_horizon
from analyzer.analysis.tokens import run as tokens
from analyzer.errors import DumpError
from analyzer.records import Tables

ANALYSES: dict[str, ModuleType] = {
    "preflight": preflight,
    "perplexity": perplexity,
    "support": support,
    "contained": contained,
    "strategy": strategy,
    "boundary": boundary,
    "reliability": reliability,
    "task_horizon": task_horizon,
    "chains": chains,
    "handover": handover,
    "clusters": clusters,
    "tokens": tokens,
}


def of_report(tables: Tables) -> list[str]:
    """The analyses that a report asks for: `handover` where something was handed over, `chains` where a chain was
    judged, `task_horizon` where the problems' difficulty was named, all others."""
    without = {"handover": _is_none(tables.handovers), "chains": _is_none(tables.judged)}
    without["task_horizon"] = tables.difficulty is None
    return [name for name in ANALYSES if not without.get(name)]


def _is_none(read: Callable[[], pd.DataFrame | None]) -> bool:
    with suppress(DumpError):  # what can't be read the analysis tells
        found = read()
        return found is None or found.empty
    return False
