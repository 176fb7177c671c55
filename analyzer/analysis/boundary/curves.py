"""pass@k curves of `boundary`, with bands; paired with the reference: difference, crossing, coverage, sampling gap."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.records import Estimate
from analyzer.stats import bands, bootstrap, bounded, passk
from analyzer.stats.coverage import CELLS, coverage

DELTA_K = 256
BLOCK = 512  # budgets of all resamples at a time


def curve(counts: pd.DataFrame, options: dict[str, int], beside: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """pass@k over the grid of `passk.budgets`, each k with its interval, and a band that holds for all k at once.

    beside: draws of the sources that stand beside this one, one column each (index: problem); at each k only problems
    count for which every source whose curve goes so far has k draws. `of` in a row: problems of the curve at k = 1.
    """
    k_K = passk.budgets(counts["n"].to_numpy())
    if len(k_K) == 0:
        return []
    values = passk.pass_at_k(counts["n"], counts["c"], k_K)
    if beside is not None:
        n_PA = beside.reindex(counts.index).fillna(0).to_numpy(int)
        last_A = np.array([passk.budgets(beside[a].to_numpy())[-1] for a in beside], dtype=int)
        for j, k in enumerate(k_K):
            values[(n_PA[:, last_A >= k] < k).any(axis=1), j] = np.nan
    low, high, band_low, band_high = bounded.bounds(values, seed=options["seed"])
    out = []
    for j, k in enumerate(k_K):
        problems = int((~np.isnan(values[:, j])).sum())
        if problems == 0:
            continue
        method = bounded.METHOD if problems >= bootstrap.LEAST else bootstrap.too_few(problems)
        row = {"k": int(k), "pass": float(np.nanmean(values[:, j])), "low": float(low[j]), "high": float(high[j])}
        row |= {"problems": problems, "of": len(counts), "method": method}
        out.append(row | {"band_low": float(band_low[j]), "band_high": float(band_high[j])})
    return out


def compare(
    both: pd.DataFrame, in_reference: int, head: dict[str, Any], rows: dict[str, list], options: dict[str, int]
) -> dict[str, Estimate]:
    """Everything paired with the reference; fills the tables paired and coverage, returns estimates by bare name.

    `both`: one row per joined problem, columns n, c (source), n_ref, c_ref; `in_reference`: problems of the reference.
    """
    names = ("crossover_k", *(f"coverage.{c}" for c in CELLS), *passk.Leash._fields, "delta_se")
    if both.empty:
        why = (
            "the reference says nothing about correctness"
            if in_reference == 0
            else "no problem in common with the reference"
        )
        return {name: Estimate(math.nan, note=why) for name in names}
    k_K = passk.budgets(np.minimum(both["n"], both["n_ref"]).to_numpy())
    ref, src = passk.pass_at_k(both["n_ref"], both["c_ref"], k_K), passk.pass_at_k(both["n"], both["c"], k_K)
    ref, src = np.where(np.isnan(src), np.nan, ref), np.where(np.isnan(ref), np.nan, src)
    w_BP = bootstrap.weights(len(both), **options)
    gap_BK = bootstrap.column_means(src - ref, w_BP)
    band_low, band_high = bands.simultaneous(src - ref, w_BP)
    may_cross = (band_low <= 0) & (band_high >= 0)
    method = f"paired bootstrap over problems, {options['draws']} draws"
    for j, k in enumerate(k_K):
        low, high = bootstrap.quantiles(gap_BK[:, j], int((~np.isnan(src[:, j])).sum()))
        point = [float(np.nanmean(x[:, j])) for x in (src, ref, src - ref)]
        row = dict(zip(("source_pass", "reference_pass", "difference"), point, strict=True))
        row |= {"low": low, "high": high, "problems": int((~np.isnan(src[:, j])).sum())}
        row |= {"band_low": float(band_low[j]), "band_high": float(band_high[j]), "may_cross": bool(may_cross[j])}
        rows["paired"].append(head | {"k": int(k)} | row)
    k = int(k_K[-1])
    found = coverage(ref[:, -1], src[:, -1], **options)
    rows["coverage"].append(head | coverage_row(found, k))
    crossing = _crossing(both, k, w_BP, method)
    at = ", ".join([*map(str, k_K[may_cross]), *_flips(k_K, band_low, band_high)]) or "none"
    out = {
        "crossover_k": replace(
            crossing, note=f"{crossing.note}; where the curves may cross (band of the difference): k = {at}"
        )
    }
    for name, i in found.items():
        note = f"solved within k = {k} draws, eps = {passk.epsilon(k):.3g}"
        note += "" if math.isfinite(i.value) else "; undefined: the count in the denominator is 0"
        out[f"coverage.{name}" if name in CELLS else name] = Estimate.of(i, note)
    return out | {"delta_se": _delta(both, w_BP, method)}


def _flips(k_K: np.ndarray, low_K: np.ndarray, high_K: np.ndarray) -> list[str]:
    """Neighbouring k between which the whole band changes its side: the curves cross in between, at no k tried."""
    side_K = np.where(low_K > 0, 1, np.where(high_K < 0, -1, 0))
    at = np.flatnonzero(side_K[:-1] * side_K[1:] < 0)
    return [f"between {k_K[j]} and {k_K[j + 1]}" for j in at]


def _crossing(both: pd.DataFrame, last: int, w_BP: np.ndarray, method: str) -> Estimate:
    """Where the reference is strictly ahead for the first time, every k up to `last` looked at, over the problems that
    have so many draws on both sides."""
    enough_P = (both[["n", "n_ref"]].min(axis=1) >= last).to_numpy()
    both, w_BP = both[enough_P], w_BP[:, enough_P]
    gap_PK = passk.every(both["n"], both["c"], last) - passk.every(both["n_ref"], both["c_ref"], last)
    k_K, gap_K, problems = np.arange(1, last + 1), gap_PK.mean(axis=0), len(both)
    total_B = np.maximum(w_BP.sum(axis=1, keepdims=True), 1)
    lead_B, at_B = (w_BP @ gap_PK[:, :1] / total_B)[:, 0] > passk.TIE, np.full(len(w_BP), np.inf)
    for start in range(0, last, BLOCK):  # not [B, K] at once
        block = slice(max(0, start - 1), start + BLOCK)
        at_B = np.minimum(at_B, passk.first_behind(k_K[block], w_BP @ gap_PK[:, block] / total_B))
    never = np.isposinf(at_B[lead_B]).mean() if lead_B.any() else math.nan
    share = "no resample leads at k = 1"
    if lead_B.any():
        share = f"P(no crossing up to k = {last}) = {never:.2f}, P(reference strictly ahead) = {1 - never:.2f}"
    if not lead_B.all():
        share += f"; {1 - lead_B.mean():.0%} of the resamples have no lead at k = 1"
    value, none = float(passk.crossover(k_K, gap_K)[0]), {"n": problems, "method": method}
    if math.isnan(value):
        why = "the source does not lead at k = 1, so nothing can cross"
        return Estimate(math.nan, **none, note=f"{why}; {share}")
    if math.isinf(value):
        meet = k_K[np.abs(gap_K) <= passk.TIE]
        said = (
            f", the curves meet at k = {_range(meet)}{' = n' if last == both['n'].max() else ''}" if len(meet) else ""
        )
        return Estimate(math.nan, **none, note=f"no crossing up to k = {last}{said}; {share}")
    low, high = bootstrap.quantiles(np.where(lead_B, at_B, np.nan), problems)
    return Estimate(value, low, high, problems, method + ", log-interpolated", share)


def _range(k_K: np.ndarray) -> str:
    """ "4", or "3 to 8"."""
    return f"{k_K[0]}" if len(k_K) == 1 else f"{k_K[0]} to {k_K[-1]}"


def coverage_row(found: dict[str, bootstrap.Interval], k: int) -> dict[str, Any]:
    """Counts of the cells, their rates and eps at k; a row of the table `coverage`."""
    n = found["both"].n
    row = {"k": k, **{name: found[name].value * n for name in CELLS}, "n": n}
    return row | {name: found[name].value for name in passk.Leash._fields} | {"eps": passk.epsilon(k)}


def _delta(both: pd.DataFrame, w_BP: np.ndarray, method: str) -> Estimate:
    k = min(DELTA_K, int(passk.budgets(both["n_ref"].to_numpy())[-1]))
    at_k = passk.pass_at_k(both["n_ref"], both["c_ref"], np.array([k]))[:, 0]
    at_1 = (both["c"] / both["n"]).to_numpy()
    gap = np.where(np.isnan(at_k), np.nan, at_k - at_1)[:, None]
    low, high = bootstrap.quantiles(bootstrap.column_means(gap, w_BP)[:, 0], len(both))
    note = f"reference pass@{k} - source pass@1" + (
        "" if k == DELTA_K else f"; k is below {DELTA_K} because n is, so not comparable with published values"
    )
    return Estimate(
        passk.delta_se(np.nanmean(at_k), np.nanmean(np.where(np.isnan(at_k), np.nan, at_1))),
        low,
        high,
        int((~np.isnan(at_k)).sum()),
        method,
        note,
    )
