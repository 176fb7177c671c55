"""The predeclared primary endpoints of the word "outside", one per level, and Holm across them.

Fixed before any data is seen. Everything else that the analyses print (conformal flags, change tests, solved sets) may
explain; it never certifies.
- sequence: the share of traces with a hurdle is above HURDLED (at span 1 or 4: twice the smaller p) and the
  whole-trace excess against the likeliest law is above tau; p of an intersection: the larger one. Without log q the
  mass beyond k by e-values or the share beyond the base's draws (rank) is above tau / 2, at the budget (CERTIFY at
  least) or the next one above the engine floor: twice the smaller p of those that may speak.
- skeleton, steps, kinds: some group of traces (cluster of skeletons; one kind of step after another; a symbol or a kind
  of step) is filled more often than `budget` reference draws allow (split data, Holm over groups; analysis "strategy").
- correct: some group of problems, predeclared or chosen on the other half of the samples, is solved more often than
  `budget` reference draws, or as many guesses, allow (conditional binomial, Holm; table `answer_test` of boundary).
- answer has no test of its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from analyzer.records import METHOD, TESTED, Result
from analyzer.stats.bootstrap import ALPHA
from analyzer.stats.budget import holm

CERTIFY = 4  # least budget that must hold where log q is not known


class Endpoint(NamedTuple):
    """p of one level, Holm-adjusted over TESTED (missing ones count as 1), and whether that is at most ALPHA."""

    p: float
    p_holm: float
    certified: bool


def rows(result: Result | None, table: str, source: str) -> list[dict[str, Any]]:
    """The source's rows of a table, or an empty list where analysis or table is missing."""
    return result.rows(table).get(source, []) if result else []


def number(value: Any) -> float:
    """The value as a float, NaN where it is missing."""
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan


def answer_rows(boundary: Result | None, source: str, budget: int) -> list[dict[str, Any]]:
    """Rows of `answer_test` at the budget, of the source's last training step."""
    found = rows(boundary, "answer_test", source)
    last = max((number(r["step"]) for r in found if math.isfinite(number(r["step"]))), default=None)
    return [r for r in found if r["k"] == budget and (last is None or r["step"] == last)]


def strategy_row(strategy: Result | None, source: str, level: str, budget: int) -> dict[str, Any]:
    """The row of `strategy_test` that certifies at a level of METHOD and the budget; empty where it is missing."""
    found = rows(strategy, "strategy_test", source)
    return next((r for r in found if r["representation"] == level and r["k"] == budget), {})


def endpoints(results: dict[str, Result], source: str, budget: int) -> dict[str, Endpoint]:
    """Level -> Endpoint of one source; `results` maps analysis names to results, each may be missing."""
    evidence = next(iter(rows(results.get("support"), "evidence", source)), {})
    solved = [number(r["p_holm"]) for r in answer_rows(results.get("boundary"), source, budget)]
    method = {level: strategy_row(results.get("strategy"), source, level, budget) for level in METHOD}
    p = {level: number(row.get("p")) for level, row in method.items()}
    p |= {"sequence": number(evidence.get("p_outside")), "correct": min(solved, default=math.nan)}
    adjusted = holm(np.array([1.0 if math.isnan(p[level]) else p[level] for level in TESTED]))
    allowed = {level: bool(row.get("certified")) for level, row in method.items()}
    return {
        level: Endpoint(p[level], float(a), bool(a <= ALPHA and math.isfinite(p[level]) and allowed.get(level, True)))
        for level, a in zip(TESTED, adjusted, strict=True)
    } | {"answer": Endpoint(math.nan, 1.0, False)}
