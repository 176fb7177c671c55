"""How difficult may a task be that a source still solves half of the time, with one draw and with the best of k?

Needs a number above 0 for each problem (minutes that a person takes, steps, a grade of difficulty; `--difficulty`) and
labels. A ratio of two horizons that stays as k grows looks like more than one draw could show; one that falls towards 1
like the base's own draws made likelier (METR's task horizon, Kwa et al., 2503.14499, at pass@k).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.drawing import above, level, look, nothing
from analyzer.errors import UsageError
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import passk, task_horizon
from analyzer.stats.bootstrap import ALPHA, DRAWS, MANY, weights

QUESTION = "How difficult may a task be that is still solved half of the time?"
MISSING = "no difficulty of the problems was named; --difficulty FIELD, a number of every row (kept in its meta)"
HORIZONS = ["source", "k", "horizon", "low", "high", "ratio", "ratio_low", "ratio_high", "problems"]
CURVE = ["source", "k", "difficulty", "success"]
RESAMPLES = 400
SHOWN = 60  # places of a curve
METHOD = "spline of three knots; problems resampled"


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """The task horizon at pass@k, k = 1, 2, 4, ... that 90 % of the problems have draws for, of three difficulties.

    Estimates, for k = 1 and the largest: `<s>.task_horizon@<k>` (in the unit of the field; NaN with a note where half
    is not crossed within a doubling of the easiest and the hardest problem, where the table has 0 or inf),
    `<s>.task_horizon_ratio@<k>` to the reference's, on the problems of both. Intervals by problem. Tables: horizons,
    curve. `budget` and `draws` play no part. Raises UsageError without a difficulty, and where fewer than MANY problems
    or three values have one.
    """
    if tables.difficulty is None:
        raise UsageError(MISSING)
    sides = boundary.compared(tables)
    counts = {source: sides.held[arm] for source, arm in sides.last.items()}
    counts = {source: own[own.index.isin(list(tables.difficulty))] for source, own in counts.items()}
    lost = {source: len(sides.held[arm]) - len(counts[source]) for source, arm in sides.last.items()}
    counts = {source: own for source, own in counts.items() if len(own) >= MANY}
    if not counts:
        raise UsageError(f"fewer than {MANY} problems have both a difficulty and labels")
    rows: list[tuple[Any, ...]] = []
    curves: list[pd.DataFrame] = []
    estimates: dict[str, Estimate] = {}
    for source, own in counts.items():
        x_P = _log2(tables.difficulty, own)
        if len(np.unique(x_P)) < len(task_horizon.KNOTS):
            raise UsageError(f"the problems of {source} have fewer than three different difficulties")
        n_P = own["n"].to_numpy(int)
        k_K = [k for k in passk.doublings(n_P).tolist() if len(np.unique(x_P[n_P >= k])) >= len(task_horizon.KNOTS)]
        for k in k_K:
            found, drawn = _fitted(own, x_P, k, seed)
            curves.append(drawn.assign(source=source, k=k)[CURVE])
            ratio = (math.nan,) * 3
            if source != tables.reference and tables.reference in counts:
                ratio = _ratio(own, counts[tables.reference], tables.difficulty, k, seed)
            rows.append((source, k, *found, *ratio, len(own)))
        for k in {1, k_K[-1]}:
            row = dict(zip(HORIZONS, next(r for r in rows if r[0] == source and r[1] == k), strict=True))
            estimates |= _estimates(source, k, row)
    notes = [f"{source}: {n:,} problems without a difficulty are left out." for source, n in lost.items() if n]
    frames = {"horizons": pd.DataFrame(rows, columns=HORIZONS), "curve": pd.concat(curves, ignore_index=True)}
    params = {"knots": task_horizon.KNOTS, "resamples": RESAMPLES}
    return Result("task_horizon", QUESTION, estimates, frames, tuple(notes), params, seed)


def _log2(difficulty: dict[str, float], counts: pd.DataFrame) -> np.ndarray:
    return np.log2([difficulty[problem] for problem in counts.index])


def _crossings(counts: pd.DataFrame, x_P: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """log2 of the horizon of all problems (first) and of each resample, float [1 + B], and the fits [1 + B, 3]."""
    enough = counts["n"].to_numpy(int) >= k
    x_P, own = x_P[enough], counts[enough]
    success_P = passk.pass_at_k(own["n"].to_numpy(int), own["c"].to_numpy(int), np.array([k]))[:, 0]
    weight_BP = np.vstack([np.ones(len(own)), weights(len(own), draws=RESAMPLES, seed=seed)])
    beta_BJ = task_horizon.fit(x_P, success_P, weight_BP)
    return task_horizon.crossing(beta_BJ, x_P), beta_BJ


def _fitted(
    counts: pd.DataFrame, x_P: np.ndarray, k: int, seed: int
) -> tuple[tuple[float, float, float], pd.DataFrame]:
    at_B, beta_BJ = _crossings(counts, x_P, k, seed)
    x_G = np.linspace(x_P.min(), x_P.max(), SHOWN)
    success_G = task_horizon.curve(beta_BJ[:1], x_P[counts["n"].to_numpy(int) >= k], x_G)[0]
    return _interval(2.0**at_B), pd.DataFrame({"difficulty": 2.0**x_G, "success": success_G})


def _ratio(
    own: pd.DataFrame, reference: pd.DataFrame, difficulty: dict[str, float], k: int, seed: int
) -> tuple[float, float, float]:
    """Of the horizons on the problems that both have with k draws; the same problems in each resample."""
    both = own.index.intersection(reference.index)
    both = both[(own.loc[both, "n"] >= k) & (reference.loc[both, "n"] >= k)]
    x_P = _log2(difficulty, own.loc[both])
    if len(both) < MANY or len(np.unique(x_P)) < len(task_horizon.KNOTS):
        return (math.nan,) * 3
    with np.errstate(invalid="ignore"):
        log2_B = _crossings(own.loc[both], x_P, k, seed)[0] - _crossings(reference.loc[both], x_P, k, seed)[0]
    return _interval(2.0**log2_B)


def _interval(value_B: np.ndarray) -> tuple[float, float, float]:
    """The first, and the percentiles of the others; NaN ends where more than ALPHA / 2 of them are unknown."""
    others = np.sort(value_B[1:])  # unknown ones last
    if np.isnan(value_B[0]) or np.isnan(others).mean() > ALPHA / 2:
        return float(value_B[0]), math.nan, math.nan
    low, high = np.quantile(others, [ALPHA / 2, 1 - ALPHA / 2], method="closest_observation")
    return float(value_B[0]), float(low), float(high)


def _estimates(source: str, k: int, row: dict[str, Any]) -> dict[str, Estimate]:
    n = row["problems"]
    out = {}
    if math.isfinite(row["horizon"]) and row["horizon"] > 0:
        known = Estimate(row["horizon"], row["low"], row["high"], n, METHOD)
    else:
        hard = "above twice the hardest" if row["horizon"] > 0 else "below half of the easiest"
        known = Estimate(math.nan, n=n, note=f"half is not crossed at the difficulties at hand: {hard}")
    out[f"{source}.task_horizon@{k}"] = known
    if math.isfinite(row["ratio"]) and row["ratio"] > 0:
        ratio = Estimate(row["ratio"], row["ratio_low"], row["ratio_high"], n, METHOD, "of the reference's horizon")
        out[f"{source}.task_horizon_ratio@{k}"] = ratio
    return out


def draw(result: Result, ax: Any) -> Any:
    """Success against difficulty at the largest k (solid) and at k = 1 (dotted), with one half as a line."""
    table = result.tables["curve"]
    if table.empty:
        return nothing(ax, MISSING)
    styles = look(table["source"].unique())
    for source, part in table.groupby("source", sort=False):
        for k, line in ((1, ":"), (part["k"].max(), "-")):
            one = part[part["k"] == k]
            ax.plot(one["difficulty"], one["success"], line, color=styles[source]["color"],
                    label=source if line == "-" else None)  # fmt: skip
    level(ax, 0.5, "one half: the task horizon")
    ax.set(
        xscale="log",
        xlabel=f"difficulty (dotted: k = 1, solid: {table['k'].max()})",
        ylabel="pass@k",
        ylim=(-0.02, 1.02),
    )
    above(ax)
    return ax


def caption(result: Result) -> str:
    last = result.tables["horizons"]["k"].max()
    said = [
        f"{name.split('.task_horizon')[0]} {e.value:.3g} [{e.low:.3g}, {e.high:.3g}] at k = {name.rpartition('@')[2]}"
        for name, e in result.estimates.items()
        if ".task_horizon@" in name and not math.isnan(e.value)
    ]
    n = int(result.tables["horizons"]["problems"].max())
    told = "; ".join(said) or f"half is crossed by no source up to k = {last}"
    return (
        f"Success against the difficulty of a problem; difficulty at which half is solved: {told}. n = {n:,} problems."
    )


FIGURES = {"task_horizon": Figure(draw, "curve", caption)}
