"""The drawings of `clusters`: the map of traces and the effective number of clusters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.records import Figure, Result


def draw_map(result: Result, ax: Any) -> Any:
    """One point per trace around its problem's mean; filled where correct, hollow where wrong or unknown."""
    from analyzer.analysis.figures import styles

    table = result.tables["map"]
    look = styles(_labels(result))
    right = np.array([not pd.isna(c) and bool(c) for c in table["correct"]], dtype=bool)
    x, y = table["x"].astype(float).to_numpy(), table["y"].astype(float).to_numpy()
    for source in look:
        here = (table["source"] == source).to_numpy()
        if not here.any():
            continue
        style = look[source]
        ax.scatter(
            x[here & ~right],
            y[here & ~right],
            s=7,
            marker=style["marker"],
            facecolors="none",
            edgecolors=style["color"],
            linewidths=0.4,
            alpha=0.6,
        )
        ax.scatter(
            x[here & right], y[here & right], s=7, marker=style["marker"], color=style["color"], linewidths=0, alpha=0.8
        )
        ax.scatter([], [], s=14, marker=style["marker"], color=style["color"], label=source)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    ax.set(xlabel="first principal component (a.u.)", ylabel="second principal component (a.u.)")
    return ax


def draw_effective(result: Result, ax: Any) -> Any:
    """Effective number of clusters by source, mean over problems with its interval."""
    from analyzer.analysis.figures import styles

    table = result.tables["sources"]
    look = styles(table["source"])
    value, low, high = (table[c].astype(float).to_numpy() for c in ("effective", "low", "high"))
    error = np.nan_to_num(np.stack([value - low, high - value]))
    ax.bar(
        table["source"],
        value,
        yerr=error,
        color=[look[s]["color"] for s in table["source"]],
        alpha=0.8,
        capsize=2,
        error_kw={"linewidth": 0.8},
    )
    ax.tick_params(axis="x", labelrotation=30 if len(table) > 4 else 0)
    ax.set(ylabel="effective clusters per problem")
    return ax


def _labels(result: Result) -> list[str]:
    """Sources in the order of the run, the reference first."""
    return list(result.tables["sources"]["source"])


def caption_map(result: Result) -> str:
    table, at_most = result.tables["map"], result.params["map_points"]
    counts = table["source"].value_counts()
    parts = [f"{s} {counts[s]:,}" for s in _labels(result) if s in counts]
    return (
        f"Traces around the mean of their problem, two principal components of the {result.params['representation']} "
        f"(at most {at_most:,} points, as many per source); filled: correct. n = {len(table):,}: {', '.join(parts)}. "
        "Distances show wording as well as steps."
    )


def caption_effective(result: Result) -> str:
    parts = []
    for r in result.tables["sources"].to_dict("records"):
        known = r["low"] is not None and math.isfinite(r["low"])
        interval = f" [{r['low']:.2f}, {r['high']:.2f}]" if known else ""
        n = f"n = {r['n']:,} traces, {r['problems']} problems"
        parts.append(f"{r['source']} {r['effective']:.2f}{interval} ({n})")
    lead = "Effective number of clusters per problem, exp(entropy of the occupancy), mean over problems: "
    return lead + "; ".join(parts) + "."


FIGURES = {
    "map": Figure(draw_map, "map", caption_map),
    "effective": Figure(draw_effective, "sources", caption_effective),
}
