"""The drawing of `strategy`: how often each group of skeletons occurs in the source and in the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.analysis.drawing import above, look, nothing
from analyzer.records import Figure, Result


def draw(result: Result, ax: Any) -> Any:
    """One point per source and group of skeletons; above the line nothing but more than k draws could put it."""
    table, k = result.tables["groups"], result.params["budget"]
    table = table[table["representation"] == "skeleton"] if len(table) else table
    if len(table) == 0:
        return nothing(ax, "no source shares a problem with the reference")
    style = look([result.params["reference"], *result.params["order"]])
    floor_x, floor_y = 0.5 / float(table["n_reference"].max()), 0.5 / float(table["n_source"].max())
    for source in result.params["order"]:
        part = table[table["source"] == source]
        x = np.maximum(part["share_reference"].astype(float), floor_x)
        y = np.maximum(part["share_source"].astype(float), floor_y)
        sure = part["certified"].astype(bool).to_numpy()
        colour, marker = style[source]["color"], style[source]["marker"]
        ax.scatter(x[~sure], y[~sure], s=9, marker=marker, facecolors="none", edgecolors=colour, linewidths=0.5)
        ax.scatter(x[sure], y[sure], s=16, marker=marker, color=colour, linewidths=0, zorder=3)
        ax.scatter([], [], s=14, marker=marker, color=colour, label=source)
    edge = np.geomspace(floor_x / 2, 1.0, 50)
    for factor, line in ((k, "-"), (1, ":")):
        inside = factor * edge <= 1
        ax.plot(edge[inside], factor * edge[inside], color="0.4", linestyle=line, linewidth=0.8)
    at = min(floor_x * 2, 0.5 / k)
    ax.annotate(f"{k} times", (at, k * at), textcoords="offset points", xytext=(5, -7), ha="left")
    ax.annotate("equal", (0.3, 0.3), textcoords="offset points", xytext=(3, -8))
    ax.set(xscale="log", yscale="log", xlim=(floor_x / 2, 1.5), ylim=(floor_y / 2, 1.5))
    ax.set(xlabel="share of the reference's traces", ylabel="share of the source's traces")
    above(ax)
    return ax


def caption(result: Result) -> str:
    """The finding: which sources exceed k times the reference, with their largest certified group."""
    table, k = result.tables["strategy_test"], result.params["budget"]
    if len(table) == 0:
        return "No source shares a problem with the reference: no strategy could be tested. n = 0."
    rows = table[(table["representation"] == "skeleton") & (table["k"] == k)].to_dict("records")
    beyond = [
        f"{r['source']} ({r['best_cluster']}: {100 * r['share_source']:.1f} % against "
        f"{100 * r['share_reference']:.2f} %, p = {r['p']:.2g})"
        for r in rows
        if r["certified"]
    ]
    rest = [r["source"] for r in rows if not r["certified"]]
    head = f"Beyond {k} times the reference: {'; '.join(beyond)}. " if beyond else f"Nothing is beyond {k} times. "
    tail = f"Not certified: {', '.join(rest)}. " if rest else ""
    n = ", ".join(f"{r['source']} {r['n_source']:,}" for r in rows)
    return (
        f"Each point is a group of skeletons (a symbol used, or a cluster): its share of the source's traces against "
        f"its share of the reference's, on the half of the traces that did not choose the groups; solid line: {k} "
        f"times the reference, dotted: equal; filled: more than {k} times, p <= .05 after Holm over the groups; no "
        f"intervals. {head}{tail}Shares of zero are drawn at half a trace. "
        f"n = {n} traces; reference {max(r['n_reference'] for r in rows):,}."
    )


FIGURES = {"strategies": Figure(draw, "groups", caption)}
