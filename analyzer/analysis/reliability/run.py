"""How reliably does each source solve its problems, and what would more draws bring? Needs no model, only `correct`.

Over the problems that all compared sources have (`basis`), each source's last training step. pass^k, G-Pass@k and mG-
Pass@k are counts (`stats/reliability`); pass@k beyond the draws at hand is a forecast that stands on a form of the law
of the problems' chances (`stats/forecast`), as is whether the reference will cross a source that leads at k = 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis import basis
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.drawing import above, look, nothing
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import bounded, forecast, passk, reliability
from analyzer.stats.bootstrap import ALPHA, DRAWS, LEAST

QUESTION = "How reliably does each source solve its problems, and what would more draws than these bring?"
TAUS = (0.5, 0.75)
BEYOND, LAST = 16, 1024  # a forecast goes to BEYOND times the draws, at least to LAST
SURE = 0.9  # chance with which no crossing is foretold
FEW = f"fewer than {LEAST} problems with draws that say whether they are correct"
RELIABILITY = ["source", "quantity", "k", "value", "low", "high", "problems", "method"]
FORECAST = ["source", "k", "drawn", "pass", "low", "high", "problems"]
CROSSING = ["source", "k", "p_crossed", "problems"]


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """pass^k, G-Pass@k at .5 and .75 and mG-Pass@k for k = 1, 2, 4, ... that 90 % of the problems have draws for;
    pass@k to 16 times the draws; the chance that the reference has crossed. `budget` and `draws` play no part.

    Estimates, with the largest such k: `<s>.pass^<k>`, `<s>.gpass50@<k>`, `<s>.gpass75@<k>`, `<s>.mgpass@<k>`
    (intervals for problems such as these); `<s>.forecast@<k>` (what k draws on these problems would show, 95 %) at the
    first power of two from four times the draws on; `<s>.no_crossing_k`: the largest k by which, with chance .9, the
    reference is not ahead of a source that is ahead at k = 1.
    Tables: reliability, forecast (`drawn`: the draws that problems have), crossing.
    """
    sides = boundary.compared(tables)
    held = {source: sides.held[arm] for source, arm in sides.last.items()}
    estimates: dict[str, Estimate] = {}
    rows: dict[str, list[dict[str, Any]]] = {"reliability": [], "forecast": [], "crossing": []}
    chances: dict[str, np.ndarray] = {}
    most = max((int(counts["n"].max()) for counts in held.values() if len(counts)), default=0)
    k_K = 2 ** np.arange(int(math.log2(max(LAST, BEYOND * most))) + 1)
    for source, counts in held.items():
        if len(counts) < LEAST:
            estimates[f"{source}.forecast@{LAST}"] = Estimate(math.nan, n=len(counts), note=FEW)
            continue
        n_P, c_P = counts["n"].to_numpy(int), counts["c"].to_numpy(int)
        found = _counted(source, n_P, c_P, seed)
        rows["reliability"] += found
        last = max(row["k"] for row in found)
        for row in (r for r in found if r["k"] == last):
            interval = (row["low"], row["high"], len(counts), row["method"])
            value = Estimate(row["value"], *interval, sides.over[source])
            estimates[f"{source}.{row['quantity'].removesuffix('k')}{last}"] = value
        chances[source] = chance_SP = forecast.chances(forecast.laws(n_P, c_P, seed=seed), n_P, c_P, seed=seed)
        seen_SK = forecast.solved(chance_SP, k_K, seed=seed)
        low_K, high_K = np.quantile(seen_SK, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
        drawn = int(np.median(n_P))
        pass_K = forecast.pass_at_k(chance_SP, k_K).mean(0)
        # of few problems nearly all draws of the posterior may solve all
        low_K, high_K = np.minimum(low_K, pass_K), np.maximum(high_K, pass_K)
        part = pd.DataFrame({"k": k_K, "pass": pass_K, "low": low_K, "high": high_K})
        rows["forecast"] += part.assign(source=source, drawn=drawn, problems=len(counts))[FORECAST].to_dict("records")
        at = int(np.searchsorted(k_K, 4 * drawn))
        note = f"forecast from {drawn} draws a problem (median) for draws on these problems; it stands on a form"
        note += f"; {sides.over[source]}" if sides.over[source] else ""
        value = Estimate(float(part["pass"][at]), low_K[at], high_K[at], len(counts), "posterior", note)
        estimates[f"{source}.forecast@{k_K[at]}"] = value
    for source, chance_SP in chances.items():
        if source != tables.reference and tables.reference in chances:
            both_P = held[tables.reference].index.isin(held[source].index)
            if not both_P.any():
                none = f"no problem in common with {tables.reference}"
                estimates[f"{source}.no_crossing_k"] = Estimate(math.nan, n=0, note=none)
                continue
            beside = (chance_SP, chances[tables.reference][:, both_P])
            crossed_K = _crossed(*(forecast.pass_at_k(side, k_K) for side in beside))
            size = len(held[source])
            rows["crossing"] += [
                {"source": source, "k": int(k), "p_crossed": float(p), "problems": size}
                for k, p in zip(k_K, crossed_K, strict=True)
            ]
            estimates[f"{source}.no_crossing_k"] = _without(k_K, crossed_K, size, tables.reference)
    frames = {
        name: pd.DataFrame(rows[name], columns=columns)
        for name, columns in (("reliability", RELIABILITY), ("forecast", FORECAST), ("crossing", CROSSING))
    }
    params = {"taus": TAUS, "beyond": BEYOND, "sure": SURE, "named": basis.named(sides.chosen.kind, tables.reference)}
    return Result("reliability", QUESTION, estimates, frames, (), params, seed)


def _counted(source: str, n_P: np.ndarray, c_P: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Rows of `reliability`: quantity, k, value and interval."""
    k_K = passk.doublings(n_P)
    quantities = {"pass^k": reliability.pass_hat_k(n_P, c_P, k_K)}
    quantities |= {f"gpass{round(100 * t)}@k": reliability.g_pass_at_k(n_P, c_P, k_K, t) for t in TAUS}
    quantities["mgpass@k"] = reliability.mg_pass_at_k(n_P, c_P, k_K)
    out = []
    for quantity, values_PK in quantities.items():
        for j, k in enumerate(k_K.tolist()):
            if quantity.startswith("mgpass") and k == 1:  # a mean over no tau
                continue
            low, high = (float(x[0]) for x in bounded.bounds(values_PK[:, [j]], seed=seed)[:2])
            known = int((~np.isnan(values_PK[:, j])).sum())
            row = {"source": source, "quantity": quantity, "k": k, "value": float(np.nanmean(values_PK[:, j]))}
            out.append(row | {"low": low, "high": high, "problems": known, "method": bounded.METHOD})
    return out


