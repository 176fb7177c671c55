"""The drawings of `paired`: differences of all pairs with their intervals, and one pair problem by problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.drawing import level, nothing
from analyzer.records import Figure, Result

ROWS = 16  # pairs that fit under each other
UNKNOWN = "nothing says which traces are correct"


def draw_by_problem(result: Result, ax: Any) -> Any:
    """Difference of the shares of correct traces, problems sorted by it, with the interval within each problem."""
    table = _shown(result)
    if table.empty:
        return nothing(ax, UNKNOWN)
    d, rank = table["d"].to_numpy(), np.arange(1, len(table) + 1)
    sure = ((table["pass_rate_low"] > 0) | (table["pass_rate_high"] < 0)).to_numpy()
    ends = np.abs(table[["pass_rate_low", "pass_rate_high"]].to_numpy(float).T - d)
    from analyzer.analysis.figures import styles

    one, other = table["a"].iloc[0], table["b"].iloc[0]
    color = styles([other, one])[one]["color"]
    ax.errorbar(rank, d, yerr=ends, fmt="none", ecolor=color, elinewidth=0.6, alpha=0.5)
    ax.plot(rank[~sure], d[~sure], "o", markerfacecolor="none", color=color, markersize=2.5, label="interval holds 0")
    ax.plot(rank[sure], d[sure], "o", color=color, markersize=2.5, label="interval leaves out 0")
    level(ax, 0, "no difference")
    ax.legend()
    ax.set(xlabel="problems, sorted", ylabel=f"share correct: {one} minus {other}")
    return ax


def draw_pass_rate(result: Result, ax: Any) -> Any:
    """Mean difference of the share of correct traces, every pair, with its interval over problems."""
    return _forest(result, ax, "pass_rate", "difference in the share correct")


def draw_surprisal(result: Result, ax: Any) -> Any:
    """Mean difference of the log-perplexity under the base, every pair, with its interval over problems."""
    return _forest(result, ax, "nll_mean", "difference in nats per token")


def _forest(result: Result, ax: Any, measure: str, label: str) -> Any:
    table = _measured(result, measure)
    if table.empty:
        return nothing(ax, UNKNOWN if measure == "pass_rate" else "no two sources were scored under the base")
    rank = np.arange(len(table))
    ends = np.abs(table[["low", "high"]].to_numpy(float).T - table["difference"].to_numpy(float))
    own = (table["b"] == result.params["reference"]).to_numpy()
    for at, marker, name in ((own, "o", "against the reference"), (~own, "s", "against each other")):
        if at.any():
            x, y = table["difference"].to_numpy(float)[at], rank[at]
            ax.errorbar(x, y, xerr=ends[:, at], fmt=marker, markersize=3, elinewidth=0.8, label=name)
    ax.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_yticks(rank, [f"{r['a']} − {r['b']}" for r in table.to_dict("records")])
    ax.invert_yaxis()
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    ax.set(xlabel=label, ylabel="")
    return ax


def _measured(result: Result, measure: str) -> pd.DataFrame:
    table = result.tables["differences"]
    return table[(table["measure"] == measure) & table["difference"].notna()].head(ROWS)


def mixed(problems: pd.DataFrame, reference: str) -> tuple[str, str] | None:
    """The pair on whose problems both sides are most often surely ahead (by share correct), then the one with the
    largest mean difference; pairs with the reference only where there are no others. None: nothing is known."""
    table = problems.assign(d=problems["pass_rate_a"] - problems["pass_rate_b"]).dropna(subset=["d"])
    without = table[(table["a"] != reference) & (table["b"] != reference)]
    table = without if len(without) else table
    if table.empty:
        return None
    table = table.assign(up=table["pass_rate_low"] > 0, down=table["pass_rate_high"] < 0)
    found = table.groupby(["a", "b"], sort=False).agg(up=("up", "sum"), down=("down", "sum"), d=("d", "mean"))
    both = found[["up", "down"]].min(axis=1)
    return found.assign(both=both, size=found["d"].abs()).sort_values(["both", "size"], kind="stable").index[-1]


def _shown(result: Result) -> pd.DataFrame:
    """Rows of `problems` of the pair that is drawn, sorted by their difference `d`."""
    table = result.tables["problems"]
    pair = mixed(table, result.params["reference"])
    if pair is None:
        return table.iloc[:0]
    table = table[(table["a"] == pair[0]) & (table["b"] == pair[1])]
    return (
        table.assign(d=table["pass_rate_a"] - table["pass_rate_b"]).dropna(subset=["d"]).sort_values("d", kind="stable")
    )


def caption_by_problem(result: Result) -> str:
    table = _shown(result)
    if table.empty:
        return f"Differences by problem: {UNKNOWN} (n = 0 problems)."
    one, other = table["a"].iloc[0], table["b"].iloc[0]
    up, down = int((table["pass_rate_low"] > 0).sum()), int((table["pass_rate_high"] < 0).sum())
    more = result.params["pairs"] > 1
    chosen = " Shown is the pair with the most problems ahead on both sides; the table has all." if more else ""
    return (
        f"Share of correct traces, {one} minus {other}, problem by problem (n = {len(table)} problems; bars: 95 % "
        f"within the problem, from its traces). {one} is ahead on {up}, behind on {down}, and on "
        f"{len(table) - up - down} the interval holds 0.{chosen}"
    )


def _caption(result: Result, measure: str, what: str) -> str:
    table = _measured(result, measure)
    if table.empty:
        return f"Differences of pairs in {what}: not known (n = 0 problems)."
    apart = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    low, high = table["problems"].min(), table["problems"].max()
    n = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"Differences of pairs in {what}, mean over problems with 95 % intervals by resampling problems (n = {n} "
        f"problems a pair): {apart} of {len(table)} intervals leave out 0, each for itself."
    )


def caption_pass_rate(result: Result) -> str:
    return _caption(result, "pass_rate", "the share of correct traces")


def caption_surprisal(result: Result) -> str:
    return _caption(result, "nll_mean", "surprisal per token under the base (log-perplexity)")


FIGURES = {
    "by_problem": Figure(draw_by_problem, "problems", caption_by_problem, 2),
    "pass_rate": Figure(draw_pass_rate, "differences", caption_pass_rate),
    "surprisal": Figure(draw_surprisal, "differences", caption_surprisal),
}
