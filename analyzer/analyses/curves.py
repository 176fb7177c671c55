"""pass@k curves of `boundary`, with bands; paired with the reference: difference, crossing, coverage, sampling gap."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.records import Estimate
from analyzer.stats import bands, bootstrap, passk
from analyzer.stats.coverage import CELLS, coverage

DELTA_K = 256
ZETA = 0.05


def curve(counts: pd.DataFrame, options: dict[str, int]) -> list[dict[str, Any]]:
    """pass@k over the grid of `passk.budgets`, each k with its interval, and a band that holds for all k at once."""
    k_K = passk.budgets(counts["n"].to_numpy())
    if len(k_K) == 0:
        return []
    values = passk.pass_at_k(counts["n"], counts["c"], k_K)
    w_BP = bootstrap.weights(len(counts), **options)
    means = bootstrap.column_means(values, w_BP)
    band_low, band_high = (np.clip(x, 0, 1) for x in bands.simultaneous(values, w_BP))
    out = []
    for j, k in enumerate(k_K):
        value, problems = float(np.nanmean(values[:, j])), int((~np.isnan(values[:, j])).sum())
        low, high = bootstrap.quantiles(means[:, j], problems)
        method = f"bootstrap over problems, {options['draws']} draws"
        if value in (0.0, 1.0):  # resampling a constant gives the constant; the problems are the trials
            bound, method = bootstrap.share_upper(0, problems), "exact binomial over problems"
            low, high = (0.0, bound) if value == 0 else (1 - bound, 1.0)
        elif problems < bootstrap.FEW:
            method = bootstrap.too_few(problems, bootstrap.FEW)
        row = {"k": int(k), "pass": value, "low": low, "high": high, "problems": problems, "method": method}
        row |= {"band_low": float(band_low[j]), "band_high": float(band_high[j])}
        out.append(row)
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
    crossing = _crossing(k_K, np.nanmean(src - ref, axis=0), gap_BK, len(both), method)
    at = ", ".join([*map(str, k_K[may_cross]), *_flips(k_K, band_low, band_high)]) or "none"
    out = {
        "crossover_k": replace(
            crossing, note=f"{crossing.note}; where the curves may cross (band of the difference): k = {at}"
        )
    }
    for name, i in found.items():
        note = f"solved within k = {k} draws, eps = {passk.epsilon(k, zeta=ZETA):.3g}"
        note += "" if math.isfinite(i.value) else "; undefined: the count in the denominator is 0"
        out[f"coverage.{name}" if name in CELLS else name] = Estimate(i.value, i.low, i.high, i.n, i.method, note)
    return out | {"delta_se": _delta(both, w_BP, method)}


def _flips(k_K: np.ndarray, low_K: np.ndarray, high_K: np.ndarray) -> list[str]:
    """Neighbouring k between which the whole band changes its side: the curves cross in between, at no k tried."""
    side_K = np.where(low_K > 0, 1, np.where(high_K < 0, -1, 0))
    at = np.flatnonzero(side_K[:-1] * side_K[1:] < 0)
    return [f"between {k_K[j]} and {k_K[j + 1]}" for j in at]


def _crossing(k_K: np.ndarray, gap_K: np.ndarray, gap_BK: np.ndarray, problems: int, method: str) -> Estimate:
    value, at_B = float(passk.crossover(k_K, gap_K)[0]), passk.crossover(k_K, gap_BK)
    started, never = ~np.isnan(at_B), np.isposinf(at_B)
    share = (
        f"P(no crossing up to k = {k_K[-1]}) = {never[started].mean():.2f}"
        if started.any()
        else "no resample leads at k = 1"
    )
    if started.mean() < 1:
        share += f"; {1 - started.mean():.0%} of the resamples have no lead at k = 1"
    if math.isnan(value):
        return Estimate(
            math.nan,
            n=problems,
            method=method,
            note=f"the source does not lead at k = 1, so nothing can cross; {share}",
        )
    if math.isinf(value):
        return Estimate(math.nan, n=problems, method=method, note=f"no crossing up to k = {k_K[-1]}; {share}")
    low, high = bootstrap.quantiles(at_B, problems)
    return Estimate(value, low, high, problems, method + ", log-interpolated", share)


def coverage_row(found: dict[str, bootstrap.Interval], k: int) -> dict[str, Any]:
    """Counts of the cells, their rates and eps at k; a row of the table `coverage`."""
    n = found["both"].n
    row = {"k": k, **{name: found[name].value * n for name in CELLS}, "n": n}
    return row | {name: found[name].value for name in passk.Leash._fields} | {"eps": passk.epsilon(k, zeta=ZETA)}


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