def _crossed(source_SK: np.ndarray, reference_SK: np.ndarray) -> np.ndarray:
    """Chance, among the draws in which the source leads at k = 1, that the reference is ahead at some k up to each:
    float [K]; NaN where it leads in fewer than half of them."""
    leads = source_SK[:, 0] > reference_SK[:, 0]
    if leads.mean() < 0.5:
        return np.full(source_SK.shape[1], math.nan)
    ahead = (reference_SK > source_SK)[leads]
    return np.logical_or.accumulate(ahead, axis=1).mean(0)


def _without(k_K: np.ndarray, crossed_K: np.ndarray, problems: int, reference: str) -> Estimate:
    if np.isnan(crossed_K).any():
        return Estimate(math.nan, n=problems, note=f"does not lead {reference} at k = 1")
    safe = k_K[crossed_K <= 1 - SURE]
    if not len(safe):
        return Estimate(math.nan, n=problems, note=f"a crossing by {reference} can't be ruled out at any k")
    note = f"with chance {SURE:g} {reference} is not ahead up to this k (asked up to {k_K[-1]:,})"
    return Estimate(float(safe[-1]), math.nan, math.nan, problems, "posterior", note)


def draw(result: Result, ax: Any) -> Any:
    """pass@k: solid over the draws at hand, dashed beyond, with the band of what such draws would show."""
    table = result.tables["forecast"]
    if table.empty:
        return nothing(ax, FEW)
    styles, named = look(table["source"].unique()), result.params.get("named", {})
    for source, part in table.groupby("source", sort=False):
        color = styles[source]["color"]
        ax.fill_between(part["k"], part["low"], part["high"], color=color, alpha=0.15, linewidth=0)
        seen = part["k"] <= part["drawn"]
        ax.plot(part["k"][seen], part["pass"][seen], color=color, label=named.get(source, source))
        beyond = part[~seen.shift(-1, fill_value=False)]
        ax.plot(beyond["k"], beyond["pass"], color=color, linestyle="--")
    ax.set(xscale="log", xlabel="k (draws; dashed: forecast)", ylabel="pass@k", ylim=(-0.02, 1.02))
    above(ax)
    return ax


def caption(result: Result) -> str:
    parts, named = [], result.params.get("named", {})
    for source, part in result.tables["forecast"].groupby("source", sort=False):
        end, n = part.iloc[-1], int(part["drawn"].iloc[0])
        parts.append(
            f"{named.get(source, source)} {end['pass']:.3f} [{end['low']:.3f}, {end['high']:.3f}] at k = {end['k']:,} "
            f"from {n} draws (n = {end['problems']} problems)"
        )
    return "pass@k as forecast beyond the draws at hand, 95 % bands. " + "; ".join(parts) + "."


FIGURES = {"forecast": Figure(draw, "forecast", caption)}
